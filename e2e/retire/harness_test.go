// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package retire proves that retire and rotate revoke a credential for good, also after an interruption at any step.
package retire

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/apigw-guardian/apigw-guardian/e2e/harness"
	"github.com/apigw-guardian/apigw-guardian/e2e/scenario"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/unlock"
)

const guardNamespace = "apigw-guardian"

// Two beds: each proof waits for the API server's cache of tokens.
func TestMain(m *testing.M) {
	harness.Main(m, 2, harness.Unguarded)
}

// start returns a world with a guard, authorized by the program.
func start(t *testing.T) *scenario.World {
	t.Helper()
	world := harness.World(t)
	harness.StartGuard(t)
	harness.Run(t, "authorize").Require(t, 0)
	t.Cleanup(func() {
		_ = harness.Clients(t).CoreV1().ConfigMaps(guardNamespace).Delete( // it may be absent
			context.WithoutCancel(t.Context()), lookup.RetirementsName, metav1.DeleteOptions{})
	})
	return world
}

// codeOf returns how the API server answers a token: 200 or 401.
func codeOf(t *testing.T, token string) int {
	t.Helper()
	client, err := kubernetes.NewForConfig(harness.Of(t).Cluster.TokenConfig(token))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	switch {
	case err == nil:
		return http.StatusOK
	case apierrors.IsUnauthorized(err):
		return http.StatusUnauthorized
	}
	t.Fatal(err)
	return 0
}

// leaked is what a thief has.
type leaked struct{ secret, bound string }

// leak returns the token of a Secret, and a token of the account that no Secret holds. Both work.
func leak(t *testing.T, secret string) leaked {
	t.Helper()
	answer, err := harness.Clients(t).CoreV1().ServiceAccounts(metav1.NamespaceSystem).CreateToken(
		t.Context(), "apigw-ingress", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := leaked{tokenIn(t, secret), answer.Status.Token}
	if codes := [2]int{codeOf(t, l.secret), codeOf(t, l.bound)}; codes != [2]int{200, 200} {
		t.Fatalf("the tokens get %v", codes)
	}
	return l
}

func (l leaked) requireDead(t *testing.T) {
	t.Helper()
	if codes := [2]int{codeOf(t, l.secret), codeOf(t, l.bound)}; codes != [2]int{401, 401} {
		t.Fatalf("the tokens get %v", codes)
	}
}

// tokenIn returns the token of a Secret in kube-system; "" while it is not filled, or absent.
func tokenIn(t *testing.T, name string) string {
	t.Helper()
	secret, err := harness.Clients(t).CoreV1().Secrets(metav1.NamespaceSystem).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return string(secret.Data[corev1.ServiceAccountTokenKey])
}

// requireTidy wants exactly one record of the outcome since the unlocks were counted, no open Unlock, and no old token in a Secret.
func requireTidy(t *testing.T, outcome v1alpha1.Outcome, before int) {
	t.Helper()
	if got := records(t, outcome); got != before+1 {
		t.Errorf("%d records of %s, want %d", got, outcome, before+1)
	}
	c, err := unlock.NewClient(harness.Of(t).Cluster.AdminConfig(), guardNamespace)
	if err != nil {
		t.Fatal(err)
	}
	unlocks, err := c.List(t.Context())
	if err != nil || len(unlocks) == 0 {
		t.Fatalf("%d unlocks, %v", len(unlocks), err)
	}
	for _, u := range unlocks {
		if !u.Spec.Closed {
			t.Errorf("unlock %s is open", u.Name)
		}
	}
	for _, name := range []string{"apigw-guardian-retiring", "apigw-guardian-rotating"} {
		_, err := harness.Clients(t).CoreV1().Secrets(guardNamespace).Get(t.Context(), name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("secret %s: %v", name, err)
		}
	}
}

// records returns the number of records of an outcome.
func records(t *testing.T, outcome v1alpha1.Outcome) int {
	t.Helper()
	list, err := harness.Records(t).List(t.Context(), audit.Filter{Outcome: string(outcome)})
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// errKilled is the end of a process that is killed.
var errKilled = errors.New("killed")

// mortal fails every request after a number of writes, as if the process had been killed there. The last write is stored.
type mortal struct {
	writes atomic.Int64
	limit  int64
}

func (m *mortal) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		if m.writes.Load() >= m.limit {
			return nil, errKilled
		}
		if request.Method != http.MethodGet {
			m.writes.Add(1)
		}
		return next.RoundTrip(request)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return f(request) }

// killed runs retire or rotate as the program does, and kills it after so many writes. It returns false if it had finished.
func killed(t *testing.T, word string, writes int64) bool {
	t.Helper()
	config, m := harness.Of(t).Cluster.AdminConfig(), &mortal{limit: writes}
	config.Wrap(m.wrap)
	cluster, options := library(t, config, word)
	var err error
	if word == "retire" {
		_, err = authorize.New(cluster).Retire(t.Context(), options)
	} else {
		_, err = authorize.New(cluster).Rotate(t.Context(), options)
	}
	if err != nil && !errors.Is(err, errKilled) {
		t.Fatalf("after %d writes: %v", writes, err)
	}
	return err != nil
}

func library(t *testing.T, config *rest.Config, word string) (live.Cluster, authorize.Revocation) {
	t.Helper()
	set, errSet := reserved.BuiltIn()
	cluster, errCluster := live.Connect(config, set, guardNamespace)
	unlocks, errUnlocks := unlock.NewClient(config, guardNamespace)
	records, errRecords := store.New(config)
	if err := errors.Join(errSet, errCluster, errUnlocks, errRecords); err != nil {
		t.Fatal(err)
	}
	reservation := set.Reservations()[0]
	return cluster, authorize.Revocation{
		Reservation: reservation, Reason: word + " " + reservation.Name, Unlocks: unlocks, Records: records,
	}
}
