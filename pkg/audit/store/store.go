// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package store keeps audit records in the API server, and reads them from there.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// ErrNotFound says that there is no record of that name.
var ErrNotFound = errors.New("no such audit record")

// errNotInstalled says that the API server does not serve the kind.
var errNotInstalled = errors.New("the cluster does not know audit records: install the chart with crds.enabled=true")

// Store reads and writes audit records with the caller's permissions. It is safe for concurrent use. Errors wrap the API server's.
type Store struct {
	client client.WithWatch
	// lister returns lists undecoded.
	lister rest.Interface
}

// New returns a store. It does not call the API server.
func New(config *rest.Config) (*Store, error) {
	s, err := connect(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of audit records: %w", err)
	}
	return s, nil
}

func connect(config *rest.Config) (*Store, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	// With a fixed mapping, the first denial needs no discovery call, which could fail.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(v1alpha1.GroupVersion().WithKind("AuditRecord"), meta.RESTScopeRoot)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	// The library's global logger complains that it was not set.
	quiet := logr.FromSlogHandler(slog.DiscardHandler)
	c, err := client.NewWithWatch(config, client.Options{HTTPClient: httpClient, Scheme: scheme, Mapper: mapper, Log: quiet})
	if err != nil {
		return nil, err
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", new(v1alpha1.GroupVersion())
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	lister, err := rest.RESTClientForConfigAndClient(config, httpClient)
	return &Store{client: c, lister: lister}, err
}

// List returns the records that match the filter, cleaned, in order of their names, which is the order of time.
func (s *Store) List(ctx context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error) {
	var records []v1alpha1.AuditRecord
	for record, err := range s.all(ctx) {
		if err != nil {
			return nil, explainRead("list", "audit records", err)
		}
		audit.Clean(record)
		if filter.Match(record) {
			records = append(records, *record)
		}
	}
	return records, nil
}

// Get returns one record by its name, cleaned. The error may wrap ErrNotFound.
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

// TryCreate creates a record as a server-side dry run, which stores nothing.
func (s *Store) TryCreate(ctx context.Context) error {
	event := audit.Event{Time: time.Now(), Outcome: v1alpha1.Denied, Source: v1alpha1.SourceGuard, Reason: "Status"}
	record := event.Record("status", 1)
	record.Name = audit.SecondName(record.Name)
	sent := record.DeepCopy()
	if err := s.client.Create(ctx, record, client.DryRunAll, client.FieldOwner(guardian.FieldManager)); err != nil {
		return explain("try to create an audit record", err)
	}
	return compare(record, sent)
}

// explainRead names the permission that the caller lacks.
func explainRead(verb, what string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s %s: you lack the right to %s auditrecords.%s, which a ClusterRole can grant: %w",
			verb, what, verb, v1alpha1.Group, err)
	}
	return explain(verb+" "+what, err)
}

// explain distinguishes an absent record from an absent kind: only the answer about a record has a name.
func explain(what string, err error) error {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w", what, err)
	}
	if details := status.Status().Details; details == nil || details.Name == "" || !isGone(err) {
		return fmt.Errorf("%s: %w", what, errNotInstalled)
	}
	return fmt.Errorf("%s: %w", what, ErrNotFound)
}
