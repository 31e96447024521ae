// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Extra is userInfo.extra: what an authenticator says of a user besides the name, such as the session of an assumed role.
type Extra = map[string][]string

// AllExtra keeps all of Extra, except what looks like a credential.
const AllExtra = "*"

const (
	maxExtraKeys   = 16
	maxExtraValues = 8
)

// KeptExtra returns the keys that records hold: those of the list, in any case, or all whose name and values do not look like a
// credential if the list has AllExtra. A value that is a token or a key is never held.
func KeptExtra(extra Extra, keys []string) Extra {
	var kept Extra
	for key, values := range extra {
		isListed := slices.ContainsFunc(keys, func(k string) bool { return strings.EqualFold(k, key) })
		isHarmless := slices.Contains(keys, AllExtra) && !namesCredential(key)
		if (isListed || isHarmless) && !slices.ContainsFunc(values, isCredential) {
			if kept == nil {
				kept = Extra{}
			}
			kept[key] = slices.Sorted(slices.Values(values)) // a login may have them in another order
		}
	}
	return kept
}

var (
	credentialName = regexp.MustCompile(
		`(?i)token|secret|passw|passphrase|credential|authorization|bearer|cookie|assertion|jwt|saml|api[-_.]?key|access[-_.]?key|` +
			`private[-_.]?key|signature|session[-_.]?(id|key)$|(^|[^a-z])(code|key|otp|pin|pwd)$`)
	// identifierName is the name of a public identifier, such as authentication.kubernetes.io/credential-id or accessKeyId.
	identifierName  = regexp.MustCompile(`(?i)[-_.]?(id|uid|name|hash)$`)
	credentialValue = regexp.MustCompile(`(?i)eyJ[\w-]{8,}\.[\w-]+|^(bearer|basic) |-----BEGIN |://[^/@\s]*:[^/@\s]*@`)
	sessionID       = regexp.MustCompile(`(?i)session[-_.]?id$`)
)

func namesCredential(key string) bool {
	return credentialName.MatchString(key) && (!identifierName.MatchString(key) || sessionID.MatchString(key))
}

func isCredential(value string) bool { return credentialValue.MatchString(value) }

// boundedExtra returns what a record holds, printable. Keys that become equal share their values.
func boundedExtra(extra Extra) Extra {
	if len(extra) == 0 {
		return nil
	}
	bounded := Extra{}
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		if len(bounded) == maxExtraKeys {
			break
		}
		values := []string{}
		for _, value := range extra[key][:min(len(extra[key]), maxExtraValues)] {
			values = append(values, text.Printable(value, maxName))
		}
		bounded[text.Printable(key, maxName)] = values
	}
	return bounded
}

// kubernetesExtra are the keys of the API server itself. They name a Pod, a node or a certificate, and no person.
const kubernetesExtra = "authentication.kubernetes.io/"

// UserName names the user of a record for a person: "kubernetes-admin (alice@example.com)" if the authenticator knows more.
func UserName(user *v1alpha1.User) string {
	var more []string
	for _, key := range slices.Sorted(maps.Keys(user.Extra)) {
		if !strings.HasPrefix(key, kubernetesExtra) {
			more = append(more, user.Extra[key]...)
		}
	}
	if len(more) == 0 {
		return user.Name
	}
	return text.Printable(user.Name+" ("+strings.Join(more, ", ")+")", maxName)
}

// ExtraLines returns "key=value" for each value, in order.
func ExtraLines(user *v1alpha1.User) []string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(user.Extra)) {
		for _, value := range user.Extra[key] {
			lines = append(lines, key+"="+value)
		}
	}
	return lines
}
