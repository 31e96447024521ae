// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package floors

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var testName = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Za-z0-9]+)`")

// A document must not name a test that was removed.
func TestEveryTestThatADocumentNamesExists(t *testing.T) {
	declared := declarations(t)
	named := 0
	for _, document := range documents(t) {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range testName.FindAllSubmatch(content, -1) {
			named++
			if !bytes.Contains(declared, append([]byte("func "+string(found[1])), '(')) {
				t.Errorf("%s names %s, which does not exist", document, found[1])
			}
		}
	}
	if named < 50 {
		t.Errorf("the documents name %d tests, want 50 or more: is docs/security.md found?", named)
	}
}

var threat = regexp.MustCompile(`(?m)^\| (\d+)\. .*\|$`)

// The threat model of Kubernetes SIG Security has 18 threats. Each, and each section about an attack, names a test or says that nothing helps.
func TestEveryThreatNamesATest(t *testing.T) {
	content, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := threat.FindAllSubmatch(content, -1)
	if len(rows) != 18 {
		t.Errorf("docs/security.md has %d threats, want 18", len(rows))
	}
	for i, row := range rows {
		if string(row[1]) != strconv.Itoa(i+1) || !testName.Match(row[0]) && !bytes.Contains(row[0], []byte("Nothing here can")) {
			t.Errorf("threat %d: %s", i+1, row[0])
		}
	}
	attacks := bytes.Split(content, []byte("- **Attack.**"))[1:]
	for _, attack := range attacks {
		tests := bytes.Index(attack, []byte("- **Tests.**"))
		if next := bytes.Index(attack, []byte("\n### ")); tests < 0 || next >= 0 && tests > next {
			t.Errorf("no test: %.80s", attack)
		}
	}
	if len(attacks) < 15 {
		t.Errorf("docs/security.md has %d attacks: are they found?", len(attacks))
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

func TestEveryFileThatADocumentLinksExists(t *testing.T) {
	for _, document := range documents(t) {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllSubmatch(content, -1) {
			target := filepath.Join(filepath.Dir(document), string(found[1]))
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", document, found[1], err)
			}
		}
	}
}

func TestTheArchitecturePageNamesEachPackage(t *testing.T) {
	content, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		for _, name := range layer.packages {
			isNamed := bytes.Contains(content, []byte("`"+name+"`"))
			if !isNamed && !strings.HasPrefix(name, "pkg/apis/guardian/") { // its row has the custom resources too
				t.Errorf("docs/architecture.md has no row of %s", name)
			}
		}
	}
}

func documents(t *testing.T) []string {
	t.Helper()
	return filesOf(t, ".md")
}

// declarations returns the text of all test files.
func declarations(t *testing.T) []byte {
	t.Helper()
	var all []byte
	for _, file := range filesOf(t, "_test.go") {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, content...)
	}
	return all
}

func filesOf(t *testing.T, suffix string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if entry != nil && entry.IsDir() && entry.Name() == ".git" {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, suffix) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
