// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/apigw-guardian/apigw-guardian/corpus/shop"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// The texts are those of a kube-apiserver 1.37.2 and of Go's HTTP client.
func TestCauseOfFailure(t *testing.T) {
	t.Parallel()
	const call = `Internal error occurred: failed calling webhook "secrets.apigw-guardian.io": failed to call webhook: `
	const post = `Post "https://apigw-guardian.apigw-guardian.svc:443/validate?timeout=5s": `
	for end, want := range map[string]Cause{
		post + "tls: failed to verify certificate: x509: certificate signed by unknown authority": WrongCA,
		post + "tls: failed to verify certificate: x509: certificate is valid for a, not b":       WrongCA,
		"unable to load root certificates: unable to parse bytes as PEM block":                    WrongCA,
		post + "dial tcp 127.0.0.1:1: connect: connection refused":                                Unreachable,
		post + "dial tcp 10.0.0.1:443: connect: no route to host":                                 Unreachable,
		post + "dial tcp 10.0.0.1:443: i/o timeout":                                               Unreachable,
		post + "dial tcp: lookup guard.example.com: no such host":                                 Unreachable,
		post + "EOF":                         Unreachable,
		`service "apigw-guardian" not found`: Unreachable,
		`no endpoints available for service "apigw-guardian"`: Unreachable,
		post + "context deadline exceeded":                    NoAnswer,
		post + "net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)": NoAnswer,
		"the server could not find the requested resource":                                                                CallFailed,
		"received invalid webhook response: expected response.uid=\"a\", got \"\"":                                        CallFailed,
	} {
		if got := causeOfFailure(call + end); got != want {
			t.Errorf("%s: got %s, want %s", end, got, want)
		}
		if Remedy(want) == "" {
			t.Errorf("%s has no remedy", want)
		}
	}
}

func TestProtections(t *testing.T) {
	t.Parallel()
	const (
		failure = `failed calling webhook "a.apigw-guardian.io": failed to call webhook: Post "https://x": dial tcp 127.0.0.1:1: connect: connection refused`
		refused = `clusterroles.rbac.authorization.k8s.io "selling" is forbidden: User "eve" cannot patch resource "clusterroles"`
	)
	configuration := "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/" + guardian.WebhookConfiguration
	for name, test := range map[string]struct {
		prepare func(*shop.APIServer)
		state   State
		cause   Cause
	}{
		"denied":                 {func(*shop.APIServer) {}, Protected, ""},
		"cannot be called":       {func(s *shop.APIServer) { s.Answer = always(http.StatusInternalServerError, failure) }, Locked, Unreachable},
		"refused by RBAC":        {func(s *shop.APIServer) { s.Answer = always(http.StatusForbidden, refused) }, Unknown, NotTried},
		"denied without a proof": {func(s *shop.APIServer) { s.Replica = nil }, Open, Unproved},
		"allowed, and the webhooks were rewritten": {func(s *shop.APIServer) { s.Answer = always(http.StatusOK, "") }, Open, Rewritten},
		"allowed, and not registered": {func(s *shop.APIServer) {
			s.Answer = always(http.StatusOK, "")
			delete(s.Objects, configuration)
		}, Open, NotRegistered},
		"allowed with a selector": {func(s *shop.APIServer) {
			s.Answer = always(http.StatusOK, "")
			s.Objects[configuration] = `{"metadata":{"name":"apigw-guardian"},"webhooks":[{"name":"a","objectSelector":{"matchLabels":{"a":"b"}}}]}`
		}, Open, Rewritten},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, cluster := serve(t, shop.Set(t, shop.Reservation))
			test.prepare(server)
			got := New(cluster, EveryWrite).Protections(t.Context(), PerKind(cluster.Set))
			if len(got) != 4 || Worst(got) != test.state {
				t.Fatalf("got %+v, want 4 that are %s", got, test.state)
			}
			for _, p := range got {
				if p.State != test.state || p.Cause != test.cause || (p.Message == "") != (test.state == Protected) {
					t.Errorf("got %+v, want %s because of %s", p, test.state, test.cause)
				}
			}
		})
	}
}

func always(code int, message string) func(string) (int, string) {
	return func(string) (int, string) { return code, message }
}

func TestAHungGuardCostsOneTimeoutAndNotOneForEachWrite(t *testing.T) {
	t.Parallel()
	server, cluster := serve(t, shop.Set(t, shop.Reservation))
	arrived := make(chan struct{}, 100) // more than there are writes
	release := make(chan struct{})
	answer := server.Answer
	server.Answer = func(path string) (int, string) {
		arrived <- struct{}{}
		<-release
		return answer(path)
	}
	go func() {
		for range 20 { // more than one resource has writes, so these come only if they do not wait for each other
			<-arrived
		}
		close(release)
	}()
	var reported []string
	rows, err := New(cluster, EveryWrite).Verify(t.Context(), func(a Attack) { reported = append(reported, a.Resource+a.Write) })
	var got []string
	for _, row := range rows {
		got = append(got, row.Resource+row.Write)
	}
	if err != nil || !slices.Equal(got, reported) || len(rows) < 40 {
		t.Errorf("%d rows, %v, reported %s", len(rows), err, strings.Join(reported, "\n"))
	}
}

func TestWorst(t *testing.T) {
	t.Parallel()
	of := func(states ...State) State {
		var all []Protection
		for _, state := range states {
			all = append(all, Protection{State: state})
		}
		return Worst(all)
	}
	if of() != Protected || of(Open, Locked) != Open || of(Unknown, Protected) != Unknown || of(Locked, Unknown) != Locked ||
		of(Observed, Protected) != Observed {
		t.Error("the order of the states is wrong")
	}
}

func TestWhatPoliciesLeaveOutIsTheirs(t *testing.T) {
	t.Parallel()
	open := Protection{Resource: "b", State: Open, Cause: NotRegistered, Remedy: Remedy(NotRegistered)}
	byPolicy := open
	byPolicy.Cause, byPolicy.Remedy = NoPolicy, Remedy(NoPolicy)
	protected := Protection{Resource: "a", State: Protected}
	for name, test := range map[string]struct{ found, want []Protection }{
		"no policy at all":            {[]Protection{open, open}, []Protection{open, open}},
		"a policy protects another":   {[]Protection{protected, open}, []Protection{protected, byPolicy}},
		"a webhook protects another":  {[]Protection{protected, {State: Open, Cause: Rewritten}}, []Protection{protected, {State: Open, Cause: Rewritten}}},
		"each has a policy":           {[]Protection{protected, protected}, []Protection{protected, protected}},
		"the guard observes one more": {[]Protection{protected, {State: Observed, Cause: Allowed}}, []Protection{protected, {State: Observed, Cause: Allowed}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, blamePolicies(test.found)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
