// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Scenario is one write and its preparation. Its name is the name of its review in the corpus.
type Scenario struct {
	Name string
	// Prepare changes the world without the guard before the write; nil if no change is necessary.
	Prepare func(ctx context.Context, w *World) error
	// Write returns the write that the guard judges.
	Write func(w *World) Write
	// Unasked says that the match conditions keep the write from the guard.
	Unasked bool
}

// The users of a control plane. An administrator can impersonate them.
var (
	controllerManager = Identity{User: "system:kube-controller-manager", Groups: []string{"system:authenticated"}}
	apiServer         = Identity{User: "system:apiserver", Groups: []string{"system:masters"}}
)

// prepared returns a function that sends the writes to the unguarded API server.
func prepared(writes ...func(*World) Write) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		for _, write := range writes {
			if _, err := w.Unguarded.must(ctx, write(w), http.StatusOK, http.StatusCreated, http.StatusAccepted); err != nil {
				return err
			}
		}
		return nil
	}
}

func (w Write) as(identity Identity) Write {
	w.As = identity
	return w
}

// All returns every scenario. Sorting by name groups them by the written object.
func All() []Scenario {
	return slices.Concat(accounts(), roles(), bindings(), tokens(), mints(), fills(), deletions(), unrelated())
}

func accounts() []Scenario {
	account := func(name, patch string) Scenario {
		return Scenario{Name: "account-" + name, Write: func(w *World) Write { return Merge(w.Account, patch) }}
	}
	addLabel := func(w *World) Write { return Merge(w.Account, `{"metadata":{"labels":{"team":"a","zone":"b"}}}`) }
	return []Scenario{
		account("label", `{"metadata":{"labels":{"team":"a"}}}`),
		account("annotation", `{"metadata":{"annotations":{"example.com/note.a":"x"}}}`),
		account("secrets", `{"secrets":[{"name":"foreign"}]}`),
		account("image-pull-secrets", `{"imagePullSecrets":[{"name":"foreign"}]}`),
		account("automount", `{"automountServiceAccountToken":true}`),
		account("absent-owner", `{"metadata":{"ownerReferences":[`+absentOwner+`]}}`),
		account("finalizer", `{"metadata":{"finalizers":["example.com/hold"]}}`),
		{
			Name: "account-restore-label", Prepare: prepared(addLabel),
			Write: func(w *World) Write { return Merge(w.Account, `{"metadata":{"labels":{"team":null}}}`) },
		},
		{
			Name: "account-restore-label-and-add", Prepare: prepared(addLabel),
			Write: func(w *World) Write { return Merge(w.Account, `{"metadata":{"labels":{"team":null,"own":"c"}}}`) },
		},
		{
			Name:    "account-drops-reference-of-secret-gone",
			Prepare: prepared(func(w *World) Write { return Merge(w.Account, `{"secrets":[{"name":"absent"},{"name":"kept"}]}`) }),
			Write:   func(w *World) Write { return Merge(w.Account, `{"secrets":[{"name":"kept"}]}`).as(controllerManager) },
		},
		{
			Name: "account-drops-reference-of-secret-that-lives",
			Prepare: prepared(func(w *World) Write {
				return Merge(w.Account, `{"secrets":[{"name":"`+w.Token.Name+`"}]}`)
			}),
			Write: func(w *World) Write { return Merge(w.Account, `{"secrets":null}`).as(controllerManager) },
		},
		{
			Name: "account-by-controller-manager",
			Write: func(w *World) Write {
				return Merge(w.Account, `{"metadata":{"labels":{"team":"a"}}}`).as(controllerManager)
			},
		},
	}
}

// absentOwner makes the garbage collector delete the object.
const absentOwner = `{"apiVersion":"v1","kind":"ConfigMap","name":"absent","uid":"00000000-0000-4000-8000-000000000000"}`

// lastApplied writes what kubectl apply keeps about an object.
func lastApplied(name string, of func(*World) *Object, applied func(*Object) string) Scenario {
	return Scenario{Name: name, Write: func(w *World) Write {
		quoted, _ := json.Marshal(applied(of(w))) // a string
		return Merge(of(w), `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":`+string(quoted)+`}}}`)
	}}
}

