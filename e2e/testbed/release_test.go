// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestKubernetesToolReadsVersions(t *testing.T) {
	const stamp = "-X k8s.io/component-base/version."
	tests := map[string]struct {
		text, want, ldflags string
	}{
		"nothing means the default": {
			text: "", want: "v1.37.2",
			ldflags: stamp + "gitVersion=v1.37.2 " + stamp + "gitMajor=1 " + stamp + "gitMinor=37",
		},
		"a bare version gets its v": {
			text: "1.28.15", want: "v1.28.15",
			ldflags: stamp + "gitVersion=v1.28.15 " + stamp + "gitMajor=1 " + stamp + "gitMinor=28",
		},
		"a version with v is taken as it is": {
			text: "v1.30.0", want: "v1.30.0",
			ldflags: stamp + "gitVersion=v1.30.0 " + stamp + "gitMajor=1 " + stamp + "gitMinor=30",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := KubernetesTool("kube-apiserver", test.text)
			if err != nil {
				t.Fatal(err)
			}
			want := Tool{
				Name:    "kube-apiserver",
				Package: "k8s.io/kubernetes/cmd/kube-apiserver",
				Release: Release{
					Project: "kubernetes", Module: "k8s.io/kubernetes",
					Version: test.want, LDFlags: test.ldflags,
				},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("tool (-want +got):\n%s", diff)
			}
		})
	}
}

func TestKubernetesToolRefusesMalformedVersions(t *testing.T) {
	tests := map[string]string{
		"no patch number":         "1.37",
		"no number":               "latest",
		"another major number":    "2.0.0",
		"a pre-release":           "1.37.0-rc.1",
		"a leading zero":          "1.037.2",
		"two leading v":           "vv1.37.2",
		"spaces around":           " 1.37.2 ",
		"a path":                  "../1.37.2",
		"a number beyond reason":  "1.99999999999999999999.2",
		"a line that follows one": "1.37.2\n",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := KubernetesTool("kube-apiserver", text); !errors.Is(err, ErrMalformedVersion) {
				t.Errorf("KubernetesTool(%q) = %v, want ErrMalformedVersion", text, err)
			}
		})
	}
}

func TestKubectlIsOfTheDefaultRelease(t *testing.T) {
	want, err := KubernetesTool("kubectl", "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, Kubectl()); diff != "" {
		t.Errorf("kubectl (-want +got):\n%s", diff)
	}
}

func TestModuleTextReplacesOnlyStagingModules(t *testing.T) {
	source, err := readModule(t.Context(), absolute(t, "testdata/kubernetes.mod"))
	if err != nil {
		t.Fatal(err)
	}
	release := Release{Project: "kubernetes", Module: "k8s.io/kubernetes", Version: "v1.30.14"}
	want, err := os.ReadFile("testdata/generated.mod")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), moduleText(release, source)); diff != "" {
		t.Errorf("go.mod (-want +got):\n%s", diff)
	}
}

func TestFirstModuleErrorNamesTheReleaseWhoseModuleIsMissing(t *testing.T) {
	release := Release{Project: "kubernetes", Version: "v1.33.5"}
	tests := map[string]struct {
		output string
		want   error
	}{
		"all modules are there":    {output: `{"Path":"k8s.io/api"} {"Path":"k8s.io/kms"}`, want: nil},
		"the second is missing":    {output: `{"Path":"k8s.io/api"} {"Path":"k8s.io/kms","Error":{"Err":"gone"}}`, want: ErrUnresolvedVersion},
		"there is nothing to read": {output: ``, want: nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := firstModuleError(release, []byte(test.output)); !errors.Is(got, test.want) {
				t.Errorf("error = %v, want %v", got, test.want)
			}
		})
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
