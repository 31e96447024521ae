// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// whole are the blocks in which a null removes a field. Everywhere else it means the default.
var whole = []string{"resources", "nodeSelector", "podSecurityContext", "containerSecurityContext"}

// A release that keeps the values of an older chart lacks those that came later, and a null removes a default.
func TestEveryValueMayBeMissing(t *testing.T) {
	t.Parallel()
	want := parse(t, template(t, "helm", directory))
	for _, path := range paths(defaults(t), nil) {
		name := strings.Join(path, ".")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := parse(t, template(t, "helm", directory, "--values", valuesFile(t, nested(path, nil))))
			if len(path) > 1 && slices.Contains(whole, path[0]) {
				return // it is rendered
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the rendering with null: -default +null:\n%s", diff)
			}
		})
	}
}

// Both helms merge the values of a parent chart otherwise than those of a command line.
func TestParentChart(t *testing.T) {
	t.Parallel()
	nulls := map[string]any{"enabled": true}
	for key := range defaults(t) {
		nulls[key] = nil
	}
	for name := range helms {
		alone := parse(t, template(t, name, directory))
		for _, values := range []map[string]any{{"enabled": true}, {"enabled": true, "global": map[string]any{"a": "b"}}, nulls} {
			got := parse(t, template(t, name, parent(t, values)))
			if diff := cmp.Diff(alone, got); diff != "" {
				t.Errorf("%s: -alone +dependency:\n%s", name, diff)
			}
		}
		if got := parse(t, template(t, name, parent(t, map[string]any{"enabled": false}))); len(got) > 0 {
			t.Errorf("%s renders %d objects of a dependency that is disabled", name, len(got))
		}
	}
}

// helm upgrade --reuse-values renders the new chart with the values of the old one in place of its defaults.
func TestValuesOfAnOlderChart(t *testing.T) {
	t.Parallel()
	older := copyChart(t, map[string]string{"values.yaml": "testdata/values-5c1ec7a.yaml"})
	for name := range helms {
		want := parse(t, template(t, name, directory, "--set-json", `nodeSelector={"kubernetes.io/os":null}`))
		if diff := cmp.Diff(want, parse(t, template(t, name, older))); diff != "" {
			t.Errorf("%s: -today's values +older values:\n%s", name, diff)
		}
	}
}

// The chart of a release names its image by digest (e2e/release). A tag or a digest in the values is for another image.
func TestImageOfARelease(t *testing.T) {
	t.Parallel()
	digest := func(of string) string { return "sha256:" + strings.Repeat(of, 64) }
	chart := copyChart(t, nil)
	for _, file := range []string{"values.yaml", "files/values.yaml"} {
		path := filepath.Join(chart, file)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		released := strings.Replace(string(content), `  digest: ""`, "  digest: "+digest("a"), 1)
		if err := os.WriteFile(path, []byte(released), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for values, want := range map[string]string{
		"replicas=1": "@" + digest("a"), "image.tag=v9": ":v9", "image.tag=20261128": ":20261128",
		"image.digest=" + digest("b"):              "@" + digest("b"),
		"image.tag=v9,image.digest=" + digest("b"): "@" + digest("b"),
	} {
		rendering := string(template(t, "helm", chart, "--set", values))
		if got := strings.Count(rendering, `image: "apigw-guardian`+want+"\"\n"); got != 4 {
			t.Errorf("%s: %d of 4 Pods have the image %s", values, got, want)
		}
	}
}

func TestJobIsNamedByItsContent(t *testing.T) {
	t.Parallel()
	jobName := func(further ...string) string {
		for _, object := range parse(t, template(t, "helm", directory, append(further, "--set", "hooks.enabled=false")...)) {
			if object.GetKind() == "Job" {
				return object.GetName()
			}
		}
		t.Fatal("no Job")
		return ""
	}
	names := []string{jobName()}
	if again := jobName(); again != names[0] {
		t.Errorf("the same content is called %s and %s", names[0], again)
	}
	for _, change := range [][]string{
		{"--set", "authorize.repair=true"},
		{"--set", "image.tag=v2"},
		{"--set", "podLabels.team=a"},
		{"--set-json", `exemptions=[{"user":"alice","operations":["UPDATE"],"reason":"ticket 4711"}]`},
		{"--values", "../../charts/apigw-guardian/ci/reservations-values.yaml"},
	} {
		name := jobName(change...)
		if slices.Contains(names, name) {
			t.Errorf("%q does not change the name %s", change, name)
		}
		names = append(names, name)
	}
}

// kustomize renders the chart by helm, and applies each object as an ordinary one.
func TestKustomize(t *testing.T) {
	t.Parallel()
	const kustomization = "helmGlobals: {chartHome: charts}\nhelmCharts:\n" +
		"- {name: apigw-guardian, releaseName: apigw-guardian, namespace: " + namespace + ", valuesInline: {hooks: {enabled: false}}}\n"
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "charts", "apigw-guardian"), os.DirFS(directory)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(kustomization), 0o600); err != nil {
		t.Fatal(err)
	}
	names := func(rendering []byte) []string {
		var all []string
		for _, object := range parse(t, rendering) {
			all = append(all, object.GetKind()+" "+object.GetNamespace()+"/"+object.GetName())
		}
		slices.Sort(all)
		return all
	}
	for name, helm := range helms {
		output, err := exec.Command(cluster.KubectlPath(), "kustomize", "--enable-helm", "--helm-command", helm, dir).Output()
		if err != nil {
			t.Fatalf("kustomize with %s: %v\n%s", name, err, stderrOf(err))
		}
		want := names(template(t, name, directory, "--set", "hooks.enabled=false"))
		if diff := cmp.Diff(want, names(output)); diff != "" {
			t.Errorf("%s: -helm +kustomize:\n%s", name, diff)
		}
	}
}

