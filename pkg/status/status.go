// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package status reports on one cluster: authorization or retirement, protection, drift, denials, certificates and recording.
package status

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/drift"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/registration"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

// Report is the status of one cluster.
type Report struct {
	// Authorized: each object with a manifest is present without drift, and each token Secret holds a token of its live account.
	Authorized bool `json:"authorized"`
	// Protected: the guard is registered, and denied a dry-run of a forbidden write to each reserved resource, or policies did. Replicas
	// proved the denials of the guard, except deletions, which cannot have a nonce.
	Protected bool `json:"protected"`
	// Protection tells why not: Open (writes pass), Locked (every write fails), Unknown (the caller may not look), or Observed (the guard
	// only observes).
	Protection verify.State `json:"protection,omitempty"`
	// Protections are the reserved resources that are not protected. The list is empty if the guard is not registered.
	Protections []verify.Protection `json:"protections,omitempty"`
	// Gap is the last time in which the guard did not decide; nil if there was none, or the caller may not know.
	Gap *drift.Gap `json:"gap,omitempty"`
	// Retired: every reservation is retired, and none of its resources exists; nil otherwise. Authorized is false then.
	Retired *Retirement `json:"retired"`
	// Drift holds each resource that differs from its manifest; never nil.
	Drift []Drift `json:"drift"`
	// Unlocks are those that are not over; never nil. UnlocksProblem says why they are unknown.
	Unlocks        []Unlock `json:"unlocks"`
	UnlocksProblem string   `json:"-"`
	// Exemptions are those of all reservations; never nil.
	Exemptions []Exemption `json:"exemptions"`
	// PrivateNetwork is "Yes", "No" or "Unknown".
	PrivateNetwork string `json:"privateNetwork"`
	// PrivateNetworkMessage says why.
	PrivateNetworkMessage string `json:"-"`
	// Denials24h counts the denials of the last 24 hours, to within the ten minutes of a record; nil if unknown.
	Denials24h *int64 `json:"denials24h"`
	// DenialsProblem says why they are unknown; "" if they are known.
	DenialsProblem string `json:"-"`
	// Recorded: a dry-run stored an audit record, and the guard reports no problem; nil if unknown.
	Recorded *bool `json:"recorded,omitempty"`
	// TokenCleanup says that kube-controller-manager has disabled a token as unused, or does so within 30 days; empty for neither.
	TokenCleanup []string `json:"tokenCleanup,omitempty"`
	// Certificates does not count for Authorized and Protected, but for the exit code.
	Certificates Certificates `json:"certificates"`
	// byPolicies says that policies in the API server protect a resource, without a webhook.
	byPolicies bool
	// Reasons say why the cluster is not Authorized, Protected or Recorded; never nil.
	Reasons []string `json:"reasons"`
}

// Retirement is a finished one.
type Retirement struct {
	Since metav1.Time `json:"since"`
	By    string      `json:"by"`
}

// Drift is one resource that differs from its manifest.
type Drift struct {
	// Resource is the reserved resource, in the form of reserved.Resource.String.
	Resource string `json:"resource"`
	// Paths are the sorted fields, without values.
	Paths []string `json:"paths"`
	// Unlock is the name of the last Unlock under which the resource was changed; "" if there is no such record. Then the manifest
	// was not changed with the resource.
	Unlock string `json:"unlock,omitempty"`
	// Writer is who wrote one of the fields last; zero if unknown.
	live.Writer
	// Held says why the leader does not restore it; "" if it does, or the caller may not know.
	Held string `json:"held,omitempty"`
}

// Unlock is an Unlock that is open, or waits for its approval.
type Unlock struct {
	Name string `json:"name"`
	v1alpha1.UnlockSpec
	State v1alpha1.UnlockState `json:"state"`
}

// Exemption is an exemption of a reservation.
type Exemption struct {
	Reservation string `json:"reservation"`
	reserved.Exemption
	// DaysLeft is the number of days until its end, rounded down; nil for one without an end.
	DaysLeft *int `json:"daysLeft,omitempty"`
}

// Certificates reports on the certificates by which API servers trust the guard.
type Certificates struct {
	// NotAfter is the end of the last CA in the webhook configuration; nil if there is none.
	NotAfter *time.Time `json:"notAfter"`
	// Problems is never nil.
	Problems []string `json:"problems"`
}

// Records are the audit records of the cluster.
type Records interface {
	List(ctx context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error)
	// TryCreate creates a record as a dry-run. The error says why the guard could not store one either.
	TryCreate(ctx context.Context) error
}

