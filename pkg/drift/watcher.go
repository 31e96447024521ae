// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/authorize"
	"github.com/apigw-guardian/apigw-guardian/pkg/client"
	"github.com/apigw-guardian/apigw-guardian/pkg/live"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
)

// Mode says what the leader does about drift.
type Mode string

// Modes. Each does what the one before does, and more.
const (
	// Off neither looks nor reports.
	Off Mode = "off"
	// Report reports.
	ReportOnly Mode = "report"
	// Heal restores what was authorized before.
	Heal Mode = "heal"
	// Authorize also creates a set that was never authorized.
	Authorize Mode = "authorize"
)

func (m Mode) heals() bool { return m == Heal || m == Authorize }

// Options are the parts of a Watcher. All are required.
type Options struct {
	Cluster  live.Cluster
	Owner    Owner
	Metadata metadata.Interface
	Mode     Mode
	Rules    policy.UnlockRules
	// Unlocks lists without a cache: a write under an Unlock must not be reverted.
	Unlocks interface {
		List(ctx context.Context) ([]v1alpha1.Unlock, error)
	}
	Records interface {
		List(ctx context.Context, filter audit.Filter) ([]v1alpha1.AuditRecord, error)
	}
	// Record records an event.
	Record   func(ctx context.Context, event audit.Event)
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Watcher watches the reserved resources by name. Make one by New.
type Watcher struct {
	options    Options
	authorizer *authorize.Authorizer
	drift      *prometheus.GaugeVec
	heals      *prometheus.CounterVec

	// latest is the report of the last look; nil before the first one. news tells the Publisher.
	latest atomic.Pointer[Report]
	news   chan struct{}

	// mu is held by Lead, and guards the fields below.
	mu       sync.Mutex
	subjects []*subject
	// history holds what was found, the newest last.
	history []Finding
	gap     *Gap
	// written is the report that was written last.
	written string
}

// subject is a reserved resource with a manifest.
type subject struct {
	*reserved.Resource
	seen Seen
	// applied says that this program owns fields of the live object.
	applied bool
	// finding is nil while the object is as its manifest says.
	finding *Finding
	// reported identifies the finding that was recorded last.
	reported string
	fight    fight
}

// New registers the metrics. It does not call the API server.
func New(options Options) *Watcher {
	register := promauto.With(options.Registry)
	w := &Watcher{
		options:    options,
		news:       make(chan struct{}, 1),
		authorizer: authorize.New(options.Cluster),
		drift: register.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apigw_guardian_drift",
			Help: "1 for a reserved resource that differs from its manifest or is absent, 0 for another one. Only the leader has it.",
		}, []string{"resource"}),
		heals: register.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_heals_total",
			Help: "Attempts of this replica to restore a reserved resource, by result (restored, failed, stopped).",
		}, []string{"result"}),
	}
	for _, result := range []string{restored, failed, stopped} {
		w.heals.WithLabelValues(result)
	}
	return w
}

const (
	// relookInterval is the time between two looks without a change: an absent object raises no event, and an Unlock ends silently.
	relookInterval = 30 * time.Second
	// lookTimeout bounds one look and its repair.
	lookTimeout = 30 * time.Second
	// The pauses between attempts while the API server refuses.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
	// gapItem is the queue's item of a look for a gap.
	gapItem = -1
)

// queue holds the indices of the subjects to look at, and gapItem.
type queue = workqueue.TypedRateLimitingInterface[int]

// Lead looks at all resources, reports what changed while the guard did not decide, and then follows the resources until ctx ends. A
// second Lead waits for the end of the first.
func (w *Watcher) Lead(ctx context.Context) {
	if w.options.Mode == Off {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.begin(ctx) {
		return
	}
	defer w.drift.Reset()
	q := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[int](firstRetry, lastRetry))
	for i, s := range w.subjects {
		go w.watch(ctx, s.Resource, func() { q.Add(i) })
		q.Add(i)
	}
	go remind(ctx, q, len(w.subjects))
	for {
		item, end := q.Get()
		if end {
			return
		}
		w.work(ctx, q, item)
	}
}

