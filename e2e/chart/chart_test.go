// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package chart renders the chart with Helm 3 and 4, and sends the objects to a real API server. charts/apigw-guardian/ci has the
// sets of values. The tests in charts/apigw-guardian/tests cover the branches of each template.
package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"

	"github.com/apigw-guardian/apigw-guardian/e2e/program"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

const (
	directory = "../../charts/apigw-guardian"
	namespace = "guard-system"
)

// helms has the paths of both Helm programs, by the names of their tools.
var helms map[string]string

// cluster and guard are for the tests that need an API server, and the program.
var (
	cluster *testbed.Cluster
	guard   string
)

func TestMain(m *testing.M) {
	code, err := run(context.Background(), m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	if helms, err = program.Config().Builder.Build(ctx, testbed.Helm(), testbed.Helm3()); err != nil {
		return 0, err
	}
	path, remove, err := program.Build()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	guard = path
	if cluster, err = testbed.Start(ctx, program.Config()); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	return m.Run(), nil
}

func TestLint(t *testing.T) {
	for _, values := range valuesFiles(t) {
		for name, path := range helms {
			if output, err := exec.Command(path, "lint", "--strict", directory, "--values", values).CombinedOutput(); err != nil {
				t.Errorf("%s lint with %s: %v\n%s", name, values, err, output)
			}
		}
	}
}

func TestUnknownValueIsRefused(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(values, []byte("nosuch: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range helms {
		output, err := exec.Command(path, "template", "apigw-guardian", directory, "--values", values).CombinedOutput()
		if err == nil || !strings.Contains(string(output), "nosuch") {
			t.Errorf("%s: %v, %s", name, err, output)
		}
	}
}

// GitOps tools render repeatedly, each with another Helm, and apply the differences.
func TestRenderingIsDeterministic(t *testing.T) {
	for _, values := range valuesFiles(t) {
		first := parse(t, render(t, "helm", values))
		if len(first) == 0 {
			t.Errorf("%s renders nothing", values)
		}
		if diff := cmp.Diff(first, parse(t, render(t, "helm", values))); diff != "" {
			t.Errorf("%s, rendered twice: -first +second:\n%s", values, diff)
		}
		if diff := cmp.Diff(first, parse(t, render(t, "helm3", values))); diff != "" {
			t.Errorf("%s: -helm 4 +helm 3:\n%s", values, diff)
		}
	}
}

// TestGrantsNameTheirObjects checks that no rule grants a whole kind, unless RBAC cannot limit the verb to a name and the grant is
// harmless.
func TestGrantsNameTheirObjects(t *testing.T) {
	unnamed := [][]string{{"leases"}, {"events"}, {"auditrecords"}, {"auditrecords/status"}, {"unlocks"}, {"unlocks/status"}, {"reservations"}}
	for _, values := range valuesFiles(t) {
		for _, object := range parse(t, render(t, "helm", values)) {
			if kind := object.GetKind(); kind != "Role" && kind != "ClusterRole" {
				continue
			}
			var role rbacv1.ClusterRole
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &role); err != nil {
				t.Fatal(err)
			}
			for _, rule := range role.Rules {
				isUnnamed := slices.ContainsFunc(unnamed, func(r []string) bool { return slices.Equal(r, rule.Resources) })
				if (len(rule.ResourceNames) == 0 && !isUnnamed) || slices.Contains(rule.Verbs, "*") || slices.Contains(rule.Resources, "*") {
					t.Errorf("%s: %s %s grants %+v", values, object.GetKind(), object.GetName(), rule)
				}
			}
		}
	}
}

func TestEveryValueHasADescription(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(directory, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(readme)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| ") {
			rows++
			if strings.Trim(cells[len(cells)-1], " |\n") == "" {
				t.Errorf("no description: %s", line)
			}
		}
	}
	if rows < 20 {
		t.Errorf("the table of values has %d rows", rows)
	}
}

