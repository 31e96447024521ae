// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

func newUninstall(shared *sharedFlags) *cobra.Command {
	var deployment string
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove the registration, so that nothing stays locked; leave the reserved resources",
		Long: `uninstall stops the guard, which would put its registration back, and removes the registration. API Gateway still needs
the reserved resources: they stay, unprotected. It can be repeated, and works with the guard dead.`,
		Example: `  # what the chart runs before it is deleted
  apigw-guardian uninstall --deployment apigw-guardian/apigw-guardian

  # after the guard's namespace was deleted by hand
  apigw-guardian uninstall`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, found := strings.Cut(deployment, "/")
			if deployment != "" && (!found || namespace == "" || name == "") {
				return fmt.Errorf("%w: --deployment %q: give NAMESPACE/NAME", errUsage, deployment)
			}
			config, err := shared.restConfig()
			if err != nil {
				return err
			}
			client, err := kubernetes.NewForConfig(config)
			if err != nil {
				return fmt.Errorf("make a client: %w", err)
			}
			if deployment != "" {
				if err := stopGuard(cmd.Context(), client, types.NamespacedName{Namespace: namespace, Name: name}, patience); err != nil {
					say(cmd.ErrOrStderr(), "Warning: "+err.Error())
				}
			}
			return removeRegistration(cmd, client)
		},
	}
	cmd.Flags().StringVar(&deployment, "deployment", "", "NAMESPACE/NAME of the guard's Deployment, which is scaled to none first")
	cmd.Flags().DurationVar(&patience, "wait", time.Minute, "how long to wait for the guard to end")
	return cmd
}

// stopGuard scales the guard to none and waits until no Pod of it runs. A guard that does not end is no reason to leave its
// registration in place.
func stopGuard(ctx context.Context, client kubernetes.Interface, guard types.NamespacedName, patience time.Duration) error {
	deployments := client.AppsV1().Deployments(guard.Namespace)
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: guard.Namespace, Name: guard.Name}}
	_, err := deployments.UpdateScale(ctx, guard.Name, scale, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("stop the guard: scale deployment %q to none: %w", guard, err)
	}
	err = wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		live, err := deployments.Get(ctx, guard.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return err == nil && live.Status.ObservedGeneration >= live.Generation && live.Status.Replicas == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait for the guard %q to end: %w", guard, err)
	}
	return nil
}

// A running guard puts its registration back within a second. So the removal counts only when it lasts.
const (
	removalLasts    = 2 * time.Second
	removalAttempts = 5
)

// errPutBack says that a guard is running that nobody has stopped.
var errPutBack = errors.New("the registration is put back again and again; stop the guard first: " +
	"scale its Deployment to 0, or end its process")

func removeRegistration(cmd *cobra.Command, client kubernetes.Interface) error {
	registrations := client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	removed := false
	for range removalAttempts {
		err := registrations.Delete(cmd.Context(), guardian.WebhookConfiguration, metav1.DeleteOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return sayRemoved(cmd.OutOrStdout(), removed)
		case err != nil:
			return fmt.Errorf("remove the registration %q: %w", guardian.WebhookConfiguration, err)
		}
		removed = true
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(removalLasts):
		}
	}
	return errPutBack
}

func sayRemoved(stdout io.Writer, removed bool) error {
	sentence := "There is no registration."
	if removed {
		sentence = "Removed the registration."
	}
	_, err := fmt.Fprintln(stdout, sentence+"\nThe reserved resources stay, and are not protected any more.")
	return err
}
