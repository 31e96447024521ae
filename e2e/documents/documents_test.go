// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package documents runs the commands that the documents show, on a real control plane, and compares what they print.
package documents

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/testbed"
)

var update = flag.Bool("update", false, "write what the commands print into the documents")

func TestMain(m *testing.M) {
	harness.Main(m, 1, func(ctx context.Context, bed *harness.Bed) error {
		return errors.Join(bed.Cluster.InstallCRDs(ctx), enablePrivateNetwork(ctx, bed.Cluster))
	})
}

// enablePrivateNetwork creates the Service by which TKE shows that private network access is enabled.
func enablePrivateNetwork(ctx context.Context, cluster *testbed.Cluster) error {
	clients, err := kubernetes.NewForConfig(cluster.AdminConfig())
	if err != nil {
		return err
	}
	services := clients.CoreV1().Services(metav1.NamespaceDefault)
	service, err := services.Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes-intranet"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 443}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "10.0.0.9"}}
	_, err = services.UpdateStatus(ctx, service, metav1.UpdateOptions{})
	return err
}

// root is the repository.
const root = "../.."

// order says which document comes first: each continues on the cluster that the one before it left. A document that is not
// listed comes last.
var order = []string{"README.md", "docs/operations.md", own}

// translations show the console blocks of the document that they translate.
var translations = map[string]string{"README.zh-CN.md": "README.md"}

// own is the document whose reader gives a reservation to the guard after its third console block.
const own = "docs/protect-your-own.md"

