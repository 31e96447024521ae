// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

const collection = "/apis/guardian.apigw.io/v1alpha1/unlocks"

// stored reads an Unlock.
func stored(t *testing.T, name string) *v1alpha1.Unlock {
	t.Helper()
	client, err := dynamic.NewForConfig(harness.Of(t).Cluster.AdminConfig())
	must(t, err)
	object, err := client.Resource(policy.UnlockResource()).Get(t.Context(), name, metav1.GetOptions{})
	must(t, err)
	unlock := &v1alpha1.Unlock{}
	must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, unlock))
	return unlock
}

// requireEvents waits until there is one Event with each reason about an Unlock, and fails the test if there are more.
func requireEvents(t *testing.T, unlock *v1alpha1.Unlock, want ...string) {
	t.Helper()
	slices.Sort(want)
	harness.Eventually(t, "Events tell what became of the unlock", func() (bool, any) {
		list, err := harness.Clients(t).EventsV1().Events(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{})
		must(t, err)
		var reasons []string
		for i := range list.Items {
			if list.Items[i].Regarding.UID == unlock.UID {
				reasons = append(reasons, list.Items[i].Reason)
			}
		}
		slices.Sort(reasons)
		if len(reasons) > len(want) {
			t.Fatalf("got the Events %v, want %v", reasons, want)
		}
		return slices.Equal(reasons, want), reasons
	})
}

// requireUnlockWritten fails the test unless the API server accepts a write to an Unlock.
func requireUnlockWritten(t *testing.T, user string, write scenario.Write) {
	t.Helper()
	if answer := do(t, user, write); answer.Code >= http.StatusBadRequest {
		t.Errorf("%s by %s: got %d: %s", write.Path, user, answer.Code, answer.Body)
	}
}

// spec is that of an Unlock for ten minutes, with more fields in the form "key":value.
func spec(requester, more string) string {
	return specUntil(requester, time.Now().Add(10*time.Minute), more)
}

func specUntil(requester string, end time.Time, more string) string {
	return fmt.Sprintf(`{%s"reservation":"apigw-ingress","reason":%q,"requestedBy":%q,"expiresAt":%q}`,
		more, reason, requester, end.UTC().Format(time.RFC3339))
}

// creation is the creation of an Unlock, with more fields of the object in the form "key":value.
func creation(more, spec string) scenario.Write {
	body := fmt.Sprintf(`{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Unlock","metadata":{"generateName":"attack-"},%s"spec":%s}`, more, spec)
	return scenario.Write{Method: http.MethodPost, Path: collection, ContentType: scenario.JSON, Body: []byte(body)}
}

// patchOf is a merge patch of an Unlock, or of its subresource.
func patchOf(unlock *v1alpha1.Unlock, subresource, patch string) scenario.Write {
	return scenario.Write{
		Method: http.MethodPatch, Path: collection + "/" + unlock.Name + subresource, ContentType: scenario.MergePatch, Body: []byte(patch),
	}
}

func deletion(path string) scenario.Write {
	return scenario.Write{Method: http.MethodDelete, Path: collection + path, ContentType: scenario.JSON}
}

// bySchema is the reason of a refusal by the API server, which holds the request against the schema before it asks the guard.
const bySchema = ""

// requireRejected fails the test unless the guard denied the write for this reason, or the schema does not allow it.
func requireRejected(t *testing.T, from log, what string, answer scenario.Answer, reason string) {
	t.Helper()
	code := http.StatusForbidden
	if reason == bySchema {
		code = http.StatusUnprocessableEntity
	}
	if got := from.reasonOf(t, answer.AuditID); answer.Code != code || got != reason {
		t.Errorf("%s: got %d, reason %q; want %d, %q: %s", what, answer.Code, got, code, reason, answer.Body)
	}
}

// attack is one attempt to get more than an Unlock allows.
type attack struct {
	user   string // "" for mallory
	write  scenario.Write
	reason string
}

