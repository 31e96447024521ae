// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// The guard puts its registration back whatever was done to it.
func TestRegistrationIsPutBack(t *testing.T) {
	startGuard(t)
	registrations := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	want, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	isBack := func() bool {
		live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil && equality.Semantic.DeepEqual(live.Webhooks, want.Webhooks) && len(live.OwnerReferences) == 0 &&
			live.Annotations["admissions.enforcer/disabled"] == "true"
	}
	for name, edit := range map[string]func(*admissionregistrationv1.ValidatingWebhookConfiguration){
		"an entry removed":    func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Webhooks = c.Webhooks[1:] },
		"all entries removed": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Webhooks = nil },
		"failures ignored": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore)
		},
		"a foreign URL": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[1].ClientConfig.URL = new("https://127.0.0.1:1/")
		},
		"a foreign authority": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[1].ClientConfig.CABundle = nil
		},
		"fewer operations": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[2].Rules[0].Operations = []admissionregistrationv1.OperationType{"CREATE"}
		},
		"a condition more": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[2].MatchConditions = append(c.Webhooks[2].MatchConditions, admissionregistrationv1.MatchCondition{Name: "never", Expression: "false"})
		},
		"a namespace selector": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[3].NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		},
		"an object selector": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[3].ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
		},
		"a shorter timeout": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[3].TimeoutSeconds = new(int32(1))
		},
		"an exact match policy": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].MatchPolicy = new(admissionregistrationv1.Exact)
		},
		"no side effects said": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].SideEffects = new(admissionregistrationv1.SideEffectClassNone)
		},
		"an annotation removed": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Annotations = nil },
		"an owner that is absent": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "absent", UID: "00000000-0000-4000-8000-000000000000"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			edit(live)
			must(t)(registrations.Update(t.Context(), live, metav1.UpdateOptions{}))
			eventually(t, "the registration is back", isBack)
		})
	}
	t.Run("deleted", func(t *testing.T) {
		must(t)(nil, registrations.Delete(t.Context(), guardian.WebhookConfiguration, metav1.DeleteOptions{}))
		eventually(t, "the registration is back", isBack)
	})
}

// A label that an inventory tool puts on the registration is nobody's harm.
func TestForeignLabelsOfTheRegistrationStay(t *testing.T) {
	startGuard(t)
	registrations := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	patch := []byte(`{"metadata":{"labels":{"inventory":"x"}},"webhooks":[]}`)
	must(t)(registrations.Patch(t.Context(), guardian.WebhookConfiguration, "application/merge-patch+json", patch, metav1.PatchOptions{}))
	eventually(t, "the entries are back", func() bool {
		live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil && len(live.Webhooks) == 4 && live.Labels["inventory"] == "x"
	})
}

// An object near the limits of the API server becomes a review of 17 MB: it is denied in our name, and its user is known.
func TestOversizedReviewIsDeniedThroughTheAPIServer(t *testing.T) {
	world := newWorld(t)
	guard := startGuard(t)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		"x": strings.Repeat("<", 200_000),
	}}, "rules": []any{map[string]any{
		"apiGroups": []string{strings.Repeat("<", 2_600_000)}, "resources": []string{"x"}, "verbs": []string{"get"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	patch = bytes.ReplaceAll(patch, []byte(`\u003c`), []byte("<")) // the API server takes 3 MiB at the most
	answer, err := world.Guarded.Do(t.Context(), scenario.Merge(world.Role, string(patch)))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Code != http.StatusForbidden || !strings.Contains(string(answer.Body), "too large") {
		t.Errorf("got %d %.300s", answer.Code, answer.Body)
	}
	log, err := guard.Log()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), `"user":"admin"`) || !strings.Contains(string(log), `"reason":"TooLarge"`) {
		t.Errorf("the denial is not attributed:\n%s", log)
	}
	requireUntouched(t, world)
}

func TestObserveWarnsAndLetsPass(t *testing.T) {
	world := newWorld(t)
	guard := startGuard(t, "--mode", "observe")
	answer, err := world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"a":"b"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if answer.Code != http.StatusOK || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "would deny") {
		t.Errorf("got %d, warnings %q", answer.Code, answer.Warnings)
	}
	if said := guardAnnotations(t, answer); said["decision"] != "allow" || said["reason"] != "ReservedUpdate" {
		t.Errorf("annotations %v", said)
	}
	guard.Kill() // and nobody waits for a guard that only observes
	answer, err = world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"a":null}}}`))
	if err != nil || answer.Code != http.StatusOK {
		t.Errorf("without the guard: got %d %s %v", answer.Code, answer.Body, err)
	}
}

// Several guards that start at the same moment on a cluster without an authority agree on one, and each serves with it.
func TestGuardsThatStartTogetherAgree(t *testing.T) {
	world := newWorld(t)
	_ = clients(t).CoreV1().Secrets("apigw-guardian").Delete(t.Context(), "apigw-guardian-ca", metav1.DeleteOptions{}) // it may be absent
	guards := make([]*testbed.Guard, 3)
	var group sync.WaitGroup
	for i := range guards {
		group.Go(func() {
			guard, err := shared.cluster.LaunchGuard(shared.program)
			if err != nil {
				t.Error(err)
				return
			}
			guards[i] = guard
		})
	}
	group.Wait()
	t.Cleanup(func() { removeRegistration(t) })
	for _, guard := range guards {
		t.Cleanup(guard.Stop)
		eventually(t, "the guard is ready", func() bool {
			response, err := http.Get(guard.ProbesURL() + "/readyz")
			if err != nil {
				return false
			}
			_ = response.Body.Close()
			return response.StatusCode == http.StatusOK
		})
	}
	eventually(t, "a write is denied by one of them", func() bool {
		answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role).DryRun())
		return err == nil && answer.Code == http.StatusForbidden
	})
	for range guards[1:] { // whichever is registered, the others answer with the same authority
		guards[0].Kill()
		guards = guards[1:]
		must(t)(nil, clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Delete(t.Context(), guardian.WebhookConfiguration, metav1.DeleteOptions{}))
		eventually(t, "another one denies", func() bool {
			answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role).DryRun())
			return err == nil && answer.Code == http.StatusForbidden
		})
	}
}

// uninstall leaves nothing locked, and does not say so while a guard that runs puts its registration back.
func TestUninstallRemovesTheRegistrationForGood(t *testing.T) {
	world := newWorld(t)
	guard := startGuard(t)
	run(t, "uninstall").require(t, 1, "stop the guard first")
	guard.Stop()
	_, err := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: guardian.WebhookConfiguration},
		}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	run(t, "uninstall").require(t, 0, "Removed the webhook configuration", "reserved resources stay")
	run(t, "uninstall").require(t, 0, "There is no webhook configuration")
	requireUntouched(t, world)
	throughGuard(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"free":"yes"}}}`))
}

// The registration goes with the ClusterRole that owns it, and a guard that still runs leaves it gone.
func TestRegistrationGoesWithItsOwner(t *testing.T) {
	const owner = "owner-of-the-registration"
	roles := clients(t).RbacV1().ClusterRoles()
	must(t)(roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: owner}}, metav1.CreateOptions{}))
	guard := startGuard(t, "--owner-clusterrole", owner)
	must(t)(nil, roles.Delete(t.Context(), owner, metav1.DeleteOptions{}))
	registrations := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	eventually(t, "the registration is gone, and the guard has noticed", func() bool {
		_, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		log, logErr := guard.Log()
		return apierrors.IsNotFound(err) && logErr == nil && strings.Contains(string(log), "not registering")
	})
}
