// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Attack is one write that was tried as a server dry-run.
type Attack struct {
	// Resource is the reserved entry, as reserved.Resource writes itself, or the kind and place of an unrelated write.
	Resource string `json:"resource"`
	// Write is the kind of write, for example "merge patch" or "delete (orphan)".
	Write string `json:"write"`
	// Want is "denied"; "allowed" for an unrelated write; "present" in a row that says that there is nothing to attack.
	Want string `json:"want"`
	// Got is "denied" only where the guard denied in its own name, and proved it where the write can carry a nonce; "allowed",
	// "absent", "failed: " with the reason, or "left out".
	Got string `json:"got"`
	// OK says that Got is Want.
	OK bool `json:"ok"`
	// LeftOut says that RBAC did not let the caller try, so that nothing is known. OK is false then.
	LeftOut bool `json:"leftOut,omitempty"`
}

// Scope says which writes [Authorizer.Verify] asks for.
type Scope int

const (
	// EveryWrite wants all of them tried: one that RBAC refuses is a row that is not OK.
	EveryWrite Scope = iota
	// PermittedWrites leaves out what RBAC does not let the caller try. Each resource with a manifest must still have been
	// denied to the caller by the guard once; where none of its writes could be tried, one more row says so and is not OK.
	PermittedWrites
)

// Verify attacks each reserved resource with every kind of write, and makes a few writes that concern nobody. All are
// server dry-runs: nothing is stored, whether the guard stands or not. A resource that is absent is a row that is not OK,
// as most attacks on it cannot be tried.
//
// The error says that the API server does not answer; whatever else goes wrong is a row.
func (a *Authorizer) Verify(ctx context.Context, scope Scope) ([]Attack, error) {
	if _, err := a.gitVersion(ctx); err != nil {
		return nil, err
	}
	v := verifier{a, scope}
	var rows []Attack
	for _, entry := range a.set.Resources() {
		rows = append(rows, v.attackEntry(ctx, entry)...)
	}
	rows = append(rows, v.tryUnrelated(ctx)...)
	if err := ctx.Err(); err != nil {
		return rows, fmt.Errorf("verify: %w", context.Cause(ctx))
	}
	return rows, nil
}

func row(resource, write, want, got string) Attack {
	return Attack{Resource: resource, Write: write, Want: want, Got: got, OK: want == got}
}

// verifier is one run of Verify.
type verifier struct {
	*Authorizer
	scope Scope
}

// leavesOut says that an error is of a kind that the scope does not count: the caller was not permitted to ask.
func (v verifier) leavesOut(err error) bool { return v.scope == PermittedWrites && refusedByRBAC(err) }

// judge returns the row of a write, or one that says that the scope leaves the write out because of its error.
func (v verifier) judge(tried Attack, err error) Attack {
	if v.leavesOut(err) {
		return Attack{Resource: tried.Resource, Write: tried.Write, Want: tried.Want, Got: leftOut, LeftOut: true}
	}
	return tried
}

func (v verifier) attackEntry(ctx context.Context, entry *reserved.Resource) []Attack {
	t, err := v.aim(ctx, entry)
	if v.leavesOut(err) {
		t.live, err = unseen(entry), nil
	}
	if err != nil {
		return []Attack{row(entry.String(), "look for it", "present", "failed: "+err.Error())}
	}
	var rows []Attack
	if t.live == nil && entry.Guard != reserved.GuardTokens {
		rows = append(rows, row(entry.String(), "look for it", "present", "absent"))
	}
	if entry.IsTokenSecret() {
		if t.foreign, err = v.foreignTokenSecret(ctx, entry); v.leavesOut(err) {
			rows = append(rows, v.judge(row(entry.String(), repointing, denied, verdict(err)), err))
		}
	}
	for _, attack := range attacksOn(t) {
		got, err := v.try(ctx, attack, t)
		rows = append(rows, v.judge(row(entry.String(), attack.write, denied, got), err))
	}
	if entry.HasManifest() && !slices.ContainsFunc(rows, func(a Attack) bool { return !a.LeftOut }) {
		rows = append(rows, row(entry.String(), "any of these", denied, "failed: RBAC lets the caller try none of them"))
	}
	return rows
}

// unseen is what there is to attack of an entry that may not be read: what it should be.
func unseen(entry *reserved.Resource) *unstructured.Unstructured {
	if entry.HasManifest() {
		return entry.Object()
	}
	return newObject(entry, entry.Name)
}

