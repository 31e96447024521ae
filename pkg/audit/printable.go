// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of the texts of a record, in bytes, below those of the custom resource's schema, which count characters.
const (
	maxOperation = 16
	maxLabel     = 64
	maxResource  = 2*(maxName+1+maxLabel) + 1
	maxPath      = 200
	maxMessage   = 2048
	maxName      = 256
	maxUID       = 64
	maxItems     = 32
)

// digestSuffix is what a shortened text ends in: "...#" and eight hexadecimal digits.
const digestSuffix = len("...#") + 8

// Printable makes a foreign text fit for a terminal, a page and a record: what does not print (control characters, escape
// sequences, marks that turn the direction of writing, broken UTF-8) becomes U+FFFD, and a text of more than most bytes is
// cut and ends in a digest of the whole, so that two long names stay two. most is more than 12.
func Printable(text string, most int) string {
	if isPlain(text) && len(text) <= most {
		return text
	}
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
	if len(clean) <= most {
		return clean
	}
	sum := sha256.Sum256([]byte(text))
	cut := strings.ToValidUTF8(clean[:most-digestSuffix], "")
	return cut + "...#" + hex.EncodeToString(sum[:4])
}

// isPlain reports that a text is printable ASCII, as almost all are.
func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// printables bounds a list too; nil stays nil.
func printables(texts []string, most int) []string {
	if len(texts) == 0 {
		return nil
	}
	result := make([]string, 0, min(len(texts), maxItems))
	for _, text := range texts[:min(len(texts), maxItems)] {
		result = append(result, Printable(text, most))
	}
	return result
}
