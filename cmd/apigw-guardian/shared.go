// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// sharedFlags are those of every command.
type sharedFlags struct {
	kubeconfig   string
	context      string
	reservations string
}

func (f *sharedFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.kubeconfig, "kubeconfig", "",
		"path of the kubeconfig file (default: $KUBECONFIG, ~/.kube/config, or the Pod's ServiceAccount)")
	flags.StringVar(&f.context, "context", "", "name of the kubeconfig context (default: its current one)")
	flags.StringVar(&f.reservations, "reservations", "",
		"folder of further reservation files, one each (default: only what API Gateway reserves)")
}

// restConfig finds the cluster: the named kubeconfig, $KUBECONFIG, ~/.kube/config, or the Pod's own ServiceAccount.
func (f *sharedFlags) restConfig() (*rest.Config, error) {
	config, err := f.clientConfig().ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the cluster: %w (name a kubeconfig file by --kubeconfig or $KUBECONFIG)", err)
	}
	config.UserAgent = guardian.Name
	return config, nil
}

func (f *sharedFlags) clientConfig() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: f.context}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
}

// clusterName tells people which cluster it is: "prod (https://10.0.0.1:6443)"; without a context, as in a Pod, the address.
func (f *sharedFlags) clusterName(config *rest.Config) string {
	name := f.context
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

// ownersOf names everybody whom the set reserves for: "API Gateway", "API Gateway and Edge Router".
func ownersOf(set *reserved.Set) string {
	var names []string
	for _, reservation := range set.Reservations() {
		if !slices.Contains(names, reservation.Owner) {
			names = append(names, reservation.Owner)
		}
	}
	return strings.Join(names, " and ")
}
