// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Named returns the names that contain a part, in their order; upper and lower case are the same.
func Named(records []v1alpha1.AuditRecord, part string) []string {
	var names []string
	for i := range records {
		if contains(records[i].Name, part) {
			names = append(names, records[i].Name)
		}
	}
	return names
}

// minPrefix is how much two names must share to be near: the year and the month in which their records begin.
const minPrefix = len("200601")

// Near returns the names, three at most, that begin most like the given one; nil where none does for a month's length.
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

// shared is the length of the beginning that two texts share.
func shared(a, b string) int {
	most := min(len(a), len(b))
	for i := range most {
		if a[i] != b[i] {
			return i
		}
	}
	return most
}
