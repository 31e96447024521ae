// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestAnUnusableClientCAIsRefused(t *testing.T) {
	at := newClock()
	cases := map[string]struct {
		write func(path string) error
		says  string
	}{
		"it is missing":      {func(string) error { return nil }, "the file is missing"},
		"it is a directory":  {func(path string) error { return os.Mkdir(path, 0o700) }, "the file cannot be read"},
		"it is empty":        {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "not a list of PEM certificates"},
		"it holds a key":     {func(path string) error { return os.WriteFile(path, forge(t, at.now, asIs)["tls.key"], 0o600) }, "not a list of PEM certificates"},
		"it is binary (DER)": {func(path string) error { return os.WriteFile(path, newIssuer(t, at.now).certificate.Raw, 0o600) }, "not a list of PEM certificates"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "clients.crt")
			if err := tc.write(path); err != nil {
				t.Fatal(err)
			}
			_, err := LoadClientCA(path, nil)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAClientCAFollowsItsFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "clients.crt")
		put := func(data []byte) {
			t.Helper()
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		first, second := newIssuer(t, time.Now()), newIssuer(t, time.Now())
		put(asPEM("CERTIFICATE", first.certificate.Raw))
		var l logged
		callers, err := LoadClientCA(path, l.logger())
		if err != nil {
			t.Fatal(err)
		}
		go callers.Follow(t.Context())
		time.Sleep(time.Minute)
		synctest.Wait()
		l.require(t, `level=INFO msg="read the client CA"`) // once, not once a second
		before := callers.Pool()
		put([]byte("junk"))
		if callers.Problem() == "" || !callers.Pool().Equal(before) {
			t.Errorf("with junk: problem %q, want one, and the CAs before", callers.Problem())
		}
		put(asPEM("CERTIFICATE", second.certificate.Raw))
		if callers.Problem() != "" || callers.Pool().Equal(before) {
			t.Errorf("with another CA: problem %q, or still the CAs before", callers.Problem())
		}
	})
}

func TestMetricsHaveTheExpiryOfCertificates(t *testing.T) {
	at := newClock()
	leaf, authority := newIssuer(t, at.now).certificate, newIssuer(t, at.now.Add(time.Hour)).certificate
	cases := map[string]struct {
		state State
		want  string
	}{
		"nothing yet": {State{}, ``},
		"both": {State{Leaf: leaf, Authority: authority}, `
# HELP apigw_guardian_certificate_not_after_seconds Unix time at which the certificate expires: the serving certificate (leaf) or its CA (ca).
# TYPE apigw_guardian_certificate_not_after_seconds gauge
apigw_guardian_certificate_not_after_seconds{certificate="ca"} 1.7891892e+09
apigw_guardian_certificate_not_after_seconds{certificate="leaf"} 1.7891856e+09
`},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			collector := NewCollector(func() State { return tc.state })
			if err := testutil.CollectAndCompare(collector, strings.NewReader(tc.want), "apigw_guardian_certificate_not_after_seconds"); err != nil {
				t.Error(err)
			}
		})
	}
	for problem, want := range map[string]float64{"": 0, "tls.crt has expired": 1} {
		collector := NewCollector(func() State { return State{Problem: problem} })
		if got := testutil.ToFloat64(collector); got != want {
			t.Errorf("problem %q: got %v, want %v", problem, got, want)
		}
	}
}
