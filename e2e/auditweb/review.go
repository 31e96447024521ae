// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

// Review is a running `audit web`.
type Review struct {
	// Address is what it has printed for its reader.
	Address *url.URL

	command *exec.Cmd
	stderr  bytes.Buffer
}

// StartReview runs the program's `audit web` as the admin of the cluster, and returns once it has printed its address. The
// caller calls Stop.
func StartReview(ctx context.Context, cluster *testbed.Cluster, program string, flags ...string) (*Review, error) {
	r := &Review{command: cluster.Command(ctx, program, append([]string{"audit", "web"}, flags...)...)}
	r.command.Cancel = func() error { return r.command.Process.Signal(os.Interrupt) }
	r.command.WaitDelay = 10 * time.Second
	r.command.Stderr = &r.stderr
	stdout, err := r.command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("run audit web: %w", err)
	}
	if err := r.command.Start(); err != nil {
		return nil, fmt.Errorf("run audit web: %w", err)
	}
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); strings.HasPrefix(line, "http://") {
			if r.Address, err = url.Parse(line); err == nil {
				return r, nil
			}
		}
	}
	err = r.command.Wait()
	return nil, fmt.Errorf("audit web has printed no address: %v\n%s", err, &r.stderr)
}

// Stop asks it to end, as Ctrl-C does, and returns an error unless its exit code is 0.
func (r *Review) Stop() error {
	if err := r.command.Process.Signal(os.Interrupt); err != nil {
		return fmt.Errorf("end audit web: %w", err)
	}
	if err := r.command.Wait(); err != nil {
		return fmt.Errorf("end audit web: %w\n%s", err, &r.stderr)
	}
	return nil
}
