// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/pkg/guard"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

func newUninstall(shared *sharedFlags) *cobra.Command {
	var deployment string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the webhook configuration and keep the reserved resources",
		Long: `uninstall stops the guard, which would restore the webhook configuration, and removes the webhook configuration.
API Gateway still needs the reserved resources: they stay, without protection. You can run uninstall again, and after the
guard is gone.`,
		Example: `  # what the chart runs before it is deleted
  apigw-guardian uninstall --deployment apigw-guardian/apigw-guardian

  # after the guard's namespace was deleted by hand
  apigw-guardian uninstall`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, found := strings.Cut(deployment, "/")
			if deployment != "" && (!found || namespace == "" || name == "") {
				return fmt.Errorf("%w: --deployment %q: must be NAMESPACE/NAME", errUsage, deployment)
			}
			config, err := shared.restConfig()
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("make a client of the API server: %w", err)
			}
			return uninstall(cmd, client, types.NamespacedName{Namespace: namespace, Name: name}, patience)
		},
	}
	shared.retryFlag(cmd)
	cmd.Flags().StringVar(&deployment, "deployment", "", "NAMESPACE/NAME of the guard's Deployment, to scale to 0 first (default none)")
	cmd.Flags().DurationVar(&patience, "wait", time.Minute, "time to wait for the end of the guard")
	return cmd
}

// uninstall stops the Deployment if it has a name. A guard that does not end is no reason to keep the webhook configuration.
func uninstall(cmd *cobra.Command, client kubernetes.Interface, deployment types.NamespacedName, patience time.Duration) error {
	if deployment.Name != "" {
		if err := guard.Stop(cmd.Context(), client, deployment, patience); err != nil {
			say(cmd.ErrOrStderr(), "Warning: "+err.Error())
		}
	}
	removed, err := registration.Remove(cmd.Context(), client.AdmissionregistrationV1())
	if err != nil {
		return err
	}
	sentence := "There is no webhook configuration."
	if removed {
		sentence = "Removed the webhook configuration."
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), sentence+"\nThe reserved resources stay, without protection.")
	return err
}
