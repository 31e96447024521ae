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

// A process is a child process. A goroutine waits for its end from the start.
type process struct {
	name    string
	command *exec.Cmd
	done    chan struct{} // closed when the process has ended and was reaped
	err     error         // of command.Wait; read it only after done is closed

	// The path of the log, and its size at the start of the process, for messages.
	logPath  string
	logStart int64
}

// startProcess starts the command in a new process group. So a Ctrl-C in the terminal reaches only this program, which then ends its
// children in order.
//
// On Linux the child gets SIGKILL when its parent thread ends (see childAttributes), and the Go runtime may end a thread whose
// goroutine has ended. Therefore one goroutine starts the child and waits for it, locked to its thread.
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

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop sends SIGTERM, kills the process if it has not ended after grace, and waits for its end. It may be called more than once, and
// on a nil process.
func (p *process) stop(grace time.Duration) {
	if p == nil {
		return
	}
	// os.Process does not signal a reaped process, so no other process with a reused PID gets the signal.
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

// failure returns an error with the reason and the end of the process's log.
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

// tailBytes is the max size of a log in an error: about 20 to 40 lines of Kubernetes and etcd.
const tailBytes = 6 << 10

// logTail returns the end of a log file after the offset. If the log cannot be read, it returns the error as text.
func logTail(path string, offset int64) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		return []byte("(" + err.Error() + ")")
	}
	return lastLines(content[min(offset, int64(len(content))):])
}

// lastLines returns the complete lines in the last tailBytes of text.
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
