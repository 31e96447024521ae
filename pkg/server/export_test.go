// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import "time"

// SetAfter lets a test end a drain period by hand. Call it before Start.
func (s *Server) SetAfter(after func(time.Duration) <-chan time.Time) { s.after = after }
