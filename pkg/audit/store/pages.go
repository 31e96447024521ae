// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// pageSize is how many records one request of a list asks for: about a megabyte.
const pageSize = 500

// errNoList says that an answer is none that an API server gives.
var errNoList = errors.New("the API server answered with something else than a list of audit records")

// page is the answer to one request of a list, or why there is none.
type page struct {
	items rawjson.Value
	err   error
}

// newLister makes a client that asks for records, and shares its connections with another.
func newLister(config *rest.Config, httpClient *http.Client, scheme *runtime.Scheme) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	version := v1alpha1.GroupVersion()
	config.APIPath, config.GroupVersion = "/apis", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	return rest.RESTClientForConfigAndClient(config, httpClient)
}

// pages sends page after page of a list, until the last or an error, or ctx ends. While the receiver decodes a page, the next
// one is under way: half of the time that many records take passes in the API server, half here.
func (s *Store) pages(ctx context.Context) <-chan page {
	pages := make(chan page)
	go func() {
		defer close(pages)
		for next, more := "", true; more; {
			answer, err := s.page(ctx, next)
			sent := page{items: answer.Get("items"), err: err}
			next = answer.Get("metadata", "continue").Text()
			more = err == nil && next != ""
			select {
			case pages <- sent:
			case <-ctx.Done():
				return
			}
		}
	}()
	return pages
}

// page asks for the page that next stands for; "" for the first.
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
