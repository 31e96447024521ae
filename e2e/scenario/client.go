// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package scenario has the writes that test the guard. They are captured into the corpus, and sent to a real API server.
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

// Identity is the user of a write. The zero Identity is the admin; the admin impersonates any other.
type Identity struct {
	User   string
	Groups []string
}

// Write is one HTTP request to the API server. A Kubernetes client would add retries and defaults.
type Write struct {
	As          Identity
	Method      string
	Path        string
	Query       url.Values
	ContentType string
	Body        []byte
}

// DryRun returns the same write as a dry-run.
func (w Write) DryRun() Write {
	query := url.Values{"dryRun": {metav1.DryRunAll}}
	maps.Copy(query, w.Query)
	w.Query = query
	return w
}

// Answer is the response of the API server.
type Answer struct {
	Code int
	// AuditID is the ID of the event in the audit log.
	AuditID  string
	Warnings []string
	Body     []byte
}

// Status returns the answer as a Status; zero if the answer is an object.
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

// NewClient returns a client with this configuration.
func NewClient(config *rest.Config) (*Client, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of %s: %w", config.Host, err)
	}
	return &Client{host: config.Host, client: client}, nil
}

// Do sends one write. It returns an error only if there was no answer: a refusal is an answer.
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

// must sends a write and returns an error unless the answer has one of the codes.
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
