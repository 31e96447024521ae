// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
)

// tampering is one changed field.
type tampering struct {
	name   string
	object func(*scenario.World) *scenario.Object
	write  func(*scenario.World) scenario.Write
	// path begins the path of the field.
	path string
}

func role(w *scenario.World) *scenario.Object    { return w.Role }
func binding(w *scenario.World) *scenario.Object { return w.Binding }
func account(w *scenario.World) *scenario.Object { return w.Account }
func token(w *scenario.World) *scenario.Object   { return w.Token }

func merged(name string, object func(*scenario.World) *scenario.Object, path, patch string) tampering {
	return tampering{name, object, func(w *scenario.World) scenario.Write { return scenario.Merge(object(w), patch) }, path}
}

// tamperings are all fields of all kinds that an update can change and a restoration can put back.
func tamperings() []tampering {
	all := []tampering{
		merged("a rule taken away", role, "rules", `{"rules":[]}`),
		{"a verb changed", role, func(w *scenario.World) scenario.Write {
			return scenario.Patch(w.Role, `[{"op":"replace","path":"/rules/0/verbs","value":["*"]}]`)
		}, "rules"},
		merged("aggregated", role, "aggregationRule", `{"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"x":"y"}}]}}`),
		merged("aggregated into another role", role, "metadata.labels",
			`{"metadata":{"labels":{"rbac.authorization.k8s.io/aggregate-to-view":"true"}}}`),
		merged("a subject added", binding, "subjects",
			`{"subjects":[{"kind":"ServiceAccount","name":"apigw-ingress","namespace":"kube-system"},`+
				`{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"mallory"}]}`),
		merged("the subjects taken away", binding, "subjects", `{"subjects":null}`),
		merged("no token mounted", account, "automountServiceAccountToken", `{"automountServiceAccountToken":false}`),
		merged("a pull secret", account, "imagePullSecrets", `{"imagePullSecrets":[{"name":"x"}]}`),
	}
	for kind, object := range map[string]func(*scenario.World) *scenario.Object{
		"role": role, "binding": binding, "account": account, "token": token,
	} {
		all = append(all,
			merged("a label on the "+kind, object, "metadata.labels", `{"metadata":{"labels":{"`+stranger+`":"x"}}}`),
			merged("an annotation on the "+kind, object, "metadata.annotations", `{"metadata":{"annotations":{"`+stranger+`":"x"}}}`),
			merged("a finalizer on the "+kind, object, "metadata.finalizers", `{"metadata":{"finalizers":["`+stranger+`"]}}`),
		)
	}
	slices.SortFunc(all, func(a, b tampering) int { return strings.Compare(a.name, b.name) })
	return all
}

// Every field is found and restored, with the field manager that changed it, and the gap names the changes.
func TestWhatChangedWhileTheGuardWasAwayIsFoundAndRestored(t *testing.T) {
	world, guard := start(t, drift.Heal)
	rounds := plan(tamperings())
	if harness.Full(false, true) {
		rounds = rounds[:2]
	}
	for _, round := range rounds {
		began := time.Now().Add(-time.Second)
		awaitDecision(t)
		away(t, guard)
		for _, change := range round {
			tamper(t, world, change.write(world))
		}
		awaitGap()
		guard = startGuard(t, drift.Heal)
		harness.Eventually(t, "all is restored", inSync(t, world, world.Objects()...))
		requireChanges(t, world, round, began)
		requireDriftRecords(t, world, round, began)
		harness.Eventually(t, "no drift is left", func() (bool, any) {
			report := state(t).Report
			return report != nil && len(report.Drift) == 0, report
		})
	}
}

