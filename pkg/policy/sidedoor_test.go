// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	rbacGroup  = "rbac.authorization.k8s.io"
	otherRole  = `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"view"}`
	ownRole    = `"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"apigw-ingress-clusterrole"}`
	mallory    = `{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"mallory"}`
	ownAccount = `{"kind":"ServiceAccount","name":"apigw-ingress","namespace":"kube-system"}`
	podBound   = `{"spec":{"boundObjectRef":{"kind":"Pod","name":"p","uid":"u"}}}`
)

func kubelet() v1alpha1.User {
	return v1alpha1.User{Name: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
}

func tokenRequest(namespace, name, object string, user v1alpha1.User) *Request {
	return &Request{
		GVR: schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, Kind: "TokenRequest", Subresource: "token",
		Operation: admissionv1.Create, Namespace: namespace, Name: name, Object: rawjson.Value(object), User: user,
	}
}

func bindingRequest(kind, namespace, old, object string) *Request {
	const name = "b"
	meta := fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q},`, name, namespace)
	r := &Request{
		GVR:  schema.GroupVersionResource{Group: rbacGroup, Version: "v1", Resource: strings.ToLower(kind) + "s"},
		Kind: kind, Operation: admissionv1.Create, Namespace: namespace, Name: name, Object: rawjson.Value(meta + object + "}"),
	}
	if old != "" {
		r.Operation, r.OldObject = admissionv1.Update, rawjson.Value(meta+old+"}")
	}
	return r
}

func podRequest(namespace, spec string) *Request {
	return &Request{
		GVR: schema.GroupVersionResource{Version: "v1", Resource: "pods"}, Kind: "Pod", Operation: admissionv1.Create, Namespace: namespace,
		Object: rawjson.Value(fmt.Sprintf(`{"metadata":{"name":"p","namespace":%q},"spec":%s}`, namespace, spec)),
	}
}

func approval(tb testing.TB, commonName, old, condition string) *Request {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}, key)
	if err != nil {
		tb.Fatal(err)
	}
	encoded := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	object := func(condition string) rawjson.Value {
		return rawjson.Value(fmt.Sprintf(`{"metadata":{"name":"c"},"spec":{"request":%q},"status":{"conditions":[%s]}}`, encoded, condition))
	}
	return &Request{
		GVR:  schema.GroupVersionResource{Group: "certificates.k8s.io", Version: "v1", Resource: "certificatesigningrequests"},
		Kind: "CertificateSigningRequest", Subresource: "approval", Operation: admissionv1.Update, Name: "c",
		Object: object(condition), OldObject: object(old),
	}
}

const approved = `{"type":"Approved","status":"True"}`

func sideDoors(tb testing.TB) map[string]*Request {
	tb.Helper()
	subject := func(s string) string { return otherRole + `,"subjects":[` + s + `]` }
	return map[string]*Request{
		"a token":                       tokenRequest("kube-system", "apigw-ingress", `{"spec":{}}`, v1alpha1.User{Name: "admin"}),
		"a token bound to a Pod":        tokenRequest("kube-system", "apigw-ingress", podBound, v1alpha1.User{Name: "admin"}),
		"a token by a kubelet, no Pod":  tokenRequest("kube-system", "apigw-ingress", `{"spec":{}}`, kubelet()),
		"a token by a kubelet's name":   tokenRequest("kube-system", "apigw-ingress", podBound, v1alpha1.User{Name: "system:node:n1"}),
		"the role for another user":     bindingRequest("ClusterRoleBinding", "", "", ownRole+`,"subjects":[`+mallory+`]`),
		"the role for nobody yet":       bindingRequest("ClusterRoleBinding", "", "", ownRole),
		"the role in a namespace":       bindingRequest("RoleBinding", "default", "", ownRole+`,"subjects":[`+mallory+`]`),
		"another role for the account":  bindingRequest("ClusterRoleBinding", "", "", subject(mallory+","+ownAccount)),
		"a role in another namespace":   bindingRequest("RoleBinding", "default", "", subject(ownAccount)),
		"the account without namespace": bindingRequest("RoleBinding", "kube-system", "", subject(`{"kind":"ServiceAccount","name":"apigw-ingress"}`)),
		"the account by its user name": bindingRequest("ClusterRoleBinding", "", "",
			subject(`{"kind":"User","name":"system:serviceaccount:kube-system:apigw-ingress"}`)),
		"all accounts of its namespace": bindingRequest("ClusterRoleBinding", "", "",
			subject(`{"kind":"Group","name":"system:serviceaccounts:kube-system"}`)),
		"the account added by an update":  bindingRequest("ClusterRoleBinding", "", subject(mallory), subject(mallory+","+ownAccount)),
		"a user of the role by an update": bindingRequest("ClusterRoleBinding", "", ownRole, ownRole+`,"subjects":[`+mallory+`]`),
		"a Pod":                           podRequest("kube-system", `{"serviceAccountName":"apigw-ingress"}`),
		"a Pod by the old field":          podRequest("kube-system", `{"serviceAccount":"apigw-ingress"}`),
		"a certificate":                   approval(tb, "system:serviceaccount:kube-system:apigw-ingress", "", approved),
	}
}

func harmless(tb testing.TB) map[string]*Request {
	tb.Helper()
	subject := func(s string) string { return otherRole + `,"subjects":[` + s + `]` }
	const name = "system:serviceaccount:kube-system:apigw-ingress"
	return map[string]*Request{
		"a kubelet's token":             tokenRequest("kube-system", "apigw-ingress", podBound, kubelet()),
		"a token of another account":    tokenRequest("kube-system", "other", `{"spec":{}}`, v1alpha1.User{Name: "admin"}),
		"a token in another namespace":  tokenRequest("default", "apigw-ingress", `{"spec":{}}`, v1alpha1.User{Name: "admin"}),
		"another role":                  bindingRequest("ClusterRoleBinding", "", "", subject(mallory)),
		"a namesake in another one":     bindingRequest("RoleBinding", "default", "", subject(`{"kind":"ServiceAccount","name":"apigw-ingress"}`)),
		"a Role of the ClusterRole's":   bindingRequest("RoleBinding", "default", "", `"roleRef":{"kind":"Role","name":"apigw-ingress-clusterrole"}`),
		"all accounts of the cluster":   bindingRequest("ClusterRoleBinding", "", "", subject(`{"kind":"Group","name":"system:serviceaccounts"}`)),
		"all accounts of another one":   bindingRequest("ClusterRoleBinding", "", "", subject(`{"kind":"Group","name":"system:serviceaccounts:default"}`)),
		"a label on such a binding":     bindingRequest("ClusterRoleBinding", "", subject(ownAccount), subject(ownAccount)),
		"the account removed":           bindingRequest("ClusterRoleBinding", "", subject(mallory+","+ownAccount), subject(mallory)),
		"another user beside it":        bindingRequest("ClusterRoleBinding", "", subject(ownAccount), subject(ownAccount+","+mallory)),
		"a user of the role removed":    bindingRequest("ClusterRoleBinding", "", ownRole+`,"subjects":[`+mallory+`]`, ownRole),
		"a Pod of another account":      podRequest("kube-system", `{"serviceAccountName":"default"}`),
		"a Pod in another namespace":    podRequest("default", `{"serviceAccountName":"apigw-ingress"}`),
		"a Pod without an account":      podRequest("kube-system", `{}`),
		"a certificate of another user": approval(tb, "mallory", "", approved),
		"a certificate of a namesake":   approval(tb, "system:serviceaccount:default:apigw-ingress", "", approved),
		"a certificate refused":         approval(tb, name, "", `{"type":"Denied","status":"True"}`),
		"a certificate approved before": approval(tb, name, approved, approved+`,{"type":"Failed","status":"True"}`),
	}
}

func TestSideDoors(t *testing.T) {
	t.Parallel()
	for name, request := range sideDoors(t) {
		for mode, want := range map[Mode]Decision{
			Enforce: {Reason: SideDoor, Outcome: v1alpha1.Denied},
			Observe: {Allowed: true, Reason: SideDoor, Outcome: v1alpha1.WouldDeny},
			Off:     {Allowed: true, Reason: NotReserved},
		} {
			p := builtInPolicy(t)
			p.SideDoors = mode
			got := decide(p.Review(request), false)
			if got.Allowed != want.Allowed || got.Reason != want.Reason || got.Outcome != want.Outcome {
				t.Errorf("%s, %s: got %+v", name, mode, got)
			}
			if (got.Resource == nil) != (mode == Off) || (got.Object.Name == "") != (mode == Off) {
				t.Errorf("%s, %s: got resource %v of %v", name, mode, got.Resource, got.Object)
			}
		}
		p := builtInPolicy(t)
		p.Mode, p.SideDoors = Observe, Enforce
		if got := decide(p.Review(request), false); !got.Allowed || got.Outcome != v1alpha1.WouldDeny {
			t.Errorf("%s: a guard that observes denies it: %+v", name, got)
		}
	}
	for name, request := range harmless(t) {
		if got := decide(builtInPolicy(t).Review(request), false); !got.Allowed || got.Reason != NotReserved || got.Outcome != "" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestADenialOfASideDoorSaysHowToOpenIt(t *testing.T) {
	t.Parallel()
	now := metav1.Now()
	for name, request := range sideDoors(t) {
		request.User.Name = "ann"
		reviewed := builtInPolicy(t).Review(request)
		denied := reviewed.Decide(Facts{Now: now})
		if message := denied.Message(denied.Hint(DefaultHint, request), ""); !strings.Contains(message, "reserved by API Gateway.") ||
			strings.Contains(message, `ServiceAccount "p"`) {
			t.Errorf("%s: got %s", name, message)
		}
		unlock := v1alpha1.Unlock{Spec: v1alpha1.UnlockSpec{
			Reservation: "apigw-ingress", Reason: "a test opens it", RequestedBy: "ann", ExpiresAt: metav1.NewTime(now.Add(60e9)),
			Operations: []admissionv1.Operation{request.Operation},
		}}
		unlock.Name, unlock.CreationTimestamp = "u", now
		p := builtInPolicy(t)
		p.Unlocks.MaxDuration.Duration = 3600e9
		got := p.Review(request).Decide(Facts{Now: now, Unlocks: []v1alpha1.Unlock{unlock}})
		if !got.Allowed || got.Unlock != "u" || got.Outcome != v1alpha1.Unlocked {
			t.Errorf("%s: an unlock does not open it: %+v", name, got)
		}
	}
}

// A reservation with a Role and a prefix of accounts needs no code.
func TestSideDoorsDeriveFromTheReservation(t *testing.T) {
	t.Parallel()
	set, err := reserved.LoadFiles("test", map[string]string{"shop.yaml": `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: shop}
