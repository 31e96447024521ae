// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestStop(t *testing.T) {
	t.Parallel()
	const patience = 10 * time.Second
	absent := apierrors.NewNotFound(schema.GroupResource{Resource: "deployments"}, "guard")
	for name, test := range map[string]struct {
		scale error
		// end is when the last Pod ends; zero for never. After it, reads return get.
		end       time.Duration
		get, want error
		takes     time.Duration
	}{
		"no Deployment":                {scale: absent},
		"scaling is refused":           {scale: errBroken, want: errBroken},
		"Pods end":                     {end: 3 * time.Second, takes: 3 * time.Second},
		"the Deployment is deleted":    {end: 3 * time.Second, get: absent, takes: 3 * time.Second},
		"Pods never end":               {want: context.DeadlineExceeded, takes: patience},
		"the Deployment is unreadable": {end: time.Second, get: errBroken, want: errBroken, takes: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				client := &fake.Clientset{}
				client.AddReactor("update", "deployments", func(action clienttesting.Action) (bool, runtime.Object, error) {
					scale, _ := action.(clienttesting.UpdateAction).GetObject().(*autoscalingv1.Scale)
					if action.GetSubresource() != "scale" || scale.Spec.Replicas != 0 {
						t.Errorf("got an update of %q to %d replicas, want the scale at 0", action.GetSubresource(), scale.Spec.Replicas)
					}
					return true, scale, test.scale
				})
				client.AddReactor("get", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) {
					live := &appsv1.Deployment{Status: appsv1.DeploymentStatus{ObservedGeneration: 1, Replicas: 1}}
					live.Generation = 2
					if test.end > 0 && time.Since(start) >= test.end {
						live.Status = appsv1.DeploymentStatus{ObservedGeneration: 2}
						return true, live, test.get
					}
					return true, live, nil
				})
				err := Stop(t.Context(), client, types.NamespacedName{Namespace: "ns", Name: "guard"}, patience)
				if !errors.Is(err, test.want) || time.Since(start) != test.takes {
					t.Errorf("got %v after %s, want %v after %s", err, time.Since(start), test.want, test.takes)
				}
			})
		})
	}
}
