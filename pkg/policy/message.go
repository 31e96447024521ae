// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// maxNamed is how many changed fields a message names.
const maxNamed = 8

// maxName bounds an object's name in a message. The longest that the API server takes for most kinds.
const maxName = 253

// Message tells a person what was denied, one line per fact:
//
//	ClusterRole "apigw-ingress-clusterrole" is reserved by API Gateway and must not be updated (changed: rules[2].verbs).
//
// The hint is the second line of a denial that concerns a reserved resource: how to make the change after all. An empty hint
// leaves it out. The message never contains a value of the object. It is meant for a write that is denied, or would be.
func (d Decision) Message(hint string) string {
	if d.Resource == nil || hint == "" {
		return d.Sentence()
	}
	return d.Sentence() + "\n" + hint
}

// Sentence is the first line of the Message: what must not be, and why.
func (d Decision) Sentence() string {
	switch {
	case d.Reason == TooLarge:
		return "The request is too large to be read, and is denied as it may concern a reserved resource."
	case d.Reason == Overloaded:
		return "The guard receives too much at a time to read the request, and denies it as it may concern a reserved resource. Try again."
	case d.Resource == nil:
		return "The request cannot be judged, and is denied as it may concern a reserved resource."
	}
	object := fmt.Sprintf("%s %s", d.Resource.Kind, strconv.Quote(d.Object.Name))
	switch d.Reason {
	case ReservedDelete, NamespaceTerminating:
		if d.Resource.Guard == reserved.GuardExistence {
			return fmt.Sprintf("%s holds resources reserved by %s and must not be deleted.", object, d.Resource.Owner)
		}
		return fmt.Sprintf("%s is reserved by %s and must not be deleted.", object, d.Resource.Owner)
	case SystemDelete:
		return fmt.Sprintf("%s is deleted by the control plane: its ServiceAccount is gone.", object)
	case TokenMint:
		return fmt.Sprintf("%s would hold a token of ServiceAccount %q, which is reserved by %s.",
			object, d.Resource.Account, d.Resource.Owner)
	case ReservedCreate:
		return d.foreign(object)
	default:
		return fmt.Sprintf("%s is reserved by %s and must not be updated (changed: %s).",
			object, d.Resource.Owner, list(d.Changed))
	}
}

func (d Decision) foreign(object string) string {
	if d.Resource.NamePrefix != "" && d.Object.Name != d.Resource.Name {
		return fmt.Sprintf("%s has the prefix %q, which is reserved by %s, and must not be created.",
			object, d.Resource.NamePrefix, d.Resource.Owner)
	}
	return fmt.Sprintf("%s is reserved by %s and must not be created unlike its manifest (different: %s).",
		object, d.Resource.Owner, list(d.Changed))
}

func list(paths []string) string {
	if len(paths) <= maxNamed {
		return strings.Join(paths, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(paths[:maxNamed], ", "), len(paths)-maxNamed)
}
