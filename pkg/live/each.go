// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import "golang.org/x/sync/errgroup"

// parallel is the max number of calls of Each at the same time.
const parallel = 16

// Each calls f for each index below n, some at the same time, and returns when every call has returned.
func Each(n int, f func(i int)) {
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range n {
		group.Go(func() error {
			f(i)
			return nil
		})
	}
	_ = group.Wait() // no function returns an error
}
