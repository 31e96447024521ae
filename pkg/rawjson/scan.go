// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package rawjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/bits"
)

const whiteSpace = " \t\r\n"

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipComma returns the index behind a comma and the white space around it, or the end of b if there is no comma.
func skipComma(b []byte, i int) int {
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ',' {
		return len(b)
	}
	return skipSpace(b, i+1)
}

// skipString returns the index behind the string at i, or the end of b if it is cut off. It looks at eight bytes at a time for speed.
func skipString(b []byte, i int) int {
	i++
	for i+8 <= len(b) {
		word := binary.LittleEndian.Uint64(b[i:])
		special := zeroBytes(word^quotes) | zeroBytes(word^backslashes)
		if special == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(special) / 8
		if b[i] == '"' {
			return i + 1
		}
		i += 2
	}
	for ; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return len(b)
}

const (
	ones        = 0x0101010101010101
	quotes      = ones * '"'
	backslashes = ones * '\\'
)

// zeroBytes returns a word whose lowest set bit is in the first zero byte of v; 0 if there is none.
func zeroBytes(v uint64) uint64 { return (v - ones) &^ v & (ones << 7) }

// skipValue returns the index behind the value at i, or the end of b if it is cut off.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return len(b)
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	default:
		return skipScalar(b, i)
	}
}

// skipNested takes most of the time of reading a review: one pass over all bytes.
func skipNested(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = skipString(b, i)
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
		i++
	}
	return len(b)
}

func skipScalar(b []byte, i int) int {
	for i < len(b) && bytes.IndexByte([]byte(",]} \t\r\n"), b[i]) < 0 {
		i++
	}
	return i
}

// unquote returns the text of a JSON string: the bytes between its quotes if nothing is escaped, and nil if it is cut off.
func unquote(s []byte) []byte {
	if len(s) < 2 || s[len(s)-1] != '"' {
		return nil
	}
	if bytes.IndexByte(s, '\\') < 0 {
		return s[1 : len(s)-1]
	}
	var text string
	if err := json.Unmarshal(s, &text); err != nil {
		return nil
	}
	return []byte(text)
}
