// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"

	"github.com/apigw-guardian/apigw-guardian/certs"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/recorder"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/webhook"
)

// The kubelet kills a Pod after its terminationGracePeriodSeconds, which the chart computes from the drain period.
func TestThePodOutlivesTheShutdown(t *testing.T) {
	t.Parallel()
	const template = "../../charts/apigw-guardian/templates/webhook.yaml"
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`terminationGracePeriodSeconds: \{\{ add \$drain (\d+) \}\}`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("%s adds no number of seconds to $drain", template)
	}
	seconds, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	const margin = 5 * time.Second // to start and end the container
	got, need := time.Duration(seconds)*time.Second, ShutdownGrace+margin
	if got < need {
		t.Errorf("after the drain, the chart allows %s, the guard needs %s", got, need)
	}
}

// newTestGuard returns a guard that serves a certificate from files, in a cluster that no API server answers for.
func newTestGuard(t *testing.T, change func(*Options)) (*Guard, error) {
	t.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := registration.ServiceEndpoint("ns/guard:443", webhook.Path)
	if err != nil {
		t.Fatal(err)
	}
	options := Options{
		Set: set, Mode: policy.Enforce, Endpoint: endpoint, Listen: "127.0.0.1:0", Namespace: "ns",
		Certificates: Certificates{Dir: certificateFiles(t, endpoint.Host())},
		Records:      Records{Mode: recorder.Blocking, Retention: store.Retention{Age: time.Hour, Max: 1}},
		Registry:     prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	}
	change(&options)
	return New(&rest.Config{Host: "http://127.0.0.1:1"}, options)
}

// certificateFiles returns a directory with tls.crt, tls.key and ca.crt for the host.
func certificateFiles(t *testing.T, host string) string {
	t.Helper()
	chain, key, err := cert.GenerateSelfSignedCertKey(host, nil, []string{host})
	if err != nil {
		t.Fatal(err)
	}
	leaf, ca := pem.Decode(chain)
	dir := t.TempDir()
	for name, content := range map[string][]byte{"tls.crt": pem.EncodeToMemory(leaf), "tls.key": key, "ca.crt": ca} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRunServesWithoutAnAPIServerAndEndsWithItsContext(t *testing.T) {
	t.Parallel()
	g, err := newTestGuard(t, func(*Options) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	select {
	case <-g.server.Listening():
	case err := <-ended:
		t.Fatalf("Run: %v", err)
	}
	if serving, certificate := g.server.Ready(nil), g.certificates.ready(nil); serving != nil || certificate != nil {
		t.Errorf("not ready: %v, %v", serving, certificate)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v, want nil", err)
	}
}

func TestRunNamesAPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for name, change := range map[string]func(*Options){
		"of the webhook": func(o *Options) { o.Listen = taken.Addr().String() },
		"of the probes":  func(o *Options) { o.ProbeListen = taken.Addr().String() },
		"of metrics":     func(o *Options) { o.MetricsListen = taken.Addr().String() },
	} {
		t.Run(name, func(t *testing.T) {
			g, err := newTestGuard(t, change)
			if err != nil {
				t.Fatal(err)
			}
			if err := g.Run(t.Context()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
				t.Errorf("got %v, want EADDRINUSE and the address", err)
			}
		})
	}
}

func TestRunFailsOnCertificatesOfNoUse(t *testing.T) {
	t.Parallel()
	g, err := newTestGuard(t, func(o *Options) { o.Certificates.Dir = t.TempDir() })
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Run(t.Context()); !errors.Is(err, certs.ErrUnusableFiles) {
		t.Errorf("got %v, want ErrUnusableFiles", err)
	}
}

func TestRunEndsWhileTheCertificatesAreNotLoaded(t *testing.T) {
	t.Parallel()
	g, err := newTestGuard(t, func(o *Options) {
		o.Certificates = Certificates{CALifetime: time.Hour, LeafLifetime: time.Hour}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := g.Run(ctx); err != nil || g.server.Addr() != nil {
		t.Errorf("got %v, and the address %v, want neither", err, g.server.Addr())
	}
}

func TestNewNamesAFileOfCAsThatIsAbsent(t *testing.T) {
	t.Parallel()
	absent := filepath.Join(t.TempDir(), "absent")
	if _, err := newTestGuard(t, func(o *Options) { o.Certificates.ClientCA = absent }); err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("got %v, want an error that names %s", err, absent)
	}
}

// Lines of the libraries are useful only if they warn, or in a search for a fault.
func TestLinesOfLibraries(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		level slog.Level
		ended bool
		want  string
	}{
		"at info":            {slog.LevelInfo, false, "warn,error,"},
		"at debug":           {slog.LevelDebug, false, "info,warn,error,"},
		"at info, after ctx": {slog.LevelInfo, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: test.level}))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			logger := slog.New(untilDone(ctx, log)).With("a", 1).WithGroup("g")
			if test.ended {
				cancel()
			}
			logger.Info("info")
			logger.Warn("warn")
			logger.Error("error")
			got := ""
			for _, word := range []string{"info", "warn", "error"} {
				if strings.Contains(out.String(), `"msg":"`+word+`"`) {
					got += word + ","
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
