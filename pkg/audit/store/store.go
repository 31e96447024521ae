// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package store keeps audit records in the API server, and reads them from there.
package store

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// ErrNotInstalled says that the cluster has no audit records as a kind.
var ErrNotInstalled = errors.New("the cluster does not know audit records: install the chart with crds.enabled=true")

// ErrNotFound says that there is no record of that name.
var ErrNotFound = errors.New("no such audit record")

// Store is the API server's audit records, read and written with the rights of whoever connects. It is safe for concurrent
// use. It keeps nothing in memory.
type Store struct {
	client client.WithWatch
	// lister asks for lists whose answers it leaves as they are.
	lister rest.Interface
}

// New connects to an API server. It does not call it yet.
func New(config *rest.Config) (*Store, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("make a scheme of audit records: %w", err)
	}
	// The mapping is known: asking the API server for it would be one more call that can fail, at the first denial.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.GroupVersion().WithKind("AuditRecord"), meta.RESTScopeRoot)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of audit records: %w", err)
	}
	// A logger of its own: the library's global one complains on a command's terminal that nobody has set it.
	quiet := logr.FromSlogHandler(slog.DiscardHandler)
	c, err := client.NewWithWatch(config, client.Options{HTTPClient: httpClient, Scheme: scheme, Mapper: mapper, Log: quiet})
	if err != nil {
		return nil, fmt.Errorf("make a client of audit records: %w", err)
	}
	lister, err := newLister(config, httpClient, scheme)
	if err != nil {
		return nil, fmt.Errorf("make a client of audit records: %w", err)
	}
	return &Store{client: c, lister: lister}, nil
}

// List returns the records that fit the filter, cleaned, in order of their names, which is the order of time. The error wraps
// ErrNotInstalled, or is the API server's, which names the right that is missing.
func (s *Store) List(ctx context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var records []v1alpha1.AuditRecord
	for page := range s.pages(ctx) {
		if page.err != nil {
			return nil, explainRead("list", "audit records", page.err)
		}
		for item := range page.items.Elements() {
			var record v1alpha1.AuditRecord
			if err := json.Unmarshal(item, &record); err != nil {
				return nil, fmt.Errorf("list audit records: read what the API server answered: %w", err)
			}
			audit.Clean(&record)
			if filter.Match(&record) {
				records = append(records, record)
			}
		}
	}
	return records, ctx.Err()
}

// Get returns one record by its name, cleaned. The error wraps ErrNotFound or ErrNotInstalled, or is the API server's.
func (s *Store) Get(ctx context.Context, name string) (*v1alpha1.AuditRecord, error) {
	if name == "" || len(content.IsPathSegmentName(name)) > 0 {
		return nil, fmt.Errorf("get audit record %q: %w", name, ErrNotFound) // no record can have it
	}
	record := &v1alpha1.AuditRecord{}
	if err := s.client.Get(ctx, client.ObjectKey{Name: name}, record); err != nil {
		return nil, explainRead("get", fmt.Sprintf("audit record %q", name), err)
	}
	audit.Clean(record)
	return record, nil
}

// TryCreate tries to create a record, as a server-side dry-run: the API server admits it or not, and stores nothing. The error
// wraps ErrNotInstalled, or is the API server's.
func (s *Store) TryCreate(ctx context.Context) error {
	fact := audit.Event{Time: time.Now(), Outcome: v1alpha1.Denied, Source: v1alpha1.SourceGuard, Reason: "Status"}
	record := fact.Record("status", 1)
	record.Name = audit.SecondName(record.Name)
	sent := record.DeepCopy()
	if err := s.client.Create(ctx, record, client.DryRunAll, client.FieldOwner(guardian.FieldManager)); err != nil {
		return explain("try to create an audit record", err)
	}
	return compare(record, sent)
}

// explainRead names the right that the reader lacks, where that is what is wrong.
func explainRead(verb, what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s %s: you lack the right to %s auditrecords.%s, which a ClusterRole can grant: %w",
			verb, what, verb, v1alpha1.Group, err)
	}
	return explain(verb+" "+what, err)
}

// explain tells a record that is absent from a kind that is absent: only the API server's answer about a record names one.
func explain(what string, err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if details := status.Status().Details; details == nil || details.Name == "" || !isGone(err) {
		return fmt.Errorf("%s: %w", what, ErrNotInstalled)
	}
	return fmt.Errorf("%s: %w", what, ErrNotFound)
}
