// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
)

// controllerManager is the only user that may fill a token Secret. An attacker impersonates it.
var controllerManager = scenario.Identity{User: "system:kube-controller-manager", Groups: []string{"system:masters"}}

const olderSecret = "apigw-ingress-token-x7k2p"

func asController(write scenario.Write) scenario.Write {
	write.As = controllerManager
	return write
}

func encoded(value string) string { return base64.StdEncoding.EncodeToString([]byte(value)) }

// foreignCA is a CA that is not the cluster's, as a value of a Secret.
func foreignCA(t *testing.T) string {
	t.Helper()
	bundle, err := os.ReadFile(otherBundle(t))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(harness.Of(t).Cluster.RootCAFile())
	if err != nil {
		t.Fatal(err)
	}
	return encoded(strings.TrimPrefix(string(bundle), string(ours)))
}

// stopController stops the controller manager until the test ends.
func stopController(t *testing.T) {
	t.Helper()
	harness.Of(t).Cluster.StopControllerManager()
	t.Cleanup(func() { startController(context.WithoutCancel(t.Context()), t) })
}

func startController(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := harness.Of(t).Cluster.StartControllerManager(ctx); err != nil {
		t.Error(err)
	}
}

// tokenIn returns the token of a Secret in kube-system; "" while it is not filled, or absent.
func tokenIn(t *testing.T, name string) string {
	t.Helper()
	secret, err := harness.Clients(t).CoreV1().Secrets(metav1.NamespaceSystem).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return string(secret.Data[corev1.ServiceAccountTokenKey])
}

// addTokenSecret creates a token Secret past the guard, waits until it is filled, and returns its token. It goes with the test.
func addTokenSecret(t *testing.T, world *scenario.World, name, account string) string {
	t.Helper()
	manifest := strings.NewReplacer(world.Token.Name, name, `"apigw-ingress"`, `"`+account+`"`).Replace(string(world.Token.Manifest()))
	pastGuard(t, world, scenario.Create(world.Token, manifest))
	t.Cleanup(func() {
		remove := scenario.Write{Method: http.MethodDelete, Path: world.Token.Collection + "/" + name, ContentType: scenario.JSON}
		if _, err := world.Unguarded.Do(context.WithoutCancel(t.Context()), remove); err != nil {
			t.Error(err)
		}
	})
	harness.Eventually(t, name+" is filled", func() (bool, any) { return tokenIn(t, name) != "", "no token" })
	return tokenIn(t, name)
}

// statusOf is what these tests read of the status.
type statusOf struct {
	Authorized bool
	Drift      []struct {
		Resource string
		Paths    []string
	}
	Reasons []string
}

func requireDrift(t *testing.T, paths ...string) {
	t.Helper()
	var status statusOf
	harness.Run(t, "status", "-o", "json").Require(t, 3).Into(t, &status)
	var got []string
	for _, drift := range status.Drift {
		got = append(got, drift.Paths...)
	}
	if diff := cmp.Diff(paths, got); status.Authorized || len(status.Reasons) == 0 || diff != "" {
		t.Errorf("got %+v (-want +got):\n%s", status, diff)
	}
}

