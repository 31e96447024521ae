// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// after makes a CA at that moment, with the endorsement of its predecessor.
func after(t *testing.T, before keyPair, seconds int) keyPair {
	t.Helper()
	p, err := newCA(before, testLifetime, at(seconds))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// signed makes a certificate for the public key, and signs it with any key in the template's name.
func signed(t *testing.T, template *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// copied makes a certificate with the name and public key of another one, and other contents. The attacker signs it, without
// the key of the original.
func copied(t *testing.T, original *x509.Certificate, attacker keyPair) *x509.Certificate {
	t.Helper()
	template := caTemplate(100*testLifetime, at(0))
	template.ExtraExtensions = original.Extensions
	return signed(t, template, original.PublicKey, attacker.key)
}

// extended makes a CA of the attacker with an endorsement that is copied from another certificate.
func extended(t *testing.T, original *x509.Certificate) keyPair {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template := caTemplate(testLifetime, at(0))
	for _, e := range original.Extensions {
		if e.Id.Equal(endorsementOID()) {
			template.ExtraExtensions = append(template.ExtraExtensions, e)
		}
	}
	return keyPair{certificate: signed(t, template, key.Public(), key), key: key}
}

func TestOnlyTheHolderOfTheKeyEndorses(t *testing.T) {
	first, attacker := made(t, 0), made(t, 0)
	second := after(t, first, 120)
	cases := map[string]struct {
		ca, successor *x509.Certificate
		want          bool
	}{
		"the successor":                              {first.certificate, second.certificate, true},
		"the reverse":                                {second.certificate, first.certificate, false},
		"a CA without an endorsement":                {first.certificate, attacker.certificate, false},
		"a CA that the attacker endorses":            {first.certificate, after(t, attacker, 120).certificate, false},
		"the endorsement of another key":             {first.certificate, extended(t, second.certificate).certificate, false},
		"a copy of the successor with other content": {first.certificate, copied(t, second.certificate, attacker), false},
		"a copy of the first one as the predecessor": {attacker.certificate, second.certificate, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := endorses(tc.ca, tc.successor); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

// An administrator's CA may have any kind of key.
func TestEveryKindOfKeyEndorses(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey, "Ed25519": edKey, "P-384": ecKey} {
		t.Run(name, func(t *testing.T) {
			template := caTemplate(testLifetime, at(0))
			certificate := signed(t, template, key.Public(), key)
			first := keyPair{certificate: certificate, key: key}
			if second := after(t, first, 120); !endorses(certificate, second.certificate) || endorses(made(t, 0).certificate, second.certificate) {
				t.Error("the endorsement does not prove what it must")
			}
		})
	}
}

func TestWhichCAsAReplicaHolds(t *testing.T) {
	first := made(t, 0)
	second := after(t, first, 120)
	third := after(t, second, 240)
	old, unknown := made(t, 120), made(t, 60) // old is of a version that endorses nothing
	forged := extended(t, second.certificate)
	lapsed := made(t, -400)
	twin := keyPair{certificate: copied(t, first.certificate, unknown)}
	known := map[string]keyPair{
		"first": first, "second": second, "third": third, "old": old, "unknown": unknown, "forged": forged, "lapsed": lapsed, "twin": twin,
	}
	of := func(pairs ...keyPair) (list []*x509.Certificate) {
		for _, p := range pairs {
			list = append(list, p.certificate)
		}
		return list
	}
	hold, rotating := caSet{current: first}, caSet{current: first, next: second}
	rotated := caSet{current: second, previous: of(first)}
	cases := map[string]struct {
		held, stored caSet
		new          bool // the webhook configuration has never held its CA
		since        int  // when the webhook configuration got its CAs
		live         []*x509.Certificate
		now          int
		want         []string
		unproven     bool
	}{
		"a next CA appears":          {held: hold, stored: rotating, now: 121, want: []string{"second", "first signs"}},
		"the current CA has changed": {held: hold, stored: rotated, now: 150, want: []string{"second signs", "first"}},
		"two rotations were missed": {
			held: hold, stored: caSet{current: third, previous: of(second)}, now: 300, want: []string{"third signs", "second"},
		},
		"two rotations were missed, and there is no webhook configuration": {
			held: hold, stored: caSet{current: third, previous: of(second, first)}, now: 200, want: []string{"third signs", "second", "first"},
		},
		"an unknown current CA": {held: hold, stored: caSet{current: unknown}, live: of(first), now: 90, want: []string{"first signs"}, unproven: true},
		"an unknown current CA, and all known ones": {
			held: rotating, stored: caSet{current: unknown, next: second, previous: of(first)}, live: of(first), now: 130,
			want: []string{"second", "first signs"}, unproven: true,
		},
		"an unknown next CA":               {held: hold, stored: caSet{current: first, next: unknown}, live: of(first), now: 121, want: []string{"first signs"}},
		"an unknown next CA replaces ours": {held: rotating, stored: caSet{current: first, next: unknown}, live: of(first), now: 121, want: []string{"second", "first signs"}},
		"a copied endorsement":             {held: hold, stored: caSet{current: first, next: forged}, live: of(first), now: 121, want: []string{"first signs"}},
		"an unknown previous CA":           {held: hold, stored: caSet{current: first, previous: of(unknown, lapsed)}, live: of(first), now: 121, want: []string{"first signs"}},
		"a copy of ours, re-signed":        {held: hold, stored: caSet{current: first, previous: of(twin)}, live: of(first), now: 121, want: []string{"first signs"}},
		"a copy of an earlier one, re-signed": {
			held: caSet{current: second}, stored: caSet{current: second, previous: of(twin)}, live: of(second), now: 121, want: []string{"second signs"},
		},
		"an unknown CA that has expired": {held: hold, stored: caSet{current: lapsed}, live: of(first), now: 90, want: []string{"first signs"}, unproven: true},
		"an unknown CA after ours has expired": {
			held: hold, stored: caSet{current: unknown}, live: of(first), now: 190, want: []string{"first signs"}, unproven: true,
		},
		"the next CA was removed":                     {held: rotating, stored: hold, now: 130, want: []string{"second", "first signs"}},
		"a previous CA was removed":                   {held: rotated, stored: caSet{current: second}, now: 150, want: []string{"second signs", "first"}},
		"a previous CA that has expired was removed":  {held: rotated, stored: caSet{current: second}, now: 226, want: []string{"second signs"}},
		"an earlier state of the Secret was restored": {held: rotated, stored: hold, now: 150, want: []string{"first signs", "second"}},
		"the webhook configuration holds CAs of a rotation that this replica missed, and the Secret an unknown CA": {
			held: hold, stored: caSet{current: unknown}, live: of(second, first), now: 150, want: []string{"first signs", "second"}, unproven: true,
		},
		"the webhook configuration was changed, too, a moment ago": {
			held: hold, stored: caSet{current: unknown}, live: of(unknown), since: 80, now: 90, want: []string{"first signs"}, unproven: true,
		},
		"an earlier version rotates": {
			held: hold, stored: caSet{current: first, next: old}, live: of(old, first), since: 100, now: 121, want: []string{"old", "first signs"},
		},
		"an earlier version has just begun a rotation": {
			held: hold, stored: caSet{current: first, next: old}, live: of(old, first), since: 120, now: 121, want: []string{"first signs"},
		},
		"a start follows the webhook configuration": {
			held: caSet{current: old}, new: true, stored: rotated, live: of(second), since: 120, now: 121, want: []string{"second signs", "first"},
		},
		"a start follows what a registered CA endorses": {
			held: caSet{current: old}, new: true, stored: rotated, live: of(first), since: 120, now: 121, want: []string{"second signs", "first"},
		},
		"a start does not follow an unknown CA": {
			held: caSet{current: old}, new: true, stored: caSet{current: unknown}, live: of(first), since: 1, now: 121, want: []string{"old signs"}, unproven: true,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			var live liveBundle
			live.set(tc.live != nil, tc.live, at(tc.since))
			c := trust{held: tc.held, anchored: !tc.new, live: &live, pace: paceOf(testLifetime)}
			next, proven := c.merge(tc.stored, c.anchors(at(tc.now)), at(tc.now))
			if diff := cmp.Diff(tc.want, names(known, next)); diff != "" || proven == tc.unproven {
				t.Errorf("proven %v (-want +got):\n%s", proven, diff)
			}
		})
	}
}

// dataOf returns the data of the Secret.
func dataOf(t *testing.T, a caSet) map[string][]byte {
	t.Helper()
	data, err := encode(a)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// After all replicas have ended, a start depends on the Secret and the webhook configuration only.
func TestTheStartOfAReplica(t *testing.T) {
	first, unknown, lapsed := made(t, 0), made(t, 0), made(t, -400)
	second := after(t, first, 120)
	bundleOf := func(pairs ...keyPair) []byte {
		var bundle []*x509.Certificate
		for _, p := range pairs {
			bundle = append(bundle, p.certificate)
		}
		return encodeBundle(bundle)
	}
	cases := map[string]struct {
		stored     map[string][]byte
		registered []byte
		now        int
		fresh      bool     // a new CA signs
		waits      bool     // API servers may not trust the CA that signs
		want       []string // the CAs of the bundle, if they have a name here
	}{
		"the current CA is registered":                                  {stored: dataOf(t, caSet{current: first}), registered: bundleOf(first), want: []string{"first"}},
		"there is no webhook configuration":                             {stored: dataOf(t, caSet{current: first}), want: []string{"first"}},
		"the next CA is not registered yet":                             {stored: dataOf(t, caSet{current: first, next: second}), registered: bundleOf(first), now: 121, want: []string{"second", "first"}},
		"a previous CA was removed":                                     {stored: dataOf(t, caSet{current: second}), registered: bundleOf(second, first), now: 150, want: []string{"second", "first"}},
		"the current CA is unknown":                                     {stored: dataOf(t, caSet{current: unknown}), registered: bundleOf(first), fresh: true, want: []string{"first"}},
		"the current CA has expired":                                    {stored: dataOf(t, caSet{current: first}), registered: bundleOf(first), now: 190, fresh: true, want: []string{"first"}},
		"an unknown current CA has expired":                             {stored: dataOf(t, caSet{current: lapsed}), registered: bundleOf(first), fresh: true, want: []string{"first"}},
		"the Secret is junk":                                            {stored: map[string][]byte{currentCertKey: []byte("junk")}, registered: bundleOf(first), fresh: true, want: []string{"first"}},
		"the Secret is missing":                                         {registered: bundleOf(first), fresh: true, want: []string{"first"}},
		"the next CA is unknown":                                        {stored: dataOf(t, caSet{current: first, next: unknown}), registered: bundleOf(first), want: []string{"first"}},
		"the next CA is unknown, and there is no webhook configuration": {stored: dataOf(t, caSet{current: first, next: unknown}), want: []string{"first"}},
		"a previous CA is unknown": {
			stored: dataOf(t, caSet{current: first, previous: []*x509.Certificate{unknown.certificate}}), registered: bundleOf(first), want: []string{"first"},
		},
		"a previous CA is unknown, and there is no webhook configuration": {
			stored: dataOf(t, caSet{current: first, previous: []*x509.Certificate{unknown.certificate}}), want: []string{"first"},
		},
		"the webhook configuration holds an unknown CA, too": {stored: dataOf(t, caSet{current: first}), registered: bundleOf(unknown, first), waits: true, want: []string{"first"}},
	}
	known := map[string]*x509.Certificate{"first": first.certificate, "second": second.certificate, "unknown": unknown.certificate, "lapsed": lapsed.certificate}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, now: at(tc.now), secret: &secretOnly{data: tc.stored}, bundle: tc.registered}
			w.start(0)
			a := w.replicas[0]
			var got []string
			for _, certificate := range decodeBundle(a.Bundle()) {
				for name, c := range known {
					if c.Equal(certificate) {
						got = append(got, name)
					}
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("bundle (-want +got):\n%s", diff)
			}
			state := a.State()
			if fresh := a.made != nil && state.Authority.Equal(a.made); fresh != tc.fresh || fresh != (state.Replaced == 1) {
				t.Errorf("a new CA signs: %v, %d were replaced", fresh, state.Replaced)
			}
			if ready := state.Ready(w.now) == nil; ready == (tc.fresh || tc.waits) {
				t.Errorf("ready %v", ready)
			}
			if tc.fresh && state.Problem == "" {
				t.Error("the state has no problem")
			}
		})
	}
}

// A replica that makes a new CA at its start leaves the Secret to the leader, and follows it after it is proven.
func TestAReplicaThatStartsOverFollowsTheLeader(t *testing.T) {
	unknown := dataOf(t, caSet{current: made(t, 0)})
	w := &world{t: t, now: epoch, secret: &secretOnly{}}
	w.start(0)
	leader := w.replicas[0]
	leader.leading.Store(true)
	w.bundle = leader.Bundle()
	w.secret.data, w.secret.version = unknown, 7
	w.start(1)
	starter := w.replicas[1]
	if starter.Bundle(); w.secret.version != 7 || starter.State().Authority.Equal(leader.State().Authority) {
		t.Fatal("the starting replica has written the Secret, or knows the key of the leader")
	}
	for _, a := range []*Authority{leader, starter} {
		if err := a.round(t.Context(), a.leading.Load()); err != nil {
			t.Fatal(err)
		}
	}
	if !starter.State().Authority.Equal(leader.State().Authority) || starter.State().Ready(w.now) != nil {
		t.Error("the starting replica does not follow the leader")
	}
	if leader.State().Tampered != 1 {
		t.Errorf("the leader counts %d unknown CAs, want 1", leader.State().Tampered)
	}
}

// A Secret that refuses every write, like an immutable one, is reported before the CA expires.
func TestASecretThatCannotBeWrittenIsReported(t *testing.T) {
	w := &world{t: t, now: epoch, secret: &secretOnly{}}
	w.start(0)
	a := w.replicas[0]
	a.leading.Store(true)
	w.secret.refuses = true
	w.now = at(125)
	if err := a.round(t.Context(), a.leading.Load()); err == nil || a.State().Problem == "" {
		t.Errorf("error %v, problem %q", err, a.State().Problem)
	}
}

// Another client may empty the webhook configuration right after its creation. That says nothing against the CA.
func TestAnEmptiedWebhookConfigurationReplacesNoCA(t *testing.T) {
	w := &world{t: t, now: epoch, secret: &secretOnly{}}
	w.start(0)
	w.start(1) // it reads the CA from the Secret
	a := w.replicas[1]
	before := a.State().Authority
	w.bundle = []byte{}
	if err := a.round(t.Context(), a.leading.Load()); err != nil {
		t.Fatal(err)
	}
	if state := a.State(); !state.Authority.Equal(before) || state.Replaced != 0 {
		t.Errorf("the CA was replaced %d times", state.Replaced)
	}
}
