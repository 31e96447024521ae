// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummary(t *testing.T) {
	const events = `{"Action":"build-output","ImportPath":"m/b","Output":"b.go:1: no such thing\n"}
{"Action":"start","Package":"m/a"}
{"Action":"output","Package":"m/a","Test":"TestFast","Output":"    bed.go:1: waited 1.9 s for a bed\n"}
{"Action":"pass","Package":"m/a","Test":"TestFast","Elapsed":2}
{"Action":"output","Package":"m/a","Test":"TestSlow","Output":"why\n"}
{"Action":"output","Package":"m/a","Test":"TestSlow/one","Output":"how\n"}
{"Action":"fail","Package":"m/a","Test":"TestSlow/one","Elapsed":2}
{"Action":"fail","Package":"m/a","Test":"TestSlow","Elapsed":2}
{"Action":"skip","Package":"m/a","Test":"TestElsewhere"}
{"Action":"output","Package":"m/a","Test":"TestCutOff","Output":"unfinished\n"}
{"Action":"output","Package":"m/a","Output":"FAIL\n"}
{"Action":"fail","Package":"m/a","Elapsed":2.5}
not JSON
{"Action":"pass","Package":"m/c","Elapsed":1}
{"Action":"skip","Package":"m/d"}
{"Action":"fail","Package":"m/b"}
`
	const want = `b.go:1: no such thing
why
how
unfinished
FAIL
FAIL     2.5 s  m/a
not JSON
ok       1.0 s  m/c
FAIL     0.0 s  m/b
==> the slowest of 3 tests
         2.0 s  m/a.TestSlow
         0.1 s  m/a.TestFast
         0.0 s  m/a.TestElsewhere
==> skipped: m/a.TestElsewhere
==> 1 of 3 packages passed
==> failed: m/a, m/b
`
	var out strings.Builder
	s := newSummary(&out, false)
	if err := s.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	s.finish()
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCommandLines(t *testing.T) {
	got := commandLines([]string{"-with=a", "-with=b", "-p", "3", "--", "./x", "./..."})
	want := [][]string{
		{"test", "-json", "-p", "3", "./x", "./..."},
		{"-C", "a", "test", "-json", "-p", "3", "./..."},
		{"-C", "b", "test", "-json", "-p", "3", "./..."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
