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
	"os"
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

// secretOnly is an API server that stores one Secret. It accepts a write only if the writer has read the last version.
type secretOnly struct {
	corev1client.CoreV1Interface
	corev1client.SecretInterface
	data    map[string][]byte // nil: there is no Secret
	version int
	refuses bool // it refuses every write
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
	return apierrors.NewConflict(corev1.Resource("secrets"), SecretName, errors.New("another client was faster"))
}

// world is three replicas and two API servers. Its time passes in seconds.
type world struct {
	t       *testing.T
	chance  *rand.Rand
	now     time.Time
	secret  *secretOnly
	bundle  []byte // of the live webhook configuration; nil: there is none
	servers [2]apiServer
	// nil for a replica that does not run
	replicas [3]*Authority
	asleep   [3]int // seconds for which a replica reaches no API server
	changed  [3]bool
	leader   int
	sleepy   bool // replicas lose the API server for minutes
	signers  map[string]bool
	verified map[string]bool
	unknown  []*x509.Certificate // made by an attacker
	restored time.Time           // when API servers must accept replicas again, after all of them have lost their keys
}

// apiServer reads the webhook configuration late.
type apiServer struct {
	bundle []byte
	behind int // seconds since it last read all
}

func (w *world) registered(context.Context) ([]byte, bool, error) {
	return w.bundle, w.bundle != nil, nil
}

// start starts a replica, unless the Secret is unusable.
func (w *world) start(i int) {
	a, err := LoadAuthority(w.t.Context(), w.secret, Options{
		Namespace: "guard", Hosts: []string{"guard"}, CALifetime: testLifetime, LeafLifetime: 30 * time.Second,
		Registered: w.registered, Changed: func() { w.changed[i] = true }, Now: func() time.Time { return w.now },
	})
	if errors.Is(err, ErrUnusableCA) {
		return // the next second tries again
	}
	if err != nil {
		w.t.Fatalf("start replica %d: %v", i, err)
	}
	w.replicas[i], w.changed[i] = a, true
}

// second plays one second, by chance.
func (w *world) second() {
	w.now = w.now.Add(time.Second)
	for i := range w.servers {
		w.servers[i].behind++
		// It is late by less than the propagation time.
		if w.chance.IntN(4) == 0 || w.servers[i].behind >= 14 {
			w.servers[i] = apiServer{bundle: w.bundle}
		}
	}
	for _, i := range w.chance.Perm(len(w.replicas)) {
		w.live(i)
	}
	w.check()
}

// live plays one second of a replica.
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

// publish writes the webhook configuration.
func (w *world) publish(i int) {
	bundle, err := w.replicas[i].Refresh(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	w.bundle, w.changed[i] = bundle, false
	for _, certificate := range decodeBundle(bundle) {
		if contains(w.unknown, certificate) {
			w.t.Fatalf("%s: replica %d publishes an unknown CA", w.now, i)
		}
	}
}

// others reports whether another replica can go on.
func (w *world) others(i int) bool {
	for other, a := range w.replicas {
		if other != i && a != nil && w.asleep[other] == 0 {
			return true
		}
	}
	return false
}

// resign passes the lease of a leader to another replica, which then publishes first of all.
func (w *world) resign(i int) {
	for _, other := range w.chance.Perm(len(w.replicas)) {
		if w.leader == i && other != i && w.replicas[other] != nil && w.asleep[other] == 0 {
			w.leader, w.changed[other] = other, true
		}
	}
}

// check requires that every API server accepts every ready replica.
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
				continue // without a webhook configuration it calls no replica
			}
			if err := w.verify(state.Leaf, server.bundle); err != nil {
				w.t.Fatalf("%s: API server %d refuses replica %d: %v", w.now, s, i, err)
			}
		}
	}
}

// verify does what an API server does, once per leaf and bundle: it takes most of the test's time.
func (w *world) verify(leaf *x509.Certificate, bundle []byte) error {
	key := string(leaf.Raw) + string(bundle)
	if w.now.After(leaf.NotAfter) || !w.verified[key] {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: poolOf(decodeBundle(bundle)), DNSName: "guard", CurrentTime: w.now})
		w.verified[key] = err == nil
		return err
	}
	return nil
}

// seeds is how many worlds of each kind are played. E2E_FULL=1 plays more.
func seeds() uint64 {
	if os.Getenv("E2E_FULL") != "" {
		return 10
	}
	return 2
}

