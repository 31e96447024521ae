// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Named returns the names that contain a part. It ignores case.
func Named(records []v1alpha1.AuditRecord, part string) []string {
	var names []string
	for i := range records {
		if contains(records[i].Name, part) {
			names = append(names, records[i].Name)
		}
	}
	return names
}

// minPrefix is what similar names share: the year and the month of their records.
const minPrefix = len("200601")

// Near returns up to three names that share the longest beginning with the given one. It returns nil if none is similar.
func Near(records []v1alpha1.AuditRecord, name string) []string {
	name = strings.ToLower(name)
	var names []string
	for i := range records {
		if shared(records[i].Name, name) >= minPrefix {
			names = append(names, records[i].Name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(shared(b, name), shared(a, name)) })
	return names[:min(len(names), 3)]
}

// shared is the length of the common prefix.
func shared(a, b string) int {
	length := min(len(a), len(b))
	for i := range length {
		if a[i] != b[i] {
			return i
		}
	}
	return length
}
