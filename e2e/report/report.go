// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package report is how tests tell people what they have seen.
package report

import (
	"fmt"
	"os"
	"testing"
)

// Line notes what a test has seen, for people: `go test` shows nothing of a test that passes, so that `make test` names a
// file in E2E_REPORT and prints it at the end.
func Line(t *testing.T, format string, args ...any) {
	t.Helper()
	line := fmt.Sprintf(format, args...)
	t.Log(line)
	path := os.Getenv("E2E_REPORT")
	if path == "" {
		return
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = file.Close() }()
	if _, err := fmt.Fprintln(file, line); err != nil {
		t.Error(err)
	}
}
