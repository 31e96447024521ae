// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const name = "apigw-guardian"

// buildBinaries builds the program for each platform as `make build` does, and packs it with the license.
func (r *release) buildBinaries(ctx context.Context) error {
	license, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	for _, platform := range r.platforms {
		goos, arch, _ := strings.Cut(platform, "/")
		file := filepath.Join("bin", "release", goos+"_"+arch, name+suffix(goos))
		command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false",
			"-ldflags=-s -w -buildid= -X main.version="+r.version+" -X main.commit="+r.commit, "-o", file, "./cmd/"+name)
		command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+goos, "GOARCH="+arch)
		if says, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("build for %s: %w\n%s", platform, err, says)
		}
		r.binaries[platform] = file
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		pack := tarGzipOf
		if goos == "windows" {
			pack = zipOf
		}
		archive, err := pack(r.time, entry{"LICENSE", 0o644, license}, entry{name + suffix(goos), 0o755, data})
		if err != nil {
			return fmt.Errorf("pack for %s: %w", platform, err)
		}
		if err := os.WriteFile(filepath.Join(dist, r.archive(platform)), archive, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func suffix(goos string) string {
	if goos == "windows" {
		return ".exe"
	}
	return ""
}

// base is the start of the names of a platform's files.
func (r *release) base(platform string) string {
	return name + "_" + r.number() + "_" + strings.ReplaceAll(platform, "/", "_")
}

func (r *release) archive(platform string) string {
	if strings.HasPrefix(platform, "windows/") {
		return r.base(platform) + ".zip"
	}
	return r.base(platform) + ".tar.gz"
}

// writeBills lists the modules in each binary, as CycloneDX. The image has one of these binaries and nothing else.
func (r *release) writeBills(ctx context.Context) error {
	tool, err := output(ctx, "tools/install", "cyclonedx-gomod")
	if err != nil {
		return err
	}
	for _, platform := range r.platforms {
		file := filepath.Join(dist, r.base(platform)+".cdx.json")
		_, err := output(ctx, tool, "bin", "-json", "-noserial", "-std", "-version", r.version, "-output", file, r.binaries[platform])
		if err != nil {
			return err
		}
		if err := r.stampBill(file); err != nil {
			return err
		}
	}
	return nil
}
