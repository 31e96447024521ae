// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	loopback = "127.0.0.1"

	// Ports are drawn from below the range that systems give to outgoing connections (32768 and up on Linux, 49152 and
	// up elsewhere) and to Kubernetes' node ports (30000 and up): so a component that is restarted on its port finds
	// it free.
	firstPort, lastPort = 20000, 29999

	// portAttempts bounds how often a component is started anew because another program took its port first.
	portAttempts = 5
)

// freePorts draws as many ports as asked, all different and free at this moment. Any of them may be taken before it
// is used: withFreshPorts is for that.
func freePorts(count int) ([]int, error) {
	const draws = 1000 // far more than the range needs unless the machine has hardly a free port
	taken := map[int]bool{}
	var ports []int
	for range draws {
		if len(ports) == count {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !taken[port] && canListen(port) {
			ports = append(ports, port)
		}
		taken[port] = true
	}
	return nil, fmt.Errorf("found no %d free ports between %d and %d on %s; end other testbeds",
		count, firstPort, lastPort, loopback)
}

func canListen(port int) bool {
	listener, err := net.Listen("tcp", hostPort(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// withFreshPorts calls start with newly drawn ports until it succeeds, fails with another error than errPortTaken, or
// has lost the race for a port portAttempts times.
func withFreshPorts(count int, start func(ports []int) error) error {
	var err error
	for range portAttempts {
		var ports []int
		if ports, err = freePorts(count); err != nil {
			return err
		}
		if err = start(ports); !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return fmt.Errorf("lost the race for a port %d times: %w", portAttempts, err)
}

func hostPort(port int) string {
	return net.JoinHostPort(loopback, strconv.Itoa(port))
}
