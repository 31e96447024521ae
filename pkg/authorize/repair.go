// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
)

// repair makes an object equal its manifest in one write, which the guard allows as a restoration, and then applies it.
func (a *Authorizer) repair(ctx context.Context, o live.Object, options Options) error {
	if immutable := immutableDrift(o); len(immutable) > 0 {
		return fmt.Errorf("cannot repair %s in %s: delete it and authorize again: %w", o, strings.Join(immutable, ", "), ErrDiffers)
	}
	if !options.Repair {
		return fmt.Errorf("%s changed during the run in %s: authorize with --repair: %w", o, strings.Join(o.Drift, ", "), ErrDiffers)
	}
	if o.Live != nil {
		patch, err := repairPatch(o)
		if err != nil {
			return fmt.Errorf("repair %s: %w", o, err)
		}
		written := metav1.PatchOptions{FieldManager: guardian.FieldManager}
		if _, err = a.cluster.Resource(o.Resource).Patch(ctx, o.Resource.Name, types.MergePatchType, patch, written); err != nil {
			return fmt.Errorf("repair %s: %w", o, err)
		}
		if err := a.apply(ctx, o.Resource); err != nil {
			return err
		}
	}
	if slices.Contains(o.Drift, live.RootCAPath) {
		return a.renewCA(ctx, o, options.Wait)
	}
	return nil
}

// lastAppliedPath is the path of kubectl's own annotation, in the form of policy.Drift.
const lastAppliedPath = "metadata.annotations[" + corev1.LastAppliedConfigAnnotation + "]"

// repairPatch returns the JSON merge patch (RFC 7386) that makes the live object equal its manifest, and leaves the fields of
// the control plane. It is valid for the version of the object that was read.
func repairPatch(o live.Object) ([]byte, error) {
	want := o.Resource.Object()
	for _, path := range controlPlaneFields(o) {
		value, found, _ := unstructured.NestedFieldNoCopy(o.Live.Object, path...)
		if _, isWanted, _ := unstructured.NestedFieldNoCopy(want.Object, path...); !found || isWanted {
			continue
		}
		if err := unstructured.SetNestedField(want.Object, value, path...); err != nil {
			return nil, err
		}
	}
	stored := o.Live.DeepCopy()
	want.SetResourceVersion(stored.GetResourceVersion())
	stored.SetResourceVersion("") // so that the patch holds it
	from, err := stored.MarshalJSON()
	if err != nil {
		return nil, err
	}
	to, err := want.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return jsonmergepatch.CreateThreeWayJSONMergePatch(from, to, from)
}

// controlPlaneFields returns the paths of the fields that a repair does not change.
func controlPlaneFields(o live.Object) [][]string {
	paths := append([][]string{{"status"}}, o.Resource.SystemFields()...)
	if !slices.Contains(o.Drift, lastAppliedPath) {
		paths = append(paths, []string{"metadata", "annotations", corev1.LastAppliedConfigAnnotation})
	}
	for _, key := range []string{
		"uid", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds",
	} {
		paths = append(paths, []string{"metadata", key})
	}
	return paths
}

// immutableDrift returns the differing paths that no update can repair, so that the object must be deleted.
func immutableDrift(o live.Object) []string {
	if o.Live != nil && o.Live.GetDeletionTimestamp() != nil {
		return []string{"metadata.deletionTimestamp"}
	}
	var paths []string
	for _, path := range o.Drift {
		if isImmutable(o, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// accountPath is the path of a token Secret's ServiceAccount, in the form of policy.Drift.
const accountPath = "metadata.annotations[" + corev1.ServiceAccountNameKey + "]"

// isImmutable knows the fields that the API server's validation does not let a client change.
func isImmutable(o live.Object, path string) bool {
	isCore := func(kind string) bool { return o.Resource.GVR.Group == "" && o.Resource.Kind == kind }
	under := func(key string) bool {
		rest, found := strings.CutPrefix(path, key)
		return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	switch {
	case o.Resource.IsTokenSecret() && under("data"):
		return path != live.RootCAPath
	case isBinding(o.Resource):
		return under("roleRef")
	case isCore("Secret") && path == "type":
		return true
	case o.Resource.IsTokenSecret() && path == accountPath:
		// kube-controller-manager deletes a Secret with a token once it names another account.
		token, _, _ := unstructured.NestedString(o.Live.Object, "data", corev1.ServiceAccountTokenKey)
		return token != "" || o.Live.GetAnnotations()[corev1.ServiceAccountUIDKey] != ""
	case isCore("Secret") || isCore("ConfigMap"):
		frozen, _, _ := unstructured.NestedBool(o.Live.Object, "immutable")
		return frozen && (under("immutable") || under("data") || under("binaryData"))
	}
	return false
}

// renewManager is the field manager of writes that change no value.
const renewManager = "apigw-guardian-renew"

// renewCA makes kube-controller-manager write the CA of a token Secret again, and waits until it has. The controller looks at
// a Secret after each change. So a field manager takes the fields of the manifest and gives them up: both are changes, and
// neither changes a value.
func (a *Authorizer) renewCA(ctx context.Context, o live.Object, limit time.Duration) error {
	fields, none := o.Resource.Object(), live.NewObject(o.Resource.GVK(), o.Resource.Namespace, o.InUse())
	fields.SetName(o.InUse())
	for _, object := range []*unstructured.Unstructured{fields, none} {
		options := metav1.ApplyOptions{FieldManager: renewManager, Force: true}
		if _, err := a.cluster.Resource(o.Resource).Apply(ctx, o.InUse(), object, options); err != nil {
			return fmt.Errorf("apply %s: %w", o, err)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := wait.PollUntilContextCancel(bounded, pollInterval, true, func(context.Context) (bool, error) {
		// Not the bounded context: the client's rate limiter refuses a call that the end of the wait would cut off.
		secret, err := a.cluster.Client.CoreV1().Secrets(o.Resource.Namespace).Get(ctx, o.InUse(), metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		drift, err := a.cluster.DataDrift(ctx, secret)
		return err == nil && !slices.Contains(drift, live.RootCAPath), err
	})
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("wait until kube-controller-manager writes %s of %s: %w", live.RootCAPath, o, context.Cause(ctx))
	case bounded.Err() != nil:
		return fmt.Errorf("%s: kube-controller-manager did not write %s within %s. %s: %w", o, live.RootCAPath, limit, rootCARemedy, ErrDiffers)
	case err != nil:
		return fmt.Errorf("wait until kube-controller-manager writes %s of %s: %w", live.RootCAPath, o, err)
	}
	return nil
}
