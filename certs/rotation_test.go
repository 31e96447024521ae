// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The lifetime of the tests: an authority is due after 120 s, signs 15 s after it was shown, and leaves 45 s after its end.
const testLifetime = 3 * time.Minute

var epoch = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// at is a moment, in seconds since the first authority was made.
func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

// made is an authority of that moment.
func made(t *testing.T, seconds int) keyPair {
	t.Helper()
	p, err := newCA(keyPair{}, testLifetime, at(seconds))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTheNextStepOfARotation(t *testing.T) {
	first, second, third := made(t, 0), made(t, 120), made(t, 300)
	alone := caSet{current: first}
	awaited := caSet{current: first, next: second}
	rotated := caSet{current: second, previous: []*x509.Certificate{first.certificate}}
	never := time.Time{}
	cases := map[string]struct {
		held       caSet
		now        int
		shownSince time.Time
		want       step
	}{
		"there is none at all":                                {caSet{}, 0, never, replace},
		"one is fresh":                                        {alone, 1, never, keep},
		"one is not yet due":                                  {alone, 119, never, keep},
		"one is due at two thirds":                            {alone, 120, never, prepare},
		"the successor is not shown":                          {awaited, 150, never, keep},
		"the successor has just been shown":                   {awaited, 130, at(130), keep},
		"an API server may not have noticed the successor":    {awaited, 144, at(130), keep},
		"every API server has noticed the successor":          {awaited, 145, at(130), promote},
		"the signer ends before the successor is shown":       {awaited, 181, never, promote},
		"the signer has ended, and has no successor":          {alone, 181, never, replace},
		"both have ended":                                     {awaited, 301, at(130), replace},
		"the successor has ended unseen and the signer is up": {caSet{current: third, next: second}, 301, never, keep},
		"the successor has ended and the signer is due":       {caSet{current: third, next: second}, 420, never, prepare},
		"leaves of the previous one may still be served":      {rotated, 180, never, keep},
		"a clock may be late":                                 {rotated, 225, never, keep},
		"the previous one is of no use to anybody":            {rotated, 226, never, remove},
		"a rotation goes before a clean-up":                   {rotated, 241, never, prepare},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p, live := paceOf(testLifetime), liveBundle{}
			if !tc.shownSince.IsZero() {
				live.set(true, []*x509.Certificate{tc.held.next.certificate}, tc.shownSince)
			}
			propagated := live.holdsFor(tc.held.next.certificate, p.propagation, at(tc.now))
			if got := p.step(tc.held, propagated, at(tc.now)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestAnAuthorityOfAnotherLifetimeIsDueInTime(t *testing.T) {
	year := paceOf(365 * 24 * time.Hour)
	day := func(days int) time.Time { return epoch.Add(time.Duration(days) * 24 * time.Hour) }
	cases := map[string]struct {
		from, to time.Time
		want     time.Time
	}{
		"one of ten years, made by an earlier version, after eight months": {epoch.Add(-backdating), day(3650), day(365).Add(-day(365).Sub(epoch) / 3)},
		"one that ends in an hour, at once":                                {epoch.Add(-backdating), epoch.Add(time.Hour), epoch.Add(time.Hour - 365*8*time.Hour)},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := year.due(&x509.Certificate{NotBefore: tc.from, NotAfter: tc.to})
			if diff := got.Sub(tc.want).Abs(); diff > time.Second {
				t.Errorf("due %s, want %s", got, tc.want)
			}
		})
	}
}

// names of certificates make a comparison readable.
func names(known map[string]keyPair, a caSet) []string {
	var list []string
	for _, c := range a.bundle() {
		for name, p := range known {
			if p.certificate.Equal(c) {
				if p.certificate.Equal(a.current.certificate) {
					name += " signs"
				}
				list = append(list, name)
			}
		}
	}
	return list
}

func TestWhatAStepChanges(t *testing.T) {
	known := map[string]keyPair{"first": made(t, 0), "second": made(t, 120), "fresh": made(t, 240)}
	first, second := known["first"], known["second"]
	awaited := caSet{current: first, next: second}
	rotated := caSet{current: second, previous: []*x509.Certificate{first.certificate}}
	cases := map[string]struct {
		held caSet
		step step
		now  int
		want []string
	}{
		"keep changes nothing":                     {awaited, keep, 130, []string{"second", "first signs"}},
		"prepare adds one that does not sign":      {caSet{current: first}, prepare, 240, []string{"fresh", "first signs"}},
		"prepare takes the place of a dead one":    {awaited, prepare, 240, []string{"fresh", "first signs"}},
		"promote keeps the old one in the bundle":  {awaited, promote, 150, []string{"second signs", "first"}},
		"replace begins anew, and forgets nothing": {rotated, replace, 400, []string{"fresh signs", "second", "first"}},
		"forget drops what has ended":              {rotated, remove, 226, []string{"second signs"}},
		"forget spares what may be served":         {rotated, remove, 225, []string{"second signs", "first"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			before := names(known, tc.held)
			got := paceOf(testLifetime).take(tc.held, tc.step, known["fresh"], at(tc.now))
			if diff := cmp.Diff(tc.want, names(known, got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, names(known, tc.held)); diff != "" {
				t.Errorf("the step changed its argument:\n%s", diff)
			}
		})
	}
}

func TestACertificateThatWasAbsentPropagatesAnew(t *testing.T) {
	first, second := made(t, 0).certificate, made(t, 120).certificate
	var live liveBundle
	live.set(true, []*x509.Certificate{first}, at(1))
	live.set(true, []*x509.Certificate{first, second}, at(2))
	if !live.since[string(first.Raw)].Equal(at(1)) || !live.since[string(second.Raw)].Equal(at(2)) {
		t.Errorf("since %v", live.since)
	}
	live.set(true, []*x509.Certificate{second}, at(3))
	if live.holdsFor(first, 0, at(3)) || live.holdsFor(nil, 0, at(3)) {
		t.Error("the bundle holds an absent certificate")
	}
	live.set(true, []*x509.Certificate{first, second}, at(4))
	if !live.since[string(first.Raw)].Equal(at(4)) || !live.since[string(second.Raw)].Equal(at(2)) {
		t.Errorf("after a gap: since %v", live.since)
	}
}
