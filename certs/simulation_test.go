// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// secretOnly is the API server as far as it keeps the one Secret: it takes a write only over what its writer has read.
type secretOnly struct {
	corev1client.CoreV1Interface
	corev1client.SecretInterface
	data    map[string][]byte // nil: there is no Secret
	version int
	refuses bool // it takes no write
}

func (s *secretOnly) Secrets(string) corev1client.SecretInterface { return s }

func (s *secretOnly) Get(context.Context, string, metav1.GetOptions) (*corev1.Secret, error) {
	if s.data == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), SecretName)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.Itoa(s.version)}, Data: maps.Clone(s.data)}, nil
}

func (s *secretOnly) Apply(_ context.Context, secret *corev1apply.SecretApplyConfiguration, _ metav1.ApplyOptions) (*corev1.Secret, error) {
	if s.data != nil {
		return nil, s.conflict()
	}
	s.data, s.version = maps.Clone(secret.Data), s.version+1
	return nil, nil
}

func (s *secretOnly) Patch(_ context.Context, _ string, _ types.PatchType, body []byte, _ metav1.PatchOptions, _ ...string) (*corev1.Secret, error) {
	var patch struct {
		Metadata struct{ ResourceVersion string }
		Data     map[string][]byte
	}
	if err := json.Unmarshal(body, &patch); err != nil {
		return nil, err
	}
	if s.refuses {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, SecretName, nil)
	}
	if s.data == nil || patch.Metadata.ResourceVersion != strconv.Itoa(s.version) {
		return nil, s.conflict()
	}
	maps.Copy(s.data, patch.Data)
	maps.DeleteFunc(s.data, func(_ string, value []byte) bool { return value == nil })
	s.version++
	return nil, nil
}

func (s *secretOnly) conflict() error {
	return apierrors.NewConflict(corev1.Resource("secrets"), SecretName, errors.New("somebody was quicker"))
}

// world is two replicas, two API servers, and what is between them. Time passes in seconds.
type world struct {
	t       *testing.T
	chance  *rand.Rand
	now     time.Time
	secret  *secretOnly
	bundle  []byte // of the live registration; nil: there is none
	servers [2]apiServer
	// The replicas; nil is one that does not run.
	replicas [3]*Authority
	asleep   [3]int // seconds for which a replica reaches no API server
	changed  [3]bool
	leader   int
	sleepy   bool // replicas lose the API server for minutes
	signers  map[string]bool
	verified map[string]bool
	foreign  []*x509.Certificate // what an attacker has made
	restored time.Time           // when API servers must accept replicas again, after all of them have lost their keys
}

// apiServer sees the registration late.
type apiServer struct {
	bundle []byte
	behind int // seconds since it last saw all
}

func (w *world) registered(context.Context) ([]byte, bool, error) {
	return w.bundle, w.bundle != nil, nil
}

// start starts a replica, if the Secret lets it.
func (w *world) start(i int) {
	a, err := LoadAuthority(w.t.Context(), w.secret, Options{
		Namespace: "guard", Hosts: []string{"guard"}, CALifetime: testLifetime, LeafLifetime: 30 * time.Second,
		Registered: w.registered, Changed: func() { w.changed[i] = true }, Now: func() time.Time { return w.now },
	})
	if errors.Is(err, ErrUnusableCA) {
		return // it is started again and again
	}
	if err != nil {
		w.t.Fatalf("start replica %d: %v", i, err)
	}
	w.replicas[i], w.changed[i] = a, true
}

// second lets happen, by chance, what may happen within a second.
func (w *world) second() {
	w.now = w.now.Add(time.Second)
	for i := range w.servers {
		w.servers[i].behind++
		// It sees what was no more than the propagation time ago.
		if w.chance.IntN(4) == 0 || w.servers[i].behind >= 14 {
			w.servers[i] = apiServer{bundle: w.bundle}
		}
	}
	for _, i := range w.chance.Perm(len(w.replicas)) {
		w.live(i)
	}
	w.check()
}

// live is one replica's second.
func (w *world) live(i int) {
	a := w.replicas[i]
	switch {
	case a == nil:
		if w.chance.IntN(5) == 0 {
			w.start(i)
		}
		return
	case w.asleep[i] > 0:
		w.asleep[i]--
		return
	case w.sleepy && w.others(i) && w.chance.IntN(200) == 0:
		w.asleep[i] = w.chance.IntN(150)
		w.resign(i)
		return
	case w.others(i) && w.chance.IntN(200) == 0:
		w.replicas[i] = nil // it has ended
		w.resign(i)
		return
	}
	a.leading.Store(i == w.leader)
	if w.chance.IntN(2) == 0 {
		if err := a.round(w.t.Context(), a.leading.Load()); err != nil {
			w.t.Fatal(err)
		}
	}
	if i == w.leader && w.changed[i] && w.chance.IntN(3) > 0 {
		w.publish(i)
	}
}

