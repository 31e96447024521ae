// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

import (
	"go/version"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// newer are the modules of test programs whose dependencies require a newer Go than the product has.
var newer = map[string]string{"../e2e/argocd/go.mod": "gitops-engine v3.6.1"}

// Patch releases of Go contain security fixes, so every build uses the one in go.mod.
func TestEveryModuleAndTheImageUseOneToolchain(t *testing.T) {
	files, err := filepath.Glob("../*/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, "../tools/go.mod", "../Dockerfile")
	want := toolchain(t, "../go.mod")
	for _, file := range files {
		if reason, isNewer := newer[file]; isNewer {
			if content, err := os.ReadFile(file); err != nil || version.Compare("go"+string(goLine.FindSubmatch(content)[1]), "go"+want) <= 0 {
				t.Errorf("%s: %s requires no newer Go than %s: %v", file, reason, want, err)
			}
			continue
		}
		if got := toolchain(t, file); got != want {
			t.Errorf("%s: got Go %q, want %q from go.mod", file, got, want)
		}
	}
}

var goLine = regexp.MustCompile(`(?m)^go (\d+\.\d+\.\d+)$`)

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
