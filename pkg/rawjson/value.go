// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package rawjson reads a JSON document in place: a value stays a slice of the bytes that were received, and nothing is
// decoded until it is asked for.
//
// The guard reads a few fields of a review that may have megabytes. Decoding all of it into maps takes more time than the rest of the
// answer, and multiplies the memory that a hostile review takes.
package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"unicode/utf8"
)

// ErrInvalid says that a document is not JSON.
var ErrInvalid = errors.New("not valid JSON")

// Value is the JSON text of one value, without surrounding white space. The zero Value is an absent one.
//
// On bytes that are not JSON, or end too soon, the methods find less, and never panic. A Value shares the bytes that it was read from;
// do not change them while it is in use.
type Value []byte

// Parse checks all of data and returns its top value. The error is ErrInvalid.
func Parse(data []byte) (Value, error) {
	if !json.Valid(data) || !utf8.Valid(data) {
		return nil, ErrInvalid
	}
	return Value(bytes.TrimSpace(data)), nil
}

// Truncated returns the top value of a document without its end. The last member may be cut off.
func Truncated(data []byte) Value {
	return Value(bytes.TrimLeft(data, whiteSpace))
}

// IsObject reports whether v starts like an object.
func (v Value) IsObject() bool { return len(v) > 0 && v[0] == '{' }

// IsArray reports whether v starts like an array.
func (v Value) IsArray() bool { return len(v) > 0 && v[0] == '[' }

// IsString reports whether v starts like a string.
func (v Value) IsString() bool { return len(v) > 0 && v[0] == '"' }

// IsEmpty reports whether v is absent, null, {} or []: the API server writes one for the other.
func (v Value) IsEmpty() bool {
	if len(v) == 0 || string(v) == "null" {
		return true
	}
	if v[0] != '{' && v[0] != '[' {
		return false
	}
	i := skipSpace(v, 1)
	return i < len(v) && (v[i] == '}' || v[i] == ']')
}

// Text returns the decoded string; "" if v is not a string.
func (v Value) Text() string {
	if !v.IsString() {
		return ""
	}
	return string(unquote(v))
}

// TextIs reports whether v is a string equal to s, without allocating for a string that needs no decoding.
func (v Value) TextIs(s string) bool {
	return v.IsString() && string(unquote(v)) == s
}

// Get returns the value under the keys, one object after the other; an absent Value if one of them is missing. Of equal keys the first
// counts; the API server sends none.
func (v Value) Get(keys ...string) Value {
	for _, key := range keys {
		v = v.member(key)
	}
	return v
}

func (v Value) member(key string) Value {
	for k, value := range v.Members() {
		if string(k) == key {
			return value
		}
	}
	return nil
}

// Members yields the decoded key and the value of each member of an object, in order; nothing otherwise. Keys share the bytes of v.
func (v Value) Members() iter.Seq2[[]byte, Value] {
	return func(yield func([]byte, Value) bool) {
		if !v.IsObject() {
			return
		}
		for i := skipSpace(v, 1); i < len(v) && v[i] == '"'; {
			keyEnd := skipString(v, i)
			colon := skipSpace(v, keyEnd)
			if colon >= len(v) || v[colon] != ':' {
				return
			}
			start := skipSpace(v, colon+1)
			end := skipValue(v, start)
			if start >= len(v) || !yield(unquote(v[i:keyEnd]), v[start:end]) {
				return
			}
			i = skipComma(v, end)
		}
	}
}

// Elements yields the elements of an array, in order; nothing for any other value.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if !v.IsArray() {
			return
		}
		for i := skipSpace(v, 1); i < len(v) && v[i] != ']'; {
			end := skipValue(v, i)
			if end == i || !yield(v[i:end]) {
				return
			}
			i = skipComma(v, end)
		}
	}
}

// EqualText reports whether two scalars are the same: the same bytes, or strings that decode to the same text.
func EqualText(a, b Value) bool {
	if bytes.Equal(a, b) {
		return true
	}
	return a.IsString() && b.IsString() && bytes.Equal(unquote(a), unquote(b))
}
