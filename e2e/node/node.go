// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const (
	// Name is the name of the one Node object.
	Name = "node"

	// Every node has these addresses, each in its own network.
	nodeAddress = "10.240.0.1"
	podRange    = "10.244.0.0/16"
)

// A Config says what node to start. The zero value is a node of [testbed.DefaultKubernetesVersion].
type Config struct {
	// Version is the Kubernetes release of all components, as in [testbed.Config].
	Version string
	// Builder provides the programs.
	Builder testbed.Builder
	// Tools are further programs to build, which [Node.Command] then finds by their names: [testbed.Helm] for example.
	Tools []testbed.Tool
	// Keep makes Stop leave the directory with the logs, Dir(), where it is.
	Keep bool
	// APIServerFlags are added to the flags of every start of kube-apiserver, and override those of this package.
	APIServerFlags []string
}

// A Node is a cluster of one node. Its API server and everything else has an address in the node's network namespace only:
// clients made from AdminConfig, ConfigFor and TokenConfig reach it from this program all the same, and [Node.Command] runs
// other programs where they reach it too. Its methods may be called by several goroutines.
type Node struct {
	*testbed.Cluster
	config   Config
	claim    *claim
	programs map[string]string

	mu        sync.Mutex // guards what follows
	processes map[string]*testbed.Process
	stopped   bool
}

// Start calls [Sweep], builds what is missing in the cache, starts a node, and returns once it is Ready and may be given
// Pods. ctx bounds the start only; the caller must call Stop on the returned node. The error wraps [ErrRequirements] on a
// machine that cannot run a node. After an error nothing is left, but for the directory if Config.Keep says so.
func Start(ctx context.Context, config Config) (*Node, error) {
	if missing := Requirements(); len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrRequirements, strings.Join(missing, "; "))
	}
	if err := Sweep(ctx); err != nil {
		return nil, err
	}
	n := &Node{config: config, processes: map[string]*testbed.Process{}}
	if err := n.build(ctx); err != nil {
		return nil, err
	}
	var err error
	if n.claim, err = newClaim(ctx); err != nil {
		return nil, err
	}
	if err := n.startAll(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start a node: %w", err), n.Stop())
	}
	return n, nil
}

// Stop ends every process of the node, its Pods included, and removes all that it had on the machine: mounts, network
// namespace, cgroups, files, and the directory unless Config.Keep says to leave it. It may be called more than once. The error
// tells what could not be removed; the next Sweep tries again.
func (n *Node) Stop() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return nil
	}
	n.stopped = true
	// Kubelet goes first, or it would start again what the clean-up ends.
	for _, name := range []string{"kubelet", "kube-proxy", "kube-scheduler", "containerd"} {
		n.processes[name].Stop()
	}
	var failed error
	if n.Cluster != nil {
		failed = n.Cluster.Stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
	defer cancel()
	unlock, err := lockClaims(ctx)
	if err != nil {
		return errors.Join(failed, err)
	}
	defer unlock()
	fate := removeFolder
	if n.config.Keep {
		fate = keepFolder
	}
	return errors.Join(failed, n.claim.clean(ctx, fate))
}

// Namespace is the name of the network namespace, for `nsenter --net=/run/netns/NAME`.
func (n *Node) Namespace() string { return n.claim.Name }

// Command is a program inside the network namespace, not started: one of kubectl, ctr and Config.Tools by its name, or any
// other by a name in PATH or a path. KUBECONFIG names the admin's; nothing else comes from this program's environment. It is
// killed when ctx ends.
func (n *Node) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	path := name
	if built, found := n.programs[name]; found {
		path = built
	}
	command := n.Cluster.Command(ctx, path, args...)
	command.Env = append(command.Env, "PATH="+searchPath())
	return command
}

// Logs returns what a component has logged so far: one of etcd, kube-apiserver, kube-controller-manager, kube-scheduler,
// containerd, kubelet and kube-proxy.
func (n *Node) Logs(component string) ([]byte, error) {
	content, err := os.ReadFile(filepath.Join(n.Dir(), "logs", filepath.Base(component)+".log"))
	if err != nil {
		return nil, fmt.Errorf("read the log of %s: %w", component, err)
	}
	return content, nil
}

func (n *Node) build(ctx context.Context) error {
	tools := slices.Clone(n.config.Tools)
	for _, name := range []string{"kube-scheduler", "kubelet", "kube-proxy"} {
		tool, err := testbed.KubernetesTool(name, n.config.Version)
		if err != nil {
			return err
		}
		tools = append(tools, tool)
	}
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
		tools = append(tools, testbed.ContainerdTool(name))
	}
	programs, err := n.config.Builder.Build(ctx, append(tools, testbed.Kubectl())...)
	n.programs = programs
	return err
}

func (n *Node) startAll(ctx context.Context) error {
	if err := n.claim.namespace().create(ctx, nodeAddress); err != nil {
		return err
	}
	cluster, err := testbed.Start(ctx, testbed.Config{
		Version: n.config.Version,
		Builder: n.config.Builder,
		Dir:     filepath.Join(n.claim.Dir, "cluster"),
		Place: testbed.Place{
			Address: nodeAddress,
			Enter:   n.claim.namespace().enter(),
			Dial:    n.claim.namespace().dial,
		},
		APIServerFlags: slices.Concat([]string{"--enable-admission-plugins=NodeRestriction"}, n.config.APIServerFlags),
	})
	if err != nil {
		return err
	}
	n.Cluster = cluster
	if err := n.writeConfig(); err != nil {
		return err
	}
	if err := n.startContainerd(ctx); err != nil {
		return err
	}
	// kube-proxy waits half a minute for a node that is not there yet.
	for _, start := range []func(context.Context) error{n.importPause, n.startScheduler, n.StartKubelet, n.awaitReady, n.startProxy} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return nil
}
