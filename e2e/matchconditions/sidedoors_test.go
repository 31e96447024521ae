// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

func sideDoorWebhooks(t *testing.T) []admissionregistrationv1.ValidatingWebhook {
	t.Helper()
	all := registration.Build(builtIn(t), registration.Options{
		FailurePolicy: admissionregistrationv1.Fail, SideDoors: admissionregistrationv1.Fail,
	}).Webhooks
	return all[len(all)-4:]
}

// attempt returns the request for a write to an object of this type.
func attempt(group, kind, plural, subresource, namespace, name string, user authenticationv1.UserInfo, old, object string) *admissionv1.AdmissionRequest {
	version := "v1"
	if kind == "TokenRequest" {
		group = "authentication.k8s.io"
	}
	meta := fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q,"namespace":%q},`, group+"/"+version, kind, name, namespace)
	if group == "" {
		meta = fmt.Sprintf(`{"apiVersion":"v1","kind":%q,"metadata":{"name":%q,"namespace":%q},`, kind, name, namespace)
	}
	r := &admissionv1.AdmissionRequest{
		UID: "u", Kind: metav1.GroupVersionKind{Group: group, Version: version, Kind: kind},
		Resource: metav1.GroupVersionResource{Group: group, Version: version, Resource: plural}, SubResource: subresource,
		Namespace: namespace, Name: name, Operation: admissionv1.Create, UserInfo: user, DryRun: new(false),
	}
	if kind == "TokenRequest" {
		r.Resource.Group = ""
	}
	r.Object.Raw = json.RawMessage(meta + object + "}")
	if old != "" {
		r.Operation, r.OldObject.Raw = admissionv1.Update, json.RawMessage(meta+old+"}")
	}
	return r
}

// attempts are the products of what can differ in such writes.
func attempts() []*admissionv1.AdmissionRequest {
	var all []*admissionv1.AdmissionRequest
	admin := authenticationv1.UserInfo{Username: "admin", Groups: []string{"system:masters"}}
	for _, namespace := range []string{metav1.NamespaceSystem, "default"} {
		for _, name := range []string{"apigw-ingress", "apigw-ingress-2"} {
			for _, user := range []authenticationv1.UserInfo{
				admin, {Username: "system:node:n1"}, {Username: "system:node:n1", Groups: []string{"system:nodes"}},
			} {
				for _, bound := range []string{"", `"boundObjectRef":{"kind":"Pod","name":"p"}`, `"boundObjectRef":{"kind":"Secret"}`, `"boundObjectRef":{}`} {
					all = append(all, attempt("", "TokenRequest", "serviceaccounts", "token", namespace, name, user, "", `"spec":{`+bound+`}`))
				}
			}
			all = append(all, attempt("", "Pod", "pods", "", namespace, "p", admin, "",
				fmt.Sprintf(`"spec":{"serviceAccountName":%q,"serviceAccount":%q}`, name, name)))
		}
		all = append(all, attempt("", "Pod", "pods", "", namespace, "p", admin, "", `"spec":{}`))
	}
	const group = "rbac.authorization.k8s.io"
	for _, role := range []string{`"kind":"ClusterRole","name":"apigw-ingress-clusterrole"`, `"kind":"ClusterRole","name":"view"`} {
		for _, subjects := range []string{
			``, `,"subjects":[]`, `,"subjects":[{"kind":"User","name":"mallory"}]`,
			`,"subjects":[{"kind":"User","name":"mallory"},{"kind":"ServiceAccount","name":"apigw-ingress","namespace":"kube-system"}]`,
			`,"subjects":[{"kind":"ServiceAccount","name":"apigw-ingress","namespace":"default"}]`,
			`,"subjects":[{"kind":"User","name":"system:serviceaccount:kube-system:apigw-ingress"}]`,
			`,"subjects":[{"kind":"User","name":"system:serviceaccount:kube-system:other"}]`,
			`,"subjects":[{"kind":"Group","name":"system:serviceaccounts:kube-system"}]`,
			`,"subjects":[{"kind":"Group","name":"system:serviceaccounts"}]`,
		} {
			spec := `"roleRef":{"apiGroup":"` + group + `",` + role + `}` + subjects
			all = append(all,
				attempt(group, "ClusterRoleBinding", "clusterrolebindings", "", "", "b", admin, "", spec),
				attempt(group, "RoleBinding", "rolebindings", "", "default", "apigw-ingress-clusterrole-binding", admin, "", spec),
				attempt(group, "ClusterRoleBinding", "clusterrolebindings", "", "", "b", admin, `"roleRef":{"kind":"ClusterRole","name":"x"}`, spec),
			)
		}
		local := `"roleRef":{` + role + `},"subjects":[{"kind":"ServiceAccount","name":"apigw-ingress"}]`
		all = append(all,
			attempt(group, "RoleBinding", "rolebindings", "", "kube-system", "b", admin, "", local),
			attempt(group, "RoleBinding", "rolebindings", "", "default", "b", admin, "", local))
	}
	return all
}

// The match conditions of side doors send the guard the writes that the policy takes for one, and besides these only updates of bindings
// that add no subject.
func TestSideDoorConditionsAgreeWithThePolicy(t *testing.T) {
	p := &policy.Policy{Set: builtIn(t)}
	sent := 0
	for _, request := range attempts() {
		want := reasonOf(t, p, request) == policy.SideDoor
		for name, server := range servers {
			if got := server.sends(t, request); got != want && (want || request.Operation != admissionv1.Update) {
				t.Errorf("%s: sent %t, want %t: %s by %s", name, got, want, request.Object.Raw, request.UserInfo.Username)
			}
		}
		if want {
			sent++
		}
	}
	if sent < 20 {
		t.Errorf("only %d of the writes are side doors", sent)
	}
}

// The conditions cannot read a certificate request. They leave out what is not approved now, and the kubelets'.
func TestApprovalsOfCertificates(t *testing.T) {
	const approved, denied = `"status":{"conditions":[{"type":"Approved","status":"True"}]}`, `"status":{"conditions":[{"type":"Denied","status":"True"}]}`
	for _, test := range []struct {
		signer, old, object string
		want                bool
	}{
		{"kubernetes.io/kube-apiserver-client", `"status":{}`, approved, true},
		{"example.com/other", `"status":{"conditions":[]}`, approved, true},
		{"kubernetes.io/kube-apiserver-client-kubelet", `"status":{}`, approved, false},
		{"kubernetes.io/kube-apiserver-client", `"status":{}`, denied, false},
		{"kubernetes.io/kube-apiserver-client", approved, approved, false},
	} {
		spec := fmt.Sprintf(`"spec":{"request":"eA==","signerName":%q},`, test.signer)
		request := attempt("certificates.k8s.io", "CertificateSigningRequest", "certificatesigningrequests", "approval", "", "c",
			authenticationv1.UserInfo{Username: "admin"}, spec+test.old, spec+test.object)
		for name, server := range servers {
			if got := server.sends(t, request); got != test.want {
				t.Errorf("%s: sent %t, want %t: %+v", name, got, test.want, test)
			}
		}
	}
}

// sends reports whether a webhook of side doors matches the request.
func (s server) sends(t *testing.T, request *admissionv1.AdmissionRequest) bool {
	t.Helper()
	plural := request.Resource.Resource
	if request.SubResource != "" {
		plural += "/" + request.SubResource
	}
	webhooks := sideDoorWebhooks(t)
	i := slices.IndexFunc(webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
		return slices.Contains(w.Rules[0].Resources, plural)
	})
	if i < 0 {
		t.Fatalf("no webhook for %s", plural)
	}
	return matches(t, s.matcher(t, &webhooks[i]), s.attributes(t, request))
}