// TestNobodyFillsATokenSecretWithAnythingElse: an attacker with the controller manager's name may write only what the controller
// manager would write. The real one is stopped, so that it repairs nothing meanwhile.
func TestNobodyFillsATokenSecretWithAnythingElse(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	other := addTokenSecret(t, world, "other-account-token", "default")
	older := addTokenSecret(t, world, olderSecret, "apigw-ingress")
	harness.StartGuard(t)
	stopController(t)
	uid := string(world.Account.Live.GetUID())
	fill := func(token, uid, namespace string) string {
		return fmt.Sprintf(`{"data":{"token":%q,"namespace":%q},"metadata":{"annotations":{%q:%q}}}`,
			encoded(token), encoded(namespace), corev1.ServiceAccountUIDKey, uid)
	}
	own := tokenIn(t, world.Token.Name)
	type attack struct{ name, patch string }
	requireDenied := func(t *testing.T, attacks ...attack) {
		t.Helper()
		for _, attack := range attacks {
			t.Run(attack.name, func(t *testing.T) {
				answer, err := world.Guarded.Do(t.Context(), asController(scenario.Merge(world.Token, attack.patch)))
				if err != nil || answer.Code != http.StatusForbidden {
					t.Errorf("got %d %s %v", answer.Code, answer.Body, err)
				}
				if said := guardAnnotations(t, answer); said["decision"] != "deny" || said["reason"] != "ReservedUpdate" {
					t.Errorf("annotations %v", said)
				}
			})
		}
	}
	requireDenied(t,
		attack{"a foreign CA", `{"data":{"ca.crt":"` + foreignCA(t) + `"}}`},
		attack{"a CA that is none", `{"data":{"ca.crt":"` + encoded("x") + `"}}`},
		attack{"another uid", `{"metadata":{"annotations":{"` + corev1.ServiceAccountUIDKey + `":"x"}}}`},
		attack{"another namespace", `{"data":{"namespace":"` + encoded("default") + `"}}`},
		attack{"another account's token", `{"data":{"token":"` + encoded(other) + `"}}`},
		attack{"a key more", `{"data":{"extra":"eA=="}}`},
	)
	pastGuard(t, world, scenario.Delete(world.Token))
	pastGuard(t, world, scenario.Create(world.Token, string(world.Token.Manifest())))
	requireDenied(t,
		attack{"filled with garbage", fill("garbage", uid, "kube-system")},
		attack{"filled with another account's token", fill(other, uid, "kube-system")},
		attack{"filled with another Secret's token", fill(older, uid, "kube-system")},
		attack{"filled for another uid", fill(own, "x", "kube-system")},
		attack{"filled for another namespace", fill(own, uid, "default")},
		attack{"filled with a foreign CA alone", `{"data":{"ca.crt":"` + foreignCA(t) + `"}}`},
		attack{"marked with a bogus uid", `{"metadata":{"annotations":{"` + corev1.ServiceAccountUIDKey + `":"x"}}}`},
	)
	throughGuard(t, world, asController(scenario.Merge(world.Token, fill(own, uid, "kube-system"))))
}

// TestTheTypeOfATokenSecretStays: a Secret of another type cannot take the place, as its type cannot be changed by an update,
// and the guard denies the creation.
func TestTheTypeOfATokenSecretStays(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	opaque := strings.Replace(string(world.Token.Manifest()), "kubernetes.io/service-account-token", "Opaque", 1)
	for name, write := range map[string]scenario.Write{
		"an update": scenario.Merge(world.Token, `{"type":"Opaque"}`),
		"a create":  scenario.Create(world.Token, opaque),
	} {
		answer, err := world.Guarded.Do(t.Context(), asController(write))
		if err != nil || answer.Code < http.StatusBadRequest {
			t.Errorf("%s: got %d %s %v", name, answer.Code, answer.Body, err)
		}
	}
	requireUntouched(t, world)
}

// TestNobodyDestroysATokenSecretAsTheControllerManager: the account exists, so no annotation of the Secret allows its deletion.
func TestNobodyDestroysATokenSecretAsTheControllerManager(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	stopController(t)
	destroy := func(name string) {
		t.Helper()
		answer, err := world.Guarded.Do(t.Context(), asController(scenario.Delete(world.Token)))
		if err != nil || answer.Code != http.StatusForbidden {
			t.Errorf("%s: got %d %s %v", name, answer.Code, answer.Body, err)
		}
		if said := guardAnnotations(t, answer); said["reason"] != "ReservedDelete" {
			t.Errorf("%s: annotations %v", name, said)
		}
	}
	destroy("a filled Secret")
	bogus := `{"metadata":{"annotations":{"` + corev1.ServiceAccountUIDKey + `":"x"}}}`
	pastGuard(t, world, scenario.Merge(world.Token, bogus))
	destroy("a filled Secret with a bogus uid")
	pastGuard(t, world, scenario.Delete(world.Token))
	pastGuard(t, world, scenario.Create(world.Token, string(world.Token.Manifest())))
	pastGuard(t, world, scenario.Merge(world.Token, bogus))
	destroy("an unfilled Secret with a bogus uid")
}

