// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

// withoutKind is a run of audit web on a cluster that does not serve audit records.
var withoutKind harness.Ran

func TestMain(m *testing.M) {
	harness.Main(m, 1, func(ctx context.Context, bed *harness.Bed) error {
		ran, err := harness.RunCommand(bed.Cluster.Command(ctx, bed.Program, "audit", "web"))
		withoutKind = ran
		return errors.Join(err, bed.Cluster.InstallCRDs(ctx))
	})
}

// startReview runs audit web until the test ends, and fails the test unless audit web exits with 0.
func startReview(t *testing.T, flags ...string) *Review {
	t.Helper()
	bed := harness.Of(t)
	review, err := StartReview(context.WithoutCancel(t.Context()), bed.Cluster, bed.Program, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := review.Stop(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	})
	return review
}
