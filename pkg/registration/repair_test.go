// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/probe"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

type configuration = admissionregistrationv1.ValidatingWebhookConfiguration

// api holds one webhook configuration, or none.
type api struct {
	admissionregistrationv1client.ValidatingWebhookConfigurationInterface

	live *configuration
	err  error
	// rewrite stands for admission that changes what is written; nil for none.
	rewrite func(*configuration)
	// writes counts the updates and patches.
	writes int
}

func (a *api) Get(context.Context, string, metav1.GetOptions) (*configuration, error) {
	if a.err == nil && a.live == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{}, guardian.WebhookConfiguration)
	}
	return a.live.DeepCopy(), a.err
}

func (a *api) Update(_ context.Context, c *configuration, _ metav1.UpdateOptions) (*configuration, error) {
	a.live = c.DeepCopy()
	if a.writes++; a.rewrite != nil {
		a.rewrite(a.live)
	}
	stored := a.live.DeepCopy()
	if c.DeletionTimestamp != nil && len(c.Finalizers) == 0 {
		a.live = nil
	}
	return stored, a.err
}

func (a *api) Patch(_ context.Context, _ string, _ types.PatchType, data []byte, _ metav1.PatchOptions, _ ...string) (
	*configuration, error,
) {
	a.live = &configuration{}
	err := errors.Join(a.err, json.Unmarshal(data, a.live))
	if a.writes++; a.rewrite != nil {
		a.rewrite(a.live)
	}
	return a.live.DeepCopy(), err
}

// wanted is what a replica wants; bundle is its CA bundle.
func wanted(t *testing.T, bundle string) *configuration {
	t.Helper()
	set, err := reserved.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := ServiceEndpoint("ns/guard:443", "/path")
	if err != nil {
		t.Fatal(err)
	}
	return Build(set, Options{
		Endpoint: endpoint, CABundle: []byte(bundle), FailurePolicy: admissionregistrationv1.Fail,
		Owner: &metav1.OwnerReference{APIVersion: "v1", Kind: "ClusterRole", Name: "guard", UID: "1"},
	})
}

// replica is a Repairer with what it wants and has reported.
type replica struct {
	*Repairer
	api      *api
	want     *configuration
	buildErr error
	reports  []Repair
}

func newReplica(t *testing.T, a *api) *replica {
	t.Helper()
	r := &replica{api: a, want: wanted(t, wantedCA)}
	r.Repairer = NewRepairer(RepairerOptions{
		Client: a, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Build:    func(context.Context, *configuration) (*configuration, error) { return r.want.DeepCopy(), r.buildErr },
		Report:   func(_ context.Context, repair Repair) { r.reports = append(r.reports, repair) },
		Announce: func(string, string) {}, Changed: func() {},
	})
	return r
}

