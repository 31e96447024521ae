// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Members beyond the limit would not be compared, so that the object must differ as a whole.
func TestAnObjectWithTooManyMembersDiffersAsAWhole(t *testing.T) {
	t.Parallel()
	object := func(members int, last string) string {
		var b strings.Builder
		for i := range members {
			fmt.Fprintf(&b, `"k%d":1,`, i)
		}
		return `{"a":{` + b.String() + `"last":` + last + `}}`
	}
	for members, want := range map[int]string{maxMembers: "a.last", maxMembers + 1: "a"} {
		got := changedPaths(builtIn(t, "ClusterRole"), parse(t, object(members-1, "1")), parse(t, object(members-1, "2")))
		if diff := cmp.Diff([]string{want}, got); diff != "" {
			t.Errorf("%d members: (-want +got)\n%s", members, diff)
		}
	}
}

func TestAFieldThatIsNotComparedIsNotRestored(t *testing.T) {
	t.Parallel()
	nested := func(inner string) string { return strings.Repeat(`{"a":`, 1000) + inner + strings.Repeat("}", 1000) }
	changes, complete := compareVersions(builtIn(t, "ClusterRole"), parse(t, nested("1")), parse(t, nested("2")))
	if len(changes) != 1 || complete || changes[0].restored {
		t.Errorf("got %d changes, complete=%t, %+v, want one that is not restored", len(changes), complete, changes)
	}
}

// A namespace of Kubernetes itself never ends, and a Secret that names no account holds no token.
func TestNoLookupForADeletionThatNoControllerMakes(t *testing.T) {
	t.Parallel()
	const (
		token = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress-token-x","annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}}}`
		other = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress-token-x"}}`
	)
	for name, test := range map[string]struct{ user, old string }{
		"the namespace controller in kube-system":      {DefaultNamespaceController, token},
		"the controller manager without an account":    {DefaultControllerManager, other},
		"an administrator, whom no lookup could allow": {"admin", token},
	} {
		request := updateOf(t, "Secret", test.old, "", v1alpha1.User{Name: test.user})
		request.Operation = admissionv1.Delete
		reviewed := builtInPolicy(t).Review(request)
		if got := reviewed.Decide(Facts{}); len(reviewed.Lookups()) > 0 || got.Allowed || got.Reason != ReservedDelete {
			t.Errorf("%s: got %v and %s, want no lookup and %s", name, reviewed.Lookups(), got.Reason, ReservedDelete)
		}
	}
}

// An owner by apply could remove the label later, and all that it owns with it.
func TestTheLabelOfTheLastUseIsOwnedByAnUpdateOnly(t *testing.T) {
	t.Parallel()
	secret := func(fields string) string {
		return `{"metadata":{"namespace":"kube-system","name":"apigw-ingress-token-guardian",` + fields +
			`"annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}}}`
	}
	const labelled = `"labels":{"kubernetes.io/legacy-token-last-used":"2026-11-27"},"managedFields":[{"manager":%q,"operation":%q,` +
		`"fieldsV1":{"f:metadata":{"f:labels":{"f:kubernetes.io/legacy-token-last-used":{}}}}}],`
	apiServer := v1alpha1.User{Name: "system:apiserver", Groups: []string{"system:masters"}}
	for name, test := range map[string]struct {
		manager, operation string
		allowed            bool
	}{
		"an update":            {"kube-apiserver", "Update", true},
		"an apply":             {"kube-apiserver", "Apply", false},
		"an operation to come": {"kube-apiserver", "Merge", false},
		"an update by kubectl": {"kubectl-edit", "Update", false},
	} {
		new := secret(fmt.Sprintf(labelled, test.manager, test.operation))
		got := decide(builtInPolicy(t).Review(updateOf(t, "Secret", secret(""), new, apiServer)), true)
		if got.Allowed != test.allowed {
			t.Errorf("%s: got allowed=%t %s", name, got.Allowed, got.Reason)
		}
	}
}
