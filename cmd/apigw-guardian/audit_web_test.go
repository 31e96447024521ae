// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit/web"
)

func TestGuardState(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		replicas int
		err      error
		want     string
	}{
		"replicas run":      {2, nil, web.GuardUp},
		"none runs":         {0, nil, web.GuardDown},
		"it is not allowed": {0, errors.New("forbidden"), web.GuardUnknown},
	} {
		if got := guardState(test.replicas, test.err); got.State != test.want || got.Text == "" {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}
