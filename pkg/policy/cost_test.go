// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// hostile has updates that try to take more than linear time. The functions take the approximate size in bytes.
func hostile() map[string]func(size int) (kind, old, new string, user v1alpha1.User) {
	object := func(labels, rest string) string {
		return `{"metadata":{` + rest + `"name":"apigw-ingress-clusterrole","uid":"x","labels":{` + labels + `}}}`
	}
	return map[string]func(int) (string, string, string, v1alpha1.User){
		"1,023 labels removed behind a large annotation": func(size int) (string, string, string, v1alpha1.User) {
			var labels []string
			for i := range 1023 {
				labels = append(labels, fmt.Sprintf(`"l%d":"x"`, i))
			}
			large := `"annotations":{"a":"` + strings.Repeat("x", size) + `"},`
			return "ClusterRole", object(strings.Join(labels, ","), large), object("", large), v1alpha1.User{Name: "eve"}
		},
		"labels by the hundred thousand": func(size int) (string, string, string, v1alpha1.User) {
			var labels strings.Builder
			for i := 0; labels.Len() < size; i++ {
				fmt.Fprintf(&labels, `"l%d":"x",`, i)
			}
			return "ClusterRole", object(labels.String()+`"z":"1"`, ""), object(`"z":"2"`, ""), v1alpha1.User{Name: "eve"}
		},
		"one rule of a large text": func(size int) (string, string, string, v1alpha1.User) {
			rules := func(verb string) string {
				return `{"metadata":{"name":"apigw-ingress-clusterrole"},"rules":[` + strings.TrimSuffix(strings.Repeat(
					`{"apiGroups":[""],"resources":["a","b"],"verbs":["`+verb+`"]},`, 500), ",") +
					`,{"apiGroups":["` + strings.Repeat(`\u003c`, size/6) + `"],"resources":["x"],"verbs":["get"]}]}`
			}
			return "ClusterRole", rules("get"), rules("list"), v1alpha1.User{Name: "eve"}
		},
		"a nested object around a large one": func(size int) (string, string, string, v1alpha1.User) {
			nested := func(text string) string {
				return `{"metadata":{"name":"apigw-ingress-clusterrole"},"x":` + strings.Repeat(`{"a":`, 9000) +
					`"` + strings.Repeat("x", size) + text + `"` + strings.Repeat("}", 9000) + "}"
			}
			return "ClusterRole", nested("1"), nested("2"), v1alpha1.User{Name: "eve"}
		},
		"references of an account": func(size int) (string, string, string, v1alpha1.User) {
			var list strings.Builder
			for i := 0; list.Len() < size; i++ {
				fmt.Fprintf(&list, `,{"name":"s%d"}`, i)
			}
			account := `{"metadata":{"namespace":"kube-system","name":"apigw-ingress"},"secrets":[{"name":"a"}` + list.String()
			return "ServiceAccount", account + `,{"name":"b"}]}`, account + "]}", v1alpha1.User{Name: DefaultControllerManager}
		},
		"a list of small elements": func(size int) (string, string, string, v1alpha1.User) {
			list := `{"metadata":{"name":"apigw-ingress-clusterrole"},"x":[{}` + strings.Repeat(",[]", size/3)
			return "ClusterRole", list + ",[1]]}", list + ",[2]]}", v1alpha1.User{Name: "eve"}
		},
		"managers of fields": func(size int) (string, string, string, v1alpha1.User) {
			var entries strings.Builder
			for i := 0; entries.Len() < size; i++ {
				fmt.Fprintf(&entries, `,{"manager":"m%d","operation":"Apply","fieldsV1":{"f:secrets":{}}}`, i)
			}
			account := `{"metadata":{"namespace":"kube-system","name":"apigw-ingress","managedFields":[{}` + entries.String() + `]}`
			return "ServiceAccount", account + "}", account + `,"x":1}`, v1alpha1.User{Name: "eve"}
		},
		"a last applied configuration": func(size int) (string, string, string, v1alpha1.User) {
			applied := strings.Repeat(`{\"a\":`, 9000) + `\"` + strings.Repeat("x", size) + `\"` + strings.Repeat("}", 9000)
			note := `"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"` + applied + `"},`
			return "ClusterRole", object("", ""), object("", note), v1alpha1.User{Name: "eve"}
		},
	}
}

// Every hostile update takes linear time: a comparison reads each byte a bounded number of times.
func TestAComparisonReadsEachByteAFewTimes(t *testing.T) {
	t.Parallel()
	for name, form := range hostile() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			kind, old, new, user := form(200_000)
			request := updateOf(t, kind, old, new, user)
			reviewed := builtInPolicy(t).Review(request)
			if changes := len(reviewed.write.changes); changes > maxChanges {
				t.Errorf("%d changes were collected", changes)
			}
			if got := decide(reviewed, true); got.Allowed && user.Name == "eve" && name != "1,023 labels removed behind a large annotation" {
				t.Errorf("allowed for %s", got.Reason)
			}
		})
	}
}

// BenchmarkHostile shows that the time is linear in the size of the review: MB/s is the same for 0.5 MB and 4.5 MB.
func BenchmarkHostile(b *testing.B) {
	for name, form := range hostile() {
		for _, size := range []int{500_000, 4_500_000} {
			b.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(name, " ", "-"), size), func(b *testing.B) {
				kind, old, new, user := form(size)
				request := &Request{
					Operation: "UPDATE", GVR: builtIn(b, kind).GVR, User: user, Object: []byte(new), OldObject: []byte(old),
				}
				p := builtInPolicy(b)
				b.SetBytes(int64(len(old) + len(new)))
				for b.Loop() {
					decide(p.Review(request), true)
				}
			})
		}
	}
}
