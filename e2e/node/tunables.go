// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
)

// tunables are the settings of the whole machine that kubelet changes when it starts: setupKernelTunables in
// pkg/kubelet/cm/container_manager_linux.go of Kubernetes.
func tunables() []string {
	return []string{
		"/proc/sys/vm/overcommit_memory",
		"/proc/sys/vm/panic_on_oom",
		"/proc/sys/kernel/panic",
		"/proc/sys/kernel/panic_on_oops",
		"/proc/sys/kernel/keys/root_maxkeys",
		"/proc/sys/kernel/keys/root_maxbytes",
	}
}

// originalTunables reads the values before any kubelet changed them: those that an earlier claim has, if there is one.
func originalTunables() (map[string]string, error) {
	claims, err := readClaims()
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.Tunables != nil {
			return c.Tunables, nil
		}
	}
	values := map[string]string{}
	for _, path := range tunables() {
		value, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a kernel setting: %w", err)
		}
		values[path] = string(value)
	}
	return values, nil
}

// restoreTunables puts the values back unless another node is there, whose end will.
func (c *claim) restoreTunables() error {
	claims, err := readClaims()
	if err != nil {
		return err
	}
	if len(claims) > 1 {
		return nil
	}
	var failed []error
	for _, path := range tunables() {
		if value, found := c.Tunables[path]; found {
			failed = append(failed, os.WriteFile(path, []byte(value), 0o600))
		}
	}
	return errors.Join(failed...)
}
