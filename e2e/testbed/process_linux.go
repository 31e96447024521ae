// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import "syscall"

// childAttributes puts a child into a new process group. The kernel kills the child when the thread that started it ends
// (PR_SET_PDEATHSIG of prctl(2)), so no child survives the testbed, even after kill -9.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
