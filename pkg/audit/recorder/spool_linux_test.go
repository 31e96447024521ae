// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fullFile returns a file that takes one page, and then refuses more, as a disk does that gets full.
func fullFile(t *testing.T) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("full", unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "full")
	t.Cleanup(func() { _ = file.Close() })
	if err := file.Truncate(int64(os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		t.Fatal(err)
	}
	return file
}

// Half a line would make the next one unreadable.
func TestAWriteThatEndsHalfwayLeavesNoHalfLine(t *testing.T) {
	s, _, _, err := openSpool(t.TempDir(), maxSpoolBytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s.file = fullFile(t)
	if _, err := s.write(bytes.Repeat([]byte("x"), 2*os.Getpagesize())); !errors.Is(err, unix.EPERM) {
		t.Fatalf("got %v, want EPERM", err)
	}
	info, err := s.file.Stat()
	if err != nil || info.Size() != 0 || s.bytes() != 0 {
		t.Errorf("the file has %d bytes, and the spool counts %d (%v), want none", info.Size(), s.bytes(), err)
	}
}
