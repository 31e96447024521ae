// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// DefaultKubernetesVersion is the release of a zero [Config]. kubectl always has this release, so its output does not depend on the
// machine or the release under test.
const DefaultKubernetesVersion = "v1.37.2"

// EtcdVersion is the release of etcd for all Kubernetes releases.
const EtcdVersion = "v3.7.3"

// A Release is one version of one Go module with programs. Each release has one directory in the cache.
type Release struct {
	// Project is the short name of the project in the cache, for example "kubernetes".
	Project string
	// Module is the module's path, for example "k8s.io/kubernetes".
	Module string
	// Version is the module's version, with the leading v.
	Version string
	// LDFlags are additional linker flags, which set the version in the program.
	LDFlags string
}

// A Tool is one program that a [Builder] can build. The tools of one call of Build must have different names.
type Tool struct {
	// Name is the file name of the program, for example "kube-apiserver".
	Name string
	// Package is the import path of its main package, which may be in a module that the release requires.
	Package string
	// Release is the release with the package.
	Release Release
}

// Etcd returns the tool "etcd" at [EtcdVersion].
func Etcd() Tool {
	const module = "go.etcd.io/etcd/server/v3"
	return Tool{
		Name:    "etcd",
		Package: module,
		Release: Release{Project: "etcd", Module: module, Version: EtcdVersion},
	}
}

// Kubectl returns the tool "kubectl" at [DefaultKubernetesVersion].
func Kubectl() Tool {
	const minor, patch = 37, 2 // a test compares them with DefaultKubernetesVersion
	return kubernetesTool("kubectl", kubernetesVersion{minor: minor, patch: patch})
}

// KubernetesTool returns the program with this name under cmd/ of k8s.io/kubernetes, for example "kube-apiserver". The version has
// the form "1.37.2" or "v1.37.2"; empty means [DefaultKubernetesVersion]. Any other text is an error. Only a build shows whether the
// release exists.
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

// kubernetesVersion has the minor and patch number of a release of Kubernetes 1.
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
		return kubernetesVersion{}, fmt.Errorf("%w %q: a number is too large", ErrMalformedVersion, text)
	}
	return kubernetesVersion{minor: minor, patch: patch}, nil
}

// String returns the version as in Go modules and Git tags, for example "v1.37.2".
func (v kubernetesVersion) String() string {
	return fmt.Sprintf("v1.%d.%d", v.minor, v.patch)
}

// ldflags returns the linker flags that set the version, as in Kubernetes' hack/lib/version.sh. Without them, the version of every
// program is v0.0.0-master, and its feature defaults are those of no release.
func (v kubernetesVersion) ldflags() string {
	const variable = "-X k8s.io/component-base/version."
	return fmt.Sprintf("%[1]sgitVersion=%[2]s %[1]sgitMajor=1 %[1]sgitMinor=%[3]d", variable, v, v.minor)
}

// stagingVersion returns the version of the staging modules of a Kubernetes release: v0.Y.Z for v1.Y.Z. It returns other versions
// unchanged.
func stagingVersion(version string) string {
	if rest, found := strings.CutPrefix(version, "v1."); found {
		return "v0." + rest
	}
	return version
}
