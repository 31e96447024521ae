// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"
)

const namespace = "guard"

// clock is a Now that a test sets, in whole seconds as in certificates.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time { return c.now }

func (c *clock) options() Options {
	return Options{
		Namespace: namespace,
		Hosts:     []string{"guard.guard.svc", "localhost", "192.0.2.7", "::1"},
		Now:       c.Now,
	}
}

// load calls LoadAuthority, which must succeed.
func load(t *testing.T, client Client, opts Options) *Authority {
	t.Helper()
	authority, err := LoadAuthority(t.Context(), client, opts)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

// leafOf returns the leaf that a handshake gets now.
func leafOf(t *testing.T, authority *Authority) *x509.Certificate {
	t.Helper()
	certificate, err := authority.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return certificate.Leaf
}

// caOf returns the only certificate in the bundle.
func caOf(t *testing.T, authority *Authority) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(authority.Bundle())
	if block == nil || len(rest) > 0 {
		t.Fatalf("bundle is not one PEM block: %q", authority.Bundle())
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestACAIsCreatedOnceAndThenReused(t *testing.T) {
	client := fake.NewClientset().CoreV1()
	first := load(t, client, newClock().options())
	second := load(t, client, newClock().options())
	if diff := cmp.Diff(string(first.Bundle()), string(second.Bundle())); diff != "" {
		t.Errorf("the second start has another CA (-first +second):\n%s", diff)
	}
	secret, err := client.Secrets(namespace).Get(t.Context(), SecretName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if secret.Type != corev1.SecretTypeTLS || len(secret.Data) != 2 {
		t.Errorf("Secret of type %s with %d keys, want %s with 2", secret.Type, len(secret.Data), corev1.SecretTypeTLS)
	}
	if _, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey]); err != nil {
		t.Errorf("the Secret's pair: %v", err)
	}
}

func TestTheNamespaceIsCreatedOnlyWhenItIsMissing(t *testing.T) {
	notFound := apierrors.NewNotFound(corev1.Resource("namespaces"), namespace)
	cases := map[string]struct {
		present bool
		faster  bool // another replica creates it in between
		want    int
	}{
		"an existing one is not changed": {present: true, want: 0},
		"a missing one is created":       {want: 1},
		"another replica was faster":     {faster: true, want: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			set := fake.NewClientset()
			exists, asked := tc.present, 0
			set.PrependReactor("patch", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
				return !exists, nil, notFound
			})
			set.PrependReactor("create", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
				exists, asked = true, asked+1
				return tc.faster, nil, apierrors.NewAlreadyExists(corev1.Resource("namespaces"), namespace)
			})
			load(t, set.CoreV1(), newClock().options())
			if asked != tc.want {
				t.Errorf("%d creates of the namespace, want %d", asked, tc.want)
			}
		})
	}
}

func TestEightReplicasThatStartTogetherAgreeOnOneCA(t *testing.T) {
	const replicas = 8
	client := &together{CoreV1Interface: fake.NewClientset().CoreV1()}
	client.missing.Add(replicas)
	bundles := make([]string, replicas)
	var done sync.WaitGroup
	for i := range bundles {
		done.Go(func() {
			authority, err := LoadAuthority(t.Context(), client, newClock().options())
			if err != nil {
				t.Error(err)
				return
			}
			bundles[i] = string(authority.Bundle())
		})
	}
	done.Wait()
	for i, bundle := range bundles {
		if bundle == "" || bundle != bundles[0] {
			t.Errorf("replica %d has another CA than replica 0", i)
		}
	}
}

// together is a client whose reads of a missing Secret wait for those of all replicas, so that each replica creates it.
type together struct {
	corev1client.CoreV1Interface
	missing sync.WaitGroup
}

func (c *together) Secrets(namespace string) corev1client.SecretInterface {
	return &togetherSecrets{c.CoreV1Interface.Secrets(namespace), &c.missing}
}

type togetherSecrets struct {
	corev1client.SecretInterface
	missing *sync.WaitGroup
}

func (s *togetherSecrets) Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.Secret, error) {
	secret, err := s.SecretInterface.Get(ctx, name, opts)
	if apierrors.IsNotFound(err) {
		s.missing.Done()
		s.missing.Wait()
	}
	return secret, err
}

func TestAnErrorOfTheAPIServerIsReturned(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("secrets"), SecretName, errors.New("no right"))
	for _, verb := range []string{"get", "patch"} {
		t.Run("on "+verb, func(t *testing.T) {
			set := fake.NewClientset()
			set.PrependReactor(verb, "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, nil, forbidden
			})
			_, err := LoadAuthority(t.Context(), set.CoreV1(), newClock().options())
			if !apierrors.IsForbidden(err) || errors.Is(err, ErrUnusableCA) {
				t.Errorf("error %v, want the API server's Forbidden", err)
			}
		})
	}
}

func TestAnErrorOfTheNamespaceIsReturned(t *testing.T) {
	set := fake.NewClientset()
	set.PrependReactor("patch", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(corev1.Resource("namespaces"), namespace)
	})
	set.PrependReactor("create", "namespaces", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(corev1.Resource("namespaces"), namespace, errors.New("no right"))
	})
	if _, err := LoadAuthority(t.Context(), set.CoreV1(), newClock().options()); !apierrors.IsForbidden(err) {
		t.Errorf("error %v, want the Forbidden of the namespace, which says what to do", err)
	}
}