// publish is the keeper of the registration.
func (w *world) publish(i int) {
	bundle, err := w.replicas[i].Refresh(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.bundle, w.changed[i] = bundle, false
	for _, certificate := range decodeBundle(bundle) {
		if contains(w.foreign, certificate) {
			w.t.Fatalf("%s: replica %d publishes a foreign authority", w.now, i)
		}
	}
}

// others says that some other replica can go on.
func (w *world) others(i int) bool {
	for other, a := range w.replicas {
		if other != i && a != nil && w.asleep[other] == 0 {
			return true
		}
	}
	return false
}

// resign passes the lease of a leader that cannot renew it on to a replica that can. It looks after the registration first of
// all.
func (w *world) resign(i int) {
	for _, other := range w.chance.Perm(len(w.replicas)) {
		if w.leader == i && other != i && w.replicas[other] != nil && w.asleep[other] == 0 {
			w.leader, w.changed[other] = other, true
		}
	}
}

// check is the promise: whatever a ready replica serves, every API server accepts.
func (w *world) check() {
	for i, a := range w.replicas {
		if a == nil {
			continue
		}
		state := a.State()
		if state.Ready(w.now) != nil {
			if !w.sleepy && state.Leaf == nil {
				w.t.Fatalf("%s: replica %d has no certificate: %s", w.now, i, state.Problem)
			}
			continue
		}
		w.signers[string(state.Authority.Raw)] = true
		for s, server := range w.servers {
			if server.bundle == nil || w.now.Before(w.restored) {
				continue // it knows of no registration, and calls nobody
			}
			if err := w.verify(state.Leaf, server.bundle); err != nil {
				w.t.Fatalf("%s: API server %d refuses replica %d: %v", w.now, s, i, err)
			}
		}
	}
}

// verify is what an API server does. It verifies each keyPair once, as the test's time is spent here.
func (w *world) verify(leaf *x509.Certificate, bundle []byte) error {
	key := string(leaf.Raw) + string(bundle)
	if w.now.After(leaf.NotAfter) || !w.verified[key] {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: poolOf(decodeBundle(bundle)), DNSName: "guard", CurrentTime: w.now})
		w.verified[key] = err == nil
		return err
	}
	return nil
}

// seeds is how many worlds of each kind are tried.
const seeds = 4

// Whatever happens to replicas, leaders, API servers and the Secret, and in whatever order: no API server ever sees a
// certificate that it does not accept, and the authorities go on rotating.
func TestNoAPIServerEverSeesAStranger(t *testing.T) {
	disturbances := map[string]func(*world){
		"of itself":                      func(*world) {},
		"with leaders that change":       func(w *world) { w.resign(w.leader) },
		"with replicas that are cut off": func(w *world) { w.sleepy = true },
		"with a Secret that is deleted":  func(w *world) { w.secret.data = nil },
		"with a Secret that is replaced": func(w *world) { w.secret.data, w.secret.version = w.stranger(), w.secret.version+1 },
		"with a Secret that is garbage": func(w *world) {
			w.secret.data, w.secret.version = map[string][]byte{currentCertKey: []byte("junk")}, w.secret.version+1
		},
		"with a registration that is deleted": func(w *world) { w.bundle, w.changed[w.leader] = nil, true },
	}
	for name, disturb := range disturbances {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(seeds) {
				w := &world{
					t: t, chance: rand.New(rand.NewPCG(seed, 1)), now: epoch, secret: &secretOnly{},
					signers: map[string]bool{}, verified: map[string]bool{},
				}
				for i := range w.replicas {
					w.start(i)
				}
				for range 1200 {
					if w.chance.IntN(60) == 0 && w.calm() {
						disturb(w)
					}
					w.second()
				}
				if len(w.signers) < 5 {
					t.Fatalf("seed %d: %d authorities signed in 20 minutes, want at least 5", seed, len(w.signers))
				}
			}
		})
	}
}

