// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// rehearsalManager is the field manager of writes that are never stored.
const rehearsalManager = "apigw-guardian-verify"

// rehearsal makes writes as server dry-runs: the API server runs all admission, and stores nothing. Every write of status
// and verify goes through here, and each one asks for the dry-run.
type rehearsal struct{ resource dynamic.ResourceInterface }

func dryRun() []string { return []string{metav1.DryRunAll} }

func (r rehearsal) create(ctx context.Context, object *unstructured.Unstructured) error {
	_, err := r.resource.Create(ctx, object, metav1.CreateOptions{DryRun: dryRun(), FieldManager: rehearsalManager})
	return err
}

func (r rehearsal) update(ctx context.Context, object *unstructured.Unstructured) error {
	_, err := r.resource.Update(ctx, object, metav1.UpdateOptions{DryRun: dryRun(), FieldManager: rehearsalManager})
	return err
}

func (r rehearsal) patch(ctx context.Context, name string, kind types.PatchType, body []byte) error {
	options := metav1.PatchOptions{DryRun: dryRun(), FieldManager: rehearsalManager}
	if kind == types.ApplyPatchType {
		force := true
		options.Force = &force
	}
	_, err := r.resource.Patch(ctx, name, kind, body, options)
	return err
}

func (r rehearsal) delete(ctx context.Context, name string, propagation metav1.DeletionPropagation) error {
	return r.resource.Delete(ctx, name, metav1.DeleteOptions{DryRun: dryRun(), PropagationPolicy: &propagation})
}

func (r rehearsal) deleteCollection(ctx context.Context, name string) error {
	return r.resource.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: dryRun()}, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
	})
}
