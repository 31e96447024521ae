// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// State says whether the guard protects a resource.
type State string

// States, the worst last. The zero State is Protected of no resource.
const (
	// Protected: the guard denies a forbidden write.
	Protected State = "Protected"
	// Observed: the guard observes, so a forbidden write passes with a warning.
	Observed State = "Observed"
	// Unknown: the caller may not look, or the API server does not answer.
	Unknown State = "Unknown"
	// Locked: the API server cannot call the guard, so it refuses every write, also those of the control plane.
	Locked State = "Locked"
	// Open: a forbidden write passes.
	Open State = "Open"
)

// Cause is why a resource is not protected, in one word.
type Cause string

// Causes.
const (
	// NotRegistered: there is no webhook configuration.
	NotRegistered Cause = "NotRegistered"
	// NoPolicy: policies protect other resources, and the one of this resource is absent or not bound.
	NoPolicy Cause = "NoPolicy"
	// Rewritten: another client changed the webhooks, such as their selectors.
	Rewritten Cause = "Rewritten"
	// Allowed: the guard, or another process in its place, allows the write.
	Allowed Cause = "Allowed"
	// Unproved: the write is denied, and no replica of the guard proves that it did that.
	Unproved Cause = "Unproved"
	// WrongCA: the API server does not trust the certificate behind the endpoint.
	WrongCA Cause = "WrongCA"
	// Unreachable: the API server cannot connect to the endpoint.
	Unreachable Cause = "Unreachable"
	// NoAnswer: the endpoint does not answer in time.
	NoAnswer Cause = "NoAnswer"
	// CallFailed: the call fails in another way.
	CallFailed Cause = "CallFailed"
	// NotTried: the write was refused or failed before the guard was called.
	NotTried Cause = "NotTried"
)

