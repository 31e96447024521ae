// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Patch releases of Go contain security fixes, so every build uses the one in go.mod.
func TestEveryModuleAndTheImageUseOneToolchain(t *testing.T) {
	files, err := filepath.Glob("../*/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "../tools/go.mod", "../Dockerfile")
	want := toolchain(t, "../go.mod")
	for _, file := range files {
		if got := toolchain(t, file); got != want {
			t.Errorf("%s: got Go %q, want %q from go.mod", file, got, want)
		}
	}
}

var toolchainLine = regexp.MustCompile(`(?m)^(?:toolchain go|ARG GO_VERSION=)(\d+\.\d+\.\d+)$`)

func toolchain(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := toolchainLine.FindSubmatch(content)
	if found == nil {
		return ""
	}
	return string(found[1])
}
