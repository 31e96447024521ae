// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The media types of the OCI image specification, v1.1.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type imageConfig struct {
	platform

	Created time.Time `json:"created"`
	Config  struct {
		User       string            `json:"User"`
		Entrypoint []string          `json:"Entrypoint"`
		Labels     map[string]string `json:"Labels"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// layout is an OCI image layout in memory: blobs by digest.
type layout struct{ entries []entry }

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (l *layout) add(mediaType string, data []byte) descriptor {
	digest := digestOf(data)
	l.entries = append(l.entries, entry{"blobs/sha256/" + strings.TrimPrefix(digest, "sha256:"), 0o644, data})
	return descriptor{MediaType: mediaType, Digest: digest, Size: len(data)}
}

func (l *layout) addJSON(mediaType string, value any) (descriptor, error) {
	data, err := json.Marshal(value)
	return l.add(mediaType, data), err
}

// labels are those of the Dockerfile.
func (r *release) labels() map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":       name,
		prefix + "description": "Authorizes API Gateway on a Kubernetes cluster, and guards what it reserves there",
		prefix + "licenses":    "Apache-2.0",
		prefix + "source":      "https://github.com/apigw-guardian/apigw-guardian",
		prefix + "version":     r.version,
		prefix + "revision":    r.commit,
	}
}

// addImage adds the image of one platform: one static binary and a numeric user, as in the Dockerfile.
func (r *release) addImage(l *layout, arch string, binary []byte) (descriptor, error) {
	files, err := tarOf(r.time, entry{name, 0o755, binary})
	if err != nil {
		return descriptor{}, err
	}
	compressed, err := gzipOf(files)
	if err != nil {
		return descriptor{}, err
	}
	config := imageConfig{platform: platform{arch, "linux"}, Created: r.time}
	config.Config.User, config.Config.Entrypoint, config.Config.Labels = "65532:65532", []string{"/" + name}, r.labels()
	config.RootFS.Type, config.RootFS.DiffIDs = "layers", []string{digestOf(files)}
	stored, err := l.addJSON(mediaConfig, config)
	if err != nil {
		return descriptor{}, err
	}
	image, err := l.addJSON(mediaManifest, manifest{2, mediaManifest, stored, []descriptor{l.add(mediaLayer, compressed)}})
	image.Platform = &config.platform
	return image, err
}

// writeImage writes an archive of the OCI image layout of all Linux platforms: `skopeo copy --all oci-archive:FILE docker://...`.
func (r *release) writeImage(context.Context) error {
	l := &layout{}
	var images []descriptor
	for _, platform := range r.platforms {
		arch, isLinux := strings.CutPrefix(platform, "linux/")
		if !isLinux {
			continue
		}
		binary, err := os.ReadFile(r.binaries[platform])
		if err != nil {
			return err
		}
		image, err := r.addImage(l, arch, binary)
		if err != nil {
			return fmt.Errorf("%s: %w", platform, err)
		}
		images = append(images, image)
	}
	if len(images) == 0 {
		return errors.New("RELEASE_PLATFORMS has no linux platform")
	}
	all, err := l.addJSON(mediaIndex, index{2, mediaIndex, images, r.labels()})
	if err != nil {
		return err
	}
	r.digest = all.Digest
	// The tag, and the full name for `ctr images import`.
	all.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": r.number(), "io.containerd.image.name": r.image() + ":" + r.number(),
	}
	top, err := json.Marshal(index{2, mediaIndex, []descriptor{all}, nil})
	if err != nil {
		return err
	}
	entries := append([]entry{{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", 0o644, top}}, l.entries...)
	archive, err := tarOf(r.time, entries...)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dist, name+"_"+r.number()+"_image.tar"), archive, 0o600)
}