// begin forgets what an earlier term knew, reads what other leaders have noted, and reports a gap. It returns false at the end of ctx.
func (w *Watcher) begin(ctx context.Context) bool {
	w.subjects, w.history, w.gap, w.written = nil, nil, nil, ""
	w.latest.Store(nil)
	for _, resource := range w.options.Cluster.Set.WithManifest() {
		w.subjects = append(w.subjects, &subject{Resource: resource})
	}
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		bounded, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		state, err := notes{w.options.Cluster, w.options.Owner}.read(bounded)
		if err != nil {
			w.options.Log.Warn("failed to read what earlier leaders have noted", slog.Any("err", err))
			return false, nil
		}
		if state.Report != nil {
			w.gap = state.Report.Gap
			for _, s := range w.subjects {
				s.seen = state.Report.Seen[s.String()]
			}
		}
		w.reportGap(bounded)
		return true, nil
	})
	return err == nil
}

// watch follows the metadata of one object. The informer keeps nothing of it: each event is a reason to look.
func (w *Watcher) watch(ctx context.Context, resource *reserved.Resource, look func()) {
	byName := func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector("metadata.name", resource.Name).String()
	}
	informer := metadatainformer.NewFilteredMetadataInformer(
		w.options.Metadata, resource.GVR, resource.Namespace, 0, cache.Indexers{}, byName).Informer()
	said := ""
	err := errors.Join(
		informer.SetTransform(func(object any) (any, error) {
			if m, isMetadata := object.(*metav1.PartialObjectMetadata); isMetadata {
				return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
					Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
				}}, nil
			}
			return object, nil
		}),
		informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
			if ctx.Err() == nil && said != err.Error() {
				said = err.Error()
				w.options.Log.Warn("failed to watch a reserved resource", slog.String("resource", resource.String()), slog.Any("err", err))
			}
		}),
	)
	_, addErr := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { look() }, UpdateFunc: func(any, any) { look() }, DeleteFunc: func(any) { look() },
	})
	if err := errors.Join(err, addErr); err != nil { // impossible: the informer has not started
		w.options.Log.Error("failed to watch a reserved resource", slog.String("resource", resource.String()), slog.Any("err", err))
	}
	informer.RunWithContext(ctx)
}

// remind adds all items from time to time, and shuts the queue down with ctx.
func remind(ctx context.Context, q queue, subjects int) {
	defer q.ShutDown()
	gaps, all := time.NewTicker(noteInterval), time.NewTicker(relookInterval)
	defer gaps.Stop()
	defer all.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-gaps.C:
			q.Add(gapItem)
		case <-all.C:
			for i := range subjects {
				q.Add(i)
			}
		}
	}
}

func (w *Watcher) work(ctx context.Context, q queue, item int) {
	defer q.Done(item)
	bounded, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if item == gapItem {
		w.reportGap(bounded)
		return
	}
	s := w.subjects[item]
	again, err := w.follow(bounded, s)
	w.publish(bounded)
	switch {
	case err != nil && ctx.Err() == nil:
		w.options.Log.Warn("failed to look at a reserved resource", slog.String("resource", s.String()), slog.Any("err", err))
		q.AddRateLimited(item)
	case again > 0:
		q.Forget(item)
		q.AddAfter(item, again)
	default:
		q.Forget(item)
	}
}

// follow looks at a resource, reports drift, and restores it. It returns when to look again; zero for the next event.
func (w *Watcher) follow(ctx context.Context, s *subject) (again time.Duration, err error) {
	if err := w.look(ctx, s); err != nil || s.finding == nil {
		return 0, err
	}
	again, err = w.hold(ctx, s)
	if err != nil {
		return 0, err
	}
	w.record(ctx, s)
	if s.finding.Held != "" {
		return again, nil
	}
	return w.restore(ctx, s), nil
}

// look compares a resource with its manifest. Nothing is drift in a retired reservation.
func (w *Watcher) look(ctx context.Context, s *subject) error {
	retirement, err := w.options.Cluster.Lookups().Retirement(ctx, s.Reservation)
	if err != nil {
		return err
	}
	if retirement != nil {
		s.finding, s.reported, s.seen, s.applied = nil, "", Seen{}, false
		w.drift.WithLabelValues(s.String()).Set(0)
		return nil
	}
	o, err := w.options.Cluster.Compare(ctx, s.Resource)
	if err != nil {
		return err
	}
	w.observe(s, o, time.Now())
	return nil
}

