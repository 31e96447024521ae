// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/review"
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

// Subject is what a Question is about.
type Subject string

// Subjects.
const (
	// AccountGone: is the ServiceAccount absent, or another one than the one with the UID?
	AccountGone Subject = "AccountGone"
	// SecretGone: is the Secret absent?
	SecretGone Subject = "SecretGone"
	// NamespaceGoing: is the namespace Name being deleted?
	NamespaceGoing Subject = "NamespaceGoing"
)

// Question asks for the one fact about the cluster that a decision rests on. Its zero value asks nothing.
type Question struct {
	Subject              Subject
	Namespace, Name, UID string
}

// Question returns what must be looked up to decide over a request; most need nothing. The answer is handed to Evaluate.
func (p *Policy) Question(request *review.Request) Question {
	isController := slices.Contains(p.Writers.ControllerManager, request.User.Name)
	isNamespaces := slices.Contains(p.Writers.NamespaceController, request.User.Name)
	if !isController && !isNamespaces {
		return Question{}
	}
	w := newWrite(request)
	if !p.isReadable(w) {
		return Question{}
	}
	w.resource = p.concerned(w)
	switch {
	case w.resource == nil:
		return Question{}
	case isController && w.Operation == deletion && w.resource.IsTokenSecret():
		uid := w.OldObject.Get("metadata", "annotations", corev1.ServiceAccountUIDKey).Text()
		return Question{Subject: AccountGone, Namespace: w.old.Namespace, Name: w.old.Account, UID: uid}
	case isController && w.Operation == update && w.isAccount():
		return Question{Subject: SecretGone, Namespace: w.old.Namespace, Name: w.droppedReference()}.orNothing()
	case isNamespaces && w.Operation == deletion && w.inNamespaceOfItsOwn():
		return Question{Subject: NamespaceGoing, Name: w.resource.Namespace}
	}
	return Question{}
}

// orNothing turns a question without a name into none: there is nothing to look up.
func (q Question) orNothing() Question {
	if q.Name == "" {
		return Question{}
	}
	return q
}

// isSystemWrite says that a known writer makes exactly its own change.
func (p *Policy) isSystemWrite(w *write, established bool) bool {
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
		return established && w.old.Account != ""
	case w.isAccount() && w.Operation == update:
		return established && w.droppedReference() != "" && onlyAt(w.changes, "secrets")
	default:
		return false
	}
}

// isNamespaceGoing says that the namespace controller empties a namespace whose deletion is under way: deny, and it stays
// Terminating for ever.
func (p *Policy) isNamespaceGoing(w *write, established bool) bool {
	return established && w.Operation == deletion && w.inNamespaceOfItsOwn() &&
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
