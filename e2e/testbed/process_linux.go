// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import "syscall"

// childAttributes puts a child into a new process group, and has the kernel kill it when the thread that
// started it ends (prctl(2), PR_SET_PDEATHSIG): nothing that the testbed starts survives it, even after kill -9.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