// inPlaceOf returns the metric.
func inPlaceOf(r *replica) float64 {
	families, err := r.options.Registry.(*prometheus.Registry).Gather()
	if err != nil {
		return -1
	}
	for _, family := range families {
		if family.GetName() == "apigw_guardian_registration_in_place" {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	return -1
}

// edits are what an attacker may do to the webhook configuration.
var edits = map[string]func(*configuration){
	"a webhook removed":     func(c *configuration) { c.Webhooks = c.Webhooks[1:] },
	"all webhooks removed":  func(c *configuration) { c.Webhooks = nil },
	"a webhook added":       func(c *configuration) { c.Webhooks = append(c.Webhooks, c.Webhooks[0]) },
	"failures ignored":      func(c *configuration) { c.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore) },
	"another Service":       func(c *configuration) { c.Webhooks[1].ClientConfig.Service.Name = "other" },
	"another port":          func(c *configuration) { c.Webhooks[1].ClientConfig.Service.Port = new(int32(1)) },
	"another path":          func(c *configuration) { c.Webhooks[1].ClientConfig.Service.Path = new("/other") },
	"a URL":                 func(c *configuration) { c.Webhooks[1].ClientConfig = urlConfig("https://other") },
	"a namespace selector":  func(c *configuration) { c.Webhooks[2].NamespaceSelector = selector() },
	"an object selector":    func(c *configuration) { c.Webhooks[2].ObjectSelector = selector() },
	"an exact match policy": func(c *configuration) { c.Webhooks[0].MatchPolicy = new(admissionregistrationv1.Exact) },
	"fewer operations":      func(c *configuration) { c.Webhooks[0].Rules[0].Operations = c.Webhooks[0].Rules[0].Operations[1:] },
	"another group":         func(c *configuration) { c.Webhooks[0].Rules[0].APIGroups = []string{"x"} },
	"another version":       func(c *configuration) { c.Webhooks[0].Rules[0].APIVersions = []string{"v9"} },
	"another resource":      func(c *configuration) { c.Webhooks[0].Rules[0].Resources = []string{"x"} },
	"another scope":         func(c *configuration) { c.Webhooks[0].Rules[0].Scope = new(admissionregistrationv1.ClusterScope) },
	"no rule":               func(c *configuration) { c.Webhooks[0].Rules = nil },
	"a condition more": func(c *configuration) {
		never := admissionregistrationv1.MatchCondition{Name: "never", Expression: "false"}
		c.Webhooks[2].MatchConditions = append(c.Webhooks[2].MatchConditions, never)
	},
	"a condition changed": func(c *configuration) { c.Webhooks[2].MatchConditions[0].Expression = "false" },
}

func urlConfig(url string) admissionregistrationv1.WebhookClientConfig {
	return admissionregistrationv1.WebhookClientConfig{URL: new(url), CABundle: []byte(wantedCA)}
}

func selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	want := wanted(t, wantedCA)
	if got := judge(nil, want); got != absent {
		t.Errorf("none: got %q, want %q", got, absent)
	}
	for name, edit := range edits {
		live := want.DeepCopy()
		edit(live)
		if got := judge(live, want); got != tampered {
			t.Errorf("%s: got %q, want %q", name, got, tampered)
		}
		live.Annotations[guardian.RevisionAnnotation] = revision(live.Webhooks)
		if expected := forged(name); judge(live, want) != expected {
			t.Errorf("%s with the digest made to fit: got %q, want %q", name, judge(live, want), expected)
		}
		delete(live.Annotations, guardian.RevisionAnnotation)
		if got := judge(live, want); got != tampered {
			t.Errorf("%s without a digest: got %q, want %q", name, got, tampered)
		}
	}
	for name, test := range map[string]struct {
		edit func(*configuration)
		want state
	}{
		"nothing":                  {func(*configuration) {}, inPlace},
		"a label of others":        {func(c *configuration) { c.Labels["x"] = "y" }, inPlace},
		"an annotation removed":    {func(c *configuration) { c.Annotations = nil }, inPlace},
		"another CA bundle":        {func(c *configuration) { c.Webhooks[0].ClientConfig.CABundle = []byte("x") }, otherCA},
		"no CA bundle":             {func(c *configuration) { c.Webhooks[3].ClientConfig.CABundle = nil }, otherCA},
		"more CAs":                 {trust(wantedCA + otherCAs), moreCAs},
		"other CAs":                {trust(otherCAs), otherCA},
		"more CAs in one webhook":  {func(c *configuration) { c.Webhooks[0].ClientConfig.CABundle = []byte(wantedCA + otherCAs) }, otherCA},
		"another owner":            {func(c *configuration) { c.OwnerReferences[0].UID = "2" }, tampered},
		"no owner":                 {func(c *configuration) { c.OwnerReferences = nil }, tampered},
		"a finalizer":              {func(c *configuration) { c.Finalizers = []string{"example.com/x"} }, tampered},
		"being deleted":            {func(c *configuration) { c.DeletionTimestamp = new(metav1.Now()) }, tampered},
		"a longer timeout":         {func(c *configuration) { c.Webhooks[0].TimeoutSeconds = new(int32(9)) }, tampered},
		"a newer revision":         {func(c *configuration) { c.Webhooks[0].TimeoutSeconds = new(int32(9)); seal(c) }, inPlace},
		"one that conditions less": {func(c *configuration) { c.Webhooks[2].MatchConditions = nil; seal(c) }, inPlace},
	} {
		live := want.DeepCopy()
		test.edit(live)
		if got := judge(live, want); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

// Two CA bundles in PEM; nothing here parses the certificates.
const (
	wantedCA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	otherCAs = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
)

// trust sets the CA bundle of all webhooks.
func trust(bundle string) func(*configuration) {
	return func(c *configuration) {
		for i := range c.Webhooks {
			c.Webhooks[i].ClientConfig.CABundle = []byte(bundle)
		}
	}
}

func seal(c *configuration) { c.Annotations[guardian.RevisionAnnotation] = revision(c.Webhooks) }

// forged is what an edit is taken for by an attacker who knows the digest: what protects as much may be a newer version's.
func forged(name string) state {
	if name == "a webhook added" {
		return inPlace
	}
	return otherRevision
}

func TestThePatrolRepairsWhatTheLeaderLeaves(t *testing.T) {
	t.Parallel()
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, begin := patrolling(t, Patrol{})
				edit(r.api.live)
				begin()
				requireRepairedAfter(t, r, patience)
				defer r.pausePatrol()()
				if len(r.reports) != 1 || r.reports[0].Operation != admissionv1.Update || len(r.reports[0].Changed) == 0 {
					t.Errorf("reports: %+v", r.reports)
				}
			})
		})
	}
}