// plan puts changes into rounds with one change per object each.
func plan(all []tampering) [][]tampering {
	var rounds [][]tampering
	world := &scenario.World{Account: &scenario.Object{}, Role: &scenario.Object{}, Binding: &scenario.Object{}, Token: &scenario.Object{}}
	for _, change := range all {
		i := slices.IndexFunc(rounds, func(round []tampering) bool {
			return !slices.ContainsFunc(round, func(other tampering) bool { return other.object(world) == change.object(world) })
		})
		if i < 0 {
			rounds, i = append(rounds, nil), len(rounds)
		}
		rounds[i] = append(rounds[i], change)
	}
	return rounds
}

// awaitDecision waits for a fresh note, so that the next gap begins after it.
func awaitDecision(t *testing.T) {
	t.Helper()
	now := time.Now()
	harness.Eventually(t, "the guard notes that it decides", func() (bool, any) {
		decided := state(t).Decided
		return !decided.Before(now.Truncate(time.Second)), decided
	})
}

// awaitGap waits as long as a guard may be silent before that is a gap.
func awaitGap() { time.Sleep(8 * time.Second) }

// requireChanges wants a gap since the time that names each change, its field manager and its time.
func requireChanges(t *testing.T, world *scenario.World, round []tampering, began time.Time) {
	t.Helper()
	for _, change := range round {
		object := change.object(world)
		harness.Eventually(t, "the gap names "+change.name, func() (bool, any) {
			report := state(t).Report
			if report == nil || report.Gap == nil || report.Gap.To.Time.Before(began) {
				return false, report
			}
			i := slices.IndexFunc(report.Gap.Changes, func(f drift.Finding) bool {
				return f.Resource == object.String() && slices.ContainsFunc(f.Paths, func(path string) bool { return strings.HasPrefix(path, change.path) })
			})
			if i < 0 {
				return false, report.Gap
			}
			f := report.Gap.Changes[i]
			isOwned := f.Manager == tamperer && !f.At.Before(&report.Gap.From) && !report.Gap.To.Before(&f.At)
			// A removed field has no owner, and the API server tracks no owners in an account that was applied without a field.
			return isOwned || f.Manager == "" && (object == world.Account || change.name == "the subjects taken away"), report.Gap
		})
	}
	if found := records(t, v1alpha1.Gap, nil, began); len(found) == 0 || state(t).Report.Gap.Defect == "" {
		t.Errorf("%d records of the gap %+v, in which writes passed", len(found), state(t).Report.Gap)
	}
}

func requireDriftRecords(t *testing.T, world *scenario.World, round []tampering, began time.Time) {
	t.Helper()
	for _, change := range round {
		object := change.object(world)
		harness.Eventually(t, "a record of drift: "+change.name, func() (bool, any) {
			found := records(t, v1alpha1.Drift, object, began)
			return slices.ContainsFunc(found, func(r v1alpha1.AuditRecord) bool {
				return r.Spec.Reason == audit.Differs &&
					slices.ContainsFunc(r.Spec.Changed, func(path string) bool { return strings.HasPrefix(path, change.path) })
			}), found
		})
	}
}

