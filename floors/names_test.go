// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var unquoted = regexp.MustCompile(`(?m)^.*(?:(?:namespace|instance): \{\{ [$.\w]*Release\.\w+ \}\}|secretName: \{\{ [$.]*\w* \}\}[,}]).*$`)

// YAML takes the legal names 123 and 1e3 for numbers, so every template quotes the names of releases, namespaces and Secrets.
func TestTemplatesQuoteNames(t *testing.T) {
	t.Parallel()
	templates, err := filepath.Glob("../charts/apigw-guardian/templates/*")
	if err != nil || len(templates) == 0 {
		t.Fatalf("no templates: %v", err)
	}
	for _, path := range templates {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range unquoted.FindAllString(string(content), -1) {
			t.Errorf("%s: add | quote: %s", path, line)
		}
	}
}
