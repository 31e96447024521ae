// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package verify attacks the reserved resources by server dry-runs, to find out whether the guard denies every write.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Attack is one write that was tried as a server dry-run.
type Attack struct {
	// Resource is the reserved resource, in the form of reserved.Resource.String, or the object of an unrelated write.
	Resource string `json:"resource"`
	// Write is the kind of write, for example "merge patch" or "delete (orphan)".
	Write string `json:"write"`
	// Want is "denied"; "allowed" for an unrelated write; "present" in a row of an absent or unreadable object.
	Want string `json:"want"`
	// Got is "denied" only if the guard's webhook denied, with a proof if the object has the mark; otherwise "allowed",
	// "absent", "failed: " with the reason, or "left out".
	Got string `json:"got"`
	// OK says that Got is Want.
	OK bool `json:"ok"`
	// LeftOut says that RBAC did not let the caller try, so the result is unknown. OK is false then.
	LeftOut bool `json:"leftOut,omitempty"`
}

// Scope selects the writes of a Verifier.
type Scope int

const (
	// EveryWrite wants every write tried: one that RBAC refuses is a row that is not OK.
	EveryWrite Scope = iota
	// PermittedWrites leaves out the writes that RBAC refuses. The guard must still deny at least one write to each resource
	// with a manifest; if none could be tried, one more row says so and is not OK.
	PermittedWrites
)

// Verifier works on one cluster. It has no state and is safe for concurrent use.
type Verifier struct {
	cluster live.Cluster
	scope   Scope
}

// New returns a Verifier.
func New(cluster live.Cluster, scope Scope) Verifier { return Verifier{cluster, scope} }

// Verify attacks each reserved resource with every kind of write, and makes a few unrelated writes. All are server dry-runs,
// which store nothing, and many run at the same time. An absent resource is a row that is not OK, because most attacks on it cannot be
// tried. report receives each row, in order, as soon as those before it are known; nil for none.
//
// The error says that the API server does not answer; every other problem is a row.
func (v Verifier) Verify(ctx context.Context, report func(Attack)) ([]Attack, error) {
	if _, err := v.cluster.Version(ctx); err != nil {
		return nil, err
	}
	var tries []*try
	for _, resource := range v.cluster.Set.Resources() {
		tries = append(tries, v.attack(ctx, resource)...)
	}
	tries = append(tries, v.tryUnrelated(ctx)...)
	go live.Each(len(tries), func(i int) {
		tries[i].run(&tries[i].row)
		close(tries[i].done)
	})
	var rows []Attack
	for _, one := range tries {
		if <-one.done; one.row.Write == "" {
			continue
		}
		rows = append(rows, one.row)
		if report != nil {
			report(one.row)
		}
	}
	for _, problem := range v.problems(ctx) {
		row := v.row(Attack{Resource: registrationName, Write: "webhook-reachable", Want: "no problem", Got: problem}, nil)
		rows = append(rows, row)
		if report != nil {
			report(row)
		}
	}
	if err := ctx.Err(); err != nil {
		return rows, fmt.Errorf("verify: %w", context.Cause(ctx))
	}
	return rows, nil
}

// try is one row to be.
type try struct {
	// row is complete when done is closed. Without a write, it is none.
	row  Attack
	run  func(row *Attack)
	done chan struct{}
}

func newTry(resource, write string, run func(row *Attack)) *try {
	return &try{row: Attack{Resource: resource, Write: write, Want: denied}, run: run, done: make(chan struct{})}
}

// known returns the try of a row that needs no write.
func known(row Attack) *try {
	return newTry(row.Resource, row.Write, func(r *Attack) { *r = row })
}

const registrationName = "validatingwebhookconfigurations.admissionregistration.k8s.io/" + guardian.WebhookConfiguration

// problems returns what keeps reviews from the guard, as the API server says or the guard reports; nil for none.
func (v Verifier) problems(ctx context.Context) []string {
	registered, err := v.cluster.WebhookConfiguration(ctx)
	if err != nil || registered == nil {
		return nil // the attacks say so
	}
	problems, namespace := registration.Problems(registered), registration.ProbeNamespace(registered)
	if registered.Annotations[guardian.ReachabilityProblemAnnotation] != "" || namespace == "" {
		return problems
	}
	if err := registration.Reach(ctx, v.cluster.Client.CoreV1(), namespace); errors.Is(err, registration.ErrUnreachable) {
		problems = append(problems, err.Error()+": "+registration.ReachRemedy("webhook.port (9443 by default)"))
	}
	return problems
}

