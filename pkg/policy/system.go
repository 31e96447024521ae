// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// The users that a control plane writes as. They are names only: an administrator may impersonate any of them, so that none
// is allowed more than exactly its own change.
const (
	DefaultControllerManager   = "system:kube-controller-manager"
	DefaultNamespaceController = "system:serviceaccount:kube-system:namespace-controller"
	apiServer                  = "system:apiserver"
	apiServerGroup             = "system:masters"
)

// Writers are exact user names. The zero Writers trust nobody but the API server itself.
type Writers struct {
	// ControllerManager fills token Secrets and clears up after them. Cloud distributions rename it.
	ControllerManager []string
	// NamespaceController deletes what is in a namespace that is being deleted.
	NamespaceController []string
}

// DefaultWriters are the names that Kubernetes itself uses. Without --use-service-account-credentials the controller
// manager is its own namespace controller.
func DefaultWriters() Writers {
	return Writers{
		ControllerManager:   []string{DefaultControllerManager},
		NamespaceController: []string{DefaultNamespaceController, DefaultControllerManager},
	}
}

// Subject is what a Lookup is about.
type Subject string

// Subjects.
const (
	// AccountGone holds if the ServiceAccount is absent, or has another UID.
	AccountGone Subject = "AccountGone"
	// AccountIs holds if the ServiceAccount exists and has this UID.
	AccountIs Subject = "AccountIs"
	// SecretGone holds if the Secret is absent.
	SecretGone Subject = "SecretGone"
	// NamespaceGoing holds if the namespace Name is being deleted.
	NamespaceGoing Subject = "NamespaceGoing"
	// ClusterCA holds if CA is the certificate authority of this cluster's API server.
	ClusterCA Subject = "ClusterCA"
	// OnlyToken holds if no token Secret but Name is in use for the ServiceAccount Account.
	OnlyToken Subject = "OnlyToken"
)

// Lookup is one fact about the cluster that must hold for a write to be allowed. Subject says which of the other fields count.
type Lookup struct {
	Subject              Subject
	Namespace, Name, UID string
	// Account is the name of a ServiceAccount in Namespace.
	Account string
	// CA is PEM.
	CA string
}

// lookups returns what must be looked up before the decision; most writes need nothing.
func (p *Policy) lookups(w *write) []Lookup {
	isController := slices.Contains(p.Writers.ControllerManager, w.User.Name)
	isNamespaces := slices.Contains(p.Writers.NamespaceController, w.User.Name)
	switch {
	case isController && w.Operation == deletion && w.resource.IsTokenSecret():
		uid := w.OldObject.Get("metadata", "annotations", corev1.ServiceAccountUIDKey).Text()
		return []Lookup{{Subject: AccountGone, Namespace: w.old.Namespace, Name: w.old.Account, UID: uid}}
	case isController && w.Operation == update && w.isAccount() && w.droppedReference() != "":
		return []Lookup{{Subject: SecretGone, Namespace: w.old.Namespace, Name: w.droppedReference()}}
	case isNamespaces && w.Operation == deletion && w.inNamespaceOfItsOwn():
		return []Lookup{{Subject: NamespaceGoing, Name: w.resource.Namespace}}
	}
	return nil
}

// isSystemWrite says that a known writer makes exactly its own change.
func (p *Policy) isSystemWrite(w *write, holds bool) bool {
	if w.labelsLastUse() {
		return true
	}
	if !slices.Contains(p.Writers.ControllerManager, w.User.Name) {
		return false
	}
	switch {
	case w.resource.IsTokenSecret() && w.Operation == update:
		return w.fillsToken()
	case w.resource.IsTokenSecret() && w.Operation == deletion:
		return holds && w.old.Account != ""
	case w.isAccount() && w.Operation == update:
		return holds && w.droppedReference() != "" && onlyAt(w.changes, "secrets")
	default:
		return false
	}
}

// isNamespaceGoing says that the namespace controller empties a namespace whose deletion is under way: deny, and it stays
// Terminating for ever.
func (p *Policy) isNamespaceGoing(w *write, holds bool) bool {
	return holds && w.Operation == deletion && w.inNamespaceOfItsOwn() &&
		slices.Contains(p.Writers.NamespaceController, w.User.Name)
}

func (w *write) inNamespaceOfItsOwn() bool {
	return w.resource.Namespace != "" && w.resource.Namespace != metav1.NamespaceSystem
}

// labelsLastUse says that the API server notes on which day a token was last used.
func (w *write) labelsLastUse() bool {
	return w.resource.IsTokenSecret() && w.Operation == update && w.User.Name == apiServer &&
		slices.Contains(w.User.Groups, apiServerGroup) && all(w.changes, func(c change) bool {
		return c.at.is("metadata", "labels", lastUsedLabel) && c.new.Text() != ""
	})
}

// fillsToken says that a token Secret is filled, or gets the cluster's new CA. A token that stands there is never changed.
func (w *write) fillsToken() bool {
	return w.new.Account == w.resource.Account && all(w.changes, func(c change) bool {
		switch {
		case c.new.Text() == "":
			return false
		case c.at.is("data", corev1.ServiceAccountTokenKey), c.at.is("data", corev1.ServiceAccountNamespaceKey),
			c.at.is("metadata", "annotations", corev1.ServiceAccountUIDKey):
			return c.old.Text() == ""
		default:
			return c.at.is("data", corev1.ServiceAccountRootCAKey)
		}
	})
}

func (w *write) isAccount() bool {
	return w.resource.Guard == reserved.GuardContent && w.resource.Kind == "ServiceAccount" && w.resource.GVR.Group == ""
}

// droppedReference returns the name of the one Secret that an update takes from the account's list; "" where it does
// anything else to the list.
func (w *write) droppedReference() string {
	before := referencedNames(w.OldObject.Get("secrets"))
	after := referencedNames(w.Object.Get("secrets"))
	for i, name := range before {
		if slices.Equal(slices.Concat(before[:i], before[i+1:]), after) {
			return rawjson.Value(name).Text()
		}
	}
	return ""
}

func onlyAt(changes []change, keys ...string) bool {
	return all(changes, func(c change) bool { return c.at.is(keys...) })
}
