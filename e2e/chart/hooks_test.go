// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
)

// Tools create all objects of a hook at once, so the Job may come before its permissions. Whatever the order, it uninstalls.
func TestUninstallInAnyOrder(t *testing.T) {
	const namespace = "orders"
	createNamespaces(t, namespace)
	rendered := template(t, "helm", directory, "--namespace", namespace, "--show-only", "templates/uninstall.yaml")
	hooks, all := parse(t, rendered), writeFile(t, string(rendered))
	account := slices.IndexFunc(hooks, func(object unstructured.Unstructured) bool { return object.GetKind() == "ServiceAccount" })
	deployment := writeFile(t, string(template(t, "helm", directory, "--namespace", namespace, "--show-only", "templates/webhook.yaml")))
	kubectl(t, "apply", "--filename", deployment)
	kubectl(t, "--namespace", namespace, "annotate", "deployment", "apigw-guardian", "meta.helm.sh/release-name=guard")
	registration := writeFile(t, "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\n"+
		"metadata: {name: apigw-guardian}\n")
	for range min(harness.Repetitions(t, 3), 20) {
		kubectl(t, "apply", "--filename", registration)
		kubectl(t, "--namespace", namespace, "scale", "deployment", "apigw-guardian", "--replicas=2")
		order := rand.Perm(len(hooks))
		// The Pod of the Job starts once its account exists.
		started := max(slices.Index(order, account), slices.IndexFunc(order, func(i int) bool { return hooks[i].GetKind() == "Job" }))
		var running *exec.Cmd
		var says bytes.Buffer
		for at, i := range order {
			data, err := hooks[i].MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			kubectl(t, "apply", "--filename", writeFile(t, string(data)))
			if at != started {
				continue
			}
			token := strings.TrimSpace(kubectl(t, "--namespace", namespace, "create", "token", "apigw-guardian-uninstall"))
			running = exec.CommandContext(t.Context(), "sh", "-c", // as the Job does, with shorter pauses
				`for i in $(seq 60); do "$0" "$@" && exit; sleep 1; done; exit 1`, guard, "uninstall", "--deployment", namespace+"/apigw-guardian",
				"--kubeconfig", cluster.Kubeconfig(), "--token", token)
			running.Stdout, running.Stderr = &says, &says
			if err := running.Start(); err != nil {
				t.Fatal(err)
			}
		}
		if err := running.Wait(); err != nil {
			t.Errorf("in the order %v: %v\n%s", order, err, says.String())
		}
		if left := kubectl(t, "get", "validatingwebhookconfigurations", "apigw-guardian", "--ignore-not-found", "--output=name"); left != "" {
			t.Errorf("in the order %v: %s is left", order, left)
		}
		kubectl(t, "delete", "--filename", all)
	}
	kubectl(t, "delete", "--filename", deployment)
}
