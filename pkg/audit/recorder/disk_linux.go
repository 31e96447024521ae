// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync waits until the content and the size of the file are on the disk. Its times are not needed.
func datasync(file *os.File) error { return unix.Fdatasync(int(file.Fd())) }

// lock locks the file until it is closed or the process ends.
func lock(file *os.File) error {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errSpoolInUse
	}
	return err
}
