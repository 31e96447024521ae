// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

func TestReconcile(t *testing.T) {
	t.Parallel()
	refused := errors.New("refused")
	closed := make(chan struct{})
	close(closed)
	for name, test := range map[string]struct {
		name     string
		notReady bool
		buildErr error
		apiErr   error
		applied  bool
		again    bool
		want     error
	}{
		"applies the webhook configuration":    {name: guardian.WebhookConfiguration, applied: true},
		"leaves another webhook configuration": {name: "other"},
		"waits until the guard answers":        {name: guardian.WebhookConfiguration, notReady: true},
		"asks again while the owner is gone":   {name: guardian.WebhookConfiguration, buildErr: ErrOwnerGone, again: true},
		"returns an error of what is wanted":   {name: guardian.WebhookConfiguration, buildErr: refused, want: refused},
		"returns an error of the API server's": {name: guardian.WebhookConfiguration, apiErr: refused, want: refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReplica(t, &api{err: test.apiErr})
			r.buildErr = test.buildErr
			keeper := &Keeper{Repairer: r.Repairer, Ready: closed, Changes: NewChanges()}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if test.notReady {
				keeper.Ready = make(chan struct{})
				cancel()
			}
			result, err := keeper.Reconcile(ctx, reconcile.Request{NamespacedName: types.NamespacedName{Name: test.name}})
			if !errors.Is(err, test.want) || (result.RequeueAfter > 0) != test.again || (r.api.live != nil) != test.applied {
				t.Errorf("got %+v, %v, applied %t", result, err, r.api.live != nil)
			}
		})
	}
}

func TestChangesHoldOneEventAndNeverBlock(t *testing.T) {
	t.Parallel()
	changes := NewChanges()
	changes.Notify()
	changes.Notify()
	if got := (<-changes).Object.GetName(); got != guardian.WebhookConfiguration || len(changes) != 0 {
		t.Errorf("got an event of %q and %d more", got, len(changes))
	}
}
