// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// e2e/monitoring lists the series that the chart's alerts and its dashboard name. An alert on a series that a guard does not have before
// the fault never fires.
func TestAGuardHasEverySeriesOfAlertsAndDashboard(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	guard := harness.StartGuard(t, "--drift=report", "--proof-interval=1s", "--otlp-endpoint=http://127.0.0.1:1")
	if answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role)); err != nil || answer.Code != http.StatusForbidden {
		t.Fatalf("got %d %s (%v), want a denial", answer.Code, answer.Body, err)
	}
	list, err := os.ReadFile("monitoring/testdata/series.txt")
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Fields(string(list))
	if len(wanted) < 20 {
		t.Fatalf("%d series are listed", len(wanted))
	}
	// The leader tries the first write to each kind some time after the start.
	harness.Eventually(t, "every series is there", func() (bool, any) {
		_, scraped := harness.Get(guard.MetricsURL() + "/metrics")
		absent := slices.DeleteFunc(slices.Clone(wanted), func(series string) bool { return hasSeries(scraped, series) })
		return len(absent) == 0, absent
	})
}

// hasSeries looks for a series with a name and some labels, as in NAME{LABEL="VALUE",...}.
func hasSeries(scraped, series string) bool {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	for lines := bufio.NewScanner(strings.NewReader(scraped)); lines.Scan(); {
		rest, found := strings.CutPrefix(lines.Text(), name)
		if !found || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		if !slices.ContainsFunc(strings.Split(labels, ","), func(label string) bool { return !strings.Contains(rest, label) }) {
			return true
		}
	}
	return false
}
