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

// moduleFile is the necessary part of the output of `go mod edit -json`.
type moduleFile struct {
	Go      string
	Replace []struct{ Old, New struct{ Path string } }
}

// download is the necessary part of the output of `go mod download -json`.
type download struct{ GoMod, Error string }

// writeModule writes the go.mod of a module that builds programs of the release. `go install package@version` does not support
// modules with replace directives, such as Kubernetes.
func writeModule(ctx context.Context, dir string, release Release) error {
	source, err := downloadModule(ctx, release)
	if err != nil {
		return err
	}
	parsed, err := readModule(ctx, source)
	if err != nil {
		return err
	}
	content := moduleText(release, parsed)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(content), 0o644); err != nil {
		return fmt.Errorf("write the module that builds %s: %w", release.Project, err)
	}
	return nil
}

// downloadModule downloads the release's module and returns the path of its go.mod.
func downloadModule(ctx context.Context, release Release) (string, error) {
	// For an unknown version the command fails, and its JSON contains the reason.
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

// moduleText returns a go.mod that requires the release, and the staging modules of the same version. It has the go line of the
// release, which sets the defaults of GODEBUG in the programs.
func moduleText(release Release, source moduleFile) string {
	var text strings.Builder
	fmt.Fprintf(&text, "module testbed.local/%s\n\ngo %s\n\nrequire %s %s\n",
		release.Project, source.Go, release.Module, release.Version)
	for _, path := range stagingModules(source) {
		fmt.Fprintf(&text, "replace %s => %s %s\n", path, path, stagingVersion(release.Version))
	}
	return text.String()
}

// stagingModules returns the modules that Kubernetes has in ./staging and publishes separately. Other local replacements, such as
// etcd's, need no directive: the release requires their published version.
func stagingModules(source moduleFile) []string {
	var paths []string
	for _, replace := range source.Replace {
		if strings.HasPrefix(replace.New.Path, "./staging/") {
			paths = append(paths, replace.Old.Path)
		}
	}
	return paths
}

// explainBuild returns an error if a staging module of the release is missing, and nil otherwise. A few patch releases of
// Kubernetes lack one (such as 1.33.5), and the compiler's message does not tell the reason.
func explainBuild(ctx context.Context, dir string, release Release) error {
	parsed, err := readModule(ctx, filepath.Join(dir, "go.mod"))
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

// firstModuleError returns the first error in the output of `go list -m -json`.
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
