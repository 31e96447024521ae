// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/corpus"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/rawjson"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

func builtInPolicy(tb testing.TB) *Policy {
	tb.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		tb.Fatal(err)
	}
	return &Policy{Set: set, Writers: DefaultWriters()}
}

// decideAs returns the decision about a review of the corpus, with the answers to its lookups at the time of capture.
func decideAs(reviewed *Case, c corpus.Case) Decision {
	var holds []bool
	for _, lookup := range reviewed.Lookups() {
		holds = append(holds, lookup.ForRecord && c.IsLive() || !lookup.ForRecord && c.Holds())
	}
	return reviewed.Decide(Facts{Holds: holds})
}

// decide returns the decision with the same answer to all lookups.
func decide(c *Case, holds bool) Decision {
	return c.Decide(Facts{Holds: slices.Repeat([]bool{holds}, len(c.Lookups()))})
}

func cases(tb testing.TB) []corpus.Case {
	tb.Helper()
	cases, err := corpus.Cases()
	if err != nil || len(cases) == 0 {
		tb.Fatal("no corpus", err)
	}
	return cases
}

// decode reads a review with the types of the Kubernetes API instead of the webhook's decoder.
func decode(tb testing.TB, data []byte) *Request {
	tb.Helper()
	var review struct {
		Request struct {
			admissionv1.AdmissionRequest
			Object    json.RawMessage `json:"object"`
			OldObject json.RawMessage `json:"oldObject"`
		}
	}
	if err := json.Unmarshal(data, &review); err != nil {
		tb.Fatal(err)
	}
	in := &review.Request
	object := func(raw json.RawMessage) rawjson.Value {
		if string(raw) == "null" {
			return nil
		}
		return rawjson.Value(raw)
	}
	return &Request{
		UID: string(in.UID), GVR: schema.GroupVersionResource(in.Resource), Kind: in.Kind.Kind, Subresource: in.SubResource,
		Operation: in.Operation, Namespace: in.Namespace, Name: in.Name, DryRun: *in.DryRun,
		User:   v1alpha1.User{Name: in.UserInfo.Username, UID: in.UserInfo.UID, Groups: in.UserInfo.Groups},
		Object: object(in.Object), OldObject: object(in.OldObject),
	}
}

func expected(tb testing.TB, c corpus.Case) *admissionv1.AdmissionResponse {
	tb.Helper()
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(c.Answer, &answer); err != nil {
		tb.Fatal(err)
	}
	return answer.Response
}

func TestDecideOverTheCorpus(t *testing.T) {
	t.Parallel()
	for _, c := range cases(t) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			before := bytes.Clone(c.Review)
			p, request := builtInPolicy(t), decode(t, c.Review)
			got := decideAs(p.Review(request), c)
			want := expected(t, c)
			if got.Allowed != want.Allowed {
				t.Errorf("allowed: got %t, want %t", got.Allowed, want.Allowed)
			}
			if reason := want.AuditAnnotations["reason"]; reason != "" && string(got.Reason) != reason {
				t.Errorf("reason: got %s, want %s", got.Reason, reason)
			}
			if diff := cmp.Diff(got.Changed, decideAs(p.Review(request), c).Changed); diff != "" {
				t.Errorf("the second time differs\n%s", diff)
			}
			if !bytes.Equal(before, c.Review) {
				t.Error("Decide changed the review")
			}
		})
	}
}

// A write whose lookups do not hold is denied.
func TestDecideDeniesIfALookupDoesNotHold(t *testing.T) {
	t.Parallel()
	found := 0
	for _, c := range cases(t) {
		reviewed := builtInPolicy(t).Review(decode(t, c.Review))
		rests := slices.ContainsFunc(reviewed.Lookups(), func(l Lookup) bool { return !l.ForRecord })
		if rests && (decide(reviewed, false).Allowed || reviewed.Decide(Facts{}).Allowed) {
			t.Errorf("%s: allowed although no lookup holds", c.Name)
		}
		if rests {
			found++
		}
	}
	if found < 5 {
		t.Errorf("%d reviews depend on a lookup, want 5 or more", found)
	}
}

