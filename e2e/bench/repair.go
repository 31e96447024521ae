// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

type configuration = admissionregistrationv1.ValidatingWebhookConfiguration

// edits change each field of the webhook configuration that a client can change.
func edits() []func(*configuration) {
	webhook := func(edit func(*admissionregistrationv1.ValidatingWebhook)) func(*configuration) {
		return func(c *configuration) { edit(&c.Webhooks[0]) }
	}
	none := map[string]string{"example.com/none": "none"}
	return []func(*configuration){
		func(c *configuration) { c.Webhooks = nil },
		func(c *configuration) { c.Webhooks = c.Webhooks[1:] },
		func(c *configuration) { c.Annotations[guardian.RevisionAnnotation] = "x" },
		func(c *configuration) { c.Finalizers = []string{"example.com/hold"} },
		func(c *configuration) {
			c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "kube-system", UID: "x"}}
		},
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) {
			w.FailurePolicy = new(admissionregistrationv1.Ignore)
		}),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.CABundle = nil }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.URL = new("https://127.0.0.1:1/") }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.NamespaceSelector.MatchLabels = none }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.ObjectSelector.MatchLabels = none }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.MatchConditions[0].Expression = "false" }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.MatchPolicy = new(admissionregistrationv1.Exact) }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) { w.TimeoutSeconds = new(int32(1)) }),
		webhook(func(w *admissionregistrationv1.ValidatingWebhook) {
			w.Rules[0].Operations = []admissionregistrationv1.OperationType{admissionregistrationv1.Create}
		}),
	}
}

// inARow is how many edits the guard repairs at once before it leaves a pause between two.
const inARow = 5

// repairs is P11: from the answer to a deletion or an edit of the webhook configuration to its repair. A new guard sees five edits, so
// each counts as a first one; then another guard sees all of them without a pause.
func (b *bench) repairs(ctx context.Context) error {
	var deletions, first, paced []time.Duration
	for range rounds {
		for part := range slices.Chunk(edits(), inARow) {
			took, err := b.repairEach(ctx, part...)
			if err != nil {
				return err
			}
			first = append(first, took...)
		}
		took, err := b.repairEach(ctx, make([]func(*configuration), len(edits()))...)
		if err != nil {
			return err
		}
		deletions = append(deletions, took...)
	}
	took, err := b.repairEach(ctx, slices.Repeat(edits(), rounds)...)
	if err != nil {
		return err
	}
	paced = append(paced, took...)
	fmt.Printf("| P11 repair of the webhook configuration after | count | median | p99 | longest |\n|---|---|---|---|---|\n")
	for _, row := range []struct {
		name string
		took []time.Duration
	}{{"a deletion", deletions}, {"a first edit, of each field", first}, {"an edit, without a pause after the last repair", paced}} {
		fmt.Printf("| %s | %d | %s | %s | %s |\n", row.name, len(row.took), milliseconds(median(row.took)),
			milliseconds(row.took[(len(row.took)*99+99)/100-1]), milliseconds(slices.Max(row.took)))
	}
	return nil
}

// repairEach starts a guard and returns how long it takes to repair each edit; nil is a deletion.
func (b *bench) repairEach(ctx context.Context, edits ...func(*configuration)) ([]time.Duration, error) {
	config := rest.CopyConfig(b.cluster.AdminConfig())
	config.QPS = -1
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	client := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	guard, err := b.cluster.StartGuard(ctx, b.guardian)
	if err != nil {
		return nil, err
	}
	defer guard.Stop()
	time.Sleep(time.Second) // until the replica has published its key
	var all []time.Duration
	for _, edit := range edits {
		took, err := repair(ctx, client, edit)
		if err != nil {
			return nil, err
		}
		all = append(all, took)
	}
	return all, nil
}

func repair(ctx context.Context, client admissionregistrationv1client.ValidatingWebhookConfigurationInterface, edit func(*configuration)) (
	time.Duration, error,
) {
	want, err := client.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	if edit == nil {
		err = client.Delete(ctx, want.Name, metav1.DeleteOptions{})
	} else {
		edited := want.DeepCopy()
		edit(edited)
		_, err = client.Update(ctx, edited, metav1.UpdateOptions{FieldManager: "mallory"})
	}
	if apierrors.IsConflict(err) {
		return repair(ctx, client, edit)
	}
	for start := time.Now(); err == nil; time.Sleep(2 * time.Millisecond) {
		var live *configuration
		live, err = client.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			err = nil
			continue
		}
		if err == nil && equality.Semantic.DeepEqual(live.Webhooks, want.Webhooks) && len(live.Finalizers) == 0 &&
			len(live.OwnerReferences) == 0 && live.Annotations[guardian.RevisionAnnotation] == want.Annotations[guardian.RevisionAnnotation] {
			return time.Since(start), nil
		}
	}
	return 0, err
}
