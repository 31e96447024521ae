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

// A floor is a set of packages, by their paths in the module, that know nothing of each other.
type floor struct {
	packages []string
	reason   string
}

// A rule limits what packages import from outside the module. Exactly one of only and never is set. Patterns are import
// paths; one that ends in /... also covers what is below.
type rule struct {
	packages []string
	only     []string // the packages outside the standard library and the module that may be imported directly
	never    []string // the packages that must not be imported
	through  bool     // never holds through other packages too
	reason   string
}

// A goPackage is what `go list` says of a package.
type goPackage struct {
	ImportPath                string
	Standard                  bool
	Imports                   []string
	TestImports, XTestImports []string
}

// packages holds the module's packages and all that they reach, by import path.
type packages map[string]goPackage

func TestPackagesKeepToTheirFloors(t *testing.T) {
	for _, complaint := range loadPackages(t).offFloor(building) {
		t.Error(complaint)
	}
}

func TestPackagesImportOnlyWhatTheirRulesAllow(t *testing.T) {
	for _, complaint := range loadPackages(t).breaches(rules) {
		t.Error(complaint)
	}
}

func TestNothingImportsProgramsOrEndToEndTests(t *testing.T) {
	for _, complaint := range loadPackages(t).entangled() {
		t.Error(complaint)
	}
}

func TestPackagesAreNamedAfterWhatTheyAreAbout(t *testing.T) {
	for name := range loadPackages(t).own() {
		if slices.Contains(badNames, path.Base(name)) {
			t.Errorf("%s: name the package after what it is about; %q says nothing", name, path.Base(name))
		}
	}
}

// Each made-up module breaks one rule, and shows what the tests above would say.
func TestBreachesAreFound(t *testing.T) {
	building := []floor{
		{packages: []string{"pkg/low"}, reason: "low is low"},
		{packages: []string{"pkg/left", "pkg/right"}, reason: "they are independent"},
	}
	rules := []rule{
		{packages: []string{"pkg/low"}, only: []string{"good.org/..."}, reason: "low needs little"},
		{packages: []string{"pkg/left"}, never: []string{"client.org/..."}, through: true, reason: "left asks nobody"},
		{packages: []string{"pkg/right"}, never: []string{"client.org/..."}, reason: "right asks nobody itself"},
	}
	tests := map[string]struct {
		change map[string][]string
		want   []string
	}{
		"a module that keeps the rules": {},
		"a package imports a higher floor": {
			change: map[string][]string{"pkg/low": {module + "/pkg/left"}},
			want:   []string{"pkg/low imports pkg/left, which is not on a lower floor: low is low"},
		},
		"a package imports one of its own floor": {
			change: map[string][]string{"pkg/left": {module + "/pkg/right"}},
			want:   []string{"pkg/left imports pkg/right, which is not on a lower floor: they are independent"},
		},
		"a package stands on no floor": {
			change: map[string][]string{"pkg/new": {}},
			want:   []string{"pkg/new is on no floor: add it to building in floors/rules_test.go, as low as its imports allow"},
		},
		"a listed package is gone": {
			change: map[string][]string{"pkg/right": nil},
			want: []string{
				"pkg/right is listed as a floor's package but does not exist: update floors/rules_test.go",
				"pkg/right has a rule but does not exist: update floors/rules_test.go",
			},
		},
		"a package imports what is not on its list": {
			change: map[string][]string{"pkg/low": {"fmt", "good.org/a", "goods.org"}},
			want:   []string{"pkg/low must not import goods.org: low needs little"},
		},
		"a package reaches what it must never reach": {
			change: map[string][]string{"pkg/left": {"middle.org"}},
			want:   []string{"pkg/left must not reach client.org/get (pkg/left > middle.org > client.org/get): left asks nobody"},
		},
		"a package reaches by others what it must only not import itself": {
			change: map[string][]string{"pkg/right": {"middle.org"}},
		},
		"a package imports what it must not import": {
			change: map[string][]string{"pkg/right": {"client.org/get"}},
			want:   []string{"pkg/right must not import client.org/get: right asks nobody itself"},
		},
		"a package imports a program": {
			change: map[string][]string{"pkg/left": {module + "/cmd/run"}},
			want: []string{
				"pkg/left imports cmd/run, which is not on a lower floor: they are independent",
				"pkg/left imports cmd/run: what stands outside the building may be changed or dropped without a look inside",
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			all := madeUp(test.change)
			got := slices.Concat(all.offFloor(building), all.breaches(rules), all.entangled())
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("complaints (-want +got):\n%s", diff)
			}
		})
	}
}

