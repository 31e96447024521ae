// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package crds

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"
)

func TestDefinitionsFitTheServer(t *testing.T) {
	t.Parallel()
	for server, selectable := range map[string]bool{"v1.28.15-tke.12": false, "v1.30.0": true, "v1.37.2+k3s1": true} {
		definitions, err := Definitions(version.MustParseGeneric(server))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		var found bool
		for _, definition := range definitions {
			names = append(names, definition.GetName())
			data, err := yaml.Marshal(definition.Object)
			if err != nil {
				t.Fatal(err)
			}
			found = found || strings.Contains(string(data), "selectableFields")
			if definition.GetLabels()["app.kubernetes.io/name"] != "apigw-guardian" {
				t.Errorf("%s has the labels %v", definition.GetName(), definition.GetLabels())
			}
		}
		if want := []string{"auditrecords.guardian.apigw.io", "reservations.guardian.apigw.io", "unlocks.guardian.apigw.io"}; !slices.Equal(names, want) {
			t.Errorf("got %q, want %q", names, want)
		}
		if found != selectable {
			t.Errorf("%s: selectable fields %t, want %t", server, found, selectable)
		}
	}
}
