// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubectl runs kubectl as the admin and returns its output. If kubectl fails, the error wraps [exec.ExitError] and contains its
// standard error. kubectl's cache is in the cluster's directory.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	command := c.KubectlCommand(ctx, args...)
	var out, diagnostics bytes.Buffer
	command.Stdout, command.Stderr = &out, &diagnostics
	started, err := startProcess("kubectl", command)
	if err != nil {
		return "", "", err
	}
	<-started.done
	if started.err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s",
			strings.Join(args, " "), started.err, strings.TrimSpace(diagnostics.String()))
	}
	return out.String(), diagnostics.String(), err
}

// KubectlCommand returns the command that Kubectl runs, for callers that set its standard input or environment variables. It is
// killed when ctx ends.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	command := c.commandContext(ctx, c.KubectlPath(), args...)
	// Variables instead of flags: a plugin's name must be the first argument, and a plugin inherits variables.
	command.Env = append(c.environment(),
		"KUBECONFIG="+c.Kubeconfig(),
		"KUBECACHEDIR="+filepath.Join(c.dir, "home", "kubectl-cache"))
	return command
}

// KubectlPath returns the path of kubectl at [DefaultKubernetesVersion].
func (c *Cluster) KubectlPath() string { return c.programs["kubectl"] }
