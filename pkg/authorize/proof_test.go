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

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	fakediscovery "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// theCredential is the clerk's, under the manifest's own name.
func theCredential(t *testing.T) credential {
	t.Helper()
	entry := shop.Resource(t, shop.Reservation, "Secret")
	return credential{resource: entry, secret: entry.Name, grants: grants(shop.Parse(t, shop.Reservation), entry)}
}

func TestTokenIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		empty := shop.TokenSecret("clerk-token-own")
		empty.Data = nil
		a, client, _ := newFake(t, []runtime.Object{shop.Clerk(), empty}, nil)
		a.connect = connectTo(t, acceptor("system:serviceaccount:kube-system:clerk", shop.AllowAll))
		time.AfterFunc(10*time.Second, func() {
			if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Update(
				t.Context(), shop.TokenSecret("clerk-token-own"), metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		})
		start := time.Now()
		proof, err := a.prove(t.Context(), theCredential(t), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if want := (Proof{"kube-system/clerk-token-own", "system:serviceaccount:kube-system:clerk", 4}); proof != want {
			t.Errorf("got %+v, want %+v", proof, want)
		}
		if took := time.Since(start); took < 10*time.Second || took > 10*time.Second+pollInterval {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	empty := shop.TokenSecret("clerk-token-own")
	empty.Data = nil
	cancelled := errors.New("somebody gave up")
	tests := map[string]struct {
		objects  []runtime.Object
		readErr  error
		giveUp   time.Duration
		want     error
		says     string
		wantTook time.Duration
	}{
		"with what was seen, when nobody fills the Secret": {
			objects: []runtime.Object{shop.Clerk(), empty}, want: ErrTokenNotFilled, says: "no token yet", wantTook: time.Minute,
		},
		"with what was seen, when the Secret is gone": {
			objects: []runtime.Object{shop.Clerk()}, want: ErrTokenNotFilled, says: "absent", wantTook: time.Minute,
		},
		"with what was seen, when the account is gone": {
			objects: []runtime.Object{empty}, want: ErrTokenNotFilled, says: "ServiceAccount clerk is absent", wantTook: time.Minute,
		},
		"with the last error, when there were only errors": {
			objects: []runtime.Object{shop.Clerk()}, readErr: errBroken, want: ErrTokenNotFilled, says: "broken", wantTook: time.Minute,
		},
		"at once, when the Secret may not be read": {
			objects: []runtime.Object{shop.Clerk()},
			readErr: apierrors.NewForbidden(corev1.Resource("secrets"), "x", errors.New("no access")), says: "forbidden",
		},
		"when the caller gives up": {
			objects: []runtime.Object{shop.Clerk(), empty}, giveUp: 5 * time.Second, want: cancelled, wantTook: 5 * time.Second,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, client, _ := newFake(t, test.objects, nil)
				client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
					return test.readErr != nil, nil, test.readErr
				})
				ctx := t.Context()
				if test.giveUp > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeoutCause(ctx, test.giveUp, cancelled)
					defer cancel()
				}
				start := time.Now()
				_, err := a.prove(ctx, theCredential(t), time.Minute)
				if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != test.wantTook {
					t.Errorf("it took %v, want %v", took, test.wantTook)
				}
			})
		})
	}
}

// acceptor is a cluster as a token sees it: it takes the token for a user, and answers what it may do.
func acceptor(user string, allowed func(authorizationv1.SelfSubjectAccessReviewSpec) bool) *fake.Clientset {
	client := fake.NewClientset()
	shop.Allow(client, allowed)
	client.PrependReactor("create", "selfsubjectreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		review := &authenticationv1.SelfSubjectReview{}
		review.Status.UserInfo.Username = user
		return true, review, nil
	})
	return client
}

// connectTo hands out the client, and makes sure that nothing but the token is presented.
func connectTo(t *testing.T, client kubernetes.Interface) func(*rest.Config) (kubernetes.Interface, error) {
	t.Helper()
	return func(config *rest.Config) (kubernetes.Interface, error) {
		if config.BearerToken != shop.TokenFor("clerk-token-own") || config.Username != "" || config.Impersonate.UserName != "" {
			t.Error("the token is not the only credential")
		}
		return client, nil
	}
}

func TestProof(t *testing.T) {
	const user = "system:serviceaccount:kube-system:clerk"
	noLogs := func(spec authorizationv1.SelfSubjectAccessReviewSpec) bool {
		return spec.ResourceAttributes == nil || spec.ResourceAttributes.Subresource != "log"
	}
	rounds := 0
	later := func(spec authorizationv1.SelfSubjectAccessReviewSpec) bool {
		if !noLogs(spec) {
			rounds++
		}
		return noLogs(spec) || rounds > 3
	}
	tests := map[string]struct {
		client *fake.Clientset
		want   error
		says   string
	}{
		"a token that may do all is proved":                 {client: acceptor(user, shop.AllowAll)},
		"a permission may take its time":                    {client: acceptor(user, later)},
		"the token of another account is not proved":        {acceptor("system:serviceaccount:kube-system:eve", shop.AllowAll), ErrTokenUnproved, "eve"},
		"a token that may do less is not proved":            {acceptor(user, noLogs), ErrTokenUnproved, "get pods --subresource=log"},
		"a token that the API server refuses is not proved": {fake.NewClientset(), ErrTokenUnproved, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _, _ := newFake(t, []runtime.Object{shop.Clerk(), shop.TokenSecret("clerk-token-own")}, nil)
				a.cluster.Config = &rest.Config{Username: "admin", Impersonate: rest.ImpersonationConfig{UserName: "x"}}
				a.connect = connectTo(t, test.client)
				_, err := a.prove(t.Context(), theCredential(t), time.Minute)
				if !errors.Is(err, test.want) {
					t.Fatalf("got %v", err)
				}
				if err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "canary")) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// The init job must not report success for a token that does not work.
func TestAuthorizeReturnsTheErrorOfTheProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secret := shop.TokenSecret("clerk-token-own")
		var stored []runtime.Object
		for _, resource := range shop.Set(t, shop.Reservation).Resources() {
			if resource.HasManifest() {
				stored = append(stored, shop.LiveAs(resource, appliedBy(guardian.FieldManager, metav1.ManagedFieldsOperationApply, "")))
			}
		}
		a, client, _ := newFake(t, []runtime.Object{shop.Clerk(), secret}, stored)
		shop.Allow(client, shop.AllowAll)
		client.Discovery().(*fakediscovery.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: "v1.37.0"}
		a.connect = connectTo(t, acceptor("system:serviceaccount:kube-system:eve", shop.AllowAll))
		result, err := a.Authorize(t.Context(), Options{})
		if !errors.Is(err, ErrTokenUnproved) || len(result.Lines) != 4 || len(result.Proofs) != 0 {
			t.Errorf("got %v, lines %v and proofs %v", err, result.Lines, result.Proofs)
		}
		a.connect = connectTo(t, acceptor("system:serviceaccount:kube-system:clerk", shop.AllowAll))
		if result, err = a.Authorize(t.Context(), Options{}); err != nil || len(result.Proofs) != 1 {
			t.Errorf("got %v and proofs %v", err, result.Proofs)
		}
	})
}
