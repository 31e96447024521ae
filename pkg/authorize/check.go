// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Status is the result of one check.
type Status string

// The statuses. Only Fail stops Authorize.
const (
	Pass    Status = "Pass"
	Fail    Status = "Fail"
	Unknown Status = "Unknown"
	Skipped Status = "Skipped"
)

// Check is the result of one check of the cluster. Message says what was found, and Remedy what to do; Remedy is empty if
// there is nothing to do. Neither holds a value of a Secret.
type Check struct {
	ID      string `json:"id"`
	Status  Status `json:"status"`
	Message string `json:"message"`
	Remedy  string `json:"remedy"`
}

func pass(message string) Check { return Check{Status: Pass, Message: message} }

func fail(message, remedy string) Check { return Check{Status: Fail, Message: message, Remedy: remedy} }

func unknown(message, remedy string) Check {
	return Check{Status: Unknown, Message: message, Remedy: remedy}
}

// Checks are all checks of one preflight, in their order.
type Checks struct {
	Checks []Check `json:"checks"`
}

// Failed returns the checks that failed.
func (c Checks) Failed() []Check {
	return slices.DeleteFunc(slices.Clone(c.Checks), func(check Check) bool { return check.Status != Fail })
}

// PreflightError says that the cluster is not ready, and that nothing was written. Failed holds at least one check.
type PreflightError struct{ Failed []Check }

// Error lists each failed check with its remedy:
//
//	the cluster is not ready; nothing was changed
//	kubernetes-version: Kubernetes v1.27.4 is older than 1.28
//	  Upgrade the cluster to 1.28 or later.
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

// Preflight runs every check, in a fixed order: kubernetes-version, admin-role, private-network, reserved-kinds,
// existing-resources, tke-cluster, and certificates if cert-manager issues the guard's. It writes nothing. An error of the API
// server makes a check Unknown, or Fail if Authorize cannot succeed. Of the options, PrivateNetwork and Repair count.
func (a *Authorizer) Preflight(ctx context.Context, options Options) Checks {
	var checks Checks
	add := func(id string, check Check) {
		check.ID = id
		checks.Checks = append(checks.Checks, check)
	}
	version, err := a.cluster.Version(ctx)
	add("kubernetes-version", checkVersion(version, err))
	add("admin-role", a.checkAdminRole(ctx))
	add("private-network", a.checkPrivateNetwork(ctx, options.PrivateNetwork))
	add("reserved-kinds", a.checkServed())
	add("existing-resources", a.checkExisting(ctx, options.Repair))
	add("tke-cluster", a.checkTKE(ctx, version))
	if certificates := Certificates(ctx, a.cluster); len(certificates) > 0 {
		add("certificates", checkCertificates(certificates))
	}
	return checks
}

// worst returns Fail if a check failed, Unknown if one is unknown, and Pass otherwise.
func worst(checks []Check) Status {
	status := Pass
	for _, check := range checks {
		if check.Status == Fail || check.Status == Unknown && status != Fail {
			status = check.Status
		}
	}
	return status
}
