// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
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

// liveAccount has the UID "u" and lists the Secrets.
func liveAccount(secrets ...string) *corev1.ServiceAccount {
	live := &corev1.ServiceAccount{}
	live.Namespace, live.Name, live.UID = namespace, account, "u"
	for _, name := range secrets {
		live.Secrets = append(live.Secrets, corev1.ObjectReference{Name: name})
	}
	return live
}

func configMap(name, key, value string) *corev1.ConfigMap {
	object := &corev1.ConfigMap{Data: map[string]string{key: value}}
	object.Namespace, object.Name = "guard", name
	return object
}

// inUse is what authorize notes.
func inUse(uid, secret string) *corev1.ConfigMap {
	return configMap(lookup.CredentialsName, namespace+"."+account,
		`{"namespace":"`+namespace+`","account":"`+account+`","accountUID":"`+uid+`","secret":"`+secret+`"}`)
}

func liveNamespace(terminating bool) *corev1.Namespace {
	live := &corev1.Namespace{}
	live.Name = "edge"
	if terminating {
		live.DeletionTimestamp, live.Finalizers = new(metav1.Now()), []string{"kubernetes"}
	}
	return live
}

func liveSecret() *corev1.Secret {
	live := &corev1.Secret{}
	live.Namespace, live.Name, live.UID = namespace, own, "u"
	return live
}

// newTestLookups returns lookups in a cluster with these objects, and the two fakes.
func newTestLookups(t *testing.T, objects ...runtime.Object) (lookups, *fake.Clientset, *metadatafake.FakeMetadataClient) {
	t.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	var partial []runtime.Object
	for _, object := range objects {
		if secret, ok := object.(*corev1.Secret); ok {
			partial = append(partial, &metav1.PartialObjectMetadata{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: secret.ObjectMeta,
			})
		}
	}
	client, meta := fake.NewClientset(objects...), metadatafake.NewSimpleMetadataClient(scheme, partial...)
	return lookups{reader: lookup.Reader{Client: client, Namespace: "guard"}, metadata: meta, set: set}, client, meta
}

