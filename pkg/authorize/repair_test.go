// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// set puts a value at a path of a live object.
func set(value any, path ...string) func(*unstructured.Unstructured) {
	return func(object *unstructured.Unstructured) {
		if err := unstructured.SetNestedField(object.Object, value, path...); err != nil {
			panic(err)
		}
	}
}

func all(changes ...func(*unstructured.Unstructured)) func(*unstructured.Unstructured) {
	return func(object *unstructured.Unstructured) {
		for _, change := range changes {
			change(object)
		}
	}
}

func TestRepairPatch(t *testing.T) {
	tests := map[string]struct {
		kind   string
		change func(*unstructured.Unstructured)
		want   string
	}{
		"an equal object needs nothing": {"ClusterRole", nil, `{"metadata":{"resourceVersion":"7"}}`},
		"an extra field is nulled whole": {
			"ClusterRole", set([]any{}, "aggregationRule", "clusterRoleSelectors"),
			`{"aggregationRule":null,"metadata":{"resourceVersion":"7"}}`,
		},
		"a changed list is set whole": {
			"ClusterRoleBinding", set([]any{map[string]any{"kind": "User", "name": "eve"}}, "subjects"),
			`{"metadata":{"resourceVersion":"7"},"subjects":[{"kind":"ServiceAccount","name":"clerk","namespace":"kube-system"}]}`,
		},
		"what is missing is set": {
			"ClusterRoleBinding", func(object *unstructured.Unstructured) { delete(object.Object, "subjects") },
			`{"metadata":{"resourceVersion":"7"},"subjects":[{"kind":"ServiceAccount","name":"clerk","namespace":"kube-system"}]}`,
		},
		"extra metadata is nulled, and what kubectl keeps there is not": {
			"ServiceAccount", all(
				set("x", "metadata", "labels", "a"),
				set("y", "metadata", "annotations", "b"),
				set(`{"kind":"ServiceAccount"}`, "metadata", "annotations", corev1.LastAppliedConfigAnnotation),
				set([]any{"a.b/c"}, "metadata", "finalizers"),
				set([]any{map[string]any{"kind": "Pod"}}, "metadata", "ownerReferences"),
			),
			`{"metadata":{"annotations":{"b":null},"finalizers":null,"labels":null,"ownerReferences":null,"resourceVersion":"7"}}`,
		},
		"a false note of kubectl is nulled": {
			"ServiceAccount", set(`{"metadata":{"uid":"x"}}`, "metadata", "annotations", corev1.LastAppliedConfigAnnotation),
			`{"metadata":{"annotations":null,"resourceVersion":"7"}}`,
		},
		"what the cluster writes of a ServiceAccount is left alone": {
			"ServiceAccount", all(
				set([]any{map[string]any{"name": "clerk-token-x"}}, "secrets"),
				set([]any{map[string]any{"name": "pull"}}, "imagePullSecrets"),
				set(false, "automountServiceAccountToken"),
			),
			`{"automountServiceAccountToken":null,"imagePullSecrets":null,"metadata":{"resourceVersion":"7"}}`,
		},
		"what the cluster writes of a token Secret is left alone": {
			"Secret", all(
				set("Y2FuYXJ5", "data", "token"),
				set("uid-1", "metadata", "annotations", corev1.ServiceAccountUIDKey),
				set("2026-01-01", "metadata", "labels", reserved.LastUsedLabel),
				set("2026-01-01", "metadata", "labels", "kubernetes.io/legacy-token-invalid-since"),
			),
			`{"metadata":{"labels":{"kubernetes.io/legacy-token-invalid-since":null},"resourceVersion":"7"}}`,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entry := shop.Resource(t, shop.Reservation, test.kind)
			object := shop.LiveAs(entry, test.change)
			before, err := live.Drift(entry, object)
			if err != nil {
				t.Fatal(err)
			}
			patch, err := repairPatch(live.Object{Resource: entry, Live: object, Drift: before})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(patch)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			var decoded map[string]any
			if err := json.Unmarshal(patch, &decoded); err != nil {
				t.Fatal(err)
			}
			repaired := &unstructured.Unstructured{Object: mergePatched(object.Object, decoded)}
			if drift, err := live.Drift(entry, repaired); err != nil || len(drift) > 0 {
				t.Errorf("repaired it still differs in %v (%v)", drift, err)
			}
		})
	}
}

