// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

const (
	// maxSpoolBytes is the default bound: about 25,000 lines, and as many waiting records as the recorder holds in memory.
	maxSpoolBytes = 32 << 20
	// volumePart divides the volume: a spool fills half of it at most, because a compaction writes half a spool more.
	volumePart = 2
	// maxLine bounds a line that is read. A record's texts are bounded, and it has few counts in a spool.
	maxLine = 1 << 20
	// spoolName is the one file in the spool directory.
	spoolName = "audit.jsonl"
)

var (
	errSpoolInUse = errors.New("the spool directory is in use by another process: give each replica its own")
	errSpoolFull  = errors.New("the spool is full")
)

// spool is a file of records, one per line; a later line of a record replaces earlier ones. It is safe for concurrent use.
type spool struct {
	directory string
	maxBytes  int64
	datasync  func(*os.File) error

	mu      sync.Mutex // guards the file's end
	file    *os.File
	size    int64
	written uint64 // lines so far, over all files

	syncing sync.Mutex // held while waiting for the disk
	synced  uint64     // lines that are on the disk
}

// openSpool opens or creates the spool and returns its records, one for each name. A line that cannot be parsed is broken: a power
// failure may cut it.
func openSpool(directory string, maxBytes int64) (s *spool, records []*v1alpha1.AuditRecord, broken int, err error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, nil, 0, fmt.Errorf("make the spool directory: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(directory, spoolName), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("open the spool: %w", err)
	}
	s = &spool{directory: directory, maxBytes: maxBytes, datasync: datasync, file: file}
	if records, broken, err = s.load(); err != nil {
		_ = file.Close()
		return nil, nil, 0, fmt.Errorf("open the spool in %q: %w", directory, err)
	}
	return s, records, broken, nil
}

func (s *spool) load() (records []*v1alpha1.AuditRecord, broken int, err error) {
	if err := lock(s.file); err != nil {
		return nil, 0, err
	}
	info, err := s.file.Stat()
	if err != nil {
		return nil, 0, err
	}
	s.size = info.Size()
	at := map[string]int{}
	lines := bufio.NewScanner(s.file)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		record := &v1alpha1.AuditRecord{}
		if err := json.Unmarshal(lines.Bytes(), record); err != nil || record.Name == "" || len(record.Spec.Counts) == 0 {
			broken++
			continue
		}
		if i, found := at[record.Name]; found { // a full spool has many lines of a record: memory holds one
			audit.Merge(records[i], record)
			continue
		}
		at[record.Name] = len(records)
		records = append(records, record)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) { // the guard did not write it, and the lines after it are lost
		return records, broken + 1, nil
	}
	return records, broken, lines.Err()
}

// encode returns a line for each record.
func encode(records ...*v1alpha1.AuditRecord) []byte {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, record := range records {
		_ = encoder.Encode(record) // texts, numbers and times, which JSON can hold
	}
	return lines.Bytes()
}

// write writes a line and returns its number. The error may be errSpoolFull.
func (s *spool) write(line []byte) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+int64(len(line)) > s.maxBytes {
		return 0, errSpoolFull
	}
	if _, err := s.file.Write(line); err != nil {
		_ = s.file.Truncate(s.size) // half a line would break the next one too
		return 0, fmt.Errorf("write the spool: %w", err)
	}
	s.size += int64(len(line))
	s.written++
	return s.written, nil
}

// sync returns when the line is on the disk. Callers that wait together share one sync.
func (s *spool) sync(line uint64) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.synced >= line {
		return nil
	}
	s.mu.Lock()
	written, file := s.written, s.file
	s.mu.Unlock()
	if err := s.datasync(file); err != nil {
		return fmt.Errorf("sync the spool: %w", err)
	}
	s.synced = written
	return nil
}

// syncAll returns when all lines so far are on the disk.
func (s *spool) syncAll() error {
	s.mu.Lock()
	written := s.written
	s.mu.Unlock()
	return s.sync(written)
}

// emptyIf removes every line if all records are stored. Lines that return after a crash are stored again, which changes nothing.
func (s *spool) emptyIf(allStored func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == 0 || !allStored() {
		return nil
	}
	if err := s.file.Truncate(0); err != nil {
		return err
	}
	s.size = 0
	return nil
}

// compact replaces all lines by the waiting records, in a new file that then gets the name. The error may be errSpoolFull.
func (s *spool) compact(waiting func() []*v1alpha1.AuditRecord) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := encode(waiting()...)
	if int64(len(lines)) > s.maxBytes/2 { // a nearly full file would be compacted at every line
		return errSpoolFull
	}
	file, err := s.newFile(lines)
	if err != nil {
		return fmt.Errorf("compact the spool: %w", err)
	}
	_ = s.file.Close()
	s.file, s.size, s.synced = file, int64(len(lines)), s.written
	return syncDirectory(s.directory)
}

// newFile syncs and locks the file before it renames it: after a crash, the old file or the new one is there.
func (s *spool) newFile(lines []byte) (*os.File, error) {
	path := filepath.Join(s.directory, spoolName)
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(lines)
	if err = errors.Join(err, s.datasync(file), lock(file)); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

func syncDirectory(path string) error {
	opened, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}

func (s *spool) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

func (s *spool) close() error { return s.file.Close() }