// The leader may be back, and is as quick as it was.
func TestThePatrolIsAsPatientAfterItsOwnRepair(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, begin := patrolling(t, Patrol{})
		edit := edits["all webhooks removed"]
		edit(r.api.live)
		begin()
		requireRepairedAfter(t, r, patience)
		time.Sleep(time.Second) // and not at the time of a look
		resume := r.pausePatrol()
		edit(r.api.live)
		resume()
		requireRepairedAfter(t, r, patience)
	})
}

// patrolling returns a replica that has seen its webhook configuration in place, and what starts its patrol.
func patrolling(t *testing.T, patrol Patrol) (*replica, func()) {
	t.Helper()
	r := newReplica(t, &api{})
	if err := r.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready := make(chan struct{})
	close(ready)
	patrol.Repairer, patrol.Ready = r.Repairer, ready
	return r, func() { go patrol.Run(t.Context()) }
}

// pausePatrol waits for the patrol's round to end, and delays the next one until resume.
func (r *replica) pausePatrol() (resume func()) {
	synctest.Wait()
	r.mu.Lock()
	return r.mu.Unlock
}

func (r *replica) isRepaired() bool {
	defer r.pausePatrol()()
	return r.api.live != nil && asWanted(r.api.live, r.want)
}

// requireRepairedAfter wants the webhook configuration not in place until a time is over, and in place soon after.
func requireRepairedAfter(t *testing.T, r *replica, after time.Duration) {
	t.Helper()
	time.Sleep(after - lookInterval/2)
	if r.isRepaired() {
		t.Errorf("repaired before %v", after)
	}
	if got := inPlaceOf(r); got != 0 {
		t.Errorf("gauge: got %v, want 0", got)
	}
	time.Sleep(lookInterval)
	if !r.isRepaired() {
		t.Errorf("not repaired after %v", after)
	}
	if got := inPlaceOf(r); got != 1 {
		t.Errorf("gauge: got %v, want 1", got)
	}
}

func TestThePatrolWaitsFor(t *testing.T) {
	t.Parallel()
	noBundle := func(c *configuration) { c.Webhooks[0].ClientConfig.CABundle = nil }
	for name, test := range map[string]struct {
		patrol Patrol
		edit   func(*configuration)
		after  time.Duration
	}{
		"an upgrade":                        {Patrol{}, func(c *configuration) { c.Webhooks = c.Webhooks[1:]; seal(c) }, upgradePatience},
		"replicas to agree on one CA":       {Patrol{}, trust(wantedCA + otherCAs), upgradePatience},
		"kubelets that renew files":         {Patrol{FilesDiffer: true}, noBundle, upgradePatience},
		"the leader, with a CA of its own":  {Patrol{}, noBundle, patience},
		"the leader, where files differ":    {Patrol{FilesDiffer: true}, func(c *configuration) { c.Webhooks = nil }, patience},
		"the leader, with a finalizer left": {Patrol{}, func(c *configuration) { c.Finalizers = []string{"example.com/x"} }, patience},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, begin := patrolling(t, test.patrol)
				test.edit(r.api.live)
				begin()
				requireRepairedAfter(t, r, test.after)
			})
		})
	}
}

func TestThePatrolBringsBackWhatWasDeleted(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(*api){
		"gone": func(a *api) { a.live = nil },
		"held in deletion for ever": func(a *api) {
			a.live.DeletionTimestamp, a.live.Finalizers = new(metav1.Now()), []string{"example.com/x"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, begin := patrolling(t, Patrol{})
				remove(r.api)
				begin()
				requireRepairedAfter(t, r, patience)
				defer r.pausePatrol()()
				if len(r.reports) != 1 || r.reports[0].Operation != admissionv1.Delete {
					t.Errorf("reports: %+v", r.reports)
				}
			})
		})
	}
}

