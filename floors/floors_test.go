// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A layer is a set of packages, by their paths in the module. They do not import each other.
type layer struct {
	packages []string
	reason   string
}

// A rule limits what packages import. A pattern is an import path; with the suffix /... it also covers the paths below it.
type rule struct {
	packages []string
	only     []string // direct imports that are allowed in addition to the standard library and the module; nil allows all
	never    []string // imports that are forbidden
	through  bool     // never also covers indirect imports
	reason   string
}

// A goPackage is one package in the output of `go list`.
type goPackage struct {
	ImportPath                string
	Standard                  bool
	Imports                   []string
	TestImports, XTestImports []string
}

// packages holds the module's packages and their dependencies, by import path.
type packages map[string]goPackage

func TestPackagesImportLowerLayersOnly(t *testing.T) {
	for _, complaint := range loadPackages(t).offLayer(layers) {
		t.Error(complaint)
	}
}

func TestPackagesImportOnlyWhatTheirRulesAllow(t *testing.T) {
	for _, complaint := range loadPackages(t).breaches(rules) {
		t.Error(complaint)
	}
}

func TestNoLayerImportsProgramsOrEndToEndTests(t *testing.T) {
	for _, complaint := range loadPackages(t).entangled() {
		t.Error(complaint)
	}
}

func TestPackageNamesSayWhatThePackageProvides(t *testing.T) {
	for name := range loadPackages(t).own() {
		if slices.Contains(badNames, path.Base(name)) {
			t.Errorf("%s: name the package after what it provides, not %q", name, path.Base(name))
		}
	}
}

