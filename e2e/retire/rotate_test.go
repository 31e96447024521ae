// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package retire

import (
	"net/http"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// rotated is what rotate prints as JSON.
type rotated struct{ Namespace, Secret string }

func TestRotate(t *testing.T) {
	harness.Take(t)
	world := start(t)
	thief := leak(t, world.Token.Name)
	before := records(t, v1alpha1.Rotated)

	// The naive way: an RSA signature is deterministic, so the same token comes back.
	for _, write := range []scenario.Write{scenario.Delete(world.Token), scenario.Create(world.Token, string(world.Token.Manifest()))} {
		if write.Method == http.MethodPost {
			harness.Run(t, "authorize").Require(t, 1, "was deleted", "apigw-guardian rotate")
		}
		if answer, err := world.Unguarded.Do(t.Context(), write); err != nil || answer.Code >= http.StatusBadRequest {
			t.Fatalf("%d %s %v", answer.Code, answer.Body, err)
		}
	}
	harness.Eventually(t, "the Secret is filled", func() (bool, any) { return tokenIn(t, world.Token.Name) != "", "no token" })
	if tokenIn(t, world.Token.Name) != thief.secret {
		t.Error("another token: does the API server sign with RSA?")
	}
	if code := codeOf(t, thief.secret); code != http.StatusOK {
		t.Errorf("the leaked token gets %d", code)
	}

	harness.Run(t, "rotate").Require(t, 2, "--yes")
	done := harness.Run(t, "rotate", "--yes").Require(t, 0, "Rotated API Gateway", "kubectl -n kube-system get secret apigw-ingress-token-")
	thief.requireDead(t)
	requireTidy(t, v1alpha1.Rotated, before)
	_, rest, _ := strings.Cut(done.Stdout, "get secret ")
	name, _, _ := strings.Cut(rest, " ")
	if name == world.Token.Name || codeOf(t, tokenIn(t, name)) != http.StatusOK || strings.Contains(done.Output(), tokenIn(t, name)) {
		t.Errorf("the new Secret is %q\n%s", name, done.Output())
	}
	harness.Run(t, "status").Require(t, 0, "Authorized API Gateway")
	harness.Run(t, "authorize").Require(t, 0, name)
	var again rotated
	harness.Run(t, "rotate", "--yes", "-o", "json").Require(t, 0).Into(t, &again)
	if again.Namespace != "kube-system" || again.Secret == name || codeOf(t, tokenIn(t, again.Secret)) != http.StatusOK {
		t.Errorf("got %+v", again)
	}
	report.Line(t, "rotate: the leaked token and a bound one get 401; after a deletion of the Secret alone the same token came back")
}

// TestRotateKilledAfterEachWrite finishes each interrupted run by a second one.
func TestRotateKilledAfterEachWrite(t *testing.T) {
	harness.Take(t)
	world := start(t)
	kills, secret := 0, world.Token.Name
	for writes, step := int64(1), harness.Full[int64](1, 7); ; writes += step {
		before := records(t, v1alpha1.Rotated)
		thief := leak(t, secret)
		wasKilled := killed(t, "rotate", writes)
		if !wasKilled {
			break
		}
		var done rotated
		harness.Run(t, "rotate", "--yes", "-o", "json").Require(t, 0).Into(t, &done)
		thief.requireDead(t)
		if got := records(t, v1alpha1.Rotated); got == before {
			t.Errorf("no record after %d writes", writes)
		}
		harness.Run(t, "status").Require(t, 0, "Authorized API Gateway")
		secret = done.Secret
		kills++
	}
	if kills < harness.Full(14, 2) {
		t.Errorf("killed %d times", kills)
	}
	report.Line(t, "rotate: %d runs were killed, each after another write; a second run finished each and proved 401", kills)
}
