// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// watching is a running audit list --watch.
type watching struct {
	t       *testing.T
	command *exec.Cmd
	lines   *bufio.Scanner
	stderr  bytes.Buffer
}

func watch(t *testing.T, flags ...string) *watching {
	t.Helper()
	w := &watching{t: t, command: harness.Command(t, harness.Of(t).Cluster.Kubeconfig(), append([]string{"audit", "list", "--watch"}, flags...)...)}
	stdout, err := w.command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.command.Stderr = &w.stderr
	w.lines = bufio.NewScanner(stdout)
	if err := w.command.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// next waits for a line that says all this.
func (w *watching) next(says ...string) {
	w.t.Helper()
	if !w.lines.Scan() {
		w.t.Fatalf("no further line: %v %s", w.lines.Err(), w.stderr.String())
	}
	for _, text := range says {
		if !strings.Contains(w.lines.Text(), text) {
			w.t.Errorf("%q does not say %q", w.lines.Text(), text)
		}
	}
}

// interrupt is Ctrl-C. Nothing else may have been printed.
func (w *watching) interrupt() {
	w.t.Helper()
	if err := w.command.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
	for w.lines.Scan() {
		w.t.Errorf("one line more: %s", w.lines.Text())
	}
	if err := w.command.Wait(); err != nil || w.stderr.Len() > 0 {
		w.t.Errorf("%v: %s", err, w.stderr.String())
	}
}

func TestWatchPrintsWhatComesAndWhatCountsMore(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	old := put(t, denial(48*time.Hour, nil))
	first := put(t, denial(time.Hour, nil))
	w := watch(t, "--by-user", "alice")
	w.next("TIME", "OUTCOME", "NAME")
	w.next(old)
	w.next(first, "1")
	put(t, denial(time.Minute, func(f *audit.Event) { f.User.Name = "bob" }))
	second := put(t, denial(time.Minute, nil))
	w.next(second)
	countMore(t, first)
	w.next(first, "  2  ")
	record := &v1alpha1.AuditRecord{}
	record.Name = second
	if err := recordClient(t).Delete(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	put(t, denial(time.Minute, nil))
	w.next(second)
	w.interrupt()
}

func TestWatchBeginsWithTheNewestSoMany(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	put(t, denial(48*time.Hour, nil))
	newest := put(t, denial(time.Hour, nil))
	w := watch(t, "--limit", "1", "-o", "wide")
	w.next("CHANGED")
	w.next(newest)
	w.interrupt()
}

func TestWatchPrintsJSONLines(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	want := []string{put(t, denial(time.Hour, nil))}
	w := watch(t, "-o", "json")
	for i := range 2 {
		var record v1alpha1.AuditRecord
		w.next()
		if err := json.Unmarshal(w.lines.Bytes(), &record); err != nil || record.Name != want[i] || record.Spec.Count != 1 {
			t.Errorf("got %s, %v", w.lines.Text(), err)
		}
		if i == 0 {
			want = append(want, put(t, denial(time.Minute, nil)))
		}
	}
	w.interrupt()
}

// The records that come while the API server is away are printed when it is back.
func TestWatchOutlastsTheAPIServer(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	first := put(t, denial(time.Hour, nil))
	w := watch(t)
	w.next("TIME")
	w.next(first)
	harness.Of(t).Cluster.StopAPIServer()
	if err := harness.Of(t).Cluster.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := put(t, denial(time.Minute, nil))
	w.next(second)
	if err := w.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for w.lines.Scan() {
		t.Errorf("one line more: %s", w.lines.Text())
	}
	if err := w.command.Wait(); err != nil || !strings.Contains(w.stderr.String(), "trying again until Ctrl-C.\nThe API server answers again.\n") {
		t.Errorf("%v: %s", err, w.stderr.String())
	}
}