func theRole(w *World) *Object { return w.Role }

func theToken(w *World) *Object { return w.Token }

func roles() []Scenario {
	role := func(name, operations string) Scenario {
		return Scenario{Name: "role-" + name, Write: func(w *World) Write { return Patch(w.Role, operations) }}
	}
	narrow := func(w *World) Write {
		return Patch(w.Role, `[{"op":"replace","path":"/rules/2/verbs","value":["get"]}]`)
	}
	return []Scenario{
		role("verbs", `[{"op":"replace","path":"/rules/2/verbs","value":["get"]}]`),
		role("verbs-and-resources", `[{"op":"replace","path":"/rules/0/verbs","value":["get"]},`+
			`{"op":"add","path":"/rules/1/resources/-","value":"jobs"}]`),
		role("one-rule-more", `[{"op":"add","path":"/rules/-","value":{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}}]`),
		role("one-rule-less", `[{"op":"remove","path":"/rules/3"}]`),
		role("no-rules", `[{"op":"remove","path":"/rules"}]`),
		role("rules-in-another-order", `[{"op":"move","from":"/rules/0","path":"/rules/6"}]`),
		role("aggregation-rule", `[{"op":"add","path":"/aggregationRule","value":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]}}]`),
		role("aggregate-label", `[{"op":"add","path":"/metadata/labels","value":{"rbac.authorization.k8s.io/aggregate-to-admin":"true"}}]`),
		role("many-labels", `[{"op":"add","path":"/metadata/labels","value":`+manyLabels()+`}]`),
		{
			Name:  "role-put-unchanged",
			Write: func(w *World) Write { return Put(w.Role, func(*unstructured.Unstructured) {}) },
		},
		{
			Name:  "role-apply-unchanged",
			Write: func(w *World) Write { return Apply(w.Role, string(w.Role.Manifest())) },
		},
		lastApplied("role-last-applied-annotation", theRole, func(*Object) string { return "{}" }),
		lastApplied("role-last-applied-manifest", theRole, func(o *Object) string { return string(o.Manifest()) }),
		lastApplied("role-last-applied-garbage", theRole, func(*Object) string { return "garbage" }),
		{
			Name: "role-restore-rules", Prepare: prepared(narrow),
			Write: func(w *World) Write { return Apply(w.Role, string(w.Role.Manifest())) },
		},
		{
			Name: "role-restore-half", Prepare: prepared(narrow),
			Write: func(w *World) Write {
				return Patch(w.Role, `[{"op":"replace","path":"/rules/2/verbs","value":["get","list"]}]`)
			},
		},
		{
			Name:    "role-remove-finalizer",
			Prepare: prepared(func(w *World) Write { return Merge(w.Role, `{"metadata":{"finalizers":["example.com/hold"]}}`) }),
			Write:   func(w *World) Write { return Merge(w.Role, `{"metadata":{"finalizers":null}}`) },
		},
		{
			Name: "role-remove-last-finalizer-while-deleted",
			Prepare: prepared(
				func(w *World) Write { return Merge(w.Role, `{"metadata":{"finalizers":["example.com/hold"]}}`) },
				func(w *World) Write { return Delete(w.Role) }),
			Write: func(w *World) Write { return Merge(w.Role, `{"metadata":{"finalizers":null}}`) },
		},
	}
}

// manyLabels returns a patch with more labels than a message names.
func manyLabels() string {
	var labels []string
	for _, letter := range "abcdefghijklmnopqrst" {
		labels = append(labels, `"label-`+string(letter)+`":"x"`)
	}
	return "{" + strings.Join(labels, ",") + "}"
}

func bindings() []Scenario {
	return []Scenario{
		{
			Name: "binding-one-subject-more",
			Write: func(w *World) Write {
				return Patch(w.Binding, `[{"op":"add","path":"/subjects/-","value":{"kind":"ServiceAccount","namespace":"default","name":"default"}}]`)
			},
		},
		{
			Name:  "binding-no-subjects",
			Write: func(w *World) Write { return Patch(w.Binding, `[{"op":"remove","path":"/subjects"}]`) },
		},
		{
			Name: "binding-other-subject",
			Write: func(w *World) Write {
				return Put(w.Binding, func(o *unstructured.Unstructured) {
					o.Object["subjects"] = []any{map[string]any{"kind": "User", "apiGroup": w.Binding.GVR.Group, "name": "eve"}}
				})
			},
		},
		{
			Name:    "binding-restore-subjects",
			Prepare: prepared(func(w *World) Write { return Patch(w.Binding, `[{"op":"remove","path":"/subjects"}]`) }),
			Write:   func(w *World) Write { return Apply(w.Binding, string(w.Binding.Manifest())) },
		},
	}
}

