// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// DefaultKubernetesVersion is the release that a zero [Config] runs, and the one that kubectl is always built from,
// so that what kubectl prints depends neither on the machine nor on the release under test.
const DefaultKubernetesVersion = "v1.37.2"

// EtcdVersion is the release of etcd that stores every cluster, whatever its Kubernetes release.
const EtcdVersion = "v3.7.3"

// A Release is one version of one Go module that programs are built from. Each release is one entry of the cache.
type Release struct {
	// Project is the short name that the cache entry carries, for example "kubernetes".
	Project string
	// Module is the module's path, for example "k8s.io/kubernetes".
	Module string
	// Version is the module's version, with the leading v.
	Version string
	// LDFlags are linker flags beyond those that every build gets; they stamp the version into the program.
	LDFlags string
}

// A Tool is one program that a [Builder] can build. Names must differ among the tools of one call to Build.
type Tool struct {
	// Name is the file name of the program, for example "kube-apiserver".
	Name string
	// Package is the import path of its main package; it may lie in a module that the release requires.
	Package string
	// Release is what it is built from.
	Release Release
}

// Etcd is the tool "etcd" at [EtcdVersion].
func Etcd() Tool {
	const module = "go.etcd.io/etcd/server/v3"
	return Tool{
		Name:    "etcd",
		Package: module,
		Release: Release{Project: "etcd", Module: module, Version: EtcdVersion},
	}
}

// Kubectl is the tool "kubectl" at [DefaultKubernetesVersion].
func Kubectl() Tool {
	const minor, patch = 37, 2 // a test holds these equal to DefaultKubernetesVersion
	return kubernetesTool("kubectl", kubernetesVersion{minor: minor, patch: patch})
}

// KubernetesTool is the program with that name under cmd/ of k8s.io/kubernetes, for example "kube-apiserver". The
// version is written like "1.37.2" or "v1.37.2"; an empty one means [DefaultKubernetesVersion]; any other text is an
// error. Whether the release exists is seen only when it is built.
func KubernetesTool(name, version string) (Tool, error) {
	parsed, err := parseKubernetesVersion(version)
	if err != nil {
		return Tool{}, err
	}
	return kubernetesTool(name, parsed), nil
}

func kubernetesTool(name string, version kubernetesVersion) Tool {
	const module = "k8s.io/kubernetes"
	return Tool{
		Name:    name,
		Package: module + "/cmd/" + name,
		Release: Release{
			Project: "kubernetes",
			Module:  module,
			Version: version.String(),
			LDFlags: version.ldflags(),
		},
	}
}

// kubernetesVersion is a release of Kubernetes 1: its minor and patch number.
type kubernetesVersion struct{ minor, patch int }

var kubernetesVersionPattern = regexp.MustCompile(`^v?1\.(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})$`)

func parseKubernetesVersion(text string) (kubernetesVersion, error) {
	if text == "" {
		text = DefaultKubernetesVersion
	}
	match := kubernetesVersionPattern.FindStringSubmatch(text)
	if match == nil {
		return kubernetesVersion{}, fmt.Errorf("%w %q: write it like %q",
			ErrMalformedVersion, text, strings.TrimPrefix(DefaultKubernetesVersion, "v"))
	}
	minor, minorErr := strconv.Atoi(match[1])
	patch, patchErr := strconv.Atoi(match[2])
	if minorErr != nil || patchErr != nil {
		return kubernetesVersion{}, fmt.Errorf("%w %q: its numbers are too large", ErrMalformedVersion, text)
	}
	return kubernetesVersion{minor: minor, patch: patch}, nil
}

// String is the version as Go modules and Git tags write it, for example "v1.37.2".
func (v kubernetesVersion) String() string {
	return fmt.Sprintf("v1.%d.%d", v.minor, v.patch)
}

// ldflags stamps the version as Kubernetes' own build does (hack/lib/version.sh); without it every program calls
// itself v0.0.0-master, and its server's discovery and feature defaults are those of no release.
func (v kubernetesVersion) ldflags() string {
	const variable = "-X k8s.io/component-base/version."
	return fmt.Sprintf("%[1]sgitVersion=%[2]s %[1]sgitMajor=1 %[1]sgitMinor=%[3]d", variable, v, v.minor)
}

// stagingVersion is the version of the k8s.io staging modules that belong to a release of k8s.io/kubernetes: they are
// tagged v0.Y.Z where Kubernetes is v1.Y.Z. Versions of other shapes are returned as they are.
func stagingVersion(version string) string {
	if rest, found := strings.CutPrefix(version, "v1."); found {
		return "v0." + rest
	}
	return version
}
