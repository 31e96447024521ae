// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Object is what the cluster holds of a reserved resource with a manifest.
type Object struct {
	Resource *reserved.Resource
	// Live is the object with the manifest's name; nil if it is absent.
	Live *unstructured.Unstructured
	// Drift holds the sorted paths in which Live differs from the manifest, and the token Secret in use from what
	// kube-controller-manager writes.
	Drift []string
	// Older are the token Secrets that can replace an absent Live.
	Older Older
}

// InUse returns the name of Live, or of the older token Secret that is used instead; "" if there is neither.
func (o Object) InUse() string {
	if o.Live != nil {
		return o.Live.GetName()
	}
	return o.Older.InUse()
}

// String names the object in use, or the manifest's if there is none: "clusterroles.rbac.authorization.k8s.io/some-role".
func (o Object) String() string {
	return o.Resource.Reference(o.Resource.Namespace, cmp.Or(o.InUse(), o.Resource.Name)).String()
}

// Find reads the object of a resource with a manifest. It does not compare the data of token Secrets.
func (c Cluster) Find(ctx context.Context, resource *reserved.Resource) (Object, error) {
	o := Object{Resource: resource}
	var err error
	if o.Live, err = c.Get(ctx, resource, resource.Name); err != nil {
		return o, err
	}
	if o.Live != nil {
		o.Drift, err = Drift(resource, o.Live)
	} else {
		o.Older, err = c.older(ctx, resource)
	}
	return o, err
}

// Compare is Find, and compares the data of the token Secret in use.
func (c Cluster) Compare(ctx context.Context, resource *reserved.Resource) (Object, error) {
	o, err := c.Find(ctx, resource)
	if err != nil || !resource.IsTokenSecret() {
		return o, err
	}
	secret := o.Older.secret
	if o.Live != nil {
		secret = &corev1.Secret{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Live.Object, secret); err != nil {
			return o, fmt.Errorf("read %s: %w", o, err)
		}
	}
	paths, err := c.DataDrift(ctx, secret)
	o.Drift = append(o.Drift, paths...)
	return o, err
}

// Drift returns the sorted paths in which an object differs from the manifest.
func Drift(resource *reserved.Resource, live *unstructured.Unstructured) ([]string, error) {
	data, err := live.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", resource, err)
	}
	value, err := rawjson.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("compare %s with its manifest: %w", resource, err)
	}
	paths := policy.Drift(resource, value)
	slices.Sort(paths)
	return slices.Compact(paths), nil
}
