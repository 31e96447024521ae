// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// This file reads a review and judges it a second time, slowly and on maps, sharing no code with the guard, for the fuzzer
// to hold the guard to. It knows only what must never be allowed.

type foreignRequest struct {
	UID       string
	Operation string
	Resource  struct{ Group, Version, Resource string }
	UserInfo  struct {
		Username string
		Groups   []string
	}
	Object, OldObject map[string]any
}

func readIndependently(body []byte) (*foreignRequest, error) {
	var review struct{ Request *foreignRequest }
	if err := json.Unmarshal(body, &review); err != nil {
		return nil, err
	}
	if review.Request == nil {
		return nil, fmt.Errorf("no request")
	}
	return review.Request, nil
}

// forbidden says why a request must not be allowed; "" where it may be.
func forbidden(set *reserved.Set, request *foreignRequest) string {
	resource := concerned(set, request)
	switch {
	case resource == nil:
		return ""
	case request.Operation == "DELETE":
		return "it deletes a reserved resource"
	case request.Operation == "CREATE":
		return differsFromManifest(resource, request.Object)
	case request.UserInfo.Username == "system:kube-controller-manager" && resource.Account != "":
		return beyondFill(request.OldObject, request.Object)
	case request.UserInfo.Username == "system:apiserver" && resource.Account != "":
		return beyond(request.OldObject, request.Object, ".metadata.labels.kubernetes.io/legacy-token-last-used")
	}
	var manifest map[string]any
	if err := json.Unmarshal(resource.Manifest(), &manifest); err != nil {
		return err.Error()
	}
	return awayFrom("", manifest, request.OldObject, request.Object)
}

func concerned(set *reserved.Set, request *foreignRequest) *reserved.Resource {
	for _, resource := range set.Resources() {
		if resource.GVR.Resource != request.Resource.Resource || resource.GVR.Group != request.Resource.Group {
			continue
		}
		for _, object := range []map[string]any{request.Object, request.OldObject} {
			metadata, _ := object["metadata"].(map[string]any)
			name, _ := metadata["name"].(string)
			namespace, _ := metadata["namespace"].(string)
			annotations, _ := metadata["annotations"].(map[string]any)
			prefixed := resource.NamePrefix != "" && strings.HasPrefix(name, resource.NamePrefix)
			mints := resource.Account != "" && annotations["kubernetes.io/service-account.name"] == resource.Account
			if name != "" && namespace == resource.Namespace && (name == resource.Name || prefixed || mints) {
				return resource
			}
		}
	}
	return nil
}

func differsFromManifest(resource *reserved.Resource, object map[string]any) string {
	metadata, _ := object["metadata"].(map[string]any)
	if metadata["name"] != resource.Name {
		return "it creates under a reserved name what no manifest names"
	}
	for _, key := range []string{"data", "immutable", "secrets", "imagePullSecrets", "aggregationRule"} {
		if !isEmpty(object[key]) && object[key] != false {
			return "it creates a reserved resource with " + key
		}
	}
	for _, key := range []string{"ownerReferences", "finalizers", "labels"} {
		if !isEmpty(metadata[key]) {
			return "it creates a reserved resource with metadata." + key
		}
	}
	return ""
}

// beyondFill says what an update does to a token Secret besides filling it.
func beyondFill(old, new map[string]any) string {
	data, _ := old["data"].(map[string]any)
	if token, _ := data["token"].(string); token != "" {
		return beyond(old, new, ".data.ca.crt")
	}
	return beyond(old, new, ".data.ca.crt", ".data.token", ".data.namespace", ".metadata.annotations.kubernetes.io/service-account.uid")
}

// beyond says which field an update changes besides the given ones.
func beyond(old, new map[string]any, fields ...string) string {
	before, after := map[string]any{}, map[string]any{}
	flatten("", old, before)
	flatten("", new, after)
	for _, at := range slices.Sorted(maps.Keys(before)) {
		if !slices.Contains(fields, at) && !reflect.DeepEqual(before[at], after[at]) {
			return "it changes " + at
		}
	}
	for _, at := range slices.Sorted(maps.Keys(after)) {
		if _, known := before[at]; !known && !slices.Contains(fields, at) {
			return "it adds " + at
		}
	}
	return ""
}

// flatten lists the values of an object that are no objects, but for bookkeeping and what is empty, by their paths.
func flatten(at string, value any, into map[string]any) {
	object, isObject := value.(map[string]any)
	switch {
	case slices.Contains(bookkeeping, at) || isEmpty(value) || at == ".immutable" && value == false:
	case isObject:
		for key, member := range object {
			flatten(at+"."+key, member, into)
		}
	default:
		into[at] = value
	}
}

// bookkeeping is what the API server and kubectl keep for themselves.
var bookkeeping = []string{
	".metadata.managedFields", ".metadata.resourceVersion", ".metadata.generation", ".metadata.selfLink",
	".metadata.annotations.kubectl.kubernetes.io/last-applied-configuration",
}

// awayFrom says where an update changes a field to anything but what the manifest has there.
func awayFrom(at string, want, old, new any) string {
	if reflect.DeepEqual(old, new) || isEmpty(old) && isEmpty(new) || slices.Contains(bookkeeping, at) {
		return ""
	}
	oldMap, oldIs := old.(map[string]any)
	newMap, newIs := new.(map[string]any)
	if (oldIs || isEmpty(old)) && (newIs || isEmpty(new)) && (oldIs || newIs) {
		wantMap, _ := want.(map[string]any)
		keys := maps.Clone(newMap)
		if keys == nil {
			keys = map[string]any{}
		}
		maps.Copy(keys, oldMap)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if why := awayFrom(at+"."+key, wantMap[key], oldMap[key], newMap[key]); why != "" {
				return why
			}
		}
		return ""
	}
	switch {
	case reflect.DeepEqual(new, want) || isEmpty(new) && isEmpty(want):
		return ""
	case at == ".rules" || at == ".secrets" || at == ".immutable" || strings.Contains(at, corpus.Canary):
		return "" // compared by meaning; the unit tests of the decision judge these
	}
	if _, isList := new.([]any); isList {
		return "" // equal lists may differ in what is empty inside; the unit tests judge these too
	}
	return "it changes " + at
}

func isEmpty(value any) bool {
	switch value := value.(type) {
	case nil:
		return true
	case map[string]any:
		for _, member := range value {
			if !isEmpty(member) {
				return false
			}
		}
		return true
	case []any:
		return len(value) == 0
	}
	return false
}