func tokens() []Scenario {
	token := func(name, patch string) Scenario {
		return Scenario{Name: "token-" + name, Write: func(w *World) Write { return Merge(w.Token, patch) }}
	}
	const invalid = `{"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":"2026-01-01"}}}`
	return []Scenario{
		token("blanked", `{"data":{"token":""}}`),
		token("removed", `{"data":{"token":null}}`),
		token("wrong-ca", `{"data":{"ca.crt":"Zm9yZWlnbg=="}}`),
		token("extra-key", `{"data":{"extra":"Zm9yZWlnbg=="}}`),
		token("immutable", `{"immutable":true}`),
		token("label", `{"metadata":{"labels":{"team":"a"}}}`),
		token("invalid-since", invalid),
		token("uid-annotation", `{"metadata":{"annotations":{"kubernetes.io/service-account.uid":"x"}}}`),
		token("absent-owner", `{"metadata":{"ownerReferences":[`+absentOwner+`]}}`),
		token("last-used-by-admin", `{"metadata":{"labels":{"kubernetes.io/legacy-token-last-used":"2026-01-01"}}}`),
		{
			Name:    "token-restore-invalid-since",
			Prepare: prepared(func(w *World) Write { return Merge(w.Token, invalid) }),
			Write: func(w *World) Write {
				return Merge(w.Token, `{"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":null}}}`)
			},
		},
		lastApplied("token-last-applied-manifest", theToken, func(o *Object) string { return string(o.Manifest()) }),
		lastApplied("token-last-applied-token", theToken, func(o *Object) string {
			return strings.Replace(string(o.Manifest()), `{`, `{"data":{"token":"bm90IGEgdG9rZW4="},`, 1)
		}),
		{
			Name: "token-last-used-by-api-server", Unasked: true,
			Write: func(w *World) Write {
				return Merge(w.Token, `{"metadata":{"labels":{"kubernetes.io/legacy-token-last-used":"2026-01-01"}}}`).as(apiServer)
			},
		},
		{
			Name: "token-more-than-last-used-by-api-server",
			Write: func(w *World) Write {
				return Merge(w.Token, `{"metadata":{"labels":{"kubernetes.io/legacy-token-last-used":"2026-01-01","team":"a"}}}`).as(apiServer)
			},
		},
	}
}

// tokenSecret returns a Secret that requests a token of the account.
func tokenSecret(name, account string) string {
	return `{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token","metadata":{"name":"` + name +
		`","namespace":"kube-system","annotations":{"kubernetes.io/service-account.name":"` + account + `"}}}`
}

// mints returns the two ways to get a credential that a rule on names would miss, and similar writes.
func mints() []Scenario {
	mint := func(name, manifest string) Scenario {
		return Scenario{Name: "mint-" + name, Write: func(w *World) Write { return Create(w.Token, manifest) }}
	}
	generated := strings.Replace(tokenSecret("x", "apigw-ingress"), `"name":"x"`, `"generateName":"apigw-ingress-token-"`, 1)
	return []Scenario{
		mint("under-another-name", tokenSecret("innocent", "apigw-ingress")),
		mint("under-the-prefix", tokenSecret("apigw-ingress-token-x", "apigw-ingress")),
		mint("generated-name", generated),
		mint("prefix-without-account", `{"apiVersion":"v1","kind":"Secret",`+
			`"metadata":{"name":"apigw-ingress-token-x","namespace":"kube-system"}}`),
		{
			Name: "mint-by-another-accounts-secret",
			Prepare: prepared(
				func(w *World) Write {
					return Apply(other(w.Account, "other"),
						`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"other","namespace":"kube-system"}}`)
				},
				func(w *World) Write { return Apply(other(w.Token, "other-token"), tokenSecret("other-token", "other")) }),
			Write: func(w *World) Write {
				return Put(repointed(w.Token, "other-token"), func(*unstructured.Unstructured) {})
			},
		},
		{
			Name:    "mint-of-another-account",
			Write:   func(w *World) Write { return Create(w.Token, tokenSecret("default-token", "default")) },
			Unasked: true,
		},
	}
}

