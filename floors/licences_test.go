// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/licences.md")

// licences are those that a module of the program may have, by a sentence of their text.
var licences = map[string]*regexp.Regexp{
	"Apache-2.0":   regexp.MustCompile(`(?i)Apache License,? Version 2\.0`),
	"MIT":          regexp.MustCompile(`Permission is hereby granted, free of charge, to any person obtaining a copy`),
	"BSD-3-Clause": regexp.MustCompile(`Redistributions? in binary form must.+(?i:neither the names? of)`),
	"ISC":          regexp.MustCompile(`Permission to use, copy, modify, and(/or)? distribute this software for any purpose`),
}

// twoClauses is the beginning of BSD-2-Clause, and of BSD-3-Clause.
var twoClauses = regexp.MustCompile(`Redistribution and use in source and binary forms, with or without modification, are permitted`)

var licenceFile = regexp.MustCompile(`(?i)^(licen[sc]e|copying)(\.[a-z]+)?$`)

type goModule struct {
	Path, Version, Dir string
	Main               bool
}

// docs/licences.md lists the modules of the program on every platform. A licence that is not in the list above fails the test.
func TestLicencesOfTheProgram(t *testing.T) {
	modules := map[string]goModule{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		maps.Copy(modules, modulesOf(t, system))
	}
	var page strings.Builder
	page.WriteString("# Licences\n\nFor distributors of the program: the modules that are linked into it on Linux, macOS or Windows. `make generate` writes this\n" +
		"page, and a test fails on a licence that is not permissive. The program itself is under Apache-2.0, and Go's standard library under\n" +
		"BSD-3-Clause. A `NOTICE` must be passed on with the program.\n\n| module | version | licence | notice |\n|---|---|---|---|\n")
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		found, notice := licencesOf(t, modules[path])
		if len(found) == 0 {
			t.Errorf("%s: no known licence in %s", path, modules[path].Dir)
		}
		fmt.Fprintf(&page, "| %s | %s | %s | %s |\n", path, modules[path].Version, strings.Join(found, ", "), notice)
	}
	const file = "../docs/licences.md"
	if *update {
		if err := os.WriteFile(file, []byte(page.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), page.String()); diff != "" {
		t.Errorf("docs/licences.md is out of date, run make generate (-page +modules)\n%s", diff)
	}
}

// modulesOf returns the modules that are linked into the program on an operating system, without the program's own.
func modulesOf(t *testing.T, system string) map[string]goModule {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=Module", module+"/cmd/apigw-guardian")
	list.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	output, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]goModule{}
	for decoder := json.NewDecoder(bytes.NewReader(output)); ; {
		var listed struct{ Module *goModule }
		if err := decoder.Decode(&listed); errors.Is(err, io.EOF) {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if listed.Module != nil && !listed.Module.Main {
			found[listed.Module.Path] = *listed.Module
		}
	}
}

func licencesOf(t *testing.T, m goModule) (found []string, notice string) {
	t.Helper()
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.EqualFold(entry.Name(), "NOTICE") {
			notice = "`" + entry.Name() + "`"
		}
		if !licenceFile.MatchString(entry.Name()) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(m.Dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.Join(bytes.Fields(content), []byte(" "))
		for name, text := range licences {
			if text.Match(content) {
				found = append(found, name)
			}
		}
		if twoClauses.Match(content) && !slices.Contains(found, "BSD-3-Clause") {
			found = append(found, "BSD-2-Clause")
		}
	}
	slices.Sort(found)
	return slices.Compact(found), notice
}
