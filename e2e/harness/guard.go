// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// StartGuard returns a guard that is ready and registered. It ends with the test, and so does its webhook configuration.
func StartGuard(t *testing.T, flags ...string) *testbed.Guard {
	t.Helper()
	bed := Of(t)
	guard, err := bed.Cluster.StartGuard(t.Context(), bed.Program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	stopWithTest(t, guard)
	return guard
}

// LaunchGuard starts a guard and does not wait for it. It ends as that of StartGuard does.
func LaunchGuard(t *testing.T, flags ...string) *testbed.Guard {
	t.Helper()
	bed := Of(t)
	guard, err := bed.Cluster.LaunchGuard(bed.Program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	stopWithTest(t, guard)
	return guard
}

func stopWithTest(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	t.Cleanup(func() {
		guard.Stop()
		RemoveRegistration(t)
		ShowLog(t, guard)
	})
}

// ShowLog shows the end of the guard's log if the test has failed.
func ShowLog(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	if t.Failed() {
		log, err := guard.Log()
		t.Logf("log of the guard: %v\n%s", err, log[max(0, len(log)-8<<10):])
	}
}

// AwaitReady waits until the guard reports that it can serve.
func AwaitReady(t *testing.T, guard *testbed.Guard) {
	t.Helper()
	Eventually(t, "the guard is ready", func() (bool, any) {
		code, body := Get(guard.ProbesURL() + "/readyz?verbose")
		return code == http.StatusOK, body
	})
}

// Denies returns a check for Eventually: a guard denies a deletion of a reserved resource, tried as a dry-run.
func Denies(t *testing.T, world *scenario.World) func() (bool, any) {
	t.Helper()
	return func() (bool, any) {
		answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role).DryRun())
		return err == nil && answer.Code == http.StatusForbidden, fmt.Sprintf("%d %s %v", answer.Code, answer.Body, err)
	}
}

// Get returns the status and the body behind a URL, or 0 and the error.
func Get(url string) (code int, body string) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(content)
}

// RemoveRegistration deletes the webhook configuration if it exists, also while the test is cleaned up.
func RemoveRegistration(t *testing.T) {
	t.Helper()
	err := Clients(t).AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Delete(context.WithoutCancel(t.Context()), guardian.WebhookConfiguration, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