// observe notes what a look has found.
func (w *Watcher) observe(s *subject, o live.Object, now time.Time) {
	s.applied = authorize.IsApplied(o)
	if o.Live != nil && o.Live.GetUID() != s.seen.UID {
		if s.seen.UID != "" && s.finding == nil {
			w.remember(Finding{
				Resource: s.String(), Object: o.String(), Paths: []string{"metadata.uid"}, Found: metav1.NewTime(now),
				Writer: live.Writer{At: o.Live.GetCreationTimestamp()},
			})
		}
		s.seen = Seen{UID: o.Live.GetUID(), Since: metav1.NewTime(now), InSync: s.seen.InSync}
	}
	if o.InUse() != "" && len(o.Drift) == 0 {
		s.seen.InSync = true
		s.finding, s.reported = nil, ""
		s.fight.rest(now)
		w.drift.WithLabelValues(s.String()).Set(0)
		return
	}
	w.drift.WithLabelValues(s.String()).Set(1)
	finding := &Finding{Resource: s.String(), Object: o.String(), Paths: o.Drift, Found: metav1.NewTime(now)}
	if o.Live != nil {
		finding.Writer = live.LastWriter(o.Live.GetManagedFields(), o.Drift)
	}
	if s.finding != nil && s.finding.key() == finding.key() {
		finding.Found = s.finding.Found
	} else {
		w.remember(*finding)
	}
	s.finding = finding
}

// key identifies what is wrong and who did it.
func (f *Finding) key() string {
	return strings.Join(append([]string{f.Manager, f.At.UTC().Format(time.RFC3339)}, f.Paths...), "\n")
}

// maxHistory bounds the history.
const maxHistory = 64

func (w *Watcher) remember(finding Finding) {
	w.history = append(w.history, finding)
	w.history = w.history[max(0, len(w.history)-maxHistory):]
}

// record records a finding once, and again when the leader stops to restore it. Before the first authorization, nothing is drift yet.
func (w *Watcher) record(ctx context.Context, s *subject) {
	f := s.finding
	key := f.key() + "\n" + f.Unlock
	if s.fight.isOver {
		key += "\n" + stopped
	}
	if s.reported == key || !w.isAdopted(s) {
		return
	}
	s.reported = key
	event := audit.Event{
		Time: time.Now(), Outcome: v1alpha1.Drift, Source: v1alpha1.SourceGuard, Operation: admissionv1.Update, Object: s.object(),
		Reason: audit.Differs, Changed: f.Paths, Message: f.Sentence(), Unlock: f.Unlock,
	}
	switch {
	case s.fight.isOver:
		event.Reason = audit.HealStopped
	case f.isAbsent():
		event.Operation, event.Reason = admissionv1.Delete, audit.Absent
	}
	if f.Held == "" {
		event.Message += " The guard restores it."
	} else {
		event.Message += " The guard does not restore it: " + f.Held + "."
	}
	w.options.Log.Warn("reserved resource differs from its manifest", slog.String("resource", f.Object), slog.Any("changed", f.Paths),
		slog.String("manager", f.Manager), slog.String("reason", f.Held))
	w.options.Record(ctx, event)
}

// object is the manifest's object.
func (s *subject) object() v1alpha1.ObjectReference { return s.Reference(s.Namespace, s.Name) }

// Sentence says what is wrong, and who wrote it last.
func (f *Finding) Sentence() string {
	text := f.Object + " differs from its manifest in " + strings.Join(f.Paths, ", ") + "."
	if f.isAbsent() {
		text = f.Object + " is absent."
	}
	if f.Manager != "" {
		text += fmt.Sprintf(" The field manager that wrote it last is %q, at %s.", f.Manager, f.At.UTC().Format(time.RFC3339))
	}
	return text
}

