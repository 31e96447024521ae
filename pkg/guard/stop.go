// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"fmt"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// Stop scales the guard's Deployment, if it exists, to 0 and waits until no Pod of it is left, for patience at most.
func Stop(ctx context.Context, client kubernetes.Interface, deployment types.NamespacedName, patience time.Duration) error {
	deployments := client.AppsV1().Deployments(deployment.Namespace)
	scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: deployment.Namespace, Name: deployment.Name}}
	_, err := deployments.UpdateScale(ctx, deployment.Name, scale, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("scale deployment %q to 0: %w", deployment, err)
	}
	err = wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		live, err := deployments.Get(ctx, deployment.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return true, nil
		}
		return err == nil && live.Status.ObservedGeneration >= live.Generation && live.Status.Replicas == 0, err
	})
	if err != nil {
		return fmt.Errorf("wait for the end of deployment %q: %w", deployment, err)
	}
	return nil
}
