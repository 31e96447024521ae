// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync waits for the file's content, and for its size, but not for its times: that saves a trip to the disk.
func datasync(file *os.File) error { return unix.Fdatasync(int(file.Fd())) }

// lock takes the file for this process, until the file is closed or the process ends, however it does.
func lock(file *os.File) error {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrSpoolInUse
	}
	return err
}
