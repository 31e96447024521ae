// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package guard

import (
	"errors"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
)

func TestOwner(t *testing.T) {
	t.Parallel()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "guard", UID: "1"}}
	spare := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "guard-registration", UID: "2"}}
	terminating := role.DeepCopy()
	terminating.DeletionTimestamp, terminating.Finalizers = new(metav1.Now()), []string{"example.com/hold"}
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "clusterroles"}, "guard", nil)
	for name, test := range map[string]struct {
		objects []runtime.Object
		get     error
		known   *metav1.OwnerReference
		gone    time.Duration
		uid     string
		err     error
	}{
		"the first one is there":                     {objects: []runtime.Object{role}, uid: "1"},
		"a finalizer holds it in deletion":           {objects: []runtime.Object{terminating}, uid: "1"},
		"it is gone":                                 {known: &metav1.OwnerReference{UID: "1"}, err: registration.ErrOwnerGone},
		"it is gone, and the spare one may be, too":  {objects: []runtime.Object{spare}, gone: time.Second, err: registration.ErrOwnerGone},
		"it is gone for good, and the guard runs on": {objects: []runtime.Object{spare}, gone: time.Minute, uid: "2"},
		"both are gone":                              {gone: time.Minute, err: registration.ErrOwnerGone},
		"it is back":                                 {objects: []runtime.Object{role, spare}, gone: time.Minute, uid: "1"},
		"it may not be read any more":                {get: forbidden, known: &metav1.OwnerReference{UID: "7"}, uid: "7"},
		"it may not be read, and never was":          {get: forbidden, err: forbidden},
		"it was deleted and made anew by others":     {objects: []runtime.Object{role}, known: &metav1.OwnerReference{UID: "0"}, uid: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := fake.NewClientset(test.objects...)
			if test.get != nil {
				client.PrependReactor("get", "clusterroles", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.get })
			}
			g := &Guard{client: client, options: Options{OwnerClusterRole: "guard"}}
			if test.gone > 0 {
				g.ownerGone.Store(new(time.Now().Add(-test.gone)))
			}
			g.lastOwner.Store(test.known)
			owner, err := g.owner(t.Context())
			if !errors.Is(err, test.err) || err == nil && string(owner.UID) != test.uid {
				t.Errorf("got %v and %v, want %q and %v", owner, err, test.uid, test.err)
			}
		})
	}
}
