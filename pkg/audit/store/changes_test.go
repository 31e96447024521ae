// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// receiver notes what it gets, and fails at a user's record.
type receiver struct {
	said  []string
	fails string
}

func (r *receiver) Receive(_ context.Context, records []v1alpha1.AuditRecord) error {
	for i := range records {
		if records[i].Spec.User.Name == r.fails {
			return errBroken
		}
		r.said = append(r.said, records[i].Spec.User.Name)
	}
	return nil
}

func (r *receiver) Reached(at time.Time) { r.said = append(r.said, "reached "+at.UTC().Format("05")) }

func second(n int) time.Time { return time.Date(2026, 11, 25, 8, 0, n, 0, time.UTC) }

// written returns a record that the API server says was written then; with a zero time it does not say.
func written(user string, at time.Time) *v1alpha1.AuditRecord {
	record := denied(user, 1)
	record.Kind, record.APIVersion = "AuditRecord", v1alpha1.GroupVersion().String()
	if !at.IsZero() {
		record.ManagedFields = []metav1.ManagedFieldsEntry{{Time: new(metav1.NewTime(second(0)))}, {Time: new(metav1.NewTime(at))}}
	}
	return record
}

// changing serves a list of records, and then a watch that reports others and ends with an event, "" for none.
func changing(t *testing.T, listed, changed []*v1alpha1.AuditRecord, last string) *Store {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		if r.URL.Query().Get("watch") == "" {
			_ = encoder.Encode(map[string]any{
				"kind": "AuditRecordList", "apiVersion": v1alpha1.GroupVersion().String(),
				"metadata": map[string]string{"resourceVersion": "7"}, "items": listed,
			})
			return
		}
		if r.URL.Query().Get("resourceVersion") != "7" {
			t.Errorf("watch %s", r.URL)
		}
		for _, record := range changed {
			_ = encoder.Encode(map[string]any{"type": "MODIFIED", "object": record})
		}
		_, _ = fmt.Fprint(w, last)
	}))
	t.Cleanup(server.Close)
	s, err := New(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestChangesAreGivenFromATimeOn(t *testing.T) {
	listed := []*v1alpha1.AuditRecord{
		written("late", second(30)), written("early", second(9)), written("then", second(10)), written("unknown", time.Time{}),
		written("future", time.Now().Add(time.Hour)),
	}
	changed := []*v1alpha1.AuditRecord{written("changed", second(40))}
	for name, test := range map[string]struct {
		fails string
		last  string
		want  []string
		ends  bool
	}{
		"all are received": {want: []string{"late", "then", "unknown", "future", "reached 30", "changed", "reached 40"}},
		// The list is in the order of names, so that none of it counts.
		"one of the list is not received": {fails: "unknown", want: []string{"late", "then"}, ends: true},
		"a change is not received": {
			fails: "changed", want: []string{"late", "then", "unknown", "future", "reached 30"}, ends: true,
		},
		"the API server has forgotten the version": {
			last: `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}}`,
			want: []string{"late", "then", "unknown", "future", "reached 30"}, ends: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := &receiver{fails: test.fails}
			err := changing(t, listed, changed, test.last).Changes(t.Context(), second(10), got)
			if (err != nil) != test.ends {
				t.Errorf("got %v", err)
			}
			if test.last == "" {
				if diff := cmp.Diff(test.want, got.said); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			} else if diff := cmp.Diff(test.want, got.said[:len(test.want)]); diff != "" { // the change may be sent before the error
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestChangesGivesBatches(t *testing.T) {
	var listed []*v1alpha1.AuditRecord
	for i := range 2*maxBatch + 1 {
		listed = append(listed, written(fmt.Sprint(i), second(i%60)))
	}
	sizes := &batches{}
	if err := changing(t, listed, nil, "").Changes(t.Context(), time.Time{}, sizes); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{maxBatch, maxBatch, 1}, sizes.sizes); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

type batches struct{ sizes []int }

func (b *batches) Receive(_ context.Context, records []v1alpha1.AuditRecord) error {
	b.sizes = append(b.sizes, len(records))
	return nil
}

func (b *batches) Reached(time.Time) {}

func TestChangesNamesAMissingPermission(t *testing.T) {
	err := pagesOf(t).Changes(t.Context(), time.Time{}, &receiver{})
	if err == nil || errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}
