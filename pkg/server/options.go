// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// ErrInvalidOptions is wrapped by every error of New.
var ErrInvalidOptions = errors.New("invalid server options")

// The defaults that New gives to a field that is zero. Times of the API server
// are those of kube-apiserver 1.28 to 1.37.
const (
	// DefaultHandshakeTimeout bounds the TLS handshake, which is one round trip.
	DefaultHandshakeTimeout = time.Second

	// DefaultReadHeaderTimeout bounds the head of each request. The API server sends it at once; its timeout for the webhook
	// is 5 s, so a slower client has no caller that still waits.
	DefaultReadHeaderTimeout = 5 * time.Second

	// DefaultReadTimeout bounds one request from its first byte to the end of its
	// body: twice the registration's timeout of 5 s.
	DefaultReadTimeout = 10 * time.Second

	// DefaultReviewTimeout bounds the handling of one request that names no shorter
	// timeout. 30 s is the longest that the API server lets a registration ask for
	// (timeoutSeconds of a webhook is 1 to 30).
	DefaultReviewTimeout = 30 * time.Second

	// DefaultWriteTimeout bounds a request from the end of its head to the end of
	// its answer: DefaultReviewTimeout, and 5 s to send the answer.
	DefaultWriteTimeout = DefaultReviewTimeout + 5*time.Second

	// DefaultIdleTimeout is how long a connection may stay open between requests.
	// The API server's client drops an idle connection after 90 s (the
	// IdleConnTimeout of Go's net/http DefaultTransport). The server must be the
	// later of the two: if it closed first, a request under way at that moment would
	// end in EOF, and a POST is not sent again. 120 s leaves 30 s for late timers.
	DefaultIdleTimeout = 120 * time.Second

	// DefaultDrainPeriod is the usual Options.DrainPeriod: time for the endpoint
	// controller and every kube-proxy and API server to take the replica out of
	// their tables. With DefaultShutdownTimeout it makes 25 s, which is less than
	// the 30 s of a Pod's default terminationGracePeriodSeconds, and of
	// controller-runtime's default GracefulShutdownTimeout.
	DefaultDrainPeriod = 10 * time.Second

	// DefaultShutdownTimeout is how long the last requests may take after the drain
	// period. It is above the registration's timeout of 5 s, and above the 5 s for
	// which net/http waits for the first request of a new connection.
	DefaultShutdownTimeout = 15 * time.Second

	// DefaultMaxConnections is the number of open connections. One API server runs
	// at most 200 mutating requests at a time (its --max-mutating-requests-inflight)
	// and so opens about as many connections: five of them make 1000. Each takes some 40 KiB.
	DefaultMaxConnections = 1024

	// DefaultMaxInFlight is the number of requests handled at a time: all 200
	// mutating requests of one API server.
	DefaultMaxInFlight = 200

	// DefaultMaxHeaderBytes bounds the head of a request; the API server sends some
	// hundred bytes. (net/http adds 4 KiB to the bound.)
	DefaultMaxHeaderBytes = 4 << 10

	// DefaultMaxBodyBytes bounds the body that is received whole.
	DefaultMaxBodyBytes = webhook.MaxBytes
)

