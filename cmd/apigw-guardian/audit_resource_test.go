// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func TestAResourceIsNamedAsKubectlAcceptsIt(t *testing.T) {
	t.Parallel()
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	const (
		role, binding  = "clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole", "clusterrolebindings.rbac.authorization.k8s.io/apigw-ingress-clusterrole-binding"
		account, token = "serviceaccounts/kube-system/apigw-ingress", "secrets/kube-system/apigw-ingress-token-guardian"
		pod, door      = "pods/kube-system/evil", "rolebindings.rbac.authorization.k8s.io/default/evil"
		webhooks       = "validatingwebhookconfigurations.admissionregistration.k8s.io/apigw-guardian"
	)
	for word, want := range map[string][]string{
		"clusterrole/apigw-ingress-clusterrole":  {role},
		"ClusterRole/apigw-ingress-clusterrole":  {role},
		"clusterroles/apigw-ingress-clusterrole": {role},
		role:                                     {role},
		"clusterroles.v1.rbac.authorization.k8s.io/apigw-ingress-clusterrole": {role},
		"clusterrole.rbac.authorization.k8s.io/apigw-ingress-clusterrole":     {role},
		"clusterrole":                         {role},
		"CLUSTERROLES":                        {role},
		"clusterrolebinding":                  {binding},
		"sa":                                  {account},
		"sa/apigw-ingress":                    {account},
		"sa/kube-system/apigw-ingress":        {account},
		"sa/default/apigw-ingress":            nil,
		"serviceaccount":                      {account},
		"serviceaccounts.v1./apigw-ingress":   {account},
		"serviceaccounts.v1/apigw-ingress":    {account},
		"ServiceAccount/apigw-ingress":        {account},
		"secret/apigw-ingress-token-guardian": {token},
		"secrets/kube-system/":                {token},
		"secret/apigw-ingress-token":          {token},
		"validatingwebhookconfiguration":      {webhooks},
		"apigw-ingress-token":                 {token},
		"kube-system":                         {account, token, pod},
		"kube-system/apigw":                   {account, token},
		"APIGW-INGRESS-CLUSTERROLE":           {role, binding},
		"a-secret-of-another-name":            nil,
		"unlock":                              nil,
		"po":                                  {pod},
		"pods":                                {pod},
		"pod/evil":                            {pod},
		"pods/kube-system/evil":               {pod},
		"csr":                                 nil,
		"rolebinding/evil":                    {door},
		"rolebindings":                        {door},
		"auditrecords":                        nil,
		"lease":                               nil,
		`"` + role + `"`:                      {role},
		"clusterroles.rbac.authorization.k8s.io/apigw": {role},
	} {
		filter := audit.Filter{Resource: word}
		if err := readResource(set, &filter); err != nil {
			t.Errorf("%s: %v", word, err)
			continue
		}
		var got []string
		for _, text := range []string{role, binding, account, token, webhooks, pod, door} {
			record := &v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Object: v1alpha1.ParseObjectReference(text), Resource: text}}
			if filter.Match(record) {
				got = append(got, text)
			}
		}
		if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
			t.Errorf("%s: got %q, want %q", word, got, want)
		}
	}
	for _, word := range []string{
		"Deployment", "deploy/x", "configmap/apigw-ingress", "secrets.apps/x", "clusterroles.v1beta1.rbac.authorization.k8s.io/x",
		"roles.rbac.authorization.k8s.io", "nodes", "things/x", "/x", "secret.v2/x",
	} {
		if err := readResource(set, &audit.Filter{Resource: word}); !errors.Is(err, errUsage) {
			t.Errorf("%s: got %v, want a usage error", word, err)
		}
	}
	for _, command := range []string{"list", "summary", "export"} {
		args := []string{"audit", command, "--resource", "configmap/x", "--kubeconfig", "/nonexistent"}
		if code := run(t.Context(), args, io.Discard, io.Discard); code != exitUsage {
			t.Errorf("audit %s: exit code %d, want %d", command, code, exitUsage)
		}
	}
}

// An empty list for a name that no object can have would read as an all-clear.
func TestANameThatIsNotReservedIsNoAllClear(t *testing.T) {
	t.Parallel()
	set, err := reserved.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]bool{
		"secrets": true, "secrets/": true, "secret/apigw-ingress-token-x7": true, "secret/TOKEN": true, "sa/kube-system/": true, "unlock/x": true,
		"lease": true, "auditrecords/x": true, "ingress-cluster": true, "/": true, "apigw-ingress-token-x7": true,
		"secrets/kube-system/apigw-ingress-token-guardian": true, "secrets/kube-system/apigw-ingress-token-x7": true,
		"clusterrole/apigw-ingress-clusterrol3": false, "secrets/*": false, "*": false, "secrets/default/": false, "sa/token": false,
		"sa/kube-system/apigw-ingress/token": false, "pods": false, "pod/evil": false, "rolebinding/x": false, "csr": false, "apigw-ingress-*": false,
		"clusterrole/kube-system/apigw-ingress-clusterrole": false, "absent": false, `"absent"`: false,
	} {
		filter := audit.Filter{Resource: word}
		if err := readResource(set, &filter); err != nil || isReserved(set, filter) != want {
			t.Errorf("%s: reserved %t, want %t (%v)", word, !want, want, err)
		}
	}
}