// TestAPIServerAcceptsEveryRendering sends each rendering, including hooks, to a real API server as a dry-run.
func TestAPIServerAcceptsEveryRendering(t *testing.T) {
	for _, definition := range thirdPartyDefinitions(t) {
		if _, says, err := cluster.Kubectl(t.Context(), "create", "--validate=warn", "--filename", definition); err != nil {
			t.Fatal(err, says)
		}
	}
	if _, says, err := cluster.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=1m", "crd", "--all"); err != nil {
		t.Fatal(err, says)
	}
	createNamespaces(t, namespace, "edge-system")
	// The API server accepts a Pod only if its ServiceAccount exists, even as a dry-run.
	if _, says, err := cluster.Kubectl(t.Context(), "--namespace", namespace, "create", "serviceaccount", "apigw-guardian-verify"); err != nil {
		t.Fatal(err, says)
	}
	for _, values := range valuesFiles(t) {
		t.Run(filepath.Base(values), func(t *testing.T) {
			if strings.HasPrefix(filepath.Base(values), "engine-") && !servesPolicies() {
				t.Skip("Kubernetes has policies since 1.30")
			}
			file := filepath.Join(t.TempDir(), "rendering.yaml")
			rendering := render(t, "helm", values)
			if err := os.WriteFile(file, rendering, 0o600); err != nil {
				t.Fatal(err)
			}
			says, diagnostics, err := cluster.Kubectl(t.Context(), "apply", "--dry-run=server", "--filename", file)
			if err != nil {
				t.Fatal(err, diagnostics)
			}
			if accepted, want := strings.Count(says, "(server dry run)"), len(parse(t, rendering)); accepted != want {
				t.Errorf("%d of %d objects were accepted:\n%s", accepted, want, says)
			}
		})
	}
}

func createNamespaces(t *testing.T, names ...string) {
	t.Helper()
	client, err := kubernetes.NewForConfig(cluster.AdminConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := client.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// thirdPartyDefinitions returns the paths of the CustomResourceDefinitions of other projects, from their Go modules.
func thirdPartyDefinitions(t *testing.T) []string {
	t.Helper()
	prometheus := download(t, "github.com/prometheus-operator/prometheus-operator@v0.85.0")
	certManager := download(t, "github.com/cert-manager/cert-manager@v1.21.2")
	return []string{
		filepath.Join(prometheus, "example", "prometheus-operator-crd", "monitoring.coreos.com_servicemonitors.yaml"),
		filepath.Join(prometheus, "example", "prometheus-operator-crd", "monitoring.coreos.com_prometheusrules.yaml"),
		filepath.Join(certManager, "deploy", "crds", "cert-manager.io_certificates.yaml"),
		filepath.Join(certManager, "deploy", "crds", "cert-manager.io_issuers.yaml"),
	}
}

// download returns the directory of a Go module.
func download(t *testing.T, module string) string {
	t.Helper()
	download := exec.Command("go", "mod", "download", "-json", module)
	download.Dir = t.TempDir()
	output, err := download.Output()
	var answer struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(output, &answer)); err != nil || answer.Dir == "" {
		t.Fatalf("download %s: %v %s", module, err, answer.Error)
	}
	return answer.Dir
}

func valuesFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "ci", "*-values.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no values files: %v", err)
	}
	return files
}

func render(t *testing.T, helm, values string, further ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	args := slices.Concat([]string{"template", "apigw-guardian", directory, "--namespace", namespace, "--values", values}, further)
	command := exec.Command(helms[helm], args...)
	command.Stderr = &stderr
	rendering, err := command.Output()
	if err != nil {
		t.Fatalf("%s template with %s: %v\n%s", helm, values, err, stderr.Bytes())
	}
	return rendering
}

// parse returns the objects of a rendering. Helm 3 and 4 differ in empty lines.
func parse(t *testing.T, rendering []byte) []unstructured.Unstructured {
	t.Helper()
	var objects []unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(rendering), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		if err != nil {
			t.Fatal(err)
		}
		if object.Object != nil {
			objects = append(objects, object)
		}
	}
}
