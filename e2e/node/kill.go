// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killAll ends every process of the node: all in its network namespace (the shims among them, which have no living parent),
// and all in its containers' cgroups, which are in namespaces of their own. It returns once they are gone.
func (c *claim) killAll(ctx context.Context, containers []string) error {
	member, err := c.membership(containers)
	if err != nil {
		return err
	}
	for {
		pids, err := processesThat(member)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			kill(pid, member)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the processes %v do not end: %w", pids, context.Cause(ctx))
		case <-time.After(cleanPoll):
		}
	}
}

// membership returns what tells whether a process belongs to the node.
func (c *claim) membership(containers []string) (func(pid int) bool, error) {
	own, err := namespaceID(c.namespace().path())
	if err != nil {
		return nil, err
	}
	return func(pid int) bool {
		folder := filepath.Join("/proc", strconv.Itoa(pid))
		id, err := namespaceID(filepath.Join(folder, "ns", "net"))
		if err == nil && own != (fileID{}) && id == own {
			return true
		}
		cgroups, err := os.ReadFile(filepath.Join(folder, "cgroup"))
		return err == nil && inContainer(string(cgroups), containers)
	}, nil
}

// inContainer tells whether a process with this /proc/PID/cgroup is in one of the containers.
func inContainer(cgroups string, containers []string) bool {
	for _, id := range containers {
		if strings.Contains(cgroups, ":/"+cgroupParent+"/"+id) {
			return true
		}
	}
	return false
}

// A fileID tells one namespace from another. The zero value is none.
type fileID struct{ device, inode uint64 }

// namespaceID identifies the namespace behind a file. An absent file has none.
func namespaceID(path string) (fileID, error) {
	var status unix.Stat_t
	err := unix.Stat(path, &status)
	if errors.Is(err, unix.ENOENT) {
		return fileID{}, nil
	}
	if err != nil {
		return fileID{}, fmt.Errorf("look at the namespace %s: %w", path, err)
	}
	return fileID{device: status.Dev, inode: status.Ino}, nil
}

// processesThat lists the processes for which member is true, without this one, a thread of which may be dialing.
func processesThat(member func(pid int) bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && pid != os.Getpid() && member(pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// kill sends SIGKILL to the process if it is still a member. On Linux an os.Process holds a pidfd, so that a process which
// got the same id in the meantime is not hit.
func kill(pid int, member func(pid int) bool) {
	process, err := os.FindProcess(pid)
	if err != nil {
		return
	}
	defer func() { _ = process.Release() }()
	if member(pid) {
		_ = process.Kill() // it may have ended by itself
	}
}
