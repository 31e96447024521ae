// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// shellReads returns the arguments with which sh runs apigw-guardian, in a directory of its own, and fails the test if sh makes
// anything else of the command.
func shellReads(t *testing.T, command string) []string {
	t.Helper()
	dir := t.TempDir()
	// A program that the test wrote could not run while another test forks: the child has it open for writing.
	bin, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}
	sh := exec.CommandContext(t.Context(), "sh", "-c", command)
	sh.Dir, sh.Env = dir, []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=/nowhere"}
	out, err := sh.Output()
	if err != nil {
		t.Fatalf("sh -c %s: %v", command, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("sh -c %s left %v (%v)", command, left, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func TestAShellReadsTheHintAsOneCommand(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]string{
		"a plain name":            "alice@example.com",
		"a ServiceAccount":        "system:serviceaccount:kube-system:a",
		"a command":               "$(touch pwned)",
		"a command in backquotes": "`touch pwned`",
		"the end of a quote":      "'; touch pwned; '",
		"the end of another":      `"; touch pwned; "`,
		"a backslash at the end":  `a\`,
		"two words":               "alice bob",
		"a comma":                 "CN=alice,O=people",
		"an option":               "--for=1000h",
		"a pattern":               "*",
		"a variable":              "$HOME",
		"a home":                  "~root",
		"a comment":               "#alice",
		"the placeholder":         "{unlock}",
		"another script":          "網關",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := reviewOf(t, "delete-role", v1alpha1.User{Name: user})
			hint := builtInPolicy(t).Review(request).Decide(Facts{}).Hint(UnlockPlaceholder, request)
			want := []string{
				"unlock", "--reason", "delete ClusterRole apigw-ingress-clusterrole", "--for", "10m", "--operation", "DELETE", "--user", user,
			}
			if diff := cmp.Diff(want, shellReads(t, hint)); diff != "" {
				t.Errorf("%s\n(-want +got)\n%s", hint, diff)
			}
		})
	}
}

// A name that is not shown whole would be another user's, so the command names none.
func TestTheHintNamesNoUserThatItCannotShow(t *testing.T) {
	t.Parallel()
	for name, user := range map[string]string{
		"no name": "", "a line feed": "alice\nrm -rf /", "a mark that turns the text": "alice\u202e", "a broken byte": "alice\xff",
		"254 bytes": strings.Repeat("a", 254),
	} {
		request := reviewOf(t, "role-verbs", v1alpha1.User{Name: user})
		want := `apigw-guardian unlock --reason "update ClusterRole apigw-ingress-clusterrole" --for 10m`
		if got := builtInPolicy(t).Review(request).Decide(Facts{}).Hint(UnlockPlaceholder, request); got != want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// The API server accepts nearly any text as the name of a ClusterRole, and a reservation may reserve a prefix.
func TestAShellReadsTheHintWhateverTheNameOfTheObject(t *testing.T) {
	t.Parallel()
	reservation, err := reserved.Parse("edge.yaml", []byte(`{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Reservation",
"metadata":{"name":"edge"},"spec":{"owner":"Edge","resources":[{"namePrefix":"edge-","manifest":
{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"edge-a"}}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := reserved.NewSet(reservation)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range []string{"edge-b", "edge-$(touch pwned)", "edge-`touch pwned`", `edge-"; touch pwned; "`, `edge-\`, "edge-'x'", "edge-!!"} {
		request := reviewOf(t, "create-role", v1alpha1.User{Name: "alice"})
		role := map[string]any{"metadata": map[string]string{"name": object}}
		request.Operation, request.Object = admissionv1.Create, encode(t, role)
		hint := (&Policy{Set: set}).Review(request).Decide(Facts{}).Hint(UnlockPlaceholder, request)
		want := []string{
			"unlock", "--reason", "create ClusterRole " + object, "--for", "10m", "--reservation", "edge", "--operation", "CREATE", "--user", "alice",
		}
		if diff := cmp.Diff(want, shellReads(t, hint)); diff != "" {
			t.Errorf("%s\n(-want +got)\n%s", hint, diff)
		}
	}
}

func TestAHintWithoutThePlaceholderStaysAsItIs(t *testing.T) {
	t.Parallel()
	request := reviewOf(t, "role-verbs", v1alpha1.User{Name: "alice"})
	denied := builtInPolicy(t).Review(request).Decide(Facts{})
	for _, hint := range []string{"", "See https://wiki.example/apigw"} {
		if got := denied.Hint(hint, request); got != hint {
			t.Errorf("%q becomes %q", hint, got)
		}
	}
	if got := Deny(Unreadable).Hint(DefaultHint, request); got != DefaultHint {
		t.Errorf("a denial of an unread request names the command %q", got)
	}
}
