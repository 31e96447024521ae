// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// options are what the environment sets.
type options struct {
	version   string   // overrides the git tag
	registry  string   // of the image and the chart, for example ghcr.io/apigw-guardian
	platforms []string // OS/ARCH
	key       string   // file of the private SSH key that signs
}

func environment() options {
	const all = "linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64"
	return options{
		version: os.Getenv("RELEASE_VERSION"), registry: os.Getenv("RELEASE_REGISTRY"), key: os.Getenv("RELEASE_KEY"),
		platforms: strings.Fields(cmp.Or(os.Getenv("RELEASE_PLATFORMS"), all)),
	}
}

// release is one release while it is made.
type release struct {
	options

	version string // with its "v"
	commit  string
	time    time.Time // of the commit: every file of the release has it
	// binaries are the files of the programs by platform, and digest is the image's.
	binaries map[string]string
	digest   string
}

// semver is a version as helm, krew and registries accept it: without build metadata.
var semver = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

func newRelease(ctx context.Context, options options) (*release, error) {
	changed, err := output(ctx, "git", "status", "--porcelain")
	if err != nil {
		return nil, err
	}
	if changed != "" {
		return nil, fmt.Errorf("the work tree differs from its commit: commit or remove these files:\n%s", changed)
	}
	commit, errCommit := output(ctx, "git", "rev-parse", "HEAD")
	seconds, errTime := output(ctx, "git", "log", "-1", "--format=%ct")
	if err := errors.Join(errCommit, errTime); err != nil {
		return nil, err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("read the time of commit %s: %w", commit, err)
	}
	tags, err := output(ctx, "git", "tag", "--points-at=HEAD", "--sort=-v:refname", "--list", "v*")
	if err != nil {
		return nil, err
	}
	tag, _, _ := strings.Cut(tags, "\n")
	version := cmp.Or(options.version, tag, "v0.0.0-g"+commit[:12]) // a commit without a tag is a snapshot
	if !semver.MatchString(version) {
		return nil, fmt.Errorf("version %q: must be vMAJOR.MINOR.PATCH or a pre-release such as v1.2.0-rc.1: correct the git tag", version)
	}
	return &release{options: options, version: version, commit: commit, time: time.Unix(unix, 0).UTC(), binaries: map[string]string{}}, nil
}

// number is the version without its "v", as charts and images have it.
func (r *release) number() string { return strings.TrimPrefix(r.version, "v") }

func output(ctx context.Context, name string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, name, args...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(command.Args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
