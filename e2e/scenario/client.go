// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package scenario holds the writes that the guard is tried with: they are captured into the corpus, and played against a
// real API server.
package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Identity is who writes: the zero Identity is the admin, any other is impersonated by the admin.
type Identity struct {
	User   string
	Groups []string
}

// Write is one request as it goes to the API server. Clients would retry and default; a test must know what it sends.
type Write struct {
	As          Identity
	Method      string
	Path        string
	Query       url.Values
	ContentType string
	Body        []byte
}

// DryRun returns the same write, which the API server then does not store.
func (w Write) DryRun() Write {
	query := url.Values{"dryRun": {metav1.DryRunAll}}
	maps.Copy(query, w.Query)
	w.Query = query
	return w
}

// Answer is what the API server says to a Write.
type Answer struct {
	Code int
	// AuditID leads to the event in the audit log.
	AuditID  string
	Warnings []string
	Body     []byte
}

// Status returns the answer as a Status; it is empty where the answer is an object.
func (a Answer) Status() metav1.Status {
	var status metav1.Status
	if err := json.Unmarshal(a.Body, &status); err != nil || status.Kind != "Status" {
		return metav1.Status{}
	}
	return status
}

// Client sends writes to one API server. It is safe for concurrent use.
type Client struct {
	host   string
	client *http.Client
}

// NewClient returns a client that authenticates as config says.
func NewClient(config *rest.Config) (*Client, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", config.Host, err)
	}
	return &Client{host: config.Host, client: client}, nil
}

// Do sends one write. An error says that there was no answer; a refusal is an answer.
func (c *Client) Do(ctx context.Context, w Write) (Answer, error) {
	target := c.host + w.Path
	if len(w.Query) > 0 {
		target += "?" + w.Query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, w.Method, target, bytes.NewReader(w.Body))
	if err != nil {
		return Answer{}, fmt.Errorf("make a request: %w", err)
	}
	request.Header.Set("Content-Type", w.ContentType)
	if w.As.User != "" {
		request.Header.Set("Impersonate-User", w.As.User)
		for _, group := range w.As.Groups {
			request.Header.Add("Impersonate-Group", group)
		}
	}
	return c.send(request)
}

func (c *Client) send(request *http.Request) (Answer, error) {
	response, err := c.client.Do(request)
	if err != nil {
		return Answer{}, fmt.Errorf("ask the API server: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, fmt.Errorf("read the API server's answer: %w", err)
	}
	return Answer{
		Code:     response.StatusCode,
		AuditID:  response.Header.Get("Audit-Id"),
		Warnings: response.Header.Values("Warning"),
		Body:     body,
	}, nil
}

// must sends a write that can only fail by a fault of the testbed.
func (c *Client) must(ctx context.Context, w Write, codes ...int) (Answer, error) {
	answer, err := c.Do(ctx, w)
	if err != nil {
		return Answer{}, err
	}
	if slices.Contains(codes, answer.Code) {
		return answer, nil
	}
	return answer, fmt.Errorf("%s %s: got %d, want one of %v: %s", w.Method, w.Path, answer.Code, codes, answer.Body)
}
