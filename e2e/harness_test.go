// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the guard from outside: the program itself, against a real control plane.
package e2e

import (
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

// Two beds: many tests wait for a timeout of the API server, or for a controller.
func TestMain(m *testing.M) {
	harness.Main(m, 2, harness.Unguarded)
}

// must ends the test if a call that prepares it fails.
func must(t *testing.T) func(any, error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}