// mergePatched is RFC 7386 in ten lines.
func mergePatched(target, patch map[string]any) map[string]any {
	for key, value := range patch {
		inner, isObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(target, key)
		case isObject:
			below, _ := target[key].(map[string]any)
			if below == nil {
				below = map[string]any{}
			}
			target[key] = mergePatched(below, inner)
		default:
			target[key] = value
		}
	}
	return target
}

func TestIrreparable(t *testing.T) {
	tests := map[string]struct {
		kind   string
		change func(*unstructured.Unstructured)
		want   []string
	}{
		"extra metadata can be repaired":         {"Secret", set("x", "metadata", "labels", "a"), nil},
		"a role's rules can be repaired":         {"ClusterRole", set([]any{}, "rules"), nil},
		"a binding's subjects can be repaired":   {"ClusterRoleBinding", set([]any{}, "subjects"), nil},
		"the role of a binding is for ever":      {"ClusterRoleBinding", set("view", "roleRef", "name"), []string{"roleRef.name"}},
		"the type of a Secret is for ever":       {"Secret", set("Opaque", "type"), []string{"type"}},
		"a frozen Secret stays frozen":           {"Secret", set(true, "immutable"), []string{"immutable"}},
		"a Secret can still get its own account": {"Secret", set("eve", "metadata", "annotations", corev1.ServiceAccountNameKey), nil},
		"a filled Secret of another account is lost": {
			"Secret", all(set("eve", "metadata", "annotations", corev1.ServiceAccountNameKey), set("Y2FuYXJ5", "data", "token")),
			[]string{accountPath},
		},
		"what is being deleted cannot be repaired": {
			"ServiceAccount", func(object *unstructured.Unstructured) {
				object.SetFinalizers([]string{"a.b/c"})
				object.SetDeletionTimestamp(&metav1.Time{})
				object.Object["metadata"].(map[string]any)["deletionTimestamp"] = "2026-01-01T00:00:00Z"
			}, []string{"metadata.deletionTimestamp"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			entry := shop.Resource(t, shop.Reservation, test.kind)
			object := shop.LiveAs(entry, test.change)
			drift, err := live.Drift(entry, object)
			if err != nil || len(drift) == 0 {
				t.Fatalf("no drift: %v", err)
			}
			if diff := cmp.Diff(test.want, immutableDrift(live.Object{Resource: entry, Live: object, Drift: drift})); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestOnlyTheCAOfATokenSecretCanBeRepaired(t *testing.T) {
	f := live.Object{Resource: shop.Resource(t, shop.Reservation, "Secret"), Drift: []string{"data.namespace", live.RootCAPath, "data[a.b]"}}
	if diff := cmp.Diff([]string{"data.namespace", "data[a.b]"}, immutableDrift(f)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRenewCAWaitsForTheControllerManager(t *testing.T) {
	entry := shop.Resource(t, shop.Reservation, "Secret")
	for name, test := range map[string]struct {
		ca   string
		want error
	}{"that writes it": {shop.RootCA, nil}, "that does not": {"foreign", ErrDiffers}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, client, dynamicClient := newFake(t, []runtime.Object{shop.Published(), shop.Filled("ca.crt", "foreign")}, nil)
				patches := acceptPatches(dynamicClient, entry, nil)
				time.AfterFunc(10*time.Second, func() {
					if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Update(
						t.Context(), shop.Filled("ca.crt", test.ca), metav1.UpdateOptions{}); err != nil {
						t.Error(err)
					}
				})
				err := a.renewCA(t.Context(), live.Object{Resource: entry, Live: shop.LiveAs(entry, nil)}, time.Minute)
				if !errors.Is(err, test.want) || len(*patches) != 2 {
					t.Errorf("got %v and patches %v", err, *patches)
				}
			})
		})
	}
}
