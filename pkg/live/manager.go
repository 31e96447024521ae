// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/json"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// Writer is a field manager and the time of its last write. A client may choose any name. The zero Writer is unknown.
type Writer struct {
	Manager string      `json:"manager,omitempty"`
	At      metav1.Time `json:"at,omitzero"`
	// Applied says that it wrote by server-side apply.
	Applied bool `json:"applied,omitempty"`
	// IsGuess says that no manager owns the fields. This one wrote the object last, maybe other fields, and earlier.
	IsGuess bool `json:"isGuess,omitempty"`
}

// LastWriter returns who wrote one of the fields last, by managedFields. If no manager owns any of them, as after a removal, it returns who
// wrote the object last, but not this program: its own writes leave the manifest.
func LastWriter(entries []metav1.ManagedFieldsEntry, paths []string) Writer {
	var owner, other Writer
	for _, entry := range entries {
		if entry.Time == nil {
			continue
		}
		writer := Writer{Manager: entry.Manager, At: *entry.Time, Applied: entry.Operation == metav1.ManagedFieldsOperationApply}
		if ownsAny(entry.FieldsV1, paths) {
			owner = later(owner, writer)
		}
		if writer.Manager != guardian.FieldManager {
			other = later(other, writer)
		}
	}
	if owner.Manager == "" {
		other.IsGuess = other.Manager != ""
		return other
	}
	return owner
}

// later returns the writer with the later time, or another than this program of two with equal times.
func later(a, b Writer) Writer {
	if a.Manager == "" || b.At.After(a.At.Time) || b.At.Equal(&a.At) && a.Manager == guardian.FieldManager {
		return b
	}
	return a
}

func ownsAny(fields *metav1.FieldsV1, paths []string) bool {
	if fields == nil {
		return false
	}
	var owned map[string]any
	if json.Unmarshal(fields.GetRawBytes(), &owned) != nil {
		return false
	}
	for _, path := range paths {
		if owns(owned, keys(path)) {
			return true
		}
	}
	return false
}

// owns reports whether managedFields name the field, or a list or map around it as a whole.
func owns(owned map[string]any, keys []string) bool {
	for _, key := range keys {
		below, found := owned["f:"+key].(map[string]any)
		if !found {
			return len(owned) > 0 && isListOf(owned)
		}
		if len(below) == 0 {
			return true
		}
		owned = below
	}
	return len(owned) > 0
}

// isListOf reports whether managedFields name elements of a list by their keys or values: which one, a path with an index does not say.
func isListOf(owned map[string]any) bool {
	for key := range owned {
		if strings.HasPrefix(key, "k:") || strings.HasPrefix(key, "v:") {
			return true
		}
	}
	return false
}

// keys splits a path of policy.Drift: metadata.labels[app.kubernetes.io/name] has the keys metadata, labels and app.kubernetes.io/name.
func keys(path string) []string {
	var found []string
	for path != "" {
		end := strings.IndexAny(path, ".[")
		switch {
		case end < 0:
			return append(found, path)
		case end > 0:
			found = append(found, path[:end])
		}
		if path[end] == '.' {
			path = path[end+1:]
			continue
		}
		key, rest, _ := strings.Cut(path[end+1:], "]")
		found = append(found, key)
		path = strings.TrimPrefix(rest, ".")
	}
	return found
}
