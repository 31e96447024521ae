// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package matchconditions

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

const (
	lastUsed   = "kubernetes.io/legacy-token-last-used"
	labelOwned = `{"f:metadata":{"f:labels":{"f:` + lastUsed + `":{}}}}`
)

// tokenSecret is a reserved token Secret in which every field of the metadata and of the Secret is set.
func tokenSecret(t *testing.T) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{}
	fill(t, reflect.ValueOf(secret).Elem(), "a")
	secret.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	secret.StringData = nil // the API server never sends it to a webhook
	secret.Name, secret.Namespace = "apigw-ingress-token-guardian", metav1.NamespaceSystem
	secret.Annotations = map[string]string{corev1.ServiceAccountNameKey: "apigw-ingress"}
	secret.Labels = map[string]string{lastUsed: "2026-11-26", "other": "a"}
	secret.ManagedFields = []metav1.ManagedFieldsEntry{
		managed("kube-controller-manager", metav1.ManagedFieldsOperationUpdate, `{"f:data":{"f:token":{}}}`),
	}
	return secret
}

func managed(manager string, operation metav1.ManagedFieldsOperationType, owned string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: operation, APIVersion: "v1", Time: new(metav1.Unix(1_790_000_000, 0)),
		FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(owned),
	}
}

// fill sets a value, and all that it holds, to something that follows from seed and is set: seed "a" makes a bool true.
func fill(t *testing.T, v reflect.Value, seed string) {
	t.Helper()
	switch v.Interface().(type) {
	case metav1.Time:
		v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(1_790_000_000+int64(len(seed)), 0).UTC())))
		return
	case metav1.FieldsV1:
		v.Set(reflect.ValueOf(*metav1.NewFieldsV1(`{"f:` + seed + `":{}}`)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(seed)
	case reflect.Bool:
		v.SetBool(seed == "a")
	case reflect.Int64:
		v.SetInt(int64(len(seed)))
	case reflect.Uint8:
		v.SetUint(uint64(seed[0]))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), seed)
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field, seed)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), seed)
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(t, value, seed)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(seed), value)
	default:
		t.Fatalf("%s: teach fill this kind", v.Type())
	}
}

// update is an update of a Secret by the API server.
func update(t *testing.T, old, object *corev1.Secret) *admissionv1.AdmissionRequest {
	t.Helper()
	return &admissionv1.AdmissionRequest{
		UID: "1", Operation: admissionv1.Update, UserInfo: apiServer(),
		Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Secret"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
		Name:     object.Name, Namespace: metav1.NamespaceSystem, Object: raw(t, object), OldObject: raw(t, old),
	}
}

func raw(t *testing.T, object any) runtime.RawExtension {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: data}
}

// labelled returns a copy with the label as the API server writes it.
func labelled(secret *corev1.Secret) *corev1.Secret {
	secret = secret.DeepCopy()
	secret.Labels[lastUsed] = "2026-11-27"
	return secret
}

// TestNoOtherFieldChangesUnseen sets, changes and removes every field of a Secret and of its metadata, as the Go types have
// them: with a newer Kubernetes, a field more. Only the metadata's resourceVersion may change unseen.
func TestNoOtherFieldChangesUnseen(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			for path, change := range fieldChanges(t) {
				t.Run(path, func(t *testing.T) {
					old, object := tokenSecret(t), labelled(tokenSecret(t))
					change(old, object)
					request := update(t, old, object)
					skipped, reason := server.skips(t, request), judged(t, request)
					if skipped && !needsNoGuard(reason) {
						t.Errorf("skipped, and the policy says %s", reason)
					}
					if want := strings.HasPrefix(path, "metadata.resourceVersion"); skipped != want {
						t.Errorf("skipped: got %t, want %t", skipped, want)
					}
				})
			}
		})
	}
}

// fieldChanges returns three edits for each field, which make it differ between an old Secret and its update.
func fieldChanges(t *testing.T) map[string]func(old, object *corev1.Secret) {
	t.Helper()
	changes := map[string]func(old, object *corev1.Secret){}
	add := func(path string, field func(*corev1.Secret) reflect.Value) {
		changes[path+" added"] = func(old, _ *corev1.Secret) { field(old).SetZero() }
		changes[path+" removed"] = func(_, object *corev1.Secret) { field(object).SetZero() }
		changes[path+" changed"] = func(_, object *corev1.Secret) { fill(t, field(object), "apigw-ingress-token-other") }
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[metav1.ObjectMeta]()) {
		add("metadata."+jsonName(field), func(s *corev1.Secret) reflect.Value {
			return reflect.ValueOf(&s.ObjectMeta).Elem().FieldByIndex(field.Index)
		})
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[corev1.Secret]()) {
		if name := jsonName(field); len(field.Index) == 1 && !field.Anonymous && name != "stringData" {
			add(name, func(s *corev1.Secret) reflect.Value { return reflect.ValueOf(s).Elem().FieldByIndex(field.Index) })
		}
	}
	return changes
}

