// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package report prints what tests have measured.
package report

import (
	"fmt"
	"os"
	"testing"
)

// Line logs a line and appends it to the file that E2E_REPORT names. `make test` prints that file at the end, because go test
// prints nothing about a test that passes.
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
