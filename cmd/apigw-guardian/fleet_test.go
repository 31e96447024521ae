// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// startFleet returns a kubeconfig with contexts that answer, good-NN, that hang, hung-N, and that refuse, gone-N.
func startFleet(t *testing.T, good, hung, gone int) string {
	t.Helper()
	answering, err := os.ReadFile(startRecords(t, `{"token":"mine"}`, func(*http.Request) {}))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(answering, &config); err != nil {
		t.Fatal(err)
	}
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // it accepts connections, and answers none
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	config["clusters"] = append(config["clusters"].([]any),
		map[string]any{"name": "hung", "cluster": map[string]any{"server": "https://" + silent.Addr().String()}},
		map[string]any{"name": "gone", "cluster": map[string]any{"server": "https://127.0.0.1:1"}})
	contexts := []any{}
	for _, kind := range []struct {
		name, cluster string
		count         int
	}{{"good", "c", good}, {"hung", "hung", hung}, {"gone", "gone", gone}} {
		for i := range kind.count {
			contexts = append(contexts, map[string]any{
				"name": fmt.Sprintf("%s-%02d", kind.name, i), "context": map[string]any{"cluster": kind.cluster, "user": "u"},
			})
		}
	}
	config["contexts"] = contexts
	delete(config, "current-context")
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// runParallel is runAway for parallel tests: it leaves the environment as it is.
func runParallel(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// rowsOf counts the lines that start with a kind of context.
func rowsOf(text, kind string) int {
	count := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, kind+"-") {
			count++
		}
	}
	return count
}

func TestFiftyContextsAreFiftyRows(t *testing.T) {
	t.Parallel()
	kubeconfig := startFleet(t, 44, 3, 3)
	for _, command := range []string{"audit list", "audit summary"} {
		args := append(strings.Split(command, " "), "--all-contexts", "--context-timeout=10s", "--kubeconfig="+kubeconfig)
		code, stdout, stderr := runParallel(t, args...)
		perContext := map[string]int{"audit list": 2, "audit summary": 1}[command]
		if code != exitFailed || rowsOf(stdout, "good") != 44*perContext || rowsOf(stdout, "hung") != 3 || rowsOf(stdout, "gone") != 3 {
			t.Errorf("%s: exit code %d\n%s%s", command, code, stdout, stderr)
		}
		if !strings.HasPrefix(stdout, "CONTEXT ") || !strings.Contains(stderr, "6 of 50 contexts") {
			t.Errorf("%s: got\n%s%s", command, stdout, stderr)
		}
	}
}

func TestContextsAreInTheJSON(t *testing.T) {
	t.Parallel()
	kubeconfig := startFleet(t, 2, 1, 1)
	code, stdout, stderr := runParallel(t, "audit", "list", "--contexts=good-00,gone-00,good-00,hung-00,absent", "--context-timeout=10s", "-o", "json",
		"--kubeconfig="+kubeconfig)
	var list memberList[recordList]
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != exitFailed {
		t.Fatalf("exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	var got []string
	for _, m := range list.Contexts {
		got = append(got, fmt.Sprint(m.Context, " ", m.ExitCode, " ", m.Error != "", " ", m.Result != nil))
	}
	want := "good-00 0 false true, gone-00 1 true false, hung-00 1 true false, absent 1 true false"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
	if items := list.Contexts[0].Result.Items; len(items) != 2 || items[0].Kind != audit.TypeMeta().Kind || items[0].Namespace != "" {
		t.Errorf("got %+v", items)
	}
	for _, command := range []string{"status", "verify", "audit summary"} {
		args := append(strings.Split(command, " "), "--contexts=gone-00,hung-00", "--context-timeout=100ms", "-o=json", "--kubeconfig="+kubeconfig)
		code, stdout, stderr := runParallel(t, args...)
		var list memberList[any]
		if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != exitFailed || len(list.Contexts) != 2 {
			t.Errorf("%s: exit code %d, %v: %s%s", command, code, err, stdout, stderr)
		}
	}
}

func TestTheHighestExitCodeCounts(t *testing.T) {
	t.Parallel()
	member := func(code int) member[int] {
		m := member[int]{ExitCode: code}
		if code == exitDone || code == exitProblem {
			m.Result = new(int)
		}
		return m
	}
	for want, codes := range map[int][][]int{
		exitDone: {{0}, {0, 0}}, exitFailed: {{1}, {0, 1, 0}}, exitProblem: {{3}, {0, 3}, {1, 3, 0}, {3, 1}, {2, 3}}, exitUsage: {{0, 2}, {1, 2}},
	} {
		for _, codes := range codes {
			var members []memberOfInt
			for _, code := range codes {
				members = append(members, member(code))
			}
			if got := codeOf(worst(members)); got != want {
				t.Errorf("%v: got %d, want %d", codes, got, want)
			}
		}
	}
}

type memberOfInt = member[int]

func TestWrongFlagsOfAFleet(t *testing.T) {
	t.Parallel()
	kubeconfig := startFleet(t, 2, 0, 0)
	for line, want := range map[string]int{
		"audit list --contexts good-00,good-01":                             exitDone,
		"audit list --contexts good-00 --contexts good-01 -o wide":          exitDone,
		"audit list --contexts good-00 -o jsonpath={.contexts[0].context}":  exitDone,
		"audit list --contexts good-00 --since 1w --resource sa":            exitDone,
		"audit list --contexts good-00 --token given":                       exitDone,
		"audit list --contexts good-00 --all-contexts":                      exitUsage,
		"audit list --contexts good-00 --context good-01":                   exitUsage,
		"audit list --contexts good-00 --server https://127.0.0.1:1":        exitUsage,
		"audit list --all-contexts --cluster c":                             exitUsage,
		"audit list --contexts good-00,":                                    exitUsage,
		"audit list --contexts=":                                            exitUsage,
		"audit list --contexts good-00 --watch":                             exitUsage,
		"audit list --contexts good-00 -o csv":                              exitUsage,
		"audit list --contexts good-00 --context-timeout 0s":                exitUsage,
		"audit list --contexts good-00,good-01 --resource deploy/x":         exitUsage,
		"audit list --contexts good-00 --since yesterday":                   exitUsage,
		"audit show --contexts good-00 x":                                   exitUsage,
		"audit list --all-contexts --kubeconfig=" + os.DevNull:              exitFailed,
		"audit summary --contexts good-00 -o jsonpath={.contexts[*].error}": exitDone,
	} {
		args := append([]string{"--kubeconfig=" + kubeconfig}, strings.Split(line, " ")...)
		if code, stdout, stderr := runParallel(t, args...); code != want {
			t.Errorf("%s: exit code %d, want %d\n%s%s", line, code, want, stdout, stderr)
		}
	}
	code, stdout, stderr := runParallel(t, "audit", "list", "--kubeconfig="+kubeconfig, "--contexts=good-00, good-01 ", "--resource=sa")
	if code != exitDone || rowsOf(stdout, "good") != 4 {
		t.Errorf("with spaces: exit code %d: %s%s", code, stdout, stderr)
	}
	code, _, stderr = runParallel(t, "audit", "list", "--kubeconfig="+kubeconfig, "--contexts=good-00,absent", "--resource=pods")
	if code != exitUsage || !strings.Contains(stderr, "1 of 2 contexts refuse") {
		t.Errorf("one refuses the flags: exit code %d: %s", code, stderr)
	}
	if code, stdout, _ := runParallel(t, "__complete", "--kubeconfig="+kubeconfig, "status", "--contexts", ""); code != exitDone || !strings.Contains(stdout, "good-01") {
		t.Errorf("the completion is %s", stdout)
	}
}
