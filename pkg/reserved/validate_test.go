// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const reservation = `{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Reservation","metadata":{"name":"x"},
	"spec":{"owner":%q,"resources":[{"manifest":%s}]}}`

func TestALimitOfAFieldIsExact(t *testing.T) {
	t.Parallel()
	const manifest = `{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token",
		"metadata":{"name":"a","namespace":"b","annotations":{"kubernetes.io/service-account.name":"a"}}}`
	withText := strings.Replace(manifest, `"type"`, `"stringData":{"token":"x"},"type"`, 1)
	for name, test := range map[string]struct{ owner, manifest, says string }{
		"an owner of 64 bytes":                 {strings.Repeat("x", 64), manifest, ""},
		"an owner of 65 bytes":                 {strings.Repeat("x", 65), manifest, "spec.owner: Too long"},
		"an owner with a control character":    {"x\x7f", manifest, "spec.owner: Invalid"},
		"a token Secret with its data as text": {"x", withText, "spec.resources[0].manifest.stringData: Forbidden"},
	} {
		_, err := Parse("x.yaml", fmt.Appendf(nil, reservation, test.owner, test.manifest))
		if (err == nil) != (test.says == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %v, want %q", name, err, test.says)
		}
	}
}

// The kubelet mounts a ConfigMap with links and a directory whose names start with a dot.
func TestLoadReadsFilesOnly(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"..data": nil, "edge.yaml": ErrInvalid} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); !errors.Is(err, want) {
			t.Errorf("a directory %s: got %v, want %v", name, err, want)
		}
	}
}

// Each call of discovery takes from the rate limit of the guard's client.
func TestDiscoveryIsAskedOnceForEachVersion(t *testing.T) {
	t.Parallel()
	asked := map[string]int{}
	_ = mustLoad(t, "testdata/valid").CheckServed(func(version string) (*metav1.APIResourceList, error) {
		asked[version]++
		return nil, errors.New("connection refused")
	})
	for version, times := range asked {
		if times != 1 {
			t.Errorf("%s: asked %d times, want once", version, times)
		}
	}
	if len(asked) < 2 {
		t.Errorf("asked for %v, want two versions at least", asked)
	}
}
