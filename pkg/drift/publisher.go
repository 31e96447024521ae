// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/lookup"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
	"github.com/apigw-guardian/apigw-guardian/pkg/verify"
)

const (
	// publishInterval is the time between two writes of a status without news.
	publishInterval = 30 * time.Second
	// publishPause is the least time between two rounds: what the watcher sees comes in bursts.
	publishPause = time.Second
	// lasting is how often a problem must come in a row before it is logged.
	lasting = 3
	// slowInterval is the time between two looks at what changes slowly or is expensive to read.
	slowInterval = 5 * time.Minute
	// maxConditionMessage is less than the API server accepts in a condition: 32768 bytes.
	maxConditionMessage = 4096
)

// Publisher writes a Reservation for each reservation. No decision reads it, so a user who may write one gains nothing, and the leader
// writes it anew. All fields are required.
type Publisher struct {
	Watcher *Watcher
	Prover  *Prover
	// Log takes a problem once, if it lasts: the definition of the kind may be on its way.
	Log *slog.Logger

	// failed is the problem of the last round, and failures how often it came in a row.
	failed   string
	failures int
	// slow is what the last slow look has found, and looked its time.
	slow   slow
	looked time.Time
}

// slow is what a slow look finds.
type slow struct {
	// denials are the last and the number of the denials of each reservation; nil if unknown.
	denials map[string]*denials
	cleanup map[string]metav1.Condition
}

type denials struct {
	count int64
	last  metav1.Time
}

// Lead writes until ctx ends.
func (p *Publisher) Lead(ctx context.Context) {
	p.looked = time.Time{}
	ticker := time.NewTicker(publishInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, lookTimeout)
		err := p.publish(bounded, time.Now())
		cancel()
		if ctx.Err() == nil {
			p.complain(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.Watcher.news:
		case <-p.Prover.news:
		}
		select {
		case <-ctx.Done():
		case <-time.After(publishPause):
		}
	}
}

func (p *Publisher) complain(err error) {
	if err == nil {
		p.failed, p.failures = "", 0
		return
	}
	if err.Error() != p.failed {
		p.failed, p.failures = err.Error(), 0
	}
	if p.failures++; p.failures == lasting {
		p.Log.Warn("failed to publish reservations", slog.Any("err", err))
	}
}

func (p *Publisher) publish(ctx context.Context, now time.Time) error {
	options := p.Watcher.options
	if now.Sub(p.looked) >= slowInterval {
		p.slow, p.looked = p.lookSlowly(ctx, now), now
	}
	owner, err := options.Owner(ctx)
	if err != nil {
		return err
	}
	unlocks, err := options.Unlocks.List(ctx)
	if err != nil {
		return err
	}
	network := networkReady(authorize.CheckPrivateNetwork(ctx, options.Cluster.Client), current(ctx, options.Cluster, now))
	client := options.Cluster.Dynamic.Resource(v1alpha1.GroupVersion().WithResource("reservations"))
	for _, reservation := range options.Cluster.Set.Reservations() {
		stored, err := apply(ctx, client, reservation, owner)
		if apierrors.IsNotFound(err) {
			return errors.New("the cluster does not know reservations: install the chart with crds.enabled=true")
		}
		if err != nil {
			return fmt.Errorf("apply reservation %q: %w", reservation.Name, err)
		}
		status := p.status(ctx, reservation, stored.Status, network)
		status.Checked = new(metav1.NewTime(now.Truncate(time.Second)))
		for i := range unlocks {
			if unlocks[i].Spec.Reservation == reservation.Name && options.Rules.StateOf(&unlocks[i], metav1.NewTime(now)) == v1alpha1.UnlockOpen {
				status.Unlocks = append(status.Unlocks, unlocks[i].Name)
			}
		}
		if err := applyStatus(ctx, client, reservation.Name, status); err != nil {
			return fmt.Errorf("apply the status of reservation %q: %w", reservation.Name, err)
		}
	}
	return prune(ctx, client, options.Cluster.Set)
}

