// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package facts

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

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	namespace = "kube-system"
	account   = "apigw-ingress"
	own       = "apigw-ingress-token-guardian"
	older     = "apigw-ingress-token-x7k2p"
)

var errBroken = errors.New("broken")

// liveAccount has the uid "u" and lists the Secrets.
func liveAccount(secrets ...string) *corev1.ServiceAccount {
	live := &corev1.ServiceAccount{}
	live.Namespace, live.Name, live.UID = namespace, account, "u"
	for _, name := range secrets {
		live.Secrets = append(live.Secrets, corev1.ObjectReference{Name: name})
	}
	return live
}

func configMap(namespace, name, key, value string) *corev1.ConfigMap {
	object := &corev1.ConfigMap{Data: map[string]string{key: value}}
	object.Namespace, object.Name = namespace, name
	return object
}

// inUse is what authorize leaves.
func inUse(uid, secret string) *corev1.ConfigMap {
	return configMap("guard", CredentialsName, namespace+"."+account,
		`{"namespace":"`+namespace+`","account":"`+account+`","accountUID":"`+uid+`","secret":"`+secret+`"}`)
}

func newCluster(t *testing.T, objects ...runtime.Object) (Cluster, *fake.Clientset) {
	t.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset(objects...)
	return Cluster{Client: client, Set: set, Namespace: "guard"}, client
}

