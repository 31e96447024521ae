// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package drift

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit/store"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
)

// Results of an attempt to restore a resource.
const (
	restored = "restored"
	failed   = "failed"
	stopped  = "stopped"
)

const (
	// maxRounds is how often the leader restores a resource that the same field manager changes again.
	maxRounds = 3
	// quiet is how long a resource must be as its manifest says before a fight is forgotten.
	quiet = 10 * time.Minute
	// maxPause bounds the pause between two rounds of a fight against changing field managers.
	maxPause = time.Minute
	// unlockInterval is the time between two looks at a resource that an Unlock covers.
	unlockInterval = 5 * time.Second
	// afterUnlock is how long after the end of an Unlock the leader restores nothing that it covered: the record of the last write may
	// not be stored yet.
	afterUnlock = 15 * time.Second
	// otherVersion is how long the leader leaves what this program has written by another manifest: longer than a rolling upgrade has
	// two versions.
	otherVersion = 2 * time.Minute
)

const repairCommand = guardian.Name + " authorize --repair"

// fight counts how often the leader has restored a resource after a write of each field manager.
type fight struct {
	rounds map[string]int
	// failures counts attempts that failed since the last one that did not.
	failures int
	// last is when the leader made the last attempt.
	last time.Time
	// isOver says that the leader has stopped, because of the current writer. counted is the writer for which the metric counts that.
	isOver  bool
	counted *string
}

// rest forgets the fight if nothing happened for long enough.
func (f *fight) rest(now time.Time) {
	if now.Sub(f.last) > quiet {
		*f = fight{}
	}
}

// pause returns how long to wait before the next attempt; zero or less for no wait.
func (f *fight) pause(now time.Time) time.Duration {
	total := f.failures
	for _, rounds := range f.rounds {
		total += rounds
	}
	if total == 0 {
		return 0
	}
	return f.last.Add(min(time.Second<<min(total-1, 10), maxPause)).Sub(now)
}

// hold sets why the leader does not restore the drift of a resource; empty if it does. It returns when to look again; zero for the next
// event.
func (w *Watcher) hold(ctx context.Context, s *subject) (again time.Duration, err error) {
	f, now := s.finding, time.Now()
	s.fight.isOver = false
	unlocks, err := w.options.Unlocks.List(ctx)
	if err != nil {
		return 0, fmt.Errorf("look for unlocks before a repair: %w", err)
	}
	if again = w.holdForUnlocks(s, unlocks, now); f.Held != "" {
		return again, nil
	}
	if err := w.holdForRecords(ctx, s, unlocks); err != nil || f.Held != "" {
		return 0, err
	}
	switch {
	case w.lacksAccount(s):
		f.Held = "its ServiceAccount is absent"
		return time.Second, nil
	case !w.options.Mode.heals():
		f.Held = "the guard only reports drift; to restore it: " + repairCommand
	case !w.isAdopted(s) && !w.mayAuthorize(s):
		f.Held = "it was not authorized yet; to authorize it: " + repairCommand
	case f.Manager == guardian.FieldManager && f.Applied && now.Sub(f.At.Time) < otherVersion:
		f.Held = "another version of this program, or a client with its name, has applied it"
		return time.Until(f.At.Add(otherVersion)) + time.Second, nil
	case s.fight.rounds[f.Manager] >= maxRounds:
		s.fight.isOver = true
		if s.fight.counted == nil || *s.fight.counted != f.Manager {
			s.fight.counted = new(f.Manager)
			w.heals.WithLabelValues(stopped).Inc()
		}
		f.Held = fmt.Sprintf("%s has changed it again after each of %d repairs: stop that client, and restore it: %s",
			f.by(), maxRounds, repairCommand)
	}
	return 0, nil
}

// by names the writer.
func (f *Finding) by() string {
	if f.Manager == "" {
		return "another client"
	}
	return fmt.Sprintf("the field manager %q", f.Manager)
}

// mayAuthorize reports whether the leader may create what is absent in a reservation that was never authorized: nothing else is there
// that differs.
func (w *Watcher) mayAuthorize(s *subject) bool {
	return w.options.Mode == Authorize && !slices.ContainsFunc(w.subjects, func(other *subject) bool {
		return other.Reservation == s.Reservation && other.finding != nil && !other.finding.isAbsent()
	})
}

// lacksAccount reports whether a token Secret is absent, and its ServiceAccount too: kube-controller-manager would delete the Secret.
func (w *Watcher) lacksAccount(s *subject) bool {
	return s.IsTokenSecret() && s.finding.isAbsent() && slices.ContainsFunc(w.subjects, func(other *subject) bool {
		return other.IsServiceAccount() && other.Namespace == s.Namespace && other.Name == s.Account && other.finding != nil &&
			other.finding.isAbsent()
	})
}