// Each module of this table breaks one rule. The messages are those of the tests above.
func TestForbiddenImportsAreFound(t *testing.T) {
	layers := []layer{
		{packages: []string{"pkg/low"}, reason: "low is low"},
		{packages: []string{"pkg/left", "pkg/right"}, reason: "they are independent"},
	}
	rules := []rule{
		{packages: []string{"pkg/low"}, only: []string{"good.org/..."}, reason: "low needs good.org"},
		{packages: []string{"pkg/left"}, never: []string{"client.org/..."}, through: true, reason: "left has no client"},
		{packages: []string{"pkg/right"}, never: []string{"client.org/..."}, reason: "right does not call the client"},
	}
	tests := map[string]struct {
		change map[string][]string
		want   []string
	}{
		"allows a module that follows the rules": {},
		"rejects an import from a higher layer": {
			change: map[string][]string{"pkg/low": {module + "/pkg/left", "good.org/a"}},
			want:   []string{"pkg/low imports pkg/left, which is not in a lower layer: low is low"},
		},
		"rejects an import from the same layer": {
			change: map[string][]string{"pkg/left": {module + "/pkg/right"}},
			want:   []string{"pkg/left imports pkg/right, which is not in a lower layer: they are independent"},
		},
		"rejects a package that no layer lists": {
			change: map[string][]string{"pkg/new": {}},
			want:   []string{"pkg/new is in no layer: add it to the lowest layer of floors/rules_test.go that its imports allow"},
		},
		"rejects a list that names a missing package": {
			change: map[string][]string{"pkg/right": nil},
			want: []string{
				"pkg/right is in a layer but does not exist: update floors/rules_test.go",
				"pkg/right has a rule but does not exist: update floors/rules_test.go",
			},
		},
		"rejects an import that the rule does not list": {
			change: map[string][]string{"pkg/low": {"fmt", "good.org/a", "goods.org"}},
			want:   []string{"pkg/low must not import goods.org: low needs good.org"},
		},
		"rejects a rule that lists an import the package does not use": {
			change: map[string][]string{"pkg/low": {"fmt"}},
			want:   []string{"pkg/low does not import good.org/...: remove it from the rule"},
		},
		"rejects a forbidden import through another package": {
			change: map[string][]string{"pkg/left": {"middle.org"}},
			want: []string{
				"pkg/left must not reach client.org/get (pkg/left > middle.org > client.org/get): left has no client",
			},
		},
		"allows an import through another package if only direct imports are forbidden": {
			change: map[string][]string{"pkg/right": {"middle.org"}},
		},
		"rejects a forbidden direct import": {
			change: map[string][]string{"pkg/right": {"client.org/get"}},
			want:   []string{"pkg/right must not import client.org/get: right does not call the client"},
		},
		"rejects an import of a program": {
			change: map[string][]string{"pkg/left": {module + "/cmd/run"}},
			want: []string{
				"pkg/left imports cmd/run, which is not in a lower layer: they are independent",
				"pkg/left imports cmd/run: programs and end-to-end tests may change without regard to their importers",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			all := exampleModule(test.change)
			got := slices.Concat(all.offLayer(layers), all.breaches(rules), all.entangled())
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}

// exampleModule returns a module that follows the rules, except for the imports in change. Nil imports remove a package.
func exampleModule(change map[string][]string) packages {
	all := packages{
		"fmt":            {Standard: true},
		"good.org/a":     {},
		"goods.org":      {},
		"middle.org":     {Imports: []string{"client.org/get"}},
		"client.org/get": {},
	}
	imports := map[string][]string{
		"pkg/low": {"fmt", "good.org/a"}, "pkg/left": {module + "/pkg/low"}, "pkg/right": {module + "/pkg/low", "fmt"}, "cmd/run": {module + "/pkg/left"},
	}
	maps.Copy(imports, change)
	for name, list := range imports {
		if list != nil {
			all[module+"/"+name] = goPackage{ImportPath: module + "/" + name, Imports: list}
		}
	}
	return all
}

// offLayer reports packages that no layer lists, listed packages that do not exist, and imports that are not from a lower layer.
func (all packages) offLayer(layers []layer) []string {
	level := map[string]int{}
	for i, layer := range layers {
		for _, name := range layer.packages {
			level[name] = i
		}
	}
	var complaints []string
	for _, name := range slices.Sorted(maps.Keys(all.own())) {
		if isOutside(name) {
			continue
		}
		from, listed := level[name]
		if !listed {
			complaints = append(complaints, name+" is in no layer: add it to the lowest layer of floors/rules_test.go that its imports allow")
			continue
		}
		for _, imported := range ownImports(all[module+"/"+name].Imports) {
			if to, inside := level[imported]; !inside || to >= from {
				complaints = append(complaints,
					fmt.Sprintf("%s imports %s, which is not in a lower layer: %s", name, imported, layers[from].reason))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(level)) {
		if !all.has(name) {
			complaints = append(complaints, name+" is in a layer but does not exist: update floors/rules_test.go")
		}
	}
	return complaints
}

// breaches reports imports that a rule forbids, imports that a rule allows but the package does not use, and rules for packages
// that do not exist.
func (all packages) breaches(rules []rule) []string {
	var complaints []string
	for _, rule := range rules {
		for _, name := range rule.packages {
			if !all.has(name) {
				complaints = append(complaints, name+" has a rule but does not exist: update floors/rules_test.go")
				continue
			}
			complaints = append(complaints, all.breachesOf(name, rule)...)
		}
	}
	return complaints
}

func (all packages) breachesOf(name string, rule rule) []string {
	if rule.through {
		chain := all.chain(module+"/"+name, rule.never)
		if chain == nil {
			return nil
		}
		return []string{fmt.Sprintf("%s must not reach %s (%s): %s", name, chain[len(chain)-1], strings.Join(chain, " > "), rule.reason)}
	}
	var complaints []string
	for _, imported := range all[module+"/"+name].Imports {
		external := !all[imported].Standard && !strings.HasPrefix(imported, module+"/")
		unlisted := rule.only != nil && external && !matches(imported, rule.only)
		if unlisted || matches(imported, rule.never) {
			complaints = append(complaints, fmt.Sprintf("%s must not import %s: %s", name, imported, rule.reason))
		}
	}
	for _, pattern := range rule.only {
		imports := func(imported string) bool { return matches(imported, []string{pattern}) }
		if !slices.ContainsFunc(all[module+"/"+name].Imports, imports) {
			complaints = append(complaints, fmt.Sprintf("%s does not import %s: remove it from the rule", name, pattern))
		}
	}
	return complaints
}

// chain returns a shortest import path from a package to one that matches a pattern; nil if there is none.
func (all packages) chain(start string, patterns []string) []string {
	from := map[string]string{start: ""}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		if at := queue[0]; at != start && matches(at, patterns) {
			return traceBack(from, at)
		}
		for _, imported := range all[queue[0]].Imports {
			if _, seen := from[imported]; !seen {
				from[imported] = queue[0]
				queue = append(queue, imported)
			}
		}
	}
	return nil
}

func traceBack(from map[string]string, end string) []string {
	var chain []string
	for at := end; at != ""; at = from[at] {
		chain = append(chain, strings.TrimPrefix(at, module+"/"))
	}
	slices.Reverse(chain)
	return chain
}

// entangled reports imports of programs and end-to-end tests by packages of a layer, and by their tests.
// Tests may import the corpus.
func (all packages) entangled() []string {
	var complaints []string
	for _, name := range slices.Sorted(maps.Keys(all.own())) {
		if isOutside(name) {
			continue
		}
		p := all[module+"/"+name]
		for _, imported := range ownImports(slices.Concat(p.Imports, p.TestImports, p.XTestImports)) {
			if isOutside(imported) && !strings.HasPrefix(imported, "corpus") {
				complaints = append(complaints, fmt.Sprintf(
					"%s imports %s: programs and end-to-end tests may change without regard to their importers", name, imported))
			}
		}
	}
	return complaints
}

// own returns the module's packages, by their paths in the module.
func (all packages) own() map[string]goPackage {
	own := map[string]goPackage{}
	for importPath, p := range all {
		if name, ok := strings.CutPrefix(importPath, module+"/"); ok {
			own[name] = p
		}
	}
	return own
}

func (all packages) has(name string) bool {
	_, ok := all[module+"/"+name]
	return ok
}

func ownImports(imports []string) []string {
	var own []string
	for _, imported := range imports {
		if name, ok := strings.CutPrefix(imported, module+"/"); ok {
			own = append(own, name)
		}
	}
	return own
}

func isOutside(name string) bool {
	top, _, _ := strings.Cut(name, "/")
	return slices.Contains(outside, top)
}

func matches(importPath string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		parent, tree := strings.CutSuffix(pattern, "/...")
		return importPath == parent || tree && strings.HasPrefix(importPath, parent+"/")
	})
}

// loadPackages runs `go list`, which applies build tags and the module graph.
func loadPackages(t *testing.T) packages {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-json=ImportPath,Standard,Imports,TestImports,XTestImports", "./...")
	list.Dir = ".."
	var stderr bytes.Buffer
	list.Stderr = &stderr
	output, err := list.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", list, err, &stderr)
	}
	all := packages{}
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("read the output of %s: %v", list, err)
		}
		all[p.ImportPath] = p
	}
}
