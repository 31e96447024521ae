// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import "golang.org/x/sync/errgroup"

// parallel is the max number of calls of Each at the same time: more than the forbidden writes that a verification of the built-in
// reservation tries, as a hung guard keeps each of them for the 5 s of a webhook.
const parallel = 64

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
