// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/report"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
)

// The matrix is every kind, written in every form the API server knows, by every kind of identity, stored and dry-run, once
// to change the resource and once to leave it as its manifest says.

// form is one way to write.
type form struct {
	name string
	// tamper changes the object; harmless leaves it as it is, and is nil where there is no such write.
	tamper, harmless func(o *scenario.Object) scenario.Write
	// reason is why the tampering is denied.
	reason string
}

func forms() []form {
	return append(updateForms(),
		form{"create", create(withLabel), create(unchanged), "ReservedCreate"},
		form{"delete in the background", deletion("Background"), nil, "ReservedDelete"},
		form{"delete in the foreground", deletion("Foreground"), nil, "ReservedDelete"},
		form{"delete and orphan", deletion("Orphan"), nil, "ReservedDelete"},
		form{"deletecollection", deleteCollection, nil, "ReservedDelete"},
	)
}

func updateForms() []form {
	patch := func(contentType, tamper, harmless string) (func(*scenario.Object) scenario.Write, func(*scenario.Object) scenario.Write) {
		write := func(body string) func(o *scenario.Object) scenario.Write {
			return func(o *scenario.Object) scenario.Write {
				return scenario.Write{Method: http.MethodPatch, Path: o.Path, ContentType: contentType, Body: []byte(body)}
			}
		}
		return write(tamper), write(harmless)
	}
	jsonTamper, jsonHarmless := patch(scenario.JSONPatch,
		`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`, `[{"op":"test","path":"/metadata/labels","value":null}]`)
	mergeTamper, mergeHarmless := patch(scenario.MergePatch, `{"metadata":{"labels":{"a":"b"}}}`, `{}`)
	strategicTamper, strategicHarmless := patch(scenario.StrategicPatch, `{"metadata":{"labels":{"a":"b"}}}`, `{}`)
	return []form{
		{"put", put(withLabel), put(unchanged), "ReservedUpdate"},
		{"json patch", jsonTamper, jsonHarmless, "ReservedUpdate"},
		{"merge patch", mergeTamper, mergeHarmless, "ReservedUpdate"},
		{"strategic merge patch", strategicTamper, strategicHarmless, "ReservedUpdate"},
		{"apply", apply(withLabel), apply(unchanged), "ReservedUpdate"},
	}
}

func withLabel(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"a": "b"}) }

func unchanged(*unstructured.Unstructured) {}

func put(edit func(*unstructured.Unstructured)) func(*scenario.Object) scenario.Write {
	return func(o *scenario.Object) scenario.Write { return scenario.Put(o, edit) }
}

func apply(edit func(*unstructured.Unstructured)) func(*scenario.Object) scenario.Write {
	return func(o *scenario.Object) scenario.Write { return scenario.Apply(o, manifest(o, edit)) }
}

func create(edit func(*unstructured.Unstructured)) func(*scenario.Object) scenario.Write {
	return func(o *scenario.Object) scenario.Write { return scenario.Create(o, manifest(o, edit)) }
}

func manifest(o *scenario.Object, edit func(*unstructured.Unstructured)) string {
	object := o.Object()
	edit(object)
	body, err := object.MarshalJSON()
	if err != nil {
		panic(err) // it was read from JSON
	}
	return string(body)
}

func deletion(propagation string) func(*scenario.Object) scenario.Write {
	return func(o *scenario.Object) scenario.Write {
		write := scenario.Delete(o)
		write.Query = map[string][]string{"propagationPolicy": {propagation}}
		return write
	}
}

func deleteCollection(o *scenario.Object) scenario.Write {
	return scenario.Write{
		Method: http.MethodDelete, Path: o.Collection, ContentType: scenario.JSON,
		Query: map[string][]string{"fieldSelector": {"metadata.name=" + o.Name}},
	}
}

// generateName asks for a name that starts like the reserved one. Only where a prefix is reserved is that reserved too.
func generateName(o *scenario.Object) form {
	start, reason := o.Name, ""
	if o.NamePrefix != "" {
		start, reason = o.NamePrefix, "TokenMint"
	}
	write := create(func(u *unstructured.Unstructured) {
		u.SetName("")
		u.SetGenerateName(start)
	})
	return form{name: "create by generateName", tamper: write, reason: reason}
}

