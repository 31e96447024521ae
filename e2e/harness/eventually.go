// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"testing"
	"time"
)

const (
	// Patience is how long Eventually waits: long enough for a busy machine.
	Patience = 2 * time.Minute
	// interval is how often it checks.
	interval = 30 * time.Millisecond
)

// Eventually returns once check returns true, and ends the test after Patience. The message says what it waited for, and
// what check saw last: an error, a status, a count.
func Eventually(tb testing.TB, what string, check func() (ok bool, last any)) {
	tb.Helper()
	for deadline := time.Now().Add(Patience); ; time.Sleep(interval) {
		ok, last := check()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("waited %v until %s; last seen: %+v", Patience, what, last)
		}
	}
}