func TestHolds(t *testing.T) {
	t.Parallel()
	is := func(uid string) policy.Lookup {
		return policy.Lookup{Subject: policy.AccountIs, Namespace: namespace, Name: account, UID: uid}
	}
	only := policy.Lookup{Subject: policy.OnlyToken, Namespace: namespace, Account: account, Name: own}
	tests := map[string]struct {
		objects []runtime.Object
		lookup  policy.Lookup
		want    bool
		fails   bool
	}{
		"a live account is itself":                           {[]runtime.Object{liveAccount()}, is("u"), true, false},
		"a live account is no earlier one":                   {[]runtime.Object{liveAccount()}, is("v"), false, false},
		"no account has an empty uid":                        {[]runtime.Object{liveAccount()}, is(""), false, false},
		"an absent account is none":                          {nil, is("u"), false, false},
		"nothing else is in use of an absent account":        {[]runtime.Object{inUse("u", older)}, only, true, false},
		"nothing else is in use where nothing says so":       {[]runtime.Object{liveAccount()}, only, true, false},
		"the own Secret is in use":                           {[]runtime.Object{liveAccount(), inUse("u", own)}, only, true, false},
		"an older Secret is in use":                          {[]runtime.Object{liveAccount(), inUse("u", older)}, only, false, false},
		"an older Secret was in use of an earlier account":   {[]runtime.Object{liveAccount(), inUse("v", older)}, only, true, false},
		"the account lists an older Secret":                  {[]runtime.Object{liveAccount(older)}, only, false, false},
		"the account lists the own Secret":                   {[]runtime.Object{liveAccount(own)}, only, true, false},
		"the account lists a Secret that is not reserved":    {[]runtime.Object{liveAccount("pull")}, only, true, false},
		"the account lists an older Secret that is not used": {[]runtime.Object{liveAccount(older), inUse("u", own)}, only, true, false},
		"the account lists one, and what is left is stale":   {[]runtime.Object{liveAccount(older), inUse("v", own)}, only, false, false},
		"what is left is of another account": {
			[]runtime.Object{liveAccount(), configMap("guard", CredentialsName, namespace+"."+account, `{"account":"b","secret":"c"}`)}, only, false, true,
		},
		"what is left is not JSON": {
			[]runtime.Object{liveAccount(), configMap("guard", CredentialsName, namespace+"."+account, `{`)}, only, false, true,
		},
		"an unknown subject": {nil, policy.Lookup{Subject: "Weather"}, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster, _ := newCluster(t, test.objects...)
			got, err := cluster.Holds(t.Context(), test.lookup)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func TestAnErrorOfTheAPIServerIsNoAnswer(t *testing.T) {
	t.Parallel()
	lookups := []policy.Lookup{
		{Subject: policy.AccountGone, Namespace: namespace, Name: account, UID: "u"},
		{Subject: policy.AccountIs, Namespace: namespace, Name: account, UID: "u"},
		{Subject: policy.SecretGone, Namespace: namespace, Name: own},
		{Subject: policy.NamespaceGoing, Name: namespace},
		{Subject: policy.ClusterCA, CA: "x"},
		{Subject: policy.OnlyToken, Namespace: namespace, Account: account, Name: own},
	}
	for _, lookup := range lookups {
		for _, resource := range []string{"*", "configmaps"} {
			cluster, client := newCluster(t, liveAccount())
			client.PrependReactor("get", resource, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errBroken })
			holds, err := cluster.Holds(t.Context(), lookup)
			if holds && (err != nil || resource == "*") || resource == "*" && !errors.Is(err, errBroken) {
				t.Errorf("%s without %s: got %t, %v", lookup.Subject, resource, holds, err)
			}
		}
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
	ours, next, foreign := newCA(t), newCA(t), newCA(t)
	tests := map[string]struct {
		published, trusted, ca string
		want                   bool
		fails                  bool
	}{
		"the published CA": {published: ours, ca: ours, want: true},
		"the trusted CA":   {trusted: ours, ca: ours, want: true},
		"the published CA, where another is trusted": {published: ours, trusted: next, ca: ours, want: true},
		"the trusted CA, where another is published": {published: next, trusted: ours, ca: ours, want: true},
		"a foreign CA":                           {published: ours, trusted: ours, ca: foreign},
		"a foreign CA added":                     {published: ours, trusted: ours, ca: ours + foreign},
		"one CA of a bundle":                     {published: ours + next, trusted: ours + next, ca: ours},
		"a bundle in another order":              {published: ours + next, ca: next + ours, want: true},
		"a bundle with a CA twice":               {published: ours, ca: ours + ours, want: true},
		"a bundle with other line ends":          {published: ours, ca: strings.ReplaceAll(ours, "\n", "\r\n"), want: true},
		"the same bundle with comments":          {published: "# CA\n" + ours, ca: "# CA\n" + ours, want: true},
		"a comment added":                        {published: ours, ca: "# CA\n" + ours},
		"a block of another type added":          {published: ours, ca: ours + strings.ReplaceAll(foreign, "CERTIFICATE", "TRUSTED CERTIFICATE")},
		"a block that Go skips added":            {published: ours, ca: strings.Replace(foreign, "MII", "M!I", 1) + ours},
		"a block with a header":                  {published: ours, ca: strings.Replace(ours, "-----\n", "-----\na: b\n\n", 1)},
		"nothing":                                {published: ours, trusted: ours},
		"nothing, where nothing is published":    {trusted: ours},
		"any CA, where there is none to compare": {ca: foreign, fails: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var objects []runtime.Object
			if test.published != "" {
				objects = append(objects, configMap(namespace, rootCAConfigMap, "ca.crt", test.published))
			}
			cluster, _ := newCluster(t, objects...)
			cluster.Config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAData: []byte(test.trusted)}}
			got, err := cluster.Holds(t.Context(), policy.Lookup{Subject: policy.ClusterCA, CA: test.ca})
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

func TestTheTrustedCAIsReadAgainWhenItRotates(t *testing.T) {
	t.Parallel()
	before, after := newCA(t), newCA(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	cluster, _ := newCluster(t)
	cluster.Config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: file}}
	if _, err := cluster.IsClusterCA(t.Context(), []byte(after)); err == nil {
		t.Error("a file that is absent is no error")
	}
	for _, ca := range []string{before, after} {
		if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
			t.Fatal(err)
		}
		if is, err := cluster.IsClusterCA(t.Context(), []byte(ca)); !is || err != nil {
			t.Errorf("got %t, %v", is, err)
		}
	}
	if is, err := cluster.IsClusterCA(t.Context(), []byte(before)); is || err != nil {
		t.Errorf("of the CA before: got %t, %v", is, err)
	}
}
