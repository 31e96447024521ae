// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func testRelease() *release {
	return &release{version: "v1.2.3", commit: "0123456789abcdef", time: time.Unix(1764300000, 0).UTC()}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]bool{
		"v1.2.3": true, "v1.2.3-rc.1": true, "v0.0.0-g0123456789ab": true, "v1.2": false, "1.2.3": false, "v01.2.3": false, "v1.2.3+dirty": false,
	} {
		if got := semver.MatchString(version); got != want {
			t.Errorf("%s: got %t, want %t", version, got, want)
		}
	}
}

// It changes the working directory, as a release is made in its repository.
func TestTheVersionIsTheTagOfTheCommit(t *testing.T) {
	t.Chdir(t.TempDir())
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)
		if says, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, says)
		}
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--message=a")
	snapshot, err := newRelease(t.Context(), options{})
	if err != nil || snapshot.version != "v0.0.0-g"+snapshot.commit[:12] {
		t.Errorf("without a tag: got %+v, %v", snapshot, err)
	}
	for _, tag := range []string{"v1.9.0", "v1.10.0", "other"} {
		git("tag", tag)
	}
	if tagged, err := newRelease(t.Context(), options{}); err != nil || tagged.version != "v1.10.0" {
		t.Errorf("with tags: got %+v, %v", tagged, err)
	}
	if given, err := newRelease(t.Context(), options{version: "v2.0.0"}); err != nil || given.number() != "2.0.0" {
		t.Errorf("with a version: got %+v, %v", given, err)
	}
	if _, err := newRelease(t.Context(), options{version: "2.0"}); err == nil {
		t.Error("a version that is not semantic passed")
	}
	if err := os.WriteFile("new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newRelease(t.Context(), options{}); err == nil {
		t.Error("a work tree with changes passed")
	}
}

func TestEqualFilesMakeEqualArchives(t *testing.T) {
	t.Parallel()
	for name, pack := range map[string]func(time.Time, ...entry) ([]byte, error){"tar": tarOf, "tar.gz": tarGzipOf, "zip": zipOf} {
		first, errFirst := pack(testRelease().time, entry{"a", 0o644, []byte("x")}, entry{"b", 0o755, []byte("y")})
		second, errSecond := pack(testRelease().time, entry{"a", 0o644, []byte("x")}, entry{"b", 0o755, []byte("y")})
		if err := errors.Join(errFirst, errSecond); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s: two archives differ, %v", name, err)
		}
	}
}

func TestEachBlobOfTheImageHasItsDigest(t *testing.T) {
	t.Parallel()
	l := &layout{}
	image, err := testRelease().addImage(l, "arm64", []byte("binary"))
	if err != nil {
		t.Fatal(err)
	}
	if len(l.entries) != 3 || image.Platform.Architecture != "arm64" || image.MediaType != mediaManifest {
		t.Errorf("got %d blobs and %+v", len(l.entries), image)
	}
	for _, blob := range l.entries {
		if want := "blobs/sha256/" + digestOf(blob.data)[len("sha256:"):]; blob.name != want {
			t.Errorf("got %s, want %s", blob.name, want)
		}
	}
	again := &layout{}
	if second, err := testRelease().addImage(again, "arm64", []byte("binary")); err != nil || second.Digest != image.Digest {
		t.Errorf("two images of one binary: %s and %s, %v", image.Digest, second.Digest, err)
	}
}

func TestReplaceLinesMissesNone(t *testing.T) {
	t.Parallel()
	got, err := replaceLines([]byte("a: 1\nb: 2\na: 3\n"), map[string]string{"a: ": "a: 9"})
	if err != nil || string(got) != "a: 9\nb: 2\na: 3\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := replaceLines([]byte("b: 2\n"), map[string]string{"a: ": "a: 9"}); err == nil {
		t.Error("a line that is missing passed")
	}
}

// The files that the release changes have the lines that it replaces.
func TestTheChartHasTheLinesThatAReleaseReplaces(t *testing.T) {
	t.Parallel()
	r := testRelease()
	r.digest = "sha256:0"
	for _, file := range []string{"Chart.yaml", "values.yaml", "files/values.yaml"} {
		data, err := os.ReadFile(filepath.Join("../..", chartDirectory, file))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.chartContent(file, data); err != nil || !bytes.Contains(got, []byte(r.digest)) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestSection(t *testing.T) {
	t.Parallel()
	const changelog = "# Changelog\n\n## [Unreleased]\n\nnew\n\n## [1.0.0] - 2026-11-28\n\nfirst\n"
	for title, want := range map[string]string{"Unreleased": "new\n", "1.0.0": "first\n", "1.0": "", "2.0.0": ""} {
		if got := section(changelog, title); got != want {
			t.Errorf("%s: got %q, want %q", title, got, want)
		}
	}
}

func TestVerifySeesEveryChange(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(directory string) error
		want   error
	}{
		"no change": {func(string) error { return nil }, nil},
		"a flipped byte": {func(d string) error {
			return os.WriteFile(filepath.Join(d, "a"), []byte("cpntent"), 0o600)
		}, errChanged},
		"a file that is missing": {func(d string) error { return os.Remove(filepath.Join(d, "b")) }, errChanged},
		"a file that was added":  {func(d string) error { return os.WriteFile(filepath.Join(d, "c"), nil, 0o600) }, errChanged},
		"a file and its sum": {func(d string) error {
			return errors.Join(os.WriteFile(filepath.Join(d, "a"), []byte("cpntent"), 0o600), writeSums(d))
		}, errChanged},
		"a file and its sum, signed by another key": {func(d string) error {
			return errors.Join(os.WriteFile(filepath.Join(d, "a"), []byte("cpntent"), 0o600), writeSums(d),
				os.Remove(filepath.Join(d, signatureFile)), sign(t.Context(), d, newKey(t)))
		}, errChanged},
		"no signature": {func(d string) error { return os.Remove(filepath.Join(d, signatureFile)) }, errChanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			directory, key := t.TempDir(), newKey(t)
			err := errors.Join(os.WriteFile(filepath.Join(directory, "a"), []byte("content"), 0o600),
				os.WriteFile(filepath.Join(directory, "b"), nil, 0o600), writeSums(directory), sign(t.Context(), directory, key), test.change(directory))
			if err != nil {
				t.Fatal(err)
			}
			if err := verify(t.Context(), directory, key+".pub"); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func newKey(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Fatal("install openssh-client: ssh-keygen signs the checksums")
	}
	key := filepath.Join(t.TempDir(), "key")
	if says, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatal(err, string(says))
	}
	return key
}
