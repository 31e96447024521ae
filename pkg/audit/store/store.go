// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package store keeps audit records in the API server, and reads them from there.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	guardianclient "github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// ErrNotFound says that there is no record of that name.
var ErrNotFound = errors.New("no such audit record")

// ErrNotInstalled says that the API server does not serve the kind.
var ErrNotInstalled = errors.New("the cluster does not know audit records: install the chart with crds.enabled=true")

// Store reads and writes audit records with the caller's permissions. It is safe for concurrent use. Errors wrap the API server's.
type Store struct {
	client client.WithWatch
	// users says who the client is. clock has read the time of its answers.
	users kubernetes.Interface
	clock *guardianclient.Clock
	// lister returns lists undecoded.
	lister rest.Interface
}

// New returns a store. It does not call the API server.
func New(config *rest.Config) (*Store, error) {
	config, clock := rest.CopyConfig(config), &guardianclient.Clock{}
	config.Wrap(clock.Wrap)
	c, err := guardianclient.New(config)
	if err != nil {
		return nil, err
	}
	users, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", new(v1alpha1.GroupVersion())
	config.NegotiatedSerializer = serializer.NewCodecFactory(c.Scheme()).WithoutConversion()
	lister, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of audit records: %w", err)
	}
	return &Store{client: c, users: users, clock: clock, lister: lister}, nil
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
	if apierrors.IsUnauthorized(err) {
		return fmt.Errorf("%s %s: %w: the API server does not accept your credentials: log in again, or check --user and --token", verb, what, err)
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
		return fmt.Errorf("%s: %w", what, ErrNotInstalled)
	}
	return fmt.Errorf("%s: %w", what, ErrNotFound)
}

// pageSize is how many records one request asks for: about a megabyte.
const pageSize = 500

var errNoList = errors.New("the answer is not a list of audit records")

// page is the answer to one request of a list. next is the continue token, or "" for the last page.
type page struct {
	items rawjson.Value
	next  string
	err   error
}

// all yields the records in order of their names, and an error last. It requests the next page early, which saves a third of the time.
func (s *Store) all(ctx context.Context) iter.Seq2[*v1alpha1.AuditRecord, error] {
	return func(yield func(*v1alpha1.AuditRecord, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		request := func(next string) <-chan page {
			answer := make(chan page, 1)
			go func() { answer <- s.page(ctx, next) }()
			return answer
		}
		for answer := request(""); answer != nil; {
			page := <-answer
			if answer = nil; page.next != "" {
				answer = request(page.next)
			}
			for item := range page.items.Elements() {
				record := &v1alpha1.AuditRecord{}
				if err := json.Unmarshal(item, record); err != nil {
					yield(nil, fmt.Errorf("parse a record: %w", err))
					return
				}
				if !yield(record, nil) {
					return
				}
			}
			if page.err != nil {
				yield(nil, page.err)
			}
		}
	}
}

// page returns the page after the continue token, or the first page.
func (s *Store) page(ctx context.Context, next string) page {
	request := s.lister.Get().Resource("auditrecords").Param("limit", strconv.Itoa(pageSize))
	if next != "" {
		request = request.Param("continue", next)
	}
	result := request.Do(ctx)
	data, err := result.Raw()
	if err != nil {
		return page{err: result.Error()} // with the Status of the body
	}
	answer := rawjson.Truncated(data)
	if !answer.Get("items").IsArray() {
		return page{err: errNoList}
	}
	return page{items: answer.Get("items"), next: answer.Get("metadata", "continue").Text()}
}