// Unlocks are the unlocks of the cluster.
type Unlocks interface {
	List(ctx context.Context) ([]v1alpha1.Unlock, error)
}

// Read checks the cluster and changes nothing: its forbidden writes are server dry-runs. The error says that the API server
// does not answer; every other problem is a reason.
func Read(ctx context.Context, cluster live.Cluster, records Records, unlocks Unlocks) (Report, error) {
	if _, err := cluster.Version(ctx); err != nil {
		return Report{}, err
	}
	registered, err := cluster.WebhookConfiguration(ctx)
	r := Report{
		Drift: []Drift{}, Unlocks: []Unlock{}, Exemptions: exemptions(cluster.Set, time.Now()), Reasons: []string{},
		Certificates: certificates(ctx, cluster, registered),
	}
	network := authorize.CheckPrivateNetwork(ctx, cluster.Client)
	r.PrivateNetwork, r.PrivateNetworkMessage = answerOf(network.Status), network.Message
	retired := r.addReservations(ctx, cluster)
	r.addUnlocks(ctx, records, unlocks)
	r.addDenials(ctx, records)
	if retired < len(cluster.Set.Reservations()) || len(r.Reasons) > 0 {
		r.Retired = nil
	}
	r.Authorized = len(r.Reasons) == 0 && r.Retired == nil
	r.addProtection(ctx, cluster, registered, err)
	r.addNotes(ctx, cluster)
	r.addRecording(ctx, cluster, registered, records)
	if ctx.Err() != nil {
		return r, fmt.Errorf("status: %w", context.Cause(ctx))
	}
	return r, nil
}

func answerOf(status authorize.Status) string {
	switch status {
	case authorize.Pass:
		return "Yes"
	case authorize.Fail:
		return "No"
	default:
		return "Unknown"
	}
}

// addReservations adds the reservations in their order, reads several at the same time, and returns how many are retired.
func (r *Report) addReservations(ctx context.Context, cluster live.Cluster) (retired int) {
	reservations := cluster.Set.Reservations()
	parts := make([]Report, len(reservations))
	live.Each(len(parts), func(i int) { parts[i].addReservation(ctx, cluster, reservations[i]) })
	for i := range parts {
		r.Reasons, r.Drift = append(r.Reasons, parts[i].Reasons...), append(r.Drift, parts[i].Drift...)
		if parts[i].Retired != nil {
			r.Retired = parts[i].Retired
			retired++
		}
	}
	return retired
}

// addReservation adds why a reservation is neither authorized nor retired, or that it is retired.
func (r *Report) addReservation(ctx context.Context, cluster live.Cluster, reservation *reserved.Reservation) {
	retirement, err := cluster.Lookups().Retirement(ctx, reservation.Name)
	switch {
	case apierrors.IsForbidden(err): // the guard knows; the caller sees that the resources are absent
	case err != nil:
		r.Reasons = append(r.Reasons, fmt.Sprintf("cannot check whether %s is retired: %v", reservation.Owner, err))
	case retirement != nil && retirement.State == lookup.Retiring:
		r.Reasons = append(r.Reasons, fmt.Sprintf("%s is being retired by %s: to finish it: %s retire",
			reservation.Owner, retirement.By, guardian.Name))
	}
	for _, resource := range reservation.WithManifest() {
		switch {
		case retirement == nil:
			r.addResource(ctx, cluster, resource)
		case !slices.Contains(retirement.Kept, resource.String()):
			r.addRemains(ctx, cluster, resource)
		}
	}
	if retirement != nil && retirement.State == lookup.Retired {
		r.Retired = &Retirement{Since: retirement.Since, By: retirement.By}
	}
}

// addRemains adds that a resource of a retired reservation exists.
func (r *Report) addRemains(ctx context.Context, cluster live.Cluster, resource *reserved.Resource) {
	o, err := cluster.Find(ctx, resource)
	switch {
	case err != nil:
		r.Reasons = append(r.Reasons, fmt.Sprintf("cannot check %s: %v", resource, err))
	case o.InUse() != "":
		r.Reasons = append(r.Reasons, fmt.Sprintf("%s exists, although it is retired: to delete it: %s retire", o, guardian.Name))
	}
}

