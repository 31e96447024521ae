// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"sigs.k8s.io/yaml"
)

const repository = "https://github.com/apigw-guardian/apigw-guardian"

// stampBill gives a bill of materials the time of the commit instead of now.
func (r *release) stampBill(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var bill map[string]any
	if err := json.Unmarshal(data, &bill); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	metadata, found := bill["metadata"].(map[string]any)
	if !found {
		return fmt.Errorf("%s has no metadata", file)
	}
	metadata["timestamp"] = r.time
	return writeJSON(file, bill)
}

func writeJSON(file string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o600)
}

// writeKrew writes the manifest by which `kubectl krew install --manifest` installs the plugin.
func (r *release) writeKrew(context.Context) error {
	var platforms []map[string]any
	for _, platform := range r.platforms {
		goos, arch, _ := strings.Cut(platform, "/")
		sum, err := sumOf(filepath.Join(dist, r.archive(platform)))
		if err != nil {
			return err
		}
		platforms = append(platforms, map[string]any{
			"selector": map[string]any{"matchLabels": map[string]string{"os": goos, "arch": arch}},
			"uri":      repository + "/releases/download/" + r.version + "/" + r.archive(platform),
			"sha256":   sum,
			"bin":      name + suffix(goos),
		})
	}
	data, err := yaml.Marshal(map[string]any{
		"apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
		"kind":       "Plugin",
		"metadata":   map[string]string{"name": name},
		"spec": map[string]any{
			"version":          r.version,
			"homepage":         repository,
			"shortDescription": "Authorize API Gateway and guard its resources",
			"description": "Authorizes API Gateway on a TKE or any other Kubernetes cluster, guards the four resources that it\n" +
				"reserves there, and reviews the requests that were denied.\n",
			"platforms": platforms,
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dist, "krew.yaml"), data, 0o600)
}

// writeNotes writes the section of the version in the changelog; a snapshot has that of the unreleased changes.
func (r *release) writeNotes(context.Context) error {
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	notes := section(string(changelog), r.number())
	if notes == "" && strings.Contains(r.version, "-") {
		notes = section(string(changelog), "Unreleased")
	}
	if notes == "" {
		return fmt.Errorf("CHANGELOG.md has no section [%s]: rename [Unreleased]", r.number())
	}
	return os.WriteFile(filepath.Join(dist, "RELEASE_NOTES.md"), []byte(notes), 0o600)
}

// section returns the content of a section of second level, or "".
func section(changelog, title string) string {
	_, after, found := strings.Cut("\n"+changelog, "\n## ["+title+"]")
	if !found {
		return ""
	}
	_, body, _ := strings.Cut(after, "\n")
	body, _, _ = strings.Cut(body, "\n## [")
	return strings.TrimSpace(body) + "\n"
}

// writeProvenance states from which commit, with which Go, each file was made: an in-toto statement with a SLSA v1 predicate.
func (r *release) writeProvenance(context.Context) error {
	sums, err := sumsOf(dist)
	if err != nil {
		return err
	}
	var subjects []map[string]any
	for _, sum := range sums {
		subjects = append(subjects, map[string]any{"name": sum.file, "digest": map[string]string{"sha256": sum.sha256}})
	}
	if len(subjects) == 0 {
		return errors.New("the release has no files")
	}
	return writeJSON(filepath.Join(dist, "provenance.json"), map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"subject":       subjects,
		"predicateType": "https://slsa.dev/provenance/v1",
		"predicate": map[string]any{
			"buildDefinition": map[string]any{
				"buildType":          repository + "/blob/main/docs/release.md",
				"externalParameters": map[string]any{"version": r.version, "platforms": r.platforms, "registry": r.registry},
				"resolvedDependencies": []map[string]any{
					{"uri": "git+" + repository, "digest": map[string]string{"gitCommit": r.commit}},
					{"uri": "https://go.dev/dl/#" + runtime.Version()},
				},
			},
			"runDetails": map[string]any{"builder": map[string]string{"id": repository + "/blob/main/Makefile#release"}},
		},
	})
}
