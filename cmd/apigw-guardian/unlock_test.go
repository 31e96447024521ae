// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func TestUnlockFlagsAreChecked(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(*unlockFlags)
		say    string
	}{
		"nothing wrong":              {func(*unlockFlags) {}, ""},
		"a reason of 9 characters":   {func(f *unlockFlags) { f.spec.Reason = strings.Repeat("ä", 9) }, "--reason: must have 10 to 500 characters"},
		"a reason of 500 characters": {func(f *unlockFlags) { f.spec.Reason = strings.Repeat("ä", 500) }, ""},
		"a reason of 501 characters": {func(f *unlockFlags) { f.spec.Reason = strings.Repeat("a", 501) }, "--reason: must have"},
		"no time":                    {func(f *unlockFlags) { f.duration = 0 }, "--for 0s: must be at least 1s"},
		"a negative time":            {func(f *unlockFlags) { f.duration = -time.Hour }, "--for -1h0m0s: must be"},
		"restored at the end":        {func(f *unlockFlags) { f.spec.OnEnd = "restore" }, ""},
		"an unknown operation":       {func(f *unlockFlags) { f.operations = []string{"UPDATE", "CONNECT"} }, `--operation "CONNECT": must be`},
	} {
		flags := &unlockFlags{shared: &sharedFlags{}, duration: time.Minute}
		flags.spec.Reason, flags.spec.OnEnd = "ticket 4711", "report"
		test.change(flags)
		err := flags.check()
		if (err == nil) != (test.say == "") || err != nil && !strings.Contains(err.Error(), test.say) {
			t.Errorf("%s: got %v, want %q", name, err, test.say)
		}
	}
}

func TestUnlockFlagsAreCompleted(t *testing.T) {
	t.Parallel()
	flags := &unlockFlags{shared: &sharedFlags{}, duration: time.Minute, operations: []string{"update", "Delete"}}
	flags.spec.OnEnd = "report"
	flags.spec.Reason, flags.spec.Resources = "ticket 4711", []string{"clusterrole/apigw-ingress-clusterrole", "secrets/kube-system/other"}
	if err := flags.check(); err != nil {
		t.Fatal(err)
	}
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	flags.resolve(set)
	want := []string{"clusterroles.rbac.authorization.k8s.io/apigw-ingress-clusterrole", "secrets/kube-system/other"}
	if diff := cmp.Diff(want, flags.spec.Resources); diff != "" {
		t.Errorf("resources (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]admissionv1.Operation{"UPDATE", "DELETE"}, flags.spec.Operations); diff != "" {
		t.Errorf("operations (-want +got)\n%s", diff)
	}
}

// A comma may be part of a name: the unlock must not be of two other users.
func TestAUserWithACommaIsOneUser(t *testing.T) {
	t.Parallel()
	command := newUnlock(&sharedFlags{})
	if err := command.ParseFlags([]string{"--user", "CN=alice,O=people", "--user=--bob"}); err != nil {
		t.Fatal(err)
	}
	users, err := command.Flags().GetStringArray("user")
	if diff := cmp.Diff([]string{"CN=alice,O=people", "--bob"}, users); err != nil || diff != "" {
		t.Errorf("%v (-want +got)\n%s", err, diff)
	}
}
