// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package unlock

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// apiServer is an API server in memory, so that the clock of testing/synctest is its clock too. It knows unlocks, one ConfigMap and
// SelfSubjectReviews.
type apiServer struct {
	mu      sync.Mutex
	objects map[string]map[string]any // by path
	version int
	// offset is how much its clock is ahead.
	offset time.Duration
	// failure is returned for every request. A request whose path has the text hangs waits for the end of its context; "" hangs none.
	failure error
	hangs   string
	// delay is how long it takes for an answer.
	delay time.Duration
	// identifies is false while it answers no SelfSubjectReview.
	identifies bool
	writes     []string
}

const (
	unlocksPath = "/apis/guardian.apigw.io/v1alpha1/unlocks"
	notesPath   = "/api/v1/namespaces/guard/configmaps/apigw-guardian-replicas"
)

func newAPI() *apiServer { return &apiServer{objects: map[string]map[string]any{}, identifies: true} }

func (a *apiServer) config() *rest.Config {
	return &rest.Config{Host: "http://api", Transport: a, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

func (a *apiServer) set(change func(*apiServer)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// RoundTrip implements http.RoundTripper.
func (a *apiServer) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	delay := a.delay
	a.mu.Unlock()
	time.Sleep(delay)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hangs != "" && strings.Contains(r.URL.Path, a.hangs) {
		a.mu.Unlock()
		<-r.Context().Done()
		a.mu.Lock()
		return nil, errCut // as a limiter or a proxy fails, not as the context
	}
	if a.failure != nil {
		return nil, a.failure
	}
	body := map[string]any{}
	if r.Body != nil {
		if data, err := io.ReadAll(r.Body); err != nil || len(data) > 0 && json.Unmarshal(data, &body) != nil {
			return nil, errors.New("a body that is no JSON")
		}
	}
	code, answer := a.answer(r, body)
	data, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}, "Date": {time.Now().Add(a.offset).UTC().Format(http.TimeFormat)}}
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(bytes.NewReader(data)), Request: r}, nil
}

func (a *apiServer) answer(r *http.Request, body map[string]any) (int, map[string]any) {
	path := strings.TrimSuffix(r.URL.Path, "/status")
	stored, found := a.objects[path]
	switch {
	case strings.HasSuffix(path, "/selfsubjectreviews"):
		if !a.identifies {
			return refusal(http.StatusForbidden, "Forbidden")
		}
		return http.StatusCreated, map[string]any{"status": map[string]any{"userInfo": map[string]any{"username": "guard"}}}
	case r.Method == http.MethodGet && path == unlocksPath:
		return http.StatusOK, map[string]any{"apiVersion": "guardian.apigw.io/v1alpha1", "kind": "UnlockList", "items": a.items()}
	case r.Method == http.MethodPost:
		return http.StatusCreated, a.create(path, body)
	case !found && r.Header.Get("Content-Type") == "application/apply-patch+yaml":
		return http.StatusCreated, a.create(path[:strings.LastIndex(path, "/")], body)
	case !found:
		return refusal(http.StatusNotFound, "NotFound")
	case r.Method == http.MethodGet:
		return http.StatusOK, stored
	case r.Method == http.MethodDelete:
		a.writes = append(a.writes, "DELETE "+path)
		delete(a.objects, path)
		return http.StatusOK, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success"}
	}
	if wanted, given := object(body, "metadata")["resourceVersion"]; given && wanted != object(stored, "metadata")["resourceVersion"] {
		return refusal(http.StatusConflict, "Conflict")
	}
	a.writes = append(a.writes, "PATCH "+r.URL.Path)
	merge(stored, body)
	a.store(path, stored)
	return http.StatusOK, stored
}

func (a *apiServer) create(path string, body map[string]any) map[string]any {
	metadata := object(body, "metadata")
	metadata["name"] = cmp.Or(text(metadata["name"]), text(metadata["generateName"])+"new")
	metadata["creationTimestamp"] = time.Now().Add(a.offset).UTC().Format(time.RFC3339)
	body["metadata"] = metadata
	a.store(path+"/"+text(metadata["name"]), body)
	return body
}

func (a *apiServer) store(path string, stored map[string]any) {
	a.version++
	object(stored, "metadata")["resourceVersion"] = strconv.Itoa(a.version)
	a.objects[path] = stored
}

func (a *apiServer) items() []any {
	items := []any{}
	for _, path := range slices.Sorted(maps.Keys(a.objects)) {
		if strings.HasPrefix(path, unlocksPath) {
			items = append(items, a.objects[path])
		}
	}
	return items
}

func object(of map[string]any, key string) map[string]any {
	found, isObject := of[key].(map[string]any)
	if !isObject {
		found = map[string]any{}
		of[key] = found
	}
	return found
}

// text returns "" for what is no text.
func text(value any) string {
	found, _ := value.(string)
	return found
}

// merge is RFC 7386.
func merge(into, patch map[string]any) {
	for key, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(into, key)
		case map[string]any:
			merge(object(into, key), value)
		default:
			into[key] = value
		}
	}
}

func refusal(code int, reason string) (int, map[string]any) {
	return code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}
}

// open stores an Unlock of alice that ends after the time, by the API server's clock.
func (a *apiServer) open(t *testing.T, name string, lifetime time.Duration) {
	t.Helper()
	unlock := &v1alpha1.Unlock{
		TypeMeta: metav1.TypeMeta{APIVersion: "guardian.apigw.io/v1alpha1", Kind: "Unlock"}, ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.UnlockSpec{
			Reservation: "apigw-ingress", Reason: "ticket 4711", RequestedBy: "alice", ExpiresAt: metav1.NewTime(time.Now().Add(a.offset + lifetime)),
		},
	}
	data, err := json.Marshal(unlock)
	body := map[string]any{}
	if err := errors.Join(err, json.Unmarshal(data, &body)); err != nil {
		t.Fatal(err)
	}
	a.set(func(a *apiServer) { a.create(unlocksPath, body) })
}

// unlock reads a stored Unlock.
func (a *apiServer) unlock(t *testing.T, name string) *v1alpha1.Unlock {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	data, err := json.Marshal(a.objects[unlocksPath+"/"+name])
	unlock := &v1alpha1.Unlock{}
	if err := errors.Join(err, json.Unmarshal(data, unlock)); err != nil {
		t.Fatal(err)
	}
	return unlock
}

// notes are the names of the replicas in the ConfigMap.
func (a *apiServer) notes() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	stored, found := a.objects[notesPath]
	if !found {
		return nil
	}
	return slices.Sorted(maps.Keys(object(stored, "data")))
}

// replica is a running Tracker and what it announces.
type replica struct {
	*Tracker
	stopping chan struct{}
	mu       sync.Mutex
	events   []string
}

// newReplica makes a Tracker. It runs until the test or stop ends it.
func newReplica(t *testing.T, api *apiServer, name string) *replica {
	t.Helper()
	r := &replica{stopping: make(chan struct{})}
	var err error
	r.Tracker, err = NewTracker(Options{
		Config: api.config(), Rules: policy.UnlockRules{MaxDuration: metav1.Duration{Duration: time.Hour}}, Replica: name, Namespace: "guard",
		Announce: func(unlock *v1alpha1.Unlock, reason, _ string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, reason+" "+unlock.Name)
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *replica) announced() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}
