// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// The chart's page shows commands and values. Each command runs here as it is written, but for what needs a node: nothing waits for Pods,
// and no hook runs. e2e/install runs those.

// section returns what the page has under a heading; "" for what is above the first.
func section(t *testing.T, heading string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(directory, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	if heading != "" {
		_, after, found := strings.Cut(text, "\n## "+heading+"\n")
		if !found {
			t.Fatalf("the page has no heading %q", heading)
		}
		text = after
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// blocks returns the indented blocks of a section.
func blocks(t *testing.T, heading string) []string {
	t.Helper()
	var all []string
	inBlock := false
	for line := range strings.Lines(section(t, heading)) {
		code, isCode := strings.CutPrefix(line, "    ")
		if isCode && !inBlock {
			all = append(all, "")
		}
		if isCode {
			all[len(all)-1] += code
		}
		inBlock = isCode
	}
	return all
}

// shell returns a function that runs a command of the page in a copy of the chart, and wants it to succeed.
func shell(t *testing.T) (run func(command string) string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "chart")
	if err := os.CopyFS(dir, os.DirFS(directory)); err != nil {
		t.Fatal(err)
	}
	programs := t.TempDir()
	for name, path := range map[string]string{"helm": helms["helm"], "kubectl": cluster.KubectlPath(), "apigw-guardian": guard} {
		if err := os.Symlink(path, filepath.Join(programs, name)); err != nil {
			t.Fatal(err)
		}
	}
	return func(command string) string {
		t.Helper()
		process := exec.CommandContext(t.Context(), "sh", "-ec", command)
		process.Dir = dir
		process.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "KUBECONFIG="+cluster.Kubeconfig())
		says, err := process.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", command, err, says)
		}
		return string(says)
	}
}

// TestPage runs the commands of the page, in the order in which they make sense.
func TestPage(t *testing.T) {
	run := shell(t)
	plain := blocks(t, "Plain manifests")
	run(plain[0])
	run("kubectl apply --filename guard.yaml") // a second apply changes nothing
	remove := regexp.MustCompile("`(kubectl delete --filename guard.yaml)`").FindStringSubmatch(section(t, "Plain manifests"))
	run(remove[1])
	run(plain[1])

	withoutNode := strings.NewReplacer(" --wait", "", "helm install", "helm install --no-hooks", "helm upgrade", "helm upgrade --no-hooks")
	lines := strings.SplitAfter(blocks(t, "")[0], "\n") // the second needs a node
	run(withoutNode.Replace(lines[0]))
	run(withoutNode.Replace(blocks(t, "OpenShift")[0]))
	if contexts := run("helm get manifest apigw-guardian --namespace apigw-guardian"); strings.Contains(contexts, "runAsUser") {
		t.Error("OpenShift: the manifest has runAsUser")
	}
	run("touch ca.crt")
	run(withoutNode.Replace(blocks(t, "Verify callers")[0]))
	uninstall := blocks(t, "Uninstall")
	run(strings.Split(uninstall[0], "\n")[1])
	run("kubectl apply --validate=warn --filename files/crds") // an API server before 1.30 does not know selectableFields
	run(uninstall[2])
	run(uninstall[1])
}

// The values of the sections, which no command shows.
func TestPageValues(t *testing.T) {
	t.Parallel()
	var application struct {
		Spec struct {
			Source struct {
				Helm struct {
					ValuesObject map[string]any `json:"valuesObject"`
				} `json:"helm"`
			} `json:"source"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(blocks(t, "Argo CD")[0]), &application); err != nil {
		t.Fatal(err)
	}
	want := parse(t, template(t, "helm", directory, "--set", "hooks.enabled=false"))
	got := parse(t, template(t, "helm", directory, "--values", valuesFile(t, application.Spec.Source.Helm.ValuesObject)))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Argo CD: -want +got:\n%s", diff)
	}
	assignment := regexp.MustCompile("`([a-zA-Z.]+=[^`]+)`")
	for _, heading := range []string{"Private clusters", "Retire from GitOps", "Flux", "Service meshes", "Plain manifests"} {
		for _, value := range assignment.FindAllStringSubmatch(section(t, heading), -1) {
			if rendering := template(t, "helm", directory, "--set", value[1]); slices.Equal(rendering, template(t, "helm", directory)) &&
				!slices.Contains([]string{"hooks.enabled=true", "authorize.retired=false"}, value[1]) {
				t.Errorf("%s: %s changes nothing", heading, value[1])
			}
		}
	}
	flag := regexp.MustCompile("`(--api-versions) ([^`]+)`").FindStringSubmatch(section(t, "OpenShift"))
	if strings.Contains(string(template(t, "helm", directory, flag[1:]...)), "runAsUser") {
		t.Error("OpenShift: the rendering has runAsUser")
	}
}
