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

	// The range is below the ports of outgoing connections (32768 and up on Linux, 49152 and up elsewhere) and of NodePorts (30000
	// and up). So a restarted component finds its port free.
	firstPort, lastPort = 20000, 29999

	// portAttempts is the max number of starts of a component whose port another program has taken.
	portAttempts = 5
)

// freePorts returns different random ports that are free now. Another program may take one before it is used: withFreshPorts
// handles that.
func freePorts(count int) ([]int, error) {
	const draws = 1000 // enough unless the machine has hardly a free port
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
	return nil, fmt.Errorf("find %d free ports between %d and %d on %s: too few: end other testbeds",
		count, firstPort, lastPort, loopback)
}

func canListen(port int) bool {
	listener, err := net.Listen("tcp", hostPort(port))
	if err != nil {
		return false
	}
	return listener.Close() == nil
}

// withFreshPorts calls start with new random ports, up to portAttempts times, as long as it returns errPortTaken.
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
	return fmt.Errorf("get a port in %d attempts: %w", portAttempts, err)
}

func hostPort(port int) string {
	return net.JoinHostPort(loopback, strconv.Itoa(port))
}
