// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/base64"

	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
)

// TokenClaims says for whom the token of a token Secret was issued. Two of them are equal if they name the same.
type TokenClaims struct {
	// Namespace is that of the Secret and the ServiceAccount.
	Namespace string
	// Secret is the name of the Secret that holds the token.
	Secret string
	// Account and AccountUID identify the ServiceAccount.
	Account, AccountUID string
}

// maxToken bounds the token that is read. A token that is signed with an RSA key of 4096 bits takes less than 2 KiB.
const maxToken = 16 << 10

// The claims of the tokens that kube-controller-manager writes: legacyPrivateClaims in k8s.io/kubernetes/pkg/serviceaccount.
const (
	legacyIssuer = "kubernetes/serviceaccount"
	legacyClaims = "kubernetes.io/serviceaccount/"
)

// ReadTokenClaims reads the claims of a token as a token Secret holds it, without base64 around it. It does not verify the
// signature: equal claims do not show that the API server accepts the token. It returns false for anything but a JWT with the
// issuer, the subject and the claims that kube-controller-manager writes.
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
	isLegacy := document.Get("iss").TextIs(legacyIssuer) && document.Get("sub").TextIs(claims.subject())
	return claims, isComplete && isLegacy
}

// subject is the user name of the ServiceAccount.
func (c TokenClaims) subject() string {
	return "system:serviceaccount:" + c.Namespace + ":" + c.Account
}

// readPart returns the JSON document of one part of a JWT; an absent Value where it holds none.
func readPart(part []byte) rawjson.Value {
	decoded, ok := decodePart(part)
	if !ok {
		return nil
	}
	document, err := rawjson.Parse(decoded)
	if err != nil {
		return nil
	}
	return document
}

// decodePart returns false for an empty part, and for one that is not base64url. The decoder would skip line breaks.
func decodePart(part []byte) ([]byte, bool) {
	if len(part) == 0 || bytes.ContainsAny(part, "\r\n") {
		return nil, false
	}
	decoded, err := base64.RawURLEncoding.Strict().AppendDecode(nil, part)
	return decoded, err == nil
}