// A console block holds commands, each after "$ ", and what they print. The commands run in a shell, with the kubeconfig of a
// cluster on which the guard runs.
func TestEveryConsoleBlockPrintsWhatTheDocumentShows(t *testing.T) {
	harness.Take(t)
	guard := harness.StartGuard(t)
	path := commands(t)
	ran := map[string]int{}
	for _, document := range documents(t) {
		directory := t.TempDir()
		blocks := consoleBlocks(t, translations[document])
		content, err := os.ReadFile(filepath.Join(root, document))
		if err != nil {
			t.Fatal(err)
		}
		replaced := consoleBlock.ReplaceAllFunc(content, func(block []byte) []byte {
			ran[document]++
			shown := string(consoleBlock.FindSubmatch(block)[1])
			if n := ran[document]; n <= len(blocks) {
				if diff := cmp.Diff(masked(blocks[n-1]), masked(shown)); diff != "" && !*update {
					t.Errorf("%s (-original +translation)\n%s", document, diff)
				}
				return []byte("```console\n" + blocks[n-1] + "```\n")
			}
			if document == own && ran[document] == 4 {
				requireValues(t, directory)
				guard.Stop()
				guard = harness.StartGuard(t, "--reservations", filepath.Join(directory, "reservations"))
			}
			got := transcript(t, path, directory, shown)
			if diff := cmp.Diff(masked(shown), masked(got)); diff != "" && !*update {
				t.Errorf("%s (-document +command)\n%s", document, diff)
			}
			return []byte("```console\n" + got + "```\n")
		})
		if *update && masked(string(replaced)) != masked(string(content)) {
			if err := os.WriteFile(filepath.Join(root, document), replaced, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	requireAlertCommands(t, path)
	for translation, original := range translations {
		if ran[translation] != ran[original] {
			t.Errorf("%s has %d console blocks, %s has %d", translation, ran[translation], original, ran[original])
		}
	}
	for _, document := range order {
		if ran[document] == 0 {
			t.Errorf("%s has no console block: are they found?", document)
		}
	}
	t.Logf("console blocks: %v", ran)
}

// requireAlertCommands runs the commands of docs/alerts.md. There is nothing wrong, and no audit log: a command may say so.
func requireAlertCommands(t *testing.T, path string) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs/alerts.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, found := range inlineCommand.FindAllStringSubmatch(string(page), -1) {
		commands++
		line := strings.NewReplacer("FILE...", "/dev/null", "USER", "jane").Replace(strings.Join(strings.Fields(found[1]), " "))
		command := harness.Of(t).Cluster.Command(t.Context(), "/bin/sh", "-c", line)
		command.Env = append(command.Env, "PATH="+path+":"+os.Getenv("PATH"))
		output, _ := command.CombinedOutput()
		isKnown := command.ProcessState.ExitCode() == 0 || strings.HasPrefix(line, "apigw-guardian ") && command.ProcessState.ExitCode() != 2 ||
			strings.Contains(line, " can-i ") && string(bytes.TrimSpace(output)) == "no"
		if !isKnown {
			t.Errorf("docs/alerts.md: %s: %v\n%s", line, command.ProcessState, output)
		}
	}
	if commands < 15 {
		t.Errorf("docs/alerts.md has %d commands: are they found?", commands)
	}
}

var inlineCommand = regexp.MustCompile("`((?:apigw-guardian|kubectl)\\s[^`]+)`")

// requireValues wants the values for the chart to have the spec of the reservation file.
func requireValues(t *testing.T, directory string) {
	t.Helper()
	var file struct{ Spec any }
	var values struct{ Reservations map[string]any }
	for name, into := range map[string]any{"reservations/shop.yaml": &file, "reservations.yaml": &values} {
		content, err := os.ReadFile(filepath.Join(directory, name))
		if err == nil {
			err = yaml.Unmarshal(content, into)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(map[string]any{"shop": file.Spec}, values.Reservations); file.Spec == nil || diff != "" {
		t.Errorf("%s: the values (-spec of the file +values)\n%s", own, diff)
	}
}

var consoleBlock = regexp.MustCompile("(?ms)^```console\n(.*?)^```\n")

// consoleBlocks returns the content of a document's console blocks; none without a document.
func consoleBlocks(t *testing.T, document string) []string {
	t.Helper()
	if document == "" {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(root, document))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, match := range consoleBlock.FindAllSubmatch(content, -1) {
		blocks = append(blocks, string(match[1]))
	}
	return blocks
}

// documents returns the paths of all Markdown files, below root, in the order in which they run.
func documents(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if relative, err := filepath.Rel(root, path); err == nil && filepath.Ext(path) == ".md" {
			found[relative] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, first := range order {
		delete(found, first)
	}
	return slices.Concat(order, slices.Sorted(maps.Keys(found)))
}

// commands returns a directory that holds the commands of the documents.
func commands(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, program := range map[string]string{"apigw-guardian": harness.Of(t).Program, "kubectl": harness.Of(t).Cluster.KubectlPath()} {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// transcript runs each command of a block in the directory, and returns the block as it should be. A line that starts with "> " continues the
// command before it.
func transcript(t *testing.T, path, directory, block string) string {
	t.Helper()
	var got strings.Builder
	for _, lines := range commandLines(block) {
		fmt.Fprintln(&got, strings.Join(lines, "\n"))
		lines[0] = strings.TrimPrefix(lines[0], "$ ")
		for i := range lines[1:] {
			lines[i+1] = strings.TrimPrefix(lines[i+1], "> ")
		}
		command := harness.Of(t).Cluster.Command(t.Context(), "/bin/sh", "-c", strings.Join(lines, "\n"))
		command.Dir = directory
		command.Env = append(command.Env, "PATH="+path+":"+os.Getenv("PATH"))
		output, _ := command.CombinedOutput() // the document shows what a command that fails prints
		if output = bytes.TrimRight(output, "\n"); len(output) > 0 {
			fmt.Fprintf(&got, "%s\n", output)
		}
	}
	return got.String()
}

func commandLines(block string) [][]string {
	var found [][]string
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "$ "):
			found = append(found, []string{line})
		case strings.HasPrefix(line, "> ") && len(found) > 0:
			found[len(found)-1] = append(found[len(found)-1], line)
		}
	}
	return found
}

// masks replace what differs from run to run.
var masks = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[ +-][0-9:A-Z]+)?`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d{2}-\d{2}`), "DAY"},
	{regexp.MustCompile(`\d{8}t\d{4}-([a-z]+)-[0-9a-f]{20}`), "RECORD-$1"},
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\b\d+(ms|s|m|h|d)\b`), "AGE"},
	{regexp.MustCompile(`\bunlock-[a-z0-9]{5}\b`), "UNLOCK"},
	{regexp.MustCompile(`(Replica +)\S+`), "${1}NAME"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`v\d+\.\d+\.\d+(-[0-9a-z.-]+)?`), "VERSION"},
	{regexp.MustCompile(` +`), " "},
	{regexp.MustCompile(`(?m) $`), ""},
}

func masked(text string) string {
	for _, mask := range masks {
		text = mask.pattern.ReplaceAllString(text, mask.by)
	}
	return text
}
