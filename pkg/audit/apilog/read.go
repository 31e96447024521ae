// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package apilog reads the API server's audit log, and says what it tells about writes to reserved resources and how that
// agrees with the audit records.
//
// The log may hold the content of Secrets. What this package returns never does: of a body it keeps who the object is, and
// of the API server's message the guard's own sentence.
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

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// MaxLine bounds a line. An event of level RequestResponse holds two objects of up to 3 MiB each, and JSON as Go writes it
// takes up to six bytes for one.
const MaxLine = 40 << 20

var (
	// ErrNotEvent says that a line is JSON, and no event of audit.k8s.io/v1.
	ErrNotEvent = errors.New(`no event of the API server's audit log, which have "kind": "Event" and "apiVersion": "audit.k8s.io/v1"`)
	// ErrTooLong says that a line is longer than MaxLine.
	ErrTooLong = errors.New("longer than any event")
	// ErrCutOff says that a compressed file ends too soon, or is damaged.
	ErrCutOff = errors.New("the compressed file is damaged or ends too soon")
)

// LineError says which line could not be read.
type LineError struct {
	// Line counts from 1, in the file as it is without its compression.
	Line int
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

func (e *LineError) Unwrap() error { return e.Err }

// Events yields the events of a log, one after the other: JSON lines, compressed by gzip or not. An Event is nil where there
// is an error. A *LineError is about one line, and the lines behind it follow; any other error is the last that is yielded:
// ErrCutOff, or one of the reader. A line is held in memory one at a time; a line may also be an EventList, as the API
// server posts them to a webhook. Blank lines are no error.
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
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.Is(err, ErrTooLong):
				err = &LineError{Line: lines.count, Err: err}
			case err != nil:
				yield(nil, err)
				return
			}
			if !yieldLine(yield, lines.count, line, err) {
				return
			}
		}
	}
}

// yieldLine yields what one line holds, and reports whether to go on.
func yieldLine(yield func(*Event, error) bool, number int, line []byte, err error) bool {
	if err != nil {
		return yield(nil, err)
	}
	events, err := decodeLine(line)
	for _, event := range events {
		if !yield(event, nil) {
			return false
		}
	}
	return err == nil || yield(nil, &LineError{Line: number, Err: err})
}

// decodeLine returns the events of one line; none of a blank one. With an error, it returns those ahead of what is wrong.
func decodeLine(line []byte) ([]*Event, error) {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, nil
	}
	document, err := rawjson.Parse(line)
	if err != nil {
		return nil, err
	}
	if document.Get("kind").TextIs("EventList") {
		return decodeList(document)
	}
	event, err := decode(document)
	if err != nil {
		return nil, err
	}
	return []*Event{event}, nil
}

// decodeList reads the items of a list, which bear no kind of their own.
func decodeList(list rawjson.Value) ([]*Event, error) {
	if !list.Get("apiVersion").TextIs(apiVersion) {
		return nil, ErrNotEvent
	}
	var events []*Event
	for item := range list.Get("items").Elements() {
		event, err := decodeItem(item)
		if err != nil {
			return events, err
		}
		events = append(events, event)
	}
	return events, nil
}

// uncompressed looks at the first two bytes: a file's name says nothing of standard input, and little of a rotated file.
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

// lineReader reads lines into one buffer, which grows to the longest of them and is used again.
type lineReader struct {
	source *bufio.Reader
	buffer []byte
	count  int
}

// next returns the next line, valid until the call that follows. The last line may lack its line feed. The error is io.EOF
// behind the last line, ErrTooLong, ErrCutOff, or one of the reader; of a line that an error cuts off, nothing is returned.
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

// readError tells a damaged file from one that cannot be read.
func readError(err error) error {
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		return fmt.Errorf("%w: %w", ErrCutOff, err)
	}
	return fmt.Errorf("read the audit log: %w", err)
}
