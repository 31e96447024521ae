// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/server"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// recorder answers reviews in the guard's place. While it records, it keeps and denies the first one of a user; all others
// are allowed.
type recorder struct {
	cancel context.CancelFunc
	ended  chan error

	mu   sync.Mutex // guards what follows
	user string
	kept []byte
}

// adminUser is how the API server names the user of a request without impersonation.
const adminUser = "admin"

func startRecorder(ctx context.Context, cluster *testbed.Cluster) (*recorder, error) {
	clients, err := kubernetes.NewForConfig(cluster.AdminConfig())
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	authority, err := certs.LoadAuthority(ctx, clients.CoreV1(), certs.Options{
		Namespace: guardian.WebhookConfiguration, Hosts: []string{"127.0.0.1"},
	})
	if err != nil {
		return nil, err
	}
	r := &recorder{ended: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.Handle(webhook.Path, r)
	s := server.New(server.Options{
		Listen: "127.0.0.1:0", Handler: mux, GetCertificate: authority.GetCertificate, Log: slog.New(slog.DiscardHandler),
	})
	serving, cancel := context.WithCancel(ctx)
	r.cancel = cancel
	go func() { r.ended <- s.Start(serving) }()
	select {
	case <-s.Listening():
	case err := <-r.ended:
		cancel()
		return nil, err
	}
	return r, register(ctx, clients, s.Addr().String(), authority.Bundle())
}

// register asks for every write to the kinds of the built-in set.
func register(ctx context.Context, clients kubernetes.Interface, address string, bundle []byte) error {
	set, errSet := reserved.BuiltIn()
	endpoint, errEndpoint := registration.URLEndpoint("https://"+address, webhook.Path)
	if err := errors.Join(errSet, errEndpoint); err != nil {
		return err
	}
	configuration := registration.Build(set, registration.Options{
		Endpoint: endpoint, CABundle: bundle, FailurePolicy: admissionregistrationv1.Fail,
	})
	for i := range configuration.Webhooks {
		configuration.Webhooks[i].MatchConditions = nil
	}
	_, err := clients.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, configuration, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("register the recorder: %w", err)
	}
	return nil
}

func (r *recorder) stop() error {
	r.cancel()
	return <-r.ended
}

// record returns the first review that write makes the API server send for the user, "" being the admin. The API server
// takes a moment to notice a new registration, so that the write is repeated until it is asked for.
func (r *recorder) record(user string, write func() (scenario.Answer, error)) ([]byte, error) {
	const attempts = 200
	r.set(cmp.Or(user, adminUser))
	defer r.set("")
	answer := scenario.Answer{}
	for range attempts {
		var err error
		if answer, err = write(); err != nil {
			return nil, err
		}
		if review := r.take(); review != nil {
			return review, nil
		}
	}
	return nil, fmt.Errorf("the API server never asked, and answers %d: %s", answer.Code, answer.Body)
}

func (r *recorder) set(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.user, r.kept = user, nil
}

func (r *recorder) take() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept
}

// ServeHTTP answers one review.
func (r *recorder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	parsed, _ := webhook.Decode(body) // what cannot be read is allowed, and not kept
	answer := &admissionv1.AdmissionResponse{Allowed: !r.keep(parsed.User.Name, body), Result: &metav1.Status{Code: http.StatusForbidden}}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(webhook.Encode(parsed.UID, answer))
}

// keep reports whether the review is one of the user that is recorded.
func (r *recorder) keep(user string, body []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user == "" || user != r.user {
		return false
	}
	if r.kept == nil {
		r.kept = body
	}
	return true
}

// scrub replaces the values of a Secret in place, equal ones by equal ones; every other byte stays as the API server sent
// it. The namespace is no secret, and of a token only the signature is one: a decision rests on its claims.
func scrub(body []byte) []byte {
	for _, object := range []string{"object", "oldObject"} {
		if rawjson.Value(body).Get("request", object, "kind").Text() != "Secret" {
			continue
		}
		for key, value := range rawjson.Value(bytes.Clone(body)).Get("request", object, "data").Members() {
			if value.Text() != "" && string(key) != corev1.ServiceAccountNamespaceKey {
				body = bytes.ReplaceAll(body, value, canaryOf(value))
			}
		}
	}
	return body
}

func canaryOf(value rawjson.Value) []byte {
	sum := sha256.Sum256(value)
	text := corpus.Canary + hex.EncodeToString(sum[:6])
	if decoded, err := base64.StdEncoding.DecodeString(value.Text()); err == nil {
		if _, isToken := policy.ReadTokenClaims(decoded); isToken {
			signed := decoded[:bytes.LastIndexByte(decoded, '.')+1]
			text = string(signed) + base64.RawURLEncoding.EncodeToString([]byte(text))
		}
	}
	return []byte(`"` + base64.StdEncoding.EncodeToString([]byte(text)) + `"`)
}