func TestTheCASignsServingCertificatesOnly(t *testing.T) {
	at := newClock()
	ca := caOf(t, load(t, fake.NewClientset().CoreV1(), at.options()))
	got := map[string]any{
		"name": ca.Subject.CommonName, "ca": ca.IsCA, "pathLen": ca.MaxPathLen, "pathLenZero": ca.MaxPathLenZero,
		"usage": ca.KeyUsage, "from": ca.NotBefore, "to": ca.NotAfter,
		"p256": ca.PublicKey.(*ecdsa.PublicKey).Curve == elliptic.P256(),
	}
	want := map[string]any{
		"name": "apigw-guardian CA", "ca": true, "pathLen": 0, "pathLenZero": true,
		"usage": x509.KeyUsageCertSign, "from": at.now.Add(-time.Hour), "to": at.now.Add(DefaultCALifetime),
		"p256": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("CA (-want +got):\n%s", diff)
	}
}

func TestTheLeafIsValidForEveryHostAndNoOther(t *testing.T) {
	at := newClock()
	authority := load(t, fake.NewClientset().CoreV1(), at.options())
	leaf, roots := leafOf(t, authority), x509.NewCertPool()
	roots.AppendCertsFromPEM(authority.Bundle())
	verify := func(host string, usage x509.ExtKeyUsage, when time.Time) error {
		_, err := leaf.Verify(x509.VerifyOptions{
			DNSName: host, Roots: roots, CurrentTime: when, KeyUsages: []x509.ExtKeyUsage{usage},
		})
		return err
	}
	for _, host := range at.options().Hosts {
		if err := verify(host, x509.ExtKeyUsageServerAuth, at.now); err != nil {
			t.Errorf("host %s: %v", host, err)
		}
	}
	if err := verify("other.guard.svc", x509.ExtKeyUsageServerAuth, at.now); err == nil {
		t.Error("valid for another host")
	}
	if err := verify("localhost", x509.ExtKeyUsageClientAuth, at.now); err == nil {
		t.Error("valid as a client certificate")
	}
	if err := verify("localhost", x509.ExtKeyUsageServerAuth, at.now.Add(-backdating)); err != nil {
		t.Errorf("with a clock that is an hour late: %v", err)
	}
	if err := verify("localhost", x509.ExtKeyUsageServerAuth, at.now.Add(-backdating-time.Second)); err == nil {
		t.Error("valid before its time")
	}
}

func TestTheLeafIsRenewedAfterTwoThirdsOfItsLife(t *testing.T) {
	at := newClock()
	authority := load(t, fake.NewClientset().CoreV1(), at.options())
	start, first := at.now, leafOf(t, authority)
	if want := start.Add(DefaultLeafLifetime); !first.NotAfter.Equal(want) {
		t.Errorf("the first leaf expires %s, want %s", first.NotAfter, want)
	}
	due := start.Add((4*24 + 16) * time.Hour)
	at.now = due.Add(-time.Second)
	if leafOf(t, authority) != first {
		t.Error("renewed before two thirds of its life")
	}
	at.now = due
	second := leafOf(t, authority)
	if second == first || !second.NotAfter.Equal(due.Add(DefaultLeafLifetime)) {
		t.Errorf("at two thirds: a leaf until %s, want a new one for seven days", second.NotAfter)
	}
	if second.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("both leaves have the same serial number")
	}
	if err := second.CheckSignatureFrom(caOf(t, authority)); err != nil {
		t.Errorf("second leaf: %v", err)
	}
}

func TestTheLeafNeverOutlivesItsCA(t *testing.T) {
	at := newClock()
	opts := at.options()
	opts.CALifetime, opts.LeafLifetime = 10*time.Hour, 24*time.Hour
	authority := load(t, fake.NewClientset().CoreV1(), opts)
	end, leaf := at.now.Add(opts.CALifetime), leafOf(t, authority)
	if !leaf.NotAfter.Equal(end) {
		t.Errorf("the leaf expires %s, want %s, like its CA", leaf.NotAfter, end)
	}
	at.now = end.Add(-time.Second)
	if leafOf(t, authority) != leaf {
		t.Error("renewed although a new leaf cannot live longer")
	}
	at.now = end.Add(time.Second)
	if _, err := authority.GetCertificate(nil); !errors.Is(err, ErrUnusableCA) {
		t.Errorf("after the CA has expired: error %v, want ErrUnusableCA", err)
	}
}

func TestConcurrentHandshakesGetOneLeaf(t *testing.T) {
	authority := load(t, fake.NewClientset().CoreV1(), newClock().options())
	leaves := make([]*tls.Certificate, 16)
	var done sync.WaitGroup
	for i := range leaves {
		done.Go(func() { leaves[i], _ = authority.GetCertificate(nil) })
	}
	done.Wait()
	for i, leaf := range leaves {
		if leaf == nil || leaf != leaves[0] {
			t.Errorf("handshake %d got another leaf than handshake 0", i)
		}
	}
}

func TestTheBundleIsTheCallers(t *testing.T) {
	authority := load(t, fake.NewClientset().CoreV1(), newClock().options())
	clear(authority.Bundle())
	caOf(t, authority)
}
