// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

const clerkUser = "system:serviceaccount:kube-system:clerk"

// newAuthorized returns an Authorizer of a cluster on which every reserved resource is in place, except those of the kind absent.
func newAuthorized(t *testing.T, absent string, typed ...runtime.Object) (*Authorizer, *fake.Clientset) {
	t.Helper()
	var stored []runtime.Object
	for _, resource := range shop.Set(t, shop.Reservation).Resources() {
		if resource.HasManifest() && resource.Kind != absent {
			stored = append(stored, shop.LiveAs(resource, appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationApply, "")))
		}
	}
	a, client, _ := newFake(t, append(typed, shop.Clerk()), stored)
	shop.Allow(client, shop.AllowAll)
	client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: "v1.37.0"}
	a.connect = connectTo(t, acceptor(clerkUser, shop.AllowAll))
	return a, client
}

func TestAuthorizeReportsTheChecksAndThenEachLine(t *testing.T) {
	a, _ := newAuthorized(t, "", shop.TokenSecret("clerk-token-own"))
	var reported []string
	result, err := a.Authorize(t.Context(), Options{
		Checked: func(checks Checks) { reported = append(reported, checks.Checks[0].ID) },
		Report:  func(line Line) { reported = append(reported, line.String()) },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"kubernetes-version"}
	for _, line := range result.Lines {
		want = append(want, line.String())
	}
	if diff := cmp.Diff(want, reported); diff != "" || len(result.Lines) != 4 {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The init job may not read an older token Secret, so that it cannot prove the token, and must not wait for it.
func TestAuthorizeProvesNoTokenThatItMayNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, client := newAuthorized(t, "Secret", shop.TokenSecret("clerk-token-x"),
			left(map[string]string{clerkKey: leftFor("uid-1", "clerk-token-x")}))
		a.cluster.Namespace = guardNamespace
		refuseSecrets(client)
		start := time.Now()
		result, err := a.Authorize(t.Context(), Options{})
		if err != nil || len(result.Proofs) != 0 || time.Since(start) > time.Second {
			t.Errorf("got %v and proofs %v after %s", err, result.Proofs, time.Since(start))
		}
		if last := result.Lines[len(result.Lines)-1]; !last.Unproved || !strings.Contains(last.String(), "token not proved") {
			t.Errorf("the last line is %q", last)
		}
	})
}

// A permission that nobody can confirm is not a permission.
func TestATokenIsNotProvedWithoutAnAnswerAboutItsPermissions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthorized(t, "", shop.TokenSecret("clerk-token-own"))
		client := acceptor(clerkUser, shop.AllowAll)
		client.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errBroken
		})
		a.connect = connectTo(t, client)
		result, err := a.Authorize(t.Context(), Options{})
		if !errors.Is(err, ErrTokenUnproved) || !errors.Is(err, errBroken) || len(result.Proofs) != 0 {
			t.Errorf("got %v and proofs %v", err, result.Proofs)
		}
	})
}

// A read that the end of the wait cuts off says nothing about the Secret.
func TestTheEndOfTheWaitDoesNotHideTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, client, _ := newFake(t, []runtime.Object{shop.Clerk()}, nil)
		start := time.Now()
		client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			if time.Since(start) < 30*time.Second {
				return true, nil, errBroken
			}
			time.Sleep(time.Minute)
			return true, nil, context.DeadlineExceeded
		})
		_, err := a.prove(t.Context(), theCredential(t), time.Minute)
		if !errors.Is(err, ErrTokenNotFilled) || !errors.Is(err, errBroken) {
			t.Errorf("got %v, want %v because of %v", err, ErrTokenNotFilled, errBroken)
		}
	})
}
