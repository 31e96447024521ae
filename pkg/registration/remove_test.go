// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"errors"
	"testing"
	"testing/synctest"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestRemove(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		copies  int // how often there is a webhook configuration to delete
		err     error
		removed bool
		want    error
	}{
		"there is none":            {},
		"there is one":             {copies: 1, removed: true},
		"a guard restores it":      {copies: removalAttempts, removed: true, want: errRestored},
		"a guard restores it once": {copies: 2, removed: true},
		"the deletion is refused":  {err: refused, want: refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				left, client := test.copies, &fake.Clientset{}
				client.AddReactor("delete", "validatingwebhookconfigurations", func(clienttesting.Action) (bool, runtime.Object, error) {
					if left == 0 && test.err == nil {
						return true, nil, apierrors.NewNotFound(schema.GroupResource{}, "x")
					}
					left--
					return true, nil, test.err
				})
				removed, err := Remove(t.Context(), client.AdmissionregistrationV1())
				if removed != test.removed || !errors.Is(err, test.want) {
					t.Errorf("got %t, %v, want %t, %v", removed, err, test.removed, test.want)
				}
			})
		})
	}
}
