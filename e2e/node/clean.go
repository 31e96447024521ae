// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	// cleanTimeout bounds the removal of one node. Killed processes and their cgroups are gone within milliseconds.
	cleanTimeout = 30 * time.Second
	cleanPoll    = 20 * time.Millisecond

	// cgroupParent is where containerd puts the cgroup of each container if kubelet names no parent, which it does not
	// without cgroupsPerQOS. It is the name of containerd's namespace, the same for every node of the machine.
	cgroupParent = "k8s.io"
)

// Sweep removes what nodes have left whose programs were killed: processes, mounts, network namespaces, cgroups, files.
// Nodes of living programs are left alone. It needs root.
func Sweep(ctx context.Context) error {
	unlock, err := lockClaims(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	claims, err := readClaims()
	if err != nil {
		return err
	}
	var failed []error
	for _, c := range claims {
		if c.takeOver() {
			failed = append(failed, c.clean(ctx, removeFolder))
		}
	}
	return errors.Join(failed...)
}

// A folderFate says what becomes of a node's directory.
type folderFate int

const (
	removeFolder folderFate = iota
	keepFolder
)

// clean removes everything that the claim names, and then the claim. The caller holds the lock of the claims.
// The order matters: a process holds mounts and cgroups, a mount holds directories, and containerd's state names the containers.
func (c *claim) clean(ctx context.Context, fate folderFate) error {
	ctx, cancel := context.WithTimeoutCause(ctx, cleanTimeout, fmt.Errorf("it took more than %v", cleanTimeout))
	defer cancel()
	err := c.cleanSteps(ctx, fate)
	if err != nil {
		return fmt.Errorf("clean up the node %s: %w", c.Name, err)
	}
	return c.release()
}

func (c *claim) cleanSteps(ctx context.Context, fate folderFate) error {
	containers, err := c.containers()
	if err != nil {
		return err
	}
	if err := c.killAll(ctx, containers); err != nil {
		return err
	}
	err = errors.Join(
		removeCgroups(ctx, containers),
		c.namespace().remove(),
		c.restoreTunables(),
		c.removeForeignFiles())
	if c.Dir == "" {
		return err
	}
	if err := errors.Join(err, unmountUnder(c.Dir)); err != nil {
		return err
	}
	if fate == keepFolder {
		return nil
	}
	if err := os.RemoveAll(c.Dir); err != nil {
		return fmt.Errorf("remove the directory of the node: %w", err)
	}
	return nil
}

// containers lists the ids of the containers that containerd knows to run; sandboxes are such too.
func (c *claim) containers() ([]string, error) {
	if c.Dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(c.Dir, "containerd", "state", "io.containerd.runtime.v2.task", cgroupParent))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the containers: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		ids = append(ids, entry.Name())
	}
	return ids, nil
}

// removeForeignFiles removes the files that CNI and kubelet write into directories which no setting moves: results of CNI by the
// name of the network, links to logs by where they lead.
func (c *claim) removeForeignFiles() error {
	results, err := filepath.Glob("/var/lib/cni/results/" + c.Name + "-*")
	if err != nil {
		return fmt.Errorf("list the results of CNI: %w", err)
	}
	links, err := filepath.Glob("/var/log/containers/*.log")
	if err != nil {
		return fmt.Errorf("list the links to logs: %w", err)
	}
	for _, link := range links {
		target, err := os.Readlink(link)
		if err == nil && c.Dir != "" && strings.HasPrefix(target, c.Dir+"/") {
			results = append(results, link)
		}
	}
	var failed []error
	for _, path := range results {
		failed = append(failed, ignoreAbsent(os.Remove(path)))
	}
	return errors.Join(failed...)
}

func ignoreAbsent(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// removeCgroups removes the containers' cgroups in every hierarchy, and their parent if that leaves it empty.
func removeCgroups(ctx context.Context, containers []string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	var failed []error
	for _, root := range cgroupMounts(mounts) {
		parent := filepath.Join(root, cgroupParent)
		for _, id := range containers {
			failed = append(failed, removeCgroup(ctx, filepath.Join(parent, id)))
		}
		_ = os.Remove(parent) // unless another node's containers are there
	}
	return errors.Join(failed...)
}

// removeCgroup removes a cgroup and those below, as soon as the kernel has noticed that its processes have ended.
func removeCgroup(ctx context.Context, path string) error {
	for {
		err := removeCgroupTree(path)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("remove a cgroup: %w", context.Cause(ctx)), err)
		case <-time.After(cleanPoll):
		}
	}
}

func removeCgroupTree(path string) error {
	var folders []string
	err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return ignoreAbsent(err)
	})
	for i := len(folders) - 1; i >= 0 && err == nil; i-- {
		err = ignoreAbsent(os.Remove(folders[i]))
	}
	return err
}
