// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"errors"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestReach(t *testing.T) {
	t.Parallel()
	configMaps := schema.GroupResource{Resource: "configmaps"}
	of := func(code int32, message string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Message: message}}
	}
	broken := errors.New("connection reset")
	for name, test := range map[string]struct {
		answer error
		want   error // nil for a review that has arrived
		other  bool  // whether the error is neither ErrUnreachable nor ErrNotAsked
	}{
		"the guard denies":       {answer: of(403, `admission webhook "unlocks.apigw-guardian.io" denied the request: x`)},
		"another webhook denies": {answer: of(403, `admission webhook "x.example.com" denied the request: unlocks.apigw-guardian.io`), other: true},
		"a connection is refused": {
			answer: of(500, `Internal error occurred: failed calling webhook "unlocks.apigw-guardian.io": connection refused`), want: ErrUnreachable,
		},
		"another webhook cannot be called": {answer: of(500, `failed calling webhook "x.example.com": connection refused`), other: true},
		"the write is allowed":             {want: ErrNotAsked},
		"RBAC refuses":                     {answer: apierrors.NewForbidden(configMaps, "x", nil), other: true},
		"no answer":                        {answer: broken, want: broken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset()
			client.PrependReactor("patch", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.answer })
			err := Reach(t.Context(), client.CoreV1(), "guard")
			isOther := err != nil && !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrNotAsked)
			if test.other && !isOther || !test.other && !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

// A replica that has seen a review turns what an unproven one wrote to Fail at once, and nothing turns it back.
func TestAnUnprovenWebhookConfigurationFailsClosedAtOnce(t *testing.T) {
	t.Parallel()
	want := wanted(t, wantedCA)
	unprovenOne := want.DeepCopy()
	for i := range unprovenOne.Webhooks {
		if !alwaysFails(unprovenOne.Webhooks[i].Name) {
			unprovenOne.Webhooks[i].FailurePolicy = new(admissionregistrationv1.Ignore)
		}
	}
	seal(unprovenOne)
	if got := judge(unprovenOne, want); got != unproven || (&Patrol{}).patience(got) != 0 {
		t.Errorf("got %q", got)
	}
	endpoint, err := ServiceEndpoint("ns/guard:443", "/path")
	if err != nil {
		t.Fatal(err)
	}
	other, err := ServiceEndpoint("ns/other:443", "/path")
	if err != nil {
		t.Fatal(err)
	}
	older := want.DeepCopy()
	older.Annotations = nil
	for i := range older.Webhooks {
		older.Webhooks[i].ClientConfig.Service.Path = new("/older")
	}
	for name, test := range map[string]struct {
		live     *configuration
		endpoint Endpoint
		want     bool
	}{
		"none":                      {nil, endpoint, false},
		"one that fails closed":     {want, endpoint, true},
		"one of another endpoint":   {want, other, false},
		"one that ignores failures": {unprovenOne, endpoint, false},
		"one of an older version":   {older, endpoint, true},
		"one without webhooks":      {&configuration{}, endpoint, false},
	} {
		if got := FailsClosed(test.live, test.endpoint); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}
