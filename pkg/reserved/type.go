// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package reserved

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Type is what kubectl accepts as the type of an object.
type Type struct {
	GVR  schema.GroupVersionResource
	Kind string
}

// Types returns the types of the set, each once.
func (s *Set) Types() []Type {
	var types []Type
	for _, resource := range s.Resources() {
		if found := (Type{resource.GVR, resource.Kind}); !slices.Contains(types, found) {
			types = append(types, found)
		}
	}
	return types
}

// IsNamed reports whether kubectl accepts the word for this kind: the plural, the singular, the kind or a short name, in any
// case, alone or with the group, or with version and group.
func (t Type) IsNamed(word string) bool {
	name, rest, hasRest := strings.Cut(strings.ToLower(word), ".")
	isGroup := !hasRest || t.GVR.Group != "" && rest == t.GVR.Group || rest == t.GVR.Version+"."+t.GVR.Group ||
		rest == t.GVR.Version && t.GVR.Group == ""
	return name != "" && isGroup && (name == t.GVR.Resource || name == strings.ToLower(t.Kind) || name == shortName(t.GVR.GroupResource()))
}

// shortName returns the short name of the API server for a built-in kind. A CustomResourceDefinition may define others.
func shortName(resource schema.GroupResource) string {
	return map[string]string{
		"serviceaccounts": "sa",
		"namespaces":      "ns",
		"pods":            "po",
		"certificatesigningrequests.certificates.k8s.io": "csr",
		"configmaps":                        "cm",
		"services":                          "svc",
		"deployments.apps":                  "deploy",
		"daemonsets.apps":                   "ds",
		"statefulsets.apps":                 "sts",
		"ingresses.networking.k8s.io":       "ing",
		"networkpolicies.networking.k8s.io": "netpol",
		"customresourcedefinitions.apiextensions.k8s.io": "crd",
	}[resource.String()]
}
