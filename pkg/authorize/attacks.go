// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"encoding/json"
	"errors"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// markKey is the annotation by which an attack makes an object differ from its manifest: the smallest change there is. Its value
// is the nonce that a replica signs.
const markKey = guardian.ProbeAnnotation

// target is what is attacked.
type target struct {
	rehearsal
	entry *reserved.Resource
	// live is nil where there is no object.
	live *unstructured.Unstructured
	// foreign is another account's token Secret in the same namespace; nil where there is none, or none can be seen.
	foreign *unstructured.Unstructured
	// nonce is the value of the mark.
	nonce string
}

// attack is one kind of write that the guard must deny.
type attack struct {
	write string
	run   func(context.Context, target) error
	// marked is the operation of an attack whose object carries the nonce; "" for the others. No object of a deletion can.
	marked admissionv1.Operation
}

// attacksOn returns every attack that fits the target; at least one.
func attacksOn(t target) []attack {
	switch {
	case t.entry.Guard == reserved.GuardExistence && t.live == nil:
		return nil
	case t.entry.Guard == reserved.GuardExistence:
		return deletions()
	case t.entry.Guard == reserved.GuardTokens:
		return mints(t)
	}
	attacks := []attack{{"create", createMarked, admissionv1.Create}}
	if t.live != nil {
		attacks = append(attacks, updates(t)...)
		attacks = append(attacks, deletions()...)
		attacks = append(attacks, attack{"deletecollection", deleteCollection, ""})
	}
	if t.entry.NamePrefix != "" {
		attacks = append(attacks, attack{"create under the prefix", createUnderPrefix, ""},
			attack{"create by generateName under the prefix", createByGenerateName, ""})
	}
	if t.entry.IsTokenSecret() {
		attacks = append(attacks, mints(t)...)
	}
	return attacks
}

func updates(t target) []attack {
	attacks := []attack{
		{"put", put, admissionv1.Update},
		{"json patch", jsonPatch, admissionv1.Update},
		{"merge patch", patchBy(types.MergePatchType), admissionv1.Update},
		{"server-side apply", patchBy(types.ApplyPatchType), admissionv1.Update},
	}
	if scheme.Scheme.Recognizes(t.entry.GVK()) { // custom resources have no strategic merge patch
		attacks = append(attacks, attack{"strategic merge patch", patchBy(types.StrategicMergePatchType), admissionv1.Update})
	}
	return attacks
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

func mints(t target) []attack {
	attacks := []attack{{"mint a token under another name", mint, admissionv1.Create}}
	if t.foreign != nil {
		attacks = append(attacks, attack{repointing, repoint, ""})
	}
	return attacks
}

const repointing = "re-point another account's token Secret"

// firstAttack is the one that shows whether the target is guarded at all.
func firstAttack(t target) (attack, bool) {
	attacks := attacksOn(t)
	if len(attacks) == 0 {
		return attack{}, false
	}
	if t.entry.Guard == reserved.GuardContent && t.live != nil {
		return attack{"merge patch", patchBy(types.MergePatchType), admissionv1.Update}, true
	}
	return attacks[0], true
}

func createMarked(ctx context.Context, t target) error {
	object := t.entry.Object()
	t.mark(object)
	return t.create(ctx, object)
}

func createUnderPrefix(ctx context.Context, t target) error {
	object := t.entry.Object()
	object.SetName(t.entry.NamePrefix + rand.String(suffixLength))
	return t.create(ctx, object)
}

func createByGenerateName(ctx context.Context, t target) error {
	object := t.entry.Object()
	object.SetName("")
	object.SetGenerateName(t.entry.NamePrefix)
	return t.create(ctx, object)
}

func mint(ctx context.Context, t target) error {
	secret := newObject(t.entry, randomName())
	secret.SetAnnotations(map[string]string{corev1.ServiceAccountNameKey: t.entry.Account, markKey: t.nonce})
	secret.Object["type"] = string(corev1.SecretTypeServiceAccountToken)
	return t.create(ctx, secret)
}

// repoint makes another account's token Secret ask for a token of the reserved account: with the old uid and token dropped,
// kube-controller-manager would fill it anew.
func repoint(ctx context.Context, t target) error {
	secret := t.foreign.DeepCopy()
	annotations := secret.GetAnnotations()
	delete(annotations, corev1.ServiceAccountUIDKey)
	annotations[corev1.ServiceAccountNameKey] = t.entry.Account
	secret.SetAnnotations(annotations)
	delete(secret.Object, "data")
	return t.update(ctx, secret)
}

func put(ctx context.Context, t target) error {
	object := t.live.DeepCopy()
	t.mark(object)
	return t.update(ctx, object)
}

func jsonPatch(ctx context.Context, t target) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	add := operation{"add", "/metadata/annotations", map[string]string{markKey: t.nonce}}
	if len(t.live.GetAnnotations()) > 0 {
		add.Path, add.Value = add.Path+"/"+strings.ReplaceAll(markKey, "/", "~1"), t.nonce
	}
	body, err := json.Marshal([]operation{add})
	return errors.Join(err, t.patch(ctx, t.live.GetName(), types.JSONPatchType, body))
}

// patchBy marks the object by a patch of a kind whose body is a part of the object.
func patchBy(kind types.PatchType) func(context.Context, target) error {
	return func(ctx context.Context, t target) error {
		part := newObject(t.entry, t.live.GetName())
		t.mark(part)
		body, err := part.MarshalJSON()
		return errors.Join(err, t.patch(ctx, t.live.GetName(), kind, body))
	}
}

func deleteCollection(ctx context.Context, t target) error {
	return t.deleteCollection(ctx, t.live.GetName())
}

func (t target) mark(object *unstructured.Unstructured) {
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[markKey] = t.nonce
	object.SetAnnotations(annotations)
}

// newObject returns an object of the entry's kind, in its namespace, with a name and nothing else.
func newObject(entry *reserved.Resource, name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{}}
	object.SetGroupVersionKind(entry.GVK())
	object.SetNamespace(entry.Namespace)
	object.SetName(name)
	return object
}

const suffixLength = 10

// randomName returns a name that nobody reserves or has taken, as far as chance goes.
func randomName() string { return "guard-check-" + rand.String(suffixLength) }
