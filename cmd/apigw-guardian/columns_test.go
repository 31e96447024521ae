// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

func TestTemplatesPrintWholeNumbers(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{
		"jsonpath={.writes}":               "12345678",
		"jsonpath={.items[*].count}":       "1000000 2",
		"custom-columns=A:.count,B:.name":  "A         B\n1000000   a b\n2         <none>\n",
		"custom-columns=A:.absent.count":   "A\n<none>\n<none>\n",
		"custom-columns=A:.list[*].x,B:.b": "A        B\n1,2      true\n<none>   <none>\n",
	} {
		var flag outputFlag
		if err := flag.Set(format); err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		err := flag.print(&out, map[string]any{"writes": 12345678, "items": []any{
			map[string]any{"count": 1_000_000, "name": "a b", "list": []any{map[string]any{"x": 1}, map[string]any{"x": 2}}, "b": true},
			map[string]any{"count": 2, "list": []any{}},
		}}, nil)
		if err != nil || out.String() != want {
			t.Errorf("%s: got %q (%v), want %q", format, out.String(), err, want)
		}
	}
}
