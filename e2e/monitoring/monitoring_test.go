// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

var update = flag.Bool("update", false, "write testdata/series.txt")

const (
	root      = "../.."
	chart     = root + "/charts/apigw-guardian"
	namespace = "guard-system"
)

// rendering has the chart's objects with all alerts and the dashboard.
func rendering(t *testing.T) []unstructured.Unstructured {
	t.Helper()
	helm, err := program.Config().Builder.Build(t.Context(), testbed.Helm())
	if err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), helm["helm"], "template", "apigw-guardian", chart, "--namespace", namespace,
		"--set", "alerts.enabled=true,dashboard.enabled=true,serviceMonitor.enabled=true,audit.otlp.endpoint=http://collector:4318",
		"--set", "tencentCloud.credentialsSecret=x,tencentCloud.region=x,tencentCloud.clusterId=x").Output()
	if err != nil {
		t.Fatal(err, string(output))
	}
	var objects []unstructured.Unstructured
	for decoder := kyaml.NewYAMLOrJSONDecoder(bytes.NewReader(output), 4096); ; {
		object := unstructured.Unstructured{}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// rules is the file of rules of Prometheus, and the spec of a PrometheusRule.
type rules struct {
	Groups []group `json:"groups"`
}

type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) rules {
	t.Helper()
	all := rules{}
	for _, object := range rendering(t) {
		if object.GetKind() != "PrometheusRule" {
			continue
		}
		content, err := json.Marshal(object.Object["spec"])
		if err != nil {
			t.Fatal(err)
		}
		some := rules{}
		if err := json.Unmarshal(content, &some); err != nil {
			t.Fatal(err)
		}
		all.Groups = append(all.Groups, some.Groups...)
	}
	return all
}

func (r rules) each() []rule {
	var all []rule
	for _, g := range r.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// tool returns the path of a program of Prometheus.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), root+"/tools/install", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(path))
}

// promtool runs it in dir.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), tool(t, "promtool"), args...)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, output)
	}
}

