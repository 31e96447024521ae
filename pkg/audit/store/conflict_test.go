// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// ofAnother returns a record of two of mallory's denials that replica b counted.
func ofAnother() *v1alpha1.AuditRecord {
	record := denied("mallory", 2)
	record.Spec.Counts[0].Replica = "b"
	return record
}

var records = schema.GroupResource{Group: v1alpha1.Group, Resource: "auditrecords"}

// fails returns interceptors that act, and then fail the first calls of Create and of Update.
func fails(creates, updates int, fail error, act func(client.Client)) interceptor.Funcs {
	step := func(left *int, c client.Client) error {
		if *left == 0 {
			return nil
		}
		*left--
		act(c)
		return fail
	}
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			if err := step(&creates, c); err != nil {
				return err
			}
			return c.Create(ctx, object, options...)
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
			if err := step(&updates, c); err != nil {
				return err
			}
			return c.Update(ctx, object, options...)
		},
	}
}

func TestMergeAmongOtherReplicas(t *testing.T) {
	name := denied("mallory", 1).Name
	exists := apierrors.NewAlreadyExists(records, name)
	conflict := apierrors.NewConflict(records, name, errors.New("changed"))
	nothing := func(client.Client) {}
	for sentence, test := range map[string]struct {
		intercept interceptor.Funcs
		stored    []client.Object
		want      int64 // the sum of the counts; 0 for an error
		altered   bool
	}{
		"creates a record":      {want: 1},
		"counts into another's": {stored: []client.Object{ofAnother()}, want: 3},
		"creates it again after a deletion of what existed": {
			intercept: fails(1, 0, exists, nothing), want: 1,
		},
		"updates after one conflict": {
			intercept: fails(0, 1, conflict, nothing), stored: []client.Object{ofAnother()}, want: 3,
		},
		// The first of the eight attempts is the create.
		"updates after six conflicts": {
			intercept: fails(0, maxConflicts-2, conflict, nothing), stored: []client.Object{ofAnother()}, want: 3,
		},
		"gives up after eight attempts": {
			intercept: fails(0, maxConflicts-1, conflict, nothing), stored: []client.Object{ofAnother()},
		},
		"creates the record that another client deletes during a conflict": {
			intercept: fails(0, 1, conflict, func(c client.Client) { _ = c.Delete(t.Context(), ofAnother()) }),
			stored:    []client.Object{ofAnother()}, want: 1,
		},
		"finds the record deleted at the update": {
			intercept: fails(0, 1, apierrors.NewNotFound(records, name), nothing), stored: []client.Object{ofAnother()}, altered: true,
		},
		"returns another error of create": {intercept: fails(1, 0, apierrors.NewInternalError(errors.New("disk")), nothing)},
		"returns another error of update": {
			intercept: fails(0, 1, apierrors.NewInternalError(errors.New("disk")), nothing), stored: []client.Object{ofAnother()},
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s := newStore(t, test.intercept, test.stored...)
			got, err := s.Merge(t.Context(), denied("mallory", 1), nil)
			if (err == nil) != (test.want > 0) || errors.Is(err, audit.ErrAltered) != test.altered {
				t.Fatalf("got %v", err)
			}
			if err == nil && (got.Spec.Count != test.want || stored(t, s, name).Spec.Count != test.want) {
				t.Errorf("stored %+v, want %d", got.Spec.Counts, test.want)
			}
		})
	}
}

// last is what the replica knows: a record that is gone since was deleted by another client.
func TestMergeFindsADeletionDuringAConflict(t *testing.T) {
	conflict := apierrors.NewConflict(records, "x", errors.New("changed"))
	s := newStore(t, fails(0, 1, conflict, func(c client.Client) { _ = c.Delete(t.Context(), denied("mallory", 1)) }))
	last, err := s.Merge(t.Context(), denied("mallory", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Merge(t.Context(), denied("mallory", 2), last); !errors.Is(err, audit.ErrAltered) {
		t.Errorf("got %v", err)
	}
}

func TestMergeReturnsAnErrorOfReadingAgain(t *testing.T) {
	gone := errors.New("connection refused")
	s := newStore(t, interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return gone
		},
	}, ofAnother())
	if _, err := s.Merge(t.Context(), denied("mallory", 1), nil); !errors.Is(err, gone) || !strings.Contains(err.Error(), "read audit record") {
		t.Errorf("got %v", err)
	}
}

func TestAnAbsentKindIsNoAbsentRecord(t *testing.T) {
	noKind := apierrors.NewGenericServerResponse(404, "get", records, "x", "404 page not found", 0, true)
	for name, test := range map[string]struct{ fail, want error }{
		"an absent record": {apierrors.NewNotFound(records, "x"), ErrNotFound},
		"an absent kind":   {noKind, ErrNotInstalled},
		"no permission":    {apierrors.NewForbidden(records, "x", errors.New("no")), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, interceptor.Funcs{
				Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
					return test.fail
				},
				Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error { return test.fail },
			})
			_, err := s.Get(t.Context(), "x")
			if test.want != nil && !errors.Is(err, test.want) || test.want == nil && !strings.Contains(err.Error(), "you lack the right to get auditrecords") {
				t.Errorf("get: %v", err)
			}
			if err := s.TryCreate(t.Context()); err == nil || errors.Is(err, ErrNotInstalled) != errors.Is(test.want, ErrNotInstalled) {
				t.Errorf("create: %v", err)
			}
		})
	}
	s := newStore(t, interceptor.Funcs{})
	for _, name := range []string{"", "../secrets", "x"} {
		if _, err := s.Get(t.Context(), name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestImportStoresAnAlteredRecordUnderASecondName(t *testing.T) {
	prepared := denied("mallory", 1)
	prepared.Finalizers = []string{"x/y"}
	s := newStore(t, interceptor.Funcs{}, prepared)
	mallorys, janes := denied("mallory", 3), denied("jane", 2)
	if stored, err := s.Import(t.Context(), []*v1alpha1.AuditRecord{mallorys, janes}); err != nil || stored != 2 {
		t.Fatalf("%d stored, %v", stored, err)
	}
	if mallorys.Name == prepared.Name || stored(t, s, mallorys.Name).Spec.Count != 3 || stored(t, s, janes.Name).Spec.Count != 2 {
		t.Errorf("mallory's writes are in %s", mallorys.Name)
	}
	s = newStore(t, fails(1, 0, errors.New("gone"), func(client.Client) {}))
	if stored, err := s.Import(t.Context(), []*v1alpha1.AuditRecord{denied("jane", 1)}); err == nil || stored != 0 {
		t.Errorf("%d stored, %v", stored, err)
	}
}
