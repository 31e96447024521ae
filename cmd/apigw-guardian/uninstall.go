// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/guard"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

// The annotations by which a tool marks what it installs, if it runs the pre-delete hook of a chart at its deletion only. `helm template`
// does not render them. They are set in helm's pkg/action/validate.go, and Argo CD runs such hooks in controller/hook.go, since 3.3.
const (
	helmAnnotation = "meta.helm.sh/release-name"
	argoAnnotation = "argocd.argoproj.io/tracking-id"
)

// errNotReleased says that neither helm nor Argo CD has installed the Deployment. If a Job of the chart runs this command then, another
// tool has applied the Job, and no user asked for an uninstall: for kubectl, a hook is an object like any other.
var errNotReleased = errors.New("it belongs to no helm release, as it lacks the annotation " + helmAnnotation +
	": nothing was changed: delete the objects that you applied, or add --force")

type uninstallFlags struct {
	deployment string
	patience   time.Duration
	force      bool
}

func newUninstall(shared *sharedFlags) *cobra.Command {
	f := &uninstallFlags{}
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the webhook configuration and keep the reserved resources",
		Long: `uninstall stops the guard, which would restore the webhook configuration, and removes the webhook configuration. Before
that, it deletes the ValidatingAdmissionPolicyBinding apigw-guardian-registration if you may: the chart's policy denies you the
removal. The next helm upgrade creates the binding again. API Gateway still needs the reserved resources: they stay, without
protection. You can run uninstall again, and after the guard is gone.

With --deployment, it also removes what the guard made in that namespace: its CA, its lease, the list of its replicas, and
the finished Job and test Pod of the chart. The audit records stay, and the ConfigMaps apigw-guardian-credentials and
apigw-guardian-retirements, which the next install needs.`,
		Example: `  # what the chart runs before it is deleted
  apigw-guardian uninstall --deployment apigw-guardian/apigw-guardian

  # a guard that was installed without a helm release
  apigw-guardian uninstall --deployment apigw-guardian/apigw-guardian --force

  # after the guard's namespace was deleted by hand
  apigw-guardian uninstall`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, found := strings.Cut(f.deployment, "/")
			if f.deployment != "" && (!found || namespace == "" || name == "") {
				return fmt.Errorf("%w: --deployment %q: must be NAMESPACE/NAME", errUsage, f.deployment)
			}
			config, err := shared.restConfig()
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("make a client of the API server: %w", err)
			}
			return f.uninstall(cmd, client, types.NamespacedName{Namespace: namespace, Name: name})
		},
	}
	shared.retryFlag(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.deployment, "deployment", "", "NAMESPACE/NAME of the guard's Deployment, to scale to 0 first (default none)")
	flags.DurationVar(&f.patience, "wait", time.Minute, "time to wait for the end of the guard")
	flags.BoolVar(&f.force, "force", false, "also stop a Deployment that belongs to no helm release")
	return cmd
}

// uninstall stops the Deployment if it has a name. A guard that does not end is no reason to keep the webhook configuration.
func (f *uninstallFlags) uninstall(cmd *cobra.Command, client kubernetes.Interface, deployment types.NamespacedName) error {
	if deployment.Name != "" {
		if err := f.stop(cmd, client, deployment); err != nil {
			return fmt.Errorf("deployment %q: %w", deployment, err)
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
	say(cmd.OutOrStdout(), sentence)
	if deployment.Name != "" {
		removeLeftovers(cmd, client, deployment.Namespace)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "The reserved resources stay, without protection.")
	return err
}

// stop scales the Deployment to 0, or returns errNotReleased.
func (f *uninstallFlags) stop(cmd *cobra.Command, client kubernetes.Interface, deployment types.NamespacedName) error {
	live, err := client.AppsV1().Deployments(deployment.Namespace).Get(cmd.Context(), deployment.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		say(cmd.ErrOrStderr(), fmt.Sprintf("Warning: deployment %q not found: if a guard still runs, check NAMESPACE/NAME", deployment))
		return nil
	case err != nil:
		return err
	case live.Annotations[helmAnnotation] == "" && live.Annotations[argoAnnotation] == "" && !f.force:
		return errNotReleased
	}
	if err := guard.Stop(cmd.Context(), client, deployment, f.patience); err != nil {
		say(cmd.ErrOrStderr(), "Warning: "+err.Error())
	}
	return nil
}

// leftover is an object that no helm release owns, and that the next install makes again.
type leftover struct {
	kind, name string
	remove     func(context.Context, string, metav1.DeleteOptions) error
}

// removeLeftovers deletes what no helm release owns, and the next install makes again.
func removeLeftovers(cmd *cobra.Command, client kubernetes.Interface, namespace string) {
	remove(cmd, namespace, append(leftByGuard(client, namespace),
		leftover{"job", guardian.Name + "-authorize", client.BatchV1().Jobs(namespace).Delete},
		leftover{"pod", guardian.Name + "-verify", client.CoreV1().Pods(namespace).Delete}))
}

// leftByGuard returns what a guard has made in its namespace.
func leftByGuard(client kubernetes.Interface, namespace string) []leftover {
	return []leftover{
		{"secret", certs.SecretName, client.CoreV1().Secrets(namespace).Delete},
		{"lease", guardian.WebhookConfiguration, client.CoordinationV1().Leases(namespace).Delete},
		{"configmap", guardian.Replicas, client.CoreV1().ConfigMaps(namespace).Delete},
	}
}

// remove deletes objects of a namespace, and warns of what it cannot delete.
func remove(cmd *cobra.Command, namespace string, leftovers []leftover) {
	background := metav1.DeletePropagationBackground
	for _, leftover := range leftovers {
		err := leftover.remove(cmd.Context(), leftover.name, metav1.DeleteOptions{PropagationPolicy: &background})
		switch {
		case apierrors.IsNotFound(err):
		case err != nil:
			say(cmd.ErrOrStderr(), fmt.Sprintf("Warning: delete %s %s/%s: %v", leftover.kind, namespace, leftover.name, err))
		default:
			say(cmd.OutOrStdout(), fmt.Sprintf("Removed %s %s/%s.", leftover.kind, namespace, leftover.name))
		}
	}
}