func TestHolds(t *testing.T) {
	t.Parallel()
	about := func(subject policy.Subject, name, uid string) policy.Lookup {
		return policy.Lookup{
			Subject: subject, Namespace: namespace, Name: name, UID: uid, GVR: corev1.SchemeGroupVersion.WithResource("secrets"),
		}
	}
	is := func(uid string) policy.Lookup { return about(policy.AccountIs, account, uid) }
	gone := func(uid string) policy.Lookup { return about(policy.AccountGone, account, uid) }
	live := func(uid string) policy.Lookup { return about(policy.Live, own, uid) }
	secretGone := about(policy.SecretGone, own, "")
	going := policy.Lookup{Subject: policy.NamespaceGoing, Name: "edge"}
	only := policy.Lookup{Subject: policy.OnlyToken, Namespace: namespace, Account: account, Name: own}
	notRetired := policy.Lookup{Subject: policy.NotRetired, Name: "apigw-ingress"}
	tests := map[string]struct {
		objects []runtime.Object
		asked   policy.Lookup
		want    bool
		fails   bool
	}{
		"AccountGone: absent":                             {nil, gone("u"), true, false},
		"AccountGone: absent, no UID":                     {nil, gone(""), true, false},
		"AccountGone: same UID":                           {[]runtime.Object{liveAccount()}, gone("u"), false, false},
		"AccountGone: other UID":                          {[]runtime.Object{liveAccount()}, gone("v"), true, false},
		"AccountGone: live, no UID":                       {[]runtime.Object{liveAccount()}, gone(""), false, false},
		"AccountIs: absent":                               {nil, is("u"), false, false},
		"AccountIs: absent, no UID":                       {nil, is(""), false, false},
		"AccountIs: same UID":                             {[]runtime.Object{liveAccount()}, is("u"), true, false},
		"AccountIs: other UID":                            {[]runtime.Object{liveAccount()}, is("v"), false, false},
		"AccountIs: live, no UID":                         {[]runtime.Object{liveAccount()}, is(""), false, false},
		"SecretGone: absent":                              {nil, secretGone, true, false},
		"SecretGone: live":                                {[]runtime.Object{liveSecret()}, secretGone, false, false},
		"NamespaceGoing: absent":                          {nil, going, true, false},
		"NamespaceGoing: active":                          {[]runtime.Object{liveNamespace(false)}, going, false, false},
		"NamespaceGoing: terminating":                     {[]runtime.Object{liveNamespace(true)}, going, true, false},
		"Live: absent":                                    {nil, live("u"), false, false},
		"Live: absent, no UID":                            {nil, live(""), true, false},
		"Live: same UID":                                  {[]runtime.Object{liveSecret()}, live("u"), true, false},
		"Live: other UID":                                 {[]runtime.Object{liveSecret()}, live("v"), false, false},
		"Live: live, no UID":                              {[]runtime.Object{liveSecret()}, live(""), false, false},
		"OnlyToken: absent account":                       {[]runtime.Object{inUse("u", older)}, only, true, false},
		"OnlyToken: no note":                              {[]runtime.Object{liveAccount()}, only, true, false},
		"OnlyToken: note of this one":                     {[]runtime.Object{liveAccount(), inUse("u", own)}, only, true, false},
		"OnlyToken: note of another":                      {[]runtime.Object{liveAccount(), inUse("u", older)}, only, false, false},
		"OnlyToken: note of other UID":                    {[]runtime.Object{liveAccount(), inUse("v", older)}, only, true, false},
		"OnlyToken: another is listed":                    {[]runtime.Object{liveAccount(older)}, only, false, false},
		"OnlyToken: this is listed":                       {[]runtime.Object{liveAccount(own)}, only, true, false},
		"OnlyToken: an unreserved Secret is listed":       {[]runtime.Object{liveAccount("pull")}, only, true, false},
		"OnlyToken: another is listed, note of this one":  {[]runtime.Object{liveAccount(older), inUse("u", own)}, only, true, false},
		"OnlyToken: another is listed, note of other UID": {[]runtime.Object{liveAccount(older), inUse("v", own)}, only, false, false},
		"OnlyToken: a note that is no JSON": {
			[]runtime.Object{liveAccount(), configMap(lookup.CredentialsName, namespace+"."+account, `{`)}, only, false, true,
		},
		"NotRetired: no mark": {nil, notRetired, true, false},
		"NotRetired: a mark": {
			[]runtime.Object{configMap(lookup.RetirementsName, "apigw-ingress", `{"state":"Retiring"}`)}, notRetired, false, false,
		},
		"NotRetired: the mark of another": {
			[]runtime.Object{configMap(lookup.RetirementsName, "shop", `{"state":"Retired"}`)}, notRetired, true, false,
		},
		"an unknown subject": {nil, policy.Lookup{Subject: "Weather"}, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answers, _, _ := newTestLookups(t, test.objects...)
			got, err := answers.Holds(t.Context(), test.asked)
			if got != test.want || (err != nil) != test.fails {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
}

// A denial is the result of a lookup that fails, whatever the error is.
func TestHoldsIsFalseAfterAnAPIServerError(t *testing.T) {
	t.Parallel()
	secrets := corev1.SchemeGroupVersion.WithResource("secrets")
	for _, cause := range []error{errBroken, apierrors.NewForbidden(schema.GroupResource{Resource: "x"}, "y", nil)} {
		for _, asked := range []policy.Lookup{
			{Subject: policy.AccountGone, Namespace: namespace, Name: account, UID: "v"},
			{Subject: policy.AccountIs, Namespace: namespace, Name: account, UID: "u"},
			{Subject: policy.SecretGone, Namespace: namespace, Name: own},
			{Subject: policy.NamespaceGoing, Name: namespace},
			{Subject: policy.ClusterCA, CA: "x"},
			{Subject: policy.OnlyToken, Namespace: namespace, Account: account, Name: own},
			{Subject: policy.NotRetired, Name: "apigw-ingress"},
			{Subject: policy.Live, GVR: secrets, Namespace: namespace, Name: own},
		} {
			answers, client, meta := newTestLookups(t, liveAccount())
			fails := func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, cause }
			client.PrependReactor("get", "*", fails)
			meta.PrependReactor("get", "*", fails)
			if holds, err := answers.Holds(t.Context(), asked); holds || !errors.Is(err, cause) {
				t.Errorf("%s: got %t, %v, want %v", asked.Subject, holds, err, cause)
			}
		}
	}
	// The note of the token Secret in use is the second read of OnlyToken.
	answers, client, _ := newTestLookups(t, liveAccount())
	client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errBroken })
	asked := policy.Lookup{Subject: policy.OnlyToken, Namespace: namespace, Account: account, Name: own}
	if holds, err := answers.Holds(t.Context(), asked); holds || !errors.Is(err, errBroken) {
		t.Errorf("OnlyToken without its note: got %t, %v", holds, err)
	}
}
