// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// authorizedCluster is an API server on which every reserved resource is in place. It takes the reserved token for user.
func authorizedCluster(t *testing.T, user string) *httptest.Server {
	t.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	cluster, _ := shop.Serve(t, set)
	for path, text := range cluster.Objects {
		object := &unstructured.Unstructured{}
		if object.UnmarshalJSON([]byte(text)) != nil || object.GetName() == "" {
			continue
		}
		object.SetUID("uid-1")
		object.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: guardian.FieldManager, Operation: metav1.ManagedFieldsOperationApply}})
		if object.GetKind() == "Secret" {
			fill(object)
		}
		data, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		cluster.Objects[path] = string(data)
	}
	cluster.Objects["/version"] = `{"gitVersion":"v1.30.0-tke.4"}`
	cluster.Objects["/api/v1"] = `{"groupVersion":"v1","resources":[{"name":"secrets","kind":"Secret","namespaced":true},
		{"name":"serviceaccounts","kind":"ServiceAccount","namespaced":true}]}`
	cluster.Objects["/apis/rbac.authorization.k8s.io/v1"] = `{"groupVersion":"rbac.authorization.k8s.io/v1","resources":[
		{"name":"clusterroles","kind":"ClusterRole"},{"name":"clusterrolebindings","kind":"ClusterRoleBinding"}]}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := map[string]any{"allowed": true}
		switch {
		case strings.HasSuffix(r.URL.Path, "/selfsubjectreviews"):
			status = map[string]any{"userInfo": map[string]any{"username": user}}
		case !strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
			cluster.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"status": status})
	}))
	t.Cleanup(server.Close)
	return server
}

// fill fills a token Secret as kube-controller-manager does.
func fill(secret *unstructured.Unstructured) {
	annotations := secret.GetAnnotations()
	annotations[corev1.ServiceAccountUIDKey] = "uid-1"
	secret.SetAnnotations(annotations)
	token := shop.TokenWith(policy.TokenClaims{
		Namespace: secret.GetNamespace(), Secret: secret.GetName(), Account: annotations[corev1.ServiceAccountNameKey], AccountUID: "uid-1",
	})
	secret.Object["data"] = map[string]any{corev1.ServiceAccountTokenKey: base64.StdEncoding.EncodeToString([]byte(token))}
}

// The init job ends with this line, and an administrator trusts it.
func TestAuthorizeSaysSoOnlyOfATokenThatWorks(t *testing.T) {
	const line = "Authorized API Gateway\n"
	for name, test := range map[string]struct {
		user   string
		code   int
		stderr string
	}{
		"the token of the account":     {"system:serviceaccount:kube-system:apigw-ingress", exitDone, ""},
		"the token of another account": {"system:serviceaccount:kube-system:eve", exitFailed, "token not proved"},
		"an answer that names no user": {"", exitFailed, "token not proved"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runAway(t, "authorize", "--server", authorizedCluster(t, test.user).URL, "--namespace", "",
				"--private-network", "skip", "--wait", "100ms")
			if code != test.code || strings.HasSuffix(stdout, line) != (test.code == exitDone) || strings.Contains(stdout, "canary") {
				t.Errorf("exit code %d, want %d, with %q only at 0:\n%s", code, test.code, line, stdout)
			}
			if !strings.Contains(stderr, test.stderr) || (stderr == "") != (test.stderr == "") || strings.Contains(stderr, "canary") {
				t.Errorf("want %q on standard error, got\n%s", test.stderr, stderr)
			}
		})
	}
}
