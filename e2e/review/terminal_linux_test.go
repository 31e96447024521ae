// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package review

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// onTerminal runs the program on a terminal of so many columns, and returns what it shows there.
func onTerminal(t *testing.T, columns uint16, environment []string, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	command := harness.Command(t, harness.Of(t).Cluster.Kubeconfig(), args...)
	command.Env = append(command.Env, append([]string{"TERM=xterm", "NO_COLOR="}, environment...)...)
	command.Stdout = terminal
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	terminal.Close()
	shown, _ := io.ReadAll(master) // it ends with EIO when the program has closed the other side
	if err := command.Wait(); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(shown), "\r\n", "\n")
}

var colour = regexp.MustCompile(`\x1b\[\d*m`)

func TestATerminalIsFilledAndNotOverflown(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	for i := range 3 {
		put(t, denial(time.Duration(i)*time.Hour, func(f *audit.Event) {
			f.User.Name = "system:serviceaccount:argocd:argocd-application-controller"
			f.Object = v1alpha1.ParseObjectReference("clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole")
		}))
	}
	for _, columns := range []uint16{60, 80, 120, 240} {
		for _, args := range [][]string{{"audit", "list"}, {"audit", "summary"}} {
			shown := onTerminal(t, columns, nil, args...)
			if !colour.MatchString(shown) {
				t.Errorf("no colour at %d columns: %s", columns, shown)
			}
			for line := range strings.Lines(colour.ReplaceAllString(shown, "")) {
				if got := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); got > int(columns) {
					t.Errorf("%d of %d columns: %s", got, columns, line)
				}
			}
		}
	}
	if shown := onTerminal(t, 240, nil, "audit", "list"); strings.Contains(shown, "…") {
		t.Errorf("something is shortened without need: %s", shown)
	}
}

func TestColourIsOnlyForThoseWhoWantIt(t *testing.T) {
	harness.Take(t)
	noRecords(t)
	name := put(t, denial(time.Minute, nil))
	for _, args := range [][]string{{"audit", "list"}, {"audit", "show", name}, {"audit", "summary"}} {
		for _, environment := range []string{"NO_COLOR=1", "TERM=dumb"} {
			if shown := onTerminal(t, 80, []string{environment}, args...); strings.Contains(shown, "\x1b") {
				t.Errorf("%s: %q", environment, shown)
			}
		}
		if piped := harness.Run(t, args...).Require(t, 0); strings.Contains(piped.Stdout, "\x1b") {
			t.Errorf("in a pipe: %q", piped.Stdout)
		}
	}
}
