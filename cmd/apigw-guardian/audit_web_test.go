// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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

// startWeb runs audit web until the test ends, and returns the address of its page and what it has written to standard error.
func startWeb(t *testing.T, args ...string) (address, stderr string) {
	t.Helper()
	out, in := io.Pipe()
	var errs bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"audit", "web"}, args...), in, &errs)
		_ = in.Close()
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, out)
		if got := <-code; got != exitDone {
			t.Errorf("audit web %v: exit code %d", args, got)
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if address := strings.TrimSpace(lines.Text()); strings.HasPrefix(address, "http://") {
			return address, errs.String()
		}
	}
	t.Fatalf("audit web %v: no address: %s", args, errs.String())
	return "", ""
}

// It is not parallel: audit web sets the process's logger of the libraries.
func TestPageOfSeveralContexts(t *testing.T) { //nolint:paralleltest // see above
	kubeconfig := startFleet(t, 2, 1, 1)
	address, stderr := startWeb(t, "--all-contexts", "--context-timeout=10s", "--kubeconfig="+kubeconfig)
	if rowsOf(stderr, "gone") != 1 || rowsOf(stderr, "hung") != 1 || rowsOf(stderr, "good") != 0 {
		t.Errorf("it says %s", stderr)
	}
	response, err := http.Get(address + "api/view")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var view struct {
		Records  int
		Clusters []struct {
			Context, Lost string
			Answered      bool
			Records       int
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&view); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range view.Clusters {
		got = append(got, fmt.Sprint(c.Context, " ", c.Answered, " ", c.Lost != "", " ", c.Records))
	}
	want := []string{"gone-00 true true 0", "good-00 true false 2", "good-01 true false 2", "hung-00 true true 0"}
	if diff := cmp.Diff(want, got); diff != "" || view.Records != 4 {
		t.Errorf("%d records, -want +got\n%s", view.Records, diff)
	}
	for line, want := range map[string]int{
		"--contexts gone-00 --context-timeout 500ms":         exitFailed,
		"--contexts gone-00,hung-00 --context-timeout 500ms": exitFailed,
		"--contexts good-00 --context good-01":               exitUsage,
		"--contexts= ":                                       exitUsage,
		"--all-contexts --context-timeout -1s":               exitUsage,
		"--all-contexts --port 70000":                        exitUsage,
		"--contexts absent":                                  exitFailed,
	} {
		args := append([]string{"audit", "web", "--kubeconfig=" + kubeconfig}, strings.Fields(line)...)
		if code, stdout, stderr := runParallel(t, args...); code != want || stdout != "" {
			t.Errorf("%s: exit code %d, want %d\n%s%s", line, code, want, stdout, stderr)
		}
	}
}
