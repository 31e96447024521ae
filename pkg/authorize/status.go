// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/privatenet"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Status is how things stand.
type Status struct {
	// Authorized: every resource with a manifest is there without drift, and each token Secret holds a token of its
	// ServiceAccount as it lives now.
	Authorized bool `json:"authorized"`
	// Protected: the guard is registered, and denied a forbidden write to each reserved resource, tried as a dry-run. Replicas
	// have proved these denials, but for deletions, which can carry no nonce.
	Protected bool `json:"protected"`
	// Drift holds each resource that differs; never nil.
	Drift []Drift `json:"drift"`
	// PrivateNetwork is whether the API server can be reached from the private network.
	PrivateNetwork privatenet.Answer `json:"privateNetwork"`
	// PrivateNetworkSentence says what that answer rests on.
	PrivateNetworkSentence string `json:"-"`
	// Denials24h counts the denials of the last 24 hours, to within the ten minutes of a record; nil where it is not known.
	Denials24h *int64 `json:"denials24h"`
	// DenialsSentence says why that is not known; "" where it is.
	DenialsSentence string `json:"-"`
	// Recorded: an audit record can be stored, tried as a dry-run, and the guard says nothing else; absent where it is not known.
	Recorded *bool `json:"recorded,omitempty"`
	// Certificates tells of an end that is near before it hurts. It does not count for Authorized and Protected.
	Certificates Certificates `json:"certificates"`
	// Reasons are sentences for people that say what is missing for Authorized, Protected and Recorded; never nil, and
	// empty where nothing is.
	Reasons []string `json:"reasons"`
}

// Drift is one resource that differs from its manifest.
type Drift struct {
	// Resource is the reserved entry, as reserved.Resource writes itself.
	Resource string `json:"resource"`
	// Paths are the fields, sorted; never a value.
	Paths []string `json:"paths"`
}

// Status looks at everything that is reserved, and changes nothing: its forbidden writes are server dry-runs. The error says
// that the API server does not answer; whatever else goes wrong is a reason.
func (a *Authorizer) Status(ctx context.Context) (Status, error) {
	if _, err := a.gitVersion(ctx); err != nil {
		return Status{}, err
	}
	status := Status{Drift: []Drift{}, Reasons: []string{}, Certificates: a.certificates(ctx)}
	finding := privatenet.Probe(ctx, a.cluster.Client.CoreV1().Services(privatenet.Namespace))
	status.PrivateNetwork, status.PrivateNetworkSentence = finding.Answer, finding.Sentence
	for _, entry := range a.set.Resources() {
		if entry.HasManifest() {
			a.addState(ctx, entry, &status)
		}
	}
	a.addDenials(ctx, &status)
	status.Authorized = len(status.Reasons) == 0
	unprotected := a.unprotected(ctx)
	status.Protected = len(unprotected) == 0
	status.Reasons = append(status.Reasons, unprotected...)
	a.addRecording(ctx, &status)
	if ctx.Err() != nil {
		return status, fmt.Errorf("status: %w", context.Cause(ctx))
	}
	return status, nil
}

// addState adds what an entry lacks to be authorized.
func (a *Authorizer) addState(ctx context.Context, entry *reserved.Resource, status *Status) {
	lacks := func(format string, arguments ...any) {
		status.Reasons = append(status.Reasons, fmt.Sprintf(format, arguments...)+".")
	}
	f, err := a.look(ctx, entry)
	switch {
	case err != nil:
		lacks("Not known: %v", err)
		return
	case f.inUse() == "":
		lacks("%s is absent", nameOf(entry))
		return
	case len(f.drift) > 0:
		status.Drift = append(status.Drift, Drift{Resource: entry.String(), Paths: f.drift})
		lacks("%s differs from its manifest in %s", f.name(), strings.Join(f.drift, ", "))
	}
	if slices.Contains(f.drift, rootCAPath) {
		lacks("%s: %s", f.name(), foreignCA)
	}
	if !entry.IsTokenSecret() {
		return
	}
	seen, err := a.readToken(ctx, entry, f.inUse())
	switch {
	case err != nil:
		lacks("Not known: %v", err)
	case seen.token == "":
		lacks("The token Secret %s/%s does not work: %s", entry.Namespace, f.inUse(), seen.state)
	}
}

// unprotected returns why the reserved resources are not protected; nil where they are.
func (a *Authorizer) unprotected(ctx context.Context) []string {
	_, err := a.cluster.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(
		ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return []string{fmt.Sprintf("The guard is not registered: there is no ValidatingWebhookConfiguration %q.", guardian.WebhookConfiguration)}
	case err != nil:
		return []string{fmt.Sprintf("Not known whether the guard is registered: %v.", err)}
	}
	var reasons []string
	for _, entry := range a.set.Resources() {
		if reason := (verifier{a, EveryWrite}).openTo(ctx, entry); reason != "" {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// openTo says which forbidden write to the entry is not denied; "" where it is, or the scope leaves it out.
func (v verifier) openTo(ctx context.Context, entry *reserved.Resource) string {
	t, err := v.aim(ctx, entry)
	if err != nil && !v.leavesOut(err) {
		return fmt.Sprintf("Not known whether %s is protected: %v.", entry, err)
	}
	first, found := firstAttack(t)
	if !found {
		return fmt.Sprintf("%s is absent, so that its protection cannot be tried.", entry)
	}
	got, err := v.try(ctx, first, t)
	if got != denied && !v.leavesOut(err) {
		return fmt.Sprintf("%s is not protected: a forbidden %s, as a dry-run, came to: %s.", entry, first.write, got)
	}
	return ""
}
