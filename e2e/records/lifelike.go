// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package records

import (
	"fmt"
	"math/rand/v2"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// kind is a kind of event, and its share in percent.
type kind struct {
	share   int
	outcome v1alpha1.Outcome
	fact    audit.Event
}

const (
	role    = "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole"
	binding = "clusterrolebindings.rbac.authorization.k8s.io/apigw-ingress-clusterrole-binding"
	account = "serviceaccounts/kube-system/apigw-ingress"
	secret  = "secrets/kube-system/apigw-ingress-token-guardian" //nolint:gosec // the name of one, not its value
	other   = "secrets/kube-system/innocent"
)

func kinds() []kind {
	fact := func(operation admissionv1.Operation, resource string, reason policy.Reason, message string, changed ...string) audit.Event {
		return audit.Event{
			Operation: operation, Object: v1alpha1.ParseObjectReference(resource), Reason: string(reason), Message: message,
			Changed: changed,
		}
	}
	return []kind{
		{38, v1alpha1.Denied, fact("UPDATE", role, policy.ReservedUpdate,
			`ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be updated (changed: rules[2].verbs).`,
			"rules[2].verbs")},
		{17, v1alpha1.Denied, fact("DELETE", role, policy.ReservedDelete,
			`ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be deleted.`)},
		{14, v1alpha1.Denied, fact("DELETE", secret, policy.ReservedDelete,
			`Secret "apigw-ingress-token-guardian" is reserved by API Gateway and must not be deleted.`)},
		{9, v1alpha1.Denied, fact("UPDATE", account, policy.ReservedUpdate,
			`ServiceAccount "apigw-ingress" is reserved by API Gateway and must not be updated (changed: metadata.labels.team).`,
			"metadata.labels.team", "automountServiceAccountToken")},
		{8, v1alpha1.WouldDeny, fact("UPDATE", binding, policy.ReservedUpdate,
			`ClusterRoleBinding "apigw-ingress-clusterrole-binding" is reserved by API Gateway and must not be updated (changed: subjects).`,
			"subjects")},
		{5, v1alpha1.Denied, fact("CREATE", other, policy.TokenMint,
			`Secret "innocent" would hold a token of ServiceAccount "apigw-ingress", which is reserved by API Gateway.`)},
		{6, v1alpha1.Restored, fact("UPDATE", role, policy.Restoration, "")},
		{2, v1alpha1.Unlocked, fact("UPDATE", role, policy.ReservedUpdate, "", "rules[0].resources")},
		{1, v1alpha1.Unguarded, fact("DELETE", binding, policy.ReservedDelete, "")},
	}
}

// period is the time in which the records have come.
const period = 30 * 24 * time.Hour

// Lifelike makes that many records of the thirty days before end, all of which differ: of every outcome, by people, controllers
// and programs, a few of them very often. The same count makes the same records.
func Lifelike(count int, end time.Time) []*v1alpha1.AuditRecord {
	chance := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the records must be the same at each run
	var facts []audit.Event
	for _, kind := range kinds() {
		for range kind.share {
			kind.fact.Outcome = kind.outcome
			facts = append(facts, kind.fact)
		}
	}
	records := make([]*v1alpha1.AuditRecord, 0, count)
	taken := map[string]bool{}
	for i := range count {
		fact := facts[chance.IntN(len(facts))]
		fact.Time = end.Add(-time.Duration(i) * (period / time.Duration(count))).Add(-time.Duration(chance.IntN(240)) * time.Second)
		fact.User = user(chance)
		for n := 0; taken[fact.Name()]; n++ {
			fact.User = person(n)
		}
		taken[fact.Name()] = true
		fact.RequestUID = fmt.Sprintf("705ab4f5-6393-11e8-b7cc-%012x", i)
		fact.Source = v1alpha1.SourceGuard
		records = append(records, Of(&fact, 1+int64(chance.ExpFloat64()*3)))
	}
	return records
}

// user is one of some that come often, or of many that come once in a while.
func user(chance *rand.Rand) v1alpha1.User {
	often := []v1alpha1.User{
		{Name: "system:serviceaccount:argocd:argocd-application-controller", Groups: []string{"system:serviceaccounts"}},
		{Name: "alice@example.com", Groups: []string{"platform", "system:authenticated"}},
		{Name: "system:serviceaccount:kube-system:generic-garbage-collector", Groups: []string{"system:serviceaccounts"}},
		{Name: "terraform", Groups: []string{"system:masters", "system:authenticated"}},
	}
	if n := chance.IntN(10); n < len(often) {
		return often[n]
	}
	return person(chance.IntN(200))
}

func person(n int) v1alpha1.User {
	return v1alpha1.User{Name: fmt.Sprintf("user-%03d@example.com", n), Groups: []string{"developers", "system:authenticated"}}
}