// poisoning writes a false note about earlier writes, which makes a later, honest write do harm.
func poisoning(o *scenario.Object) []form {
	merge := func(metadata map[string]any) func(*scenario.Object) scenario.Write {
		body, err := json.Marshal(map[string]any{"metadata": metadata})
		if err != nil {
			panic(err) // it is a literal
		}
		return func(o *scenario.Object) scenario.Write { return scenario.Merge(o, string(body)) }
	}
	applied := func(edit func(*unstructured.Unstructured)) map[string]any {
		return map[string]any{"annotations": map[string]any{corev1.LastAppliedConfigAnnotation: manifest(o, edit)}}
	}
	withUID := func(u *unstructured.Unstructured) { u.SetUID("3e432fd2-37c9-4e1f-8c18-c0fd259597f2") }
	forms := []form{
		{name: "last applied with a uid", tamper: merge(applied(withUID)), reason: "ReservedUpdate"},
		{name: "last applied with a label", tamper: merge(applied(withLabel)), reason: "ReservedUpdate"},
		{name: "last applied of garbage", tamper: merge(map[string]any{"annotations": map[string]any{
			corev1.LastAppliedConfigAnnotation: "{",
		}}), reason: "ReservedUpdate"},
	}
	for _, field := range o.SystemFields() {
		var fields any = map[string]any{}
		for _, key := range slices.Backward(field) {
			fields = map[string]any{"f:" + key: fields}
		}
		forms = append(forms, form{
			name: "managed fields that give away " + strings.Join(field, "."), reason: "ReservedUpdate",
			tamper: merge(map[string]any{"managedFields": []any{map[string]any{
				"manager": "kubectl", "operation": "Apply", "apiVersion": o.GVR.GroupVersion().String(),
				"fieldsType": "FieldsV1", "fieldsV1": fields, "time": "2026-01-01T00:00:00Z",
			}}}),
		})
	}
	return forms
}

// identity is who writes.
type identity struct {
	name   string
	client *scenario.Client
	as     scenario.Identity
}

func identities(t *testing.T, world *scenario.World) []identity {
	t.Helper()
	list := []identity{
		{name: "an admin", client: world.Guarded},
		{name: "a ServiceAccount", client: accountClient(t)},
		{"someone as the API server", world.Guarded, scenario.Identity{User: "system:apiserver", Groups: []string{"system:masters"}}},
	}
	for _, user := range []string{
		"system:kube-controller-manager",
		"system:serviceaccount:kube-system:generic-garbage-collector",
		"system:serviceaccount:kube-system:namespace-controller",
		"system:serviceaccount:kube-system:clusterrole-aggregation-controller",
		"system:serviceaccount:kube-system:legacy-service-account-token-cleaner",
	} {
		list = append(list, identity{"someone as " + user, world.Guarded, scenario.Identity{User: user}})
	}
	return list
}