// isAdopted reports whether the reservation was authorized at some time: an object was as its manifest says, or this program applied one.
func (w *Watcher) isAdopted(s *subject) bool {
	for _, other := range w.subjects {
		if other.Reservation == s.Reservation && (other.seen.InSync || other.applied) {
			return true
		}
	}
	return false
}

// reportGap reports a gap that a replica has noted. It looks at every resource first, and restores nothing before that.
func (w *Watcher) reportGap(ctx context.Context) {
	noted := notes{w.options.Cluster, w.options.Owner}
	state, err := noted.read(ctx)
	if err != nil || state.Gap == nil {
		return
	}
	for _, s := range w.subjects {
		if err := w.look(ctx, s); err != nil {
			w.options.Log.Warn("failed to look at a reserved resource", slog.String("resource", s.String()), slog.Any("err", err))
			return // the next round reports the gap
		}
	}
	gap := &Gap{Span: *state.Gap}
	for _, finding := range w.history {
		gap.take(finding)
	}
	w.gap = gap
	report := client.Encoded(w.report())
	if err := noted.write(ctx, state.version, map[string]*string{gapKey: nil, reportKey: report}); err != nil {
		return
	}
	w.written = *report
	w.options.Log.Warn("the guard did not decide for some time", slog.String("period", gap.period()), slog.Int("count", len(gap.Changes)))
	w.options.Record(ctx, audit.Event{
		Time: time.Now(), Outcome: v1alpha1.Gap, Source: v1alpha1.SourceGuard, Operation: admissionv1.Update,
		Object: store.RegistrationObject(), Reason: audit.Undecided, Changed: gap.resources(), Message: gap.Sentence(),
	})
}

// take adds a finding that may be of the gap. A guess who wrote it is not taken if that writer wrote at another time.
func (g *Gap) take(f Finding) {
	if f.IsGuess && !g.spans(f.At) {
		f.Writer = live.Writer{}
	}
	if !f.Found.Before(&g.From) && (f.At.IsZero() || g.spans(f.At)) {
		g.Changes = append(g.Changes, f)
	}
}

// spans reports whether the gap has a time of managedFields, which have whole seconds.
func (g *Gap) spans(at metav1.Time) bool {
	return at.Add(time.Second).After(g.From.Time) && at.Add(-time.Second).Before(g.To.Time)
}

func (g *Gap) resources() []string {
	var resources []string
	for _, change := range g.Changes {
		resources = append(resources, change.Object)
	}
	return resources
}

func (g *Gap) period() string {
	return g.From.UTC().Format(time.RFC3339) + " to " + g.To.UTC().Format(time.RFC3339)
}

// Sentence says from when to when the guard did not decide, and what changed meanwhile.
func (g *Gap) Sentence() string {
	text := "The guard did not decide from " + g.period() + ". "
	if g.Defect == "" {
		text += "The webhook configuration was in place, so the API server refused writes to the reserved resources."
	} else {
		text += "Writes passed: " + g.Defect + "."
	}
	if len(g.Changes) == 0 {
		return text + " No reserved resource changed."
	}
	for _, change := range g.Changes {
		text += " " + change.Sentence()
	}
	return text
}

// tell wakes up the reader of a channel with room for one.
func tell(news chan struct{}) {
	select {
	case news <- struct{}{}:
	default:
	}
}

func (w *Watcher) report() *Report {
	report := &Report{Mode: w.options.Mode, Gap: w.gap, Seen: map[string]Seen{}}
	for _, s := range w.subjects {
		if s.seen.UID != "" || s.seen.InSync {
			report.Seen[s.String()] = s.seen
		}
		if s.finding != nil {
			report.Drift = append(report.Drift, *s.finding)
		}
	}
	return report
}

// publish writes the report if it has changed.
func (w *Watcher) publish(ctx context.Context) {
	current := w.report()
	report := client.Encoded(current)
	w.latest.Store(current)
	if *report == w.written {
		return
	}
	tell(w.news)
	err := notes{w.options.Cluster, w.options.Owner}.write(ctx, "", map[string]*string{reportKey: report})
	if err != nil && ctx.Err() == nil {
		w.options.Log.Warn("failed to publish drift", slog.Any("err", err))
		return
	}
	w.written = *report
}
