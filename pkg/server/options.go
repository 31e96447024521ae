// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// DefaultDrainPeriod is time for the endpoint controller, every kube-proxy and every API server to drop the replica from their tables.
const DefaultDrainPeriod = 10 * time.Second

// ShutdownTimeout is how long the last requests may take after the drain period. It is above the webhook configuration's timeout of
// 5 s, and above the 5 s for which net/http waits for the first request of a new connection.
const ShutdownTimeout = 15 * time.Second

// Options are the settings of a Server.
type Options struct {
	// Listen is the TCP address to serve on, such as ":9443"; required. Port 0 picks a free port, see Server.Addr.
	Listen string
	// Handler answers requests; required. Its ResponseWriter is no Flusher and no Hijacker.
	Handler http.Handler
	// GetCertificate answers each handshake; required. It is called concurrently, and its error refuses that one connection.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCAs returns the CAs whose certificate a caller must present. It is called for each handshake, concurrently, so that
	// the CAs may change. Nil asks no caller for a certificate.
	ClientCAs func() *x509.CertPool
	// ClientCertOptional answers callers without a certificate too. A certificate of an unknown CA is still refused.
	ClientCertOptional bool
	// Log is required.
	Log *slog.Logger
	// DrainPeriod is how long the server goes on serving after its context has ended. Zero means not at all.
	DrainPeriod time.Duration
}

// limits bound what clients can take. Times of the API server are those of kube-apiserver 1.28 to 1.37.
type limits struct {
	handshake   time.Duration
	readHeader  time.Duration // the head of a request
	read        time.Duration // a request from its first byte to the end of its body
	review      time.Duration // the handling of a request that names no shorter timeout
	write       time.Duration // from the end of the head to the end of the answer
	idle        time.Duration // a connection between two requests
	shutdown    time.Duration
	connections int
	inFlight    int // requests handled at a time; others wait for half of their timeout, and then get 503
	headBytes   int // of a request; a longer head is answered with 431
	bodyBytes   int64
}

func defaultLimits() limits {
	return limits{
		// One round trip.
		handshake: time.Second,
		// The API server sends the head at once, and gives up after its timeout for the webhook of 5 s.
		readHeader: 5 * time.Second,
		// Twice the webhook configuration's timeout of 5 s.
		read: 10 * time.Second,
		// The API server allows a webhook configuration 30 s at most (timeoutSeconds is 1 to 30). 5 s more to send the answer.
		review: 30 * time.Second,
		write:  35 * time.Second,
		// The API server's client drops an idle connection after 90 s (IdleConnTimeout of net/http's DefaultTransport). If the
		// server closed first, a request under way at that moment would end in EOF, and a POST is not sent again.
		idle:     120 * time.Second,
		shutdown: ShutdownTimeout,
		// One API server runs at most 200 mutating requests at a time (--max-mutating-requests-inflight) and so opens about as many
		// connections: five of them make 1000. Each takes some 40 KiB.
		connections: 1024,
		inFlight:    200,
		// The API server sends some hundred bytes. net/http adds 4 KiB to the bound.
		headBytes: 4 << 10,
		bodyBytes: webhook.MaxBytes,
	}
}