// leavesOut reports whether the scope ignores an error: RBAC refused the caller.
func (v Verifier) leavesOut(err error) bool {
	return v.scope == PermittedWrites && isRefusedByRBAC(err)
}

// row returns the row of a write, which is left out if the scope ignores its error.
func (v Verifier) row(row Attack, err error) Attack {
	row.LeftOut = v.leavesOut(err)
	if row.LeftOut {
		row.Got = leftOut
	}
	row.OK = row.Got == row.Want
	return row
}

func (v Verifier) attack(ctx context.Context, resource *reserved.Resource) []*try {
	const look = "look for it"
	name := resource.String()
	t, err := v.aim(ctx, resource)
	if v.leavesOut(err) {
		t.live, err = expected(resource), nil
	}
	if err != nil {
		return []*try{known(v.row(Attack{Resource: name, Write: look, Want: "present", Got: "failed: " + err.Error()}, nil))}
	}
	var tries []*try
	if t.live == nil && resource.Guard != reserved.GuardTokens {
		tries = append(tries, known(v.row(Attack{Resource: name, Write: look, Want: "present", Got: "absent"}, nil)))
	}
	if resource.IsTokenSecret() {
		if t.other, err = v.unreservedTokenSecret(ctx, resource); v.leavesOut(err) {
			tries = append(tries, known(v.row(Attack{Resource: name, Write: repointing, Want: denied, Got: leftOut}, err)))
		}
	}
	for _, attack := range attacksOn(t) {
		tries = append(tries, newTry(name, attack.write, func(row *Attack) {
			got, err := v.try(ctx, attack, t)
			row.Got = got
			*row = v.row(*row, err)
		}))
	}
	if resource.HasManifest() {
		tries = append(tries, anyOf(name, tries))
	}
	return tries
}

// anyOf returns the row that says that the caller could try none of the writes to a resource. There is no such row otherwise.
func anyOf(name string, tries []*try) *try {
	return newTry(name, "any of these", func(row *Attack) {
		row.Got = "failed: RBAC lets the caller try none of them"
		for _, one := range tries {
			if <-one.done; !one.row.LeftOut {
				*row = Attack{}
			}
		}
	})
}

// expected returns what to attack instead of an object that the caller may not read.
func expected(resource *reserved.Resource) *unstructured.Unstructured {
	if resource.HasManifest() {
		return resource.Object()
	}
	return live.NewObject(resource.GVK(), resource.Namespace, resource.Name)
}

// aim finds the object to attack. Of a token Secret that is the one in use.
func (v Verifier) aim(ctx context.Context, resource *reserved.Resource) (target, error) {
	t := target{dryRun: dryRun{v.cluster.Resource(resource)}, resource: resource}
	var err error
	switch {
	case resource.HasManifest():
		var o live.Object
		o, err = v.cluster.Find(ctx, resource)
		if t.live = o.Live; err == nil && t.live == nil && o.InUse() != "" {
			t.live, err = v.cluster.Get(ctx, resource, o.InUse())
		}
	case resource.Guard == reserved.GuardExistence:
		t.live, err = v.cluster.Get(ctx, resource, resource.Name)
	}
	return t, err
}

// unreservedTokenSecret returns a token Secret of an account that is not reserved; nil if there is none, or with an error.
func (v Verifier) unreservedTokenSecret(ctx context.Context, resource *reserved.Resource) (*unstructured.Unstructured, error) {
	list, err := v.cluster.Resource(resource).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("type", string(corev1.SecretTypeServiceAccountToken)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list token secrets in namespace %s: %w", resource.Namespace, err)
	}
	for i := range list.Items {
		secret := &list.Items[i]
		account := secret.GetAnnotations()[corev1.ServiceAccountNameKey]
		id := reserved.Identity{Namespace: secret.GetNamespace(), Name: secret.GetName(), Account: account}
		if account != "" && v.cluster.Set.Find(resource.GVR, id) == nil {
			return secret, nil
		}
	}
	return nil, nil
}

