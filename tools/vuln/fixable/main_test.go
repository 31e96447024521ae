// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestFixable(t *testing.T) {
	const config = `{"config":{"scanner_name":"govulncheck"}}`
	cases := map[string]struct {
		report string
		want   []string
	}{
		"no finding": {config, nil},
		"a finding without a fix": {
			config + `{"finding":{"osv":"GO-1","trace":[{"module":"m","version":"v1.0.0"}]}}`, nil,
		},
		"a finding in a module, a package and a function is one line": {
			config + `{"finding":{"osv":"GO-1","fixed_version":"v1.0.1","trace":[{"module":"m","version":"v1.0.0"}]}}
			{"finding":{"osv":"GO-1","fixed_version":"v1.0.1","trace":[{"module":"m","version":"v1.0.0","package":"m/p"}]}}
			{"finding":{"osv":"GO-1","fixed_version":"v1.0.1","trace":[{"module":"m","version":"v1.0.0","package":"m/p","function":"F"}]}}`,
			[]string{"GO-1  m@v1.0.0, fixed in v1.0.1, called: m/p.F"},
		},
		"two findings are sorted": {
			config + `{"finding":{"osv":"GO-2","fixed_version":"v2","trace":[{"module":"stdlib","version":"v1"}]}}
			{"finding":{"osv":"GO-1","fixed_version":"v3","trace":[{"module":"m","version":"v1"}]}}`,
			[]string{"GO-1  m@v1, fixed in v3", "GO-2  stdlib@v1, fixed in v2"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := fixable(strings.NewReader(tc.report))
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestFixableRejectsEmptyInput(t *testing.T) {
	if _, err := fixable(strings.NewReader("")); !errors.Is(err, errNoReport) {
		t.Errorf("empty input: got %v, want %v", err, errNoReport)
	}
	if _, err := fixable(strings.NewReader("govulncheck: no such database")); err == nil {
		t.Error("input that is not JSON: got no error")
	}
}
