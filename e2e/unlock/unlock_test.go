// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Each kind is denied, unlocked, written to, and denied again once the Unlock has ended.
func TestAnUnlockAllowsItsWriteUntilItEnds(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	for operation, write := range map[string]func(*scenario.Object) scenario.Write{"UPDATE": change, "DELETE": scenario.Delete} {
		t.Run(operation, func(t *testing.T) {
			count := startCount(t)
			// The token goes first: the control plane deletes it with its account.
			objects := slices.Clone(world(t).Objects())
			slices.Reverse(objects)
			for _, object := range objects {
				requireDenied(t, "alice", write(object))
			}
			unlocks := openEach(t, objects, operation)
			for i, object := range objects {
				requireDenied(t, "bob", write(object))
				requireDenied(t, "alice", other(operation, object))
				requireAllowed(t, "alice", write(object))
				requireRecords(t, unlocks[i], 1)
			}
			must(t, world(t).Reset(t.Context()))
			for i, object := range objects {
				awaitEnd(unlocks[i])
				requireDenied(t, "alice", write(object))
				harness.Eventually(t, "the guard says that the unlock has expired", state(t, unlocks[i], v1alpha1.UnlockExpired))
			}
			counts := count.requireCounted(t, replicas)
			if got := total(counts[v1alpha1.Unlocked]); got != int64(len(objects)) {
				t.Errorf("the audit log has %d writes under an unlock, want %d", got, len(objects))
			}
		})
	}
}

// openEach opens an Unlock for each object and the operation, side by side.
func openEach(t *testing.T, objects []*scenario.Object, operation string) []*v1alpha1.Unlock {
	t.Helper()
	unlocks := make([]*v1alpha1.Unlock, len(objects))
	var group sync.WaitGroup
	for i, object := range objects {
		group.Go(func() {
			unlocks[i] = open(t, "alice", "--for=8s", "--operation="+operation, "--resource="+object.GVR.Resource+"/"+object.Name)
		})
	}
	group.Wait()
	if slices.Contains(unlocks, nil) {
		t.Fatal("an unlock could not be opened")
	}
	return unlocks
}

// other is a write with the other operation.
func other(operation string, object *scenario.Object) scenario.Write {
	if operation == "DELETE" {
		return change(object)
	}
	return scenario.Delete(object)
}

// state returns a check for Eventually.
func state(t *testing.T, unlock *v1alpha1.Unlock, want v1alpha1.UnlockState) func() (bool, any) {
	t.Helper()
	return func() (bool, any) {
		live := stored(t, unlock.Name)
		return live.Status.State == want, live.Status
	}
}

// audit show lists the writes under an Unlock, also once the Unlock is deleted.
func TestAuditShowListsTheWritesUnderAnUnlock(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 1)
	count := startCount(t)
	unlock, unused := open(t, "alice", "--user=alice", "--user=bob"), open(t, "carol")
	requireAllowed(t, "alice", change(world(t).Role))
	requireAllowed(t, "bob", change(world(t).Account))
	count.requireCounted(t, replicas)
	as(t, "alice", "audit", "show", unlock.Name).Require(t, 0, "Open", reason, "Writes under it: 2", world(t).Role.Name, "serviceaccounts/kube-system/apigw-ingress")
	as(t, "alice", "audit", "show", unused.Name).Require(t, 0, "No write under it is recorded.")
	var shown struct {
		Unlock  *v1alpha1.Unlock
		Records []v1alpha1.AuditRecord
	}
	as(t, "alice", "audit", "show", unlock.Name, "-o", "json").Require(t, 0).Into(t, &shown)
	if shown.Unlock == nil || shown.Unlock.Name != unlock.Name || len(shown.Records) != 2 {
		t.Fatalf("got %+v", shown)
	}
	for _, record := range shown.Records {
		if record.Spec.Unlock != unlock.Name {
			t.Errorf("record %s is of unlock %q", record.Name, record.Spec.Unlock)
		}
	}
	as(t, "alice", "audit", "show", "unlock-that-is-absent").Require(t, 1, "unlock-that-is-absent", "audit list")
	as(t, "alice", "audit", "show", shown.Records[0].Name).Require(t, 0, "Unlock        "+unlock.Name, "Justification "+reason)
	deleteUnlocks(t)
	as(t, "alice", "audit", "show", unlock.Name).Require(t, 0, "Unknown: it is deleted", "Writes under it: 2")
	as(t, "alice", "audit", "show", unused.Name).Require(t, 1)
}