// accountClient authenticates with the token of the ServiceAccount default.
func accountClient(t *testing.T) *scenario.Client {
	t.Helper()
	accounts := harness.Clients(t).CoreV1().ServiceAccounts(metav1.NamespaceDefault)
	token, err := accounts.CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := scenario.NewClient(harness.Of(t).Cluster.TokenConfig(token.Status.Token))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// cell is one write of the matrix with what must come of it: denied for a reason, or allowed where the reason is empty.
type cell struct {
	name   string
	object *scenario.Object
	client *scenario.Client
	write  scenario.Write
	reason string
	answer scenario.Answer
	// isGenerated says that the API server makes up a name that is not reserved, and isUnseen that the guard is not asked.
	isGenerated, isUnseen bool
}

// The size of the matrix. Of 84 writes, 40 tamper in one of 10 forms, 24 are their harmless counterparts in the 6 forms that
// have one, 12 poison the last applied configuration, 4 poison managed fields, and 4 use generateName, which only the token
// Secret reserves. Each is sent by 8 identities, stored and as a dry-run.
const (
	matrixCells  = 84 * 8 * 2
	matrixDenied = (40 + 12 + 4 + 1) * 8 * 2
)

func matrix(t *testing.T, world *scenario.World) []*cell {
	t.Helper()
	var cells []*cell
	for _, object := range world.Objects() {
		for _, form := range slices.Concat(forms(), poisoning(object), []form{generateName(object)}) {
			for _, who := range identities(t, world) {
				name := fmt.Sprintf("%s of %s by %s", form.name, object.Kind, who.name)
				add := func(name string, write scenario.Write, reason string) {
					write.As = who.as
					generated := reason == "" && form.harmless == nil
					// Another binding of the reserved role is a side door, which the guard observes.
					unseen := generated && object.Kind != "ClusterRoleBinding" ||
						reason == "" && form.reason == "ReservedUpdate" && isLabeller(object, who)
					c := cell{
						name: name, object: object, client: who.client, write: write, reason: reason, isGenerated: generated, isUnseen: unseen,
					}
					dryRun := c
					dryRun.name, dryRun.write = name+", dry-run", write.DryRun()
					cells = append(cells, &c, &dryRun)
				}
				add(name, form.tamper(object), form.reason)
				if form.harmless != nil {
					add("harmless "+name, form.harmless(object), "")
				}
			}
		}
	}
	return cells
}

// isLabeller says that an update by this identity which changes nothing, or the label of last use, is kept from the guard.
func isLabeller(object *scenario.Object, who identity) bool {
	return object.IsTokenSecret() && who.as.User == "system:apiserver"
}

// TestEveryWriteFormByEveryIdentity is row R1 of the targets.
func TestEveryWriteFormByEveryIdentity(t *testing.T) {
	harness.Take(t)
	world := harness.World(t)
	harness.StartGuard(t)
	cells := playMatrix(t, world)
	said := annotationsByAuditID(t)
	denied := 0
	for _, c := range cells {
		requireCell(t, c, said[c.answer.AuditID])
		if c.reason != "" {
			denied++
		}
	}
	requireUntouched(t, world)
	if len(cells) != matrixCells || denied != matrixDenied {
		t.Errorf("the matrix has %d cells, %d of them denied; want %d and %d", len(cells), denied, matrixCells, matrixDenied)
	}
	report.Line(t, "R1: %d cells asserted (%d denied, %d allowed) on Kubernetes %s",
		len(cells), denied, len(cells)-denied, harness.Of(t).Cluster.Version())
}

// playMatrix sends every write of the matrix.
func playMatrix(t *testing.T, world *scenario.World) []*cell {
	t.Helper()
	cells := matrix(t, world)
	for _, c := range cells {
		answer, err := c.client.Do(t.Context(), c.write)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		c.answer = answer
		removeGenerated(t, world, c)
	}
	return cells
}

func requireCell(t *testing.T, c *cell, said map[string]string) {
	t.Helper()
	status := c.answer.Status()
	denied := strings.Contains(status.Message, fmt.Sprintf("admission webhook %q denied the request", c.object.GVR.Resource+".apigw-guardian.io"))
	switch {
	case c.reason != "" && (!denied || status.Code != http.StatusForbidden || status.Reason != metav1.StatusReasonForbidden):
		t.Errorf("%s: got %d %s, want our denial", c.name, c.answer.Code, c.answer.Body)
	case c.reason == "" && c.answer.Code >= http.StatusBadRequest && c.answer.Code != http.StatusConflict:
		t.Errorf("%s: got %d %s, want it allowed", c.name, c.answer.Code, c.answer.Body)
	case c.reason != "" && said["reason"] != c.reason:
		t.Errorf("%s: got reason %q, want %q", c.name, said["reason"], c.reason)
	case c.reason == "" && !c.isUnseen && said["decision"] != "allow":
		t.Errorf("%s: the guard was not asked: %v", c.name, said)
	case c.isUnseen && len(said) > 0:
		t.Errorf("%s: the guard was asked: %v", c.name, said)
	}
}

// annotationsByAuditID returns what the guard has said in every audit event so far.
func annotationsByAuditID(t *testing.T) map[string]map[string]string {
	t.Helper()
	said := map[string]map[string]string{}
	for _, event := range auditEvents(t, func([]byte) bool { return true }) {
		said[event.AuditID] = ofGuard(event)
	}
	return said
}

func requireUntouched(t *testing.T, world *scenario.World) {
	t.Helper()
	for _, object := range world.Objects() {
		live, err := world.Read(t.Context(), object)
		if err != nil {
			t.Fatal(err)
		}
		if live == nil || live.GetResourceVersion() != object.Live.GetResourceVersion() {
			t.Errorf("%s was written to", object)
		}
	}
}

// removeGenerated deletes what a cell was allowed to create under a name that is not reserved.
func removeGenerated(t *testing.T, world *scenario.World, c *cell) {
	t.Helper()
	if !c.isGenerated || c.answer.Code != http.StatusCreated || len(c.write.Query["dryRun"]) > 0 {
		return
	}
	var created struct{ Metadata struct{ Name string } }
	if err := json.Unmarshal(c.answer.Body, &created); err != nil {
		t.Fatal(err)
	}
	remove := scenario.Write{Method: http.MethodDelete, Path: c.object.Collection + "/" + created.Metadata.Name, ContentType: scenario.JSON}
	if _, err := world.Unguarded.Do(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
}
