// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// namespaceFolder is where ip(8) keeps the names of network namespaces, each a file on which one is mounted.
const namespaceFolder = "/run/netns"

// A namespace is a network namespace by its name.
type namespace string

func (n namespace) path() string { return filepath.Join(namespaceFolder, string(n)) }

// enter is what makes a command run in the namespace. `ip netns exec` would mount a new /sys, without cgroups.
func (n namespace) enter() []string {
	return []string{findProgram("nsenter"), "--net=" + n.path()}
}

// create makes the namespace with loopback and a bridge that carries the address. The default route leads to the bridge, on
// which nothing is: without any route the kernel would refuse to send to a ClusterIP before iptables sees the packet.
func (n namespace) create(ctx context.Context, address string) error {
	if err := runIP(ctx, "", "netns", "add", string(n)); err != nil {
		return err
	}
	const bridge = "node0"
	return runIP(ctx, strings.Join([]string{
		"link set lo up",
		"link add " + bridge + " type bridge",
		"address add " + address + "/32 dev " + bridge,
		"link set " + bridge + " up",
		"route add default dev " + bridge + " src " + address,
	}, "\n"), "-netns", string(n), "-batch", "-")
}

func runIP(ctx context.Context, input string, arguments ...string) error {
	command := exec.CommandContext(ctx, findProgram("ip"), arguments...)
	command.Stdin = strings.NewReader(input)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(string(output)))
	}
	return nil
}

// remove takes the name away. The namespace and its links go with the last process in it.
func (n namespace) remove() error {
	if err := unmount(n.path()); err != nil {
		return err
	}
	if err := os.Remove(n.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the network namespace: %w", err)
	}
	return nil
}

// dial connects from inside the namespace: a socket stays in the namespace that it was made in, so its thread may leave.
// The address must be that of an IP and a port, since a name would be looked up by other threads.
func (n namespace) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type answer struct {
		connection net.Conn
		err        error
	}
	answers := make(chan answer, 1)
	go func() { // a new goroutine, because its thread is thrown away
		var dialed answer
		err := n.inside(func() { dialed.connection, dialed.err = (&net.Dialer{}).DialContext(ctx, network, address) })
		dialed.err = errors.Join(err, dialed.err)
		answers <- dialed
	}()
	dialed := <-answers
	return dialed.connection, dialed.err
}

// inside calls f on a thread that is in the namespace. A thread that cannot come back stays locked, so that it ends with its
// goroutine and runs nothing else.
func (n namespace) inside(f func()) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open this thread's network namespace: %w", err)
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open(n.path())
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave the network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}