// While the guard runs, its watch finds a write past the webhook, and a deletion.
func TestTheWatchFindsWritesPastTheWebhook(t *testing.T) {
	world, guard := start(t, drift.Heal)
	began := time.Now().Add(-time.Second)
	tamper(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"x"}}}`))
	harness.Eventually(t, "the role is restored", inSync(t, world, world.Role))
	tamper(t, world, scenario.Delete(world.Binding))
	harness.Eventually(t, "the binding is back", inSync(t, world, world.Binding))
	harness.Eventually(t, "the deletion has a record", func() (bool, any) {
		found := records(t, v1alpha1.Drift, world.Binding, began)
		return len(found) == 1 && found[0].Spec.Reason == audit.Absent, found
	})
	if got := metric(t, guard, `apigw_guardian_heals_total{result="restored"}`); got < 2 {
		t.Errorf("%v heals, want 2 at least", got)
	}
	tamper(t, world, scenario.Delete(world.Account)) // the control plane deletes the token with it
	harness.Eventually(t, "account and token are back", inSync(t, world, world.Objects()...))
}

// A guard that is killed leaves its webhook configuration: the API server refuses writes meanwhile, and the gap says so.
func TestAGapWithoutAWrite(t *testing.T) {
	world, guard := start(t, drift.Heal)
	awaitDecision(t)
	guard.Kill()
	awaitGap()
	startGuard(t, drift.Heal)
	harness.Eventually(t, "the gap is reported", func() (bool, any) {
		report := state(t).Report
		return report != nil && report.Gap != nil && report.Gap.Defect == "" && len(report.Gap.Changes) == 0, report
	})
	if ran := harness.Run(t, "status"); ran.Code != 0 || !strings.Contains(ran.Stdout, "writes were refused") {
		t.Errorf("exit code %d: %s", ran.Code, ran.Output())
	}
	if ok, last := inSync(t, world, world.Objects()...)(); !ok {
		t.Error(last)
	}
}

// A token Secret that was deleted while its account lives is not created again: that would revive the deleted token.
func TestADeletedCredentialIsNotRevived(t *testing.T) {
	world, _ := start(t, drift.Authorize)
	harness.Run(t, "authorize", "--private-network=skip").Require(t, 0)
	tamper(t, world, scenario.Delete(world.Token))
	f := awaitFinding(t, world.Token, "the token is not created again", func(f drift.Finding) bool { return strings.Contains(f.Held, "rotate") })
	if stored := read(t, world, world.Token); stored != nil || len(f.Paths) > 0 {
		t.Errorf("got %v, %+v", stored, f)
	}
}

// A second writer that always writes again wins after three rounds, and is named.
func TestAFightEndsInAReport(t *testing.T) {
	world, guard := start(t, drift.Heal)
	began, patch := time.Now().Add(-time.Second), scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"x"}}}`)
	for round := range 3 {
		tamper(t, world, patch)
		// A write between the two of a repair would make the repair fail, and a repair that fails is no round.
		harness.Eventually(t, "the role is restored", func() (bool, any) {
			got := metric(t, guard, `apigw_guardian_heals_total{result="restored"}`)
			return got == float64(round+1), got
		})
	}
	tamper(t, world, patch)
	f := awaitFinding(t, world.Role, "the guard has stopped", func(f drift.Finding) bool { return strings.Contains(f.Held, "3 repairs") })
	if f.Manager != tamperer || !strings.Contains(f.Held, tamperer) || f.At.IsZero() {
		t.Errorf("the finding does not name the writer: %+v", f)
	}
	harness.Eventually(t, "the fight has a record", func() (bool, any) {
		found := records(t, v1alpha1.Drift, world.Role, began)
		return slices.ContainsFunc(found, func(r v1alpha1.AuditRecord) bool {
			return r.Spec.Reason == audit.HealStopped && strings.Contains(r.Spec.Message, tamperer)
		}), found
	})
	if got := metric(t, guard, `apigw_guardian_heals_total{result="stopped"}`); got != 1 {
		t.Errorf("stopped %v times, want 1", got)
	}
	if paths := driftOf(t, world, world.Role); len(paths) != 1 {
		t.Errorf("the role differs in %v", paths)
	}
	harness.Run(t, "authorize", "--repair", "--private-network=skip").Require(t, 0)
	harness.Eventually(t, "no drift is left", func() (bool, any) { return len(state(t).Report.Drift) == 0, state(t).Report })
}

