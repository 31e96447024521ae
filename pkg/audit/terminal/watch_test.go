// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// watched is a Watch, and what it has printed.
type watched struct {
	*Watch
	out, warnings bytes.Buffer
	failed        error
}

func watch(options WatchOptions) *watched {
	w := &watched{}
	options.Screen = Screen{Now: time.Unix(0, 0), Place: time.UTC}
	options.Out, options.Warnings, options.Fail = &w.out, &w.warnings, func(err error) { w.failed = err }
	w.Watch = NewWatch(options)
	return w
}

// of returns a record whose last write was minutes ago.
func of(name, user string, count int64, minutes int) *v1alpha1.AuditRecord {
	r := &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Outcome: v1alpha1.Denied, Count: count, User: v1alpha1.User{Name: user}}}
	r.Name = name
	r.Spec.LastTime = metav1.NewMicroTime(time.Unix(0, 0).Add(-time.Duration(minutes) * time.Minute))
	return r
}

// rows returns "NAME COUNT" of the printed rows.
func (w *watched) rows() string {
	var rows []string
	for line := range strings.Lines(w.out.String()) {
		if fields := strings.Fields(line); fields[0] != "TIME" {
			rows = append(rows, fields[len(fields)-1]+" "+fields[len(fields)-2])
		}
	}
	return strings.Join(rows, ", ")
}

func TestWatchPrintsWhatExistsAndThenWhatChanges(t *testing.T) {
	w := watch(WatchOptions{})
	w.Changed(of("new", "jane", 1, 1))
	w.Changed(of("old", "jane", 1, 9))
	if w.out.Len() > 0 {
		t.Errorf("printed before all were known: %q", w.out.String())
	}
	w.Synced()
	w.Changed(of("old", "jane", 1, 9)) // nothing new
	w.Changed(of("new", "jane", 3, 0))
	w.Removed("old")
	w.Changed(of("old", "jane", 1, 9))
	if got, want := w.rows(), "old 1, new 1, new 3, old 1"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	if strings.Count(w.out.String(), "TIME") != 1 {
		t.Errorf("not one header: %q", w.out.String())
	}
}

func TestWatchKeepsToTheFilterAndTheLimit(t *testing.T) {
	w := watch(WatchOptions{Filter: audit.Filter{User: "jane"}, Limit: 2})
	for i := range 4 {
		w.Changed(of(fmt.Sprint("r", i), "jane", 1, i))
	}
	w.Changed(of("other", "mallory", 1, 0))
	w.Synced()
	w.Changed(of("another", "mallory", 1, 0))
	w.Changed(of("r9", "jane", 1, 0))
	if got, want := w.rows(), "r1 1, r0 1, r9 1"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

func TestWatchPrintsJSON(t *testing.T) {
	w := watch(WatchOptions{JSON: true})
	w.Changed(of("a", "jane", 1, 1))
	w.Synced()
	w.Changed(of("b", "jane", 2, 0))
	if lines := strings.Split(w.out.String(), "\n"); len(lines) != 3 || !strings.Contains(lines[0], `"name":"a"`) || !strings.Contains(lines[1], `"count":2`) {
		t.Errorf("printed %q", w.out.String())
	}
}

func TestWatchWarnsOnceOfALostConnection(t *testing.T) {
	w := watch(WatchOptions{})
	for _, err := range []error{nil, errors.New("refused"), errors.New("refused again"), nil, nil} {
		w.Reached(err)
	}
	if want := "Warning: refused; trying again until Ctrl-C.\nThe API server answers again.\n"; w.warnings.String() != want || w.failed != nil {
		t.Errorf("warned %q, failed %v", w.warnings.String(), w.failed)
	}
}

func TestWatchEndsWithoutPermissionOrReader(t *testing.T) {
	for _, refusal := range []error{apierrors.NewForbidden(schema.GroupResource{}, "", nil), apierrors.NewUnauthorized("expired")} {
		w := watch(WatchOptions{})
		if w.Reached(refusal); !errors.Is(w.failed, refusal) {
			t.Errorf("failed with %v, want %v", w.failed, refusal)
		}
	}
	for _, asJSON := range []bool{false, true} {
		w := watch(WatchOptions{JSON: asJSON})
		w.Out = brokenPipe{}
		w.Changed(of("a", "jane", 1, 0))
		if w.Synced(); !errors.Is(w.failed, io.ErrClosedPipe) {
			t.Errorf("failed with %v", w.failed)
		}
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
