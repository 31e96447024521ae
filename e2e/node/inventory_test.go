// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// An inventory is what a node has on the machine at one moment.
type inventory struct {
	claim      *claim
	containers []string
	pids       []int
}

func inventoryOf(t *testing.T, c *claim) inventory {
	t.Helper()
	containers, err := c.containers()
	if err != nil {
		t.Fatal(err)
	}
	member, err := c.membership(containers)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := processesThat(member)
	if err != nil {
		t.Fatal(err)
	}
	return inventory{claim: c, containers: containers, pids: pids}
}

// requireInUse wants something of each kind, so that requireGone means something.
func (i inventory) requireInUse(t *testing.T) {
	t.Helper()
	for kind, found := range i.left(t) {
		if len(found) == 0 {
			t.Errorf("the node has no %s while it runs", kind)
		}
	}
}

func (i inventory) requireGone(t *testing.T) {
	t.Helper()
	for kind, found := range i.left(t) {
		if len(found) > 0 {
			t.Errorf("%s left: %q", kind, found)
		}
	}
}

// left looks for what is there now, by kind.
func (i inventory) left(t *testing.T) map[string][]string {
	t.Helper()
	mounts, err := readMounts()
	if err != nil {
		t.Fatal(err)
	}
	var cgroups []string
	for _, root := range cgroupMounts(mounts) {
		for _, id := range i.containers {
			cgroups = append(cgroups, filepath.Join(root, cgroupParent, id))
		}
	}
	return map[string][]string{
		"processes":      i.living(),
		"mounts":         mountsUnder(mounts, i.claim.Dir),
		"namespace":      existing(i.claim.namespace().path()),
		"cgroups":        existing(cgroups...),
		"directory":      existing(i.claim.Dir),
		"claim":          existing(i.claim.folder()),
		"results of CNI": existing(matches(t, "/var/lib/cni/results/"+i.claim.Name+"-*")...),
		"links to logs":  i.linksToLogs(t),
	}
}

// living lists the processes that have not ended. A zombie has ended.
func (i inventory) living() []string {
	var living []string
	for _, pid := range i.pids {
		status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err == nil && !strings.Contains(string(status), "State:\tZ") {
			name, _, _ := strings.Cut(string(status), "\n")
			living = append(living, strconv.Itoa(pid)+" "+name)
		}
	}
	return living
}

func (i inventory) linksToLogs(t *testing.T) []string {
	t.Helper()
	var links []string
	for _, link := range matches(t, "/var/log/containers/*") {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, i.claim.Dir) {
			links = append(links, link)
		}
	}
	return links
}

func matches(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func existing(paths ...string) []string {
	var found []string
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			found = append(found, path)
		}
	}
	return found
}
