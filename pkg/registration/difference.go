// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// differences returns the paths of the fields in which the live webhook configuration is not as wanted, in order; nil if it
// cannot be read. Labels and annotations that others have added do not count, nor do the guardian.CertificateProblemAnnotation and the keys of
// replicas, in which replicas may differ.
func differences(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
	var paths []string
	if live.DeletionTimestamp != nil {
		paths = append(paths, "metadata.deletionTimestamp")
	}
	for _, part := range []struct {
		at         string
		live, want any
	}{
		{"metadata.labels", live.Labels, merged(live.Labels, want.Labels)},
		{"metadata.annotations", live.Annotations, merged(live.Annotations, want.Annotations)},
		{"metadata.ownerReferences", live.OwnerReferences, want.OwnerReferences},
		{"metadata.finalizers", live.Finalizers, want.Finalizers},
		{"webhooks", live.Webhooks, want.Webhooks},
	} {
		paths = append(paths, unequal(part.at, generic(part.live), generic(part.want))...)
	}
	ofKeys := strings.TrimSuffix(below("metadata.annotations", guardian.ReplicaAnnotationPrefix), `"]`)
	return slices.DeleteFunc(paths, func(path string) bool {
		return path == below("metadata.annotations", guardian.CertificateProblemAnnotation) || strings.HasPrefix(path, ofKeys)
	})
}

// generic returns a value as JSON has it: maps, lists and scalars.
func generic(value any) any {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&struct {
		Value any `json:"value,omitempty"`
	}{value})
	if err != nil {
		return nil
	}
	return object["value"]
}

// unequal returns the paths, below at, of the values that differ. A list of another length differs as a whole.
func unequal(at string, a, b any) []string {
	mapA, isMapA := a.(map[string]any)
	mapB, isMapB := b.(map[string]any)
	listA, isListA := a.([]any)
	listB, isListB := b.([]any)
	var paths []string
	switch {
	case isMapA && isMapB:
		keys := maps.Clone(mapA)
		maps.Copy(keys, mapB)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			paths = append(paths, unequal(below(at, key), mapA[key], mapB[key])...)
		}
	case isListA && isListB && len(listA) == len(listB):
		for i := range listA {
			paths = append(paths, unequal(fmt.Sprintf("%s[%d]", at, i), listA[i], listB[i])...)
		}
	case !reflect.DeepEqual(a, b):
		return []string{at}
	}
	return paths
}

// below returns the path of a key, written as the policy writes it: metadata.labels["app.kubernetes.io/name"].
func below(at, key string) string {
	if strings.ContainsAny(key, "./") {
		return fmt.Sprintf("%s[%q]", at, key)
	}
	return at + "." + key
}
