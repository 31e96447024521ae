// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// The help of --reason lists RecordedReasons, so every new reason must be sorted into one of the two groups.
func TestEveryReasonIsKnownAsRecordedOrNot(t *testing.T) {
	t.Parallel()
	unrecorded := []Reason{NotReserved, NoChange, SystemWrite, Unconfirmed, UnlockAccepted, AckAccepted}
	for _, reason := range declaredReasons(t) {
		if slices.Contains(RecordedReasons(), reason) == slices.Contains(unrecorded, reason) {
			t.Errorf("%s: add it either to RecordedReasons or to the reasons here that leave no record", reason)
		}
	}
}

// declaredReasons returns the constants of type Reason in the source.
func declaredReasons(t *testing.T) []Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "decision.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var reasons []Reason
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Reason" {
			return true
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		reasons = append(reasons, Reason(text))
		return true
	})
	if len(reasons) < 11 {
		t.Fatalf("found only %d reasons: %v", len(reasons), reasons)
	}
	return reasons
}
