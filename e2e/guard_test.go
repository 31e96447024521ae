// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
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
	"k8s.io/client-go/util/retry"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// The guard repairs its webhook configuration after any change.
func TestRegistrationIsPutBack(t *testing.T) {
	harness.Take(t)
	harness.StartGuard(t)
	registrations := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	want, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	isBack := func() (bool, any) {
		live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil && equality.Semantic.DeepEqual(live.Webhooks, want.Webhooks) && len(live.OwnerReferences) == 0 &&
			live.Annotations["admissions.enforcer/disabled"] == "true", live
	}
	for name, edit := range map[string]func(*admissionregistrationv1.ValidatingWebhookConfiguration){
		"a webhook removed":    func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Webhooks = c.Webhooks[1:] },
		"all webhooks removed": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) { c.Webhooks = nil },
		"failures ignored": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore)
		},
		"another URL": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
			c.Webhooks[1].ClientConfig.URL = new("https://127.0.0.1:1/")
		},
		"no CA bundle": func(c *admissionregistrationv1.ValidatingWebhookConfiguration) {
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
	} {
		t.Run(name, func(t *testing.T) {
			// The guard writes its annotation anew after the repair of another case.
			must(t)(nil, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
				live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
				if err != nil {
					return err
				}
				edit(live)
				_, err = registrations.Update(t.Context(), live, metav1.UpdateOptions{})
				return err
			}))
			harness.Eventually(t, "the webhook configuration is repaired", isBack)
		})
	}
	// Without the controller manager, nothing deletes the webhook configuration for its absent owner: the guard must remove the owner.
	t.Run("an owner that is absent", func(t *testing.T) {
		stopController(t)
		live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		uid := live.UID
		live.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "absent", UID: "00000000-0000-4000-8000-000000000000"}}
		must(t)(registrations.Update(t.Context(), live, metav1.UpdateOptions{}))
		harness.Eventually(t, "the webhook configuration is repaired", isBack)
		if live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{}); err != nil || live.UID != uid {
			t.Errorf("the webhook configuration is another object: uid %s, before %s (%v)", live.UID, uid, err)
		}
	})
	t.Run("deleted", func(t *testing.T) {
		must(t)(nil, registrations.Delete(t.Context(), guardian.WebhookConfiguration, metav1.DeleteOptions{}))
		harness.Eventually(t, "the webhook configuration is repaired", isBack)
	})
}

// The guard keeps the labels that other tools put on the webhook configuration.
func TestForeignLabelsOfTheRegistrationStay(t *testing.T) {
	harness.Take(t)
	harness.StartGuard(t)
	registrations := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	patch := []byte(`{"metadata":{"labels":{"inventory":"x"}},"webhooks":[]}`)
	must(t)(registrations.Patch(t.Context(), guardian.WebhookConfiguration, "application/merge-patch+json", patch, metav1.PatchOptions{}))
	harness.Eventually(t, "the webhooks are back", func() (bool, any) {
		live, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		return err == nil && len(live.Webhooks) == 9 && live.Labels["inventory"] == "x", live
	})
}

// An object near the API server's size limit becomes a review of 17 MB. The guard denies it and logs the user.
func TestOversizedReviewIsDeniedThroughTheAPIServer(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t)
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
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t, "--mode", "observe")
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
	guard.Kill() // writes do not wait for a guard that only observes
	answer, err = world.Guarded.Do(t.Context(), scenario.Merge(world.Role, `{"metadata":{"labels":{"a":null}}}`))
	if err != nil || answer.Code != http.StatusOK {
		t.Errorf("without the guard: got %d %s %v", answer.Code, answer.Body, err)
	}
}

// Guards that start at the same moment on a cluster without a CA agree on one CA, and each serves with it.
func TestGuardsThatStartTogetherAgree(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	_ = harness.Clients(t).CoreV1().Secrets("apigw-guardian").Delete(t.Context(), "apigw-guardian-ca", metav1.DeleteOptions{}) // it may be absent
	guards := make([]*testbed.Guard, 3)
	var group sync.WaitGroup
	for i := range guards {
		group.Go(func() {
			guard, err := harness.Of(t).Cluster.LaunchGuard(harness.Of(t).Program)
			if err != nil {
				t.Error(err)
				return
			}
			guards[i] = guard
		})
	}
	group.Wait()
	t.Cleanup(func() { harness.RemoveRegistration(t) })
	for _, guard := range guards {
		t.Cleanup(guard.Stop)
		harness.AwaitReady(t, guard)
	}
	harness.Eventually(t, "a write is denied by one of them", harness.Denies(t, world))
	for range guards[1:] { // whichever is registered, the others answer with the same authority
		guards[0].Kill()
		guards = guards[1:]
		must(t)(nil, harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
			Delete(t.Context(), guardian.WebhookConfiguration, metav1.DeleteOptions{}))
		harness.Eventually(t, "another one denies", harness.Denies(t, world))
	}
}

// uninstall removes the webhook configuration, and fails while a running guard restores it.
func TestUninstallRemovesTheRegistrationForGood(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t)
	harness.Run(t, "uninstall").Require(t, 1)
	guard.Stop()
	_, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: guardian.WebhookConfiguration},
		}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	harness.Run(t, "uninstall").Require(t, 0)
	if _, err := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the webhook configuration after uninstall: %v, want not found", err)
	}
	harness.Run(t, "uninstall").Require(t, 0)
	requireUntouched(t, world)
	throughGuard(t, world, scenario.Merge(world.Role, `{"metadata":{"labels":{"free":"yes"}}}`))
}

// The garbage collector deletes the webhook configuration with the ClusterRole that owns it. A running guard does not restore it.
func TestRegistrationGoesWithItsOwner(t *testing.T) {
	harness.Take(t)
	const owner = "owner-of-the-registration"
	roles := harness.Clients(t).RbacV1().ClusterRoles()
	must(t)(roles.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: owner}}, metav1.CreateOptions{}))
	guard := harness.StartGuard(t, "--owner-clusterrole", owner)
	must(t)(nil, roles.Delete(t.Context(), owner, metav1.DeleteOptions{}))
	registrations := harness.Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations()
	harness.Eventually(t, "the webhook configuration is gone, and the guard has logged it", func() (bool, any) {
		_, err := registrations.Get(t.Context(), guardian.WebhookConfiguration, metav1.GetOptions{})
		log, logErr := guard.Log()
		return apierrors.IsNotFound(err) && logErr == nil && strings.Contains(string(log), "not registering"), err
	})
}