// Two versions run side by side during an upgrade: neither touches the webhook configuration of the other, however long.
func TestThePatrolLeavesANewerRevision(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, begin := patrolling(t, Patrol{})
		newer := r.want.DeepCopy()
		newer.Webhooks[0].TimeoutSeconds = new(int32(9))
		newer.Webhooks[0].Name = "renamed.apigw-guardian.io"
		seal(newer)
		r.api.live = newer.DeepCopy()
		begin()
		time.Sleep(time.Hour)
		defer r.pausePatrol()()
		if diff := cmp.Diff(newer, r.api.live); diff != "" || len(r.reports) > 0 {
			t.Errorf("touched (-newer +live):\n%s", diff)
		}
		if got := inPlaceOf(r); got != 1 {
			t.Errorf("gauge: got %v, want 1", got)
		}
	})
}

func TestThePatrolGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, guardian.WebhookConfiguration, nil)
	for name, test := range map[string]struct {
		fail      func(*replica, error)
		err       error
		announced []string
	}{
		"the owner is gone":             {func(r *replica, err error) { r.buildErr = err }, ErrOwnerGone, []string{"OwnerGone"}},
		"the API server refuses":        {func(r *replica, err error) { r.api.err = err }, forbidden, nil},
		"the certificates are not read": {func(r *replica, err error) { r.buildErr = err }, forbidden, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var announced []string
				r, begin := patrolling(t, Patrol{})
				r.options.Announce = func(reason, _ string) { announced = append(announced, reason) }
				r.api.live = nil
				test.fail(r, test.err)
				begin()
				time.Sleep(time.Hour)
				resume := r.pausePatrol()
				if got := inPlaceOf(r); got != 0 || r.api.live != nil {
					t.Errorf("gauge: got %v, want 0; live: %v", got, r.api.live)
				}
				if !slices.Equal(announced, test.announced) {
					t.Errorf("announced: got %q, want %q", announced, test.announced)
				}
				test.fail(r, nil)
				resume()
				requireRepairedAfter(t, r, patience+lookInterval)
			})
		})
	}
}

func TestKeepReportsOnlyWhatOthersDid(t *testing.T) {
	t.Parallel()
	managed := []metav1.ManagedFieldsEntry{
		{Manager: "kubectl-edit", Time: new(metav1.Unix(200, 0))},
		{Manager: guardian.FieldManager, Time: new(metav1.Unix(200, 0))},
		{Manager: "older", Time: new(metav1.Unix(100, 0))},
		{Manager: "timeless"},
	}
	for name, test := range map[string]struct {
		edit func(*replica)
		want []Repair
	}{
		"a certificate that rotates": {func(r *replica) { r.want = wanted(t, "next") }, nil},
		"the first start":            {func(r *replica) { r.api.live, r.last = nil, nil }, nil},
		"another version before": {func(r *replica) {
			r.last, r.api.live.Webhooks[0].TimeoutSeconds = nil, new(int32(9))
			seal(r.api.live)
		}, nil},
		"a problem that another replica has": {func(r *replica) { r.api.live.Annotations[guardian.CertificateProblemAnnotation] = "problem" }, nil},
		"a key of this replica that another replica has removed": {func(r *replica) {
			key := probe.NewReplica(time.Unix(1, 0))
			r.want.Annotations[key.KeyAnnotation()] = key.Publication()
			r.last = r.want.DeepCopy()
		}, nil},
		"an edit": {func(r *replica) {
			r.api.live.Webhooks[0].FailurePolicy = new(admissionregistrationv1.Ignore)
			r.api.live.ManagedFields = managed
		}, []Repair{{
			Operation: admissionv1.Update, Changed: []string{"webhooks[0].failurePolicy"}, Manager: "kubectl-edit", At: time.Unix(200, 0),
		}}},
		"an edit while no replica ran": {
			func(r *replica) { r.last, r.api.live.Webhooks = nil, nil },
			[]Repair{{Operation: admissionv1.Update, Changed: []string{"webhooks"}}},
		},
		"an edit of the metadata": {func(r *replica) {
			r.api.live.Labels, r.api.live.OwnerReferences = map[string]string{"app.kubernetes.io/name": "x"}, nil
			r.api.live.Annotations["admissions.enforcer/disabled"] = "false"
		}, []Repair{{Operation: admissionv1.Update, Changed: []string{
			"metadata.annotations[admissions.enforcer/disabled]",
			"metadata.labels[app.kubernetes.io/managed-by]", "metadata.labels[app.kubernetes.io/name]", "metadata.ownerReferences",
		}}}},
		"a deletion": {func(r *replica) { r.api.live = nil }, []Repair{{Operation: admissionv1.Delete}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReplica(t, &api{})
			if err := r.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			test.edit(r)
			if err := r.Keep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, r.reports, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("reports (-want +got):\n%s", diff)
			}
			if !asWanted(r.api.live, r.want) {
				t.Error("not as wanted")
			}
		})
	}
}
