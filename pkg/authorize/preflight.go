// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import "context"

// Preflight runs every check and returns all of them, in a fixed order: kubernetes-version, admin-role, private-network,
// reserved-kinds, existing-resources, tke-cluster, and certificates where cert-manager issues the guard's. It writes nothing, and never fails:
// an error of the API server is a check that is Unknown, or Fail where nothing can be authorized because of it. Of the options,
// PrivateNetwork and Repair count.
func (a *Authorizer) Preflight(ctx context.Context, options Options) Checks {
	table := []struct {
		id  string
		run func(context.Context, Options) Check
	}{
		{"kubernetes-version", a.checkVersion},
		{"admin-role", a.checkAdminRole},
		{"private-network", a.checkPrivateNetwork},
		{"reserved-kinds", a.checkServed},
		{"existing-resources", a.checkExisting},
		{"tke-cluster", a.checkTKE},
	}
	var checks Checks
	for _, row := range table {
		check := row.run(ctx, options)
		check.ID = row.id
		checks.Checks = append(checks.Checks, check)
	}
	if check, applies := a.checkCertificates(ctx); applies {
		check.ID = "certificates"
		checks.Checks = append(checks.Checks, check)
	}
	return checks
}
