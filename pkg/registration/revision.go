// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// revision returns the digest of webhooks. The CA bundle does not count: it rotates.
func revision(webhooks []admissionregistrationv1.ValidatingWebhook) string {
	webhooks = slices.Clone(webhooks)
	for i := range webhooks {
		webhooks[i].ClientConfig.CABundle = nil
	}
	text, _ := json.Marshal(webhooks) // these types always marshal
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:10])
}

// state is the result of a comparison with the wanted webhook configuration.
type state string

const (
	inPlace  state = "in place"
	absent   state = "absent"
	tampered state = "tampered with"
	// otherCA: only the CA bundle differs.
	otherCA state = "with another CA bundle"
	// moreCAs: only the CA bundle differs, and it holds all of the wanted one.
	moreCAs state = "with more CAs in the CA bundle"
	// unproven: a guard wrote it before it knew that API servers reach it, and this replica knows that.
	unproven state = "not failing closed yet"
	// otherRevision: a write of another version of the guard, or of a client that knows the digest, that protects less.
	otherRevision state = "of another revision that protects less"
)

// judge compares the live webhook configuration, nil where there is none, with the wanted one. Labels, annotations, and a newer
// revision that protects as much, are as good as in place. Every version writes its revision: one without it is tampered with.
func judge(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) state {
	switch {
	case live == nil:
		return absent
	case live.DeletionTimestamp != nil || len(live.Finalizers) > 0 ||
		!equality.Semantic.DeepEqual(live.OwnerReferences, want.OwnerReferences):
		return tampered
	}
	actual := revision(live.Webhooks)
	switch {
	case actual == revision(want.Webhooks):
		return judgeBundle(live, want)
	case actual != live.Annotations[guardian.RevisionAnnotation]:
		return tampered
	case isUnproven(live, want):
		return unproven
	case !protectsAsMuch(live, want):
		return otherRevision
	}
	return inPlace
}

func judgeBundle(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) state {
	isSame := slices.EqualFunc(live.Webhooks, want.Webhooks, func(a, b admissionregistrationv1.ValidatingWebhook) bool {
		return bytes.Equal(a.ClientConfig.CABundle, b.ClientConfig.CABundle)
	})
	switch {
	case isSame:
		return inPlace
	case holdsAll(Bundle(live), Bundle(want)):
		return moreCAs
	}
	return otherCA
}

// holdsAll reports whether each certificate of some is in all. The guard writes bundles as pem.Encode does.
func holdsAll(all, some []byte) bool {
	block, rest := pem.Decode(some)
	if block == nil {
		return false
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if !bytes.Contains(all, pem.EncodeToMemory(block)) {
			return false
		}
	}
	return true
}

// protectsAsMuch reports whether for each wanted webhook there is a live one that sends the guard at least the same requests. Side
// doors do not count.
func protectsAsMuch(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	return !slices.ContainsFunc(want.Webhooks, func(w admissionregistrationv1.ValidatingWebhook) bool {
		if isSideDoor(&w) {
			return false // another version may judge other ones, and only the leader keeps them exact
		}
		return !slices.ContainsFunc(live.Webhooks, func(l admissionregistrationv1.ValidatingWebhook) bool { return covers(&l, &w) })
	})
}

// covers reports whether the live webhook sends the guard at least what the wanted one does, and fails no softer.
func covers(live, want *admissionregistrationv1.ValidatingWebhook) bool {
	fails := *want.FailurePolicy == admissionregistrationv1.Ignore ||
		live.FailurePolicy != nil && *live.FailurePolicy == admissionregistrationv1.Fail
	return fails && equality.Semantic.DeepEqual(live.ClientConfig, want.ClientConfig) &&
		equality.Semantic.DeepEqual(live.NamespaceSelector, want.NamespaceSelector) &&
		equality.Semantic.DeepEqual(live.ObjectSelector, want.ObjectSelector) &&
		equality.Semantic.DeepEqual(live.MatchPolicy, want.MatchPolicy) &&
		coverRules(live.Rules, want.Rules) && coverConditions(live.MatchConditions, want.MatchConditions)
}

// coverConditions reports whether each live condition is a wanted one, or holds for more names than the wanted one: reservations were
// added.
func coverConditions(live, want []admissionregistrationv1.MatchCondition) bool {
	return !slices.ContainsFunc(live, func(l admissionregistrationv1.MatchCondition) bool {
		return !slices.ContainsFunc(want, func(w admissionregistrationv1.MatchCondition) bool {
			return l == w || l.Name == policies.ReservedObject && w.Name == policies.ReservedObject && holdsForMore(l.Expression, w.Expression)
		})
	})
}

// literal matches a number, and a CEL string literal as pkg/policies writes it; literals matches a list of them.
var (
	literal  = regexp.MustCompile(literalPattern)
	literals = regexp.MustCompile(`\[(?:` + literalPattern + `(?:, ` + literalPattern + `)*)?\]`)
)

const literalPattern = `(?:'(?:[^'\\]|\\.)*'|[0-9]+)`

// holdsForMore reports whether two expressions differ only in their lists, and each live list has all that the wanted one has. A name in
// a list of a match condition never makes it hold for less.
func holdsForMore(live, want string) bool {
	more, some := literals.FindAllString(live, -1), literals.FindAllString(want, -1)
	if literals.ReplaceAllLiteralString(live, "[]") != literals.ReplaceAllLiteralString(want, "[]") {
		return false
	}
	for i := range some { // equal texts have as many lists
		if !isSubset(literal.FindAllString(some[i], -1), literal.FindAllString(more[i], -1)) {
			return false
		}
	}
	return true
}

// coverRules reports whether each wanted rule is within one live rule. The guard itself never writes a wildcard.
func coverRules(live, want []admissionregistrationv1.RuleWithOperations) bool {
	return !slices.ContainsFunc(want, func(w admissionregistrationv1.RuleWithOperations) bool {
		return !slices.ContainsFunc(live, func(l admissionregistrationv1.RuleWithOperations) bool {
			return isSubset(w.Operations, l.Operations) && isSubset(w.APIGroups, l.APIGroups) &&
				isSubset(w.APIVersions, l.APIVersions) && isSubset(w.Resources, l.Resources) &&
				equality.Semantic.DeepEqual(w.Scope, l.Scope)
		})
	})
}

func isSubset[T comparable](some, all []T) bool {
	return !slices.ContainsFunc(some, func(one T) bool { return !slices.Contains(all, one) })
}

// differences returns the paths of the fields in which the live webhook configuration is not as wanted, in order. Labels and
// annotations of other clients do not count, nor do the annotations in which replicas differ.
func differences(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) []string {
	wanted := restored(live, want)
	wanted.DeletionTimestamp = nil
	ofReplicas := []string{
		guardian.CertificateProblemAnnotation, guardian.RegistrationProblemAnnotation, guardian.ReachabilityProblemAnnotation,
		guardian.ReplicaAnnotationPrefix, guardian.CAAnnotationPrefix,
	}
	return slices.DeleteFunc(unequal("", generic(live), generic(wanted)), func(path string) bool {
		return slices.ContainsFunc(ofReplicas, func(prefix string) bool {
			return strings.HasPrefix(path, strings.TrimSuffix(policy.Below("metadata.annotations", prefix), "]"))
		})
	})
}

// generic returns an object as JSON has it: maps, lists and scalars.
func generic(object *admissionregistrationv1.ValidatingWebhookConfiguration) any {
	content, _ := runtime.DefaultUnstructuredConverter.ToUnstructured(object) // this type always converts
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
			paths = append(paths, unequal(policy.Below(at, key), mapA[key], mapB[key])...)
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