// status keeps the times of conditions that stay. network is the same for all reservations.
func (p *Publisher) status(
	ctx context.Context, reservation *reserved.Reservation, before v1alpha1.ReservationStatus, network metav1.Condition,
) v1alpha1.ReservationStatus {
	status := v1alpha1.ReservationStatus{LastDenial: before.LastDenial}
	retired := p.retired(ctx, reservation)
	conditions := []metav1.Condition{retired, p.protected(reservation)}
	conditions = append(conditions, p.synced(reservation, retired.Status == metav1.ConditionTrue)...)
	conditions = append(conditions, network)
	if cleanup, known := p.slow.cleanup[reservation.Name]; known {
		conditions = append(conditions, cleanup)
	}
	for _, condition := range conditions {
		if old := meta.FindStatusCondition(before.Conditions, condition.Type); old != nil {
			status.Conditions = append(status.Conditions, *old)
		}
		condition.Message = text.Printable(condition.Message, maxConditionMessage)
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	if found := p.slow.denials[reservation.Name]; found != nil {
		status.Denials24h = &found.count
		if !found.last.IsZero() {
			status.LastDenial = &found.last
		}
	}
	return status
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

func (p *Publisher) retired(ctx context.Context, reservation *reserved.Reservation) metav1.Condition {
	cluster := p.Watcher.options.Cluster
	found, err := cluster.Lookups().Retirement(ctx, reservation.Name)
	const kind = v1alpha1.ConditionRetired
	switch {
	case err != nil:
		return condition(kind, metav1.ConditionUnknown, "NotRead", err.Error())
	case found == nil:
		return condition(kind, metav1.ConditionFalse, "NotRetired", "")
	case found.State != lookup.Retired:
		return condition(kind, metav1.ConditionFalse, "Retiring", "To finish it: "+guardian.Name+" retire")
	}
	return condition(kind, metav1.ConditionTrue, "Retired",
		fmt.Sprintf("Retired by %s at %s.", found.By, found.Since.UTC().Format(time.RFC3339)))
}

// protected returns the worst result of the kinds of the reservation.
func (p *Publisher) protected(reservation *reserved.Reservation) metav1.Condition {
	var results []verify.Protection
	for _, proof := range p.Prover.results() {
		if slices.ContainsFunc(reservation.WithManifest(), func(r *reserved.Resource) bool {
			return r.GVR.GroupResource() == v1alpha1.ParseObjectReference(proof.Resource).GroupResource()
		}) {
			results = append(results, proof)
		}
	}
	if len(results) == 0 {
		return condition(v1alpha1.ConditionProtected, metav1.ConditionUnknown, "NotProved", "The leader has not tried a forbidden write yet.")
	}
	worst, reason := verify.Worst(results), ""
	var messages []string
	for _, proof := range results {
		if proof.State == worst && worst != verify.Protected {
			reason = cmp.Or(reason, string(proof.Cause))
			messages = append(messages, proof.String())
		}
	}
	status := metav1.ConditionFalse
	switch worst {
	case verify.Protected:
		status = metav1.ConditionTrue
	case verify.Unknown:
		status = metav1.ConditionUnknown
	case verify.Observed:
		reason = string(worst)
	}
	return condition(v1alpha1.ConditionProtected, status, cmp.Or(reason, string(worst)), strings.Join(messages, ". "))
}

const notLooked = "The leader has not looked at each resource yet."

// synced returns the conditions Authorized and InSync.
func (p *Publisher) synced(reservation *reserved.Reservation, isRetired bool) []metav1.Condition {
	both := func(status metav1.ConditionStatus, reason, message string) []metav1.Condition {
		return []metav1.Condition{
			condition(v1alpha1.ConditionAuthorized, status, reason, message), condition(v1alpha1.ConditionInSync, status, reason, message),
		}
	}
	report := p.Watcher.latest.Load()
	switch {
	case p.Watcher.options.Mode == Off:
		return both(metav1.ConditionUnknown, "NotWatched", "The guard runs with --drift off.")
	case isRetired:
		return []metav1.Condition{
			condition(v1alpha1.ConditionAuthorized, metav1.ConditionFalse, "Retired", ""),
			condition(v1alpha1.ConditionInSync, metav1.ConditionTrue, "Retired", ""),
		}
	case report == nil:
		return both(metav1.ConditionUnknown, "NotLooked", notLooked)
	}
	var differs, absent []string
	for _, resource := range reservation.WithManifest() {
		i := slices.IndexFunc(report.Drift, func(f Finding) bool { return f.Resource == resource.String() })
		switch {
		case i < 0 && !report.Seen[resource.String()].InSync:
			return both(metav1.ConditionUnknown, "NotLooked", notLooked)
		case i < 0:
			continue
		case report.Drift[i].isAbsent():
			absent = append(absent, report.Drift[i].Sentence())
		default:
			differs = append(differs, report.Drift[i].Sentence())
		}
	}
	authorized := condition(v1alpha1.ConditionAuthorized, metav1.ConditionTrue, "Present", "")
	inSync := condition(v1alpha1.ConditionInSync, metav1.ConditionTrue, "AsManifest", "")
	if len(differs)+len(absent) > 0 {
		inSync = condition(v1alpha1.ConditionInSync, metav1.ConditionFalse, audit.Differs, strings.Join(slices.Concat(absent, differs), " "))
	}
	if len(absent) > 0 {
		authorized = condition(v1alpha1.ConditionAuthorized, metav1.ConditionFalse, audit.Absent, strings.Join(absent, " "))
	}
	return []metav1.Condition{authorized, inSync}
}

// networkReady says what the cluster shows; or what Tencent Cloud has answered, nil if the leader does not ask.
func networkReady(check authorize.Check, noted *Network) metav1.Condition {
	reason, message, remedy := cmp.Or(string(check.Status), "Unknown"), check.Message, check.Remedy
	answer := map[authorize.Status]string{authorize.Pass: "Yes", authorize.Fail: "No"}[check.Status]
	if noted != nil {
		reason, message, remedy, answer = cmp.Or(string(noted.Reason), "Unknown"), noted.Message, noted.Remedy, noted.PrivateNetwork()
	}
	statuses := map[string]metav1.ConditionStatus{"Yes": metav1.ConditionTrue, "No": metav1.ConditionFalse}
	return condition(v1alpha1.ConditionPrivateNetworkReady, cmp.Or(statuses[answer], metav1.ConditionUnknown), reason,
		strings.Trim(message+". "+remedy, ". "))
}

// current returns what Tencent Cloud has answered, nil if the leader does not ask.
func current(ctx context.Context, cluster live.Cluster, now time.Time) *Network {
	state, err := ReadState(ctx, cluster.Client, cluster.Namespace)
	if err != nil || !state.Network.IsCurrent(now) {
		return nil
	}
	return state.Network
}

// lookSlowly never fails: what it cannot read is unknown.
func (p *Publisher) lookSlowly(ctx context.Context, now time.Time) slow {
	options := p.Watcher.options
	found := slow{cleanup: map[string]metav1.Condition{}}
	for _, reservation := range options.Cluster.Set.Reservations() {
		if token := tokenSecretOf(reservation); token != nil {
			found.cleanup[reservation.Name] = cleanupCondition(ctx, options.Cluster, token, now)
		}
	}
	records, err := options.Records.List(ctx, audit.Filter{Since: now.Add(-24 * time.Hour), Outcome: string(v1alpha1.Denied)})
	if err != nil {
		return found
	}
	found.denials = map[string]*denials{}
	for _, reservation := range options.Cluster.Set.Reservations() {
		found.denials[reservation.Name] = &denials{}
	}
	for i := range records {
		d := found.denials[reservationOf(options.Cluster.Set, records[i].Spec.Object)]
		d.count += records[i].Spec.Count
		if last := records[i].Spec.LastTime; d.last.Time.Before(last.Time) {
			d.last = metav1.NewTime(last.Time)
		}
	}
	return found
}

// reservationOf returns the name of the reservation of an object. Denials of other objects, such as unlocks, count for the first one.
func reservationOf(set *reserved.Set, object v1alpha1.ObjectReference) string {
	for _, resource := range set.Resources() {
		isKind := resource.GVR.GroupResource() == object.GroupResource()
		if isKind && resource.Covers(reserved.Identity{Namespace: object.Namespace, Name: object.Name}) {
			return resource.Reservation
		}
	}
	return set.Reservations()[0].Name
}

func tokenSecretOf(reservation *reserved.Reservation) *reserved.Resource {
	resources := reservation.WithManifest()
	if i := slices.IndexFunc(resources, (*reserved.Resource).IsTokenSecret); i >= 0 {
		return resources[i]
	}
	return nil
}

func cleanupCondition(ctx context.Context, cluster live.Cluster, token *reserved.Resource, now time.Time) metav1.Condition {
	cleanup, err := cluster.TokenCleanup(ctx, token, now)
	const kind = v1alpha1.ConditionTokenCleanup
	switch {
	case err != nil:
		return condition(kind, metav1.ConditionUnknown, "NotRead", err.Error())
	case cleanup.Message == "":
		return condition(kind, metav1.ConditionFalse, "NotDue", "")
	}
	return condition(kind, metav1.ConditionTrue, cleanup.Reason, cleanup.Message)
}

// managedBy marks what the leader may delete.
const managedBy = "app.kubernetes.io/managed-by"

// apply writes the spec, and returns the stored Reservation.
func apply(
	ctx context.Context, client dynamic.ResourceInterface, reservation *reserved.Reservation, owner *metav1.OwnerReference,
) (*v1alpha1.Reservation, error) {
	wanted := &v1alpha1.Reservation{Spec: v1alpha1.ReservationSpec{Owner: reservation.Owner}}
	wanted.Labels = map[string]string{"app.kubernetes.io/name": guardian.Name, managedBy: guardian.Name}
	if owner != nil {
		wanted.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	for _, resource := range reservation.WithManifest() {
		wanted.Spec.Resources = append(wanted.Spec.Resources, v1alpha1.ReservationResource{
			Resource: resource.GVR.Resource, NamePrefix: resource.NamePrefix, Manifest: runtime.RawExtension{Raw: resource.Manifest()},
		})
	}
	for i := range reservation.Exemptions {
		raw, err := json.Marshal(&reservation.Exemptions[i])
		if err != nil {
			return nil, err
		}
		wanted.Spec.Exemptions = append(wanted.Spec.Exemptions, runtime.RawExtension{Raw: raw})
	}
	object, err := toObject(reservation.Name, wanted)
	if err != nil {
		return nil, err
	}
	answer, err := client.Apply(ctx, reservation.Name, object, metav1.ApplyOptions{FieldManager: guardian.FieldManager, Force: true})
	if err != nil {
		return nil, err
	}
	stored := &v1alpha1.Reservation{}
	err = runtime.DefaultUnstructuredConverter.FromUnstructured(answer.Object, stored)
	return stored, err
}

func applyStatus(ctx context.Context, client dynamic.ResourceInterface, name string, status v1alpha1.ReservationStatus) error {
	object, err := toObject(name, &v1alpha1.Reservation{Status: status})
	if err != nil {
		return err
	}
	delete(object.Object, "spec")
	_, err = client.ApplyStatus(ctx, name, object, metav1.ApplyOptions{FieldManager: guardian.FieldManager + "-status", Force: true})
	return err
}

func toObject(name string, reservation *v1alpha1.Reservation) (*unstructured.Unstructured, error) {
	reservation.APIVersion, reservation.Kind, reservation.Name = v1alpha1.GroupVersion().String(), "Reservation", name
	data, err := json.Marshal(reservation)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	return object, object.UnmarshalJSON(data)
}

// prune deletes what the leader has written for a reservation that is not loaded any more.
func prune(ctx context.Context, client dynamic.ResourceInterface, set *reserved.Set) error {
	all, err := client.List(ctx, metav1.ListOptions{LabelSelector: managedBy + "=" + guardian.Name})
	if err != nil {
		return fmt.Errorf("list reservations: %w", err)
	}
	for i := range all.Items {
		name := all.Items[i].GetName()
		if set.Reservation(name) != nil {
			continue
		}
		if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete reservation %q: %w", name, err)
		}
	}
	return nil
}
