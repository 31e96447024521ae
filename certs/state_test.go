// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
)

// logged collects log lines of slog's text handler without their times.
type logged struct{ buffer bytes.Buffer }

func (l *logged) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&l.buffer, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// require requires that exactly one line starts with each text.
func (l *logged) require(t *testing.T, starts ...string) {
	t.Helper()
	for _, start := range starts {
		if count := strings.Count("\n"+l.buffer.String(), "\n"+start); count != 1 {
			t.Errorf("%d lines start with %q, want 1:\n%s", count, start, &l.buffer)
		}
	}
}

func TestAProblemIsLoggedOnceAndItsEndToo(t *testing.T) {
	var l logged
	changes := 0
	h := health{log: l.logger(), changed: func() { changes++ }}
	for _, problem := range []string{"", "tls.crt has expired", "tls.crt has expired", ""} {
		h.report(problem)
	}
	l.require(t, `level=ERROR msg="certificate problem" reason="tls.crt has expired"`, `level=INFO msg="certificate problem solved"`)
	if changes != 2 {
		t.Errorf("%d calls of changed, want 2", changes)
	}
}

func TestAStateWithoutACertificateHasAProblem(t *testing.T) {
	at := newClock()
	authority := load(t, fake.NewClientset().CoreV1(), at.options())
	if problem := authority.State().Problem; problem != "" {
		t.Errorf("with a valid CA: problem %q", problem)
	}
	at.now = at.now.Add(DefaultCALifetime + time.Second)
	state := authority.State()
	if state.Leaf != nil || !strings.Contains(state.Problem, "tls.crt has expired") || !errors.Is(state.Ready(at.now), errNoCertificate) {
		t.Errorf("leaf %v, problem %q, ready %v", state.Leaf, state.Problem, state.Ready(at.now))
	}
}

func TestTheLeaderLogsThatItRestoresTheSecret(t *testing.T) {
	var l logged
	at, secret := newClock(), &secretOnly{}
	opts := at.options()
	opts.Log = l.logger()
	authority := load(t, secret, opts)
	secret.data = nil
	if err := authority.round(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	l.require(t, `level=WARN msg="restoring the CA Secret, which another client deleted or changed" name=apigw-guardian-ca`)
	if secret.data == nil {
		t.Error("the Secret was not restored")
	}
}

// The log line is what an administrator looks for after writes were refused.
func TestAReplacedCAIsLogged(t *testing.T) {
	at := newClock()
	expired := forge(t, at.now, func(c *x509.Certificate) { c.NotAfter = at.now.Add(-time.Second) })
	for name, test := range map[string]struct {
		data       map[string][]byte
		registered bool
		line       string
	}{
		"because it has expired": {expired, false, `level=ERROR msg="replaced the CA, which had expired" name=apigw-guardian-ca`},
		"because it is unknown": {
			forge(t, at.now, asIs), true, `level=ERROR msg="replacing the CA: the Secret holds no proven one" name=apigw-guardian-ca err=`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var l logged
			opts := at.options()
			opts.Log = l.logger()
			if test.registered {
				bundle := asPEM("CERTIFICATE", newIssuer(t, at.now).certificate.Raw)
				opts.Registered = func(context.Context) ([]byte, bool, error) { return bundle, true, nil }
			}
			if replaced := load(t, &secretOnly{data: test.data, version: 1}, opts).State().Replaced; replaced != 1 {
				t.Errorf("%d CAs were replaced, want 1", replaced)
			}
			l.require(t, test.line)
		})
	}
}

func TestFilesReadTheWebhookConfigurationOnceAMinute(t *testing.T) {
	at := newClock()
	ca := newIssuer(t, at.now)
	dir, reads := t.TempDir(), 0
	write(t, dir, ca.issue(t, at.now, asIs))
	files, err := LoadFiles(t.Context(), FilesOptions{
		Dir: dir, Host: "guard.guard.svc", Now: at.Now,
		Registered: func(context.Context) ([]byte, bool, error) {
			reads++
			return asPEM("CERTIFICATE", ca.certificate.Raw), true, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 61 {
		at.now = at.now.Add(time.Second)
		if err := files.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if reads != 2 {
		t.Errorf("%d reads in 61 seconds, want one at the start and one after a minute", reads)
	}
}
