// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package apilog finds writes to reserved resources in the API server's audit log, and compares them with the audit records.
//
// The log may contain the content of Secrets. The results of this package do not: of a body they keep the identity of the object,
// and of the API server's message the sentence of the guard.
package apilog

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// MaxLine is the max length of a line in bytes. An event of level RequestResponse has two objects of up to 3 MiB each, and Go's
// JSON takes up to six bytes for one.
const MaxLine = 40 << 20

var (
	// ErrNotEvent means that a line is JSON, but not an event of audit.k8s.io/v1.
	ErrNotEvent = errors.New("not an audit.k8s.io/v1 Event")
	// ErrTooLong means that a line is longer than MaxLine.
	ErrTooLong = errors.New("line too long")
	// ErrCutOff means that a compressed file is damaged or truncated.
	ErrCutOff = errors.New("compressed file is damaged or truncated")
)

// LineError is the error of one line.
type LineError struct {
	// Line counts from 1, in the uncompressed file.
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// Events yields the events of a log in JSON lines, which may be compressed by gzip. A line may also be an EventList, the format
// of the API server's audit webhook. Blank lines are ignored. Only one line is in memory at a time.
//
// Each step yields an event or an error. After a *LineError, the next lines follow. Any other error is the last step: ErrCutOff,
// or an error of the reader.
func Events(r io.Reader) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		source, err := uncompressed(r)
		if err != nil {
			yield(nil, err)
			return
		}
		lines := &lineReader{source: source}
		for {
			line, err := lines.next()
			if err != nil && !errors.Is(err, ErrTooLong) {
				if !errors.Is(err, io.EOF) {
					yield(nil, err)
				}
				return
			}
			var events []*Event
			if err == nil {
				events, err = decodeLine(line)
			}
			for _, event := range events {
				if !yield(event, nil) {
					return
				}
			}
			if err != nil && !yield(nil, &LineError{Line: lines.count, Err: err}) {
				return
			}
		}
	}
}

// decodeLine returns the event of one line, the events of an EventList, or none for a blank line. With an error, it returns the events
// before the error.
func decodeLine(line []byte) ([]*Event, error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	document, err := rawjson.Parse(line)
	if err != nil {
		return nil, err
	}
	isList := document.Get("kind").TextIs("EventList")
	if !document.Get("apiVersion").TextIs(apiVersion) || !isList && !document.Get("kind").TextIs(kind) {
		return nil, ErrNotEvent
	}
	items := []rawjson.Value{document}
	if isList {
		items = slices.Collect(document.Get("items").Elements()) // they have no kind
	}
	var events []*Event
	for _, item := range items {
		event, err := decode(item)
		if err != nil {
			return events, err
		}
		events = append(events, event)
	}
	return events, nil
}

// uncompressed decompresses gzip, which it recognizes by the first two bytes: standard input and rotated files may have no suffix.
func uncompressed(r io.Reader) (*bufio.Reader, error) {
	source := bufio.NewReaderSize(r, 64<<10)
	magic, err := source.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, readError(err)
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return source, nil
	}
	unzipped, err := gzip.NewReader(source)
	if err != nil {
		return nil, readError(err)
	}
	return bufio.NewReaderSize(unzipped, 64<<10), nil
}

// lineReader reads lines into one buffer, which grows to the longest line.
type lineReader struct {
	source *bufio.Reader
	buffer []byte
	count  int
}

// next returns the next line, which is valid until the following call. The last line may lack its line feed. The error is io.EOF
// after the last line, ErrTooLong, ErrCutOff, or an error of the reader. With an error, next returns no line.
func (l *lineReader) next() ([]byte, error) {
	l.buffer = l.buffer[:0]
	l.count++
	tooLong := false
	for {
		part, err := l.source.ReadSlice('\n')
		if tooLong = tooLong || len(l.buffer)+len(part) > MaxLine; !tooLong {
			l.buffer = append(l.buffer, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, readError(err)
		case tooLong:
			return nil, fmt.Errorf("more than %d bytes: %w", MaxLine, ErrTooLong)
		case err != nil && len(l.buffer) == 0:
			return nil, io.EOF
		}
		return l.buffer, nil
	}
}

// readError returns ErrCutOff for a damaged file, and the wrapped error of the reader otherwise.
func readError(err error) error {
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return fmt.Errorf("%w: %w", ErrCutOff, err)
	}
	return fmt.Errorf("read audit log: %w", err)
}

// maxNamedLines is the max length of Reading.First: a file may have millions of broken lines.
const maxNamedLines = 10

var errNoAuditLog = errors.New("not a kube-apiserver audit log: no line is an audit.k8s.io/v1 Event")

// Reading is the result of reading one file.
type Reading struct {
	Events int
	// Broken is the number of lines that cannot be parsed. First has the errors of the first ten.
	Broken int
	First  []error
}

// Read adds the events of one file. It returns an error if the file is not an audit log, or if the source fails. In the latter
// case it has added the events before the error.
func (l *Log) Read(source io.Reader) (Reading, error) {
	var reading Reading
	var end error
	for event, err := range Events(source) {
		var line *LineError
		switch {
		case err == nil:
			reading.Events++
			l.Add(event)
		case !errors.As(err, &line):
			end = err
		default:
			reading.Broken++
			if len(reading.First) < maxNamedLines {
				reading.First = append(reading.First, err)
			}
		}
	}
	if reading.Events == 0 && reading.Broken > 0 {
		return Reading{}, errors.Join(fmt.Errorf("%w (%w)", errNoAuditLog, reading.First[0]), end)
	}
	return reading, end
}
