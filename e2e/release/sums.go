// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	sumsFile      = "SHA256SUMS"
	signatureFile = sumsFile + ".sig"
	// identity and namespace are what the signature is bound to: ssh-keygen(1), -Y sign.
	identity, namespace = name, name + "-release"
)

// errChanged means that the files are not those of the release.
var errChanged = errors.New("not the files of the release")

// sum is the SHA-256 of a file in hexadecimal.
type sum struct{ sha256, file string }

func sumOf(file string) (string, error) {
	opened, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = opened.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, opened); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// sumsOf returns the sums of all files of a directory but the sums and their signature, by name.
func sumsOf(directory string) ([]sum, error) {
	files, err := os.ReadDir(directory)
	if err != nil {
		return nil, err
	}
	var sums []sum
	for _, file := range files {
		if file.Name() == sumsFile || file.Name() == signatureFile {
			continue
		}
		digest, err := sumOf(filepath.Join(directory, file.Name()))
		if err != nil {
			return nil, err
		}
		sums = append(sums, sum{digest, file.Name()})
	}
	return sums, nil
}

func writeSums(directory string) error {
	sums, err := sumsOf(directory)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, sumsFile), []byte(format(sums)), 0o600)
}

// format writes sums as sha256sum does.
func format(sums []sum) string {
	var text strings.Builder
	for _, s := range sums {
		fmt.Fprintf(&text, "%s  %s\n", s.sha256, s.file)
	}
	return text.String()
}

// sign signs the sums with an SSH key. Without a key, it does nothing.
func sign(ctx context.Context, directory, key string) error {
	if key == "" {
		fmt.Fprintln(os.Stderr, "not signed: set RELEASE_KEY to a private SSH key")
		return nil
	}
	_, err := output(ctx, "ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", namespace, filepath.Join(directory, sumsFile))
	return err
}

// verify checks that the directory has exactly the files of SHA256SUMS, and that the owner of the public key has signed that file.
// Without a public key, it checks the files only, and says so. The error is errChanged, or another one if it could not check.
func verify(ctx context.Context, directory, publicKey string) error {
	want, err := os.ReadFile(filepath.Join(directory, sumsFile))
	if err != nil {
		return err
	}
	sums, err := sumsOf(directory)
	if err != nil {
		return err
	}
	if differ := difference(string(want), format(sums)); len(differ) > 0 {
		return fmt.Errorf("%w: changed, missing or added: %s", errChanged, strings.Join(differ, ", "))
	}
	fmt.Fprintf(os.Stdout, "%d files match %s\n", len(sums), sumsFile)
	if publicKey == "" {
		fmt.Fprintln(os.Stdout, "signature not checked: set RELEASE_PUBLIC_KEY to the file of the publisher's public SSH key")
		return nil
	}
	return verifySignature(ctx, directory, want, publicKey)
}

// difference returns the names of files whose line is in one of the texts only.
func difference(want, got string) []string {
	var names []string
	for _, pair := range [][2]string{{want, got}, {got, want}} {
		for line := range strings.Lines(pair[0]) {
			if !strings.Contains("\n"+pair[1], "\n"+line) {
				names = append(names, strings.TrimSpace(line[strings.LastIndex(line, " ")+1:]))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names) // a changed file is in both, with two sums
}

func verifySignature(ctx context.Context, directory string, sums []byte, publicKey string) error {
	key, err := os.ReadFile(publicKey)
	if err != nil {
		return err
	}
	temporary, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	signers := filepath.Join(temporary, "signers")
	if err := os.WriteFile(signers, []byte(identity+" "+string(key)), 0o600); err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "ssh-keygen", "-Y", "verify", "-f", signers, "-I", identity, "-n", namespace,
		"-s", filepath.Join(directory, signatureFile))
	command.Stdin = strings.NewReader(string(sums))
	if says, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: signature of %s: %w: %s", errChanged, sumsFile, err, says)
	}
	fmt.Fprintln(os.Stdout, "signature of", sumsFile, "is valid")
	return nil
}
