// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policies"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

const (
	// maxKeys is the max length of the keys of one webhook, in bytes. The parser of CEL takes expressions of 100,000 code points
	// (github.com/google/cel-go/parser.NewParser).
	maxKeys = 64 << 10
	// maxLengths is the max number of lengths of prefixes. The API server limits the cost of an expression
	// (k8s.io/apiserver/pkg/apis/cel.PerCallLimit), and a look-up costs the length of the list. A test in e2e/matchconditions
	// evaluates the most expensive webhooks.
	maxLengths = 64
)

// maxConfiguration is the max length of the match conditions of all webhooks, in bytes. etcd stores 1.5 MiB in one object
// (etcd's --max-request-bytes). The rest of that is for CA bundles, rules and managedFields.
const maxConfiguration = 1 << 20

// ErrTooLarge means that the API server cannot store the webhook configuration of a set.
var ErrTooLarge = errors.New("too many reserved resources for one webhook configuration")

// Check returns ErrTooLarge if the webhook configuration of the set would be too large.
func Check(set *reserved.Set) error {
	size := 0
	for _, group := range groups(set) {
		for _, condition := range policies.MatchConditions(group.resources) {
			size += len(condition.Expression)
		}
	}
	for _, webhook := range sideDoorWebhooks(set, Options{SideDoors: admissionregistrationv1.Fail}) {
		for _, condition := range webhook.MatchConditions {
			size += len(condition.Expression)
		}
	}
	if size <= maxConfiguration {
		return nil
	}
	return fmt.Errorf("%w: the match conditions of %d reserved resources take %d bytes of at most %d: remove reservations, or shorten names",
		ErrTooLarge, len(set.Resources()), size, maxConfiguration)
}

// group is the resources of one webhook: of one kind, scope, and operations that are guarded.
type group struct {
	name      string
	resources []*reserved.Resource
	// size is the length of their keys.
	size int
	// prefixes are those of the resources.
	prefixes []string
}

// groups returns the groups in the order of the set. The resources of all reservations share a group until it is full.
func groups(set *reserved.Set) []group {
	var all []group
	for _, resource := range set.Resources() {
		size, prefixes := sizeOf(resource), policies.KeysOf(resource).Prefixes
		i := len(all) - 1
		for i >= 0 && !all[i].isOf(resource) {
			i--
		}
		if i < 0 || all[i].size+size > maxKeys || len(policies.LengthsOf(slices.Concat(all[i].prefixes, prefixes))) > maxLengths {
			all = append(all, group{name: freeName(all, resource)})
			i = len(all) - 1
		}
		all[i].resources, all[i].size = append(all[i].resources, resource), all[i].size+size
		all[i].prefixes = append(all[i].prefixes, prefixes...)
	}
	return all
}

func (g *group) isOf(resource *reserved.Resource) bool {
	first := g.resources[0]
	return first.GVR == resource.GVR && policies.IsExistence(first) == policies.IsExistence(resource) &&
		(first.Namespace == "") == (resource.Namespace == "")
}

// sizeOf returns the max length that the resource adds to an expression.
func sizeOf(resource *reserved.Resource) int {
	k := policies.KeysOf(resource)
	size := len(", ''") + len(resource.Namespace)
	for _, key := range slices.Concat(k.Names, k.Prefixes, k.Accounts) {
		size += len(", ") + len(policies.Quote(key))
	}
	return size
}

// freeName returns "clusterroles.apigw-guardian.io" for the first group of a plural. The name of a further one tells its kind, if that
// is another, and then its number.
func freeName(taken []group, resource *reserved.Resource) string {
	parts := []string{resource.GVR.Resource}
	isNamesake := func(g group) bool {
		return g.resources[0].GVR.Resource == resource.GVR.Resource && g.resources[0].GVR != resource.GVR
	}
	if i := slices.IndexFunc(taken, isNamesake); i >= 0 {
		parts = append(parts, resource.GVR.Version)
		if resource.GVR.Group != "" {
			parts = append(parts, resource.GVR.Group)
		}
	}
	if policies.IsExistence(resource) {
		parts = append(parts, "deletion")
	}
	name := strings.Join(append(parts, guardian.WebhookDomain), ".")
	isTaken := func() bool {
		return name == unlocksWebhookName || slices.ContainsFunc(taken, func(g group) bool { return g.name == name })
	}
	for n := 2; isTaken(); n++ {
		name = strings.Join(append(parts, strconv.Itoa(n), guardian.WebhookDomain), ".")
	}
	return name
}
