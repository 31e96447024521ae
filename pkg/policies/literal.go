// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Quote writes a CEL string literal.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\\' || r == '\'':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

// quoteAll writes a CEL list of strings.
func quoteAll[S ~string](texts []S) string {
	quoted := make([]string, 0, len(texts))
	for _, text := range texts {
		quoted = append(quoted, Quote(string(text)))
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// literal writes a JSON value in CEL. The API server requires that all elements of a literal have one type, so that all are dyn.
func literal(value any) string {
	switch v := value.(type) {
	case string:
		return Quote(v)
	case map[string]any:
		members := make([]string, 0, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			members = append(members, Quote(key)+": dyn("+literal(v[key])+")")
		}
		return "{" + strings.Join(members, ", ") + "}"
	case []any:
		elements := make([]string, 0, len(v))
		for _, element := range v {
			elements = append(elements, "dyn("+literal(element)+")")
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
	text, _ := json.Marshal(value) // a number, a boolean or null
	return string(text)
}
