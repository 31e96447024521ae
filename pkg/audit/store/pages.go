// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// pageSize is how many records one request asks for: about a megabyte.
const pageSize = 500

var errNoList = errors.New("the answer is not a list of audit records")

// newLister returns a client that shares the connections of httpClient.
func newLister(config *rest.Config, httpClient *http.Client, scheme *runtime.Scheme) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/apis", new(v1alpha1.GroupVersion())
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientForConfigAndClient(config, httpClient)
}

// all yields the records in order of their names. An error is the last that it yields.
func (s *Store) all(ctx context.Context) iter.Seq2[*v1alpha1.AuditRecord, error] {
	return func(yield func(*v1alpha1.AuditRecord, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for page := range s.pages(ctx) {
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
				return
			}
		}
		if ctx.Err() != nil {
			yield(nil, ctx.Err())
		}
	}
}

// page is the answer to one request of a list.
type page struct {
	items rawjson.Value
	err   error
}

// pages sends the pages of a list until the last, an error, or the end of ctx. While the receiver decodes a page, the next
// request is under way, which saves a third of the time.
func (s *Store) pages(ctx context.Context) <-chan page {
	pages := make(chan page)
	go func() {
		defer close(pages)
		for next, more := "", true; more; {
			answer, err := s.page(ctx, next)
			next = answer.Get("metadata", "continue").Text()
			more = err == nil && next != ""
			select {
			case pages <- page{items: answer.Get("items"), err: err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return pages
}

// page returns the page after the continue token, or the first page.
func (s *Store) page(ctx context.Context, next string) (rawjson.Value, error) {
	request := s.lister.Get().Resource("auditrecords").Param("limit", strconv.Itoa(pageSize))
	if next != "" {
		request = request.Param("continue", next)
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	data, err := result.Raw()
	if err != nil {
		return nil, err
	}
	answer := rawjson.Truncated(data)
	if !answer.Get("items").IsArray() {
		return nil, errNoList
	}
	return answer, nil
}
