// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/base64"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// TokenClaims identifies the Secret and the ServiceAccount that a token was issued for.
type TokenClaims struct {
	// Namespace is the namespace of both.
	Namespace string
	// Secret is the name of the Secret that holds the token.
	Secret string
	// Account and AccountUID identify the ServiceAccount.
	Account, AccountUID string
}

// maxToken is the max size of a token. A token that is signed with an RSA key of 4096 bits takes less than 2 KiB.
const maxToken = 16 << 10

// The claims of the tokens that kube-controller-manager writes: legacyPrivateClaims in k8s.io/kubernetes/pkg/serviceaccount.
const (
	legacyIssuer = "kubernetes/serviceaccount"
	legacyClaims = "kubernetes.io/serviceaccount/"
)

// ReadTokenClaims reads the claims of a token from a token Secret, already decoded from base64. It does not verify the signature:
// the API server may refuse a token with the same claims. It returns false unless the token is a JWT with the issuer, the subject
// and all claims that kube-controller-manager writes.
func ReadTokenClaims(token []byte) (TokenClaims, bool) {
	if len(token) > maxToken {
		return TokenClaims{}, false
	}
	header, rest, _ := bytes.Cut(token, []byte{'.'})
	payload, signature, _ := bytes.Cut(rest, []byte{'.'})
	if _, ok := decodePart(signature); !ok || readPart(header).Get("alg").Text() == "" {
		return TokenClaims{}, false
	}
	document := readPart(payload)
	claim := func(name string) string { return document.Get(legacyClaims + name).Text() }
	claims := TokenClaims{
		Namespace: claim("namespace"), Secret: claim("secret.name"),
		Account: claim("service-account.name"), AccountUID: claim("service-account.uid"),
	}
	isComplete := claims.Namespace != "" && claims.Secret != "" && claims.Account != "" && claims.AccountUID != ""
	isLegacy := document.Get("iss").TextIs(legacyIssuer) && document.Get("sub").TextIs(reserved.AccountUser(claims.Namespace, claims.Account))
	return claims, isComplete && isLegacy
}

// readPart returns the JSON document of one part of a JWT; an absent Value if there is none.
func readPart(part []byte) rawjson.Value {
	decoded, _ := decodePart(part)
	document, _ := rawjson.Parse(decoded) // an error comes without a document
	return document
}

// decodePart decodes base64url. It returns false for an empty part, and for invalid base64url.
func decodePart(part []byte) ([]byte, bool) {
	if len(part) == 0 || bytes.ContainsAny(part, "\r\n") {
		return nil, false // the decoder would skip line breaks
	}
	decoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, part)
	return decoded, err == nil
}