// Only a write by a controller causes a lookup, and only a controller's write is allowed by one.
func TestLookupsAllowOnlyControllers(t *testing.T) {
	t.Parallel()
	for _, c := range cases(t) {
		p, request := builtInPolicy(t), decode(t, c.Review)
		request.User = v1alpha1.User{Name: "eve", Groups: []string{"system:masters", "system:serviceaccounts"}}
		for _, lookup := range p.Review(request).Lookups() {
			if lookup.Subject != Live && lookup.Subject != OnlyToken && lookup.Subject != NotRetired {
				t.Errorf("%s: lookup %v for eve", c.Name, lookup)
			}
		}
		if got := decide(p.Review(request), true); slices.Contains([]Reason{SystemWrite, SystemDelete, NamespaceTerminating}, got.Reason) {
			t.Errorf("%s: eve passes for the system: %s", c.Name, got.Reason)
		}
	}
}

// Any client of the webhook can forge a review, but does not know the UID of a live object.
func TestAForgedReviewLeavesNoRecordOfAnAllowedWrite(t *testing.T) {
	t.Parallel()
	found := 0
	for _, c := range cases(t) {
		reviewed := builtInPolicy(t).Review(decode(t, c.Review))
		var holds []bool
		for _, lookup := range reviewed.Lookups() {
			holds = append(holds, lookup.Subject != Live)
		}
		got := reviewed.Decide(Facts{Holds: holds})
		if got.Allowed && got.Outcome != "" {
			t.Errorf("%s: got outcome %s", c.Name, got.Outcome)
		}
		if got.Reason == Unconfirmed {
			found++
		}
	}
	if found < 8 {
		t.Errorf("%d reviews are unconfirmed, want 8 or more", found)
	}
}

func TestZeroValuesDeny(t *testing.T) {
	t.Parallel()
	if (Decision{}).Allowed {
		t.Error("the zero Decision allows")
	}
	for _, c := range cases(t) {
		if decide((&Policy{}).Review(decode(t, c.Review)), true).Allowed {
			t.Errorf("%s: the zero Policy allows", c.Name)
		}
	}
	if decide(builtInPolicy(t).Review(&Request{}), true).Allowed {
		t.Error("the zero Request is allowed")
	}
}

