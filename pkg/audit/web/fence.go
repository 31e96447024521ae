// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
)

// securityPolicy lets the page load its own files and call its own server only. With trusted types, parsing a text as HTML or
// script is an error.
const securityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// fence passes only GET and HEAD requests to a loopback name and with the token.
type fence struct {
	token  string
	inside http.Handler
}

func (f *fence) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setSecurityHeaders(w.Header())
	switch {
	case !isLoopback(r.Host):
		// Another site's name may resolve to this machine, and its scripts would then have the page's origin.
		http.Error(w, "Forbidden", http.StatusForbidden)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	case !f.isTokenOf(r.URL.Path):
		http.Error(w, "Not Found", http.StatusNotFound)
	default:
		f.inside.ServeHTTP(w, r)
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
func (f *fence) isTokenOf(path string) bool {
	first, _, below := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return below && subtle.ConstantTimeCompare([]byte(first), []byte(f.token)) == 1
}
