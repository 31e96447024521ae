// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// namePrefix begins the name of all that a node has on the machine.
	namePrefix = "apigw-node-"
	// claimsFolder holds one directory per node. It is short, because containerd's sockets, whose paths the kernel bounds, lie in
	// there.
	claimsFolder = "/run/apigw-node"
	// claimsLock is held while a process adds or removes a claim.
	claimsLock = "/run/lock/apigw-node"
	lockPoll   = 50 * time.Millisecond
)

// A claim says what a node has on the machine, in a file that outlives the program. The program holds a lock on the file as
// long as it lives: the kernel releases it however the program ends, and no reused process id can be mistaken for it.
type claim struct {
	// Name is that of the network namespace, and begins those of CNI's files.
	Name string
	// Dir is the directory of all else.
	Dir string
	// Tunables are the values that the kernel settings which kubelet changes had before the first node.
	Tunables map[string]string

	file *os.File // locked
}

func (c *claim) namespace() namespace { return namespace(c.Name) }

// directory holds the claim's file and the sockets of containerd's shims.
func (c *claim) folder() string {
	return filepath.Join(claimsFolder, strings.TrimPrefix(c.Name, namePrefix))
}

func (c *claim) shimSockets() string { return filepath.Join(c.folder(), "s") }

// newClaim makes a claim with a new name, and the directories that it names.
func newClaim(ctx context.Context) (*claim, error) {
	unlock, err := lockClaims(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	name := namePrefix + strconv.Itoa(os.Getpid()) + "-" + strings.ToLower(rand.Text()[:6])
	c := &claim{Name: name, Dir: filepath.Join(os.TempDir(), name)}
	if c.Tunables, err = originalTunables(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.shimSockets(), 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the node's claim: %w", err)
	}
	if err := c.write(); err != nil {
		return nil, errors.Join(err, c.release())
	}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("make the directory of the node: %w", err), c.release())
	}
	return c, nil
}

func (c *claim) write() error {
	content, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("encode the claim: %w", err)
	}
	if c.file, err = os.OpenFile(claimFile(c.folder()), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("create the claim: %w", err)
	}
	if err := unix.Flock(int(c.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock the claim: %w", err)
	}
	if _, err := c.file.Write(content); err != nil {
		return fmt.Errorf("write the claim: %w", err)
	}
	return nil
}

// release gives the claim up. The caller holds the lock of the claims.
func (c *claim) release() error {
	err := os.RemoveAll(c.folder())
	if c.file != nil {
		_ = c.file.Close()
	}
	_ = os.Remove(claimsFolder) // unless another claim is there
	if err != nil {
		return fmt.Errorf("remove the claim: %w", err)
	}
	return nil
}

func claimFile(folder string) string { return filepath.Join(folder, "claim.json") }

// readClaims returns all claims on this machine, of living owners and others. A directory without a whole claim belongs to a
// program that was killed before it had anything else.
func readClaims() ([]*claim, error) {
	entries, err := os.ReadDir(claimsFolder)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the claims: %w", err)
	}
	var claims []*claim
	for _, entry := range entries {
		c := &claim{}
		content, err := os.ReadFile(claimFile(filepath.Join(claimsFolder, entry.Name())))
		if err == nil {
			err = json.Unmarshal(content, c)
		}
		if err != nil || c.Name != namePrefix+entry.Name() {
			c = &claim{Name: namePrefix + entry.Name()}
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// takeOver locks the claim of an owner that is gone, and tells whether it is.
func (c *claim) takeOver() bool {
	file, err := os.OpenFile(claimFile(c.folder()), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		return false
	}
	c.file = file
	return true
}

// lockClaims waits until ctx ends for the lock of the claims.
func lockClaims(ctx context.Context) (unlock func(), err error) {
	file, err := os.OpenFile(claimsLock, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the claims: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for the lock %s: %w", claimsLock, context.Cause(ctx)), err, file.Close())
		case <-time.After(lockPoll):
		}
	}
}
