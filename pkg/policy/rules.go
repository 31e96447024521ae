// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"

	rbacv1 "k8s.io/api/rbac/v1"
	rbacvalidation "k8s.io/component-helpers/auth/rbac/validation"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// maxSimpleRules bounds the single permissions that a list of rules may come to and still be compared. One rule multiplies
// its groups, resources, names and verbs, so that a role that fits into etcd could come to billions. The built-in manifest
// comes to 41.
const maxSimpleRules = 1024

// equalRules reports whether each of two lists of RBAC rules covers the other. Order does not count, nor does the way
// permissions are split into rules. Rules that cannot be read whole, or are too many, are equal to nothing.
func equalRules(a, b rawjson.Value) bool {
	rulesA, okA := readRules(a)
	rulesB, okB := readRules(b)
	if !okA || !okB {
		return false
	}
	covered, _ := rbacvalidation.Covers(rulesA, rulesB)
	covers, _ := rbacvalidation.Covers(rulesB, rulesA)
	return covered && covers
}

func readRules(list rawjson.Value) ([]rbacv1.PolicyRule, bool) {
	if list.IsEmpty() {
		return nil, true
	}
	var rules []rbacv1.PolicyRule
	decoder := json.NewDecoder(bytes.NewReader(list))
	decoder.DisallowUnknownFields() // a field of a newer API server could narrow or widen the rule
	if err := decoder.Decode(&rules); err != nil {
		return nil, false
	}
	total := 0
	for _, rule := range rules {
		total += simpleRules(rule)
		if total > maxSimpleRules {
			return nil, false
		}
	}
	return rules, true
}

// simpleRules returns how many single permissions a rule comes to, never more than just over maxSimpleRules.
func simpleRules(rule rbacv1.PolicyRule) int {
	product := 1
	for _, n := range []int{len(rule.APIGroups), len(rule.Resources), max(1, len(rule.ResourceNames)), len(rule.Verbs)} {
		product = min(product*n, maxSimpleRules+1)
	}
	return product + min(len(rule.NonResourceURLs)*len(rule.Verbs), maxSimpleRules+1)
}
