// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package rawjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGet(t *testing.T) {
	t.Parallel()
	const document = ` {"a" : {"b":[1,{"c":"d\"}"}], "":null}, "k\u0065y":"\u003c", "n":-1.5e3 , "dup":1,"dup":2} `
	for name, test := range map[string]struct {
		path []string
		want string
	}{
		"a nested object":                        {[]string{"a"}, `{"b":[1,{"c":"d\"}"}], "":null}`},
		"a list with brackets in a string":       {[]string{"a", "b"}, `[1,{"c":"d\"}"}]`},
		"the empty key":                          {[]string{"a", ""}, `null`},
		"an escaped key by its text":             {[]string{"key"}, `"\u003c"`},
		"a number with a space behind":           {[]string{"n"}, `-1.5e3`},
		"the first of two equal keys":            {[]string{"dup"}, `1`},
		"nothing under a key that is missing":    {[]string{"a", "x"}, ``},
		"nothing inside something not an object": {[]string{"n", "x"}, ``},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value, err := Parse([]byte(document))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(value.Get(test.path...))); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, document := range map[string]string{
		"nothing":                 "",
		"a cut-off object":        `{"a":1`,
		"two documents":           `{} {}`,
		"text that is not UTF-8":  "\"\xff\"",
		"a key without quotes":    `{a:1}`,
		"a comma before the end":  `{"a":1,}`,
		"a control byte in a key": "{\"a\x01\":1}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := Parse([]byte(document)); !errors.Is(err, ErrInvalid) {
				t.Errorf("got error %v, want ErrInvalid", err)
			}
		})
	}
}

func TestTruncatedFindsWhatStandsAhead(t *testing.T) {
	t.Parallel()
	const document = `{"request":{"uid":"u-1","userInfo":{"username":"eve","groups":["a","b`
	request := Truncated([]byte(document)).Get("request")
	if got := request.Get("uid").Text(); got != "u-1" {
		t.Errorf("uid: got %q", got)
	}
	if got := request.Get("userInfo", "username").Text(); got != "eve" {
		t.Errorf("username: got %q", got)
	}
}

func TestIsEmpty(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]bool{
		"": true, "null": true, "{}": true, "[]": true, "{ }": true, "[\n]": true,
		`""`: false, "0": false, "false": false, "[null]": false, `{"a":null}`: false,
	} {
		if got := Value(document).IsEmpty(); got != want {
			t.Errorf("%s: got %t, want %t", document, got, want)
		}
	}
}

// FuzzValue holds the scanner to encoding/json: on a valid document both find the same; on any other, nothing panics.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"x",{"b":null}],"c\n":"\ud800"}`, `[[],{}]`, `"`, `{"a":`, `{"a":"\`, `[1 2]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		walk(t, Truncated(data), 0)
		value, err := Parse(data)
		if err != nil {
			return
		}
		var want any
		if err := unmarshal(data, &want); err != nil {
			t.Fatalf("Parse takes what encoding/json does not: %v", err)
		}
		if diff := cmp.Diff(want, decoded(t, value)); diff != "" {
			t.Errorf("(-encoding/json +rawjson)\n%s", diff)
		}
	})
}

// unmarshal keeps numbers as they are written: some fit into no Go type.
func unmarshal(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	return decoder.Decode(into)
}

func walk(t *testing.T, value Value, depth int) {
	t.Helper()
	if depth > 64 {
		return
	}
	for key, member := range value.Members() {
		_ = value.Get(string(key))
		walk(t, member, depth+1)
	}
	for element := range value.Elements() {
		walk(t, element, depth+1)
	}
	_, _ = value.Text(), value.IsEmpty()
}

func decoded(t *testing.T, value Value) any {
	t.Helper()
	switch {
	case value.IsObject():
		object := map[string]any{}
		for key, member := range value.Members() {
			object[string(key)] = decoded(t, member)
		}
		return object
	case value.IsArray():
		array := []any{}
		for element := range value.Elements() {
			array = append(array, decoded(t, element))
		}
		return array
	case value.IsString():
		return value.Text()
	}
	var scalar any
	if err := unmarshal(value, &scalar); err != nil {
		t.Fatalf("scalar %q: %v", value, err)
	}
	return scalar
}