// addResource adds why a resource is not authorized.
func (r *Report) addResource(ctx context.Context, cluster live.Cluster, resource *reserved.Resource) {
	add := func(format string, arguments ...any) {
		r.Reasons = append(r.Reasons, fmt.Sprintf(format, arguments...))
	}
	o, err := cluster.Compare(ctx, resource)
	switch {
	case err != nil:
		add("cannot check %s: %v", resource, err)
		return
	case o.InUse() == "":
		add("%s is absent", o)
	case len(o.Drift) > 0:
		found := Drift{Resource: resource.String(), Paths: o.Drift}
		if o.Live != nil {
			found.Writer = live.LastWriter(o.Live.GetManagedFields(), o.Drift)
		}
		r.Drift = append(r.Drift, found)
		add("%s differs from its manifest in %s", o, strings.Join(o.Drift, ", "))
	}
	if slices.Contains(o.Drift, live.RootCAPath) {
		add("%s: %s", o, live.UnknownCA)
	}
	if !resource.IsTokenSecret() {
		return
	}
	// Who may not read what this takes gets no warning: the condition of the Reservation says so too.
	if cleanup, err := cluster.TokenCleanup(ctx, resource, time.Now()); err == nil && cleanup.Message != "" {
		r.TokenCleanup = append(r.TokenCleanup, cleanup.Message)
	}
	if o.InUse() == "" {
		return
	}
	token, problem, err := cluster.Token(ctx, resource, o.InUse())
	switch {
	case err != nil:
		add("cannot check the token of %s: %v", o, err)
	case token == "":
		add("the token of %s does not work: %s", o, problem)
	}
}

// addUnlocks adds the unlocks that are not over, and names those under which resources were changed without their manifests.
func (r *Report) addUnlocks(ctx context.Context, records Records, unlocks Unlocks) {
	all, err := unlocks.List(ctx)
	if err != nil {
		r.UnlocksProblem = err.Error()
		return
	}
	for i := range all {
		audit.CleanUnlock(&all[i])
		if state := all[i].Status.State; !state.IsOver() {
			r.Unlocks = append(r.Unlocks, Unlock{Name: all[i].Name, UnlockSpec: all[i].Spec, State: state})
		}
	}
	if len(r.Drift) == 0 {
		return
	}
	written, err := records.List(ctx, audit.Filter{Outcome: string(v1alpha1.Unlocked)})
	if err != nil {
		return // the count of the denials says why
	}
	for i := range r.Drift {
		filter := audit.Filter{Resource: strings.TrimSuffix(r.Drift[i].Resource, "*")}
		for k := range written {
			if filter.Match(&written[k]) {
				r.Drift[i].Unlock = written[k].Spec.Unlock
			}
		}
	}
}

func exemptions(set *reserved.Set, now time.Time) []Exemption {
	found := []Exemption{}
	for _, reservation := range set.Reservations() {
		for _, exemption := range reservation.Exemptions {
			e := Exemption{Reservation: reservation.Name, Exemption: exemption}
			if exemption.Until != nil {
				e.DaysLeft = new(max(0, int(exemption.Until.Sub(now).Hours()/24)))
			}
			found = append(found, e)
		}
	}
	return found
}

// addDenials counts the denials of the last day. It adds no reason: an unknown count does not change the rest of the report.
func (r *Report) addDenials(ctx context.Context, records Records) {
	since := time.Now().Add(-24 * time.Hour)
	denials, err := records.List(ctx, audit.Filter{Since: since, Outcome: string(v1alpha1.Denied)})
	if err != nil {
		r.DenialsProblem = err.Error()
		return
	}
	r.Denials24h = new(int64)
	for i := range denials {
		*r.Denials24h += denials[i].Spec.Count
	}
}

// webhookConfiguration is the guard's; nil if it is absent.
type webhookConfiguration = *admissionregistrationv1.ValidatingWebhookConfiguration

// addProtection tries a forbidden write to each resource, all at the same time. Without a webhook configuration, only policies in the API
// server can protect a resource.
func (r *Report) addProtection(ctx context.Context, cluster live.Cluster, registered webhookConfiguration, err error) {
	if err != nil {
		r.Protection = verify.Unknown
		r.Reasons = append(r.Reasons, fmt.Sprintf("cannot check whether the guard is registered: %v", err))
		return
	}
	all := verify.New(cluster, verify.EveryWrite).Protections(ctx, cluster.Set.Resources())
	r.Protection = verify.Worst(all)
	if registered == nil {
		r.byPolicies = slices.ContainsFunc(all, func(p verify.Protection) bool { return p.State == verify.Protected })
		if !r.byPolicies {
			r.Protection = verify.Open
			r.Reasons = append(r.Reasons, fmt.Sprintf("the guard is not registered: validatingwebhookconfiguration %q is absent; %s",
				guardian.WebhookConfiguration, verify.Remedy(verify.NotRegistered)))
			return
		}
	}
	for _, problem := range registration.Problems(registered) {
		r.Protection = verify.Open
		r.Reasons = append(r.Reasons, "the guard reports: "+problem)
	}
	r.Protected = r.Protection == verify.Protected
	for _, p := range all {
		if p.State != verify.Protected {
			r.Protections = append(r.Protections, p)
			r.Reasons = append(r.Reasons, p.Message)
		}
	}
}

