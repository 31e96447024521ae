// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// What `policy --static` prints is installed by its own instructions: the policies deny, and no object of the API server can end that.
func TestStaticPoliciesDenyFromTheDiskOfTheControlPlane(t *testing.T) {
	world := take(t)
	bed := harness.Of(t)
	harness.Needs(t, bed.Cluster, "1.37.0") // policies on the disk, without a feature gate
	printed := harness.Run(t, "policy", "--static").Require(t, 0).Stdout
	dir := t.TempDir()
	directory, admission := filepath.Join(dir, "policies"), filepath.Join(dir, "admission.yaml")
	file := filepath.Join(directory, "apigw-guardian.yaml")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	write(file, printed)
	write(admission, strings.ReplaceAll(indented(printed), "/etc/kubernetes/policies", directory))
	bed.Cluster.StopAPIServer()
	if err := bed.Cluster.StartAPIServer(t.Context(), "--admission-control-config-file="+admission); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		bed.Cluster.StopAPIServer()
		if err := bed.Cluster.StartAPIServer(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	requireState(t, verify.Protected, "")
	harness.Run(t, "verify").Require(t, 0)
	policies := harness.Clients(t).AdmissionregistrationV1().ValidatingAdmissionPolicies()
	if stored, err := policies.List(t.Context(), metav1.ListOptions{}); err != nil || len(stored.Items) != 0 {
		t.Errorf("policies in the API server: %v, %v", stored, err)
	}
	denied := func() (bool, any) {
		answer, err := world.Guarded.Do(t.Context(), scenario.Delete(world.Role).DryRun())
		return err == nil && answer.Code == http.StatusForbidden &&
			strings.Contains(answer.Status().Message, "'apigw-guardian-clusterroles.static.k8s.io'"), string(answer.Body)
	}
	harness.Eventually(t, "the static policy denies", denied)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "the protection has ended with the file", func() (bool, any) {
		is, answer := denied()
		return !is, answer
	})
}

// indented returns the file that the instructions show, without their comment signs.
func indented(instructions string) string {
	var file strings.Builder
	for line := range strings.Lines(instructions) {
		if text, isShown := strings.CutPrefix(line, "#      "); isShown {
			file.WriteString(text)
		}
	}
	return file.String()
}
