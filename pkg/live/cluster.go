// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package live reads what a cluster holds of the reserved set: each object, its drift from the manifest, and its token.
package live

import (
	"cmp"
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Cluster is one reserved set in one cluster. Every field but Namespace is required. It is safe for concurrent use.
type Cluster struct {
	Client  kubernetes.Interface
	Dynamic dynamic.Interface
	// Config names the API server and its CA.
	Config *rest.Config
	Set    *reserved.Set
	// Namespace is the guard's. Its ConfigMap names the token Secrets in use. Empty means that there is no such ConfigMap.
	Namespace string
}

// Connect makes clients from a copy of config, with a higher rate limit: one command can send a hundred short requests.
func Connect(config *rest.Config, set *reserved.Set, namespace string) (Cluster, error) {
	config = rest.CopyConfig(config)
	if config.QPS == 0 && config.RateLimiter == nil {
		config.QPS, config.Burst = 100, 200
	}
	client, err := kubernetes.NewForConfig(config)
	dynamicClient, dynamicErr := dynamic.NewForConfig(config)
	if err := cmp.Or(err, dynamicErr); err != nil {
		return Cluster{}, fmt.Errorf("make a client for %s: %w", config.Host, err)
	}
	return Cluster{Client: client, Dynamic: dynamicClient, Config: config, Set: set, Namespace: namespace}, nil
}

// lookups reads what the guard reads for its decisions.
func (c Cluster) lookups() lookup.Reader {
	return lookup.Reader{Client: c.Client, Config: c.Config, Namespace: c.Namespace}
}

// Version returns the API server's own version, for example "v1.30.0-tke.4".
func (c Cluster) Version(ctx context.Context) (string, error) {
	info, err := discovery.ToServerVersionInterfaceWithContext(c.Client.Discovery()).ServerVersionWithContext(ctx)
	if err != nil {
		return "", fmt.Errorf("get the version of the API server %s: %w", c.Config.Host, err)
	}
	return info.GitVersion, nil
}

// WebhookConfiguration returns the guard's webhook configuration; nil if it is absent.
func (c Cluster) WebhookConfiguration(ctx context.Context) (*admissionregistrationv1.ValidatingWebhookConfiguration, error) {
	live, err := lookup.Find(ctx, c.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations(), guardian.WebhookConfiguration)
	if err != nil {
		return nil, fmt.Errorf("read validatingwebhookconfiguration %q: %w", guardian.WebhookConfiguration, err)
	}
	return live, nil
}

// Resource returns the client of the resource's kind in its namespace.
func (c Cluster) Resource(resource *reserved.Resource) dynamic.ResourceInterface {
	all := c.Dynamic.Resource(resource.GVR)
	if resource.Namespace == "" {
		return all
	}
	return all.Namespace(resource.Namespace)
}

// Get returns the object of the resource's kind with this name; nil if it is absent.
func (c Cluster) Get(ctx context.Context, resource *reserved.Resource, name string) (*unstructured.Unstructured, error) {
	live, err := c.Resource(resource).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", resource.Reference(resource.Namespace, name), err)
	}
	return live, nil
}

// NewObject returns an object with a kind, a namespace, a name, and no other field.
func NewObject(kind schema.GroupVersionKind, namespace, name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{Object: map[string]any{}}
	object.SetGroupVersionKind(kind)
	object.SetNamespace(namespace)
	object.SetName(name)
	return object
}
