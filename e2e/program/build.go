// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build returns the path of the guard that tests run: the one that E2E_PROGRAM names, or one that it builds from the tree.
// remove deletes what Build made.
func Build() (path string, remove func() error, err error) {
	if path := os.Getenv("E2E_PROGRAM"); path != "" {
		return path, func() error { return nil }, nil
	}
	dir, err := os.MkdirTemp("", "apigw-guardian-e2e-")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the program: %w", err)
	}
	remove = func() error { return os.RemoveAll(dir) }
	path = filepath.Join(dir, "apigw-guardian")
	build := exec.Command("go", "build", "-o", path, "github.com/apigw-guardian/apigw-guardian/cmd/apigw-guardian")
	if output, err := build.CombinedOutput(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("build the program: %w\n%s", err, output), remove())
	}
	return path, remove, nil
}