// other returns another object of the same kind and namespace.
func other(object *Object, name string) *Object {
	copied := *object
	copied.Path = object.Collection + "/" + name
	return &copied
}

// repointed returns the token Secret of another account, changed to request a token of the reserved account.
func repointed(token *Object, name string) *Object {
	changed := other(token, name)
	changed.Live = &unstructured.Unstructured{}
	if err := changed.Live.UnmarshalJSON([]byte(tokenSecret(name, token.Account))); err != nil {
		panic(err) // impossible: the text is a constant
	}
	return changed
}

// fills returns the writes of the controller manager to a token Secret, and similar writes by an attacker who impersonates it.
func fills() []Scenario {
	fill := func(name, patch string) Scenario {
		return Scenario{Name: "fill-" + name, Write: func(w *World) Write { return Merge(w.Token, patch).as(controllerManager) }}
	}
	return []Scenario{
		fill("other-ca", `{"data":{"ca.crt":"bmV3"}}`),
		fill("other-token", `{"data":{"token":"bmV3"}}`),
		fill("label-too", `{"data":{"ca.crt":"bmV3"},"metadata":{"labels":{"a":"b"}}}`),
		fill("blanks", `{"data":{"token":null}}`),
		fill("other-uid", `{"metadata":{"annotations":{"kubernetes.io/service-account.uid":"x"}}}`),
		fill("other-namespace", `{"data":{"namespace":"ZGVmYXVsdA=="}}`),
		fill("extra-key", `{"data":{"extra":"Zm9yZWlnbg=="}}`),
		fillEmpty("token", func(*filling) {}),
		fillEmpty("token-with-garbage", func(f *filling) { f.token = "garbage" }),
		fillEmpty("token-with-another-accounts", func(f *filling) { f.token = f.signed("default", f.secret, f.uid) }),
		fillEmpty("token-with-another-secrets", func(f *filling) { f.token = f.signed("apigw-ingress", "innocent", f.uid) }),
		fillEmpty("token-with-another-uids", func(f *filling) { f.token = f.signed("apigw-ingress", f.secret, "x") }),
		fillEmpty("token-for-another-uid", func(f *filling) { f.uid = "x" }),
		fillEmpty("token-in-another-namespace", func(f *filling) { f.namespace = "default" }),
		fillEmpty("token-with-a-wrong-ca", func(f *filling) { f.ca = "wrong" }),
		{
			Name:    "fill-bogus-uid",
			Prepare: emptyToken(),
			Write:   func(w *World) Write { return Merge(w.Token, bogusUID).as(controllerManager) },
		},
	}
}

// bogusUID is a patch that sets the UID of an account that never existed.
const bogusUID = `{"metadata":{"annotations":{"kubernetes.io/service-account.uid":"bogus"}}}`

// emptyToken returns a preparation that leaves the token Secret empty, and then sends the writes.
func emptyToken(writes ...func(*World) Write) func(context.Context, *World) error {
	return withoutController(append([]func(*World) Write{func(w *World) Write { return Delete(w.Token) }, createToken}, writes...)...)
}

// filling has the values that the controller manager writes to an empty token Secret.
type filling struct{ namespace, secret, uid, ca, token string }

// fillEmpty returns a scenario that fills the empty token Secret with true values, changed by edit. The token's signature is
// invalid, because the guard reads only its claims.
func fillEmpty(name string, edit func(*filling)) Scenario {
	return Scenario{
		Name:    "fill-empty-" + name,
		Prepare: emptyToken(),
		Write: func(w *World) Write {
			f := filling{namespace: "kube-system", secret: w.Token.Name, uid: string(w.Account.Live.GetUID())}
			ca, err := os.ReadFile(w.Cluster.RootCAFile())
			if err != nil {
				panic(err) // impossible: the cluster uses the file
			}
			f.ca, f.token = string(ca), f.signed("apigw-ingress", f.secret, f.uid)
			edit(&f)
			return Merge(w.Token, f.patch()).as(controllerManager)
		},
	}
}

