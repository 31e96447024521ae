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
)

// SpoolBytes is how large the spool may grow: about 25 000 counted writes between two compactions, and as many records
// waiting for the API server as the recorder holds in memory.
const SpoolBytes = 32 << 20

// maxLine bounds a line when it is read back: a record's texts are bounded, and its counts are few in a spool.
const maxLine = 1 << 20

// spoolName is the one file in the spool's folder.
const spoolName = "audit.jsonl"

// ErrSpoolInUse says that another process holds the folder: two guards must not share one.
var ErrSpoolInUse = errors.New("the spool folder is in use by another process; give each replica its own")

// errSpoolFull says that a line would make the spool larger than it may be.
var errSpoolFull = errors.New("the spool is full")

// spool is a file of records that are counted and perhaps not stored yet, one a line. A line stands for all lines of the
// same record before it. It is safe for concurrent use.
type spool struct {
	folder string
	most   int64

	mu      sync.Mutex // guards the file's end
	file    *os.File
	size    int64
	written uint64 // lines so far, over all files

	syncing sync.Mutex // held by the one that waits for the disk; the others' lines go with it
	synced  uint64     // lines that are on the disk
}

// openSpool opens the folder's spool, which it creates, and returns what is in it. A line that cannot be read, such as the
// last one of a machine that lost power, is counted as broken.
func openSpool(folder string, most int64) (s *spool, records []*v1alpha1.AuditRecord, broken int, err error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, nil, 0, fmt.Errorf("make the spool folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(folder, spoolName), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("open the spool: %w", err)
	}
	if err := lock(file); err != nil {
		_ = file.Close()
		return nil, nil, 0, fmt.Errorf("lock the spool in %q: %w", folder, err)
	}
	records, broken, err = readSpool(file)
	if err != nil {
		_ = file.Close()
		return nil, nil, 0, fmt.Errorf("read the spool: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, nil, 0, fmt.Errorf("read the spool: %w", err)
	}
	return &spool{folder: folder, most: most, file: file, size: info.Size()}, records, broken, nil
}

func readSpool(file *os.File) (records []*v1alpha1.AuditRecord, broken int, err error) {
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		record := &v1alpha1.AuditRecord{}
		if err := json.Unmarshal(lines.Bytes(), record); err != nil || record.Name == "" || len(record.Spec.Counts) == 0 {
			broken++
			continue
		}
		records = append(records, record)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) { // not a line of ours, and nothing behind it can be found
		return records, broken + 1, nil
	}
	return records, broken, lines.Err()
}

// add writes records and returns when they are on the disk. The error is errSpoolFull, or the disk's.
func (s *spool) add(records ...*v1alpha1.AuditRecord) error {
	lines, err := encode(records)
	if err != nil {
		return err
	}
	ticket, err := s.write(lines, len(records))
	if err != nil {
		return err
	}
	return s.sync(ticket)
}

func encode(records []*v1alpha1.AuditRecord) ([]byte, error) {
	var lines bytes.Buffer
	encoder := json.NewEncoder(&lines)
	for _, record := range records {
		if err := encoder.Encode(record); err != nil {
			return nil, fmt.Errorf("encode audit record %q: %w", record.Name, err)
		}
	}
	return lines.Bytes(), nil
}

func (s *spool) write(lines []byte, count int) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+int64(len(lines)) > s.most {
		return 0, errSpoolFull
	}
	n, err := s.file.Write(lines)
	s.size += int64(n)
	if err != nil {
		_ = s.file.Truncate(s.size - int64(n)) // half a line would spoil the next one, too
		s.size -= int64(n)
		return 0, fmt.Errorf("write the spool: %w", err)
	}
	s.written += uint64(count) //nolint:gosec // a count of lines is not negative
	return s.written, nil
}

// sync waits until all lines up to the ticket are on the disk. Those that wait together share one trip.
func (s *spool) sync(ticket uint64) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if s.synced >= ticket {
		return nil
	}
	s.mu.Lock()
	written, file := s.written, s.file
	s.mu.Unlock()
	if err := datasync(file); err != nil {
		return fmt.Errorf("write the spool to the disk: %w", err)
	}
	s.synced = written
	return nil
}

// emptyIf forgets every line if nothing waits to be stored: no line is added between the question and the answer. After a
// crash the lines may be back, and are stored again, which changes nothing.
func (s *spool) emptyIf(allStored func() bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == 0 || !allStored() {
		return nil
	}
	if err := s.file.Truncate(0); err != nil {
		return fmt.Errorf("empty the spool: %w", err)
	}
	s.size = 0
	return nil
}

// compact puts what waits to be stored in place of all lines, in a new file that takes the old one's name once it is on the
// disk. The error is errSpoolFull, or the disk's; the old file then stays.
func (s *spool) compact(waiting func() []*v1alpha1.AuditRecord) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	lines, err := encode(waiting())
	if err != nil {
		return err
	}
	if int64(len(lines)) > s.most/2 { // a file that is as good as full would be compacted at every line
		return errSpoolFull
	}
	file, err := s.newFile(lines)
	if err != nil {
		return fmt.Errorf("compact the spool: %w", err)
	}
	_ = s.file.Close()
	s.file, s.size, s.synced = file, int64(len(lines)), s.written
	return nil
}

// newFile writes, syncs and locks the file before it is renamed: a crash leaves the old one or the new one.
func (s *spool) newFile(lines []byte) (*os.File, error) {
	path := filepath.Join(s.folder, spoolName)
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(lines)
	if err = errors.Join(err, file.Sync(), lock(file)); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, syncFolder(s.folder)
}

func syncFolder(folder string) error {
	opened, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(opened.Sync(), opened.Close())
}

// bytes returns the size of the file.
func (s *spool) bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

func (s *spool) close() error { return s.file.Close() }