func TestLockEndsAnUnlock(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 2)
	unlock := open(t, "alice")
	role := world(t).Role
	requireAllowed(t, "alice", change(role))
	as(t, "carol", "lock", unlock.Name).Require(t, 0, "Locked apigw-ingress", unlock.Name)
	for range 10 {
		requireDenied(t, "alice", change(role))
	}
	as(t, "carol", "lock", "unlock-that-is-absent").Require(t, 1, "not found", "kubectl get unlocks")
	as(t, "carol", "lock").Require(t, 2)
	requireEvents(t, unlock, "UnlockOpen", "UnlockUsed", "UnlockClosed")
	// A replica that starts later has nothing to acknowledge.
	replicas[0].kill()
	replicas[0].start()
	as(t, "carol", "lock", unlock.Name).Require(t, 0, "Locked apigw-ingress", unlock.Name)
}

// The second line of a denial is a command. A shell runs it as it is, and then the write passes.
func TestTheSecondLineOfADenialUnlocksTheWrite(t *testing.T) {
	harness.Take(t)
	startReplicas(t, 1)
	role, token := world(t).Role, world(t).Token
	const account = "system:serviceaccount:kube-system:default"
	for name, test := range map[string]struct {
		user  string
		write scenario.Write
	}{
		"an update":              {"alice", change(role)},
		"a deletion":             {"alice", scenario.Delete(token)},
		"a mint":                 {"alice", scenario.Create(token, mint)},
		"a ServiceAccount":       {account, change(role)},
		"a name with quotes":     {`o'neil "the $(touch pwned) boss"`, change(role)},
		"a name with commas":     {"CN=alice,O=people", change(role)},
		"a name like an option":  {"--for=100h", change(role)},
		"a name of two words":    {"alice bob", change(role)},
		"a name in other script": {"網關", change(role)},
	} {
		t.Run(name, func(t *testing.T) {
			_, command, _ := strings.Cut(requireDenied(t, test.user, test.write), "\n")
			_, command, found := strings.Cut(command, "runs: ")
			if !found {
				t.Fatalf("the second line has no command: %q", command)
			}
			ran := shell(t, command).Require(t, 0, "Unlocked apigw-ingress until", "To close it: apigw-guardian lock unlock-")
			requireAllowed(t, test.user, test.write)
			if !strings.Contains(ran.Stdout, "Users:       "+test.user+"\n") {
				t.Errorf("the unlock is not of %s alone:\n%s", test.user, ran.Stdout)
			}
			must(t, world(t).Reset(t.Context()))
		})
	}
}

// mint is a token Secret under a reserved name.
const mint = `{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","metadata":{"name":"another-token",` +
	`"namespace":"kube-system","annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}}}`

// shell runs a line with sh as the admin, with apigw-guardian on PATH.
func shell(t *testing.T, line string) harness.Ran {
	t.Helper()
	bin, dir := t.TempDir(), t.TempDir()
	must(t, os.Symlink(harness.Of(t).Program, filepath.Join(bin, "apigw-guardian")))
	command := harness.Command(t, harness.Of(t).Cluster.Kubeconfig(), "-c", line)
	command.Path, command.Args[0], command.Err = "/bin/sh", "sh", nil
	command.Dir, command.Env = dir, append(command.Env, "PATH="+bin+":"+os.Getenv("PATH"))
	ran, err := harness.RunCommand(command)
	must(t, err)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("the shell left %v (%v)", left, err)
	}
	return ran
}

const manifest = `apiVersion: guardian.apigw.io/v1alpha1
kind: Unlock
metadata:
  name: by-kubectl
spec:
  reservation: apigw-ingress
  reason: applied with kubectl by a test
  requestedBy: alice
  resources: [clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole]
  expiresAt: "%s"
`

func TestKubectlApplyUnlocks(t *testing.T) {
	harness.Take(t)
	startReplicas(t, 1)
	at := func(end time.Time) string { return fmt.Sprintf(manifest, end.UTC().Format(time.RFC3339)) }
	end := time.Now().Add(10 * time.Minute)
	kubectl(t, "bob", at(end)).Require(t, 1, `requestedBy must be "bob"`)
	kubectl(t, "alice", at(end.Add(time.Hour))).Require(t, 1, "at most 1h0m0s after the creation")
	kubectl(t, "alice", at(end)).Require(t, 0, "by-kubectl created")
	kubectl(t, "alice", at(end)).Require(t, 0, "by-kubectl unchanged")
	kubectl(t, "alice", at(end.Add(time.Minute))).Require(t, 1, "immutable")
	unlock := stored(t, "by-kubectl")
	harness.Eventually(t, "the guard opens it", state(t, unlock, v1alpha1.UnlockOpen))
	requireAllowed(t, "alice", change(world(t).Role))
	requireDenied(t, "alice", change(world(t).Account))
	requireRecords(t, unlock, 1)
}

