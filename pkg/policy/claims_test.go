// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// jwt returns a token with this payload and an invalid signature.
func jwt(payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + encode([]byte(payload)) + "." + encode([]byte("signature"))
}

// legacyPayload returns the payload that kube-controller-manager signs, changed by edit.
func legacyPayload(tb testing.TB, edit func(map[string]any)) string {
	tb.Helper()
	claims := map[string]any{
		"iss":                                 "kubernetes/serviceaccount",
		"sub":                                 "system:serviceaccount:kube-system:apigw-ingress",
		legacyClaims + "namespace":            "kube-system",
		legacyClaims + "secret.name":          "apigw-ingress-token-guardian",
		legacyClaims + "service-account.name": "apigw-ingress",
		legacyClaims + "service-account.uid":  "u",
	}
	edit(claims)
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	return string(payload)
}

func unedited(map[string]any) {}

func set(key string, value any) func(map[string]any) {
	return func(claims map[string]any) { claims[key] = value }
}

func TestTokenClaimsNameAccountSecretAndUID(t *testing.T) {
	t.Parallel()
	got, ok := ReadTokenClaims([]byte(jwt(legacyPayload(t, unedited))))
	want := TokenClaims{Namespace: "kube-system", Secret: "apigw-ingress-token-guardian", Account: "apigw-ingress", AccountUID: "u"}
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("ok %t (-want +got):\n%s", ok, diff)
	}
}

func TestOtherTokensHaveNoClaims(t *testing.T) {
	t.Parallel()
	valid := jwt(legacyPayload(t, unedited))
	header, rest, _ := strings.Cut(valid, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	tests := map[string]string{
		"nothing":                       "",
		"text":                          "secret",
		"base64 around the token":       base64.StdEncoding.EncodeToString([]byte(valid)),
		"no signature":                  header + "." + payload,
		"an empty signature":            header + "." + payload + ".",
		"four parts":                    valid + "." + signature,
		"padding":                       header + "." + payload + "." + signature + "=",
		"a line break":                  header + "." + payload[:8] + "\n" + payload[8:] + "." + signature,
		"a header that is no JSON":      "e30x." + payload + "." + signature,
		"a header without an algorithm": "e30." + payload + "." + signature,
		"a payload that is no object":   jwt(`["kubernetes/serviceaccount"]`),
		"a payload that is no JSON":     jwt(`{"iss":`),
		"another issuer":                jwt(legacyPayload(t, set("iss", "https://kubernetes.default.svc"))),
		"another subject":               jwt(legacyPayload(t, set("sub", "system:serviceaccount:kube-system:default"))),
		"no subject":                    jwt(legacyPayload(t, set("sub", nil))),
		"no Secret":                     jwt(legacyPayload(t, set(legacyClaims+"secret.name", ""))),
		"a uid that is no string":       jwt(legacyPayload(t, set(legacyClaims+"service-account.uid", 1))),
		"keys in another case":          jwt(strings.ToUpper(legacyPayload(t, unedited))),
		"more than any token holds":     jwt(legacyPayload(t, set("more", strings.Repeat("a", maxToken)))),
	}
	for name, token := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if claims, ok := ReadTokenClaims([]byte(token)); ok {
				t.Errorf("got %+v", claims)
			}
		})
	}
}

// FuzzReadTokenClaims compares the claims with those that encoding/json reads.
func FuzzReadTokenClaims(f *testing.F) {
	f.Add([]byte(jwt(legacyPayload(f, unedited))))
	f.Add([]byte("a.b.c"))
	f.Fuzz(func(t *testing.T, token []byte) {
		claims, ok := ReadTokenClaims(token)
		if !ok {
			return
		}
		parts := strings.Split(string(token), ".")
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		var document map[string]any
		if err != nil || len(parts) != 3 || json.Unmarshal(payload, &document) != nil {
			t.Fatalf("claims %+v of a text that is not a JWT", claims)
		}
		if document["sub"] != "system:serviceaccount:"+claims.Namespace+":"+claims.Account {
			t.Errorf("claims %+v of subject %v", claims, document["sub"])
		}
	})
}
