// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package web serves a page that shows audit records in a browser. A Feed receives the records, a Page serves them below a
// secret path, and Serve runs it on a listener. The page cannot change anything, and the package has no Kubernetes client.
package web

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

//go:embed static
var static embed.FS

// Page is the HTTP handler. It answers GET and HEAD below its Path only. It is safe for concurrent use.
type Page struct {
	// FindResource, if set, replaces the resource of a filter by the type that it names, as kubectl names types.
	FindResource func(*audit.Filter)

	feed    *Feed
	cluster string
	token   string
	// routes answers the requests that may pass.
	routes http.Handler
}

// New returns a page with a new random path. It shows the cluster's name.
func New(feed *Feed, cluster string) *Page {
	p := &Page{feed: feed, cluster: cluster, token: rand.Text()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{file}", serveFile)
	mux.HandleFunc("GET /{$}", serveFile)
	mux.HandleFunc("GET /api/view", p.serveView)
	mux.HandleFunc("GET /api/records/{id}", p.serveRecord)
	mux.HandleFunc("GET /api/events", p.serveEvents)
	p.routes = http.StripPrefix("/"+p.token, mux)
	return p
}

func serveFile(w http.ResponseWriter, r *http.Request) {
	name := cmp.Or(r.PathValue("file"), "index.html")
	content, err := static.ReadFile("static/" + name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	// The machine's own table of types may be wrong, and a browser runs no script of another type.
	w.Header().Set("Content-Type", map[string]string{
		".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
		".svg": "image/svg+xml",
	}[path.Ext(name)])
	_, _ = w.Write(content) // an error means that the browser has gone
}

// Path is "/TOKEN/". The token is 26 letters and digits of 128 random bits.
func (p *Page) Path() string { return "/" + p.token + "/" }

// Cluster is the name that the page shows.
func (p *Page) Cluster() string { return p.cluster }

func (p *Page) serveView(w http.ResponseWriter, r *http.Request) {
	query, err := readQuery(r.URL.Query())
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if p.FindResource != nil {
		p.FindResource(&query.filter)
	}
	view := newView(p.feed.snapshot(), query, time.Now())
	view.Cluster = p.cluster
	writeJSON(w, http.StatusOK, view)
}

func (p *Page) serveRecord(w http.ResponseWriter, r *http.Request) {
	record := p.feed.record(r.PathValue("id"))
	if record == nil {
		writeError(w, http.StatusNotFound, "There is no such record. Retention deletes records that are too old or too many.")
		return
	}
	advice := audit.Advice(&record.Spec)
	parts, target := partsOf(advice), ""
	if record.Namespace != "" {
		target = " --context " + text.Quote(record.Namespace)
	}
	for i := range parts {
		if parts[i].Command {
			parts[i].Text += target
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"cluster": record.Namespace, "target": target, "name": record.Name, "spec": record.Spec, "advice": advice, "parts": parts,
		"acknowledged": record.Acknowledged() != nil, "acknowledgements": record.Status.Acknowledgements,
	})
}

// part is a part of an advice. The page lets the reader copy a command.
type part struct {
	Text    string `json:"text"`
	Command bool   `json:"command,omitempty"`
}

// command is a command in a sentence, which ends before ". ", ")" or ", ". A quoted argument may have these.
var command = regexp.MustCompile(`(?:apigw-guardian|kubectl) (?:'(?:[^']|'\\'')*'|"[^"]*"|[^'".,)]|\.\S|,\S)+`)

// partsOf splits an advice into text and commands.
func partsOf(advice string) []part {
	var parts []part
	end := 0
	for _, at := range command.FindAllStringIndex(advice, -1) {
		if at[0] > end {
			parts = append(parts, part{Text: advice[end:at[0]]})
		}
		parts, end = append(parts, part{Text: advice[at[0]:at[1]], Command: true}), at[1]
	}
	if end < len(advice) {
		parts = append(parts, part{Text: advice[end:]})
	}
	return parts
}

func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, map[string]string{"error": text})
}

func writeJSON(w http.ResponseWriter, code int, answer any) {
	content, err := json.Marshal(answer)
	if err != nil { // a time after the year 9999
		writeError(w, http.StatusInternalServerError, "The answer cannot be written: "+err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(content) // an error means that the browser has gone
}

// securityPolicy lets the page load its files and call its server only. With trusted types, text cannot become HTML or script.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// ServeHTTP passes only GET and HEAD requests to a loopback name and with the token.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setSecurityHeaders(w.Header())
	switch {
	case !isLoopback(r.Host):
		// Another site's name may resolve to this machine, and its scripts would then have the page's origin.
		http.Error(w, "Forbidden", http.StatusForbidden)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	case !p.isTokenOf(r.URL.Path):
		http.Error(w, "Not Found", http.StatusNotFound)
	default:
		p.routes.ServeHTTP(w, r)
	}
}

func setSecurityHeaders(header http.Header) {
	header.Set("Content-Security-Policy", securityPolicy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	// The address has the token, which no other server may learn from a referrer.
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Embedder-Policy", "require-corp")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// isLoopback reports whether a Host header is a loopback name. The port may differ because of a tunnel.
func isLoopback(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	if ip := net.ParseIP(name); ip != nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(name, "localhost")
}

// isTokenOf compares in constant time.
func (p *Page) isTokenOf(path string) bool {
	first, _, below := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return below && subtle.ConstantTimeCompare([]byte(first), []byte(p.token)) == 1
}

// query selects a view of the records.
type query struct {
	filter audit.Filter
	// cluster is the context of the only cluster; "" for all.
	cluster string
	// page counts from 1. size is the number of records per page.
	page, size int
	// place is where days begin.
	place *time.Location
}

const (
	defaultSize = 50
	maxSize     = 200
	maxPage     = 1 << 30
)

// readQuery reads the parameters of a view. All are optional.
func readQuery(values url.Values) (query, error) {
	q := query{page: 1, size: defaultSize, place: time.UTC}
	for name, given := range values {
		if err := q.set(name, given[0]); err != nil {
			return query{}, err
		}
	}
	if !q.filter.Until.IsZero() && !q.filter.Until.After(q.filter.Since) {
		return query{}, errors.New("the time ends before it begins: give an until that is after since")
	}
	return q, nil
}

// set reads one parameter. An empty value leaves the default.
func (q *query) set(name, value string) (err error) {
	f := &q.filter
	texts := map[string]*string{
		"user": &f.User, "resource": &f.Resource, "operation": &f.Operation, "outcome": &f.Outcome, "reason": &f.Reason, "text": &f.Text,
		"cluster": &q.cluster,
	}
	if text, found := texts[name]; found {
		*text = value
		return nil
	}
	switch name {
	case "since":
		f.Since, err = moment(value)
	case "until":
		f.Until, err = moment(value)
	case "page":
		q.page, err = number(value, q.page, maxPage)
	case "size":
		q.size, err = number(value, q.size, maxSize)
	case "zone": // without the table of time zones, days are UTC days
		if place, err := time.LoadLocation(value); err == nil {
			q.place = place
		}
	case "seen":
		f.Unacknowledged = value == "no"
	default:
		return fmt.Errorf("there is no parameter %q", name)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", name, value, err)
	}
	return nil
}

func moment(value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, errors.New("give a time such as 2026-11-26T08:00:00Z")
	}
	return at, nil
}

func number(value string, preset, limit int) (int, error) {
	if value == "" {
		return preset, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("give a number from 1 to %d", limit)
	}
	return n, nil
}
