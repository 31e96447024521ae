// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the guard from outside: the program itself, against a real control plane.
package e2e

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"errors"
	"os"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// shared is what all tests of this package use one after the other: a cluster takes ten seconds to start. A test leaves it
// as it found it.
var shared struct {
	cluster *testbed.Cluster
	program string
}

func TestMain(m *testing.M) {
	os.Exit(program.Tests(m, func(ctx context.Context, guardian string, cluster *testbed.Cluster) error {
		shared.program, shared.cluster = guardian, cluster
		return errors.Join(cluster.StartUnguarded(ctx), cluster.InstallCRDs(ctx))
	}))
}

// newWorld returns the cluster with the built-in set applied, as the test that came before left it or not.
func newWorld(t *testing.T) *scenario.World {
	t.Helper()
	world, err := scenario.NewWorld(t.Context(), shared.cluster)
	if err != nil {
		t.Fatal(err)
	}
	return world
}

// startGuard starts a guard that ends with the test, and takes its registration with it. What it has logged is shown when
// the test fails.
func startGuard(t *testing.T, flags ...string) *testbed.Guard {
	t.Helper()
	guard, err := shared.cluster.StartGuard(t.Context(), shared.program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		guard.Stop()
		removeRegistration(t)
		if t.Failed() {
			log, err := guard.Log()
			t.Logf("log of the guard: %v\n%s", err, log[max(0, len(log)-8<<10):])
		}
	})
	return guard
}

func removeRegistration(t *testing.T) {
	t.Helper()
	err := clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Delete(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

func clients(t *testing.T) kubernetes.Interface {
	t.Helper()
	clientset, err := kubernetes.NewForConfig(shared.cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	return clientset
}
