// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Command release makes the files of a release in dist, and verifies them. The same commit makes the same bytes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
)

// dist is the directory of the release, below the repository, where the program runs.
const dist = "dist"

func main() {
	program.Main("release", func(ctx context.Context) error {
		switch {
		case len(os.Args) == 2 && os.Args[1] == "build":
			return build(ctx, environment())
		case len(os.Args) == 2 && os.Args[1] == "verify":
			return verify(ctx, dist, os.Getenv("RELEASE_PUBLIC_KEY"))
		}
		return errors.New("usage: release build | verify")
	})
}

func build(ctx context.Context, options options) error {
	r, err := newRelease(ctx, options)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(dist), os.MkdirAll(dist, 0o755)); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"binaries", r.buildBinaries},
		{"bills of materials", r.writeBills},
		{"image", r.writeImage},
		{"chart", r.writeChart},
		{"manifests for kubectl", r.writeManifests},
		{"krew manifest", r.writeKrew},
		{"release notes", r.writeNotes},
		{"provenance", r.writeProvenance},
		{"checksums", func(context.Context) error { return writeSums(dist) }},
		{"signature", func(ctx context.Context) error { return sign(ctx, dist, options.key) }},
	} {
		fmt.Fprintf(os.Stderr, "==> release %s: %s\n", r.version, step.name)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("make the %s: %w", step.name, err)
		}
	}
	return nil
}