// TestAnUnfilledTokenSecretCannotBeForged races the real controller manager: right after the creation, someone who poses as it
// marks the Secret as an earlier account's, so that the real one would delete it.
func TestAnUnfilledTokenSecretCannotBeForged(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	bogus := asController(scenario.Merge(world.Token, `{"metadata":{"annotations":{"`+corev1.ServiceAccountUIDKey+`":"bogus"}}}`))
	const rounds = 13
	denied := 0
	for round := range rounds {
		pastGuard(t, world, scenario.Delete(world.Token))
		done := make(chan int)
		go func() {
			for {
				answer, err := world.Guarded.Do(t.Context(), bogus)
				if err != nil || answer.Code != http.StatusNotFound {
					done <- answer.Code
					return
				}
			}
		}()
		throughGuard(t, world, scenario.Create(world.Token, string(world.Token.Manifest())))
		if code := <-done; code == http.StatusForbidden {
			denied++
		} else if code != http.StatusConflict {
			t.Errorf("round %d: the forgery got %d", round, code)
		}
		harness.Eventually(t, "the Secret survives with its token", func() (bool, any) {
			user := userOf(t, tokenIn(t, world.Token.Name))
			return user == reservedAccount, user
		})
	}
	report.Line(t, "R5: %d forgeries of an unfilled token Secret, %d denied: the Secret survives each", rounds, denied)
}

// TestADeletionOfATokenSecretIsRecorded: the controller manager clears away the token of an account that is gone.
func TestADeletionOfATokenSecretIsRecorded(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	before := countDeletions(t)
	pastGuard(t, world, scenario.Delete(world.Account))
	harness.Eventually(t, "the token of an account that is gone is gone", func() (bool, any) {
		live, err := world.Read(t.Context(), world.Token)
		return err == nil && live == nil, err
	})
	harness.Eventually(t, "its deletion is recorded", func() (bool, any) {
		count := countDeletions(t)
		return count > before, count
	})
}

