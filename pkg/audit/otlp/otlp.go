// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package otlp sends audit records as OpenTelemetry logs to a receiver, over OTLP/HTTP.
package otlp

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	collectorv1 "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/export"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

const (
	// logsPath is where a receiver takes logs if the endpoint names no path, as the OTLP specification says.
	logsPath = "/v1/logs"
	// timeout bounds one request: the default of the OTLP exporters.
	timeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 10
	// maxSaid bounds what an error quotes of an answer.
	maxSaid = 256
)

// The files of Options.Dir. Each is optional.
const (
	headersFile = "headers"
	caFile      = "ca.crt"
	certFile    = "tls.crt"
	keyFile     = "tls.key"
)

// Options configure an Exporter. Endpoint is required.
type Options struct {
	// Endpoint is the URL of the receiver: http or https. Without a path, /v1/logs is added.
	Endpoint string
	// Dir has the files headers (lines of NAME: VALUE), ca.crt, and tls.crt with tls.key; "" for none.
	Dir    string
	Origin export.Origin
}

// Exporter sends records. Use one from one goroutine.
type Exporter struct {
	url     string
	origin  export.Origin
	headers http.Header
	client  *http.Client
}

// Endpoint returns the URL to which logs are posted.
func Endpoint(endpoint string) (string, error) {
	parsed, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", err
	case parsed.Scheme != "http" && parsed.Scheme != "https", parsed.Host == "", parsed.User != nil, parsed.Fragment != "":
		return "", errors.New("must be http://HOST:PORT or https://HOST:PORT, with a path if it is not /v1/logs")
	}
	if strings.Trim(parsed.Path, "/") == "" {
		parsed.Path = logsPath
	}
	return parsed.String(), nil
}

// New reads the files of the options. It does not connect.
func New(options Options) (*Exporter, error) {
	endpoint, err := Endpoint(options.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("OTLP endpoint %q: %w", options.Endpoint, err)
	}
	headers, err := readHeaders(options.Dir)
	if err != nil {
		return nil, err
	}
	config, err := readTLS(options.Dir)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConns: 1}
	return &Exporter{url: endpoint, origin: options.Origin, headers: headers, client: &http.Client{
		Transport: transport, Timeout: timeout,
		// A redirect would carry the headers to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// read returns the content of a file, nil if it does not exist.
func read(dir, name string) ([]byte, error) {
	if dir == "" {
		return nil, nil
	}
	content, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return content, err
}

func readHeaders(dir string) (http.Header, error) {
	content, err := read(dir, headersFile)
	if err != nil {
		return nil, err
	}
	headers := http.Header{}
	for lines := bufio.NewScanner(bytes.NewReader(content)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" {
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if value = strings.TrimSpace(value); !found || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("%s: a line is not NAME: VALUE", filepath.Join(dir, headersFile)) // it may be a credential
		}
		headers.Set(name, value)
	}
	return headers, nil
}

func readTLS(dir string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	ca, err := read(dir, caFile)
	if err != nil {
		return nil, err
	}
	if ca != nil {
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%s: no PEM certificate", filepath.Join(dir, caFile))
		}
	}
	cert, err := read(dir, certFile)
	if err != nil || cert == nil {
		return config, err
	}
	key, err := read(dir, keyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", filepath.Join(dir, certFile), filepath.Join(dir, keyFile), err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// Close closes idle connections.
func (e *Exporter) Close() { e.client.CloseIdleConnections() }

// ErrRefused says that the receiver refuses this request for what it holds: to repeat it is useless.
var ErrRefused = errors.New("the receiver refuses the records")

// Export sends records and returns how many of them the receiver rejected although it took the request. After an error, the receiver may
// have none of them, and the same call may be repeated unless the error wraps ErrRefused.
func (e *Exporter) Export(ctx context.Context, records []v1alpha1.AuditRecord) (rejected int64, err error) {
	body, err := encode(e.origin, records, time.Now())
	if err != nil {
		return 0, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header = e.headers.Clone()
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("Content-Encoding", "gzip")
	response, err := e.client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	switch {
	case response.StatusCode == http.StatusBadRequest, response.StatusCode == http.StatusRequestEntityTooLarge:
		return 0, fmt.Errorf("%w: %s: %s", ErrRefused, response.Status, said(answer))
	case response.StatusCode != http.StatusOK:
		return 0, fmt.Errorf("POST %s: %s: %s", e.url, response.Status, said(answer))
	case err != nil:
		return 0, fmt.Errorf("read the answer of the receiver: %w", err)
	}
	result := &collectorv1.ExportLogsServiceResponse{}
	if err := proto.Unmarshal(answer, result); err != nil {
		return 0, nil //nolint:nilerr // some receivers answer 200 with JSON or a text
	}
	return result.GetPartialSuccess().GetRejectedLogRecords(), nil
}

func said(answer []byte) string { return text.Printable(string(answer), maxSaid) }

func encode(origin export.Origin, records []v1alpha1.AuditRecord, now time.Time) ([]byte, error) {
	message, err := proto.Marshal(requestOf(origin, records, now))
	if err != nil {
		return nil, fmt.Errorf("encode audit records: %w", err)
	}
	var body bytes.Buffer
	writer := gzip.NewWriter(&body)
	_, err = writer.Write(message)
	err = errors.Join(err, writer.Close())
	return body.Bytes(), err
}