// holdForUnlocks holds while an Unlock covers the resource, and shortly after, unless the Unlock wants the manifest then.
func (w *Watcher) holdForUnlocks(s *subject, unlocks []v1alpha1.Unlock, now time.Time) (again time.Duration) {
	for i := range unlocks {
		u := &unlocks[i]
		if !policy.CoversResource(u, s.Resource, s.finding.Object) {
			continue
		}
		state := w.options.Rules.StateOf(u, metav1.NewTime(now))
		switch restores := u.Spec.OnEnd == v1alpha1.OnEndRestore; {
		case state == v1alpha1.UnlockOpen:
			s.finding.Held, s.finding.Unlock = "unlock "+u.Name+" is open", u.Name
			return unlockInterval
		// The replicas acknowledged the last state when the Unlock was written last.
		case !restores && state == v1alpha1.UnlockExpired && now.Sub(u.Spec.ExpiresAt.Time) < afterUnlock,
			!restores && state == v1alpha1.UnlockClosed && now.Sub(store.WrittenAt(u)) < afterUnlock:
			s.finding.Held, s.finding.Unlock = "unlock "+u.Name+" has just ended", u.Name
			return unlockInterval
		}
	}
	return 0
}

// holdForRecords holds if the drift was permitted: an Unlock or an exemption allowed the last write, and such writes changed each field.
func (w *Watcher) holdForRecords(ctx context.Context, s *subject, unlocks []v1alpha1.Unlock) error {
	f := s.finding
	records, err := w.options.Records.List(ctx, audit.Filter{Resource: `"` + f.Object + `"`})
	if err != nil {
		return fmt.Errorf("look for permitted writes before a repair: %w", err)
	}
	var last *v1alpha1.AuditRecordSpec
	unexplained := slices.Clone(f.Paths)
	for i := range records {
		spec := &records[i].Spec
		isPermitted := spec.Outcome == v1alpha1.Unlocked || spec.Outcome == v1alpha1.Exempted
		if !isPermitted || spec.Source == v1alpha1.SourceImport { // the chart's policy lets administrators create imported records
			continue
		}
		if s.explains(spec) {
			last = spec
		}
		unexplained = slices.DeleteFunc(unexplained, func(path string) bool { return mayChange(spec, path) })
	}
	switch {
	case last == nil || len(unexplained) > 0:
	case last.Outcome == v1alpha1.Exempted:
		f.Held = "an exemption allowed the change: to keep it, change the manifest; to undo it: " + repairCommand
	default:
		f.Unlock = last.Unlock
		if !slices.ContainsFunc(unlocks, func(u v1alpha1.Unlock) bool { return u.Name == last.Unlock && u.Spec.OnEnd == v1alpha1.OnEndRestore }) {
			f.Held = "it was changed under unlock " + last.Unlock + ": to keep it, change the manifest; to undo it: " + repairCommand
		}
	}
	return nil
}

// explains reports whether the finding may be the result of a recorded write. A later write of the fields is not. The time of a writer
// who is a guess is not that of the removal of a field.
func (s *subject) explains(spec *v1alpha1.AuditRecordSpec) bool {
	f, last := s.finding, spec.LastTime.Time
	switch {
	case f.isAbsent():
		return spec.Operation == admissionv1.Delete && (s.seen.UID == "" || !last.Before(s.seen.Since.Time))
	case spec.Operation == admissionv1.Delete:
		return false
	case f.At.IsZero() || f.IsGuess:
		return slices.ContainsFunc(f.Paths, func(path string) bool { return mayChange(spec, path) })
	}
	return !f.At.After(last.Add(time.Second))
}

// mayChange reports whether a recorded write may have changed the field. A record that creates the object names no fields, and one with
// many leaves some out.
func mayChange(spec *v1alpha1.AuditRecordSpec, path string) bool {
	if spec.Operation == admissionv1.Delete {
		return false
	}
	field := fieldOf(path)
	return len(spec.Changed) == 0 || len(spec.Changed) >= audit.MaxItems || slices.ContainsFunc(spec.Changed, func(changed string) bool {
		other := fieldOf(changed)
		return field == other || isIn(field, other) || isIn(other, field)
	})
}

func isIn(path, parent string) bool {
	return strings.HasPrefix(path, parent+".") || strings.HasPrefix(path, parent+"[")
}

// fieldOf shortens a path to the list that it leads into: a comparison with the manifest counts the elements of a list in another order
// than a comparison with the old object. The keys of labels, annotations and data stay.
func fieldOf(path string) string {
	field, _, isInside := strings.Cut(path, "[")
	if !isInside || field == "data" || field == "metadata.labels" || field == "metadata.annotations" {
		return path
	}
	return field
}

// restore makes the object equal its manifest. It returns when to look again.
func (w *Watcher) restore(ctx context.Context, s *subject) time.Duration {
	now := time.Now()
	if pause := s.fight.pause(now); pause > 0 {
		return pause
	}
	line, err := w.authorizer.Restore(ctx, s.Resource)
	s.fight.last = now
	if err != nil {
		w.heals.WithLabelValues(failed).Inc()
		s.fight.failures++
		s.finding.Held = err.Error()
		w.options.Log.Warn("failed to restore a reserved resource", slog.String("resource", s.finding.Object), slog.Any("err", err))
		return max(s.fight.pause(now), firstRetry)
	}
	w.heals.WithLabelValues(restored).Inc()
	if s.fight.rounds == nil {
		s.fight.rounds = map[string]int{}
	}
	s.fight.rounds[s.finding.Manager]++
	s.fight.failures = 0
	w.options.Log.Info("reserved resource restored", slog.String("resource", line.Resource), slog.Any("changed", line.Paths))
	return firstRetry
}