// GitOps tools find no hook, and no object that another tool would run as an ordinary one.
func TestNoHooks(t *testing.T) {
	t.Parallel()
	for _, values := range valuesFiles(t) {
		for _, object := range parse(t, render(t, "helm", values, "--set", "hooks.enabled=false")) {
			for key := range object.GetAnnotations() {
				if strings.HasPrefix(key, "helm.sh/") || strings.HasPrefix(key, "argocd.argoproj.io/") {
					t.Errorf("%s: %s %s has the annotation %s", values, object.GetKind(), object.GetName(), key)
				}
			}
			if name := object.GetName(); strings.HasSuffix(name, "-uninstall") || strings.HasSuffix(name, "-verify") {
				t.Errorf("%s: %s %s is rendered", values, object.GetKind(), name)
			}
		}
	}
}

func defaults(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(directory, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(data, &values); err != nil {
		t.Fatal(err)
	}
	return values
}

// paths returns the path of each value, and of each block of values.
func paths(values map[string]any, above []string) [][]string {
	var all [][]string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		path := append(slices.Clone(above), key)
		all = append(all, path)
		if block, isBlock := values[key].(map[string]any); isBlock {
			all = append(all, paths(block, path)...)
		}
	}
	return all
}

// nested returns the value under the path: {a: {b: value}}.
func nested(path []string, value any) map[string]any {
	for _, key := range slices.Backward(path) {
		value = map[string]any{key: value}
	}
	block, _ := value.(map[string]any)
	return block
}

func valuesFile(t *testing.T, values map[string]any) string {
	t.Helper()
	data, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// template returns the rendering of a chart.
func template(t *testing.T, helm, chart string, further ...string) []byte {
	t.Helper()
	rendering, err := exec.Command(helms[helm], append([]string{"template", "apigw-guardian", chart, "--namespace", namespace}, further...)...).Output()
	if err != nil {
		t.Fatalf("%s template %s %q: %v\n%s", helm, chart, further, err, stderrOf(err))
	}
	return rendering
}

// parent makes a chart that depends on the guard's, with the values for that.
func parent(t *testing.T, values map[string]any) string {
	t.Helper()
	chart := t.TempDir()
	const definition = "apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies:\n" +
		"- {name: apigw-guardian, version: 0.1.0, repository: \"\", condition: apigw-guardian.enabled}\n"
	data, err := yaml.Marshal(map[string]any{"apigw-guardian": values})
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{"Chart.yaml": definition, "values.yaml": string(data)} {
		if err := os.WriteFile(filepath.Join(chart, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(chart, "charts", "apigw-guardian"), os.DirFS(directory)); err != nil {
		t.Fatal(err)
	}
	return chart
}

// copyChart copies the chart with some of its files replaced, by their paths in it.
func copyChart(t *testing.T, replaced map[string]string) string {
	t.Helper()
	chart := filepath.Join(t.TempDir(), "apigw-guardian")
	if err := os.CopyFS(chart, os.DirFS(directory)); err != nil {
		t.Fatal(err)
	}
	for path, source := range replaced {
		content, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(chart, path), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return chart
}

// names are legal names of releases and namespaces: those that YAML takes for numbers, and the longest.
var names = [][2]string{{"123", "456"}, {"1e3", "0x1f"}, {strings.Repeat("r", 53), strings.Repeat("n", 63)}}

// YAML takes some names for numbers, and label values have limits.
func TestAPIServerAcceptsEveryName(t *testing.T) {
	for _, name := range names {
		createNamespaces(t, name[1])
		for _, args := range [][]string{{"--set", "hooks.enabled=false"}, {"--values", directory + "/ci/reservations-values.yaml"}} {
			args = append([]string{"template", name[0], directory, "--namespace", name[1]}, args...)
			rendering, err := exec.Command(helms["helm"], args...).Output()
			if err != nil {
				t.Fatal(stderrOf(err))
			}
			kept := slices.DeleteFunc(parse(t, rendering), func(object unstructured.Unstructured) bool {
				return object.GetKind() == "Pod" || strings.HasPrefix(object.GetNamespace(), "edge-") // their account or namespace is missing
			})
			data, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": kept})
			if err != nil {
				t.Fatal(err)
			}
			kubectl(t, "apply", "--dry-run=server", "--filename", writeFile(t, string(data)))
		}
	}
}

// Nulls remove fields of a dependency, too. helm 4 ignores those in the values.yaml of the parent.
func TestNullsForADependency(t *testing.T) {
	t.Parallel()
	values := map[string]any{
		"podSecurityContext": map[string]any{"runAsUser": nil, "runAsGroup": nil}, "nodeSelector": map[string]any{"kubernetes.io/os": nil},
	}
	for name := range helms {
		want := parse(t, template(t, name, directory, "--values", valuesFile(t, values)))
		got := template(t, name, parent(t, map[string]any{}), "--values", valuesFile(t, map[string]any{"apigw-guardian": values}))
		if diff := cmp.Diff(want, parse(t, got)); diff != "" {
			t.Errorf("%s: -alone +dependency:\n%s", name, diff)
		}
		if strings.Contains(string(got), "runAsUser") {
			t.Errorf("%s keeps runAsUser", name)
		}
	}
}