// An attacker who may write the Secret, and not read it, writes to it at any moment: while replicas start, all restart, leaders
// change and authorities rotate. No replica ever publishes a foreign authority, every API server accepts what a ready replica
// serves, and the rotation goes on.
func TestNoWriteToTheSecretGetsAForeignAuthorityPublished(t *testing.T) {
	beside := map[string]func(*world){
		"of itself":                    func(*world) {},
		"with leaders that change":     func(w *world) { w.resign(w.leader) },
		"with replicas that all start": (*world).restartAll,
	}
	for name, disturb := range beside {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(seeds) {
				w := &world{
					t: t, chance: rand.New(rand.NewPCG(seed, 2)), now: epoch, secret: &secretOnly{},
					signers: map[string]bool{}, verified: map[string]bool{},
				}
				for i := range w.replicas {
					w.start(i)
				}
				w.publish(w.leader)
				for range 1200 {
					if w.chance.IntN(15) == 0 {
						w.attack()
					}
					if w.chance.IntN(120) == 0 {
						disturb(w)
					}
					w.second()
				}
				if len(w.signers) < 5 {
					t.Fatalf("seed %d: %d authorities signed in 20 minutes, want at least 5", seed, len(w.signers))
				}
			}
		})
	}
}

// attack writes to some keys of the Secret, deletes it, or puts another one in its place.
func (w *world) attack() {
	data := maps.Clone(w.secret.data)
	switch w.chance.IntN(8) {
	case 0:
		data = nil
	case 1:
		data = w.stranger()
	default:
		if data == nil {
			return
		}
		for key, value := range w.forgeries() {
			switch w.chance.IntN(3) {
			case 0:
				data[key] = value
			case 1:
				if w.chance.IntN(4) == 0 {
					delete(data, key)
				}
			}
		}
	}
	w.secret.data, w.secret.version = data, w.secret.version+1
}

// forgeries are values for each key: a foreign authority, one that has expired, the certificate of no authority, or a copy of
// the one that signs.
func (w *world) forgeries() map[string][]byte {
	template := caTemplate(testLifetime, w.now)
	public := func(p keyPair) crypto.PublicKey { return p.key.Public() }
	switch w.chance.IntN(4) {
	case 0:
		template = caTemplate(testLifetime, w.now.Add(-2*testLifetime))
	case 1:
		template.IsCA, template.MaxPathLenZero, template.KeyUsage = false, false, x509.KeyUsageDigitalSignature
	case 2:
		if ours := decodeBundle(w.secret.data[currentCertKey]); len(ours) == 1 {
			template.ExtraExtensions = ours[0].Extensions
			public = func(keyPair) crypto.PublicKey { return ours[0].PublicKey }
		}
	}
	key, err := newKey()
	if err != nil {
		w.t.Fatal(err)
	}
	p := keyPair{key: key}
	p.certificate = signed(w.t, template, public(p), key)
	w.foreign = append(w.foreign, p.certificate)
	encodedKey, err := encodeKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	encoded := encodeBundle([]*x509.Certificate{p.certificate})
	return map[string][]byte{
		currentCertKey: encoded, currentKeyKey: encodedKey, nextCertKey: encoded, nextKeyKey: encodedKey, previousCertKey: encoded,
	}
}

// restartAll ends all replicas. Their keys are gone: if the Secret is foreign now, API servers refuse the guard until they have
// learned of its new authority, which nothing can avoid.
func (w *world) restartAll() {
	w.restored = w.now.Add(45 * time.Second)
	for i := range w.replicas {
		w.replicas[i] = nil
	}
	w.start(w.leader)
}

// calm says that nobody is about to start: a replica that starts on garbage does not start at all, and one that starts while
// the Secret is gone and everybody else asleep is a new beginning.
func (w *world) calm() bool {
	for i, a := range w.replicas {
		if a == nil || w.asleep[i] > 0 {
			return false
		}
	}
	return true
}

// stranger is a Secret of somebody else's.
func (w *world) stranger() map[string][]byte {
	p, err := newCA(keyPair{}, testLifetime, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.foreign = append(w.foreign, p.certificate)
	data, err := encode(caSet{current: p})
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// A replica that has slept through rotations and then leads must not publish what it remembers.
func TestTheRegistrationIsMadeOfWhatTheSecretHoldsNow(t *testing.T) {
	w := &world{t: t, now: epoch, secret: &secretOnly{}}
	w.start(0)
	w.start(1)
	awake, sleeper := w.replicas[0], w.replicas[1]
	awake.leading.Store(true)
	for range 300 {
		w.now = w.now.Add(time.Second)
		if err := awake.round(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		w.bundle = awake.Bundle()
	}
	if string(sleeper.Bundle()) == string(awake.Bundle()) {
		t.Fatal("nothing has changed while one replica slept")
	}
	bundle, err := sleeper.Refresh(t.Context())
	if err != nil || string(bundle) != string(awake.Bundle()) {
		t.Errorf("the replica that has slept would publish another bundle (%v)", err)
	}
}
