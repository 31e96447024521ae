// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package monitoring

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

func TestMain(m *testing.M) { harness.Main(m, 1, harness.WithWorld) }

// startPrometheus runs one with the chart's rules, which scrapes a guard and gives its series the labels of a Pod. It returns its URL.
func startPrometheus(t *testing.T, guard string) string {
	t.Helper()
	dir := t.TempDir()
	content, err := yaml.Marshal(alerts(t))
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(guard)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`{global: {scrape_interval: 1s, evaluation_interval: 1s}, rule_files: [rules.yaml],
scrape_configs: [{job_name: guard, static_configs: [{targets: [%q], labels: {namespace: %q, pod: guard-0}}]}]}`, target.Host, namespace)
	for name, content := range map[string][]byte{"rules.yaml": content, "prometheus.yaml": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), tool(t, "prometheus"), "--config.file=prometheus.yaml", "--storage.tsdb.path=data",
		"--web.listen-address=127.0.0.1:0")
	command.Dir = dir
	log, err := command.StderrPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	address := regexp.MustCompile(`msg="Listening on".* address=(\S+)`)
	var said strings.Builder
	for lines := bufio.NewScanner(log); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if found := address.FindStringSubmatch(lines.Text()); found != nil {
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return "http://" + found[1]
		}
	}
	t.Fatalf("prometheus has ended: %s", &said)
	return ""
}

// ask reads an answer of Prometheus' API.
func ask(t *testing.T, address string, data any) error {
	t.Helper()
	response, err := http.Get(address)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", answer.Status, answer.Error)
	}
	return nil
}

func TestPrometheusHasEverySeriesOfAlertsAndDashboard(t *testing.T) {
	world := harness.Take(t).World
	guard := harness.StartGuard(t, "--drift=report", "--proof-interval=1s", "--otlp-endpoint=http://127.0.0.1:1",
		"--tencent-cloud-credentials", t.TempDir(), "--tencent-cloud-region", "x", "--tencent-cloud-cluster", "x")
	if answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role)); err != nil || answer.Code != http.StatusForbidden {
		t.Fatalf("got %d (%v), want a denial", answer.Code, err)
	}
	prometheus := startPrometheus(t, guard.MetricsURL())
	list, err := os.ReadFile("testdata/series.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules := len(alerts(t).each())
	queries := append(strings.Fields(string(list)), expressions(t)[rules:]...) // those of the dashboard show something at any time
	harness.Eventually(t, "each series is scraped, and each panel has a value", func() (bool, any) {
		var absent []string
		for _, query := range queries {
			var data struct{ Result []any }
			if err := ask(t, prometheus+"/api/v1/query?query="+url.QueryEscape(query), &data); err != nil || len(data.Result) == 0 {
				absent = append(absent, fmt.Sprintf("%s (%v)", query, err))
			}
		}
		return len(absent) == 0, strings.Join(absent, "\n")
	})
	harness.Eventually(t, "each rule is evaluated", func() (bool, any) {
		var data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
		if err := ask(t, prometheus+"/api/v1/rules", &data); err != nil {
			return false, err
		}
		evaluated := 0
		for _, group := range data.Groups {
			for _, rule := range group.Rules {
				if rule.Health == "ok" {
					evaluated++
				}
			}
		}
		return evaluated == rules, data
	})
}
