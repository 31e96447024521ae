// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
)

func TestRetired(t *testing.T) {
	const role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/selling"
	const kept = `,"kept":["clusterroles.rbac.authorization.k8s.io/selling"]`
	tests := map[string]struct {
		state, kept string
		// remains is the path of an object that exists.
		remains string
		retired bool
		says    string
	}{
		"nothing exists":                  {state: "Retired", retired: true},
		"a role was kept":                 {state: "Retired", kept: kept, remains: role, retired: true},
		"a resource was created again":    {state: "Retired", remains: role, says: "selling exists, although it is retired"},
		"the retirement has not finished": {state: "Retiring", says: "is being retired by ann"},
		"the mark is not readable":        {state: "x", says: "cannot check whether Shop is retired"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set := shop.Set(t, shop.Reservation)
			server, config := shop.Serve(t, set)
			mark, err := json.Marshal(`{"state":"` + test.state + `","since":"2026-11-28T08:00:00Z","by":"ann"` + test.kept + `}`)
			if err != nil {
				t.Fatal(err)
			}
			maps.DeleteFunc(server.Objects, func(path, _ string) bool {
				isReserved := strings.Contains(path, "/clerk") || strings.Contains(path, "/selling")
				return isReserved && path != test.remains
			})
			server.Objects["/api/v1/namespaces/guard/configmaps/apigw-guardian-retirements"] = `{"data":{"shop":` + string(mark) + `}}`
			cluster, err := live.Connect(config, set, "guard")
			if err != nil {
				t.Fatal(err)
			}
			got, err := Read(t.Context(), cluster, storedRecords{}, storedUnlocks(nil))
			if err != nil || got.Authorized || (got.Retired != nil) != test.retired {
				t.Fatalf("got %+v, %v", got, err)
			}
			if test.retired && (got.Retired.By != "ann" || got.Retired.Since.IsZero() || !got.Protected) {
				t.Errorf("got %+v", got)
			}
			if !strings.Contains(strings.Join(got.Reasons, "\n"), test.says) {
				t.Errorf("got the reasons %q", got.Reasons)
			}
		})
	}
}
