// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package registration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	admissionregistrationv1client "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
)

// ErrOwnerGone means that the release that owns the webhook configuration is being uninstalled: no replica may restore it.
var ErrOwnerGone = errors.New("owner of the webhook configuration is gone")

// Repair describes a write of another client that a replica undid, or tried to undo.
type Repair struct {
	// Operation is Update or Delete.
	Operation admissionv1.Operation
	// Changed are the paths of the fields that were not as wanted; nil if there was no webhook configuration.
	Changed []string
	// Manager is the field manager that wrote last, and At the time; zero if managedFields has neither. A client may choose any name.
	Manager string
	At      time.Time
	// Problem says why the write did not repair it; "" if it did.
	Problem string
}

// RepairerOptions are the settings of a Repairer. All are required.
type RepairerOptions struct {
	// Client reads and writes without a cache: a watch that hangs must not hide a change.
	Client admissionregistrationv1client.ValidatingWebhookConfigurationInterface
	// Build returns the wanted webhook configuration, given the live one; nil if there is none. After ErrOwnerGone, the Repairer leaves
	// the live one as it is, or absent.
	Build func(ctx context.Context, live *admissionregistrationv1.ValidatingWebhookConfiguration) (
		*admissionregistrationv1.ValidatingWebhookConfiguration, error)
	// Report is called after each repair of another client's write, and once for each Problem.
	Report func(context.Context, Repair)
	// Announce tells administrators of a problem, as an Event does.
	Announce func(reason, note string)
	// Changed is called when what the Repairer wants has changed, as it reports a problem in an annotation.
	Changed  func()
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Repairer compares the live webhook configuration with the wanted one and repairs it, once per change. It is safe for concurrent use.
type Repairer struct {
	options RepairerOptions
	inPlace atomic.Bool
	repairs *prometheus.CounterVec
	// contested is 1 while there is a problem.
	contested prometheus.Gauge

	mu sync.Mutex
	// last is the wanted webhook configuration that this process saw in place last; nil before that.
	last   *admissionregistrationv1.ValidatingWebhookConfiguration
	pacing pacing
	// problem says why the webhook configuration does not stay as the guard writes it; "" if it does.
	problem string
}

// NewRepairer registers the metrics.
func NewRepairer(options RepairerOptions) *Repairer {
	register := promauto.With(options.Registry)
	r := &Repairer{
		options: options,
		repairs: register.NewCounterVec(prometheus.CounterOpts{
			Name: "apigw_guardian_registration_repairs_total",
			Help: "Repairs of the webhook configuration by this replica, by what another client had done to it (UPDATE, DELETE).",
		}, []string{"operation"}),
		contested: register.NewGauge(prometheus.GaugeOpts{
			Name: "apigw_guardian_registration_contested",
			Help: "1 while the API server or another client changes what this replica writes to the webhook configuration: protection is partial.",
		}),
	}
	register.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "apigw_guardian_registration_in_place",
		Help: "1 if this replica's last look found the webhook configuration in place; 0 if not, or if it could not look. It looks every 5 s.",
	}, func() float64 {
		if r.inPlace.Load() {
			return 1
		}
		return 0
	})
	for _, operation := range []admissionv1.Operation{admissionv1.Update, admissionv1.Delete} {
		r.repairs.WithLabelValues(string(operation)) // from zero on, so that the first repair is an increase
	}
	return r
}

// Keep makes the live webhook configuration as it is wanted. The error is a *pausedError while writes do not last.
func (r *Repairer) Keep(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	live, want, err := r.look(ctx)
	if err != nil || r.settled(live, want) {
		return err
	}
	return r.repair(ctx, live, want)
}

// look returns the live webhook configuration, nil if there is none, and the wanted one.
func (r *Repairer) look(ctx context.Context) (live, want *admissionregistrationv1.ValidatingWebhookConfiguration, err error) {
	live, err = r.options.Client.Get(ctx, guardian.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		live, err = nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the webhook configuration: %w", err)
	}
	if want, err = r.options.Build(ctx, live); err != nil {
		return nil, nil, err
	}
	want.Annotations[guardian.RegistrationProblemAnnotation] = r.problem
	return live, want, nil
}

// settled reports whether the live webhook configuration is as wanted, and notes that.
func (r *Repairer) settled(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	if live == nil || !asWanted(live, want) {
		return false
	}
	r.last = want
	r.inPlace.Store(true)
	if r.pacing.settle() {
		r.setProblem("")
	}
	return true
}