// play plays 20 minutes of worlds in parallel, with a disturbance before each second.
func play(t *testing.T, prepare, disturb func(*world)) {
	t.Helper()
	for seed := range seeds() {
		t.Run("seed "+strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			w := &world{
				t: t, chance: rand.New(rand.NewPCG(seed, 1)), now: epoch, secret: &secretOnly{},
				signers: map[string]bool{}, verified: map[string]bool{},
			}
			for i := range w.replicas {
				w.start(i)
			}
			prepare(w)
			for range 1200 {
				disturb(w)
				w.second()
			}
			if len(w.signers) < 5 {
				t.Fatalf("%d CAs signed in 20 minutes, want at least 5", len(w.signers))
			}
		})
	}
}

// Whatever happens to replicas, leaders, API servers and the Secret, in any order: every API server accepts every ready replica, and
// the rotation goes on.
func TestEveryAPIServerAcceptsEveryReplica(t *testing.T) {
	for name, disturb := range map[string]func(*world){
		"without disturbance":            func(*world) {},
		"with a change of leadership":    func(w *world) { w.resign(w.leader) },
		"with replicas that are cut off": func(w *world) { w.sleepy = true },
		"with a Secret that is deleted":  func(w *world) { w.secret.data = nil },
		"with a Secret of an unknown CA": func(w *world) { w.secret.data, w.secret.version = w.unknownSecret(), w.secret.version+1 },
		"with a Secret that is unusable": func(w *world) {
			w.secret.data, w.secret.version = map[string][]byte{currentCertKey: []byte("junk")}, w.secret.version+1
		},
		"with a webhook configuration that is deleted": func(w *world) { w.bundle, w.changed[w.leader] = nil, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, func(*world) {}, func(w *world) {
				if w.chance.IntN(60) == 0 && w.calm() {
					disturb(w)
				}
			})
		})
	}
}

// An attacker who may write the Secret, and not read it, writes it at any moment: while replicas start, all restart, leaders
// change and CAs rotate. No replica publishes an unknown CA, every API server accepts every ready replica, and the rotation goes on.
func TestNoWriteToTheSecretGetsAnUnknownCAPublished(t *testing.T) {
	for name, disturb := range map[string]func(*world){
		"without disturbance":         func(*world) {},
		"with a change of leadership": func(w *world) { w.resign(w.leader) },
		"with a restart of all":       (*world).restartAll,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, func(w *world) { w.publish(w.leader) }, func(w *world) {
				if w.chance.IntN(15) == 0 {
					w.attack()
				}
				if w.chance.IntN(120) == 0 {
					disturb(w)
				}
			})
		})
	}
}

// attack writes some keys of the Secret, deletes it, or replaces it.
func (w *world) attack() {
	data := maps.Clone(w.secret.data)
	switch w.chance.IntN(8) {
	case 0:
		data = nil
	case 1:
		data = w.unknownSecret()
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

// forgeries are values for each key: an unknown CA, an expired one, a certificate that is no CA, or a copy of the current CA.
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
	w.unknown = append(w.unknown, p.certificate)
	encodedKey, err := encodeKey(key)
	if err != nil {
		w.t.Fatal(err)
	}
	encoded := encodeBundle([]*x509.Certificate{p.certificate})
	return map[string][]byte{
		currentCertKey: encoded, currentKeyKey: encodedKey, nextCertKey: encoded, nextKeyKey: encodedKey, previousCertKey: encoded,
	}
}

// restartAll ends all replicas. Their keys are lost: if the Secret holds an unknown CA, API servers refuse the guard until they trust
// its new CA.
func (w *world) restartAll() {
	w.restored = w.now.Add(45 * time.Second)
	for i := range w.replicas {
		w.replicas[i] = nil
	}
	w.start(w.leader)
}

// calm reports whether all replicas run: a replica does not start with an unusable Secret, and makes a new CA without one.
func (w *world) calm() bool {
	for i, a := range w.replicas {
		if a == nil || w.asleep[i] > 0 {
			return false
		}
	}
	return true
}

// unknownSecret is the data of a Secret with a CA of the attacker.
func (w *world) unknownSecret() map[string][]byte {
	p, err := newCA(keyPair{}, testLifetime, w.now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.unknown = append(w.unknown, p.certificate)
	data, err := encode(caSet{current: p})
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// A replica that missed rotations and then leads must not publish its memory.
func TestRefreshReadsTheSecretAnew(t *testing.T) {
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
		t.Fatal("nothing has changed while one replica was asleep")
	}
	bundle, err := sleeper.Refresh(t.Context())
	if err != nil || string(bundle) != string(awake.Bundle()) {
		t.Errorf("the replica that was asleep would publish another bundle (%v)", err)
	}
}
