// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// This file judges side doors: writes to other objects that use a reserved ServiceAccount or role, or give more to them. The match
// conditions of pkg/registration send the guard these writes only; e2e/matchconditions compares the two.

// Off is the third Mode of side doors: the guard does not judge them.
const Off Mode = "off"

// door is a type of write that can be a side door.
type door int

const (
	noDoor door = iota
	tokenDoor
	bindingDoor
	podDoor
	certificateDoor
)

// doorOf returns the type of a write that can be a side door; noDoor for any other write, and for one that cannot be read.
func doorOf(w *write) door {
	d, kind, mayUpdate := noDoor, w.Kind, false
	switch w.GVR.GroupResource().String() + "/" + w.Subresource {
	case "serviceaccounts/token":
		d, kind = tokenDoor, "TokenRequest"
	case "rolebindings.rbac.authorization.k8s.io/":
		d, kind, mayUpdate = bindingDoor, "RoleBinding", true
	case "clusterrolebindings.rbac.authorization.k8s.io/":
		d, kind, mayUpdate = bindingDoor, "ClusterRoleBinding", true
	case "pods/":
		d, kind = podDoor, "Pod"
	case "certificatesigningrequests.certificates.k8s.io/approval":
		d, kind, mayUpdate = certificateDoor, "CertificateSigningRequest", true
	}
	isKnown := w.GVR.Version == "v1" && w.Kind == kind && cmp.Or(w.new.Name, w.Name) != ""
	isCreate := w.Operation == admissionv1.Create && d != certificateDoor && w.OldObject.IsEmpty() && w.Object.IsObject()
	isUpdate := w.Operation == admissionv1.Update && mayUpdate && w.old.Name != "" && w.new.Name != ""
	if !isKnown || !isCreate && !isUpdate || d == bindingDoor && w.new.Name == "" {
		return noDoor
	}
	return d
}

// reach returns the reserved resource that a write uses as a side door, and how; nil if it uses none.
func (p *Policy) reach(w *write, d door) (*reserved.Resource, string) {
	object := fmt.Sprintf("%s %s", text.Printable(w.Kind, maxName), strconv.Quote(text.Printable(cmp.Or(w.new.Name, w.Name), maxName)))
	switch d {
	case tokenDoor:
		return p.tokenOf(w), "The request asks for a token of"
	case bindingDoor:
		return p.boundBy(w), object + " names"
	case podDoor:
		spec := w.Object.Get("spec")
		name := cmp.Or(spec.Get("serviceAccountName").Text(), spec.Get("serviceAccount").Text())
		return p.account(w.new.Namespace, name), object + " runs as"
	case certificateDoor:
		return p.certified(w), object + " is approved for a client certificate of"
	}
	return nil, ""
}

// account returns the reserved ServiceAccount of that name, or nil.
func (p *Policy) account(namespace, name string) *reserved.Resource {
	return p.Set.Find(corev1.SchemeGroupVersion.WithResource("serviceaccounts"), reserved.Identity{Namespace: namespace, Name: name})
}

const accountGroup = "system:serviceaccounts:"

// accountOfUser returns the reserved ServiceAccount whose user name this is, or nil.
func (p *Policy) accountOfUser(user string) *reserved.Resource {
	rest, isAccount := strings.CutPrefix(user, reserved.AccountUserPrefix)
	namespace, name, _ := strings.Cut(rest, ":")
	if !isAccount {
		return nil
	}
	return p.account(namespace, name)
}

// tokenOf returns the ServiceAccount of a token request; nil for a kubelet that mounts a token into a Pod: such a token works only as
// long as the Pod, and the API server refuses it for a Pod that runs as another ServiceAccount.
func (p *Policy) tokenOf(w *write) *reserved.Resource {
	isKubelet := strings.HasPrefix(w.User.Name, "system:node:") && slices.Contains(w.User.Groups, "system:nodes")
	if isKubelet && w.Object.Get("spec", "boundObjectRef", "kind").TextIs("Pod") {
		return nil
	}
	return p.account(w.Namespace, w.Name) // the API server takes both from the URL of the request
}

// boundBy returns the reserved role or ServiceAccount that a binding names, if the write adds a subject to it.
func (p *Policy) boundBy(w *write) *reserved.Resource {
	role := p.roleOf(w)
	known := map[string]bool{}
	if string(w.OldObject.Get("roleRef")) == string(w.Object.Get("roleRef")) {
		for subject := range w.OldObject.Get("subjects").Elements() {
			known[string(subject)] = true
		}
	}
	for subject := range w.Object.Get("subjects").Elements() {
		if known[string(subject)] {
			continue
		}
		if found := cmp.Or(role, p.subject(subject, w.new.Namespace)); found != nil {
			return found
		}
	}
	if w.Operation == admissionv1.Create {
		return role
	}
	return nil
}

// roleOf returns the reserved role that a binding names, or nil.
func (p *Policy) roleOf(w *write) *reserved.Resource {
	id, plural := reserved.Identity{Name: w.Object.Get("roleRef", "name").Text()}, "clusterroles"
	if w.Object.Get("roleRef", "kind").TextIs("Role") {
		id.Namespace, plural = w.new.Namespace, "roles"
	}
	return p.Set.Find(rbacv1.SchemeGroupVersion.WithResource(plural), id)
}

// subject returns the reserved ServiceAccount that a subject of a binding in the namespace names, by itself, by its user name, or as one of
// all in its namespace. A group of all ServiceAccounts or users of the cluster names none.
func (p *Policy) subject(subject rawjson.Value, namespace string) *reserved.Resource {
	name := subject.Get("name").Text()
	switch subject.Get("kind").Text() {
	case rbacv1.ServiceAccountKind: // RBAC takes the binding's namespace where the subject has none
		return p.account(cmp.Or(subject.Get("namespace").Text(), namespace), name)
	case rbacv1.UserKind:
		return p.accountOfUser(name)
	case rbacv1.GroupKind:
		if group, isAccounts := strings.CutPrefix(name, accountGroup); isAccounts {
			return p.anyAccount(group)
		}
	}
	return nil
}

// anyAccount returns the first reserved ServiceAccount in the namespace, or nil.
func (p *Policy) anyAccount(namespace string) *reserved.Resource {
	for _, resource := range p.Set.Resources() {
		if resource.IsServiceAccount() && resource.Namespace == namespace {
			return resource
		}
	}
	return nil
}

// certified returns the reserved ServiceAccount in whose name an approval lets a client certificate be signed, or nil. The API server
// parses the request in the same way when it is created.
func (p *Policy) certified(w *write) *reserved.Resource {
	if isApproved(w.OldObject) || !isApproved(w.Object) {
		return nil
	}
	block, _ := pem.Decode(decoded(w.Object.Get("spec", "request")))
	if block == nil {
		return nil
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil
	}
	return p.accountOfUser(request.Subject.CommonName)
}

func isApproved(object rawjson.Value) bool {
	for condition := range object.Get("status", "conditions").Elements() {
		if condition.Get("type").TextIs(string(certificatesv1.CertificateApproved)) {
			return true
		}
	}
	return false
}
