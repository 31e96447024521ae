// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package web serves the review of audit records in a browser: a page that only reads, to whoever knows its address.
//
// It knows no client of Kubernetes. A Feed is told of the records; the Page shows what the Feed holds; Serve runs it on a
// listener, which should be a loopback one.
package web

import (
	"cmp"
	"crypto/rand"
	"embed"
	"encoding/json"
	"net/http"
	"path"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

//go:embed static
var static embed.FS

// Page is the HTTP handler of the review. It answers GET and HEAD below its Path, and nothing else. It is safe for
// concurrent use.
type Page struct {
	feed    *Feed
	cluster string
	fence   fence
}

// New returns a page over the feed, under a new random path. cluster names the cluster to its reader.
func New(feed *Feed, cluster string) *Page {
	p := &Page{feed: feed, cluster: cluster, fence: fence{token: rand.Text()}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{file}", serveFile)
	mux.HandleFunc("GET /{$}", serveFile)
	mux.HandleFunc("GET /api/view", p.serveView)
	mux.HandleFunc("GET /api/records/{name}", p.serveRecord)
	mux.HandleFunc("GET /api/events", p.serveEvents)
	p.fence.inside = http.StripPrefix("/"+p.fence.token, mux)
	return p
}

// kinds are the types of the page's files, by their names' ends. The machine's own table may be wrong, and a browser runs no
// script of another type.
func kinds() map[string]string {
	return map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}
}

func serveFile(w http.ResponseWriter, r *http.Request) {
	name := cmp.Or(r.PathValue("file"), "index.html")
	content, err := static.ReadFile("static/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kinds()[path.Ext(name)])
	// An error is the browser's connection, which is gone then.
	_, _ = w.Write(content)
}

// Path is where the page is: "/TOKEN/". The token is 26 letters and digits of 128 random bits.
func (p *Page) Path() string { return "/" + p.fence.token + "/" }

// ServeHTTP answers one request.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.fence.ServeHTTP(w, r) }

// serveView answers with the records that fit the filter.
func (p *Page) serveView(w http.ResponseWriter, r *http.Request) {
	query, err := readQuery(r.URL.Query())
	if err != nil {
		writeJSON(w, http.StatusBadRequest, failure{err.Error()})
		return
	}
	view := newView(p.feed.moment(), query, time.Now())
	view.Cluster = p.cluster
	writeJSON(w, http.StatusOK, view)
}

// details are all that is known of a record.
type details struct {
	Name   string                   `json:"name"`
	Spec   v1alpha1.AuditRecordSpec `json:"spec"`
	Advice string                   `json:"advice"`
}

func (p *Page) serveRecord(w http.ResponseWriter, r *http.Request) {
	record := p.feed.record(r.PathValue("name"))
	if record == nil {
		writeJSON(w, http.StatusNotFound, failure{"There is no such record. Records go when they are too old or too many."})
		return
	}
	writeJSON(w, http.StatusOK, details{Name: record.Name, Spec: record.Spec, Advice: audit.Advice(&record.Spec)})
}

// failure tells the page, and so its reader, what went wrong.
type failure struct {
	Error string `json:"error"`
}

func writeJSON(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	// An error is the browser's connection, which is gone then.
	_ = json.NewEncoder(w).Encode(answer)
}
