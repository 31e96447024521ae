// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// fakeCluster returns a cluster with the objects, typed and dynamic ones apart.
func fakeCluster(t *testing.T, typed, dynamic []runtime.Object) (live.Cluster, *fake.Clientset) {
	t.Helper()
	client, dynamicClient := shop.Fakes(typed, dynamic)
	return live.Cluster{Client: client, Dynamic: dynamicClient, Config: &rest.Config{}, Set: shop.Set(t, shop.Reservation)}, client
}

func TestRead(t *testing.T) {
	uid := `"kubernetes.io/service-account.uid":"uid-1"`
	fill := func(s *shop.APIServer) {
		s.Objects["/api/v1/namespaces/kube-system/serviceaccounts/clerk"] = `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"namespace":"kube-system","name":"clerk","uid":"uid-1"}}`
		s.Objects["/api/v1/namespaces/kube-system/secrets/clerk-token-own"] =
			`{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","data":{"token":"` +
				base64.StdEncoding.EncodeToString([]byte(shop.TokenFor("clerk-token-own"))) + `"},"metadata":` +
				`{"namespace":"kube-system","name":"clerk-token-own","annotations":{"kubernetes.io/service-account.name":"clerk",` + uid + `}}}`
	}
	change := func(path, old, new string) func(*shop.APIServer) {
		return func(s *shop.APIServer) { s.Objects[path] = strings.Replace(s.Objects[path], old, new, 1) }
	}
	const role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/selling"
	const own = "/api/v1/namespaces/kube-system/secrets/clerk-token-own"
	tests := map[string]struct {
		change                func(*shop.APIServer)
		authorized, protected bool
		drift                 []Drift
		reasons               int
		says                  string
	}{
		"all is well": {change: func(*shop.APIServer) {}, authorized: true, protected: true, drift: []Drift{}},
		"a resource is absent": {
			change: func(s *shop.APIServer) { delete(s.Objects, role) }, protected: true, drift: []Drift{}, reasons: 1, says: "selling is absent",
		},
		"a resource differs": {
			change: change(role, `"apps"`, `"*"`), protected: true, reasons: 1, says: "differs from its manifest",
			drift: []Drift{{Resource: "clusterroles.rbac.authorization.k8s.io/selling", Paths: []string{"rules[1].apiGroups"}}},
		},
		"the token is of an earlier account": {
			change:    change("/api/v1/namespaces/kube-system/secrets/clerk-token-own", uid, strings.Replace(uid, "-1", "-0", 1)),
			protected: true, drift: []Drift{}, reasons: 1, says: "earlier ServiceAccount",
		},
		"the CA is not the cluster's": {
			change: func(s *shop.APIServer) {
				s.Objects["/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt"] = `{"data":{"ca.crt":"ours"}}`
				change(own, `"data":{`, `"data":{"ca.crt":"Zm9yZWlnbg==",`)(s)
			},
			protected: true, reasons: 2, says: "data[ca.crt] is not the CA of this cluster",
			drift: []Drift{{Resource: "secrets/kube-system/clerk-token-*", Paths: []string{"data[ca.crt]"}}},
		},
		"the token is another Secret's": {
			change: change(own, base64.StdEncoding.EncodeToString([]byte(shop.TokenFor("clerk-token-own"))),
				base64.StdEncoding.EncodeToString([]byte(shop.TokenFor("clerk-token-old")))),
			protected: true, drift: []Drift{}, reasons: 1, says: "another ServiceAccount or another Secret",
		},
		"the guard is not registered": {
			change: func(s *shop.APIServer) {
				delete(s.Objects, shop.WebhookConfigurationPath)
			},
			authorized: true, drift: []Drift{}, reasons: 1, says: "not registered",
		},
		"the guard lets one through": {
			change: func(s *shop.APIServer) {
				s.Answer = func(path string) (int, string) {
					if path == role {
						return http.StatusOK, ""
					}
					return shop.Deny(path)
				}
			},
			authorized: true, drift: []Drift{}, reasons: 1, says: "selling is not protected",
		},
		"an impostor denies without a proof": {
			change:     func(s *shop.APIServer) { s.Replica = nil },
			authorized: true, drift: []Drift{}, reasons: 4, says: "no valid proof of a replica",
		},
		"an impostor denies with a proof of its own": {
			change:     func(s *shop.APIServer) { s.Replica = probe.NewReplica(time.Now()) },
			authorized: true, drift: []Drift{}, reasons: 4, says: "no valid proof of a replica",
		},
		"a guard of an earlier version denies": {
			change: func(s *shop.APIServer) {
				s.Replica, s.Objects[shop.WebhookConfigurationPath] = nil, `{"metadata":{"name":"x"}}`
			},
			authorized: true, drift: []Drift{}, reasons: 4, says: "names no replica",
		},
		"the guard does not answer": {
			change: func(s *shop.APIServer) {
				s.Answer = func(string) (int, string) {
					return http.StatusInternalServerError, `Internal error occurred: failed calling webhook "a.apigw-guardian.io": timeout`
				}
			},
			authorized: true, drift: []Drift{}, reasons: 4, says: "the guard did not answer",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			set := shop.Set(t, shop.Reservation)
			server, config := shop.Serve(t, set)
			cluster, err := live.Connect(config, set, "")
			if err != nil {
				t.Fatal(err)
			}
			fill(server)
			test.change(server)
			got, err := Read(t.Context(), cluster, storedRecords{}, storedUnlocks(nil))
			if err != nil {
				t.Fatal(err)
			}
			if got.Authorized != test.authorized || got.Protected != test.protected || len(got.Reasons) != test.reasons {
				t.Errorf("got %+v", got)
			}
			if !strings.Contains(strings.Join(got.Reasons, "\n"), test.says) {
				t.Errorf("got the reasons %q", got.Reasons)
			}
			if diff := cmp.Diff(test.drift, got.Drift); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestReportKeys(t *testing.T) {
	got, err := json.Marshal(Report{Drift: []Drift{}, Unlocks: []Unlock{}, Exemptions: []Exemption{}, Reasons: []string{}})
	want := `{"authorized":false,"protected":false,"retired":null,"drift":[],"unlocks":[],"exemptions":[],"privateNetwork":"","denials24h":null,"certificates":{"notAfter":null,"problems":null},"reasons":[]}`
	if diff := cmp.Diff(want, string(got)); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

type storedUnlocks []v1alpha1.Unlock

func (s storedUnlocks) List(context.Context) ([]v1alpha1.Unlock, error) { return s, nil }

func TestUnlocksAreReportedUntilTheyAreOver(t *testing.T) {
	const role = "clusterroles.rbac.authorization.k8s.io/selling"
	r := Report{Drift: []Drift{{Resource: role}, {Resource: "secrets/kube-system/clerk-token-*"}}}
	unlock := func(name string, state v1alpha1.UnlockState) v1alpha1.Unlock {
		return v1alpha1.Unlock{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.UnlockStatus{State: state}}
	}
	record := v1alpha1.AuditRecord{Spec: v1alpha1.AuditRecordSpec{Outcome: v1alpha1.Unlocked, Resource: role, Unlock: "over"}}
	open := unlock("open", v1alpha1.UnlockOpen)
	open.Spec.Reason, open.Spec.Users = "\x1b[2Jticket", []string{"\x1b[2Jeve"}
	r.addUnlocks(t.Context(), storedRecords{records: []v1alpha1.AuditRecord{record}}, storedUnlocks{
		unlock("over", v1alpha1.UnlockExpired), open, unlock("waits", v1alpha1.UnlockPending),
	})
	if strings.Contains(r.Unlocks[0].Reason+r.Unlocks[0].Users[0], "\x1b") {
		t.Errorf("the requester of an unlock controls the terminal: %q", r.Unlocks[0].Reason)
	}
	if len(r.Unlocks) != 2 || r.Unlocks[0].Name != "open" || r.Unlocks[1].State != v1alpha1.UnlockPending {
		t.Errorf("got the unlocks %+v", r.Unlocks)
	}
	if r.Drift[0].Unlock != "over" || r.Drift[1].Unlock != "" {
		t.Errorf("got the drift %+v", r.Drift)
	}
}

func TestExemptionsHaveTheirDaysLeft(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	set, err := reserved.LoadFiles("test", map[string]string{"edge.yaml": `{"apiVersion":"guardian.apigw.io/v1alpha1","kind":"Reservation",
		"metadata":{"name":"edge"},"spec":{"owner":"Edge","resources":[
		{"manifest":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}}}],
		"exemptions":[{"user":"alice","operations":["UPDATE"],"reason":"a","until":"2026-12-01T11:00:00Z"},
		{"group":"vendors","operations":["UPDATE"],"reason":"b"}]}}`})
	if err != nil {
		t.Fatal(err)
	}
	got := exemptions(set, now)
	if len(got) != 2 || *got[0].DaysLeft != 2 || got[1].DaysLeft != nil || got[0].Reservation != "edge" {
		t.Errorf("got %+v", got)
	}
}
