// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackagesAreThoseOfTheRequirements(t *testing.T) {
	content, err := os.ReadFile("packages.txt")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, r := range requirements() {
		want = append(want, r.debian)
	}
	slices.Sort(want)
	if diff := cmp.Diff(slices.Compact(want), strings.Fields(string(content))); diff != "" {
		t.Errorf("packages.txt (-want +got):\n%s", diff)
	}
}

func TestMissingProgramsNamesTheDebianPackage(t *testing.T) {
	got := missingPrograms([]requirement{
		{program: "/no/such/program", debian: "first"},
		{program: "no-such-program", debian: "second"},
		{program: "sh", debian: "third"},
	})
	want := []string{
		"/no/such/program is missing: install the Debian package first",
		"no-such-program is missing: install the Debian package second",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("missing (-want +got):\n%s", diff)
	}
}

func TestParseMountReadsTheKernelsLines(t *testing.T) {
	tests := map[string]struct {
		line string
		want mount
		ok   bool
	}{
		"a mount with an optional field": {
			line: "36 35 98:0 / /mnt rw,noatime shared:1 - ext4 /dev/root rw\n",
			want: mount{path: "/mnt", kind: "ext4"}, ok: true,
		},
		"a mount without one": {
			line: "25 24 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			want: mount{path: "/sys/fs/cgroup", kind: "cgroup2"}, ok: true,
		},
		"a space and a backslash in the path": {
			line: `36 35 98:0 / /a\040b\134c rw - tmpfs tmpfs rw`,
			want: mount{path: `/a b\c`, kind: "tmpfs"}, ok: true,
		},
		"a backslash that begins nothing is kept": {
			line: `36 35 98:0 / /a\9 rw - tmpfs tmpfs rw`,
			want: mount{path: `/a\9`, kind: "tmpfs"}, ok: true,
		},
		"a line without the hyphen is skipped": {line: "36 35 98:0 / /mnt rw"},
		"an empty line is skipped":             {line: ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, ok := parseMount(test.line)
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(mount{})); diff != "" || ok != test.ok {
				t.Errorf("ok = %v, mount (-want +got):\n%s", ok, diff)
			}
		})
	}
}

func TestMountsUnderListsTheDeepestFirstAndNoNeighbour(t *testing.T) {
	mounts := []mount{{path: "/t/node"}, {path: "/t/node/a"}, {path: "/t/node/a/b"}, {path: "/t/node2/c"}}
	want := []string{"/t/node/a/b", "/t/node/a"}
	if diff := cmp.Diff(want, mountsUnder(mounts, "/t/node")); diff != "" {
		t.Errorf("mounts (-want +got):\n%s", diff)
	}
}

func TestInContainerLooksAtEveryHierarchy(t *testing.T) {
	containers := []string{"aaa", "bbb"}
	tests := map[string]struct {
		cgroups string
		want    bool
	}{
		"version 1, in the second hierarchy": {cgroups: "9:name=systemd:/\n8:pids:/k8s.io/bbb\n", want: true},
		"version 2":                          {cgroups: "0::/k8s.io/aaa\n", want: true},
		"below the container's":              {cgroups: "0::/k8s.io/aaa/child\n", want: true},
		"another container":                  {cgroups: "0::/k8s.io/ccc\n", want: false},
		"the root":                           {cgroups: "0::/\n", want: false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := inContainer(test.cgroups, containers); got != test.want {
				t.Errorf("inContainer = %v, want %v", got, test.want)
			}
		})
	}
}
