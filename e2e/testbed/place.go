// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
)

// A Place is the network in which the components of a cluster run, and the way to reach it. The zero value is loopback of this
// machine.
type Place struct {
	// Address is the IP address of the components. The API server publishes it in the Service "kubernetes". Empty means 127.0.0.1,
	// which is not published.
	Address string
	// Enter precedes every command of the cluster, including kubectl. It has the path and arguments of a program that executes the
	// rest of its arguments by exec(2), without a fork.
	Enter []string
	// Dial connects this program to the place. Nil means an ordinary connection.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (p Place) address() string { return cmp.Or(p.Address, loopback) }

func (p Place) isLoopback() bool { return net.ParseIP(p.address()).IsLoopback() }

// addresses returns the addresses in the certificates of servers.
func (p Place) addresses() []net.IP {
	addresses := []net.IP{net.ParseIP(loopback), net.ParseIP(apiServiceAddress)}
	if p.isLoopback() {
		return addresses
	}
	return append(addresses, net.ParseIP(p.Address))
}

func (c *Cluster) hostPort(port int) string {
	return net.JoinHostPort(c.config.Place.address(), strconv.Itoa(port))
}

// command returns the command that runs a program in the cluster's place.
func (c *Cluster) command(path string, arguments ...string) *exec.Cmd {
	line := slices.Concat(c.config.Place.Enter, []string{path}, arguments)
	return exec.Command(line[0], line[1:]...)
}

// commandContext is like command, but kills the program when ctx ends.
func (c *Cluster) commandContext(ctx context.Context, path string, arguments ...string) *exec.Cmd {
	line := slices.Concat(c.config.Place.Enter, []string{path}, arguments)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

// plainClient returns an HTTP client for the cluster's place.
func (c *Cluster) plainClient() *http.Client {
	if c.config.Place.Dial == nil {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{
		DialContext:       c.config.Place.Dial,
		DisableKeepAlives: true,
	}}
}
