// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix && !linux

package testbed

import "syscall"

// childAttributes puts a child into a new process group. Only Linux can also end it with its parent: elsewhere
// a testbed that is killed with SIGKILL leaves its processes behind.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
