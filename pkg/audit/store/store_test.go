// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

func TestGetReturnsACleanRecord(t *testing.T) {
	foreign := denied("eve", 1)
	foreign.Spec.User.Name = "eve\x1b[31m"
	record, err := newStore(t, interceptor.Funcs{}, foreign).Get(t.Context(), foreign.Name)
	if err != nil || record.Spec.User.Name != "eve\uFFFD[31m" {
		t.Errorf("got %+v, %v", record, err)
	}
}

func TestOnlyAnAnswerAboutARecordSaysThatItIsAbsent(t *testing.T) {
	kind := schema.GroupResource{Group: v1alpha1.Group, Resource: "auditrecords"}
	unknownPath := apierrors.NewGenericServerResponse(404, "get", kind, "a", "404 page not found", 0, true)
	for name, test := range map[string]struct{ cause, want error }{
		"an absent record":        {apierrors.NewNotFound(kind, "a"), ErrNotFound},
		"an absent kind":          {unknownPath, ErrNotInstalled},
		"a list of an absent one": {apierrors.NewNotFound(kind, ""), ErrNotInstalled},
		"another error":           {errBroken, errBroken},
	} {
		if err := explain("read", test.cause); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
}

func TestTryCreateStoresNothing(t *testing.T) {
	var dryRun []string
	s := newStore(t, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			var all client.CreateOptions
			all.ApplyOptions(options)
			dryRun = all.DryRun
			return c.Create(ctx, object, options...)
		},
	})
	if err := s.TryCreate(t.Context()); err != nil || len(dryRun) != 1 || dryRun[0] != metav1.DryRunAll {
		t.Errorf("got %v with the dry run %q", err, dryRun)
	}
	var stored v1alpha1.AuditRecordList
	if err := s.client.List(t.Context(), &stored); err != nil || len(stored.Items) > 0 {
		t.Errorf("%d records are stored (%v), want none", len(stored.Items), err)
	}
}