func TestDecideDeniesUnreadableRequests(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*Request){
		"an unknown operation":               func(r *Request) { r.Operation = "CONNECT" },
		"an operation in another case":       func(r *Request) { r.Operation = admissionv1.Operation(strings.ToLower(string(r.Operation))) },
		"no operation":                       func(r *Request) { r.Operation = "" },
		"an unknown kind":                    func(r *Request) { r.GVR.Resource = "pods" },
		"an unknown group":                   func(r *Request) { r.GVR.Group += "x" },
		"an unknown version":                 func(r *Request) { r.GVR.Version = "v2" },
		"a subresource":                      func(r *Request) { r.Subresource = "scale" },
		"no objects":                         func(r *Request) { r.Object, r.OldObject = nil, nil },
		"objects without a name":             func(r *Request) { r.Object, r.OldObject = []byte(`{}`), []byte(`{}`) },
		"objects that are not objects":       func(r *Request) { r.Object, r.OldObject = []byte(`"x"`), []byte(`[]`) },
		"an update without what was before":  func(r *Request) { r.Operation, r.OldObject = "UPDATE", nil },
		"a deletion without what was before": func(r *Request) { r.Operation, r.OldObject = "DELETE", nil },
		"a creation with an old object":      func(r *Request) { r.Operation, r.OldObject = "CREATE", []byte(`{"metadata":{"name":"x"}}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, c := range cases(t) {
				request := decode(t, c.Review)
				damage(request)
				if got := decide(builtInPolicy(t).Review(request), true); got.Allowed || got.Reason != Unreadable {
					t.Errorf("%s: got allowed=%t %s", c.Name, got.Allowed, got.Reason)
				}
			}
		})
	}
}

// In mode observe, only an unreadable request is denied. A write that enforce would deny is recorded.
func TestObserveAllowsAndRecords(t *testing.T) {
	t.Parallel()
	for _, c := range cases(t) {
		p, request := builtInPolicy(t), decode(t, c.Review)
		enforced := decideAs(p.Review(request), c)
		p.Mode = Observe
		observed := decideAs(p.Review(request), c)
		if !observed.Allowed {
			t.Errorf("%s: denied", c.Name)
		}
		if !enforced.Allowed && (observed.Outcome != v1alpha1.WouldDeny || observed.Reason != enforced.Reason) {
			t.Errorf("%s: got %s %s, want WouldDeny %s", c.Name, observed.Outcome, observed.Reason, enforced.Reason)
		}
		if enforced.Allowed && observed.Outcome != enforced.Outcome {
			t.Errorf("%s: got outcome %q, want %q", c.Name, observed.Outcome, enforced.Outcome)
		}
	}
}

const edge = `
apiVersion: guardian.apigw.io/v1alpha1
kind: Reservation
metadata: {name: edge}
spec:
  owner: Edge Router
  resources:
  - manifest: {apiVersion: v1, kind: ServiceAccount, metadata: {namespace: edge-system, name: edge-router}}
  - manifest: {apiVersion: v1, kind: ConfigMap, metadata: {namespace: edge-system, name: edge-router}, data: {mode: strict}}
`

func edgePolicy(t *testing.T) *Policy {
	t.Helper()
	reservation, err := reserved.Parse("edge.yaml", []byte(edge))
	if err != nil {
		t.Fatal(err)
	}
	set, err := reserved.NewSet(reservation)
	if err != nil {
		t.Fatal(err)
	}
	return &Policy{Set: set, Writers: DefaultWriters()}
}

func TestReservationInADedicatedNamespace(t *testing.T) {
	t.Parallel()
	const (
		configMap = `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"namespace":"edge-system","name":"edge-router"},"data":{"mode":"strict"}}`
		namespace = `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"edge-system"}}`
		elsewhere = `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"elsewhere"}}`
		token     = `{"metadata":{"namespace":"edge-system","name":"x","annotations":{"kubernetes.io/service-account.name":"edge-router"}}}`
	)
	admin, namespaces := "admin", DefaultNamespaceController
	for name, test := range map[string]struct {
		operation      admissionv1.Operation
		resource, user string
		old, new       string
		holds          bool
		allowed        bool
		reason         Reason
		say            string
	}{
		"a user deletes the namespace":       {"DELETE", "namespaces", admin, namespace, "", false, false, ReservedDelete, `Namespace "edge-system" holds resources reserved by Edge Router and must not be deleted.`},
		"another namespace":                  {"DELETE", "namespaces", admin, elsewhere, "", false, true, NotReserved, ""},
		"an update of the namespace":         {"UPDATE", "namespaces", admin, namespace, namespace, false, true, NotReserved, ""},
		"a change of the content":            {"UPDATE", "configmaps", admin, configMap, strings.Replace(configMap, "strict", "lax", 1), false, false, ReservedUpdate, `ConfigMap "edge-router" is reserved by Edge Router and must not be updated (changed: data.mode).`},
		"a restored content":                 {"UPDATE", "configmaps", admin, strings.Replace(configMap, "strict", "lax", 1), configMap, true, true, Restoration, `ConfigMap "edge-router" is reserved by Edge Router. The request restores it as its manifest says (changed: data.mode).`},
		"the first authorization":            {"CREATE", "configmaps", admin, "", configMap, true, true, Restoration, `ConfigMap "edge-router" is reserved by Edge Router. The request creates it as its manifest says.`},
		"a restored object that is not live": {"UPDATE", "configmaps", admin, strings.Replace(configMap, "strict", "lax", 1), configMap, false, true, Unconfirmed, ""},
		"a minted token":                     {"CREATE", "secrets", admin, "", token, false, false, TokenMint, `Secret "x" would hold a token of ServiceAccount "edge-router", which is reserved by Edge Router.`},
		"a deletion with the namespace":      {"DELETE", "configmaps", namespaces, configMap, "", true, true, NamespaceTerminating, ""},
		"the namespace is not terminating":   {"DELETE", "configmaps", namespaces, configMap, "", false, false, ReservedDelete, ""},
		"a user, in a terminating namespace": {"DELETE", "configmaps", admin, configMap, "", true, false, ReservedDelete, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := &Request{Operation: test.operation, User: v1alpha1.User{Name: test.user}}
			request.GVR.Version, request.GVR.Resource = "v1", test.resource
			request.Object, request.OldObject = []byte(test.new), []byte(test.old)
			got := decide(edgePolicy(t).Review(request), test.holds)
			if got.Allowed != test.allowed || got.Reason != test.reason {
				t.Errorf("got allowed=%t %s, want allowed=%t %s", got.Allowed, got.Reason, test.allowed, test.reason)
			}
			if test.say != "" && got.Sentence() != test.say {
				t.Errorf("got %q, want %q", got.Sentence(), test.say)
			}
		})
	}
}

// Each write of a controller has exactly the lookups of its user, operation and kind.
func TestLookups(t *testing.T) {
	t.Parallel()
	const (
		configMap = `{"metadata":{"namespace":"edge-system","name":"edge-router"}}`
		account   = `{"metadata":{"namespace":"edge-system","name":"edge-router"},"secrets":[{"name":"a"},{"name":"b"}]}`
		dropped   = `{"metadata":{"namespace":"edge-system","name":"edge-router"},"secrets":[{"name":"b"}]}`
		token     = `{"metadata":{"namespace":"edge-system","name":"x","annotations":{"kubernetes.io/service-account.name":"edge-router"}}}`
	)
	going := []Subject{NamespaceGoing}
	for name, test := range map[string]struct {
		user      string
		operation admissionv1.Operation
		resource  string
		old, new  string
		want      []Subject
	}{
		"the controller manager deletes a token Secret":            {DefaultControllerManager, "DELETE", "secrets", token, "", []Subject{Live, AccountGone}},
		"the namespace controller deletes a token Secret":          {DefaultNamespaceController, "DELETE", "secrets", token, "", going},
		"an administrator deletes a token Secret":                  {"admin", "DELETE", "secrets", token, "", nil},
		"the controller manager drops a reference to a Secret":     {DefaultControllerManager, "UPDATE", "serviceaccounts", account, dropped, []Subject{SecretGone}},
		"the namespace controller drops a reference to a Secret":   {DefaultNamespaceController, "UPDATE", "serviceaccounts", account, dropped, nil},
		"the controller manager deletes the account":               {DefaultControllerManager, "DELETE", "serviceaccounts", account, "", going},
		"the namespace controller deletes the account":             {DefaultNamespaceController, "DELETE", "serviceaccounts", account, "", going},
		"the namespace controller deletes a ConfigMap":             {DefaultNamespaceController, "DELETE", "configmaps", configMap, "", going},
		"the controller manager deletes a ConfigMap":               {DefaultControllerManager, "DELETE", "configmaps", configMap, "", going},
		"the controller manager drops a reference of no account":   {DefaultControllerManager, "UPDATE", "configmaps", account, dropped, nil},
		"the controller manager updates a ConfigMap":               {DefaultControllerManager, "UPDATE", "configmaps", configMap, strings.Replace(configMap, "{", `{"data":{"a":"b"},`, 1), nil},
		"an administrator deletes a ConfigMap":                     {"admin", "DELETE", "configmaps", configMap, "", nil},
		"the controller manager changes the label of the last use": {DefaultControllerManager, "UPDATE", "secrets", token, strings.Replace(token, `"name":"x"`, `"name":"x","labels":{"a":"b"}`, 1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			request := &Request{Operation: test.operation, User: v1alpha1.User{Name: test.user}}
			request.GVR.Version, request.GVR.Resource = "v1", test.resource
			request.Object, request.OldObject = []byte(test.new), []byte(test.old)
			reviewed := edgePolicy(t).Review(request)
			var got []Subject
			for _, lookup := range reviewed.Lookups() {
				got = append(got, lookup.Subject)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if want := (Lookup{Subject: NamespaceGoing, Name: "edge-system"}); slices.Equal(got, going) && reviewed.Lookups()[0] != want {
				t.Errorf("got %+v, want %+v", reviewed.Lookups()[0], want)
			}
		})
	}
}

// updateOf returns an update of the built-in reserved resource of a kind.
func updateOf(t *testing.T, kind, old, new string, user v1alpha1.User) *Request {
	t.Helper()
	return &Request{
		Operation: "UPDATE", GVR: builtIn(t, kind).GVR, User: user, Object: []byte(new), OldObject: []byte(old),
	}
}

// Each write is a system write or a restoration, or differs from one in a single detail.
func TestNearMissesAreDenied(t *testing.T) {
	t.Parallel()
	const (
		account  = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress"},"secrets":[{"name":"a"},{"name":"b"}]}`
		dropped  = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress"},"secrets":[{"name":"b"}]}`
		labelled = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress","labels":{"a":"b"}},"secrets":[{"name":"b"}]}`
		emptied  = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress"}}`
		swapped  = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress"},"secrets":[{"name":"b"},{"name":"a"}]}`
		token    = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress-token-guardian","annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}}}`
		used     = `{"metadata":{"namespace":"kube-system","name":"apigw-ingress-token-guardian","labels":{"kubernetes.io/legacy-token-last-used":"2026-01-01"},"annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}}}`
		unfilled = `{"metadata":{"namespace":"kube-system","name":"x","annotations":{"kubernetes.io/service-account.name":"other"}},"type":"kubernetes.io/service-account-token"}`
		minting  = `{"metadata":{"namespace":"kube-system","name":"x","annotations":{"kubernetes.io/service-account.name":"apigw-ingress"}},"type":"kubernetes.io/service-account-token"}`
	)
	controller := v1alpha1.User{Name: DefaultControllerManager}
	apiServer := v1alpha1.User{Name: "system:apiserver", Groups: []string{"system:masters"}}
	for name, test := range map[string]struct {
		kind, old, new string
		user           v1alpha1.User
		reason         Reason
		allowed        bool
	}{
		"one reference dropped":              {"ServiceAccount", account, dropped, controller, SystemWrite, true},
		"one reference dropped by another":   {"ServiceAccount", account, dropped, v1alpha1.User{Name: "eve"}, ReservedUpdate, false},
		"one dropped and a label added":      {"ServiceAccount", account, labelled, controller, ReservedUpdate, false},
		"all references dropped at once":     {"ServiceAccount", account, emptied, controller, ReservedUpdate, false},
		"references in another order":        {"ServiceAccount", account, swapped, controller, ReservedUpdate, false},
		"last use by the API server":         {"Secret", token, used, apiServer, SystemWrite, true},
		"last use by the name alone":         {"Secret", token, used, v1alpha1.User{Name: "system:apiserver"}, ReservedUpdate, false},
		"last use removed by the API server": {"Secret", used, token, apiServer, ReservedUpdate, false},
		"an unfilled Secret is re-pointed":   {"Secret", unfilled, minting, v1alpha1.User{Name: "eve"}, TokenMint, false},
		"and back":                           {"Secret", minting, unfilled, v1alpha1.User{Name: "eve"}, ReservedUpdate, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := decide(builtInPolicy(t).Review(updateOf(t, test.kind, test.old, test.new, test.user)), true)
			if got.Allowed != test.allowed || got.Reason != test.reason {
				t.Errorf("got allowed=%t %s, want allowed=%t %s", got.Allowed, got.Reason, test.allowed, test.reason)
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, c := range cases(b) {
		if !slices.Contains([]string{"role-verbs", "role-aggregate-label", "token-blanked", "delete-token", "role-put-unchanged"}, c.Name) {
			continue
		}
		b.Run(c.Name, func(b *testing.B) {
			p, request := builtInPolicy(b), decode(b, c.Review)
			b.ReportAllocs()
			for b.Loop() {
				decide(p.Review(request), false)
			}
		})
	}
}
