// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// fieldManager is the field manager of writes that are never stored.
const fieldManager = "apigw-guardian-verify"

// dryRun makes writes as server dry-runs: the API server runs admission and stores nothing. Every write of this package goes
// through it.
type dryRun struct{ resource dynamic.ResourceInterface }

func all() []string { return []string{metav1.DryRunAll} }

func (d dryRun) create(ctx context.Context, object *unstructured.Unstructured) error {
	_, err := d.resource.Create(ctx, object, metav1.CreateOptions{DryRun: all(), FieldManager: fieldManager})
	return err
}

func (d dryRun) update(ctx context.Context, object *unstructured.Unstructured) error {
	_, err := d.resource.Update(ctx, object, metav1.UpdateOptions{DryRun: all(), FieldManager: fieldManager})
	return err
}

func (d dryRun) patch(ctx context.Context, name string, kind types.PatchType, body []byte) error {
	options := metav1.PatchOptions{DryRun: all(), FieldManager: fieldManager}
	if kind == types.ApplyPatchType {
		options.Force = new(true)
	}
	_, err := d.resource.Patch(ctx, name, kind, body, options)
	return err
}

func (d dryRun) delete(ctx context.Context, name string, propagation metav1.DeletionPropagation) error {
	return d.resource.Delete(ctx, name, metav1.DeleteOptions{DryRun: all(), PropagationPolicy: &propagation})
}

func (d dryRun) deleteCollection(ctx context.Context, name string) error {
	return d.resource.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: all()}, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(),
	})
}
