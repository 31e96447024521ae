// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package siege attacks a running guard as a Pod without a credential can, and as users of the API server can, and tells what
// honest callers get meanwhile.
package siege

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNoCage says that this process cannot limit the memory of another: that needs root and a cgroup file system.
var ErrNoCage = errors.New("no cgroup with a memory limit can be made here")

// Cage is a cgroup with a memory limit.
type Cage struct {
	dir, events string
	script      string
}

// NewCage makes a cgroup of that many bytes. The error wraps ErrNoCage. The caller calls Remove.
func NewCage(bytes int) (*Cage, error) {
	const root = "/sys/fs/cgroup"
	name := "apigw-guardian-siege-" + strconv.Itoa(os.Getpid())
	tries := []struct{ dir, limit, events string }{
		{filepath.Join(root, name), "memory.max", "memory.events"},
		{filepath.Join(root, "memory", name), "memory.limit_in_bytes", "memory.oom_control"},
	}
	var reasons []error
	for _, try := range tries {
		if _, err := os.Stat(filepath.Join(filepath.Dir(try.dir), "cgroup.procs")); err != nil {
			reasons = append(reasons, err)
			continue
		}
		if err := os.Mkdir(try.dir, 0o755); err != nil {
			reasons = append(reasons, err)
			continue
		}
		c := &Cage{dir: try.dir, events: filepath.Join(try.dir, try.events)}
		err := os.WriteFile(filepath.Join(try.dir, try.limit), []byte(strconv.Itoa(bytes)), 0o600)
		if err == nil {
			return c, nil
		}
		reasons = append(reasons, err, c.Remove())
	}
	return nil, fmt.Errorf("%w: %w", ErrNoCage, errors.Join(reasons...))
}

// Wrap returns a program that runs the given one in the cage.
func (c *Cage) Wrap(program string) (string, error) {
	file, err := os.CreateTemp("", "caged-*")
	if err != nil {
		return "", fmt.Errorf("write a script: %w", err)
	}
	c.script = file.Name()
	_, err = fmt.Fprintf(file, "#!/bin/sh\necho $$ > '%s/cgroup.procs' && exec '%s' \"$@\"\n", c.dir, program)
	if err := errors.Join(err, file.Chmod(0o700), file.Close()); err != nil {
		return "", fmt.Errorf("write a script: %w", err)
	}
	return c.script, nil
}

// Kills returns how many processes the kernel has killed for want of memory.
func (c *Cage) Kills() (int, error) {
	events, err := os.ReadFile(c.events)
	if err != nil {
		return 0, fmt.Errorf("read the cage's events: %w", err)
	}
	for line := range strings.Lines(string(events)) {
		if count, found := strings.CutPrefix(line, "oom_kill "); found {
			return strconv.Atoi(strings.TrimSpace(count))
		}
	}
	return 0, fmt.Errorf("%s has no oom_kill", c.events)
}

// Remove removes the cage, which must be empty.
func (c *Cage) Remove() error {
	if c.script != "" {
		_ = os.Remove(c.script) // it is in the temporary directory
	}
	return os.Remove(c.dir)
}
