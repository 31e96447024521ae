// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import "fmt"

// ContainerdVersion is the release of a node's container runtime. Kubelets of 1.36 and later require containerd 2.
const ContainerdVersion = "v2.4.2"

// HelmVersion and Helm3Version are the Helm releases that test the chart.
const (
	HelmVersion  = "v4.3.1"
	Helm3Version = "v3.22.0"
)

// ContainerdTool returns the program with this name under cmd/ of containerd at [ContainerdVersion]: "containerd",
// "containerd-shim-runc-v2" or "ctr". All programs of one version are in one directory, where containerd finds its shim.
func ContainerdTool(name string) Tool {
	const module = "github.com/containerd/containerd/v2"
	return Tool{
		Name:    name,
		Package: module + "/cmd/" + name,
		Release: Release{
			Project: "containerd",
			Module:  module,
			Version: ContainerdVersion,
			LDFlags: fmt.Sprintf("-X %s/version.Version=%s", module, ContainerdVersion),
		},
	}
}

// Helm returns the tool "helm" at [HelmVersion].
func Helm() Tool { return helmTool("helm", "helm.sh/helm/v4", HelmVersion, "") }

// Helm3 returns the tool "helm3" at [Helm3Version].
func Helm3() Tool {
	const module = "helm.sh/helm/v3"
	// The Kubernetes version of its client-go. `helm template` and `helm lint` use it as the version of the cluster. Helm 4 reads it
	// from its build information.
	const major, minor = 1, 37
	stamp := func(holder string) string {
		return fmt.Sprintf(" -X %[1]s/pkg/%[2]s.k8sVersionMajor=%[3]d -X %[1]s/pkg/%[2]s.k8sVersionMinor=%[4]d",
			module, holder, major, minor)
	}
	return helmTool("helm3", module, Helm3Version, stamp("chartutil")+stamp("lint/rules"))
}

func helmTool(name, module, version, stamps string) Tool {
	return Tool{
		Name:    name,
		Package: module + "/cmd/helm",
		Release: Release{
			Project: "helm",
			Module:  module,
			Version: version,
			LDFlags: fmt.Sprintf("-X %s/internal/version.version=%s%s", module, version, stamps),
		},
	}
}
