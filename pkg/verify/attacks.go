// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

type target struct {
	dryRun
	resource *reserved.Resource
	// live is nil if the object is absent.
	live *unstructured.Unstructured
	// other is another account's token Secret in the same namespace; nil if there is none, or the caller may not list.
	other *unstructured.Unstructured
	// nonce is the value of the mark.
	nonce string
}

// attack is one kind of write that the guard must deny.
type attack struct {
	write string
	run   func(context.Context, target) error
	// marked is the operation of an attack whose object has the mark; "" for the others. A deletion cannot have it.
	marked admissionv1.Operation
}

func attacksOn(t target) []attack {
	switch {
	case t.resource.Guard == reserved.GuardExistence && t.live == nil:
		return nil
	case t.resource.Guard == reserved.GuardExistence:
		return deletions()
	case t.resource.Guard == reserved.GuardTokens:
		return mints(t)
	}
	attacks := []attack{{"create", createMarked, admissionv1.Create}}
	if t.live != nil {
		attacks = append(attacks, updates(t)...)
		attacks = append(attacks, deletions()...)
		attacks = append(attacks, attack{write: "deletecollection", run: func(ctx context.Context, t target) error {
			return t.deleteCollection(ctx, t.live.GetName())
		}})
	}
	if t.resource.NamePrefix != "" {
		attacks = append(attacks, attack{"create under the prefix", createUnderPrefix, ""},
			attack{"create by generateName under the prefix", createByGenerateName, ""})
	}
	if t.resource.IsTokenSecret() {
		attacks = append(attacks, mints(t)...)
	}
	return attacks
}

func updates(t target) []attack {
	attacks := []attack{
		{"put", put, admissionv1.Update},
		{"json patch", jsonPatch, admissionv1.Update},
		mergePatch(),
		{"server-side apply", patchBy(types.ApplyPatchType), admissionv1.Update},
	}
	if scheme.Scheme.Recognizes(t.resource.GVK()) { // custom resources have no strategic merge patch
		attacks = append(attacks, attack{"strategic merge patch", patchBy(types.StrategicMergePatchType), admissionv1.Update})
	}
	return attacks
}

func mergePatch() attack {
	return attack{"merge patch", patchBy(types.MergePatchType), admissionv1.Update}
}

func deletions() []attack {
	var attacks []attack
	for _, propagation := range []metav1.DeletionPropagation{
		metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan,
	} {
		write := "delete (" + strings.ToLower(string(propagation)) + ")"
		attacks = append(attacks, attack{write: write, run: func(ctx context.Context, t target) error {
			return t.delete(ctx, t.live.GetName(), propagation)
		}})
	}
	return attacks
}

const repointing = "re-point another account's token Secret"

func mints(t target) []attack {
	attacks := []attack{{"mint a token under another name", mint, admissionv1.Create}}
	if t.other != nil {
		attacks = append(attacks, attack{repointing, repoint, ""})
	}
	return attacks
}

// firstAttack returns the one that shows whether the target is guarded at all.
func firstAttack(t target) (first attack, found bool) {
	attacks := attacksOn(t)
	switch {
	case len(attacks) == 0:
		return attack{}, false
	case t.resource.Guard == reserved.GuardContent && t.live != nil:
		return mergePatch(), true
	}
	return attacks[0], true
}

func createMarked(ctx context.Context, t target) error {
	object := t.resource.Object()
	mark(object, t.nonce)
	return t.create(ctx, object)
}

func createUnderPrefix(ctx context.Context, t target) error {
	object := t.resource.Object()
	object.SetName(t.resource.NamePrefix + rand.String(suffixLength))
	return t.create(ctx, object)
}

func createByGenerateName(ctx context.Context, t target) error {
	object := t.resource.Object()
	object.SetName("")
	object.SetGenerateName(t.resource.NamePrefix)
	return t.create(ctx, object)
}

func mint(ctx context.Context, t target) error {
	secret := live.NewObject(t.resource.GVK(), t.resource.Namespace, randomName())
	secret.SetAnnotations(map[string]string{corev1.ServiceAccountNameKey: t.resource.Account, guardian.ProbeAnnotation: t.nonce})
	secret.Object["type"] = string(corev1.SecretTypeServiceAccountToken)
	return t.create(ctx, secret)
}

// repoint makes another account's token Secret name the reserved account. Without uid and token, its controller would fill it.
func repoint(ctx context.Context, t target) error {
	secret := t.other.DeepCopy()
	annotations := secret.GetAnnotations()
	delete(annotations, corev1.ServiceAccountUIDKey)
	annotations[corev1.ServiceAccountNameKey] = t.resource.Account
	secret.SetAnnotations(annotations)
	delete(secret.Object, "data")
	return t.update(ctx, secret)
}

func put(ctx context.Context, t target) error {
	object := t.live.DeepCopy()
	mark(object, t.nonce)
	return t.update(ctx, object)
}

func jsonPatch(ctx context.Context, t target) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	add := operation{"add", "/metadata/annotations", map[string]string{guardian.ProbeAnnotation: t.nonce}}
	if len(t.live.GetAnnotations()) > 0 {
		add.Path, add.Value = add.Path+"/"+strings.ReplaceAll(guardian.ProbeAnnotation, "/", "~1"), t.nonce
	}
	body, err := json.Marshal([]operation{add})
	return errors.Join(err, t.patch(ctx, t.live.GetName(), types.JSONPatchType, body))
}

// patchBy marks the object by a kind of patch whose body is a part of the object.
func patchBy(kind types.PatchType) func(context.Context, target) error {
	return func(ctx context.Context, t target) error {
		part := live.NewObject(t.resource.GVK(), t.resource.Namespace, t.live.GetName())
		mark(part, t.nonce)
		body, err := part.MarshalJSON()
		return errors.Join(err, t.patch(ctx, t.live.GetName(), kind, body))
	}
}

// mark makes an attacked object differ from its manifest, by the nonce that a replica signs.
func mark(object *unstructured.Unstructured, nonce string) {
	annotations := map[string]string{}
	maps.Copy(annotations, object.GetAnnotations())
	annotations[guardian.ProbeAnnotation] = nonce
	object.SetAnnotations(annotations)
}

const (
	suffixLength = 10
	randomPrefix = "guard-check-"
)

// randomName returns a name that, very probably, no reservation covers and no object has.
func randomName() string { return randomPrefix + rand.String(suffixLength) }

// fieldManager is the field manager of writes that are never stored.
const fieldManager = "apigw-guardian-verify"

// dryRun makes every write of this package, as a server dry-run: the API server runs admission and stores nothing.
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
