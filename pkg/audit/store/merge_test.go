// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// newStore returns a store over a fake API server.
func newStore(t *testing.T, intercept interceptor.Funcs, records ...client.Object) *Store {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return &Store{client: fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(intercept).WithObjects(records...).Build()}
}

// denied returns a record of a user's denials, of which the replica "a" has counted some.
func denied(user string, count int64) *v1alpha1.AuditRecord {
	fact := audit.Event{
		Time: time.Date(2026, 11, 25, 8, 27, 0, 0, time.UTC), RequestUID: "1", Outcome: v1alpha1.Denied, Operation: "DELETE",
		Object: v1alpha1.ParseObjectReference("secrets/kube-system/x"), Reason: "ReservedDelete", User: v1alpha1.User{Name: user, Groups: []string{"g"}},
		Source: v1alpha1.SourceGuard,
	}
	record := fact.Record("a", count)
	return record
}

func stored(t *testing.T, s *Store, name string) *v1alpha1.AuditRecord {
	t.Helper()
	record := &v1alpha1.AuditRecord{}
	if err := s.client.Get(t.Context(), client.ObjectKey{Name: name}, record); err != nil {
		t.Fatal(err)
	}
	return record
}

func TestARecordThatWasPreparedTakesInNothing(t *testing.T) {
	for name, edit := range map[string]func(*v1alpha1.AuditRecord){
		"in another user's name": func(r *v1alpha1.AuditRecord) { r.Spec.User.Name = "bob" },
		"in other groups":        func(r *v1alpha1.AuditRecord) { r.Spec.User.Groups = []string{"other"} },
		"of another outcome":     func(r *v1alpha1.AuditRecord) { r.Spec.Outcome = v1alpha1.Restored },
		"years ago":              func(r *v1alpha1.AuditRecord) { r.Spec.FirstTime = metav1.NewMicroTime(time.Unix(0, 0)) },
		"with an owner": func(r *v1alpha1.AuditRecord) {
			r.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Namespace", Name: "absent", UID: "1"}}
		},
		"with a finalizer":       func(r *v1alpha1.AuditRecord) { r.Finalizers = []string{"x/y"} },
		"with a sum of its own":  func(r *v1alpha1.AuditRecord) { r.Spec.Count = 1 << 62 },
		"with a count too large": func(r *v1alpha1.AuditRecord) { r.Spec.Counts[0].Count, r.Spec.Count = 1<<63-1, 1<<63-1 },
	} {
		t.Run(name, func(t *testing.T) {
			prepared := denied("mallory", 1)
			prepared.Spec.Counts[0].Replica = "z"
			edit(prepared)
			s := newStore(t, interceptor.Funcs{}, prepared)
			if _, err := s.Merge(t.Context(), denied("mallory", 3), nil); !errors.Is(err, audit.ErrAltered) {
				t.Fatalf("got %v", err)
			}
			if got := stored(t, s, prepared.Name); audit.CountOf(got, "a") != 0 {
				t.Errorf("the writes went into %+v", got.Spec)
			}
		})
	}
}

func TestMergeFindsWhatAnotherClientDidToARecord(t *testing.T) {
	for name, act := range map[string]func(context.Context, *Store, *v1alpha1.AuditRecord) error{
		"deleted it": func(ctx context.Context, s *Store, r *v1alpha1.AuditRecord) error { return s.client.Delete(ctx, r) },
		"put another one in its place": func(ctx context.Context, s *Store, r *v1alpha1.AuditRecord) error {
			other := denied("mallory", 2)
			other.UID = "other"
			return errors.Join(s.client.Delete(ctx, r), s.client.Create(ctx, other), s.client.Update(ctx, other))
		},
		"lowered its count": func(ctx context.Context, s *Store, r *v1alpha1.AuditRecord) error {
			r.Spec.Count, r.Spec.Counts[0].Count = 1, 1
			return s.client.Update(ctx, r)
		},
		"gave it another user": func(ctx context.Context, s *Store, r *v1alpha1.AuditRecord) error {
			r.Spec.User.Name = "bob"
			return s.client.Update(ctx, r)
		},
		"moved its end": func(ctx context.Context, s *Store, r *v1alpha1.AuditRecord) error {
			r.Spec.LastTime = metav1.NewMicroTime(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC))
			return s.client.Update(ctx, r)
		},
	} {
		for _, count := range []int64{2, 3} { // nothing more to store, and something
			t.Run(name, func(t *testing.T) {
				s := newStore(t, interceptor.Funcs{})
				last, err := s.Merge(t.Context(), denied("mallory", 2), nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := act(t.Context(), s, last.DeepCopy()); err != nil {
					t.Fatal(err)
				}
				if got, err := s.Merge(t.Context(), denied("mallory", count), last); !errors.Is(err, audit.ErrAltered) {
					t.Errorf("got %v, %v", got, err)
				}
			})
		}
	}
}

func TestWhatOtherReplicasCountAndLabelsAreNoAlteration(t *testing.T) {
	s := newStore(t, interceptor.Funcs{})
	last, err := s.Merge(t.Context(), denied("mallory", 2), nil)
	if err != nil {
		t.Fatal(err)
	}
	other := denied("mallory", 5)
	other.Spec.Counts[0].Replica = "b"
	if _, err := s.Merge(t.Context(), other, nil); err != nil {
		t.Fatal(err)
	}
	labelled := stored(t, s, last.Name)
	labelled.Labels = map[string]string{"reviewed": "yes"}
	if err := s.client.Update(t.Context(), labelled); err != nil {
		t.Fatal(err)
	}
	for _, count := range []int64{2, 3} {
		if got, err := s.Merge(t.Context(), denied("mallory", count), last); err != nil || got.Spec.Count != 5+count {
			t.Errorf("got %v, %v", got, err)
		}
	}
}

func TestMergeComparesWhatCameBackWithWhatWasSent(t *testing.T) {
	alter := func(object client.Object) {
		object.(*v1alpha1.AuditRecord).Spec.User.Name = "bob"
	}
	s := newStore(t, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			alter(object)
			return c.Create(ctx, object, options...)
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
			alter(object)
			return c.Update(ctx, object, options...)
		},
	})
	if _, err := s.Merge(t.Context(), denied("mallory", 1), nil); !errors.Is(err, audit.ErrAltered) {
		t.Errorf("create: got %v", err)
	}
	honest := denied("jane", 1)
	s = newStore(t, interceptor.Funcs{Update: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.UpdateOption) error {
		alter(object)
		return c.Update(ctx, object, options...)
	}}, honest)
	if _, err := s.Merge(t.Context(), denied("jane", 2), nil); !errors.Is(err, audit.ErrAltered) {
		t.Errorf("update: got %v", err)
	}
}
