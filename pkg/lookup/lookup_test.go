// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package lookup

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
)

const (
	namespace = "kube-system"
	account   = "apigw-ingress"
)

var errBroken = errors.New("broken")

func configMap(namespace, name, key, value string) *corev1.ConfigMap {
	object := &corev1.ConfigMap{Data: map[string]string{key: value}}
	object.Namespace, object.Name = namespace, name
	return object
}

// newReader returns a Reader of a cluster with these objects, or of one that answers every read with err.
func newReader(err error, objects ...runtime.Object) Reader {
	client := fake.NewClientset(objects...)
	if err != nil {
		client.PrependReactor("get", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
	}
	return Reader{Client: client, Namespace: "guard"}
}

func TestCredential(t *testing.T) {
	t.Parallel()
	const key = namespace + "." + account
	noted := func(value string) []runtime.Object {
		return []runtime.Object{configMap("guard", CredentialsName, key, value)}
	}
	want := Credential{Namespace: namespace, Account: account, AccountUID: "u", Secret: "s"}
	for name, test := range map[string]struct {
		objects []runtime.Object
		err     error
		want    Credential
		fails   bool
	}{
		"absent ConfigMap":    {},
		"no key":              {objects: []runtime.Object{configMap("guard", CredentialsName, "other", "{")}},
		"a credential":        {objects: noted(`{"namespace":"kube-system","account":"apigw-ingress","accountUID":"u","secret":"s"}`), want: want},
		"no JSON":             {objects: noted(`{`), fails: true},
		"another account":     {objects: noted(`{"namespace":"kube-system","account":"b","accountUID":"u","secret":"s"}`), fails: true},
		"no UID":              {objects: noted(`{"namespace":"kube-system","account":"apigw-ingress","secret":"s"}`), fails: true},
		"no Secret":           {objects: noted(`{"namespace":"kube-system","account":"apigw-ingress","accountUID":"u"}`), fails: true},
		"an API server error": {err: errBroken, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newReader(test.err, test.objects...).Credential(t.Context(), namespace, account)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if got, err := (Reader{}).Credential(t.Context(), namespace, account); got != (Credential{}) || err != nil {
		t.Errorf("without a namespace: got %+v, %v", got, err)
	}
}

// newCA returns a certificate in PEM.
func newCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestIsClusterCA(t *testing.T) {
	t.Parallel()
	ours, next, unknown := newCA(t), newCA(t), newCA(t)
	tests := map[string]struct {
		published, trusted, ca string
		want                   bool
		fails                  bool
	}{
		"the published CA": {published: ours, ca: ours, want: true},
		"the trusted CA":   {trusted: ours, ca: ours, want: true},
		"the published CA, where another is trusted": {published: ours, trusted: next, ca: ours, want: true},
		"the trusted CA, where another is published": {published: next, trusted: ours, ca: ours, want: true},
		"an unknown CA":                          {published: ours, trusted: ours, ca: unknown},
		"an unknown CA added":                    {published: ours, trusted: ours, ca: ours + unknown},
		"one CA of a bundle":                     {published: ours + next, trusted: ours + next, ca: ours},
		"a bundle in another order":              {published: ours + next, ca: next + ours, want: true},
		"a bundle with a CA twice":               {published: ours, ca: ours + ours, want: true},
		"a bundle with other line ends":          {published: ours, ca: strings.ReplaceAll(ours, "\n", "\r\n"), want: true},
		"the same bundle with comments":          {published: "# CA\n" + ours, ca: "# CA\n" + ours, want: true},
		"a comment added":                        {published: ours, ca: "# CA\n" + ours},
		"a block of another type added":          {published: ours, ca: ours + strings.ReplaceAll(unknown, "CERTIFICATE", "TRUSTED CERTIFICATE")},
		"a block that Go skips added":            {published: ours, ca: strings.Replace(unknown, "MII", "M!I", 1) + ours},
		"a block with a header":                  {published: ours, ca: strings.Replace(ours, "-----\n", "-----\na: b\n\n", 1)},
		"nothing":                                {published: ours, trusted: ours},
		"nothing, where nothing is published":    {trusted: ours},
		"any CA, where there is none to compare": {ca: unknown, fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var objects []runtime.Object
			if test.published != "" {
				objects = append(objects, configMap(namespace, rootCAConfigMap, "ca.crt", test.published))
			}
			reader := newReader(nil, objects...)
			reader.Config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: []byte(test.trusted)}}
			got, err := reader.IsClusterCA(t.Context(), []byte(test.ca))
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func TestIsClusterCAFailsWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	ours, unknown := newCA(t), newCA(t)
	reader := newReader(errBroken)
	reader.Config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: []byte(ours)}}
	if is, err := reader.IsClusterCA(t.Context(), []byte(unknown)); is || !errors.Is(err, errBroken) {
		t.Errorf("an unknown CA: got %t, %v, want the API server's error", is, err)
	}
	if is, err := reader.IsClusterCA(t.Context(), []byte(ours)); !is || err != nil {
		t.Errorf("the trusted CA: got %t, %v", is, err)
	}
}

func TestTheTrustedCAIsReadAgainWhenItRotates(t *testing.T) {
	t.Parallel()
	before, after := newCA(t), newCA(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	reader := newReader(nil)
	reader.Config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: file}}
	if _, err := reader.IsClusterCA(t.Context(), []byte(after)); err == nil {
		t.Error("a file that is absent is no error")
	}
	for _, ca := range []string{before, after} {
		if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
			t.Fatal(err)
		}
		if is, err := reader.IsClusterCA(t.Context(), []byte(ca)); !is || err != nil {
			t.Errorf("got %t, %v", is, err)
		}
	}
	if is, err := reader.IsClusterCA(t.Context(), []byte(before)); is || err != nil {
		t.Errorf("of the CA before: got %t, %v", is, err)
	}
}

func TestRetirement(t *testing.T) {
	t.Parallel()
	marked := func(value string) []runtime.Object {
		return []runtime.Object{configMap("guard", RetirementsName, "shop", value)}
	}
	for name, test := range map[string]struct {
		objects []runtime.Object
		err     error
		want    RetirementState
		fails   bool
	}{
		"absent ConfigMap":    {},
		"no key":              {objects: []runtime.Object{configMap("guard", RetirementsName, "other", "{")}},
		"a mark":              {objects: marked(`{"state":"Retired","since":"2026-11-28T08:00:00Z","by":"ann"}`), want: Retired},
		"a retirement begun":  {objects: marked(`{"state":"Retiring","since":"2026-11-28T08:00:00Z","by":"ann"}`), want: Retiring},
		"no JSON":             {objects: marked("{"), fails: true},
		"an unknown state":    {objects: marked(`{"state":"x"}`), fails: true},
		"an API server error": {err: errBroken, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newReader(test.err, test.objects...).Retirement(t.Context(), "shop")
			if (err != nil) != test.fails || (got != nil) != (test.want != "") || got != nil && got.State != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	if got, err := (Reader{}).Retirement(t.Context(), "shop"); got != nil || err != nil {
		t.Errorf("without a namespace: got %+v, %v", got, err)
	}
}
