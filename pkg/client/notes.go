// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	metav1apply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// Notes is a ConfigMap in which processes of the guard note what others read, each under other keys. It is safe for concurrent use.
type Notes struct {
	Client          kubernetes.Interface
	Namespace, Name string
}

// Read reads without a cache. It returns nil if the ConfigMap is absent.
func (n Notes) Read(ctx context.Context) (*corev1.ConfigMap, error) {
	stored, err := Find(ctx, n.Client.CoreV1().ConfigMaps(n.Namespace), n.Name)
	if err != nil {
		return nil, fmt.Errorf("read configmap %s/%s: %w", n.Namespace, n.Name, err)
	}
	return stored, nil
}

// Write writes some keys, and removes those whose value is nil. It fails with a conflict if the ConfigMap has another version; "" for any
// version. The error satisfies apierrors.IsNotFound if the ConfigMap is absent.
func (n Notes) Write(ctx context.Context, version string, data map[string]*string) (*corev1.ConfigMap, error) {
	change := map[string]any{"data": data}
	if version != "" {
		change["metadata"] = map[string]any{"resourceVersion": version}
	}
	patch, _ := json.Marshal(change) // these types always marshal
	stored, err := n.Client.CoreV1().ConfigMaps(n.Namespace).Patch(
		ctx, n.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: guardian.FieldManager})
	if err != nil {
		return nil, fmt.Errorf("write configmap %s/%s: %w", n.Namespace, n.Name, err)
	}
	return stored, nil
}

// Put is Write, and makes the ConfigMap if it is absent. owner, nil for none, then returns its owner, and an error of it is that of Put.
// Otherwise, the error satisfies apierrors.IsNotFound if the namespace is absent.
func (n Notes) Put(
	ctx context.Context, version string, data map[string]*string, owner func(context.Context) (*metav1.OwnerReference, error),
) (*corev1.ConfigMap, error) {
	stored, err := n.Write(ctx, version, data)
	if !apierrors.IsNotFound(err) {
		return stored, err
	}
	// An apply, which RBAC can limit to a name; and without a key, so that it removes none if another process was faster.
	empty := corev1apply.ConfigMap(n.Name, n.Namespace)
	if owner != nil {
		of, err := owner(ctx)
		if err != nil {
			return nil, err
		}
		if of != nil {
			empty.WithOwnerReferences(metav1apply.OwnerReference().
				WithAPIVersion(of.APIVersion).WithKind(of.Kind).WithName(of.Name).WithUID(of.UID))
		}
	}
	options := metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true}
	if _, err := n.Client.CoreV1().ConfigMaps(n.Namespace).Apply(ctx, empty, options); err != nil {
		return nil, fmt.Errorf("create configmap %s/%s: %w", n.Namespace, n.Name, err)
	}
	return n.Write(ctx, "", data)
}

// Encoded returns a value, which always marshals, as JSON for Write.
func Encoded(value any) *string {
	text, _ := json.Marshal(value)
	return new(string(text))
}
