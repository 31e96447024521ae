// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestWebhookRefusesFlagsAndNamesThem(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no address to call":           {nil, exitUsage, "--service or --url"},
		"two addresses to call":        {[]string{"--url=https://a:1", "--service=a/b:1"}, exitUsage, "--url and --service"},
		"a URL without TLS":            {[]string{"--url=http://a:1"}, exitUsage, "https://HOST:PORT"},
		"a Service without a port":     {[]string{"--service=a/b"}, exitUsage, "NAMESPACE/NAME:PORT"},
		"an unknown log level":         {[]string{"--url=https://a:1", "--log-level=loud"}, exitUsage, "--log-level"},
		"no address to listen at":      {[]string{"--url=https://a:1", "--listen="}, exitUsage, "--listen"},
		"an unknown mode":              {[]string{"--url=https://a:1", "--mode=off"}, exitUsage, `--mode "off": must be enforce or observe`},
		"a negative drain period":      {[]string{"--url=https://a:1", "--drain-period=-1s"}, exitUsage, "--drain-period -1s: must not be negative"},
		"a hint of two lines":          {[]string{"--url=https://a:1", "--message-hint=a\nb"}, exitUsage, "--message-hint"},
		"a long hint":                  {[]string{"--url=https://a:1", "--message-hint=" + strings.Repeat("x", maxHint+1)}, exitUsage, "--message-hint"},
		"an unknown audit mode":        {[]string{"--url=https://a:1", "--audit-mode=none"}, exitUsage, "--audit-mode"},
		"batch without a spool":        {[]string{"--url=https://a:1", "--audit-mode=batch"}, exitUsage, "--spool-dir"},
		"a tiny spool":                 {[]string{"--url=https://a:1", "--spool-size=1Ki"}, exitUsage, "--spool-size 1Ki"},
		"no retention":                 {[]string{"--url=https://a:1", "--audit-retention=0s"}, exitUsage, "--audit-retention"},
		"no records":                   {[]string{"--url=https://a:1", "--audit-max-records=0"}, exitUsage, "--audit-max-records"},
		"a receiver without a scheme":  {[]string{"--url=https://a:1", "--otlp-endpoint=a:4318"}, exitUsage, "--otlp-endpoint"},
		"a cluster without a receiver": {[]string{"--url=https://a:1", "--otlp-cluster-name=a"}, exitUsage, "set --otlp-endpoint"},
		"an unknown source of certs":   {[]string{"--url=https://a:1", "--certs=magic"}, exitUsage, "--certs"},
		"files without a directory":    {[]string{"--url=https://a:1", "--certs=files"}, exitUsage, "--cert-dir"},
		"a directory without files":    {[]string{"--url=https://a:1", "--cert-dir=/etc"}, exitUsage, "--certs files"},
		"an unknown client auth":       {[]string{"--url=https://a:1", "--client-auth=ask"}, exitUsage, "--client-auth"},
		"client auth without a CA":     {[]string{"--url=https://a:1", "--client-auth=request"}, exitUsage, "--client-ca"},
		"a CA of a moment":             {[]string{"--url=https://a:1", "--ca-lifetime=1s"}, exitUsage, "--ca-lifetime 1s: must be at least 5s"},
		"a leaf of a moment":           {[]string{"--url=https://a:1", "--leaf-lifetime=0"}, exitUsage, "--leaf-lifetime"},
		"a leaf that outlives its CA":  {[]string{"--url=https://a:1", "--ca-lifetime=1h", "--leaf-lifetime=2h"}, exitUsage, "--leaf-lifetime"},
		"no directory of reservations": {[]string{"--url=https://a:1", "--reservations=/absent"}, exitFailed, "/absent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), slices.Concat([]string{"webhook"}, test.args), &stdout, &stderr)
			if code != test.code || !strings.Contains(stderr.String(), test.says) || stdout.Len() > 0 {
				t.Errorf("got code %d, %q and %q, want code %d and %q", code, stdout.String(), stderr.String(), test.code, test.says)
			}
		})
	}
}

func TestUninstallRefusesADeploymentWithoutItsNamespace(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	for _, deployment := range []string{"guard", "/guard", "ns/"} {
		if code := run(t.Context(), []string{"uninstall", "--deployment", deployment}, &stdout, &stderr); code != exitUsage {
			t.Errorf("--deployment %q: got code %d, want %d", deployment, code, exitUsage)
		}
	}
}
