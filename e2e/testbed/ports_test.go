// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestWithFreshPortsRetriesOnlyIfAPortIsTaken(t *testing.T) {
	errOther := errors.New("broken otherwise")
	tests := map[string]struct {
		answers []error
		want    error
		calls   int
	}{
		"the first ports are fine":            {answers: []error{nil}, want: nil, calls: 1},
		"two races are lost, the third won":   {answers: []error{errPortTaken, errPortTaken, nil}, want: nil, calls: 3},
		"another failure is final":            {answers: []error{errOther}, want: errOther, calls: 1},
		"another failure after a lost race":   {answers: []error{errPortTaken, errOther}, want: errOther, calls: 2},
		"every race is lost, up to the bound": {answers: lostRaces(portAttempts + 1), want: errPortTaken, calls: portAttempts},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			calls := 0
			err := withFreshPorts(2, func(ports []int) error {
				if len(ports) != 2 || ports[0] == ports[1] {
					t.Errorf("ports = %v, want two different ones", ports)
				}
				calls++
				return test.answers[calls-1]
			})
			if !errors.Is(err, test.want) {
				t.Errorf("error = %v, want %v", err, test.want)
			}
			if calls != test.calls {
				t.Errorf("%d calls, want %d", calls, test.calls)
			}
		})
	}
}

func lostRaces(count int) []error {
	races := make([]error, count)
	for i := range races {
		races[i] = errPortTaken
	}
	return races
}

func TestFreePortsAreAllDifferent(t *testing.T) {
	const count = 300 // enough for a repeated port in 99 of 100 runs if draws were not compared
	ports, err := freePorts(count)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if got := len(slices.Compact(ports)); got != count {
		t.Errorf("%d different ports, want %d", got, count)
	}
}

func TestCanListenSeesATakenPort(t *testing.T) {
	listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	if canListen(listener.Addr().(*net.TCPAddr).Port) {
		t.Error("canListen reports a used port as free")
	}
}

func TestAComponentReportsATakenPort(t *testing.T) {
	path := t.TempDir() + "/component.log"
	lines := strings.Repeat("what an earlier process wrote: address already in use\n", 3)
	tests := map[string]struct {
		script string
		want   bool
	}{
		"its own log says that the port is taken": {script: "echo 'bind: address already in use'; exit 1", want: true},
		"only an earlier process's log says so":   {script: "echo 'bind: permission denied'; exit 1", want: false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := startShell(t, path, lines, test.script)
			err := p.awaitReady(t.Context(), neverReady)
			if got := errors.Is(err, errPortTaken); got != test.want {
				t.Errorf("port taken: %t, want %t; error: %v", got, test.want, err)
			}
			if !strings.Contains(err.Error(), "bind:") {
				t.Errorf("error = %v, want the end of the log in it", err)
			}
		})
	}
}
