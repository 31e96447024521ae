// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

func TestAdviceSaysWhatToDo(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		outcome      v1alpha1.Outcome
		reason       policy.Reason
		user         string
		want, absent string
	}{
		"a person's edit":           {v1alpha1.Denied, policy.ReservedUpdate, "alice", "Ask this user", "unlock"},
		"a person's deletion":       {v1alpha1.Denied, policy.ReservedDelete, "alice", "audit list --by-user alice", ""},
		"a controller's edit":       {v1alpha1.Denied, policy.ReservedUpdate, "system:serviceaccount:argocd:app", "kubectl -n argocd get pods --field-selector spec.serviceAccountName=app", "unlock"},
		"a half name of an account": {v1alpha1.Denied, policy.ReservedUpdate, "system:serviceaccount:argocd", "Ask this user", "kubectl -n"},
		"an account without a name": {v1alpha1.Denied, policy.ReservedUpdate, "system:serviceaccount:argocd:", "Ask this user", "kubectl -n"},
		"an add-on of kube-system":  {v1alpha1.Denied, policy.ReservedUpdate, "system:serviceaccount:kube-system:tiller", "kubectl -n kube-system", "tampered"},
		"an admin of k3s":           {v1alpha1.Denied, policy.ReservedUpdate, "system:admin", "Ask this user", "tampered"},
		"the garbage collector":     {v1alpha1.Denied, policy.ReservedDelete, "system:serviceaccount:kube-system:generic-garbage-collector", "ownerReferences", "unlock"},
		"the controller manager":    {v1alpha1.Denied, policy.ReservedUpdate, "system:kube-controller-manager", "tampered", "unlock"},
		"a reserved name taken":     {v1alpha1.Denied, policy.ReservedCreate, "alice", "choose another", "unlock"},
		"a credential minted":       {v1alpha1.Denied, policy.TokenMint, "alice", "Treat it as an attack", "unlock"},
		"a request too large":       {v1alpha1.Denied, policy.TooLarge, "alice", "audit log", "unlock"},
		"a request without room":    {v1alpha1.Denied, policy.Overloaded, "alice", "guard's log", "unlock"},
		"a flood":                   {v1alpha1.Denied, FloodReason, "", "guard's log", "unlock"},
		"a request unread":          {v1alpha1.Denied, policy.Unreadable, "", "audit list", "--user"},
		"an edit only observed":     {v1alpha1.WouldDeny, policy.ReservedUpdate, "alice", "--mode enforce", ""},
		"a mint only observed":      {v1alpha1.WouldDeny, policy.TokenMint, "alice", "Treat it as an attack", ""},
		"a namespace on its way":    {v1alpha1.WouldDeny, policy.NamespaceTerminating, "alice", "namespace is being deleted", "enforce"},
		"an unlocked edit":          {v1alpha1.Unlocked, "Unlock", "alice", "reason of the unlock", ""},
		"a restoration":             {v1alpha1.Restored, policy.Restoration, "alice", "audit list --resource secrets/kube-system/a", ""},
		"a write past the guard":    {v1alpha1.Unguarded, "", "alice", "apigw-guardian status", ""},
		"a record that nobody made": {"", "", "", "Ask this user", "--user"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Advice(&v1alpha1.AuditRecordSpec{
				Outcome: test.outcome, Reason: string(test.reason), Resource: "secrets/kube-system/a", User: v1alpha1.User{Name: test.user},
			})
			if !strings.Contains(got, test.want) || test.absent != "" && strings.Contains(got, test.absent) {
				t.Errorf("want %q and not %q in: %s", test.want, test.absent, got)
			}
		})
	}
}
