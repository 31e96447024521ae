// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"fmt"
	"os"
	"path/filepath"
)

// TenantLabel is on each object of the reservations that WriteTenants writes.
const TenantLabel = "e2e.apigw.io/tenant"

// tenant is a reservation with the kinds of the built-in one.
const tenant = `apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: tenant-%02[1]d}
spec:
  owner: Tenant %02[1]d
  resources:
  - manifest:
      apiVersion: v1
      kind: ServiceAccount
      metadata: {namespace: kube-system, name: tenant-%02[1]d, labels: {%[2]s: "%[1]d"}}
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: ClusterRole
      metadata: {name: tenant-%02[1]d-clusterrole, labels: {%[2]s: "%[1]d"}}
      rules:
      - {apiGroups: [""], resources: [services, endpoints, pods], verbs: [get, list, watch]}
  - manifest:
      apiVersion: rbac.authorization.k8s.io/v1
      kind: ClusterRoleBinding
      metadata: {name: tenant-%02[1]d-clusterrole-binding, labels: {%[2]s: "%[1]d"}}
      roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tenant-%02[1]d-clusterrole}
      subjects:
      - {kind: ServiceAccount, name: tenant-%02[1]d, namespace: kube-system}
  - namePrefix: tenant-%02[1]d-token-
    manifest:
      apiVersion: v1
      kind: Secret
      type: kubernetes.io/service-account-token
      metadata:
        namespace: kube-system
        name: tenant-%02[1]d-token-guardian
        labels: {%[2]s: "%[1]d"}
        annotations: {kubernetes.io/service-account.name: tenant-%02[1]d}
`

// WriteTenants writes so many reservations into a directory.
func WriteTenants(directory string, tenants int) error {
	for i := range tenants {
		file := filepath.Join(directory, fmt.Sprintf("tenant-%02d.yaml", i))
		if err := os.WriteFile(file, fmt.Appendf(nil, tenant, i, TenantLabel), 0o600); err != nil {
			return err
		}
	}
	return nil
}
