// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// ErrDiffers says that an object differs from its manifest, and was not, or cannot be, repaired.
var ErrDiffers = errors.New("it differs from its manifest")

// Outcome is what Authorize did with one reserved resource.
type Outcome string

// The outcomes.
const (
	// Created: the object was absent.
	Created Outcome = "created"
	// Unchanged: the object equals its manifest, and this program owns its fields, if it has any.
	Unchanged Outcome = "unchanged"
	// Adopted: the object equals its manifest, and this program owns its fields now; or an older token Secret is used.
	Adopted Outcome = "adopted"
	// Repaired: the object differed from its manifest, and equals it now.
	Repaired Outcome = "repaired"
)

// Line reports on one resource.
type Line struct {
	// Resource is the reserved resource, in the form of reserved.Resource.String.
	Resource string  `json:"resource"`
	Outcome  Outcome `json:"outcome"`
	// Name is the name of the object in use: the manifest's, or an older token Secret's.
	Name string `json:"name"`
	// Paths are the repaired fields; empty unless Repaired.
	Paths []string `json:"paths,omitempty"`
	// Unproved says that the caller may not read the token Secret, so its token is not proved.
	Unproved bool `json:"unproved,omitempty"`
}

// String writes the line for a terminal:
//
//	clusterroles.rbac.authorization.k8s.io/some-role repaired (rules[2].verbs)
//	secrets/some-namespace/some-token-* adopted (some-token-x7k2p)
func (l Line) String() string {
	text := l.Resource + " " + string(l.Outcome)
	switch {
	case len(l.Paths) > 0:
		return text + " (" + strings.Join(l.Paths, ", ") + ")"
	case l.Unproved:
		return text + " (" + l.Name + "; token not proved: missing permission to read it)"
	case strings.HasSuffix(l.Resource, "*"):
		return text + " (" + l.Name + ")"
	}
	return text
}

// put makes one object equal its manifest. After a conflict with another client, it reads the object again.
func (a *Authorizer) put(ctx context.Context, resource *reserved.Resource, options Options) (Line, error) {
	line := Line{Resource: resource.String()}
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		o, err := a.cluster.Compare(ctx, resource)
		if err != nil {
			return err
		}
		if err := a.noteInUse(ctx, o); err != nil {
			return err
		}
		line.Name, line.Unproved = cmp.Or(o.InUse(), resource.Name), o.Older.IsUnread()
		line.Outcome, err = a.putObject(ctx, o, options)
		if line.Outcome == Repaired {
			line.Paths = o.Drift
		}
		if line.Outcome == Created && err == nil && resource.IsTokenSecret() {
			o.Live = resource.Object()
			return a.noteInUse(ctx, o)
		}
		return err
	})
	return line, err
}

func (a *Authorizer) putObject(ctx context.Context, o live.Object, options Options) (Outcome, error) {
	switch {
	case o.InUse() == "":
		return Created, a.apply(ctx, o.Resource)
	case len(o.Drift) > 0:
		return Repaired, a.repair(ctx, o, options)
	case o.Live == nil:
		return Adopted, nil
	case isOurs(o):
		return Unchanged, nil
	}
	return Adopted, a.apply(ctx, o.Resource)
}

// isOurs reports whether this program has applied the object, or the manifest has no field that it could own.
func isOurs(o live.Object) bool {
	return !hasFields(o.Resource) || slices.ContainsFunc(o.Live.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == guardian.FieldManager && m.Operation == metav1.ManagedFieldsOperationApply && m.Subresource == ""
	})
}

// hasFields reports whether the manifest has more fields than an object's identity.
func hasFields(resource *reserved.Resource) bool {
	object := resource.Object()
	for _, identity := range [][]string{{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"}} {
		unstructured.RemoveNestedField(object.Object, identity...)
	}
	metadata, _ := object.Object["metadata"].(map[string]any)
	return len(object.Object) > 1 || len(metadata) > 0
}

// apply writes the manifest, and fails with ErrDiffers if the cluster stores something else.
func (a *Authorizer) apply(ctx context.Context, resource *reserved.Resource) error {
	options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
	stored, err := a.cluster.Resource(resource).Apply(ctx, resource.Name, resource.Object(), options)
	if err != nil {
		return fmt.Errorf("apply %s: %w", live.Object{Resource: resource}, err)
	}
	drift, err := live.Drift(resource, stored)
	if err == nil && len(drift) > 0 {
		err = fmt.Errorf("apply %s: the cluster stores other values in %s; look for a mutating webhook or policy, or "+
			"add to the manifest what the API server sets: %w", live.Object{Resource: resource}, strings.Join(drift, ", "), ErrDiffers)
	}
	return err
}

// noteInUse notes for the guard which token Secret is in use, before it is written: the guard denies the creation of a second one.
func (a *Authorizer) noteInUse(ctx context.Context, o live.Object) error {
	if !o.Resource.IsTokenSecret() || a.cluster.Namespace == "" {
		return nil
	}
	account, err := a.cluster.Account(ctx, o.Resource)
	if err != nil || account == nil {
		return err
	}
	credential := lookup.Credential{
		Namespace: o.Resource.Namespace, Account: o.Resource.Account, AccountUID: string(account.UID),
		Secret: cmp.Or(o.InUse(), o.Resource.Name), Exists: o.InUse() != "",
	}
	err = a.note(ctx, credential)
	// Without the guard's namespace no guard can deny. A later guard must know of an older Secret, and finds the reserved one itself.
	switch {
	case !apierrors.IsNotFound(err):
		return err
	case credential.Secret == o.Resource.Name:
		return nil
	}
	if err := a.createNamespace(ctx); err != nil {
		if apierrors.IsForbidden(err) {
			return nil
		}
		return err
	}
	return a.note(ctx, credential)
}

// createNamespace creates the guard's namespace if it is absent.
func (a *Authorizer) createNamespace(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: a.cluster.Namespace}}
	_, err := a.cluster.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{FieldManager: guardian.FieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create namespace %s: %w", a.cluster.Namespace, err)
	}
	return nil
}

// deletedCredential returns the name of the token Secret that was noted as in use for the live account, if it was deleted; "" if
// there is none, or the caller may not read the note.
func (a *Authorizer) deletedCredential(ctx context.Context, o live.Object) (string, error) {
	if !o.Resource.IsTokenSecret() || o.InUse() != "" {
		return "", nil
	}
	account, err := a.cluster.Account(ctx, o.Resource)
	if err != nil || account == nil {
		return "", err
	}
	noted, err := a.cluster.Lookups().Credential(ctx, o.Resource.Namespace, o.Resource.Account)
	if apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil || !noted.Exists || noted.AccountUID != string(account.UID) {
		return "", err
	}
	return noted.Secret, nil
}

// note notes which token Secret is in use. If the same one was noted as there, that stays.
func (a *Authorizer) note(ctx context.Context, credential lookup.Credential) error {
	notes := a.notes(lookup.CredentialsName)
	stored, err := notes.Read(ctx)
	if err != nil {
		return err
	}
	isThere := credential
	isThere.Exists = true
	text := client.Encoded(credential)
	if stored != nil && slices.Contains([]string{*text, *client.Encoded(isThere)}, stored.Data[credential.Key()]) {
		return nil
	}
	_, err = notes.Put(ctx, "", map[string]*string{credential.Key(): text}, nil)
	return err
}

func (a *Authorizer) notes(name string) client.Notes {
	return client.Notes{Client: a.cluster.Client, Namespace: a.cluster.Namespace, Name: name}
}
