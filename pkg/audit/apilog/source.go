// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"errors"
	"fmt"
	"io"
)

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
