// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEachTestOfARowExists(t *testing.T) {
	for _, row := range rows() {
		for _, test := range row.tests {
			pkg, name, _ := strings.Cut(test, ".")
			files, err := filepath.Glob(filepath.Join("..", pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(files, func(file string) bool {
				content, err := os.ReadFile(file)
				return err == nil && strings.Contains(string(content), "\nfunc "+name+"(t *testing.T) {")
			}) {
				t.Errorf("%s names %s, which is in none of %q", row.id, test, files)
			}
		}
	}
}
