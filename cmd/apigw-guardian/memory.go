// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"runtime/debug"
)

const (
	// usualMemory is the chart's memory limit. The guard's budgets are made for it.
	usualMemory = 128 << 20
	// goShare is the part of the container's memory that Go may fill before it collects garbage in earnest. The rest is for the
	// program's file (some 25 MB), for the kernel's buffers of connections, and for what Go overshoots by.
	goShare = 0.5
)

// limitMemory sets Go's memory limit to a share of the container's, which the chart names in GOMEMLIMIT; without that, to a
// share of usualMemory, as the container may have a limit that the process cannot see.
func limitMemory() {
	container := debug.SetMemoryLimit(-1)
	if container == math.MaxInt64 {
		container = usualMemory
	}
	debug.SetMemoryLimit(int64(goShare * float64(container)))
}
