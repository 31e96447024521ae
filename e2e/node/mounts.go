// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is one line of /proc/self/mountinfo: see proc_pid_mountinfo(5).
type mount struct{ path, kind string }

// readMounts returns the mounts of this process, an earlier one before those that lie on it.
func readMounts() ([]mount, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mounts: %w", err)
	}
	var mounts []mount
	for line := range strings.Lines(string(content)) {
		if m, ok := parseMount(line); ok {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

// parseMount reads the mount point, the fifth field, and the type, the first after a lone hyphen.
func parseMount(line string) (mount, bool) {
	head, tail, found := strings.Cut(line, " - ")
	fields, rest := strings.Fields(head), strings.Fields(tail)
	if !found || len(fields) < 5 || len(rest) == 0 {
		return mount{}, false
	}
	return mount{path: unescapeOctal(fields[4]), kind: rest[0]}, true
}

// unescapeOctal undoes the kernel's way of writing spaces, tabs, line ends and backslashes: \040.
func unescapeOctal(text string) string {
	var plain strings.Builder
	for {
		before, after, found := strings.Cut(text, `\`)
		plain.WriteString(before)
		if !found {
			return plain.String()
		}
		value, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8)
		if err != nil || len(after) < 3 {
			plain.WriteByte('\\')
			text = after
			continue
		}
		plain.WriteByte(byte(value))
		text = after[3:]
	}
}

// cgroupMounts are the roots of the cgroup hierarchies: one of version 2, and any number of version 1.
func cgroupMounts(mounts []mount) []string {
	var roots []string
	for _, m := range mounts {
		if m.kind == "cgroup" || m.kind == "cgroup2" {
			roots = append(roots, m.path)
		}
	}
	return roots
}

// mountsUnder lists the mounts below a directory, the last and deepest first.
func mountsUnder(mounts []mount, folder string) []string {
	var paths []string
	for _, m := range mounts {
		if strings.HasPrefix(m.path, folder+"/") {
			paths = append(paths, m.path)
		}
	}
	slices.Reverse(paths)
	return paths
}

// unmountUnder unmounts all that is mounted below a directory. What is still busy is detached.
func unmountUnder(folder string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	var failed []error
	for _, path := range mountsUnder(mounts, folder) {
		failed = append(failed, unmount(path))
	}
	return errors.Join(failed...)
}

func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	// EINVAL: not, or no longer, a mount.
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	return nil
}
