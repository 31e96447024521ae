// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// staticHelp precedes the static policies. Its facts are from k8s.io/apiserver v0.37.2: pkg/features/kube_features.go,
// pkg/admission/plugin/policy/config and .../policy/manifest/loader.
const staticHelp = `# Policies for the disk of the control plane: Kubernetes 1.37, or 1.36 with the feature gate
# ManifestBasedAdmissionControlConfig. No client of the API server can edit or delete them.
#
# On each node of the control plane:
# 1. Write this file to a new directory that the Pod of kube-apiserver mounts, such as
#    /etc/kubernetes/policies/apigw-guardian.yaml.
# 2. Write /etc/kubernetes/admission.yaml, which the Pod mounts too, and set --admission-control-config-file to it:
#      apiVersion: apiserver.config.k8s.io/v1
#      kind: AdmissionConfiguration
#      plugins:
#      - name: ValidatingAdmissionPolicy
#        configuration:
#          apiVersion: apiserver.config.k8s.io/v1
#          kind: ValidatingAdmissionPolicyConfiguration
#          staticManifestsDir: /etc/kubernetes/policies
# 3. Restart kube-apiserver. It reads a changed file again within a minute. To end the protection, remove the file.
`

func newPolicy(shared *sharedFlags) *cobra.Command {
	output := outputFlag{}
	options := policies.Options{}
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Print the reserved resources as ValidatingAdmissionPolicies",
		Long: `policy prints a ValidatingAdmissionPolicy and a binding for each reserved resource. With them, the API server (Kubernetes 1.30
and later) denies what the guard denies, without a webhook. It contacts no cluster: give it the files of further reservations.

The policies honour no Unlock and no exemption with an end, and make no audit records: "audit import" reads their denials from
the API server's audit log. To change a reserved resource, delete the binding that the denial names, and apply it again.`,
		Example: `  # protect the resources of API Gateway
  apigw-guardian policy | kubectl apply -f -

  # only warn
  apigw-guardian policy --mode observe | kubectl apply -f -

  # end the protection
  apigw-guardian policy | kubectl delete -f -

  # for the disk of the control plane
  apigw-guardian policy --static > apigw-guardian.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPolicy(cmd, shared, options, output) },
	}
	output.addTo(cmd)
	flags := cmd.Flags()
	flags.Lookup("output").DefValue = formatYAML
	flags.Lookup("output").Usage = "output format: " + oneOf([]string{formatYAML, formatJSON, jsonPathPrefix + "TEMPLATE"})
	choiceOf(&options.Mode, policy.Enforce, policy.Observe).addTo(cmd, "mode", "enforce denies; observe allows with a warning")
	flags.BoolVar(&options.Static, "static", false, "print the variant for the disk of the control plane, with instructions")
	flags.BoolVar(&options.Backstop, "backstop", false,
		"decide only while the guard's webhook configuration exists and has no intact webhook for the resource")
	flags.StringSliceVar(&options.Writers.ControllerManager, "controller-manager-user", []string{policy.DefaultControllerManager},
		"exact user names of the kube-controller-manager that fills token Secrets; cloud distributions rename it")
	flags.StringVar(&options.Hint, "message-hint", policies.DefaultHint,
		"end of each denial; "+policies.BindingPlaceholder+" becomes the name of the binding; empty for none")
	return cmd
}

func runPolicy(cmd *cobra.Command, shared *sharedFlags, options policies.Options, output outputFlag) error {
	if options.Static && options.Backstop {
		return fmt.Errorf("%w: --static and --backstop: a static policy has no parameter", errUsage)
	}
	if options.Static && !cmd.Flags().Changed("message-hint") {
		options.Hint = "" // no command changes a file of the control plane
	}
	// Without --use-service-account-credentials, the namespace controller writes as the controller manager.
	options.Writers.NamespaceController = append([]string{policy.DefaultNamespaceController}, options.Writers.ControllerManager...)
	set, err := shared.set()
	if err != nil {
		return err
	}
	warnOfEnds(cmd.ErrOrStderr(), set)
	list, err := policyList(set, options)
	if err != nil {
		return err
	}
	if output.format == formatTable {
		output.format = formatYAML
	}
	if options.Static && output.format == formatYAML {
		if _, err := io.WriteString(cmd.OutOrStdout(), staticHelp); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	}
	return output.print(cmd.OutOrStdout(), list, nil)
}

// warnOfEnds says which exemptions the policies do not have.
func warnOfEnds(stderr io.Writer, set *reserved.Set) {
	for _, reservation := range set.Reservations() {
		for _, e := range reservation.Exemptions {
			if e.Until != nil {
				say(stderr, fmt.Sprintf("warning: reservation %q: the exemption of %s has an end, and a policy has no clock: the policy denies it",
					reservation.Name, e.Subject()))
			}
		}
	}
}

// policyList returns the policies and bindings as a List that kubectl and the API server read.
func policyList(set *reserved.Set, options policies.Options) (map[string]any, error) {
	compiled, err := policies.Compile(set, options)
	if err != nil {
		return nil, err
	}
	var items []any
	for _, p := range compiled {
		for _, object := range []metav1.Object{p.Policy, p.Binding} {
			fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
			if err != nil {
				return nil, fmt.Errorf("encode a policy: %w", err)
			}
			unstructured.RemoveNestedField(fields, "status")
			unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
			items = append(items, fields)
		}
	}
	return map[string]any{"apiVersion": "v1", "kind": "List", "items": items}, nil
}
