// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package install

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/e2e/node"
)

// Two images of one commit, as two releases.
const (
	tag, version         = "e2e", "v0.1.0-e2e"
	nextTag, nextVersion = "e2e-next", "v0.2.0-e2e"

	commit = "0123456789abcdef0123456789abcdef01234567"
)

// maxImage is the compressed size that the targets allow.
const maxImage = 20 << 20

// buildImages builds the images that all else runs, from a binary that is built already: the node reaches no registry.
func buildImages(t *testing.T, n *node.Node) {
	t.Helper()
	first := buildImage(t, n, tag, version)
	second := buildImage(t, n, "again", version)
	if first.digest != second.digest {
		t.Errorf("two builds make %s and %s", first.digest, second.digest)
	}
	if first.size > maxImage {
		t.Errorf("the image has %d bytes, compressed; want at most %d", first.size, maxImage)
	}
	want := map[string]string{
		"org.opencontainers.image.title":    "apigw-guardian",
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.revision": commit,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	for key, value := range want {
		if got := first.config.Labels[key]; got != value {
			t.Errorf("label %s = %q, want %q", key, got, value)
		}
	}
	if diff := cmp.Diff("65532:65532", first.config.User); diff != "" {
		t.Errorf("user: -want +got:\n%s", diff)
	}
	if next := buildImage(t, n, nextTag, nextVersion); next.digest == first.digest {
		t.Error("another version is the same image")
	}
	t.Logf("image: %.1f MB compressed, twice %s", float64(first.size)/1e6, first.digest)
}

// builtImage is an image as a registry would store it.
type builtImage struct {
	digest string
	size   int64
	config struct {
		User   string
		Labels map[string]string
	}
}

// descriptor is the part of an OCI descriptor that says where the rest is.
type descriptor struct {
	Digest string
	Size   int64
}

// buildImage builds program and image in a directory of their own, as anybody else would, and gives it to the node.
func buildImage(t *testing.T, n *node.Node, tag, version string) builtImage {
	t.Helper()
	return buildImageOf(t, n, "../..", tag, version)
}

// buildImageOf is buildImage for the program in another directory.
func buildImageOf(t *testing.T, n *node.Node, root, tag, version string) builtImage {
	t.Helper()
	folder := t.TempDir()
	sources := filepath.Join(folder, "sources")
	for _, part := range []string{"cmd", "pkg", "certs"} {
		if err := os.CopyFS(filepath.Join(sources, part), os.DirFS(filepath.Join(root, part))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sources, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X main.version="+version+" -X main.commit="+commit,
		"-o", filepath.Join(folder, "bin", "apigw-guardian"), "./cmd/apigw-guardian")
	build.Dir = sources
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, output)
	}
	dockerfile, err := filepath.Abs("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	name := image + ":" + tag
	archive, err := n.BuildImage(t.Context(), node.Image{
		ContextDir: folder, Dockerfile: dockerfile, Tag: name, Target: "prebuilt",
		BuildArgs: map[string]string{"VERSION": version, "COMMIT": commit},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.ImportImage(t.Context(), archive); err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(folder, "layout")
	if err := n.ExportImage(t.Context(), name, layout); err != nil {
		t.Fatal(err)
	}
	return readLayout(t, layout)
}

func readLayout(t *testing.T, layout string) builtImage {
	t.Helper()
	var index struct{ Manifests []descriptor }
	readJSON(t, filepath.Join(layout, "index.json"), &index)
	blob := func(d descriptor) string {
		return filepath.Join(layout, "blobs", strings.Replace(d.Digest, ":", "/", 1))
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	readJSON(t, blob(index.Manifests[0]), &manifest)
	built := builtImage{digest: index.Manifests[0].Digest, size: manifest.Config.Size}
	for _, layer := range manifest.Layers {
		built.size += layer.Size
	}
	readJSON(t, blob(manifest.Config), &struct{ Config any }{&built.config})
	return built
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, into); err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
}