func (f filling) patch() string {
	return fmt.Sprintf(`{"data":{"token":%q,"ca.crt":%q,"namespace":%q},"metadata":{"annotations":{"kubernetes.io/service-account.uid":%q}}}`,
		base64.StdEncoding.EncodeToString([]byte(f.token)), base64.StdEncoding.EncodeToString([]byte(f.ca)),
		base64.StdEncoding.EncodeToString([]byte(f.namespace)), f.uid)
}

// signed returns a token with the claims that the controller manager writes.
func (f filling) signed(account, secret, uid string) string {
	const claims = `{"iss":"kubernetes/serviceaccount","kubernetes.io/serviceaccount/namespace":%q,` +
		`"kubernetes.io/serviceaccount/secret.name":%q,"kubernetes.io/serviceaccount/service-account.name":%q,` +
		`"kubernetes.io/serviceaccount/service-account.uid":%q,"sub":"system:serviceaccount:%s:%s"}`
	encode := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(claims, f.namespace, secret, account, uid, f.namespace, account)
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(payload)) + "." + encode([]byte("nobody"))
}

func createToken(w *World) Write { return Create(w.Token, string(w.Token.Manifest())) }

// withoutController stops the controller manager, which would act on the writes, and sends them to the unguarded API server.
func withoutController(writes ...func(*World) Write) func(context.Context, *World) error {
	return func(ctx context.Context, w *World) error {
		w.stopController()
		return prepared(writes...)(ctx, w)
	}
}

func deletions() []Scenario {
	var scenarios []Scenario
	for _, kind := range []struct {
		name   string
		object func(*World) *Object
	}{
		{"account", func(w *World) *Object { return w.Account }},
		{"role", func(w *World) *Object { return w.Role }},
		{"binding", func(w *World) *Object { return w.Binding }},
		{"token", func(w *World) *Object { return w.Token }},
	} {
		scenarios = append(scenarios, Scenario{
			Name:  "delete-" + kind.name,
			Write: func(w *World) Write { return Delete(kind.object(w)) },
		}, Scenario{
			Name: "delete-collection-" + kind.name,
			Write: func(w *World) Write {
				object := kind.object(w)
				return Write{
					Method: http.MethodDelete, Path: object.Collection, ContentType: JSON,
					Query: map[string][]string{"fieldSelector": {"metadata.name=" + object.Name}},
				}
			},
		}, Scenario{
			Name: "create-" + kind.name + "-with-a-label",
			Write: func(w *World) Write {
				object := kind.object(w)
				labelled := object.Object()
				labelled.SetLabels(map[string]string{"team": "a"})
				body, _ := labelled.MarshalJSON()
				return Create(object, string(body))
			},
		}, Scenario{
			Name:  "create-" + kind.name,
			Write: func(w *World) Write { return Create(kind.object(w), string(kind.object(w).Manifest())) },
		})
	}
	deleteToken := func(w *World) Write { return Delete(w.Token).as(controllerManager) }
	return append(scenarios,
		Scenario{Name: "delete-token-of-account-that-lives", Write: deleteToken},
		Scenario{
			Name:    "delete-token-with-a-bogus-uid",
			Prepare: emptyToken(func(w *World) Write { return Merge(w.Token, bogusUID) }),
			Write:   deleteToken,
		},
		Scenario{
			Name:    "delete-token-of-account-gone",
			Prepare: withoutController(func(w *World) Write { return Delete(w.Account) }),
			Write:   deleteToken,
		})
}

func unrelated() []Scenario {
	return []Scenario{
		{
			Name: "unrelated-secret", Unasked: true,
			Write: func(w *World) Write {
				return Create(w.Token, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"unrelated","namespace":"kube-system"}}`)
			},
		},
		{
			Name: "unrelated-role", Unasked: true,
			Write: func(w *World) Write {
				return Create(w.Role, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"unrelated"}}`)
			},
		},
	}
}