// kubectl applies a manifest as a user.
func kubectl(t *testing.T, user, manifest string) harness.Ran {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unlock.yaml")
	must(t, os.WriteFile(file, []byte(manifest), 0o600))
	ran, err := harness.RunCommand(harness.Of(t).Cluster.KubectlCommand(t.Context(), "apply", "-f", file, "--as="+user))
	must(t, err)
	return ran
}

// A flood of denials delays no Unlock, and each write is counted for what it was.
func TestAnUnlockDuringAFloodOfDenials(t *testing.T) {
	harness.Take(t)
	replicas := startReplicas(t, 2)
	count := startCount(t)
	denials := harness.Full[int64](2_000, 600)
	seen := make(chan scenario.Tally, 1)
	go func() {
		seen <- scenario.Flood{Clients: 16, Users: 100, Max: denials}.Run(t.Context(), world(t))
	}()
	unlock := open(t, "alice", "--for=5m")
	live, err := world(t).Read(t.Context(), world(t).Account)
	must(t, err)
	version, writes := live.GetResourceVersion(), int64(0)
	var tally scenario.Tally
	for ended := false; !ended || writes < 20; writes++ {
		version = changeFrom(t, "alice", world(t).Account, version)
		select {
		case tally = <-seen:
			ended = true
		default:
		}
	}
	if tally.Denied != denials || tally.Allowed+tally.Failed > 0 {
		t.Errorf("the flood saw %+v, want %d denials", tally, denials)
	}
	counts := count.requireCounted(t, replicas)
	if denied, unlocked := total(counts[v1alpha1.Denied]), total(counts[v1alpha1.Unlocked]); denied != denials || unlocked != writes {
		t.Errorf("the audit log has %d denials and %d writes under an unlock, want %d and %d", denied, unlocked, denials, writes)
	}
	requireRecords(t, unlock, writes)
	report.Line(t, "%d denials in a flood, and %d writes under an unlock: each recorded once", denials, writes)
}

// changeFrom changes an object of a resourceVersion and returns the next one. Without a version, the API server may start from an
// object that is outdated in its cache, and asks the guard twice about one write.
func changeFrom(t *testing.T, user string, object *scenario.Object, version string) string {
	t.Helper()
	answer := do(t, user, scenario.Merge(object, fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"labels":{"change":"%d"}}}`, version, number.Add(1))))
	changed := &metav1.PartialObjectMetadata{}
	if err := json.Unmarshal(answer.Body, changed); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%s by %s: got %d (%v): %s", object.Path, user, answer.Code, err, answer.Body)
	}
	return changed.ResourceVersion
}

func TestAnUnlockThatNeedsApproval(t *testing.T) {
	harness.Take(t)
	startReplicas(t, 2, "--unlock-require-approval")
	role := world(t).Role
	unlock := open(t, "alice")
	if unlock.Status.State != v1alpha1.UnlockPending {
		t.Fatalf("the unlock is %s, want Pending", unlock.Status.State)
	}
	requireDenied(t, "alice", change(role))
	as(t, "alice", "unlock", "approve", unlock.Name).Require(t, 1, "the requester cannot approve it")
	from := startOfLog(t)
	for what, patch := range map[string]string{
		"an approval in another name": `{"status":{"approvedBy":"bob"}}`,
		"an approval with a state":    `{"status":{"approvedBy":"alice","state":"Open"}}`,
		"a state":                     `{"status":{"state":"Open"}}`,
	} {
		requireRejected(t, from, what, do(t, "alice", patchOf(unlock, "/status", patch)), "UnlockRejected")
	}
	requireDenied(t, "alice", change(role))
	as(t, "bob", "unlock", "approve", unlock.Name).Require(t, 0, "Unlocked apigw-ingress until", "Users:       alice")
	requireAllowed(t, "alice", change(role))
	requireDenied(t, "bob", change(role))
	requireRecords(t, unlock, 1)
	requireRejected(t, from, "a second approval", do(t, "carol", patchOf(unlock, "/status", `{"status":{"approvedBy":"carol"}}`)), "UnlockRejected")
	requireRejected(t, from, "an approval taken back", do(t, "bob", patchOf(unlock, "/status", `{"status":{"approvedBy":null}}`)), "UnlockRejected")
	as(t, "alice", "lock", unlock.Name).Require(t, 0)
	requireDenied(t, "alice", change(role))
	requireUnlockWritten(t, "dave", creation(`"status":{"approvedBy":"bob","state":"Open"},`, spec("dave", "")))
	time.Sleep(2 * time.Second) // long enough for the guard to read it
	requireDenied(t, "dave", change(role))
}
