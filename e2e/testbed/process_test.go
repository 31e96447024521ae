// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// longGrace is much longer than a process needs to end. If it does not end, the deadline of the test run fails the test.
const longGrace = time.Hour

func TestStopEndsEveryKindOfProcess(t *testing.T) {
	tests := map[string]struct {
		script string
		grace  time.Duration
		want   syscall.Signal // 0: it ended by itself
	}{
		"one that ends when asked":         {script: "echo up; exec sleep 1000", grace: longGrace, want: syscall.SIGTERM},
		"one that tidies up when asked":    {script: "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done", grace: longGrace, want: 0},
		"one that does not listen":         {script: "trap '' TERM; echo up; while :; do sleep 0.01; done", grace: 0, want: syscall.SIGKILL},
		"one that ended before the signal": {script: "echo up", grace: longGrace, want: 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := startUp(t, test.script)
			if test.script == "echo up" {
				<-p.done
			}
			p.stop(test.grace)
			p.stop(test.grace)
			if !p.ended() {
				t.Fatal("the process has not ended")
			}
			status := p.command.ProcessState.Sys().(syscall.WaitStatus)
			if got := max(0, status.Signal()); got != test.want {
				t.Errorf("ended by signal %d, want %d", got, test.want)
			}
		})
	}
}

func TestStopOfANilProcess(*testing.T) {
	var none *process
	none.stop(longGrace)
}

func TestStartOfAMissingProgramIsAnError(t *testing.T) {
	if _, err := startProcess("absent", exec.Command(t.TempDir()+"/absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("startProcess = %v, want ErrNotExist", err)
	}
}

func TestAwaitReadyReturnsTheLastErrorAtTheTimeout(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	errLate := errors.New("time is up")
	p := startShell(t, t.TempDir()+"/component.log", "", "exec sleep 1000")
	err := p.awaitReady(ctx, func(ctx context.Context) error {
		cancel(errLate)
		return neverReady(ctx)
	})
	if !errors.Is(err, errLate) || !errors.Is(err, errNeverReady) {
		t.Errorf("error = %v, want errLate and errNeverReady", err)
	}
}

func TestLastLinesCutsAtALine(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	tests := map[string]struct{ text, want string }{
		"short text stays":                     {text: "a\nb\n", want: "a\nb"},
		"long text loses its broken line":      {text: strings.Repeat(line, 100), want: strings.TrimSpace(strings.Repeat(line, tailBytes/100))},
		"one long line keeps its end":          {text: strings.Repeat("x", tailBytes+5), want: strings.Repeat("x", tailBytes)},
		"nothing is nothing":                   {text: "", want: ""},
		"text of just the limit stays a whole": {text: strings.Repeat("x", tailBytes), want: strings.Repeat("x", tailBytes)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, string(lastLines([]byte(test.text)))); diff != "" {
				t.Errorf("lastLines (-want +got):\n%s", diff)
			}
		})
	}
}

var errNeverReady = errors.New("never ready")

func neverReady(context.Context) error { return errNeverReady }

// startUp starts a shell script and waits for its first line.
func startUp(t *testing.T, script string) *process {
	t.Helper()
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = output.Close() })
	command := exec.Command("sh", "-c", script)
	command.Stdout = input
	p, err := startProcess("script", command)
	if err := errors.Join(err, input.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.stop(0) })
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return p
}

// startShell starts a shell script that appends to a log with earlier text.
func startShell(t *testing.T, path, earlier, script string) *process {
	t.Helper()
	if err := os.WriteFile(path, []byte(earlier), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sh", "-c", script)
	command.Stdout, command.Stderr = log, log
	p, err := startProcess("script", command)
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	p.logPath, p.logStart = path, int64(len(earlier))
	t.Cleanup(func() { p.stop(0) })
	return p
}
