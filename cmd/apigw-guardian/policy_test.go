// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func TestPolicyPrintsAListOfPoliciesAndBindings(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args   []string
		suffix string
	}{
		"YAML by default":                {[]string{"policy"}, ""},
		"JSON":                           {[]string{"policy", "-o", "json"}, ""},
		"the variant for the disk":       {[]string{"policy", "--static"}, ".static.k8s.io"},
		"the variant beside the webhook": {[]string{"policy", "--backstop", "--mode", "observe"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stdout, stderr bytes.Buffer
			if code := run(t.Context(), test.args, &stdout, &stderr); code != exitDone {
				t.Fatalf("exit code %d: %s", code, &stderr)
			}
			var list struct {
				Kind  string
				Items []struct {
					Kind     string
					Metadata struct{ Name string }
				}
			}
			if err := yaml.Unmarshal(stdout.Bytes(), &list); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, item := range list.Items {
				got = append(got, strings.TrimPrefix(item.Kind, "ValidatingAdmission")+" "+strings.TrimSuffix(item.Metadata.Name, test.suffix))
			}
			var want []string
			for _, plural := range []string{"serviceaccounts", "clusterroles", "clusterrolebindings", "secrets"} {
				want = append(want, "Policy apigw-guardian-"+plural, "PolicyBinding apigw-guardian-"+plural)
			}
			if diff := cmp.Diff(want, got); diff != "" || list.Kind != "List" {
				t.Errorf("%s (-want +got)\n%s", list.Kind, diff)
			}
		})
	}
}

func TestPolicyRefusesWhatHasNoEffect(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"policy", "--mode", "skip"}, {"policy", "--static", "--backstop"}, {"policy", "-o", "name"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != exitUsage {
			t.Errorf("%v: exit code %d, want %d: %s", args, code, exitUsage, &stderr)
		}
	}
}
