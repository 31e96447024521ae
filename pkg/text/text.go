// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package text makes untrusted text safe to show.
package text

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"
)

// digestSuffix is the length of the end of a shortened text: "...#" and eight hexadecimal digits.
const digestSuffix = len("...#") + 8

// Printable returns a text that is safe in a terminal, a page, a log and a record. Each character that does not print (control
// characters, escape sequences, marks that turn the direction of writing) and each broken byte becomes U+FFFD. A text of more
// than max bytes (at least 13) is cut at a character and ends in a digest of the whole: two long names stay different.
func Printable(text string, max int) string {
	clean := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
	if len(clean) <= max {
		return clean
	}
	sum := sha256.Sum256([]byte(text))
	cut := strings.ToValidUTF8(clean[:max-digestSuffix], "")
	return cut + "...#" + hex.EncodeToString(sum[:4])
}

// Quote returns the text as a shell reads it as one word.
func Quote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