// Options are the settings of a Server. Listen and GetCertificate are required;
// any other field may be zero, which means its default, DrainPeriod excepted. A
// negative value is an error.
type Options struct {
	// Listen is the TCP address to serve on: "host:port", ":9443" for all addresses
	// of the machine, port 0 for one that the system picks (see Server.Addr).
	Listen string

	// GetCertificate answers each handshake with the serving certificate. It is called
	// concurrently, and an error of it refuses that one connection.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// ClientCAs are the authorities whose certificate a caller must present; who has none is refused at the handshake. It is
	// called for each handshake, concurrently, so that the authorities may change. Nil asks no caller for a certificate.
	ClientCAs func() *x509.CertPool

	// ClientCertOptional answers callers without a certificate too. One that none of the ClientCAs has issued is refused all the
	// same.
	ClientCertOptional bool

	// Log takes the server's own lines; nil discards them.
	Log *slog.Logger

	// DrainPeriod is how long the server goes on serving after its context has ended.
	// Zero means not at all: use DefaultDrainPeriod behind a Service.
	DrainPeriod time.Duration

	// ShutdownTimeout: see DefaultShutdownTimeout.
	ShutdownTimeout time.Duration

	// HandshakeTimeout: see DefaultHandshakeTimeout.
	HandshakeTimeout time.Duration

	// ReadHeaderTimeout: see DefaultReadHeaderTimeout.
	ReadHeaderTimeout time.Duration

	// ReadTimeout: see DefaultReadTimeout.
	ReadTimeout time.Duration

	// ReviewTimeout: see DefaultReviewTimeout.
	ReviewTimeout time.Duration

	// WriteTimeout: see DefaultWriteTimeout. It should be above ReviewTimeout.
	WriteTimeout time.Duration

	// IdleTimeout: see DefaultIdleTimeout.
	IdleTimeout time.Duration

	// MaxConnections: see DefaultMaxConnections. Beyond it, a new connection takes the place of one that is not in use.
	MaxConnections int

	// MaxInFlight: see DefaultMaxInFlight. Further requests wait for half of their
	// timeout, and are then answered with 503.
	MaxInFlight int

	// MaxHeaderBytes: see DefaultMaxHeaderBytes. A longer head is answered with 431.
	MaxHeaderBytes int

	// MaxBodyBytes: see DefaultMaxBodyBytes. Of a longer body, the handler gets the head, and review.ErrTooLarge. All bodies
	// together take at most twice as many bytes, and 8 MiB.
	MaxBodyBytes int64
}

// withDefaults fills in what is zero.
func (o Options) withDefaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.ShutdownTimeout = cmp.Or(o.ShutdownTimeout, DefaultShutdownTimeout)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, DefaultHandshakeTimeout)
	o.ReadHeaderTimeout = cmp.Or(o.ReadHeaderTimeout, DefaultReadHeaderTimeout)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, DefaultReadTimeout)
	o.ReviewTimeout = cmp.Or(o.ReviewTimeout, DefaultReviewTimeout)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, DefaultWriteTimeout)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, DefaultIdleTimeout)
	o.MaxConnections = cmp.Or(o.MaxConnections, DefaultMaxConnections)
	o.MaxInFlight = cmp.Or(o.MaxInFlight, DefaultMaxInFlight)
	o.MaxHeaderBytes = cmp.Or(o.MaxHeaderBytes, DefaultMaxHeaderBytes)
	o.MaxBodyBytes = cmp.Or(o.MaxBodyBytes, DefaultMaxBodyBytes)
	return o
}

// validate refuses what can only be a mistake of the caller.
func (o Options) validate() error {
	if o.Listen == "" {
		return fmt.Errorf("%w: Listen is empty: name an address such as \":9443\"", ErrInvalidOptions)
	}
	if o.GetCertificate == nil {
		return fmt.Errorf("%w: GetCertificate is nil: the server speaks TLS only", ErrInvalidOptions)
	}
	least := min(o.DrainPeriod, o.ShutdownTimeout, o.HandshakeTimeout, o.ReadHeaderTimeout, o.ReadTimeout,
		o.ReviewTimeout, o.WriteTimeout, o.IdleTimeout)
	if least < 0 {
		return fmt.Errorf("%w: a time is negative (%s): leave it zero for its default", ErrInvalidOptions, least)
	}
	if n := min(int64(o.MaxConnections), int64(o.MaxInFlight), int64(o.MaxHeaderBytes), o.MaxBodyBytes); n < 0 {
		return fmt.Errorf("%w: a bound is negative (%d): leave it zero for its default", ErrInvalidOptions, n)
	}
	return nil
}
