// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
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
		text := strings.ToLower(text)
		return isPart(r.String(), text) || r.NamePrefix != "" && strings.Contains(text, r.NamePrefix)
	})
}

// isPart accepts a part of a reserved name. A name that ends with * is a prefix, and a name with the prefix is accepted too.
func isPart(name, part string) bool {
	prefix, isPrefix := strings.CutSuffix(name, "*")
	return strings.Contains(prefix, part) || isPrefix && strings.HasPrefix(part, prefix)
}

// isReserved reports whether the resource of a filter is one that can be in a record.
func isReserved(set *reserved.Set, filter audit.Filter) bool {
	wanted := filter.Object
	isType := func(t reserved.Type) bool { return t.GVR.GroupResource() == wanted.GroupResource() }
	switch {
	case filter.Resource != "":
		return isPartOfName(set, filter.Resource)
	case !slices.ContainsFunc(set.Types(), isType):
		return slices.ContainsFunc(ownKinds(), isType)
	}
	return slices.ContainsFunc(set.Resources(), func(r *reserved.Resource) bool {
		of := v1alpha1.ParseObjectReference(r.String())
		return of.GroupResource() == wanted.GroupResource() && isPart(of.Name, strings.ToLower(wanted.Name)) &&
			(wanted.Namespace == "" || wanted.Namespace == of.Namespace)
	})
}

func notReserved(set *reserved.Set, resource string) error {
	var words []string
	for _, kind := range recordedKinds(set) {
		if word := kind.GVR.GroupResource().String(); !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return fmt.Errorf("%w: --resource %q: neither reserved nor in a record: "+
		"must be TYPE, TYPE/NAME or TYPE/NAMESPACE/NAME with the type %s, or a part of a name", errUsage, resource, oneOf(words))
}

// recordedKinds are the reserved kinds, those of side doors, and those of records about the guard itself.
func recordedKinds(set *reserved.Set) []reserved.Type {
	return slices.Concat(set.Types(), ownKinds(), []reserved.Type{
		{GVR: corev1.SchemeGroupVersion.WithResource("pods"), Kind: "Pod"},
		{GVR: rbacv1.SchemeGroupVersion.WithResource("clusterrolebindings"), Kind: "ClusterRoleBinding"},
		{GVR: rbacv1.SchemeGroupVersion.WithResource("rolebindings"), Kind: "RoleBinding"},
		{GVR: certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests"), Kind: "CertificateSigningRequest"},
	})
}

func ownKinds() []reserved.Type {
	registration, lease := store.RegistrationObject(), store.LeaseObject("")
	return []reserved.Type{
		{GVR: policy.UnlockResource(), Kind: "Unlock"},
		{GVR: policy.RecordResource(), Kind: "AuditRecord"},
		{GVR: registration.GroupResource().WithVersion("v1"), Kind: "ValidatingWebhookConfiguration"},
		{GVR: lease.GroupResource().WithVersion("v1"), Kind: "Lease"},
	}
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
