// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func entry(manager string, minute int, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
	at := metav1.NewTime(time.Date(2026, 11, 28, 8, minute, 0, 0, time.UTC))
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: operation, Time: &at, FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)}, //nolint:staticcheck // as tests write it
	}
}

func TestLastWriter(t *testing.T) {
	t.Parallel()
	const apply, update = metav1.ManagedFieldsOperationApply, metav1.ManagedFieldsOperationUpdate
	ours := entry("apigw-guardian", 1, apply, `{"f:rules":{}}`)
	for name, test := range map[string]struct {
		entries []metav1.ManagedFieldsEntry
		paths   []string
		want    string
	}{
		"the owner of a list that is atomic": {
			[]metav1.ManagedFieldsEntry{entry("editor", 2, update, `{"f:rules":{}}`), entry("labeller", 3, update, `{"f:metadata":{"f:labels":{"f:a":{}}}}`)},
			[]string{"rules[2].verbs"},
			"editor",
		},
		"the owner of a label with a prefix": {
			[]metav1.ManagedFieldsEntry{
				ours, entry("labeller", 2, update, `{"f:metadata":{"f:labels":{".":{},"f:example.com/a":{}}}}`),
				entry("annotator", 3, update, `{"f:metadata":{"f:annotations":{".":{},"f:example.com/a":{}}}}`),
			},
			[]string{"metadata.labels[example.com/a]"},
			"labeller",
		},
		"the later of two owners": {
			[]metav1.ManagedFieldsEntry{entry("late", 5, update, `{"f:rules":{}}`), ours}, []string{"rules"}, "late",
		},
		"another one at the same time": {
			[]metav1.ManagedFieldsEntry{ours, entry("late", 1, update, `{"f:rules":{}}`)}, []string{"rules"}, "late",
		},
		"the owner of an element of a list": {
			[]metav1.ManagedFieldsEntry{ours, entry("editor", 2, update, `{"f:secrets":{"k:{\"name\":\"x\"}":{".":{},"f:name":{}}}}`)},
			[]string{"secrets[0].name"},
			"editor",
		},
		"the last other one, of a field that was removed": {
			[]metav1.ManagedFieldsEntry{ours, entry("a", 2, update, `{"f:data":{}}`), entry("b", 3, update, `{"f:type":{}}`)},
			[]string{"metadata.labels"},
			"b",
		},
		"nobody, if only this program wrote":  {[]metav1.ManagedFieldsEntry{ours}, []string{"metadata.labels"}, ""},
		"nobody, without entries":             {nil, []string{"rules"}, ""},
		"nobody, of an entry without a time":  {[]metav1.ManagedFieldsEntry{{Manager: "a"}}, []string{"rules"}, ""},
		"another one, if fields are not JSON": {[]metav1.ManagedFieldsEntry{entry("a", 2, update, `{`)}, []string{"rules"}, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := LastWriter(test.entries, test.paths); got.Manager != test.want || (got.Manager == "") != got.At.IsZero() {
				t.Errorf("got %+v, want %q", got, test.want)
			}
		})
	}
	if got := LastWriter([]metav1.ManagedFieldsEntry{ours}, []string{"rules"}); !got.Applied {
		t.Errorf("got %+v, want one that applied", got)
	}
}

func TestKeysOfAPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"rules[2].verbs": {"rules", "2", "verbs"},
		"metadata.labels[app.kubernetes.io/name]": {"metadata", "labels", "app.kubernetes.io/name"},
		"data[ca.crt]": {"data", "ca.crt"},
		"roleRef.name": {"roleRef", "name"},
		"aggregationRule.clusterRoleSelectors[0].": {"aggregationRule", "clusterRoleSelectors", "0"},
		"[odd": {"odd"},
		"":     nil,
	} {
		if diff := cmp.Diff(want, keys(path)); diff != "" {
			t.Errorf("%q: -want +got:\n%s", path, diff)
		}
	}
}
