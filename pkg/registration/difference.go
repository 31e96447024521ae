// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// differences returns the paths of the fields in which the live webhook configuration is not as wanted, in order. Labels and
// annotations of other clients do not count, nor do the CertificateProblemAnnotation and the keys of replicas: replicas differ there.
func differences(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
	wanted := restored(live, want)
	wanted.DeletionTimestamp = nil
	paths := unequal("", generic(live), generic(wanted))
	ofKeys := strings.TrimSuffix(below("metadata.annotations", guardian.ReplicaAnnotationPrefix), `"]`)
	return slices.DeleteFunc(paths, func(path string) bool {
		return path == below("metadata.annotations", guardian.CertificateProblemAnnotation) || strings.HasPrefix(path, ofKeys)
	})
}

// generic returns an object as JSON has it: maps, lists and scalars.
func generic(object *admissionregistrationv1.ValidatingWebhookConfiguration) any {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil
	}
	return content
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
	return strings.TrimPrefix(at+"."+key, ".")
}