// Every user of these tests may do anything with unlocks as far as RBAC is concerned.
func TestAnUnlockAllowsNoMoreThanItSays(t *testing.T) {
	harness.Take(t)
	startReplicas(t, 2)
	role := role(t)
	unlock := open(t, "alice", "--for=30m", "--resource="+role.GVR.Resource+"/"+role.Name)
	closed := open(t, "alice", "--for=30m")
	as(t, "alice", "lock", closed.Name).Require(t, 0)
	from := startOfLog(t)
	attacks := creations()
	maps.Copy(attacks, uses(t))
	maps.Copy(attacks, updates(unlock, closed))
	for name, attack := range attacks {
		answer := do(t, cmp.Or(attack.user, "mallory"), attack.write)
		requireRejected(t, from, name, answer, attack.reason)
	}
	// The API server ignores another time of creation.
	later := unlock.Spec.ExpiresAt.UTC().Format(time.RFC3339)
	requireUnlockWritten(t, "alice", patchOf(unlock, "", `{"metadata":{"creationTimestamp":"`+later+`"}}`))
	after := stored(t, unlock.Name)
	if fmt.Sprint(unlock.Spec) != fmt.Sprint(after.Spec) || !after.CreationTimestamp.Equal(&unlock.CreationTimestamp) || stored(t, closed.Name).Status.State != v1alpha1.UnlockClosed {
		t.Errorf("the unlock has become %+v", after.Spec)
	}
	requireAllowed(t, "alice", change(role))
	requireRecords(t, unlock, 1)
	requireRecords(t, closed, 0)
	if len(attacks) < 30 {
		t.Errorf("%d attacks, want 30 or more", len(attacks))
	}
}

func role(t *testing.T) *scenario.Object {
	t.Helper()
	return world(t).Role
}

// creations are unlocks that the guard must not let come about.
func creations() map[string]attack {
	now := time.Now()
	backDated := fmt.Sprintf(`{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Unlock","metadata":{"name":"back-dated","creationTimestamp":%q},"spec":%s}`,
		now.Add(3*time.Hour).UTC().Format(time.RFC3339), specUntil("mallory", now.Add(3*time.Hour+time.Minute), ""))
	const rejected = "UnlockRejected"
	return map[string]attack{
		"an unlock in another's name":          {"", creation("", spec("alice", "")), rejected},
		"one in another's name for oneself":    {"", creation("", spec("alice", `"users":["mallory"],`)), rejected},
		"one in the guard's name":              {"", creation("", spec(guardUser, "")), rejected},
		"one in no name":                       {"", creation("", spec("", "")), bySchema},
		"one for longer than an hour":          {"", creation("", specUntil("mallory", now.Add(61*time.Minute), "")), rejected},
		"one for a hundred years":              {"", creation("", specUntil("mallory", now.Add(876000*time.Hour), "")), rejected},
		"one that is over":                     {"", creation("", specUntil("mallory", now.Add(-time.Minute), "")), rejected},
		"one that pretends to be created late": {"", scenario.Write{Method: http.MethodPost, Path: collection, ContentType: scenario.JSON, Body: []byte(backDated)}, rejected},
		"one of an unknown reservation":        {"", creation("", `{"reservation":"edge","reason":"ticket 4711","requestedBy":"mallory","expiresAt":"2030-01-01T00:00:00Z"}`), rejected},
		"one of another resource":              {"", creation("", spec("mallory", `"resources":["secrets/kube-system/other"],`)), rejected},
		"one of a pattern of resources":        {"", creation("", spec("mallory", `"resources":["*"],`)), rejected},
		"one of an unknown operation":          {"", creation("", spec("mallory", `"operations":["CONNECT"],`)), bySchema},
		"one of seventeen users":               {"", creation("", spec("mallory", `"users":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"],`)), bySchema},
		"one as a dry-run":                     {"", creation("", spec("alice", "")).DryRun(), rejected},
		"one by a server-side apply": {"", scenario.Write{
			Method: http.MethodPatch, Path: collection + "/applied", ContentType: scenario.ApplyPatch, Query: map[string][]string{"fieldManager": {"m"}},
			Body: []byte(`{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Unlock","metadata":{"name":"applied"},"spec":` + spec("alice", "") + `}`),
		}, rejected},
	}
}

