// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"errors"
	"fmt"
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
	forbidden := func(policy string) error {
		return apierrors.NewForbidden(schema.GroupResource{}, "x", fmt.Errorf("ValidatingAdmissionPolicy '%s' with binding 'x' denied request: y", policy))
	}
	for name, test := range map[string]struct {
		copies  int // how often there is a webhook configuration to delete
		denials int // how often the policy denies before that
		err     error
		// bindingErr is that of the deletion of the binding.
		bindingErr error
		removed    bool
		want       error
	}{
		"there is none":            {},
		"there is one":             {copies: 1, removed: true},
		"a guard restores it":      {copies: removalAttempts, removed: true, want: errRestored},
		"a guard restores it once": {copies: 2, removed: true},
		"the deletion is refused":  {err: refused, want: refused},

		"the policy denies once":         {copies: 1, denials: 1, removed: true},
		"the policy denies for good":     {copies: 1, denials: removalAttempts, want: errPolicy},
		"another policy denies":          {err: forbidden("example"), want: forbidden("example")},
		"the binding may not be deleted": {copies: 1, bindingErr: forbidden("rbac"), removed: true},
		"the binding cannot be deleted":  {copies: 1, bindingErr: refused, want: refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				left, denials, client := test.copies, test.denials, &fake.Clientset{}
				client.AddReactor("delete", "validatingadmissionpolicybindings", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, test.bindingErr
				})
				client.AddReactor("delete", "validatingwebhookconfigurations", func(clienttesting.Action) (bool, runtime.Object, error) {
					if left == 0 && test.err == nil {
						return true, nil, apierrors.NewNotFound(schema.GroupResource{}, "x")
					}
					if denials > 0 {
						denials--
						return true, nil, forbidden("apigw-guardian-registration")
					}
					left--
					return true, nil, test.err
				})
				removed, err := Remove(t.Context(), client.AdmissionregistrationV1())
				if removed != test.removed || !errors.Is(err, test.want) && fmt.Sprint(test.want) != fmt.Sprint(errors.Unwrap(err)) {
					t.Errorf("got %t, %v, want %t, %v", removed, err, test.removed, test.want)
				}
			})
		})
	}
}
