// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// found is what stands in the cluster where a reserved resource belongs.
type found struct {
	entry *reserved.Resource
	// live is the object under the manifest's own name; nil where there is none.
	live *unstructured.Unstructured
	// drift are the sorted paths in which live differs from the manifest. Of a token Secret, look adds those of its data.
	drift []string
	// older are token Secrets under the reserved prefix that stand in for an absent one. They are looked for only where
	// live is nil.
	older olderSecrets
}

// inUse returns the name of the object that does the entry's work; "" where there is none.
func (f found) inUse() string {
	if f.live != nil {
		return f.live.GetName()
	}
	return f.older.first()
}

func (a *Authorizer) resource(entry *reserved.Resource) dynamic.ResourceInterface {
	resource := a.cluster.Dynamic.Resource(entry.GVR)
	if entry.Namespace == "" {
		return resource
	}
	return resource.Namespace(entry.Namespace)
}

// inspect reads what stands there for an entry with a manifest.
func (a *Authorizer) inspect(ctx context.Context, entry *reserved.Resource) (found, error) {
	live, err := a.resource(entry).Get(ctx, entry.Name, metav1.GetOptions{})
	if err == nil {
		drift, err := driftOf(entry, live)
		return found{entry: entry, live: live, drift: drift}, err
	}
	if !apierrors.IsNotFound(err) {
		return found{}, fmt.Errorf("read %s: %w", nameOf(entry), err)
	}
	older, err := a.olderTokenSecrets(ctx, entry)
	return found{entry: entry, older: older}, err
}

// look is inspect, and of a token Secret that is in use it compares the data too.
func (a *Authorizer) look(ctx context.Context, entry *reserved.Resource) (found, error) {
	f, err := a.inspect(ctx, entry)
	if err != nil || !entry.IsTokenSecret() {
		return f, err
	}
	secret := f.older.secret
	if f.live != nil {
		secret = &corev1.Secret{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(f.live.Object, secret); err != nil {
			return f, fmt.Errorf("read %s: %w", nameOf(entry), err)
		}
	}
	paths, err := a.dataDrift(ctx, secret)
	f.drift = append(f.drift, paths...)
	return f, err
}

func driftOf(entry *reserved.Resource, live *unstructured.Unstructured) ([]string, error) {
	data, err := live.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write %s as JSON: %w", nameOf(entry), err)
	}
	value, err := rawjson.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("compare %s with its manifest: %w", nameOf(entry), err)
	}
	paths := policy.Drift(entry, value)
	slices.Sort(paths)
	return slices.Compact(paths), nil
}

// name names the object that does the entry's work, or is to do it.
func (f found) name() string {
	entry := *f.entry
	entry.Name = cmp.Or(f.inUse(), entry.Name)
	return nameOf(&entry)
}

// nameOf names the one object that the manifest describes, where the entry's String names all that it reserves.
func nameOf(entry *reserved.Resource) string {
	return entry.Reference(entry.Namespace, entry.Name).String()
}

// irreparable returns those of the differing paths that no update puts right, so that the object has to go first.
func (f found) irreparable() []string {
	if f.live != nil && f.live.GetDeletionTimestamp() != nil {
		return []string{"metadata.deletionTimestamp"}
	}
	var paths []string
	for _, path := range f.drift {
		if f.isImmutable(path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// isImmutable tells the fields that the API server's validation does not let anyone change.
func (f found) isImmutable(path string) bool {
	isCore := func(kind string) bool { return f.entry.GVR.Group == "" && f.entry.Kind == kind }
	under := func(key string) bool {
		rest, found := strings.CutPrefix(path, key)
		return found && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	switch {
	case f.entry.IsTokenSecret() && under("data"):
		return path != rootCAPath
	case isBinding(f.entry):
		return under("roleRef")
	case isCore("Secret") && path == "type":
		return true
	case f.entry.IsTokenSecret() && path == accountPath:
		return holdsToken(f.live)
	case isCore("Secret") || isCore("ConfigMap"):
		frozen, _, _ := unstructured.NestedBool(f.live.Object, "immutable")
		return frozen && (under("immutable") || under("data") || under("binaryData"))
	}
	return false
}

// accountPath is where a token Secret names its ServiceAccount, as package policy writes paths.
const accountPath = "metadata.annotations[" + corev1.ServiceAccountNameKey + "]"

// holdsToken says that the Secret is bound to an account already. Once it names another one, kube-controller-manager
// deletes it.
func holdsToken(secret *unstructured.Unstructured) bool {
	token, _, _ := unstructured.NestedString(secret.Object, "data", corev1.ServiceAccountTokenKey)
	return token != "" || secret.GetAnnotations()[corev1.ServiceAccountUIDKey] != ""
}
