// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package auditweb

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

func TestBadStartsSayWhatIsWrong(t *testing.T) {
	harness.Take(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	nobody := harness.Kubeconfig(t, "nobody")
	broken := filepath.Join(t.TempDir(), "broken.kubeconfig")
	if err := os.WriteFile(broken, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no permission":                    {[]string{"--kubeconfig", nobody}, 1, "list auditrecords.guardian.apigw.io"},
		"a kubeconfig that is not there":   {[]string{"--kubeconfig", "/absent"}, 1, "/absent"},
		"a kubeconfig that is none":        {[]string{"--kubeconfig", broken}, 1, broken},
		"a context that is not there":      {[]string{"--context", "absent"}, 1, `"absent"`},
		"a port in use":                    {[]string{"--port", port}, 1, "--port"},
		"a port that there cannot be":      {[]string{"--port", "65536"}, 2, "65535"},
		"a port below zero":                {[]string{"--port=-1"}, 2, "65535"},
		"an argument that nobody asks for": {[]string{"now"}, 2, "now"},
	} {
		t.Run(name, func(t *testing.T) {
			got := harness.Run(t, append([]string{"audit", "web"}, test.args...)...).Require(t, test.code, test.says)
			if got.Stdout != "" {
				t.Errorf("standard output: %s", got.Stdout)
			}
		})
	}
	t.Run("a cluster without the kind", func(t *testing.T) {
		withoutKind.Require(t, 1, "crds.enabled=true")
	})
}

func TestItListensOnLoopbackOnly(t *testing.T) {
	harness.Take(t)
	review := startReview(t)
	if host := review.Address.Hostname(); host != "127.0.0.1" {
		t.Errorf("it serves on %s", host)
	}
	response, err := http.Get(review.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("got %s", response.Status)
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		ip := address.(*net.IPNet).IP
		if ip.IsLoopback() || ip.IsLinkLocalUnicast() {
			continue
		}
		connection, err := net.DialTimeout("tcp", net.JoinHostPort(ip.String(), review.Address.Port()), time.Second)
		if err == nil {
			_ = connection.Close()
			t.Errorf("it listens on %s", ip)
		}
	}
}

// A command line can be read by every user of the machine, so the token must not be on the browser's.
func TestOpenKeepsTheTokenFromOtherUsers(t *testing.T) {
	harness.Take(t)
	bin, seen := t.TempDir(), filepath.Join(t.TempDir(), "seen")
	opener := "#!/bin/sh\necho \"$1\" > " + seen + ".part && mv " + seen + ".part " + seen + "\n"
	if err := os.WriteFile(filepath.Join(bin, "xdg-open"), []byte(opener), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	review := startReview(t, "--open")
	var path string
	harness.Eventually(t, "the browser is opened", func() (bool, any) {
		content, err := os.ReadFile(seen)
		path = strings.TrimSpace(string(content))
		return err == nil, err
	})
	if token := strings.Trim(review.Address.Path, "/"); strings.Contains(path, token) {
		t.Errorf("the token is on the command line: %s", path)
	}
	content, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(content), review.Address.String()) {
		t.Errorf("%s does not lead to %s: %v", content, review.Address, err)
	}
	for file, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: %v %v, want %v", file, info.Mode(), err, want)
		}
	}
	if err := review.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("it left %s: %v", path, err)
	}
}
