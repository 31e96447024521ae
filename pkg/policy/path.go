// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// maxPath is the max length of a rendered path in bytes: the client chooses the keys, and they may have megabytes.
const maxPath = 160

// usualDepth and usualPath suffice for most paths, in steps and in bytes.
const (
	usualDepth = 8
	usualPath  = 64
)

// path is the position of a field in its object. The nil path is the object itself.
type path struct {
	parent *path
	key    []byte
	// index is the position in a list plus one; 0 means that the step is a key.
	index int
}

// is reports whether the path consists of exactly these keys.
func (p *path) is(keys ...string) bool {
	for _, key := range slices.Backward(keys) {
		if p == nil || p.index != 0 || string(p.key) != key {
			return false
		}
		p = p.parent
	}
	return p == nil
}

// startsWith reports whether the path is the field with these keys, or a field inside it.
func (p *path) startsWith(keys []string) bool {
	for step := p; step != nil; step = step.parent {
		if step.is(keys...) {
			return true
		}
	}
	return false
}

// String returns the path in the usual notation: rules[2].verbs, metadata.labels[app.kubernetes.io/name].
func (p *path) String() string {
	steps := make([]*path, 0, usualDepth)
	for ; p != nil; p = p.parent {
		steps = append(steps, p)
	}
	var b strings.Builder
	b.Grow(usualPath)
	for i := len(steps) - 1; i >= 0 && b.Len() <= maxPath; i-- {
		steps[i].write(&b)
	}
	return text.Printable(b.String(), maxPath)
}

func (p *path) write(b *strings.Builder) {
	switch {
	case p.index > 0:
		b.WriteString("[" + strconv.Itoa(p.index-1) + "]")
	case !isPlain(p.key):
		b.WriteString("[" + text.Printable(string(p.key[:min(len(p.key), 2*maxPath)]), maxPath) + "]")
	case b.Len() > 0:
		b.WriteByte('.')
		fallthrough
	default:
		b.Write(p.key)
	}
}

// Below returns the path of a member, in the notation of Drift.
func Below(at, key string) string {
	switch {
	case !isPlain([]byte(key)):
		return at + "[" + key + "]"
	case at == "":
		return key
	}
	return at + "." + key
}

// isPlain reports whether a path can show the key without brackets.
func isPlain(key []byte) bool {
	return len(key) > 0 && len(key) <= maxPath && bytes.IndexFunc(key, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) < 0
}

// members finds the members of an object by key, and remembers which of them were taken.
type members struct {
	list []member
	// index maps a key to its position in list; nil for a short list, which is faster to search without.
	index map[string]int
}

type member struct {
	key   []byte
	value rawjson.Value
	taken bool
}

// searchedMembers is the max length of a list that is searched from its start. A longer list needs an index: the search for
// each of a million labels would take quadratic time.
const searchedMembers = 16

// membersOf reads an object into the empty list, or into a larger one. It stops after one member more than maxMembers.
func membersOf(list []member, object rawjson.Value) members {
	m := members{list: list}
	for key, value := range object.Members() {
		if len(m.list) > maxMembers {
			break
		}
		m.list = append(m.list, member{key: key, value: value})
	}
	if len(m.list) > searchedMembers {
		m.index = make(map[string]int, len(m.list))
		for i, member := range m.list {
			m.index[string(member.key)] = i
		}
	}
	return m
}

// take returns the value of key and marks it as taken; an absent Value if there is none.
func (m *members) take(key []byte) rawjson.Value {
	i := m.find(key)
	if i < 0 {
		return nil
	}
	m.list[i].taken = true
	return m.list[i].value
}

func (m *members) find(key []byte) int {
	if m.index != nil {
		if i, found := m.index[string(key)]; found {
			return i
		}
		return -1
	}
	for i := range m.list {
		if bytes.Equal(m.list[i].key, key) {
			return i
		}
	}
	return -1
}
