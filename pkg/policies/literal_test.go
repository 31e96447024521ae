// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies_test

import (
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
)

func TestQuoteLeavesNoWayOutOfTheLiteral(t *testing.T) {
	t.Parallel()
	if got, want := policies.Quote(`a'b\c`), `'a\'b\\c'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
