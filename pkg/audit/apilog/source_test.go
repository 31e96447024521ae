// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func TestReadCountsEventsAndBrokenLines(t *testing.T) {
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	const event = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete",` +
		`"requestURI":"/api/v1/pods","verb":"create","user":{"username":"jane"},"requestReceivedTimestamp":"2026-11-25T08:00:00.000000Z",` +
		`"stageTimestamp":"2026-11-25T08:00:00.000000Z"}` + "\n"
	failed := errors.New("unplugged")
	for name, test := range map[string]struct {
		source                io.Reader
		events, broken, first int
		want                  error
	}{
		"an empty file":               {strings.NewReader(""), 0, 0, 0, nil},
		"events":                      {strings.NewReader(event + event), 2, 0, 0, nil},
		"events among broken lines":   {strings.NewReader("x\n" + event + "y\n"), 1, 2, 2, nil},
		"many broken lines":           {strings.NewReader(event + strings.Repeat("x\n", 25)), 1, 25, maxNamedLines, nil},
		"a file of another kind":      {strings.NewReader("x\ny\n"), 0, 0, 0, errNoAuditLog},
		"a source that fails":         {io.MultiReader(strings.NewReader(event), iotest.ErrReader(failed)), 1, 0, 0, failed},
		"a source that fails at once": {iotest.ErrReader(failed), 0, 0, 0, failed},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewLog(set).Read(test.source)
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if got.Events != test.events || got.Broken != test.broken || len(got.First) != test.first {
				t.Errorf("got %d events, %d broken, %d named: want %d, %d, %d", got.Events, got.Broken, len(got.First), test.events, test.broken, test.first)
			}
		})
	}
}