// promtool compares each list of alerts with the ones that fire at that time. This test checks that the lists of each alert go from
// none to one and back to none.
func TestEachAlertFiresAndClears(t *testing.T) {
	dir, all := t.TempDir(), alerts(t)
	for _, g := range all.Groups {
		for i := range g.Rules {
			g.Rules[i].Annotations = nil // promtool would compare them
		}
	}
	content, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("testdata/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"rules.yaml": content, "alerts.yaml": tests} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	promtool(t, dir, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
	promtool(t, dir, "test", "rules", "alerts.yaml")
	shown, named := transitions(t, tests), map[string]bool{}
	for _, r := range all.each() {
		named[r.Alert] = true
	}
	for name := range named {
		if !strings.Contains(shown[name], ".+.") {
			t.Errorf("%s: the tests show %q, want none, some (+) and none (.) in this order", name, shown[name])
		}
	}
	for name := range shown {
		if !named[name] {
			t.Errorf("the tests name %s, which the chart does not have", name)
		}
	}
}

// transitions returns a sign for each list of an alert that differs from the one before it: "." for an empty one, "+" for others.
func transitions(t *testing.T, tests []byte) map[string]string {
	t.Helper()
	var file struct {
		Tests []struct {
			AlertRuleTest []struct {
				AlertName string `json:"alertname"`
				ExpAlerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal(tests, &file); err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{}
	for _, test := range file.Tests {
		for _, at := range test.AlertRuleTest {
			sign := "."
			if len(at.ExpAlerts) > 0 {
				sign = "+"
			}
			if !strings.HasSuffix(shown[at.AlertName], sign) {
				shown[at.AlertName] += sign
			}
		}
	}
	return shown
}

var heading = regexp.MustCompile(`(?m)^#+ (.+)$`)

func TestEachAlertHasARunbook(t *testing.T) {
	const page = "https://github.com/apigw-guardian/apigw-guardian/blob/main/"
	for _, r := range alerts(t).each() {
		file, section, found := strings.Cut(strings.TrimPrefix(r.Annotations["runbook_url"], page), "#")
		content, err := os.ReadFile(filepath.Join(root, file))
		if !found || err != nil {
			t.Errorf("%s: runbook_url %q: %v", r.Alert, r.Annotations["runbook_url"], err)
			continue
		}
		sections := heading.FindAllStringSubmatch(string(content), -1)
		if !slices.ContainsFunc(sections, func(s []string) bool { return strings.EqualFold(s[1], r.Alert) && strings.ToLower(s[1]) == section }) {
			t.Errorf("%s: %s has no section %q", r.Alert, file, section)
		}
		if r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s lacks a severity, a summary or a description", r.Alert)
		}
	}
}

// ownLabels are those that the guard gives to its series. Prometheus adds the others.
func ownLabels(matchers []*labels.Matcher) []string {
	var own []string
	for _, m := range matchers {
		if m.Name != model.MetricNameLabel && m.Name != "namespace" && m.Name != "pod" {
			own = append(own, m.String())
		}
	}
	slices.Sort(own)
	return own
}

// The test of e2e that reads testdata/series.txt looks for each series in the metrics of a guard.
func TestSeriesOfAlertsAndDashboardAreListed(t *testing.T) {
	series := map[string]bool{}
	for _, expression := range expressions(t) {
		parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		for _, selectors := range parser.ExtractSelectors(parsed) {
			name := ""
			for _, m := range selectors {
				if m.Name == model.MetricNameLabel {
					name = m.Value
				}
			}
			series[name+"{"+strings.Join(ownLabels(selectors), ",")+"}"] = true
		}
	}
	got := strings.Join(slices.Sorted(maps.Keys(series)), "\n") + "\n"
	if *update {
		if err := os.WriteFile("testdata/series.txt", []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/series.txt")
	if err != nil || got != string(want) {
		t.Errorf("run the test with -update: testdata/series.txt (%v) lists\n%s\nwant\n%s", err, want, got)
	}
}

// expressions returns those of all alerts, and of the dashboard with its variables replaced.
func expressions(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, r := range alerts(t).each() {
		all = append(all, r.Expr)
	}
	count := len(all)
	variables := strings.NewReplacer("$__rate_interval", "5m", "$namespace", namespace)
	var shown struct {
		Panels []struct {
			Title, Description string
			Targets            []struct {
				Expr       string
				Datasource struct{ UID string }
			}
		}
	}
	if err := json.Unmarshal([]byte(dashboardOf(t)), &shown); err != nil {
		t.Fatal(err)
	}
	for _, panel := range shown.Panels {
		if panel.Title == "" || panel.Description == "" || len(panel.Targets) == 0 {
			t.Errorf("panel %q lacks a title, a description or a query", panel.Title)
		}
		for _, target := range panel.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q: data source %q", panel.Title, target.Datasource.UID)
			}
			all = append(all, variables.Replace(target.Expr))
		}
	}
	if count < 15 || len(all) < count+15 {
		t.Fatalf("%d expressions of alerts, %d in all", count, len(all))
	}
	return all
}

// dashboardOf returns the JSON of the chart's dashboard.
func dashboardOf(t *testing.T) string {
	t.Helper()
	for _, object := range rendering(t) {
		if object.GetKind() == "ConfigMap" && object.GetLabels()["grafana_dashboard"] == "1" {
			content, _, err := unstructured.NestedString(object.Object, "data", "apigw-guardian.json")
			if err != nil {
				t.Fatal(err)
			}
			return content
		}
	}
	t.Fatal("the chart has no dashboard")
	return ""
}

// Grafana itself is under the AGPL, and cannot be used here. Its SDK refuses unknown fields, wrong types and missing fields.
func TestTheDashboardFitsGrafanasSchema(t *testing.T) {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	faults := func(content string) string {
		var read dashboard.Dashboard                                                   //nolint:staticcheck // provisioning from a ConfigMap takes the classic schema
		err := errors.Join(read.UnmarshalJSONStrict([]byte(content)), read.Validate()) // never nil: the SDK's list of errors may be empty
		return strings.TrimSpace(err.Error())
	}
	content := dashboardOf(t)
	if got := faults(content); got != "" {
		t.Error(got)
	}
	for _, wrong := range [][2]string{{`"type": "stat"`, `"kind": "stat"`}, {`"refresh": 2`, `"refresh": "often"`}, {`"placement": "bottom"`, `"place": "bottom"`}} {
		changed := strings.Replace(content, wrong[0], wrong[1], 1)
		if changed == content || faults(changed) == "" {
			t.Errorf("%s passes", wrong[1])
		}
	}
}
