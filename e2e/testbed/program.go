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

// A Program is one more program that runs in the cluster's [Place], with the cluster's environment.
type Program struct {
	// Name names the program in messages, and its log, Dir()/logs/Name.log, to which each start appends.
	Name string
	// Path is the program's file, and Args its arguments.
	Path string
	Args []string
	// Env, in the form "KEY=value", is added to the environment that the components have, and overrides it.
	Env []string
	// Ready returns nil once the program is ready; it is asked every 50 ms. Nil means ready at once.
	Ready func(ctx context.Context) error
}

// A Process is a running [Program]. Its methods may be called by several goroutines.
type Process struct{ *process }

// StartProgram starts the program and returns once it is ready. Like every process of the cluster, on Linux it ends with
// this program at the latest; Cluster.Stop does not end it, so the caller must call Stop. A program that does not get ready
// within two minutes is ended, and the error shows the end of its log.
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

// Stop asks the process to end, kills it if it has not ended after 2 s, and returns once it is gone. It may be called more
// than once, and on a nil Process.
func (p *Process) Stop() {
	if p != nil {
		p.stop(stopGrace)
	}
}

// PID is the process's id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Ended is closed once the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// Command is a program in the cluster's place, not started: its environment holds nothing of this program's but PATH, and
// KUBECONFIG names the admin's. It is killed when ctx ends.
func (c *Cluster) Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	command := c.commandContext(ctx, path, args...)
	command.Env = append(c.environment(), "KUBECONFIG="+c.Kubeconfig())
	return command
}

// CertificateConfig is a client configuration that authenticates with a new certificate: to the API server its common name
// is the user and its organizations are the groups. The files of the certificate and its key are CertFile and KeyFile of the
// result, named after name; the certificate is good for a server at the cluster's place too.
func (c *Cluster) CertificateConfig(name string, subject pkix.Name) (*rest.Config, error) {
	pair, err := c.identity.authority.issue(name, subject)
	if err != nil {
		return nil, err
	}
	config := c.anonymousConfig()
	config.CertFile, config.KeyFile = pair.certFile, pair.keyFile
	return config, nil
}