// Protection is the result of one forbidden write.
type Protection struct {
	// Resource is the reserved resource, in the form of reserved.Resource.String.
	Resource string `json:"resource"`
	State    State  `json:"state"`
	// Cause and Message are empty for a protected resource, and Remedy if there is nothing to do.
	Cause   Cause  `json:"cause,omitempty"`
	Message string `json:"message,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

// String says why the resource is not protected, and what to do.
func (p Protection) String() string {
	if p.Remedy == "" {
		return p.Message
	}
	return p.Message + "; " + p.Remedy
}

// Worst returns the worst of some states; Protected for none.
func Worst(all []Protection) State {
	order := []State{Protected, Observed, Unknown, Locked, Open}
	worst := 0
	for _, p := range all {
		worst = max(worst, slices.Index(order, p.State))
	}
	return order[worst]
}

// Remedy returns what to do about a cause; "" for nothing.
func Remedy(cause Cause) string {
	const program, rollout = guardian.Name, "kubectl -n " + guardian.Namespace + " rollout restart deployment " + guardian.Name
	return map[Cause]string{
		NotRegistered: "start the guard, which registers itself, and read its log: kubectl -n " + guardian.Namespace + " get pods",
		NoPolicy:      "create its policy and binding again: upgrade the release, or run: " + program + " policy | kubectl apply -f -",
		Rewritten: "find out who changes it (" + program + " audit list --outcome Tampered), and stop that: a running guard restores it " +
			"within seconds",
		Allowed:  "restart the guard and read its log; check which process the endpoint of the webhook configuration leads to",
		Unproved: "check which process the endpoint of the webhook configuration leads to, and who may read the Secret of the guard's CA",
		WrongCA: "compare caBundle in the webhook configuration with the CA of the guard's certificate, and stop the client that writes " +
			"another one: a running guard restores it within seconds",
		Unreachable: "check the guard's Pods, its Service, and the network policies and firewall between the API server and its port",
		NoAnswer:    "restart the guard's Pods, and check the network policies and firewall between the API server and its port: " + rollout,
		CallFailed:  "read the guard's log, and check which process the endpoint of the webhook configuration leads to",
	}[cause]
}

// Protections tries one forbidden write to each resource, many at the same time. The results are in the order of the resources; one whose
// write the scope leaves out has none.
func (v Verifier) Protections(ctx context.Context, resources []*reserved.Resource) []Protection {
	all, tried := make([]Protection, len(resources)), make([]bool, len(resources))
	live.Each(len(resources), func(i int) { all[i], tried[i] = v.protection(ctx, resources[i]) })
	found := []Protection{}
	for i := range all {
		if tried[i] {
			found = append(found, all[i])
		}
	}
	return blamePolicies(found)
}

// blamePolicies names another cause where there is no webhook configuration: what protects the others must be policies.
func blamePolicies(all []Protection) []Protection {
	if !slices.ContainsFunc(all, func(p Protection) bool { return p.State == Protected }) {
		return all
	}
	for i := range all {
		if all[i].Cause == NotRegistered {
			all[i].Cause, all[i].Remedy = NoPolicy, Remedy(NoPolicy)
		}
	}
	return all
}

// PerKind returns the first resource with a manifest of each kind.
func PerKind(set *reserved.Set) []*reserved.Resource {
	var first []*reserved.Resource
	seen := map[schema.GroupResource]bool{}
	for _, resource := range set.WithManifest() {
		if kind := resource.GVR.GroupResource(); !seen[kind] {
			seen[kind] = true
			first = append(first, resource)
		}
	}
	return first
}

// ByPolicies reports whether policies deny a forbidden write to each resource that exists. The API server asks them before a webhook.
func (v Verifier) ByPolicies(ctx context.Context, resources []*reserved.Resource) bool {
	for _, resource := range resources {
		t, err := v.aim(ctx, resource)
		if err != nil && !v.leavesOut(err) {
			return false
		}
		first, found := firstAttack(t)
		if !found { // it is absent
			continue
		}
		_, err = v.try(ctx, first, t)
		if !deniedByPolicy.MatchString(messageOf(err)) {
			return false
		}
	}
	return true
}

// protection tries one forbidden write to the resource. It returns false if the scope leaves the write out.
func (v Verifier) protection(ctx context.Context, resource *reserved.Resource) (Protection, bool) {
	p := Protection{Resource: resource.String()}
	t, err := v.aim(ctx, resource)
	if err != nil && !v.leavesOut(err) {
		p.State, p.Cause, p.Message = Unknown, NotTried, fmt.Sprintf("cannot check whether %s is protected: %v", resource, err)
		return p, true
	}
	first, found := firstAttack(t)
	if !found {
		p.State, p.Cause, p.Message = Unknown, NotTried, fmt.Sprintf("cannot check whether %s is protected: it is absent", resource)
		return p, true
	}
	got, err := v.try(ctx, first, t)
	switch {
	case got == denied:
		p.State = Protected
		return p, true
	case v.leavesOut(err):
		return p, false
	}
	p.State, p.Cause = v.diagnose(ctx, got, err)
	p.Message, p.Remedy = fmt.Sprintf("%s is not protected: dry-run of a forbidden %s: %s", resource, first.write, got), Remedy(p.Cause)
	if p.State == Unknown {
		p.Message = fmt.Sprintf("cannot check whether %s is protected: dry-run of a forbidden %s: %s", resource, first.write, got)
	}
	return p, true
}

// diagnose returns why a forbidden write was not denied, by what it got.
func (v Verifier) diagnose(ctx context.Context, got string, err error) (State, Cause) {
	switch message := messageOf(err); {
	case guardFailed.MatchString(message):
		return Locked, causeOfFailure(message)
	case deniedByGuard.MatchString(message):
		return Open, Unproved
	case got != allowed:
		return Unknown, NotTried
	}
	registered, err := v.cluster.WebhookConfiguration(ctx)
	if err != nil {
		return Open, Allowed
	}
	switch defect, _ := registration.DefectOf(registered); {
	// It does not fail closed before it is reached.
	case registered != nil && registered.Annotations[guardian.ReachabilityProblemAnnotation] != "":
		return Open, Unreachable
	case defect == registration.Missing:
		return Open, NotRegistered
	case defect == registration.Rewritten:
		return Open, Rewritten
	case registration.Observes(registered):
		return Observed, Allowed
	}
	return Open, Allowed
}

// causeOfFailure reads the API server's message about a failed call, whose end is the error of Go's HTTP client.
func causeOfFailure(message string) Cause {
	for _, known := range []struct {
		cause Cause
		parts []string
	}{
		{WrongCA, []string{"x509: ", "tls: ", "PEM block", "root certificates"}},
		{Unreachable, []string{
			"connection refused", "no route to host", "network is unreachable", "no such host", "no endpoints available", "no service port",
			"not found", "connection reset by peer", "dial tcp", ": EOF",
		}},
		{NoAnswer, []string{"deadline exceeded", "timeout", "Client.Timeout"}},
	} {
		if slices.ContainsFunc(known.parts, func(part string) bool { return strings.Contains(message, part) }) {
			return known.cause
		}
	}
	return CallFailed
}
