// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package retire

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// createAs tries to create a reserved resource exactly as its manifest says, and returns the answer.
func createAs(t *testing.T, config *rest.Config, object *scenario.Object) (code int, body string) {
	t.Helper()
	client, err := scenario.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(t.Context(), scenario.Create(object, string(object.Manifest())))
	if err != nil {
		t.Fatal(err)
	}
	return answer.Code, string(answer.Body)
}

func TestRetire(t *testing.T) {
	harness.Take(t)
	world := start(t)
	thief := leak(t, world.Token.Name)
	before := records(t, v1alpha1.Retired)

	plan := harness.Run(t, "retire", "--dry-run").Require(t, 0, "clusterrolebindings", "Last use of the token", "Last write of clusterroles")
	if strings.Contains(plan.Output(), thief.secret) {
		t.Error("the plan shows the token")
	}
	harness.Run(t, "retire").Require(t, 2, "standard input is no terminal", "--yes")
	harness.Run(t, "status").Require(t, 0, "Authorized API Gateway")

	done := harness.Run(t, "retire", "--yes", "--reason", "the vendor has ended API Gateway").Require(t, 0, "Retired API Gateway")
	if strings.Contains(done.Output(), thief.secret) {
		t.Error("retire shows the token")
	}
	order := []string{"clusterrolebindings", "secrets", "serviceaccounts", "clusterroles.rbac"}
	at := -1
	for _, kind := range order {
		next := strings.Index(done.Stdout, "\n"+kind)
		if next <= at {
			t.Errorf("%s is not deleted in its turn:\n%s", kind, done.Stdout)
		}
		at = next
	}
	thief.requireDead(t)
	requireTidy(t, v1alpha1.Retired, before)
	harness.Run(t, "audit", "list", "--outcome", "Retired").Require(t, 0, "Retirement")

	harness.Run(t, "status").Require(t, 0, "Retired API Gateway since 20", "Protected")
	var status struct {
		Authorized, Protected bool
		Retired               *struct{ Since, By string }
	}
	harness.Run(t, "status", "-o", "json").Require(t, 0).Into(t, &status)
	if status.Authorized || !status.Protected || status.Retired == nil || status.Retired.By == "" || status.Retired.Since == "" {
		t.Errorf("status: %+v", status)
	}
	cluster := harness.Of(t).Cluster
	for _, object := range world.Objects() {
		for name, config := range map[string]*rest.Config{"admin": cluster.AdminConfig(), "eve": cluster.ConfigFor("eve", "system:masters")} {
			code, body := createAs(t, config, object)
			var answer struct{ Message string }
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Error(err)
			}
			if code != http.StatusForbidden || !strings.Contains(answer.Message, "authorize --again") {
				t.Errorf("%s creates %s: got %d %s", name, object, code, body)
			}
		}
	}
	harness.Run(t, "audit", "list", "--outcome", "Denied", "--by-user", "eve").Require(t, 0, "ReservedCreate")
	harness.Run(t, "authorize").Require(t, 1, "retired since", "authorize --again")
	harness.Run(t, "authorize", "--repair").Require(t, 1, "authorize --again")
	harness.Run(t, "rotate", "--yes").Require(t, 1, "authorize --again")
	harness.Run(t, "retire", "--yes").Require(t, 0, "Retired API Gateway")
	requireTidy(t, v1alpha1.Retired, before)

	harness.Run(t, "authorize", "--again").Require(t, 0, "Authorized API Gateway")
	harness.Run(t, "status").Require(t, 0, "Authorized API Gateway")
	thief.requireDead(t)
	harness.Run(t, "retire", "--yes", "--keep-clusterrole", "-o", "json").Require(t, 0, `"state": "Retired"`)
	if role, err := world.Read(t.Context(), world.Role); err != nil || role == nil {
		t.Errorf("the ClusterRole is gone: %v", err)
	}
	harness.Run(t, "status").Require(t, 0, "Retired API Gateway")
	report.Line(t, "retire: the token of the Secret and a bound one get 401; nobody creates the resources until authorize --again")
}

// Without a guard, there is no unlock, and the mark waits for a guard that comes later.
func TestRetireWithoutAGuard(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.Run(t, "authorize").Require(t, 0)
	thief := leak(t, world.Token.Name)
	done := harness.Run(t, "retire", "--yes").Require(t, 0, "Retired API Gateway")
	if strings.Contains(done.Stdout, "unlock") {
		t.Error(done.Stdout)
	}
	thief.requireDead(t)
	harness.StartGuard(t)
	if code, body := createAs(t, harness.Of(t).Cluster.AdminConfig(), world.Role); code != http.StatusForbidden {
		t.Errorf("got %d %s", code, body)
	}
	harness.Run(t, "authorize", "--again").Require(t, 0)
}

// TestRetireKilledAfterEachWrite finishes each interrupted run by a second one.
func TestRetireKilledAfterEachWrite(t *testing.T) {
	harness.Take(t)
	world := start(t)
	kills := 0
	for writes, step := int64(1), harness.Full[int64](1, 5); ; writes += step {
		before := records(t, v1alpha1.Retired)
		thief := leak(t, world.Token.Name)
		wasKilled := killed(t, "retire", writes)
		harness.Run(t, "retire", "--yes").Require(t, 0, "Retired API Gateway")
		thief.requireDead(t)
		requireTidy(t, v1alpha1.Retired, before)
		harness.Run(t, "status").Require(t, 0, "Retired API Gateway")
		harness.Run(t, "authorize", "--again").Require(t, 0)
		if !wasKilled {
			break
		}
		kills++
	}
	if kills < harness.Full(12, 2) {
		t.Errorf("killed %d times", kills)
	}
	report.Line(t, "retire: %d runs were killed, each after another write; a second run finished each and proved 401", kills)
}
