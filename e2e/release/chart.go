// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const chartDirectory = "charts/" + name

// image is the name of the image in the chart. Without a registry, it is that of the chart's defaults.
func (r *release) image() string { return strings.TrimPrefix(r.registry+"/"+name, "/") }

func (r *release) chartFile() string { return filepath.Join(dist, name+"-"+r.number()+".tgz") }

// writeChart packs the chart with the version, and with the image of this release by its digest. `helm package` would write the time.
func (r *release) writeChart(ctx context.Context) error {
	listed, err := output(ctx, "git", "ls-files", chartDirectory)
	if err != nil {
		return err
	}
	var entries []entry
	for file := range strings.Lines(listed) {
		file = strings.TrimSpace(file)
		inside := strings.TrimPrefix(file, chartDirectory+"/")
		if strings.HasPrefix(inside, "tests/") || strings.HasPrefix(inside, "ci/") || strings.HasSuffix(inside, ".gotmpl") {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if data, err = r.chartContent(inside, data); err != nil {
			return err
		}
		entries = append(entries, entry{name + "/" + inside, 0o644, data})
	}
	archive, err := tarGzipOf(r.time, entries...)
	if err != nil {
		return err
	}
	return os.WriteFile(r.chartFile(), archive, 0o600)
}

// chartContent returns the content that a file of the chart has in the release.
func (r *release) chartContent(file string, data []byte) ([]byte, error) {
	switch file {
	case "Chart.yaml":
		return replaceLines(data, map[string]string{
			"version: ": "version: " + r.number(), "appVersion: ": "appVersion: " + r.number(),
			"      image: ": "      image: " + r.image() + "@" + r.digest,
		})
	case "values.yaml", "files/values.yaml":
		return replaceLines(data, map[string]string{
			"  repository: " + name: "  repository: " + r.image(), `  digest: ""`: "  digest: " + r.digest,
		})
	}
	return data, nil
}

// replaceLines replaces the first line with each prefix, and fails if there is none.
func replaceLines(data []byte, lines map[string]string) ([]byte, error) {
	var changed []string
	found := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		for prefix, replacement := range lines {
			if !found[prefix] && strings.HasPrefix(line, prefix) {
				line, found[prefix] = replacement+"\n", true
			}
		}
		changed = append(changed, line)
	}
	for prefix := range lines {
		if !found[prefix] {
			return nil, fmt.Errorf("no line starts with %q", prefix)
		}
	}
	return []byte(strings.Join(changed, "")), nil
}

// writeManifests renders the packaged chart for `kubectl apply`, with its namespace.
func (r *release) writeManifests(ctx context.Context) error {
	helms, err := program.Config().Builder.Build(ctx, testbed.Helm())
	if err != nil {
		return err
	}
	rendered, err := output(ctx, helms["helm"], "template", name, r.chartFile(), "--namespace="+name,
		"--include-crds", "--set=hooks.enabled=false")
	if err != nil {
		return err
	}
	var all bytes.Buffer
	fmt.Fprintf(&all, "# %s %s. Apply it on the server: kubectl apply --server-side --filename install.yaml\n", name, r.version)
	fmt.Fprintf(&all, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n%s\n", name, rendered)
	return os.WriteFile(filepath.Join(dist, "install.yaml"), all.Bytes(), 0o600)
}
