// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// testLifetime is the lifetime of a CA: it is due after 120 s, propagates in 15 s, and leaves 45 s after its expiry.
const testLifetime = 3 * time.Minute

var epoch = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// at is a moment, in seconds after the first CA was made.
func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

// made makes a CA at that moment.
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
	rotating := caSet{current: first, next: second}
	rotated := caSet{current: second, previous: []*x509.Certificate{first.certificate}}
	never := time.Time{}
	cases := map[string]struct {
		held  caSet
		now   int
		since time.Time
		want  step
	}{
		"there is no CA":                                       {caSet{}, 0, never, replace},
		"a CA is fresh":                                        {alone, 1, never, keep},
		"a CA is not due":                                      {alone, 119, never, keep},
		"a CA is due after two thirds":                         {alone, 120, never, prepare},
		"the next CA is not registered":                        {rotating, 150, never, keep},
		"the next CA has just been registered":                 {rotating, 130, at(130), keep},
		"the next CA has not propagated":                       {rotating, 144, at(130), keep},
		"the next CA has propagated":                           {rotating, 145, at(130), promote},
		"the current CA expires before the next is registered": {rotating, 181, never, promote},
		"the current CA has expired, and there is no next":     {alone, 181, never, replace},
		"both have expired":                                    {rotating, 301, at(130), replace},
		"the next CA has expired, and the current is valid":    {caSet{current: third, next: second}, 301, never, keep},
		"the next CA has expired, and the current is due":      {caSet{current: third, next: second}, 420, never, prepare},
		"a replica may still serve a leaf of the previous CA":  {rotated, 180, never, keep},
		"a clock may be late":                                  {rotated, 225, never, keep},
		"the previous CA has expired":                          {rotated, 226, never, remove},
		"a rotation goes before a clean-up":                    {rotated, 241, never, prepare},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			p, live := paceOf(testLifetime), liveBundle{}
			if !tc.since.IsZero() {
				live.set(true, []*x509.Certificate{tc.held.next.certificate}, tc.since)
			}
			propagated := live.holdsFor(tc.held.next.certificate, p.propagation, at(tc.now))
			if got := p.step(tc.held, propagated, at(tc.now)); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestACAOfAnotherLifetimeIsRotatedInTime(t *testing.T) {
	year := paceOf(365 * 24 * time.Hour)
	day := func(days int) time.Time { return epoch.Add(time.Duration(days) * 24 * time.Hour) }
	cases := map[string]struct {
		from, to time.Time
		want     time.Time
	}{
		"a CA of ten years, made by an earlier version, after eight months": {epoch.Add(-backdating), day(3650), day(365).Add(-day(365).Sub(epoch) / 3)},
		"a CA that expires in an hour, at once":                             {epoch.Add(-backdating), epoch.Add(time.Hour), epoch.Add(time.Hour - 365*8*time.Hour)},
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

// names makes a comparison readable.
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
	rotating := caSet{current: first, next: second}
	rotated := caSet{current: second, previous: []*x509.Certificate{first.certificate}}
	cases := map[string]struct {
		held caSet
		step step
		now  int
		want []string
	}{
		"keep changes nothing":                    {rotating, keep, 130, []string{"second", "first signs"}},
		"prepare adds a CA that does not sign":    {caSet{current: first}, prepare, 240, []string{"fresh", "first signs"}},
		"prepare replaces an expired next CA":     {rotating, prepare, 240, []string{"fresh", "first signs"}},
		"promote keeps the old CA in the bundle":  {rotating, promote, 150, []string{"second signs", "first"}},
		"replace keeps the old CAs in the bundle": {rotated, replace, 400, []string{"fresh signs", "second", "first"}},
		"remove drops what has expired":           {rotated, remove, 226, []string{"second signs"}},
		"remove keeps what a replica may serve":   {rotated, remove, 225, []string{"second signs", "first"}},
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
