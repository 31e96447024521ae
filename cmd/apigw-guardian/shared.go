// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// firstContact is the default time limit of a command's first request.
const firstContact = 10 * time.Second

// sharedFlags are those of every command. Kubernetes' own follow kubectl.
type sharedFlags struct {
	loading      *clientcmd.ClientConfigLoadingRules
	overrides    clientcmd.ConfigOverrides
	reservations string
}

func (f *sharedFlags) addTo(flags *pflag.FlagSet) {
	f.loading = clientcmd.NewDefaultClientConfigLoadingRules()
	flags.StringVar(&f.loading.ExplicitPath, "kubeconfig", "",
		"path of the kubeconfig file (default $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount)")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	none := clientcmd.FlagInfo{}
	// Commands have a namespace and a user of their own; API servers do not accept passwords.
	names.ContextOverrideFlags.Namespace, names.ContextOverrideFlags.AuthInfoName = none, none
	names.AuthOverrideFlags.Username, names.AuthOverrideFlags.Password = none, none
	names.Timeout.Description = "time limit for each request to the API server, such as 5s; 0 for none, but 10s for the first"
	clientcmd.BindOverrideFlags(&f.overrides, flags, names)
	flags.StringVar(&f.reservations, "reservations", "", "directory of further reservation files (default none)")
}

// restConfig returns the client configuration of the kubeconfig and the flags, or of the Pod's ServiceAccount.
func (f *sharedFlags) restConfig() (*rest.Config, error) {
	config, err := f.clientConfig().ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("load the client configuration: %w: set --kubeconfig or $KUBECONFIG", err)
	}
	config.UserAgent = guardian.Name
	return config, nil
}

func (f *sharedFlags) clientConfig() clientcmd.ClientConfig {
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(f.loading, &f.overrides)
}

// cluster connects to the cluster, which must answer in time, and loads the reserved set. namespace is the guard's; "" for none.
func (f *sharedFlags) cluster(ctx context.Context, namespace string) (live.Cluster, error) {
	set, err := f.set()
	if err != nil {
		return live.Cluster{}, err
	}
	config, err := f.restConfig()
	if err != nil {
		return live.Cluster{}, err
	}
	cluster, err := live.Connect(config, set, namespace)
	if err != nil {
		return live.Cluster{}, err
	}
	bounded, cancel := context.WithTimeout(ctx, cmp.Or(config.Timeout, firstContact))
	defer cancel()
	_, err = cluster.Version(bounded)
	var answer apierrors.APIStatus
	if err != nil && !errors.As(err, &answer) { // a refusal is an answer
		return live.Cluster{}, fmt.Errorf("%w: check --server, --context and the network, or raise --request-timeout", err)
	}
	return cluster, nil
}

// clusterName names the cluster: "prod (https://10.0.0.1:6443)"; the address if there is no context, as in a Pod.
func (f *sharedFlags) clusterName(config *rest.Config) string {
	name := f.overrides.CurrentContext
	if raw, err := f.clientConfig().RawConfig(); err == nil && name == "" {
		name = raw.CurrentContext
	}
	if name == "" {
		return config.Host
	}
	return fmt.Sprintf("%s (%s)", name, config.Host)
}

func (f *sharedFlags) set() (*reserved.Set, error) {
	set, err := reserved.Load(f.reservations)
	if err != nil {
		return nil, fmt.Errorf("load the reservations: %w", err)
	}
	return set, nil
}

// ownersOf names the owners of the reservations: "API Gateway and Edge Router".
func ownersOf(set *reserved.Set) string {
	var names []string
	for _, reservation := range set.Reservations() {
		if !slices.Contains(names, reservation.Owner) {
			names = append(names, reservation.Owner)
		}
	}
	return strings.Join(names, " and ")
}