// repair writes what is wanted, unless the last such write did not last and its pause is not over. What the API server returns, not
// what was sent, says whether the webhook configuration is in place.
func (r *Repairer) repair(ctx context.Context, live, want *admissionregistrationv1.ValidatingWebhookConfiguration) error {
	if left := r.pacing.left(want); left > 0 && live != nil {
		r.inPlace.Store(false)
		return &pausedError{left}
	}
	stored, err := r.write(ctx, live, want)
	if err != nil {
		return err
	}
	repaired, isTampering := r.finding(live, want)
	isRewritten := !asWanted(stored, want)
	r.pacing.note(want, isRewritten, isTampering && live != nil)
	repaired.Problem = r.pacing.problem(live, stored, want, repaired.Manager)
	isNews := r.setProblem(repaired.Problem)
	if isRewritten {
		r.inPlace.Store(false)
		if isNews {
			repaired.Operation, repaired.Changed = admissionv1.Update, differences(stored, want)
			r.options.Report(ctx, repaired)
		}
		return &pausedError{r.pacing.left(want)}
	}
	r.last = want
	r.inPlace.Store(true)
	if !isTampering {
		r.options.Log.Info("webhook configuration applied", slog.Int("webhooks", len(want.Webhooks)))
		return nil
	}
	r.options.Log.Warn("webhook configuration repaired", slog.String("operation", string(repaired.Operation)),
		slog.Any("changed", repaired.Changed), slog.String("manager", repaired.Manager))
	r.repairs.WithLabelValues(string(repaired.Operation)).Inc()
	r.options.Report(ctx, repaired)
	return nil
}

// InPlace is nil if the last look found the webhook configuration in place.
func (r *Repairer) InPlace() error {
	if !r.inPlace.Load() {
		return errors.New("the webhook configuration is not in place")
	}
	return nil
}

// setProblem logs and announces a problem, or its end, and reports whether it has changed.
func (r *Repairer) setProblem(problem string) (changed bool) {
	if problem == r.problem {
		return false
	}
	r.problem = problem
	if problem == "" {
		r.contested.Set(0)
		r.options.Log.Info("webhook configuration stays as the guard writes it")
	} else {
		r.contested.Set(1)
		r.options.Log.Error("webhook configuration does not stay as the guard writes it", slog.String("reason", problem))
		r.options.Announce("RegistrationContested", problem)
	}
	r.options.Changed()
	return true
}

// write returns what the API server has stored.
func (r *Repairer) write(ctx context.Context, live, want *admissionregistrationv1.ValidatingWebhookConfiguration) (
	stored *admissionregistrationv1.ValidatingWebhookConfiguration, err error,
) {
	if live != nil {
		// The whole list of webhooks: an apply would merge it with those that other clients have added.
		stored, err = r.options.Client.Update(ctx, restored(live, want), metav1.UpdateOptions{FieldManager: guardian.FieldManager})
		if err != nil {
			return nil, fmt.Errorf("update the webhook configuration: %w", err)
		}
	}
	// Without its finalizers, one that was being deleted is gone now.
	if live == nil || live.DeletionTimestamp != nil {
		return r.create(ctx, want)
	}
	return stored, nil
}

// create uses a PATCH: RBAC can limit the permission to create to one name for a PATCH, and not for a POST.
func (r *Repairer) create(ctx context.Context, want *admissionregistrationv1.ValidatingWebhookConfiguration) (
	*admissionregistrationv1.ValidatingWebhookConfiguration, error,
) {
	data, _ := json.Marshal(want) // this type always marshals
	options := metav1.PatchOptions{FieldManager: guardian.FieldManager, Force: new(true)}
	stored, err := r.options.Client.Patch(ctx, guardian.WebhookConfiguration, types.ApplyPatchType, data, options)
	if err != nil {
		return nil, fmt.Errorf("apply the webhook configuration: %w", err)
	}
	return stored, nil
}

// restored returns the live webhook configuration with all that is wanted. Labels and annotations of other clients do no harm; an
// owner does: the garbage collector would delete the webhook configuration with it.
func restored(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) *admissionregistrationv1.ValidatingWebhookConfiguration {
	changed := live.DeepCopy()
	changed.Webhooks = want.Webhooks
	changed.OwnerReferences, changed.Finalizers = want.OwnerReferences, want.Finalizers
	changed.Labels = labels.Merge(live.Labels, want.Labels)
	changed.Annotations = labels.Merge(live.Annotations, want.Annotations)
	return changed
}

// finding returns what was repaired, and whether another client had changed it. It returns false if the wanted webhook configuration
// has changed, and if this process sees for the first time what another version of the guard has written.
func (r *Repairer) finding(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) (Repair, bool) {
	if live == nil {
		return Repair{Operation: admissionv1.Delete}, r.last != nil
	}
	repair := Repair{Operation: admissionv1.Update, Changed: differences(live, want)}
	repair.Manager, repair.At = lastWriter(live.ManagedFields)
	switch {
	case live.DeletionTimestamp != nil:
		repair.Operation = admissionv1.Delete
		return repair, true
	case r.last != nil:
		return repair, len(differences(live, r.last)) > 0 && len(repair.Changed) > 0
	default:
		return repair, len(live.Finalizers) > 0 || live.Annotations[guardian.RevisionAnnotation] != revision(live.Webhooks)
	}
}

// lastWriter returns the field manager of the newest entry. The guard's own counts only if no other is as new.
func lastWriter(entries []metav1.ManagedFieldsEntry) (manager string, at time.Time) {
	for _, entry := range entries {
		if entry.Time == nil || entry.Time.Time.Before(at) || entry.Time.Time.Equal(at) && entry.Manager == guardian.FieldManager {
			continue
		}
		manager, at = entry.Manager, entry.Time.Time
	}
	return manager, at
}

func asWanted(live, want *admissionregistrationv1.ValidatingWebhookConfiguration) bool {
	return live.DeletionTimestamp == nil && equality.Semantic.DeepEqual(live, restored(live, want))
}