// unrelatedRole is an unrelated name that RBAC can grant beforehand: the chart grants it to the account of `helm test`.
const unrelatedRole = "apigw-guardian-unrelated"

// tryUnrelated makes writes next to the reserved resources that the guard must allow.
func (v Verifier) tryUnrelated(ctx context.Context) []*try {
	var namespaces []string
	for _, resource := range v.cluster.Set.Resources() {
		if resource.Namespace != "" && !slices.Contains(namespaces, resource.Namespace) {
			namespaces = append(namespaces, resource.Namespace)
		}
	}
	if len(namespaces) == 0 {
		namespaces = append(namespaces, metav1.NamespaceDefault)
	}
	var tries []*try
	for _, namespace := range namespaces {
		tries = append(tries, v.createUnrelated(ctx, corev1.SchemeGroupVersion.WithResource("secrets"), "Secret", namespace),
			v.createUnrelated(ctx, corev1.SchemeGroupVersion.WithResource("configmaps"), "ConfigMap", namespace))
	}
	roles := rbacv1.SchemeGroupVersion.WithResource("clusterroles")
	return append(tries, v.createUnrelated(ctx, roles, "ClusterRole", ""), v.applyUnrelated(ctx, roles))
}

func (v Verifier) applyUnrelated(ctx context.Context, roles schema.GroupVersionResource) *try {
	name := v1alpha1.ObjectReference{Group: roles.Group, Resource: roles.Resource, Name: unrelatedRole}.String()
	return newTry(name, "apply an unrelated ClusterRole", func(row *Attack) {
		role := live.NewObject(roles.GroupVersion().WithKind("ClusterRole"), "", unrelatedRole)
		mark(role, probe.NewNonce())
		body, err := role.MarshalJSON()
		err = errors.Join(err, dryRun{v.cluster.Dynamic.Resource(roles)}.patch(ctx, unrelatedRole, types.ApplyPatchType, body))
		row.Want, row.Got = allowed, resultOf(err)
		*row = v.row(*row, err)
	})
}

func (v Verifier) createUnrelated(ctx context.Context, gvr schema.GroupVersionResource, kind, namespace string) *try {
	reference := v1alpha1.ObjectReference{Group: gvr.Group, Resource: gvr.Resource, Namespace: namespace, Name: randomPrefix + "*"}
	return newTry(reference.String(), "create an unrelated "+kind, func(row *Attack) {
		object := live.NewObject(gvr.GroupVersion().WithKind(kind), namespace, randomName())
		err := dryRun{v.cluster.Dynamic.Resource(gvr).Namespace(namespace)}.create(ctx, object)
		row.Want, row.Got = allowed, resultOf(err)
		*row = v.row(*row, err)
	})
}

// ErrUnprotected says that the guard did not deny a forbidden write.
var ErrUnprotected = errors.New("authorized, but not protected")

// awaitInterval is the pause between two rounds. A guard registers within a second of its start, or when a killed guard's lease ends.
const awaitInterval = 500 * time.Millisecond

// Await waits until the guard has denied a forbidden write to each resource with a manifest. After the time limit, the error
// wraps ErrUnprotected and says which write was not denied.
func (v Verifier) Await(ctx context.Context, limit time.Duration) error {
	// The limit does not cut off an attack: that would say nothing about the guard.
	over := time.After(limit)
	for {
		open := v.firstOpen(ctx)
		if open == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the guard: %w", context.Cause(ctx))
		case <-over:
			return fmt.Errorf("%w after %s: %s", ErrUnprotected, limit, strings.Join(append(v.problems(ctx), open), "; "))
		case <-time.After(awaitInterval):
		}
	}
}

// firstOpen says why the first unprotected resource is open; "" if there is none.
func (v Verifier) firstOpen(ctx context.Context) string {
	for _, resource := range v.cluster.Set.WithManifest() {
		if p, _ := v.protection(ctx, resource); p.Message != "" {
			return p.Message
		}
	}
	return ""
}