func (v verifier) tryUnrelated(ctx context.Context) []Attack {
	var rows []Attack
	for _, entry := range v.unrelated() {
		err := rehearsal{v.resource(entry)}.create(ctx, newObject(entry, randomName()))
		rows = append(rows, v.judge(row(entry.String(), "create an unrelated "+entry.Kind, allowed, verdict(err)), err))
	}
	role := clusterRoleNamed(unrelatedName)
	apply := patchBy(types.ApplyPatchType)
	err := apply(ctx, target{rehearsal: rehearsal{v.resource(role)}, entry: role, live: newObject(role, role.Name), nonce: probe.NewNonce()})
	return append(rows, v.judge(row(role.String(), "apply an unrelated "+role.Kind, allowed, verdict(err)), err))
}

// aim finds what there is to attack of an entry. Of a token Secret that is the one in use.
func (a *Authorizer) aim(ctx context.Context, entry *reserved.Resource) (target, error) {
	t := target{rehearsal: rehearsal{a.resource(entry)}, entry: entry}
	var err error
	switch {
	case entry.HasManifest():
		t.live, err = a.liveInUse(ctx, entry)
	case entry.Guard == reserved.GuardExistence:
		t.live, err = a.read(ctx, entry, entry.Name)
	}
	return t, err
}

func (a *Authorizer) liveInUse(ctx context.Context, entry *reserved.Resource) (*unstructured.Unstructured, error) {
	f, err := a.inspect(ctx, entry)
	if err != nil || f.live != nil || f.inUse() == "" {
		return f.live, err
	}
	return a.read(ctx, entry, f.inUse())
}

// read returns nil for an absent object.
func (a *Authorizer) read(ctx context.Context, entry *reserved.Resource, name string) (*unstructured.Unstructured, error) {
	live, err := a.resource(entry).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s %s: %w", entry, name, err)
	}
	return live, nil
}

// foreignTokenSecret returns a token Secret of an account that nobody reserves; nil where there is none, and with the error
// where none may be seen.
func (a *Authorizer) foreignTokenSecret(ctx context.Context, entry *reserved.Resource) (*unstructured.Unstructured, error) {
	list, err := a.resource(entry).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list token secrets in namespace %s: %w", entry.Namespace, err)
	}
	for i := range list.Items {
		secret := &list.Items[i]
		account := secret.GetAnnotations()[corev1.ServiceAccountNameKey]
		id := reserved.Identity{Namespace: secret.GetNamespace(), Name: secret.GetName(), Account: account}
		if account != "" && a.set.Find(entry.GVR, id) == nil {
			return secret, nil
		}
	}
	return nil, nil
}

// unrelated returns kinds and places next to the reserved resources in which a write concerns nobody.
func (a *Authorizer) unrelated() []*reserved.Resource {
	var namespaces []string
	for _, entry := range a.set.Resources() {
		if entry.Namespace != "" && !slices.Contains(namespaces, entry.Namespace) {
			namespaces = append(namespaces, entry.Namespace)
		}
	}
	if len(namespaces) == 0 {
		namespaces = append(namespaces, metav1.NamespaceDefault)
	}
	var entries []*reserved.Resource
	for _, namespace := range namespaces {
		secret := &reserved.Resource{Kind: "Secret", Namespace: namespace, Name: unnamed}
		secret.GVR = corev1.SchemeGroupVersion.WithResource("secrets")
		configMap := &reserved.Resource{Kind: "ConfigMap", Namespace: namespace, Name: unnamed}
		configMap.GVR = corev1.SchemeGroupVersion.WithResource("configmaps")
		entries = append(entries, secret, configMap)
	}
	return append(entries, clusterRoleNamed(unnamed))
}

func clusterRoleNamed(name string) *reserved.Resource {
	return &reserved.Resource{GVR: rbacv1.SchemeGroupVersion.WithResource("clusterroles"), Kind: clusterRoleKind, Name: name}
}

const (
	// unnamed stands in a row for a random name.
	unnamed = "(random name)"
	// unrelatedName is the one name of an unrelated write that is known beforehand, so that RBAC can grant it: the chart does,
	// to the account of `helm test`.
	unrelatedName = "apigw-guardian-unrelated"
)
