// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A process is a child that is waited for from its first moment, so that its end is always known.
type process struct {
	name    string
	command *exec.Cmd
	done    chan struct{} // closed once the process has ended and was reaped
	err     error         // why it ended; only to be read after done is closed

	// Where a component writes, and where in that file this process began; for messages.
	logPath  string
	logStart int64
}

// startProcess starts the command in a new process group, so that a Ctrl-C in the terminal reaches this
// program only and the children are ended in order.
//
// On Linux the child gets SIGKILL when its parent dies (see childAttributes). The kernel means by that the parent
// thread, not the process, and the Go runtime may end a thread whose goroutine is gone. So one goroutine starts the
// child and waits for it, locked to its thread the whole time: the thread lives as long as the child does.
func startProcess(name string, command *exec.Cmd) (*process, error) {
	command.SysProcAttr = childAttributes()
	started := make(chan error)
	p := &process{name: name, command: command, done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			p.err = command.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// ended tells whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the process to end, kills it if it has not ended after grace, and returns once it is gone. It may be
// called more than once, and on a nil process.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	// os.Process refuses to signal a process that was reaped, so a reused pid is never hit; the error means just that.
	_ = p.command.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.command.Process.Kill()
		<-p.done
	}
}

// failure describes how the process ended or why it is not ready, with the end of its log.
func (p *process) failure(reason error) error {
	tail := logTail(p.logPath, p.logStart)
	if bytes.Contains(tail, []byte("address already in use")) && p.ended() {
		reason = errors.Join(errPortTaken, reason)
	}
	return fmt.Errorf("%s: %w; the end of its log %s:\n%s", p.name, reason, p.logPath, tail)
}

func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", pid, err)
	}
	return nil
}

// tailBytes of a log are some 20 to 40 lines of Kubernetes' and etcd's.
const tailBytes = 6 << 10

// logTail is the end of what a log file holds from the offset on. A log that cannot be read is described in its place.
func logTail(path string, offset int64) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		return []byte("(" + err.Error() + ")")
	}
	return lastLines(content[min(offset, int64(len(content))):])
}

// lastLines cuts text to its last tailBytes, without the line that this breaks.
func lastLines(text []byte) []byte {
	text = bytes.TrimSpace(text)
	if len(text) <= tailBytes {
		return text
	}
	text = text[len(text)-tailBytes:]
	if _, rest, found := bytes.Cut(text, []byte("\n")); found {
		return rest
	}
	return text
}
