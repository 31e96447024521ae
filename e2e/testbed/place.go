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

// A Place is where the components of a cluster run, and how this program reaches them there. The zero value is loopback of
// this machine.
type Place struct {
	// Address is the IP address that the components listen on and that the API server publishes as the Service
	// "kubernetes". Empty means 127.0.0.1, which it does not publish.
	Address string
	// Enter is put before every command that the cluster runs, kubectl included: the path of a program and arguments with
	// which it becomes (exec(2), without a fork) the program that follows them.
	Enter []string
	// Dial reaches the place from this program. Nil means that an ordinary connection does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func (p Place) address() string { return cmp.Or(p.Address, loopback) }

func (p Place) isLoopback() bool { return net.ParseIP(p.address()).IsLoopback() }

// addresses are those that certificates of servers are good for.
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

// command is a program in the cluster's place.
func (c *Cluster) command(path string, arguments ...string) *exec.Cmd {
	line := slices.Concat(c.config.Place.Enter, []string{path}, arguments)
	return exec.Command(line[0], line[1:]...)
}

// commandContext is command for a program that is killed when ctx ends.
func (c *Cluster) commandContext(ctx context.Context, path string, arguments ...string) *exec.Cmd {
	line := slices.Concat(c.config.Place.Enter, []string{path}, arguments)
	return exec.CommandContext(ctx, line[0], line[1:]...)
}

// plainClient is an HTTP client that reaches the cluster's place.
func (c *Cluster) plainClient() *http.Client {
	if c.config.Place.Dial == nil {
		return http.DefaultClient
	}
	return &http.Client{Transport: &http.Transport{
		DialContext:       c.config.Place.Dial,
		DisableKeepAlives: true,
	}}
}
