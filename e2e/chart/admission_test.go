// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/apilog"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
)

const policed = "policed"

var (
	webhookConfigurations = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
	auditRecords          = v1alpha1.GroupVersion().WithResource("auditrecords")
	namespaces            = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	definitions           = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
)

// writer is a user of the group system:masters: RBAC allows it everything.
type writer struct{ dynamic.Interface }

func as(t *testing.T, user string) writer {
	t.Helper()
	config := rest.CopyConfig(cluster.AdminConfig())
	if user != "" {
		config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:masters"}}
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return writer{client}
}

func (w writer) create(resource schema.GroupVersionResource, object *unstructured.Unstructured, dryRun ...string) error {
	_, err := w.Resource(resource).Create(context.Background(), object.DeepCopy(), metav1.CreateOptions{DryRun: dryRun})
	return err
}

func (w writer) patch(resource schema.GroupVersionResource, name, patch string) error {
	_, err := w.Resource(resource).Patch(context.Background(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (w writer) delete(resource schema.GroupVersionResource, name string, dryRun ...string) error {
	return w.Resource(resource).Delete(context.Background(), name, metav1.DeleteOptions{DryRun: dryRun})
}

func (w writer) deleteCollection(resource schema.GroupVersionResource, name string) error {
	return w.Resource(resource).DeleteCollection(context.Background(), metav1.DeleteOptions{},
		metav1.ListOptions{FieldSelector: "metadata.name=" + name})
}

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	content := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &content); err != nil {
		t.Fatal(err)
	}
	return &unstructured.Unstructured{Object: content}
}

func webhookConfiguration(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	return object(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: `+name+`, labels: {a: b}}
webhooks:
- {name: a.example.com, clientConfig: {url: "https://127.0.0.1:1"}, sideEffects: None, admissionReviewVersions: [v1], failurePolicy: Ignore}
`)
}

// auditRecord returns a record of two replicas. further are fields of its spec.
func auditRecord(t *testing.T, name, further string) *unstructured.Unstructured {
	t.Helper()
	return object(t, `
apiVersion: guardian.apigw.io/v1alpha1
kind: AuditRecord
metadata: {name: `+name+`}
spec: {`+further+`, message: m, user: {name: alice, groups: [a]}, count: 3, counts: [{replica: a, count: 1}, {replica: b, count: 2}],
  firstTime: "2026-11-28T01:00:00.000000Z", lastTime: "2026-11-28T02:00:00.000000Z"}
`)
}

func servesPolicies() bool {
	return harness.Serves(cluster, "1.30.0")
}

// requirePolicies skips where the API server does not serve policies, and puts the chart's into force, for the namespace policed.
func requirePolicies(t *testing.T) {
	t.Helper()
	if !servesPolicies() {
		t.Skip("the API server does not serve ValidatingAdmissionPolicies")
	}
	for _, name := range []string{policed, "unrelated"} {
		if err := as(t, "").create(namespaces, object(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+"}}")); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
	kubectl(t, "apply", "--validate=warn", "--filename", directory+"/files/crds")
	kubectl(t, "wait", "--for=condition=Established", "crd/auditrecords.guardian.apigw.io", "crd/unlocks.guardian.apigw.io", "--timeout=1m")
	rendered := renderTo(t, "--namespace", policed, "--set", "policies.force=true", "--show-only", "templates/policies.yaml")
	kubectl(t, "apply", "--filename", rendered)
	t.Cleanup(func() {
		if _, says, err := cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "--ignore-not-found", "--filename", rendered); err != nil {
			t.Error(says)
		}
	})
	harness.Eventually(t, "the policies are in force", func() (bool, any) {
		for _, err := range []error{
			as(t, "").create(webhookConfigurations, webhookConfiguration(t, "apigw-guardian"), metav1.DryRunAll),
			as(t, "").create(auditRecords, auditRecord(t, "x", "outcome: Denied")),
			as(t, "").delete(namespaces, policed, metav1.DryRunAll),
		} {
			if !apierrors.IsForbidden(err) {
				return false, err
			}
		}
		return true, nil
	})
}

const (
	theGuard  = "system:serviceaccount:" + policed + ":apigw-guardian"
	uninstall = "system:serviceaccount:" + policed + ":apigw-guardian-uninstall"
	collector = "system:serviceaccount:kube-system:generic-garbage-collector"
)

func TestPoliciesGuardTheRegistration(t *testing.T) {
	requirePolicies(t)
	admin, guards := as(t, ""), webhookConfiguration(t, "apigw-guardian")
	allowed := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	denied := func(what string, err error) {
		t.Helper()
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "helm uninstall apigw-guardian --namespace policed") {
			t.Errorf("%s: got %v, want a denial that names helm uninstall", what, err)
		}
	}
	denied("an administrator creates it", admin.create(webhookConfigurations, guards))
	denied("another account of the chart creates it", as(t, uninstall).create(webhookConfigurations, guards))
	allowed("the guard creates it", as(t, theGuard).create(webhookConfigurations, guards))
	for _, user := range []string{
		"", "mallory", uninstall, collector, "system:kube-controller-manager", "system:serviceaccount:unrelated:apigw-guardian",
		"system:serviceaccount:kube-system:namespace-controller",
	} {
		for what, patch := range map[string]string{
			"a label":        `{"metadata":{"labels":{"a":null}}}`,
			"an annotation":  `{"metadata":{"annotations":{"guardian.apigw.io/revision":"x"}}}`,
			"an owner":       `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"x","uid":"x"}]}}`,
			"a finalizer":    `{"metadata":{"finalizers":["example.com/x"]}}`,
			"no webhook":     `{"webhooks":null}`,
			"another policy": `{"webhooks":[{"name":"a.example.com","clientConfig":{"url":"https://127.0.0.1:1"},"sideEffects":"None","admissionReviewVersions":["v1"],"failurePolicy":"Fail"}]}`,
		} {
			denied(fmt.Sprintf("%q writes %s", user, what), as(t, user).patch(webhookConfigurations, "apigw-guardian", patch))
		}
		allowed(fmt.Sprintf("%q changes nothing", user), as(t, user).patch(webhookConfigurations, "apigw-guardian", `{"metadata":{"labels":{"a":"b"}}}`))
	}
	for _, user := range []string{"", "mallory", "system:serviceaccount:unrelated:apigw-guardian"} {
		denied(fmt.Sprintf("%q deletes it", user), as(t, user).delete(webhookConfigurations, "apigw-guardian"))
		denied(fmt.Sprintf("%q deletes its collection", user), as(t, user).deleteCollection(webhookConfigurations, "apigw-guardian"))
	}
	for what, err := range map[string]error{
		"the guard edits it":               as(t, theGuard).patch(webhookConfigurations, "apigw-guardian", `{"metadata":{"labels":{"a":"c"}}}`),
		"an administrator creates another": admin.create(webhookConfigurations, webhookConfiguration(t, "other")),
		"an administrator edits another":   admin.patch(webhookConfigurations, "other", `{"webhooks":null}`),
		"and deletes it by its collection": admin.deleteCollection(webhookConfigurations, "other"),
	} {
		allowed(what, err)
	}
	for _, user := range []string{theGuard, uninstall, collector, "system:kube-controller-manager"} {
		allowed(user+" deletes it", as(t, user).delete(webhookConfigurations, "apigw-guardian"))
		allowed("the guard creates it", as(t, theGuard).create(webhookConfigurations, guards))
	}
	// The real garbage collector, in the background and in the foreground, where it also removes a finalizer.
	for _, cascade := range []string{"background", "foreground"} {
		kubectl(t, "create", "clusterrole", "owner", "--verb=get", "--resource=pods")
		own(t, "owner")
		kubectl(t, "delete", "clusterrole", "owner", "--cascade="+cascade, "--timeout=1m")
		kubectl(t, "wait", "--for=delete", "validatingwebhookconfiguration/apigw-guardian", "--timeout=1m")
		allowed("the guard creates it", as(t, theGuard).create(webhookConfigurations, guards))
	}
	requireAttempts(t)
	requireSwitch(t, guards)
}

// own makes a ClusterRole the owner of the webhook configuration, as the guard does.
func own(t *testing.T, role string) {
	t.Helper()
	uid := kubectl(t, "get", "clusterrole", role, "--output=jsonpath={.metadata.uid}")
	if err := as(t, theGuard).patch(webhookConfigurations, "apigw-guardian", fmt.Sprintf(`{"metadata":{"ownerReferences":[{`+
		`"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","name":%q,"uid":%q,"blockOwnerDeletion":true}]}}`, role, uid)); err != nil {
		t.Fatal(err)
	}
}

// requireAttempts wants `audit import` to find the denied attempts, with their users, in the API server's audit log.
func requireAttempts(t *testing.T) {
	t.Helper()
	output, err := exec.Command(guard, "audit", "import", cluster.AuditLog(), "-o", "json", "--kubeconfig", cluster.Kubeconfig()).Output()
	var report struct{ Missing []apilog.Difference }
	if jsonErr := json.Unmarshal(output, &report); jsonErr != nil {
		t.Fatal(jsonErr, stderrOf(err))
	}
	for _, want := range []apilog.Difference{
		{Operation: admissionv1.Create, User: "admin"},
		{Operation: admissionv1.Update, User: "admin"},
		{Operation: admissionv1.Delete, User: "admin"},
		{Operation: admissionv1.Update, User: collector},
		{Operation: admissionv1.Delete, User: "mallory"},
	} {
		if !slices.ContainsFunc(report.Missing, func(d apilog.Difference) bool {
			return d.Operation == want.Operation && d.User == want.User && d.Outcome == v1alpha1.Denied && d.Reason == audit.DeniedByPolicy &&
				d.Resource == "validatingwebhookconfigurations.admissionregistration.k8s.io/apigw-guardian"
		}) {
			t.Errorf("audit import finds no %s by %s:\n%s", want.Operation, want.User, output)
		}
	}
}

// requireSwitch wants each documented command to remove the webhook configuration in spite of the policy.
func requireSwitch(t *testing.T, guards *unstructured.Unstructured) {
	t.Helper()
	output, err := exec.Command(guard, "uninstall", "--kubeconfig", cluster.Kubeconfig()).CombinedOutput()
	if err != nil {
		t.Errorf("uninstall: %v\n%s", err, output)
	}
	if left := kubectl(t, "get", "validatingwebhookconfiguration,validatingadmissionpolicybinding", "apigw-guardian", "apigw-guardian-registration",
		"--ignore-not-found", "--output=name"); left != "" {
		t.Errorf("uninstall leaves %s", left)
	}
	if err := as(t, theGuard).create(webhookConfigurations, guards); err != nil {
		t.Fatal(err)
	}
	if err := as(t, "").delete(webhookConfigurations, "apigw-guardian"); err != nil {
		t.Errorf("without the binding: %v", err)
	}
}

func TestPoliciesKeepRecords(t *testing.T) {
	requirePolicies(t)
	admin, byGuard := as(t, ""), as(t, theGuard)
	for name, spec := range map[string]string{
		"denied": "outcome: Denied, source: Guard", "unlocked": "outcome: Unlocked", "tampered": "outcome: Tampered",
	} {
		if err := admin.create(auditRecords, auditRecord(t, name, spec)); !apierrors.IsForbidden(err) {
			t.Errorf("an administrator creates %s: %v", name, err)
		}
		if err := byGuard.create(auditRecords, auditRecord(t, name, spec)); err != nil {
			t.Fatal(err)
		}
		if err := admin.create(auditRecords, auditRecord(t, "tried", spec), metav1.DryRunAll); err != nil {
			t.Errorf("an administrator tries to create %s: %v", name, err)
		}
	}
	for name, spec := range map[string]string{
		"imported": "outcome: Denied, source: Import", "retired": "outcome: Retired", "rotated": "outcome: Rotated, source: Guard",
	} {
		owned := auditRecord(t, name, spec)
		owned.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "x", UID: "x"}})
		if err := admin.create(auditRecords, owned); !apierrors.IsForbidden(err) {
			t.Errorf("an administrator creates %s with an owner: %v", name, err)
		}
		if err := admin.create(auditRecords, auditRecord(t, name, spec)); err != nil {
			t.Errorf("an administrator creates %s: %v", name, err)
		}
	}
	grown := `{"spec":{"count":9,"counts":[{"replica":"a","count":1},{"replica":"b","count":5},{"replica":"c","count":3}],` +
		`"firstTime":"2026-11-28T00:30:00.000000Z","lastTime":"2026-11-28T02:30:00.000000Z","lastRequestUID":"u","replica":"c"}}`
	removals := map[string]string{
		"a label": `{"metadata":{"labels":{"x":"y"}}}`, "an owner": `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"x","uid":"x"}]}}`,
		"a finalizer": `{"metadata":{"finalizers":["example.com/x"]}}`, "another user": `{"spec":{"user":{"name":"bob"}}}`,
		"no groups": `{"spec":{"user":{"groups":null}}}`, "another outcome": `{"spec":{"outcome":"Allowed"}}`, "another message": `{"spec":{"message":"x"}}`,
		"no message": `{"spec":{"message":null}}`, "a reason": `{"spec":{"reason":"x"}}`, "another source": `{"spec":{"source":null}}`,
		"a lower count": `{"spec":{"count":2}}`, "no counts": `{"spec":{"counts":null}}`, "a replica less": `{"spec":{"counts":[{"replica":"a","count":3}]}}`,
		"a lower count of a replica": `{"spec":{"counts":[{"replica":"a","count":2},{"replica":"b","count":1}]}}`,
		"a later start":              `{"spec":{"firstTime":"2026-11-28T01:30:00.000000Z"}}`, "an earlier end": `{"spec":{"lastTime":"2026-11-28T01:30:00.000000Z"}}`,
	}
	for _, name := range []string{"denied", "unlocked", "tampered", "imported", "retired", "rotated"} {
		for _, user := range []string{"", collector, uninstall, "system:serviceaccount:" + policed + ":apigw-guardian-authorize"} {
			for what, patch := range removals {
				if name != "imported" && what == "another source" && name != "denied" && name != "rotated" {
					continue // it has none
				}
				if err := as(t, user).patch(auditRecords, name, patch); !apierrors.IsForbidden(err) {
					t.Errorf("%q writes %s into %s: %v", user, what, name, err)
				}
			}
			for what, err := range map[string]error{
				"deletes": as(t, user).delete(auditRecords, name), "deletes the collection of": as(t, user).deleteCollection(auditRecords, name),
			} {
				if !apierrors.IsForbidden(err) {
					t.Errorf("%q %s %s: %v", user, what, name, err)
				}
			}
			if err := as(t, user).patch(auditRecords, name, `{"spec":{"message":"m"}}`); err != nil {
				t.Errorf("%q changes nothing in %s: %v", user, name, err)
			}
		}
		isTheirs := name == "imported" || name == "retired" || name == "rotated"
		if err := admin.patch(auditRecords, name, grown); (err == nil) != isTheirs {
			t.Errorf("an administrator counts into %s: %v", name, err)
		}
		for what, err := range map[string]error{
			"edits": byGuard.patch(auditRecords, name, `{"spec":{"message":"x"}}`), "deletes": byGuard.delete(auditRecords, name),
		} {
			if err != nil {
				t.Errorf("the guard %s %s: %v", what, name, err)
			}
		}
	}
	requireCommands(t, byGuard)
}

// requireCommands wants the store to do for an administrator what `audit import`, `retire` and `status` need.
func requireCommands(t *testing.T, byGuard writer) {
	t.Helper()
	records, err := store.New(cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := records.TryCreate(t.Context()); err != nil {
		t.Error(err)
	}
	event := audit.Event{Time: time.Now(), Outcome: v1alpha1.Denied, Source: v1alpha1.SourceImport, User: v1alpha1.User{Name: "alice"}}
	retirement := audit.Event{Time: time.Now(), Outcome: v1alpha1.Retired, Reason: audit.Retirement}
	for _, count := range []int64{2, 5} {
		if stored, err := records.Import(t.Context(), []*v1alpha1.AuditRecord{event.Record("import", count)}); err != nil || stored != 1 {
			t.Errorf("stored %d: %v", stored, err)
		}
		if _, err := records.Merge(t.Context(), retirement.Record("host", count), nil); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{event.Name(), retirement.Name()} {
		if stored, err := records.Get(t.Context(), name); err != nil || stored.Spec.Count != 5 {
			t.Errorf("got %+v, %v", stored, err)
		}
		if err := byGuard.delete(auditRecords, name); err != nil {
			t.Error(err)
		}
	}
}

func TestPoliciesKeepTheInstallation(t *testing.T) {
	requirePolicies(t)
	for _, user := range []string{"", theGuard, uninstall, collector, "system:kube-controller-manager"} {
		for what, err := range map[string]error{
			"the namespace": as(t, user).delete(namespaces, policed), "records": as(t, user).delete(definitions, "auditrecords.guardian.apigw.io"),
			"unlocks":      as(t, user).delete(definitions, "unlocks.guardian.apigw.io"),
			"reservations": as(t, user).delete(definitions, "reservations.guardian.apigw.io"),
			"by name":      as(t, user).deleteCollection(definitions, "auditrecords.guardian.apigw.io"),
		} {
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "helm uninstall apigw-guardian --namespace policed") {
				t.Errorf("%q deletes %s: %v", user, what, err)
			}
		}
	}
	// Another version or schema would end the recording as a deletion does.
	edit := []string{"patch", "customresourcedefinition", "auditrecords.guardian.apigw.io", "--type=json", "--dry-run=server"}
	for patch, isDenied := range map[string]bool{
		`[{"op":"replace","path":"/spec/versions/0/served","value":false}]`:                                       true,
		`[{"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/maxProperties","value":1}]`: true,
		`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`:                                              false,
	} {
		args := append(slices.Clone(edit), "--patch="+patch)
		_, says, err := cluster.Kubectl(t.Context(), args...)
		if (err != nil) != isDenied || isDenied && !strings.Contains(says, "upgrade the release apigw-guardian --namespace policed") {
			t.Errorf("%s: %v %s", patch, err, says)
		}
		if _, says, err := cluster.Kubectl(t.Context(), append(args, "--as="+theGuard, "--as-group=system:masters")...); err != nil {
			t.Errorf("the guard: %s: %v %s", patch, err, says)
		}
	}
	if err := as(t, "").delete(namespaces, "unrelated"); err != nil {
		t.Error(err)
	}
	kubectl(t, "wait", "--for=delete", "namespace/unrelated", "--timeout=1m")
	for _, policy := range []string{"registration", "records", "installation"} {
		if warnings := kubectl(t, "get", "validatingadmissionpolicy", "apigw-guardian-"+policy, "--output=jsonpath={.status.typeChecking.expressionWarnings}"); warnings != "" {
			t.Errorf("%s: %s", policy, warnings)
		}
	}
}

// Policies come and go with upgrades, rollbacks and the release, in a namespace and under a name of its own. It removes the CRDs, as the
// next test wants none.
func TestPoliciesOfARelease(t *testing.T) {
	requirePolicies(t)
	kubectl(t, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "--all")
	t.Cleanup(func() {
		harness.Eventually(t, "the definitions go without the policies", func() (bool, any) {
			_, says, err := cluster.Kubectl(context.WithoutCancel(t.Context()), "delete", "--ignore-not-found", "--filename", directory+"/files/crds")
			return err == nil, says
		})
	})
	requireCount := func(want int) {
		t.Helper()
		if got := strings.Count(kubectl(t, "get", "validatingadmissionpolicy,validatingadmissionpolicybinding", "--output=name"), "\n"); got != want {
			t.Errorf("%d policies and bindings, want %d", got, want)
		}
	}
	for name := range helms {
		args := []string{"guard", "--namespace", policed, "--no-hooks"}
		helm(t, name, append([]string{"install", args[0], directory}, args[1:]...)...)
		requireCount(6)
		helm(t, name, append([]string{"upgrade", args[0], directory, "--set", "policies.enabled=false"}, args[1:]...)...)
		requireCount(0)
		helm(t, name, append([]string{"rollback", args[0], "1"}, args[1:]...)...)
		requireCount(6)
		// The guard is dead, and no hook runs.
		if err := as(t, theGuard).create(webhookConfigurations, webhookConfiguration(t, "apigw-guardian")); err != nil {
			t.Fatal(err)
		}
		own(t, "apigw-guardian")
		helm(t, name, append([]string{"uninstall", args[0], "--wait"}, args[1:]...)...)
		requireCount(0)
		kubectl(t, "wait", "--for=delete", "validatingwebhookconfiguration/apigw-guardian", "--timeout=1m")
	}
}
