// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/base64"
	"regexp"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// The user names of the control plane. An administrator can impersonate each of them. Therefore a name permits only the change
// that its component makes, with values that are true in this cluster.
const (
	DefaultControllerManager   = "system:kube-controller-manager"
	DefaultNamespaceController = "system:serviceaccount:kube-system:namespace-controller"
	apiServer                  = "system:apiserver"
	apiServerGroup             = "system:masters"
)

// Writers are exact user names of the control plane. The zero Writers trust only the API server.
type Writers struct {
	// ControllerManager fills token Secrets, and deletes them after their ServiceAccount. Some distributions rename it.
	ControllerManager []string
	// NamespaceController deletes the objects in a terminating namespace.
	NamespaceController []string
}

// DefaultWriters returns the names that Kubernetes uses. Without --use-service-account-credentials, the namespace controller
// writes as the controller manager.
func DefaultWriters() Writers {
	return Writers{
		ControllerManager:   []string{DefaultControllerManager},
		NamespaceController: []string{DefaultNamespaceController, DefaultControllerManager},
	}
}

// Subject is the state of the cluster that a Lookup asks for.
type Subject string

// Subjects.
const (
	// AccountGone holds if the ServiceAccount is absent, or if UID is set and the ServiceAccount has another UID.
	AccountGone Subject = "AccountGone"
	// AccountIs holds if the ServiceAccount exists and has this UID.
	AccountIs Subject = "AccountIs"
	// SecretGone holds if the Secret is absent.
	SecretGone Subject = "SecretGone"
	// NamespaceGoing holds if the namespace Name is terminating.
	NamespaceGoing Subject = "NamespaceGoing"
	// ClusterCA holds if CA is the certificate authority of this cluster's API server.
	ClusterCA Subject = "ClusterCA"
	// OnlyToken holds if no token Secret except Name is in use for the ServiceAccount Account.
	OnlyToken Subject = "OnlyToken"
	// NotRetired holds if the reservation Name is neither retired nor being retired.
	NotRetired Subject = "NotRetired"
	// Live holds if the object of GVR exists and has this UID. With an empty UID it holds if there is no such object.
	Live Subject = "Live"
)

// Lookup is one state of the cluster that a decision depends on. Subject decides which of the fields after OnError are used.
type Lookup struct {
	Subject Subject
	// ForRecord says that the lookup decides only whether an allowed write is recorded.
	ForRecord bool
	// OnError is the answer if the lookup fails.
	OnError bool

	Namespace, Name, UID string
	GVR                  schema.GroupVersionResource
	// Account is the name of a ServiceAccount in Namespace.
	Account string
	// CA is a certificate bundle in PEM.
	CA string
}

// systemWrite returns the permit for a write that a component of the control plane makes under its own name; false if it is
// another write.
func (p *Policy) systemWrite(w *write) (permit, bool) {
	if w.labelsLastUse() {
		return permit{reason: SystemWrite}, true
	}
	if !slices.Contains(p.Writers.ControllerManager, w.User.Name) {
		return permit{}, false
	}
	switch {
	case w.resource.IsTokenSecret() && w.Operation == admissionv1.Update:
		lookups, fits := w.fillsToken()
		return permit{reason: SystemWrite, lookups: lookups}, fits
	case w.resource.IsTokenSecret() && w.Operation == admissionv1.Delete && w.old.Account != "":
		isLive := w.isLive(w.old)
		isLive.OnError = true // the guard may not read Secrets under other names, and every deletion is recorded
		return permit{reason: SystemDelete, outcome: v1alpha1.Allowed, lookups: []Lookup{isLive, {
			Subject: AccountGone, Namespace: w.old.Namespace, Name: w.old.Account, UID: w.trueUID(),
		}}}, true
	case w.isAccount() && w.Operation == admissionv1.Update:
		dropped := w.droppedReference()
		fits := dropped != "" && w.changesOnly(func(c change) bool { return c.at.is("secrets") })
		return permit{reason: SystemWrite, lookups: []Lookup{{
			Subject: SecretGone, Namespace: w.old.Namespace, Name: dropped,
		}}}, fits
	}
	return permit{}, false
}

// namespaceEnd returns the permit for a deletion by the namespace controller in a terminating namespace. A denial would leave
// the namespace Terminating for ever.
func (p *Policy) namespaceEnd(w *write) (permit, bool) {
	isDedicated := w.resource.Namespace != "" && w.resource.Namespace != metav1.NamespaceSystem
	fits := w.Operation == admissionv1.Delete && isDedicated && slices.Contains(p.Writers.NamespaceController, w.User.Name)
	return permit{reason: NamespaceTerminating, outcome: v1alpha1.WouldDeny, lookups: []Lookup{{
		Subject: NamespaceGoing, Name: w.resource.Namespace,
	}}}, fits
}

