// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// checkWithSet calls check with the built-in or given set. If that fails, the error is that of the set in the cluster, if it can be read.
func (f *sharedFlags) checkWithSet(ctx context.Context, check func(*reserved.Set) error) error {
	set, err := f.set()
	if err != nil {
		return err
	}
	err = check(set)
	if err == nil || f.reservations != "" {
		return err
	}
	if cluster, clusterErr := f.cluster(ctx, ""); clusterErr == nil {
		return check(cluster.Set)
	}
	return err
}

// readResource sets the resource of the filter: a kind as kubectl accepts it, alone or with a name, or a part of a name. The error
// wraps errUsage if the kind is not reserved: an empty list would read as an all-clear.
func readResource(set *reserved.Set, filter *audit.Filter) error {
	word, rest, isObject := strings.Cut(filter.Resource, "/")
	kinds := recordedKinds(set)
	if at := slices.IndexFunc(kinds, func(kind reserved.Type) bool { return kind.IsNamed(word) }); at >= 0 {
		filter.Object.Group, filter.Object.Resource = kinds[at].GVR.Group, kinds[at].GVR.Resource
		filter.Object.Name = rest
		if namespace, name, hasNamespace := strings.Cut(rest, "/"); hasNamespace {
			filter.Object.Namespace, filter.Object.Name = namespace, name
		}
		filter.Resource = ""
		return nil
	}
	isPart := isPartOfName(set, filter.Resource)
	isExact := strings.HasPrefix(filter.Resource, `"`)
	isKind, isWhole := isKnownKind(word), isObject || strings.Contains(word, ".")
	if isExact || isPart && !(isKind && isWhole) || !isKind && !isObject {
		return nil
	}
	return notReserved(set, filter.Resource)
}

func isPartOfName(set *reserved.Set, text string) bool {
	return slices.ContainsFunc(set.Resources(), func(r *reserved.Resource) bool {
		return strings.Contains(r.String(), strings.ToLower(text))
	})
}

func notReserved(set *reserved.Set, resource string) error {
	var words []string
	for _, kind := range recordedKinds(set) {
		words = append(words, kind.GVR.GroupResource().String())
	}
	return fmt.Errorf("%w: --resource %q: neither reserved nor in a record: "+
		"must be TYPE, TYPE/NAME or TYPE/NAMESPACE/NAME with the type %s, or a part of a name", errUsage, resource, oneOf(words))
}

// recordedKinds are the reserved kinds, and those of records about the guard itself.
func recordedKinds(set *reserved.Set) []reserved.Type {
	registration, lease := store.RegistrationObject(), store.LeaseObject("")
	return append(set.Types(),
		reserved.Type{GVR: policy.UnlockResource(), Kind: "Unlock"},
		reserved.Type{GVR: policy.RecordResource(), Kind: "AuditRecord"},
		reserved.Type{GVR: registration.GroupResource().WithVersion("v1"), Kind: "ValidatingWebhookConfiguration"},
		reserved.Type{GVR: lease.GroupResource().WithVersion("v1"), Kind: "Lease"},
	)
}

// isKnownKind reports whether a word is the type of an object of Kubernetes or of the guard.
func isKnownKind(word string) bool {
	for gvk := range scheme.Scheme.AllKnownTypes() {
		plural, _ := meta.UnsafeGuessKindToResource(gvk)
		if (reserved.Type{GVR: plural, Kind: gvk.Kind}).IsNamed(word) {
			return true
		}
	}
	return slices.Contains([]string{"po", "no", "rs", "ev", "ep", "pv", "pvc", "hpa", "cj", "pdb", "quota"}, word)
}