// madeUp is a module that keeps the rules, but for the imports in change; nil imports take a package away.
func madeUp(change map[string][]string) packages {
	all := packages{
		"fmt":            {Standard: true},
		"good.org/a":     {},
		"goods.org":      {},
		"middle.org":     {Imports: []string{"client.org/get"}},
		"client.org/get": {},
	}
	imports := map[string][]string{
		"pkg/low": {"fmt"}, "pkg/left": {module + "/pkg/low"}, "pkg/right": {module + "/pkg/low", "fmt"}, "cmd/run": {module + "/pkg/left"},
	}
	maps.Copy(imports, change)
	for name, list := range imports {
		if list != nil {
			all[module+"/"+name] = goPackage{ImportPath: module + "/" + name, Imports: list}
		}
	}
	return all
}

// offFloor reports packages without a floor, floors without their package, and imports that do not lead downward.
func (all packages) offFloor(building []floor) []string {
	level := map[string]int{}
	for i, floor := range building {
		for _, name := range floor.packages {
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
			complaints = append(complaints, name+" is on no floor: add it to building in floors/rules_test.go, as low as its imports allow")
			continue
		}
		for _, imported := range ownImports(all[module+"/"+name].Imports) {
			if to, inside := level[imported]; !inside || to >= from {
				complaints = append(complaints,
					fmt.Sprintf("%s imports %s, which is not on a lower floor: %s", name, imported, building[from].reason))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(level)) {
		if !all.has(name) {
			complaints = append(complaints, name+" is listed as a floor's package but does not exist: update floors/rules_test.go")
		}
	}
	return complaints
}

// breaches reports imports that a rule forbids, and rules for packages that do not exist.
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
		foreign := !all[imported].Standard && !strings.HasPrefix(imported, module+"/")
		unlisted := rule.only != nil && foreign && !matches(imported, rule.only)
		if unlisted || matches(imported, rule.never) {
			complaints = append(complaints, fmt.Sprintf("%s must not import %s: %s", name, imported, rule.reason))
		}
	}
	return complaints
}

// chain is a shortest way of imports from a package to one that a pattern fits; nil if there is none.
func (all packages) chain(start string, patterns []string) []string {
	from := map[string]string{start: ""}
	for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
		if at := queue[0]; at != start && matches(at, patterns) {
			return way(from, at)
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

func way(from map[string]string, end string) []string {
	var chain []string
	for at := end; at != ""; at = from[at] {
		chain = append(chain, strings.TrimPrefix(at, module+"/"))
	}
	slices.Reverse(chain)
	return chain
}

// entangled reports imports, also by tests, of programs and end-to-end tests from inside the building.
// The corpus is there for tests, so that these may import it.
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
					"%s imports %s: what stands outside the building may be changed or dropped without a look inside", name, imported))
			}
		}
	}
	return complaints
}

// own holds the module's packages, by their paths in it.
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
	room, _, _ := strings.Cut(name, "/")
	return slices.Contains(outside, room)
}

func matches(importPath string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		parent, tree := strings.CutSuffix(pattern, "/...")
		return importPath == parent || tree && strings.HasPrefix(importPath, parent+"/")
	})
}

// loadPackages asks the go command, which knows build tags and the module graph better than a parser of ours would.
func loadPackages(t *testing.T) packages {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps",
		"-json=ImportPath,Standard,Imports,TestImports,XTestImports", "./...")
	list.Dir = ".." // the module's root
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