// Without heal, drift is reported and left.
func TestWithoutHealDriftIsReported(t *testing.T) {
	world, guard := start(t, drift.ReportOnly)
	began := time.Now().Add(-time.Second)
	tamper(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"x"}}}`))
	f := awaitFinding(t, world.Role, "the guard finds it", func(f drift.Finding) bool { return f.Held != "" })
	if f.Manager != tamperer || !slices.Equal(f.Paths, []string{"metadata.labels[" + stranger + "]"}) {
		t.Errorf("got %+v", f)
	}
	harness.Eventually(t, "it has a record", func() (bool, any) {
		found := records(t, v1alpha1.Drift, world.Role, began)
		return len(found) == 1, found
	})
	if got := metric(t, guard, `apigw_guardian_drift{resource="`+world.Role.String()+`"}`); got != 1 {
		t.Errorf("the metric is %v, want 1", got)
	}
	if paths := driftOf(t, world, world.Role); len(paths) != 1 {
		t.Errorf("the role differs in %v", paths)
	}
}

// A write under an Unlock is not reverted, neither while it is open nor when it has ended; one behind the guard's back is.
func TestAWriteUnderAnUnlockStays(t *testing.T) {
	world, _ := start(t, drift.Heal)
	unlock := &v1alpha1.Unlock{}
	harness.Run(t, "unlock", "--reason", "a test changes it on purpose", "--resource=clusterroles/"+world.Role.Name, "-o", "json").
		Require(t, 0).Into(t, unlock)
	change := scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"on-purpose"}}}`)
	guardedly(t, world, change)
	awaitFinding(t, world.Role, "heal waits for the unlock", func(f drift.Finding) bool {
		return f.Unlock == unlock.Name && strings.Contains(f.Held, "is open")
	})
	harness.Run(t, "lock", unlock.Name).Require(t, 0)
	awaitFinding(t, world.Role, "the change is reported as permitted", func(f drift.Finding) bool {
		return f.Unlock == unlock.Name && strings.Contains(f.Held, "change the manifest")
	})
	if paths := driftOf(t, world, world.Role); len(paths) != 1 {
		t.Errorf("the permitted change was reverted: the role differs in %v", paths)
	}
	time.Sleep(2 * time.Second) // managedFields have whole seconds
	tamper(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"behind-its-back"}}}`))
	harness.Eventually(t, "another change of the same field is restored", inSync(t, world, world.Role))
}

// An Unlock that restores at its end leaves nothing of what it allowed.
func TestAnUnlockMayRestoreAtItsEnd(t *testing.T) {
	world, _ := start(t, drift.Heal)
	began, unlock := time.Now().Add(-time.Second), &v1alpha1.Unlock{}
	harness.Run(t, "unlock", "--reason", "a test changes it for a while", "--on-end=restore", "-o", "json").Require(t, 0).Into(t, unlock)
	guardedly(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"`+stranger+`":"for-a-while"}}}`))
	awaitFinding(t, world.Role, "heal waits for the unlock", func(f drift.Finding) bool { return strings.Contains(f.Held, "is open") })
	harness.Run(t, "lock", unlock.Name).Require(t, 0)
	harness.Eventually(t, "the change is undone", inSync(t, world, world.Role))
	harness.Eventually(t, "the drift has a record", func() (bool, any) {
		found := records(t, v1alpha1.Drift, world.Role, began)
		return slices.ContainsFunc(found, func(r v1alpha1.AuditRecord) bool { return r.Spec.Unlock == unlock.Name }), found
	})
}

// A removed field has no owner. That somebody else wrote the object before a permitted write does not make the removal permitted.
func TestARemovalAfterAnUnlockIsRestored(t *testing.T) {
	world, _ := start(t, drift.Heal)
	bystander := scenario.Apply(world.Binding, toJSON(world.Binding.Object().Object))
	bystander.Query = map[string][]string{"fieldManager": {"bystander"}, "force": {"true"}}
	guardedly(t, world, bystander)
	unlock := &v1alpha1.Unlock{}
	harness.Run(t, "unlock", "--reason", "a test changes it for a while", "-o", "json").Require(t, 0).Into(t, unlock)
	for _, value := range []string{`"x"`, "null"} {
		guardedly(t, world, scenario.Merge(world.Binding, `{"metadata":{"labels":{"`+stranger+`":`+value+`}}}`))
	}
	harness.Run(t, "lock", unlock.Name).Require(t, 0)
	harness.Eventually(t, "no drift is left", func() (bool, any) { return len(state(t).Report.Drift) == 0, state(t).Report })
	tamper(t, world, scenario.Merge(world.Binding, `{"subjects":null}`))
	harness.Eventually(t, "the subjects are back", inSync(t, world, world.Binding))
}

