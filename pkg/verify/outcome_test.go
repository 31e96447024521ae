// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func statusError(code int32, message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Message: message, Reason: metav1.StatusReasonForbidden}}
}

func TestResult(t *testing.T) {
	const denial = `admission webhook "secrets.apigw-guardian.io" denied the request: Secret "x" is reserved.`
	const byPolicy = `secrets "x" is forbidden: ValidatingAdmissionPolicy 'apigw-guardian-secrets' with binding 'apigw-guardian-secrets' ` +
		`denied request: Secret "x" is reserved.`
	tests := map[string]struct {
		err  error
		want string
	}{
		"the denial of the guard's policy is denied": {statusError(403, byPolicy), denied},
		"a static policy's denial is denied":         {statusError(403, strings.ReplaceAll(byPolicy, "n-secrets", "n-secrets.static.k8s.io")), denied},
		"another policy's denial is not":             {statusError(403, strings.ReplaceAll(byPolicy, "'apigw", "'my-apigw")), "failed: refused, but not by the guard"},
		"a policy that fails is not":                 {statusError(422, byPolicy), "failed: "},
		"no error is allowed":                        {nil, allowed},
		"the guard's denial is denied":               {statusError(403, denial), denied},
		"a denial that is wrapped is denied":         {fmt.Errorf("write: %w", statusError(403, denial)), denied},
		"another webhook's denial is not":            {statusError(403, strings.ReplaceAll(denial, "apigw-guardian.io", "example.com")), "failed: refused, but not by the guard"},
		"a name that only ends like ours is not":     {statusError(403, strings.ReplaceAll(denial, "secrets.apigw", "secrets.notapigw")), "failed: refused, but not by the guard"},
		"a name that goes on after ours is not":      {statusError(403, strings.ReplaceAll(denial, "guardian.io", "guardian.io.example.com")), "failed: refused, but not by the guard"},
		"a quotation of a denial is not":             {statusError(403, "other: "+denial), "failed: refused, but not by the guard"},
		"a denial with another code is not":          {statusError(422, denial), "failed: "},
		"a refusal by RBAC is not":                   {statusError(403, `secrets is forbidden: User "x" cannot`), "failed: refused, but not by the guard"},
		"a guard that does not answer is not":        {statusError(500, `Internal error occurred: failed calling webhook "secrets.apigw-guardian.io": timeout`), "failed: the guard did not answer"},
		"an error that is none of the API server's":  {errors.New("connection refused"), "failed: connection refused"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := resultOf(test.err); got != test.want && !(strings.HasPrefix(test.want, "failed") && strings.HasPrefix(got, test.want)) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestResultShowsNoValue(t *testing.T) {
	err := apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "x", field.ErrorList{
		field.Invalid(field.NewPath("data").Key(corev1.ServiceAccountTokenKey), "canary", "must not be"),
	})
	if got := resultOf(err); strings.Contains(got, "canary") || !strings.Contains(got, "data[token]") {
		t.Errorf("got %q", got)
	}
}

func TestRefusedByRBAC(t *testing.T) {
	const (
		user       = `User "system:serviceaccount:a:b" cannot delete resource "secrets" in API group "" in the namespace "kube-system"`
		escalation = `user "eve" (groups=["system:authenticated" "a)b"]) is attempting to grant RBAC permissions not currently held:` + "\n{...}"
	)
	tests := map[string]struct {
		err  error
		want bool
	}{
		"no error":                          {nil, false},
		"a verb that was not granted":       {statusError(403, `secrets "x" is forbidden: `+user), true},
		"such a verb without a name":        {statusError(403, `secrets is forbidden: `+user), true},
		"such a verb, wrapped":              {fmt.Errorf("read: %w", statusError(403, `secrets "x" is forbidden: `+user)), true},
		"an escalation":                     {statusError(403, `clusterroles.rbac.authorization.k8s.io "x" is forbidden: `+escalation), true},
		"a denial by the guard":             {statusError(403, `admission webhook "secrets.apigw-guardian.io" denied the request: no`), false},
		"a webhook that quotes RBAC":        {statusError(403, `admission webhook "a.example.com" denied the request: secrets "x" is forbidden: `+user), false},
		"a denial by an admission policy":   {statusError(403, `secrets "x" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no`), false},
		"the same words with another code":  {statusError(500, `secrets "x" is forbidden: `+user), false},
		"none of the API server's":          {errors.New(`secrets "x" is forbidden: ` + user), false},
		"a quota, which is forbidden, too":  {statusError(403, `secrets "x" is forbidden: exceeded quota: q`), false},
		"an absent object is not forbidden": {statusError(404, `secrets "x" not found`), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := isRefusedByRBAC(test.err); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}
