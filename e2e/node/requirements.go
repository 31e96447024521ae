// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrRequirements is returned by [Start] on a machine that lacks what [Requirements] lists.
var ErrRequirements = errors.New("this machine cannot run a node")

const (
	// cniPlugins is where Debian's containernetworking-plugins puts them.
	cniPlugins = "/usr/lib/cni"
	// systemPath is where Debian keeps programs of root; a shell that was opened by su may lack it.
	systemPath = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
)

// A requirement is a program, by name or by path, and the Debian package that has it.
type requirement struct{ program, debian string }

func requirements() []requirement {
	return []requirement{
		{"buildah", "buildah"},
		{"conntrack", "conntrack"},
		{cniPlugins + "/bridge", "containernetworking-plugins"},
		{cniPlugins + "/host-local", "containernetworking-plugins"},
		{cniPlugins + "/portmap", "containernetworking-plugins"},
		{"ethtool", "ethtool"},
		{"ipset", "ipset"},
		{"ip", "iproute2"},
		{"iptables", "iptables"},
		{"nft", "nftables"},
		{"runc", "runc"},
		{"socat", "socat"},
		{"nsenter", "util-linux"},
		{"unshare", "util-linux"},
	}
}

// Requirements says what this machine lacks to run a node, one plain sentence each, such as "runc is missing: install the
// Debian package runc". Nothing is returned where [Start] can be expected to work. It looks at root, programs, cgroups, and
// whether a network namespace and an overlay file system can be had.
func Requirements() []string {
	if os.Geteuid() != 0 {
		return []string{"only root can run a node: run this as root"}
	}
	missing := missingPrograms(requirements())
	if !hasCgroups() {
		missing = append(missing, "no cgroup file system is mounted below /sys/fs/cgroup")
	}
	if len(missing) > 0 {
		return missing
	}
	if err := tryNamespaces(); err != nil {
		return []string{err.Error()}
	}
	return nil
}

func missingPrograms(required []requirement) []string {
	var missing []string
	for _, r := range required {
		if findProgram(r.program) == "" {
			missing = append(missing, fmt.Sprintf("%s is missing: install the Debian package %s", r.program, r.debian))
		}
	}
	return missing
}

// findProgram returns the path of a program, or nothing.
func findProgram(name string) string {
	if filepath.IsAbs(name) {
		if _, err := os.Stat(name); err != nil {
			return ""
		}
		return name
	}
	for _, folder := range filepath.SplitList(searchPath()) {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path
		}
	}
	return ""
}

// searchPath is PATH of all that a node runs.
func searchPath() string {
	return strings.Trim(os.Getenv("PATH")+":"+systemPath, ":")
}

func hasCgroups() bool {
	mounts, err := readMounts()
	return err == nil && len(cgroupMounts(mounts)) > 0
}

// tryNamespaces tries in a child what a node needs of the kernel, so that nothing of it can stay.
func tryNamespaces() error {
	dir, err := os.MkdirTemp("", namePrefix)
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for _, folder := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
	}
	command := exec.Command(findProgram("unshare"), "--net", "--mount",
		"mount", "-t", "overlay", "-o", "lowerdir=lower,upperdir=upper,workdir=work", "overlay", "merged")
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("no network namespace with an overlay file system in %s can be made: %w: %s",
			filepath.Dir(dir), err, strings.TrimSpace(string(output)))
	}
	return nil
}
