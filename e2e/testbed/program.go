// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"crypto/x509/pkix"
	"fmt"
	"os/exec"

	"k8s.io/client-go/rest"
)

// A Program is an additional program in the cluster's [Place], with the cluster's environment.
type Program struct {
	// Name is the name of the program in messages. Each start appends to the log Dir()/logs/Name.log.
	Name string
	// Path is the path of the program, and Args are its arguments.
	Path string
	Args []string
	// Env has additional environment variables as "KEY=value". They override those of the components.
	Env []string
	// Ready returns nil once the program is ready, and is called every 50 ms. A nil function means ready at once.
	Ready func(ctx context.Context) error
}

// A Process is a running [Program]. It is safe for concurrent use.
type Process struct{ *process }

// StartProgram starts the program and returns once it is ready. On Linux it ends with this program at the latest. Cluster.Stop does
// not end it: the caller must call Stop. If the program is not ready after two minutes, StartProgram ends it and returns an error
// with the end of its log.
func (c *Cluster) StartProgram(ctx context.Context, program Program) (*Process, error) {
	started, err := c.run(launch{program: program.Name, path: program.Path, flags: program.Args, env: program.Env})
	if err != nil {
		return nil, err
	}
	ready := program.Ready
	if ready == nil {
		ready = func(context.Context) error { return nil }
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("it took more than %v", readyTimeout))
	defer cancel()
	if err := started.awaitReady(ctx, ready); err != nil {
		started.stop(0)
		return nil, err
	}
	return &Process{started}, nil
}

// Stop sends SIGTERM, kills the process if it has not ended after 2 s, and waits for its end. It may be called more than once, and
// on a nil Process.
func (p *Process) Stop() {
	if p != nil {
		p.stop(stopGrace)
	}
}

// PID returns the process ID.
func (p *Process) PID() int { return p.command.Process.Pid }

// Ended returns a channel that is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// Command returns a command that runs a program in the cluster's place. Its environment has only PATH of this program, and
// KUBECONFIG is the admin's. It is killed when ctx ends.
func (c *Cluster) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	command := c.commandContext(ctx, path, args...)
	command.Env = append(c.environment(), "KUBECONFIG="+c.Kubeconfig())
	return command
}

// CertificateConfig returns a client configuration with a new certificate. For the API server, its common name is the user and its
// organizations are the groups. It is valid for a server in the cluster's place too. CertFile and KeyFile of the result are the
// paths of the certificate and its key, which contain name.
func (c *Cluster) CertificateConfig(name string, subject pkix.Name) (*rest.Config, error) {
	pair, err := c.identity.authority.issue(name, subject)
	if err != nil {
		return nil, err
	}
	config := c.anonymousConfig()
	config.CertFile, config.KeyFile = pair.certFile, pair.keyFile
	return config, nil
}
