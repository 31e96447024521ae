// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestChildrenEndWithTheirKilledParent runs this test binary again as a parent that starts a child, and kills the parent with
// SIGKILL. The child holds the writing end of a pipe, which closes when the child ends.
func TestChildrenEndWithTheirKilledParent(t *testing.T) {
	if os.Getenv("TESTBED_ACT_AS_PARENT") != "" {
		actAsParent()
	}
	held, holder, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	parent.Env = append(os.Environ(), "TESTBED_ACT_AS_PARENT=1")
	parent.ExtraFiles = []*os.File{holder}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = parent.Wait() }()
	if err := holder.Close(); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(held)
	if line, err := reader.ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("the child says %q, %v; want up", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := held.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.ReadString('\n'); !errors.Is(err, io.EOF) {
		t.Errorf("the child outlived its parent: %v", err)
	}
}

// actAsParent starts a child from a goroutine that ends, and then waits until it is killed.
func actAsParent() {
	command := exec.Command("sh", "-c", "echo up >&3; exec sleep 100")
	command.ExtraFiles = []*os.File{os.NewFile(3, "holder")}
	if _, err := startProcess("child", command); err != nil {
		panic(err)
	}
	select {}
}