func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

func TestTheAPIServersOwnWriteIsSkipped(t *testing.T) {
	own := managed("kube-apiserver", metav1.ManagedFieldsOperationUpdate, labelOwned)
	first := managed("kube-apiserver", metav1.ManagedFieldsOperationUpdate,
		`{"f:metadata":{"f:labels":{".":{},"f:`+lastUsed+`":{}}}}`)
	later := *own.DeepCopy()
	later.Time = new(metav1.Unix(1_790_086_400, 0))
	for name, edit := range map[string]func(old, object *corev1.Secret){
		"the next day":  func(*corev1.Secret, *corev1.Secret) {},
		"the first use": func(old, _ *corev1.Secret) { delete(old.Labels, lastUsed) },
		"the first label": func(old, object *corev1.Secret) {
			old.Labels, object.Labels = nil, map[string]string{lastUsed: "2026-11-27"}
		},
		"after junk":                     func(old, _ *corev1.Secret) { old.Labels[lastUsed] = "junk" },
		"an entry of managedFields more": func(_, object *corev1.Secret) { object.ManagedFields = append(object.ManagedFields, own) },
		"with the label map":             func(_, object *corev1.Secret) { object.ManagedFields = append(object.ManagedFields, first) },
		"its entry of managedFields anew": func(old, object *corev1.Secret) {
			own, later := own, later
			old.ManagedFields = append(old.ManagedFields, own)
			object.ManagedFields = append(object.ManagedFields, later)
		},
		"no managedFields at all": func(old, object *corev1.Secret) { old.ManagedFields, object.ManagedFields = nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			old := tokenSecret(t)
			object := labelled(old)
			edit(old, object)
			request := update(t, old, object)
			if reason := judged(t, request); reason != policy.SystemWrite {
				t.Errorf("policy: got %s, want %s", reason, policy.SystemWrite)
			}
			for name, server := range servers {
				if !server.skips(t, request) {
					t.Errorf("%s: not skipped", name)
				}
			}
		})
	}
}

// managedFields decide who may remove a field later.
func TestManagedFieldsAreNotHandedOverUnseen(t *testing.T) {
	update := metav1.ManagedFieldsOperationUpdate
	for name, edit := range map[string]func([]metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry{
		"all removed": func([]metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry { return nil },
		"an entry given to another manager": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			e[0].Manager = "mallory"
			return e
		},
		"an entry turned into an apply": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			e[0].Operation = metav1.ManagedFieldsOperationApply
			return e
		},
		"an entry that owns the token": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("kube-apiserver", update, `{"f:data":{"f:token":{}}}`))
		},
		"an entry that owns the label and more": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("kube-apiserver", update, `{"f:metadata":{"f:labels":{"f:`+lastUsed+`":{}}},"f:type":{}}`))
		},
		"an entry that applies the label": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("kube-apiserver", metav1.ManagedFieldsOperationApply, labelOwned))
		},
		"an entry that kubectl turns into an apply": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("kubectl-client-side-apply", update, labelOwned))
		},
		"an entry of before the first apply": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("before-first-apply", update, labelOwned))
		},
		"an entry of no manager": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("", update, labelOwned))
		},
		"an entry of no operation": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			return append(e, managed("kube-apiserver", "", labelOwned))
		},
		"an entry of a subresource": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			e = append(e, managed("kube-apiserver", update, labelOwned))
			e[1].Subresource = "status"
			return e
		},
		"an entry that owns nothing": func(e []metav1.ManagedFieldsEntry) []metav1.ManagedFieldsEntry {
			e = append(e, managed("mallory", update, labelOwned))
			e[1].FieldsV1 = nil
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			requireAsked(t, func(_, object *corev1.Secret) { object.ManagedFields = edit(object.ManagedFields) })
		})
	}
}