// uses are writes to reserved resources that the open Unlock of alice does not cover: she may update the ClusterRole.
func uses(t *testing.T) map[string]attack {
	t.Helper()
	w := world(t)
	return map[string]attack{
		"a write under another's unlock":        {"", change(w.Role), "ReservedUpdate"},
		"a write in nearly the same name":       {"alice ", change(w.Role), "ReservedUpdate"},
		"a write in another case":               {"Alice", change(w.Role), "ReservedUpdate"},
		"an update of another resource":         {"alice", change(w.Binding), "ReservedUpdate"},
		"an update of the token":                {"alice", change(w.Token), "ReservedUpdate"},
		"a deletion under one for updates":      {"alice", scenario.Delete(w.Role), "ReservedDelete"},
		"a mint under one for updates":          {"alice", scenario.Create(w.Token, mint), "TokenMint"},
		"a write under a closed unlock":         {"alice", change(w.Account), "ReservedUpdate"},
		"a dry-run under another's unlock":      {"", change(w.Role).DryRun(), "ReservedUpdate"},
		"a deletion of a collection by another": {"", scenario.Write{Method: http.MethodDelete, Path: w.Role.Collection, Query: map[string][]string{"fieldSelector": {"metadata.name=" + w.Role.Name}}, ContentType: scenario.JSON}, "ReservedDelete"},
	}
}

// updates are changes to the open and the closed Unlock of alice.
func updates(unlock, closed *v1alpha1.Unlock) map[string]attack {
	const rejected = "UnlockRejected"
	later := unlock.Spec.ExpiresAt.Add(time.Hour).UTC().Format(time.RFC3339)
	return map[string]attack{
		"a later end":                           {"alice", patchOf(unlock, "", `{"spec":{"expiresAt":"`+later+`"}}`), bySchema},
		"another requester":                     {"", patchOf(unlock, "", `{"spec":{"requestedBy":"mallory"}}`), bySchema},
		"one user more":                         {"", patchOf(unlock, "", `{"spec":{"users":["alice","mallory"]}}`), bySchema},
		"one operation more":                    {"alice", patchOf(unlock, "", `{"spec":{"operations":["UPDATE","DELETE"]}}`), bySchema},
		"all resources":                         {"alice", patchOf(unlock, "", `{"spec":{"resources":null}}`), bySchema},
		"another reason":                        {"alice", patchOf(unlock, "", `{"spec":{"reason":"another good reason"}}`), bySchema},
		"opening it again":                      {"alice", patchOf(closed, "", `{"spec":{"closed":false}}`), bySchema},
		"opening it again without the field":    {"alice", patchOf(closed, "", `{"spec":{"closed":null}}`), bySchema},
		"a state":                               {"", patchOf(unlock, "/status", `{"status":{"state":"Expired"}}`), rejected},
		"the closed one as open":                {"alice", patchOf(closed, "/status", `{"status":{"state":"Open"}}`), rejected},
		"a replica that honours it":             {"", patchOf(unlock, "/status", `{"status":{"replicas":{"x":"Open"}}}`), rejected},
		"a first use":                           {"", patchOf(unlock, "/status", `{"status":{"firstUsed":"`+later+`"}}`), rejected},
		"no trace of its use":                   {"", patchOf(unlock, "/status", `{"status":null}`), rejected},
		"an approval of one's own":              {"alice", patchOf(unlock, "/status", `{"status":{"approvedBy":"alice"}}`), rejected},
		"an approval in another's name":         {"", patchOf(unlock, "/status", `{"status":{"approvedBy":"bob"}}`), rejected},
		"an approval of a closed one":           {"bob", patchOf(closed, "/status", `{"status":{"approvedBy":"bob"}}`), rejected},
		"its deletion":                          {"", deletion("/" + unlock.Name), rejected},
		"its deletion by its requester":         {"alice", deletion("/" + unlock.Name), rejected},
		"its deletion by the garbage collector": {"system:serviceaccount:kube-system:generic-garbage-collector", deletion("/" + unlock.Name), rejected},
		"its deletion in the guard's name":      {guardUser, deletion("/" + unlock.Name), rejected},
		"the deletion of the closed one":        {"", deletion("/" + closed.Name), rejected},
		"the deletion of all":                   {"", deletion(""), rejected},
	}
}