// guardedly makes a write that the guard allows.
func guardedly(t *testing.T, world *scenario.World, write scenario.Write) {
	t.Helper()
	if answer, err := world.Guarded.Do(t.Context(), write); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%s %s: %d %s %v", write.Method, write.Path, answer.Code, answer.Body, err)
	}
}

// Without a job, the leader authorizes a missing set; it leaves a set alone that was there before and differs.
func TestTheLeaderAuthorizesAMissingSet(t *testing.T) {
	world := take(t)
	removeAll(t, world)
	guard := startGuard(t, drift.Heal)
	f := awaitFinding(t, world.Role, "heal leaves what was never authorized", func(f drift.Finding) bool { return f.Held != "" })
	if stored := read(t, world, world.Role); stored != nil || len(f.Paths) > 0 {
		t.Errorf("got %v, %+v", stored, f)
	}
	guard.Stop()
	other := world.Role.Object()
	unstructured.RemoveNestedField(other.Object, "rules")
	tamper(t, world, scenario.Create(world.Role, toJSON(other.Object)))
	guard = startGuard(t, drift.Authorize)
	awaitFinding(t, world.Binding, "nothing is created next to it", func(f drift.Finding) bool {
		return strings.Contains(f.Held, "authorize --repair")
	})
	guard.Stop()
	removeAll(t, world)
	startGuard(t, drift.Authorize)
	harness.Eventually(t, "the set is authorized", inSync(t, world, world.Objects()...))
	harness.Eventually(t, "status agrees", func() (bool, any) {
		ran := harness.Run(t, "status")
		return ran.Code == 0, ran
	})
}

// removeAll removes the reserved resources and what the guard knows about them.
func removeAll(t *testing.T, world *scenario.World) {
	t.Helper()
	harness.RemoveRegistration(t)
	for _, object := range slices.Backward(world.Objects()) {
		if read(t, world, object) != nil {
			tamper(t, world, scenario.Delete(object))
		}
	}
	forget(t)
}

// What no update can restore is reported, with what to do.
func TestWhatNoUpdateRestoresIsReported(t *testing.T) {
	world, _ := start(t, drift.Heal)
	other := world.Binding.Object()
	if err := unstructured.SetNestedField(other.Object, "view", "roleRef", "name"); err != nil {
		t.Fatal(err)
	}
	tamper(t, world, scenario.Delete(world.Binding))
	tamper(t, world, scenario.Create(world.Binding, toJSON(other.Object)))
	tamper(t, world, scenario.Merge(world.Token, `{"immutable":true}`))
	for object, path := range map[*scenario.Object]string{world.Binding: "roleRef.name", world.Token: "immutable"} {
		// The first look may find that the object is absent, and its repair then that the object is there again.
		f := awaitFinding(t, object, "the guard says what to do", func(f drift.Finding) bool {
			return strings.Contains(f.Held, "delete it") && slices.Equal(f.Paths, []string{path})
		})
		if f.Manager != tamperer {
			t.Errorf("got %+v", f)
		}
	}
}

// Nothing heals what is retired.
func TestWhatIsRetiredStaysAway(t *testing.T) {
	world, guard := start(t, drift.Authorize)
	harness.Run(t, "retire", "--reason", "a test retires it", "--yes").Require(t, 0)
	guard.Stop()
	startGuard(t, drift.Authorize)
	awaitDecision(t)
	time.Sleep(5 * time.Second)
	for _, object := range world.Objects() {
		if stored := read(t, world, object); stored != nil {
			t.Errorf("%s is back", object)
		}
	}
	if report := state(t).Report; report != nil && len(report.Drift) > 0 {
		t.Errorf("got %+v", report.Drift)
	}
}
