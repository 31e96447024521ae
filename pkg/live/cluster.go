// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package live reads what a cluster holds of the reserved set: each object, its drift from the manifest, and its token.
package live

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
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

// Connect makes clients from a copy of config, with a higher rate limit: one command sends about 50 short requests for each reservation.
func Connect(config *rest.Config, set *reserved.Set, namespace string) (Cluster, error) {
	config = rest.CopyConfig(config)
	if config.QPS == 0 && config.RateLimiter == nil {
		config.QPS, config.Burst = 500, 1000
	}
	client, err := kubernetes.NewForConfig(config)
	dynamicClient, dynamicErr := dynamic.NewForConfig(config)
	if err := cmp.Or(err, dynamicErr); err != nil {
		return Cluster{}, fmt.Errorf("make a client for %s: %w", config.Host, err)
	}
	return Cluster{Client: client, Dynamic: dynamicClient, Config: config, Set: set, Namespace: namespace}, nil
}

// Lookups returns a reader of the CA of the cluster, of the token Secrets in use, and of the retirements.
func (c Cluster) Lookups() lookup.Reader {
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
	live, err := client.Find(ctx, c.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations(), guardian.WebhookConfiguration)
	if err != nil {
		return nil, fmt.Errorf("read validatingwebhookconfiguration %q: %w", guardian.WebhookConfiguration, err)
	}
	if live != nil {
		makeProblemsPrintable(live.Annotations)
	}
	return live, nil
}

// maxProblem bounds a problem. The guard writes shorter ones.
const maxProblem = 1024

// makeProblemsPrintable cleans what a command prints: any client that may write the webhook configuration can change it.
func makeProblemsPrintable(annotations map[string]string) {
	for _, key := range []string{
		guardian.CertificateProblemAnnotation, guardian.RecordsProblemAnnotation, guardian.RegistrationProblemAnnotation,
		guardian.ReachabilityProblemAnnotation,
	} {
		if problem, found := annotations[key]; found {
			annotations[key] = text.Printable(problem, maxProblem)
		}
	}
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

// RootCAPath is the path of the API server's CA in a token Secret, in the form of policy.Drift.
const RootCAPath = "data[" + corev1.ServiceAccountRootCAKey + "]"

// UnknownCA says why a RootCAPath that differs matters.
const UnknownCA = RootCAPath + " is not the CA of this cluster: a client that uses this Secret would trust another API server " +
	"and send it the token"

// Account returns the live ServiceAccount of a token Secret; nil if it is absent.
func (c Cluster) Account(ctx context.Context, resource *reserved.Resource) (*corev1.ServiceAccount, error) {
	account, err := client.Find(ctx, c.Client.CoreV1().ServiceAccounts(resource.Namespace), resource.Account)
	if err != nil {
		return nil, fmt.Errorf("read serviceaccount %s/%s: %w", resource.Namespace, resource.Account, err)
	}
	return account, nil
}

// Token reads a token of the live ServiceAccount from the Secret with this name. If there is none, problem says why.
func (c Cluster) Token(ctx context.Context, resource *reserved.Resource, name string) (token, problem string, err error) {
	account, err := c.Account(ctx, resource)
	if err != nil {
		return "", "", err
	}
	if account == nil {
		return "", "ServiceAccount " + resource.Account + " is absent", nil
	}
	secret, err := client.Find(ctx, c.Client.CoreV1().Secrets(resource.Namespace), name)
	if err != nil {
		return "", "", fmt.Errorf("read %s: %w", resource.Reference(resource.Namespace, name), err)
	}
	if secret == nil {
		return "", "the Secret is absent; the control plane deletes a token Secret of a ServiceAccount that is not the live one", nil
	}
	token, problem = tokenOf(secret, account)
	return token, problem, nil
}

// tokenOf returns the token if its claims name this Secret and this account. It does not ask the API server to accept it.
func tokenOf(secret *corev1.Secret, account *corev1.ServiceAccount) (token, problem string) {
	data := secret.Data[corev1.ServiceAccountTokenKey]
	want := policy.TokenClaims{
		Namespace: secret.Namespace, Secret: secret.Name, Account: account.Name, AccountUID: string(account.UID),
	}
	claims, isToken := policy.ReadTokenClaims(data)
	switch uid := secret.Annotations[corev1.ServiceAccountUIDKey]; {
	case len(data) == 0:
		return "", "the Secret holds no token yet"
	case types.UID(uid) != account.UID:
		return "", "annotation " + corev1.ServiceAccountUIDKey + " is missing or names an earlier ServiceAccount"
	case !isToken:
		return "", "the data is not a token of a ServiceAccount"
	case claims != want:
		return "", "the token was issued for another ServiceAccount or another Secret"
	}
	return string(data), ""
}

// DataDrift returns the sorted paths in which the data of a token Secret is not what kube-controller-manager writes, without
// the token; nil for a nil Secret, and for one that is not filled yet.
func (c Cluster) DataDrift(ctx context.Context, secret *corev1.Secret) ([]string, error) {
	if secret == nil {
		return nil, nil
	}
	var paths []string
	for key, value := range secret.Data {
		isRight, err := c.isRightData(ctx, secret, key, value)
		if err != nil {
			return nil, err
		}
		if !isRight {
			paths = append(paths, policy.Below("data", key))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

func (c Cluster) isRightData(ctx context.Context, secret *corev1.Secret, key string, value []byte) (bool, error) {
	switch {
	case key == corev1.ServiceAccountTokenKey:
		return true, nil
	case key == corev1.ServiceAccountNamespaceKey:
		return len(value) == 0 || string(value) == secret.Namespace, nil
	case key != corev1.ServiceAccountRootCAKey:
		return false, nil
	case len(value) == 0:
		return true, nil
	}
	isOurs, err := c.Lookups().IsClusterCA(ctx, value)
	if err != nil {
		return false, fmt.Errorf("compare %s of secret %s/%s with the CA of the cluster: %w", RootCAPath, secret.Namespace, secret.Name, err)
	}
	return isOurs, nil
}