func TestOtherLabelsDoNotChangeUnseen(t *testing.T) {
	for name, edit := range map[string]func(old, object *corev1.Secret){
		"the label removed":     func(_, object *corev1.Secret) { delete(object.Labels, lastUsed) },
		"all labels removed":    func(_, object *corev1.Secret) { object.Labels = nil },
		"another label added":   func(_, object *corev1.Secret) { object.Labels["more"] = "a" },
		"another label changed": func(_, object *corev1.Secret) { object.Labels["other"] = "b" },
		"another label removed": func(_, object *corev1.Secret) { delete(object.Labels, "other") },
		"the credential disabled": func(_, object *corev1.Secret) {
			object.Labels["kubernetes.io/legacy-token-invalid-since"] = "2026-11-27"
		},
		"a value of data changed": func(_, object *corev1.Secret) { object.Data["a"] = []byte("b") },
		"an annotation added":     func(_, object *corev1.Secret) { object.Annotations["more"] = "a" },
	} {
		t.Run(name, func(t *testing.T) { requireAsked(t, edit) })
	}
}

// requireAsked wants the guard asked about an update by the API server that also sets the label.
func requireAsked(t *testing.T, edit func(old, object *corev1.Secret)) {
	t.Helper()
	old := tokenSecret(t)
	object := labelled(old)
	edit(old, object)
	request := update(t, old, object)
	for name, server := range servers {
		if server.skips(t, request) {
			t.Errorf("%s: skipped", name)
		}
	}
}

// The label is a day of the calendar for both, or for neither.
func TestTheLabelIsADate(t *testing.T) {
	for value, isDate := range map[string]bool{
		"2026-11-27": true, "2026-01-31": true, "2026-04-30": true, "2028-02-29": true, "0001-01-01": true, "2026-12-31": true,
		"": false, "junk": false, "today": false, "2026-13-01": false, "2026-00-10": false, "2026-11-31": false, "2026-02-30": false,
		"2026-11-00": false, "2026-1-1": false, "26-11-27": false, "2026-11-27T00": false, "a2026-11-27": false, "2026-11-27.": false,
		"2026.11.27": false, "20261127": false, "12026-11-27": false, "2026-11-27-2026-11-27": false, "\u0662\u0660\u0662\u0666-11-27": false,
		"2026-11-27\n": false, "2026-11-32": false, "2026-06-31": false, "-026-11-27": false, "+026-11-27": false,
		strings.Repeat("2", 63): false, strings.Repeat("2026-11-27", 6): false,
	} {
		t.Run(value, func(t *testing.T) {
			old := tokenSecret(t)
			object := labelled(old)
			object.Labels[lastUsed] = value
			request := update(t, old, object)
			if reason := judged(t, request); (reason == policy.SystemWrite) != isDate {
				t.Errorf("policy: got %s, want a system write: %t", reason, isDate)
			}
			for name, server := range servers {
				if skipped := server.skips(t, request); skipped != isDate {
					t.Errorf("%s: skipped: got %t, want %t", name, skipped, isDate)
				}
			}
		})
	}
}

func TestOnlyTheAPIServerIsSkipped(t *testing.T) {
	for name, user := range map[string]authenticationv1.UserInfo{
		"nobody":                   {},
		"an administrator":         {Username: "admin", Groups: []string{"system:masters"}},
		"another group":            {Username: "system:apiserver", Groups: []string{"system:authenticated"}},
		"no group":                 {Username: "system:apiserver"},
		"the controller manager":   {Username: "system:kube-controller-manager", Groups: []string{"system:masters"}},
		"a name that starts alike": {Username: "system:apiserver2", Groups: []string{"system:masters"}},
	} {
		t.Run(name, func(t *testing.T) {
			old := tokenSecret(t)
			request := update(t, old, labelled(old))
			request.UserInfo = user
			for name, server := range servers {
				if server.skips(t, request) {
					t.Errorf("%s: skipped", name)
				}
			}
		})
	}
}

// The API server bounds the cost of all match conditions of a webhook together, and refuses the write above it.
func TestTheLargestSecretStaysWithinTheCost(t *testing.T) {
	old := tokenSecret(t)
	old.Data = map[string][]byte{"token": []byte(strings.Repeat("a", corev1.MaxSecretSize))}
	for range 100 {
		old.ManagedFields = append(old.ManagedFields, old.ManagedFields[0])
	}
	request := update(t, old, labelled(old))
	for name, server := range servers {
		if !server.skips(t, request) {
			t.Errorf("%s: not skipped", name)
		}
	}
}
