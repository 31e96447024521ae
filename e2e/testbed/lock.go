// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockPoll is the interval between attempts to get the lock. A builder holds it for seconds to minutes.
const lockPoll = 200 * time.Millisecond

// lockFile creates the file, takes an exclusive flock(2) lock on it, and returns a function that releases the lock. The end of the
// process releases it too. If another process has the lock, lockFile calls waiting once and waits until ctx ends. The file
// remains: after a removal, two processes could lock two files of one name.
func lockFile(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the cache: %w", err)
	}
	if err := waitForLock(ctx, file, waiting); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

// waitForLock polls, because ctx could not end a blocking call of flock.
func waitForLock(ctx context.Context, file *os.File, waiting func()) error {
	for first := true; ; first = false {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the lock %s: %w", file.Name(), context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}
