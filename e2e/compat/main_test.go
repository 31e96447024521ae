// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/e2e/testjson"
)

func TestCountsTopLevelTestsAndPackagesThatDoNotBuild(t *testing.T) {
	t.Parallel()
	tallied := tally{results: map[string]int{}, failures: map[string]int{}}
	err := testjson.Read(strings.NewReader(`{"Action":"pass","Package":"a","Test":"TestA"}
{"Action":"fail","Package":"a","Test":"TestB/sub"}
{"Action":"fail","Package":"a","Test":"TestB"}
{"Action":"skip","Package":"a","Test":"TestC"}
{"Action":"fail","Package":"a"}
no JSON
{"Action":"fail","Package":"b"}
{"Action":"pass","Package":"c"}
`), io.Discard, tallied.take)
	if diff := cmp.Diff(map[string]int{"pass": 1, "fail": 2, "skip": 1}, tallied.results); err != nil || diff != "" {
		t.Errorf("(-want +got)\n%s%v", diff, err)
	}
}
