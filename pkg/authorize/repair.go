// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// lastAppliedPath is where kubectl notes what it applied, as package policy writes paths.
const lastAppliedPath = "metadata.annotations[" + corev1.LastAppliedConfigAnnotation + "]"

// repairPatch returns the JSON merge patch (RFC 7386) that makes a live object what its manifest says: it sets what
// differs, and nulls what the manifest lacks. Fields that the cluster writes are left as they are. It holds for the version
// of the object that was read, and for no other.
func repairPatch(f found) ([]byte, error) {
	patch := difference(f.live.Object, f.entry.Object().Object, nil, clusterOwned(f))
	metadata, isObject := patch["metadata"].(map[string]any)
	if !isObject {
		metadata = map[string]any{}
		patch["metadata"] = metadata
	}
	metadata["resourceVersion"] = f.live.GetResourceVersion()
	data, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("write the repair of %s: %w", nameOf(f.entry), err)
	}
	return data, nil
}

// clusterOwned returns the paths of the fields that a repair leaves alone.
func clusterOwned(f found) [][]string {
	owned := append([][]string{{"status"}}, f.entry.SystemFields()...)
	if !slices.Contains(f.drift, lastAppliedPath) {
		owned = append(owned, []string{"metadata", "annotations", corev1.LastAppliedConfigAnnotation})
	}
	for _, key := range []string{
		"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
		"deletionTimestamp", "deletionGracePeriodSeconds",
	} {
		owned = append(owned, []string{"metadata", key})
	}
	return owned
}

// difference returns the merge patch from live to want below a path. A field that want lacks is nulled whole, unless
// something below it is owned by the cluster.
func difference(live, want map[string]any, at []string, owned [][]string) map[string]any {
	patch := map[string]any{}
	for key, value := range live {
		path := append(slices.Clone(at), key)
		wanted, isWanted := want[key]
		inner, isObject := value.(map[string]any)
		wantedInner, wantsObject := wanted.(map[string]any)
		switch {
		case !isWanted && isOwned(path, owned) || reflect.DeepEqual(value, wanted):
		case isObject && (wantsObject || !isWanted && leadsToOwned(path, owned)):
			if below := difference(inner, wantedInner, path, owned); len(below) > 0 {
				patch[key] = below
			}
		case !isWanted:
			patch[key] = nil
		default:
			patch[key] = wanted
		}
	}
	for key, wanted := range want {
		if _, found := live[key]; !found {
			patch[key] = wanted
		}
	}
	return patch
}

func isOwned(path []string, owned [][]string) bool {
	return slices.ContainsFunc(owned, func(o []string) bool { return slices.Equal(o, path) })
}

func leadsToOwned(path []string, owned [][]string) bool {
	return slices.ContainsFunc(owned, func(o []string) bool {
		return len(o) > len(path) && slices.Equal(o[:len(path)], path)
	})
}
