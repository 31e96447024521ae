// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"fmt"
	"strings"
)

// Verdict is the outcome of one check.
type Verdict string

// Verdicts. Only Fail stops Authorize.
const (
	Pass    Verdict = "Pass"
	Fail    Verdict = "Fail"
	Unknown Verdict = "Unknown"
	Skipped Verdict = "Skipped"
)

// Check is one answered question about the cluster. Message says what was found, and Remedy what to do about it; Remedy is
// empty where there is nothing to do. Both are for people, and never hold a value of a Secret.
type Check struct {
	ID      string  `json:"id"`
	Status  Verdict `json:"status"`
	Message string  `json:"message"`
	Remedy  string  `json:"remedy"`
}

// Checks are all checks of one preflight, in their order.
type Checks struct {
	Checks []Check `json:"checks"`
}

// Failed returns the checks that failed; nil where none did.
func (c Checks) Failed() []Check {
	var failed []Check
	for _, check := range c.Checks {
		if check.Status == Fail {
			failed = append(failed, check)
		}
	}
	return failed
}

// PreflightError says that the cluster is not ready, and that nothing was written.
type PreflightError struct {
	// Failed holds at least one check.
	Failed []Check
}

// Error lists each failed check with what to do:
//
//	the cluster is not ready; nothing was changed
//	kubernetes-version: Kubernetes v1.27.4 is older than 1.28.
//	  Upgrade the cluster.
func (e *PreflightError) Error() string {
	var b strings.Builder
	b.WriteString("the cluster is not ready; nothing was changed")
	for _, check := range e.Failed {
		fmt.Fprintf(&b, "\n%s: %s", check.ID, check.Message)
		if check.Remedy != "" {
			fmt.Fprintf(&b, "\n  %s", check.Remedy)
		}
	}
	return b.String()
}