// labelsLastUse reports whether the API server labels a token Secret with the day of the token's last use. The match conditions
// of pkg/registration skip exactly this write; e2e/matchconditions compares both.
func (w *write) labelsLastUse() bool {
	return w.resource.IsTokenSecret() && w.Operation == admissionv1.Update && w.User.Name == apiServer &&
		slices.Contains(w.User.Groups, apiServerGroup) && w.changesOnly(func(c change) bool {
		return c.at.is("metadata", "labels", reserved.LastUsedLabel) && dateForm.MatchString(c.new.Text())
	})
}

// DatePattern is the form of a date such as "2026-11-27". It accepts February 29 in every year.
const DatePattern = `^[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-9]))$`

var dateForm = regexp.MustCompile(DatePattern)

// fillsToken reports whether the write fills an empty token Secret, or replaces its CA certificate. The values are true if
// the lookups hold. A write that changes an existing token does not fit.
func (w *write) fillsToken() (lookups []Lookup, fits bool) {
	namesAccount := false
	fits = w.new.Account == w.resource.Account && w.changesOnly(func(c change) bool {
		switch {
		case c.new.Text() == "":
			return false
		case c.at.is("data", corev1.ServiceAccountRootCAKey):
			lookups = append(lookups, Lookup{Subject: ClusterCA, CA: string(decoded(c.new))})
			return true
		case c.old.Text() != "":
			return false
		case c.at.is("data", corev1.ServiceAccountNamespaceKey):
			return string(decoded(c.new)) == w.new.Namespace
		case c.at.is("data", corev1.ServiceAccountTokenKey):
			namesAccount = true
			return w.claimsMatch(decoded(c.new))
		case c.at.is("metadata", "annotations", corev1.ServiceAccountUIDKey):
			namesAccount = true
			return true
		}
		return false
	})
	if namesAccount {
		lookups = append(lookups, Lookup{
			Subject: AccountIs, Namespace: w.new.Namespace, Name: w.new.Account, UID: accountUID(w.Object),
		})
	}
	return lookups, fits
}

// claimsMatch reports whether the token's claims name this Secret and its ServiceAccount.
func (w *write) claimsMatch(token []byte) bool {
	claims, readable := ReadTokenClaims(token)
	return readable && claims == TokenClaims{
		Namespace: w.new.Namespace, Secret: w.new.Name, Account: w.new.Account, AccountUID: accountUID(w.Object),
	}
}

// trueUID returns the UID of the ServiceAccount that the deleted Secret had a token of; "" if its token and its annotation
// differ. The annotation is no proof: while no guard runs, any client that may update Secrets can write it.
func (w *write) trueUID() string {
	uid := accountUID(w.OldObject)
	claims, readable := ReadTokenClaims(decoded(w.OldObject.Get("data", corev1.ServiceAccountTokenKey)))
	want := TokenClaims{Namespace: w.old.Namespace, Secret: w.old.Name, Account: w.old.Account, AccountUID: uid}
	if !readable || claims != want {
		return ""
	}
	return uid
}

func accountUID(secret rawjson.Value) string {
	return secret.Get("metadata", "annotations", corev1.ServiceAccountUIDKey).Text()
}

// decoded returns the bytes of a value in a Secret's data; nil if it is not base64.
func decoded(value rawjson.Value) []byte {
	data, err := base64.StdEncoding.DecodeString(value.Text())
	if err != nil {
		return nil
	}
	return data
}

func (w *write) isAccount() bool {
	return w.resource.Guard == reserved.GuardContent && w.resource.IsServiceAccount()
}

// droppedReference returns the name of the only Secret that an update removes from the account's list; "" if it changes the
// list in another way.
func (w *write) droppedReference() string {
	before := referencedNames(w.OldObject.Get("secrets"))
	after := referencedNames(w.Object.Get("secrets"))
	if len(before) != len(after)+1 || len(before) > maxMembers {
		return ""
	}
	at := 0
	for at < len(after) && before[at] == after[at] {
		at++
	}
	if !slices.Equal(before[at+1:], after[at:]) {
		return ""
	}
	return rawjson.Value(before[at]).Text()
}

// changesOnly reports whether the write has changes, all of them were found, and each satisfies f. The writer may become the
// owner of the fields that it changes.
func (w *write) changesOnly(f func(change) bool) bool {
	return len(w.changes) > 0 && w.complete && !slices.ContainsFunc(w.owners, owner.isUser) &&
		!slices.ContainsFunc(w.changes, func(c change) bool { return !f(c) })
}