spec:
  owner: Shop
  resources:
  - namePrefix: shop-
    manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: shop, name: shop-a}}
  - manifest: {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {namespace: shop, name: reader}}
  - manifest: {apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: own}, spec: {serviceAccountName: shop-a}}
`})
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{Set: set}
	for name, request := range map[string]*Request{
		"a token":     tokenRequest("shop", "shop-b", `{"spec":{}}`, v1alpha1.User{}),
		"the Role":    bindingRequest("RoleBinding", "shop", "", `"roleRef":{"kind":"Role","name":"reader"}`),
		"a Pod":       podRequest("shop", `{"serviceAccountName":"shop-b"}`),
		"an approval": approval(t, "system:serviceaccount:shop:shop-b", "", approved),
	} {
		if got := decide(p.Review(request), false); got.Allowed || got.Reason != SideDoor || got.Resource.Reservation != "shop" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	own := podRequest("shop", `{"serviceAccountName":"shop-a"}`)
	own.Object = rawjson.Value(strings.Replace(string(own.Object), `"name":"p"`, `"name":"own"`, 1))
	if got := decide(p.Review(own), true); got.Reason != ReservedCreate && got.Reason != Restoration {
		t.Errorf("the reserved Pod is a side door: %+v", got)
	}
	elsewhere := bindingRequest("RoleBinding", "default", "", `"roleRef":{"kind":"Role","name":"reader"}`)
	if got := decide(p.Review(elsewhere), false); got.Reason != NotReserved {
		t.Errorf("a Role of another namespace: got %+v", got)
	}
}