// addNotes adds what the replicas have noted. A caller who may not read that gets none.
func (r *Report) addNotes(ctx context.Context, cluster live.Cluster) {
	state, err := drift.ReadState(ctx, cluster.Client, cluster.Namespace)
	if err == nil && state.Network.IsCurrent(time.Now()) {
		r.PrivateNetwork, r.PrivateNetworkMessage = state.Network.PrivateNetwork(), state.Network.Message
		if remedy := state.Network.Remedy; remedy != "" {
			r.PrivateNetworkMessage += "; " + remedy
		}
	}
	if err != nil || state.Report == nil {
		return
	}
	r.Gap = state.Report.Gap
	for i := range r.Drift {
		for _, finding := range state.Report.Drift {
			if finding.Resource == r.Drift[i].Resource {
				r.Drift[i].Held = finding.Held
			}
		}
	}
}

// addRecording creates an audit record as a dry-run, and reads the guard's annotation. If the caller may not create records
// and the guard reports no problem, Recorded stays unknown.
func (r *Report) addRecording(ctx context.Context, cluster live.Cluster, registered webhookConfiguration, records Records) {
	var problems []string
	if registered != nil && registered.Annotations[guardian.RecordsProblemAnnotation] != "" {
		problems = append(problems, "the guard does not record denials: "+registered.Annotations[guardian.RecordsProblemAnnotation])
	}
	err := records.TryCreate(ctx)
	if r.byPolicies && errors.Is(err, store.ErrNotInstalled) {
		r.UnlocksProblem, r.DenialsProblem = "", "the API server's audit log has them: "+guardian.Name+" audit import FILE"
		return
	}
	// Quotas and admission refuse with the same code as RBAC.
	known := !apierrors.IsForbidden(err) || mayCreateRecords(ctx, cluster)
	if err != nil && known {
		problems = append(problems, fmt.Sprintf("denials cannot be recorded: %v", err))
	}
	if known || len(problems) > 0 {
		r.Recorded = new(len(problems) == 0)
	}
	r.Reasons = append(r.Reasons, problems...)
}

// mayCreateRecords reports whether RBAC lets the caller create audit records, so that a refusal has another cause.
func mayCreateRecords(ctx context.Context, cluster live.Cluster) bool {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: v1alpha1.Group, Resource: "auditrecords", Verb: "create"},
	}}
	// The API server stores no review. The dry-run makes every write of status one.
	answer, err := cluster.Client.AuthorizationV1().SelfSubjectAccessReviews().Create(
		ctx, review, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil && answer.Status.Allowed
}

// certificates checks the webhook configuration, and the Certificates that the chart made with cert-manager.
func certificates(ctx context.Context, cluster live.Cluster, registered webhookConfiguration) Certificates {
	found := Certificates{Problems: []string{}}
	if registered != nil {
		found.NotAfter = lastEnd(registered)
		if problem := registered.Annotations[guardian.CertificateProblemAnnotation]; problem != "" {
			found.Problems = append(found.Problems, "the guard reports: "+problem)
		}
	}
	if end := found.NotAfter; end != nil && time.Now().After(*end) {
		found.Problems = append(found.Problems, "every CA in the webhook configuration has expired, the last on "+end.Format(time.RFC3339))
	}
	for _, certificate := range authorize.Certificates(ctx, cluster) {
		if problem := certificate.Problem(); problem != "" {
			found.Problems = append(found.Problems, problem)
		}
	}
	return found
}

// lastEnd returns the end of the last CA in the webhook configuration; nil if there is none.
func lastEnd(registered webhookConfiguration) *time.Time {
	var last *time.Time
	for _, webhook := range registered.Webhooks {
		authorities, err := cert.ParseCertsPEM(webhook.ClientConfig.CABundle)
		if err != nil {
			continue // the API server cannot read it either, so a dry-run fails
		}
		for _, authority := range authorities {
			if last == nil || authority.NotAfter.After(*last) {
				last = new(authority.NotAfter.UTC())
			}
		}
	}
	return last
}