// countDeletions returns how many allowed deletions of the reserved token Secret by the controller manager are recorded.
func countDeletions(t *testing.T) int64 {
	t.Helper()
	store := harness.Records(t)
	var count int64
	list, err := store.List(t.Context(), audit.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range list {
		if isDeletion(record) {
			count += record.Spec.Count
		}
	}
	return count
}

func isDeletion(record v1alpha1.AuditRecord) bool {
	return record.Spec.Outcome == "Allowed" && record.Spec.Reason == "SystemDelete" &&
		record.Spec.Resource == "secrets/kube-system/apigw-ingress-token-guardian"
}

// TestASwappedCAIsSeenAndRepaired: with a policy that keeps the controller manager from putting the CA right, it stays until the
// policy is gone and an administrator authorizes again.
func TestASwappedCAIsSeenAndRepaired(t *testing.T) {
	harness.Needs(t, harness.Take(t).Cluster, "1.36.0") // MutatingAdmissionPolicies of version v1
	world := harness.World(t)
	harness.StartGuard(t)
	swap := scenario.Merge(world.Token, `{"data":{"ca.crt":"`+foreignCA(t)+`"}}`)
	harness.Run(t, "status").Require(t, 0)
	stopController(t)
	pastGuard(t, world, swap)
	requireDrift(t, "data[ca.crt]")
	harness.Run(t, "authorize").Require(t, 1, "data[ca.crt]", "--root-ca-file")
	harness.Run(t, "authorize", "--repair", "--wait", "2s").Require(t, 1, "data[ca.crt]", "MutatingAdmissionPolicy")
	startController(t.Context(), t)
	harness.Eventually(t, "the controller manager puts it right when it starts", func() (bool, any) {
		status := harness.Run(t, "status")
		return status.Code == 0, status
	})

	addTokenSecret(t, world, "other-account-token", "default")
	mutate(t, world)
	pastGuard(t, world, swap)
	requireDrift(t, "data[ca.crt]")
	harness.Run(t, "authorize", "--repair", "--wait", "2s").Require(t, 1, "data[ca.crt]", "MutatingAdmissionPolicy")
	endMutation(t, world)
	harness.Run(t, "authorize", "--repair").Require(t, 0)
	harness.Run(t, "status").Require(t, 0)
	report.Line(t, "R6: a swapped ca.crt is drift; the controller manager writes it again after authorize --repair")
}

const policies = "/apis/admissionregistration.k8s.io/v1/"

// mutate makes the API server keep data[ca.crt] of every token Secret as it is.
func mutate(t *testing.T, world *scenario.World) {
	t.Helper()
	const policy = `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicy","metadata":{"name":"swap"},"spec":{
		"matchConstraints":{"resourceRules":[{"apiGroups":[""],"apiVersions":["v1"],"resources":["secrets"],"operations":["UPDATE"]}]},
		"matchConditions":[{"name":"ca","expression":"has(oldObject.data) && 'ca.crt' in oldObject.data && request.userInfo.username == 'system:kube-controller-manager'"}],
		"failurePolicy":"Fail","reinvocationPolicy":"Never",
		"mutations":[{"patchType":"JSONPatch","jsonPatch":{"expression":
			"[JSONPatch{op: 'replace', path: '/data/ca.crt', value: oldObject.data['ca.crt']}]"}}]}}`
	const binding = `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicyBinding","metadata":{"name":"swap"},
		"spec":{"policyName":"swap"}}`
	for kind, body := range map[string]string{"mutatingadmissionpolicies": policy, "mutatingadmissionpolicybindings": binding} {
		pastGuard(t, world, scenario.Write{Method: http.MethodPost, Path: policies + kind, ContentType: scenario.JSON, Body: []byte(body)})
	}
	t.Cleanup(func() { _ = removePolicies(context.WithoutCancel(t.Context()), world) }) // they may be gone
	harness.Eventually(t, "the policy is in force", isMutatedBy(t, world, true))
}

// isMutatedBy checks whether both API servers apply the policy, or whether neither does.
func isMutatedBy(t *testing.T, world *scenario.World, want bool) func() (bool, any) {
	t.Helper()
	return func() (bool, any) {
		got := [2]bool{isMutated(t, world.Guarded), isMutated(t, world.Unguarded)}
		return got == [2]bool{want, want}, got
	}
}

// isMutated tries the policy with a token Secret that is not reserved.
func isMutated(t *testing.T, client *scenario.Client) bool {
	t.Helper()
	answer, err := client.Do(t.Context(), asController(scenario.Write{
		Method: http.MethodPatch, Path: "/api/v1/namespaces/kube-system/secrets/other-account-token",
		ContentType: scenario.MergePatch, Body: []byte(`{"data":{"ca.crt":"eA=="}}`),
	}).DryRun())
	if err != nil || answer.Code != http.StatusOK {
		t.Fatalf("got %d %s %v", answer.Code, answer.Body, err)
	}
	return !strings.Contains(string(answer.Body), `"ca.crt":"eA=="`)
}

func endMutation(t *testing.T, world *scenario.World) {
	t.Helper()
	if err := removePolicies(t.Context(), world); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the policy is not in force", isMutatedBy(t, world, false))
}

func removePolicies(ctx context.Context, world *scenario.World) error {
	for _, kind := range []string{"mutatingadmissionpolicybindings", "mutatingadmissionpolicies"} {
		remove := scenario.Write{Method: http.MethodDelete, Path: policies + kind + "/swap", ContentType: scenario.JSON}
		if _, err := world.Unguarded.Do(ctx, remove); err != nil {
			return err
		}
	}
	return nil
}

// inUse returns the Secret that authorize has left as in use for the reserved account, and the account's uid.
func inUse(t *testing.T) (secret, uid string) {
	t.Helper()
	stored, err := harness.Clients(t).CoreV1().ConfigMaps("apigw-guardian").Get(t.Context(), lookup.CredentialsName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var credential lookup.Credential
	if err := json.Unmarshal([]byte(stored.Data["kube-system.apigw-ingress"]), &credential); err != nil {
		t.Fatalf("%v in %v", err, stored.Data)
	}
	return credential.Secret, credential.AccountUID
}

// TestTheReservedNameIsNotFreeWhileAnOlderTokenIsInUse plays the life of an older token Secret.
func TestTheReservedNameIsNotFreeWhileAnOlderTokenIsInUse(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	harness.Run(t, "authorize").Require(t, 0)
	if secret, uid := inUse(t); secret != world.Token.Name || uid != string(world.Account.Live.GetUID()) {
		t.Errorf("fresh: %s of %s is in use", secret, uid)
	}
	pastGuard(t, world, scenario.Delete(world.Token))
	addTokenSecret(t, world, olderSecret, "apigw-ingress")
	harness.Run(t, "authorize").Require(t, 0)
	if secret, _ := inUse(t); secret != olderSecret {
		t.Errorf("adopted: %s is in use", secret)
	}
	requireMint(t, world)
	pastGuard(t, world, scenario.Write{Method: http.MethodDelete, Path: world.Token.Collection + "/" + olderSecret, ContentType: scenario.JSON})
	requireMint(t, world) // the guard may not look whether it is still there: authorize tells it
	harness.Run(t, "authorize").Require(t, 1, olderSecret+" was deleted", "apigw-guardian rotate")
	if secret, _ := inUse(t); secret != olderSecret {
		t.Errorf("refused: %s is in use", secret)
	}
	pastGuard(t, world, scenario.Delete(world.Account))
	lines(t, harness.Run(t, "authorize"), "created", "unchanged", "unchanged", "created")
	if secret, _ := inUse(t); secret != world.Token.Name {
		t.Errorf("authorized again: %s is in use", secret)
	}
	harness.Run(t, "status").Require(t, 0)
	if _, uid := inUse(t); uid == string(world.Account.Live.GetUID()) {
		t.Errorf("recreated: the uid %s is of the earlier account", uid)
	}
}

// requireMint wants the creation of the reserved token Secret denied to everyone, as it would be a second credential.
func requireMint(t *testing.T, world *scenario.World) {
	t.Helper()
	write := scenario.Create(world.Token, string(world.Token.Manifest()))
	for _, write := range []scenario.Write{write, write.DryRun(), asController(write), scenario.Apply(world.Token, string(world.Token.Manifest()))} {
		answer, err := world.Guarded.Do(t.Context(), write)
		if err != nil || answer.Code != http.StatusForbidden {
			t.Fatalf("got %d %s %v", answer.Code, answer.Body, err)
		}
		if said := guardAnnotations(t, answer); said["reason"] != "TokenMint" {
			t.Errorf("annotations %v", said)
		}
	}
}

// TestStatusReadsTheSubjectOfTheToken: the guard may have been away when the token was replaced.
func TestStatusReadsTheSubjectOfTheToken(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	other := addTokenSecret(t, world, "other-account-token", "default")
	older := addTokenSecret(t, world, olderSecret, "apigw-ingress")
	harness.StartGuard(t)
	stopController(t)
	for name, token := range map[string]string{"another account's token": other, "another Secret's token": older, "garbage": "x"} {
		pastGuard(t, world, scenario.Merge(world.Token, `{"data":{"token":"`+encoded(token)+`"}}`))
		requireDrift(t)
		if result := harness.Run(t, "authorize", "--wait", "1s"); result.Code != 1 {
			t.Errorf("%s is proved: %s", name, result.Stdout)
		}
	}
	pastGuard(t, world, scenario.Merge(world.Token, `{"data":{"namespace":"eA==","extra":"eA=="}}`))
	requireDrift(t, "data.extra", "data.namespace")
}
