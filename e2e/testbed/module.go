// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// moduleFile is the part of `go mod edit -json` that a generated module needs.
type moduleFile struct {
	Go      string
	Replace []struct{ Old, New struct{ Path string } }
}

// download is the part of `go mod download -json` that a generated module needs.
type download struct{ GoMod, Error string }

// writeModule writes into directory the go.mod of a module whose only purpose is to build programs of the release. A
// program of a module with replace directives cannot be had with `go install package@version`.
func writeModule(ctx context.Context, folder string, release Release) error {
	source, err := downloadModule(ctx, release)
	if err != nil {
		return err
	}
	parsed, err := readModule(ctx, source)
	if err != nil {
		return err
	}
	content := moduleText(release, parsed)
	if err := os.WriteFile(filepath.Join(folder, "go.mod"), []byte(content), 0o644); err != nil {
		return fmt.Errorf("write the module that builds %s: %w", release.Project, err)
	}
	return nil
}

// downloadModule fetches the release's module and returns the path of its go.mod.
func downloadModule(ctx context.Context, release Release) (string, error) {
	// The command reports an unknown version as JSON and fails; the JSON says more than the exit status.
	output, runErr := runGo(ctx, os.TempDir(), "mod", "download", "-json", release.Module+"@"+release.Version)
	var answer download
	if err := json.Unmarshal(output, &answer); err != nil {
		return "", errors.Join(runErr, fmt.Errorf("read the answer of go mod download: %w", err))
	}
	if answer.Error != "" {
		return "", unresolved(release, answer.Error)
	}
	if runErr != nil {
		return "", runErr
	}
	return answer.GoMod, nil
}

func readModule(ctx context.Context, path string) (moduleFile, error) {
	output, err := runGo(ctx, os.TempDir(), "mod", "edit", "-json", path)
	if err != nil {
		return moduleFile{}, err
	}
	var parsed moduleFile
	if err := json.Unmarshal(output, &parsed); err != nil {
		return moduleFile{}, fmt.Errorf("read the answer of go mod edit: %w", err)
	}
	return parsed, nil
}

// moduleText is a go.mod that requires the release. It keeps the release's own go line, since that sets the defaults
// of GODEBUG in the programs, and points every staging module at the version that belongs to the release.
func moduleText(release Release, source moduleFile) string {
	var text strings.Builder
	fmt.Fprintf(&text, "module testbed.local/%s\n\ngo %s\n\nrequire %s %s\n",
		release.Project, source.Go, release.Module, release.Version)
	for _, path := range stagingModules(source) {
		fmt.Fprintf(&text, "replace %s => %s %s\n", path, path, stagingVersion(release.Version))
	}
	return text.String()
}

// stagingModules lists the modules that Kubernetes keeps in its own tree under ./staging and publishes apart. Other
// local replacements (etcd has some) need nothing: the release requires them at the version that is published.
func stagingModules(source moduleFile) []string {
	var paths []string
	for _, replace := range source.Replace {
		if strings.HasPrefix(replace.New.Path, "./staging/") {
			paths = append(paths, replace.Old.Path)
		}
	}
	return paths
}

// explainBuild says, after a failed build, whether a staging module of the release is missing: a few patch releases
// of Kubernetes were published without one (1.33.5 for example), and the compiler's own message is hard to read.
// It returns nil when all of them are there.
func explainBuild(ctx context.Context, folder string, release Release) error {
	parsed, err := readModule(ctx, filepath.Join(folder, "go.mod"))
	if err != nil {
		return err
	}
	if len(parsed.Replace) == 0 {
		return nil
	}
	arguments := []string{"list", "-m", "-e", "-json=Path,Error"}
	for _, replace := range parsed.Replace {
		arguments = append(arguments, replace.New.Path+"@"+stagingVersion(release.Version))
	}
	output, err := runGo(ctx, os.TempDir(), arguments...)
	if err != nil {
		return err
	}
	return firstModuleError(release, output)
}

// firstModuleError reads the stream of JSON objects that `go list -m -json` prints.
func firstModuleError(release Release, output []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(output))
	for decoder.More() {
		var module struct {
			Path  string
			Error *struct{ Err string }
		}
		if err := decoder.Decode(&module); err != nil {
			return fmt.Errorf("read the answer of go list: %w", err)
		}
		if module.Error != nil {
			return unresolved(release, module.Error.Err)
		}
	}
	return nil
}

func unresolved(release Release, detail string) error {
	return fmt.Errorf("%w: %s %s: try another patch release, or check the network (%s)",
		ErrUnresolvedVersion, release.Project, release.Version, detail)
}
