// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Retention says which records are kept. Age and Max are positive.
type Retention struct {
	// Age is how long a record is kept after its last write.
	Age time.Duration
	// Max is how many records are kept.
	Max int64
	// Dropped, if set, is called with what a CleanUp has deleted.
	Dropped func([]Dropped)
}

// Dropped are deleted records of one user, reason and cause.
type Dropped struct {
	User, Reason string
	// TooOld says that they were older than the retention's age. The others were too many.
	TooOld  bool
	Records int
	Writes  int64
	// From and To are the starts of the first and the last window.
	From, To time.Time
}

const (
	// userShare divides Max: a user with more records than that is noisy, but not one with minUserShare or fewer.
	userShare, minUserShare = 100, 3
	// maxScanned bounds how many records one CleanUp reads, in multiples of Max. The next CleanUp continues.
	maxScanned = 4
)

// kept is what retention needs of a record. No other client can change at and created.
type kept struct {
	name, resourceVersion string
	user, reason          string
	// write is the digest of what makes events equal: a program that retries has it in many windows.
	write string
	// held says that the record has a finalizer.
	unverified, held bool
	count            int64
	// at is when the record's window began. created is when the API server first stored it.
	at, created time.Time
}

// CleanUp deletes the records that are too old and then, while there are too many, records
//
//   - of unverified callers;
//   - of the users with the most records, above a hundredth of Max: of the reason with the most records, the oldest of the write
//     that was repeated in the most windows;
//   - of the days, windows and seconds with the most records, which thins a flood of users.
//
// It returns how many it has deleted, also with an error.
func (s *Store) CleanUp(ctx context.Context, retention Retention, now time.Time) (int, error) {
	if due, err := s.mayBeDue(ctx, retention, now); err != nil || !due {
		return 0, err
	}
	records, err := s.scan(ctx, retention.Max*maxScanned)
	if err != nil {
		return 0, err
	}
	deleted, err := s.deleteAll(ctx, outdated(records, retention, now))
	if retention.Dropped != nil && len(deleted) > 0 {
		retention.Dropped(droppedOf(deleted, retention, now))
	}
	return len(deleted), err
}

// droppedOf sums up deleted records, the largest sum first.
func droppedOf(deleted []kept, retention Retention, now time.Time) []Dropped {
	sums := map[Dropped]*Dropped{}
	for _, record := range deleted {
		key := Dropped{User: record.user, Reason: record.reason, TooOld: isOld(record, retention, now)}
		sum := sums[key]
		if sum == nil {
			sum = &Dropped{User: key.User, Reason: key.Reason, TooOld: key.TooOld, From: record.at, To: record.at}
			sums[key] = sum
		}
		sum.Records++
		sum.Writes += record.count
		if record.at.Before(sum.From) {
			sum.From = record.at
		}
		if record.at.After(sum.To) {
			sum.To = record.at
		}
	}
	var dropped []Dropped
	for _, sum := range sums {
		dropped = append(dropped, *sum)
	}
	slices.SortFunc(dropped, func(a, b Dropped) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), cmp.Compare(a.User, b.User), cmp.Compare(a.Reason, b.Reason))
	})
	return dropped
}

// mayBeDue reads the first record only, which is the oldest if its name has a time.
func (s *Store) mayBeDue(ctx context.Context, retention Retention, now time.Time) (bool, error) {
	page := &v1alpha1.AuditRecordList{}
	if err := s.client.List(ctx, page, client.Limit(1)); err != nil {
		return false, explain("list the oldest audit record", err)
	}
	if len(page.Items) == 0 {
		return false, nil
	}
	count := int64(1)
	if page.RemainingItemCount != nil {
		count += *page.RemainingItemCount
	}
	_, named := audit.WindowOf(page.Items[0].Name)
	return count > retention.Max || !named || isOld(keptOf(&page.Items[0]), retention, now), nil
}

// scan reads the first records, up to a number.
func (s *Store) scan(ctx context.Context, limit int64) ([]kept, error) {
	var records []kept
	for record, err := range s.all(ctx) {
		if err != nil {
			return nil, explain("list the audit records", err)
		}
		records = append(records, keptOf(record))
		if int64(len(records)) >= limit {
			break
		}
	}
	return records, nil
}

func keptOf(record *v1alpha1.AuditRecord) kept {
	at, named := audit.WindowOf(record.Name)
	if created := record.CreationTimestamp.Time; !named || created.Before(at) {
		at = created
	}
	first := audit.FirstName(record.Name)
	return kept{
		name: record.Name, resourceVersion: record.ResourceVersion,
		user: audit.UserName(&record.Spec.User), reason: record.Spec.Reason, write: first[strings.LastIndexByte(first, '-')+1:],
		unverified: record.Spec.Caller == v1alpha1.CallerUnverified, held: len(record.Finalizers) > 0,
		count: min(record.Spec.Count, audit.MaxCount), at: at, created: record.CreationTimestamp.Time,
	}
}

// isOld reports whether the record's window ended before the retention's age.
func isOld(record kept, retention Retention, now time.Time) bool {
	return now.Sub(record.at) > retention.Age+audit.Window
}

// openFor is how long a replica may count into a record or check it, from the start of its window. Retention deletes none of
// these, so that a replica that misses one knows that another client deleted it.
const openFor = audit.Window + 2*time.Minute

// outdated returns the records that are too old or too many.
func outdated(records []kept, retention Retention, now time.Time) []kept {
	open, closed := split(records, func(r kept) bool { return now.Sub(r.at) < openFor })
	old, rest := split(closed, func(r kept) bool { return isOld(r, retention, now) })
	limit := int(retention.Max)
	take := func(from []kept, by thinning, above int) {
		excess := max(len(open)+len(rest)-limit, 0)
		taken := by.order(from, above)
		taken = taken[:min(excess, len(taken))]
		gone := make(map[string]bool, len(taken))
		for _, record := range taken {
			gone[record.name] = true
		}
		old = append(old, taken...)
		rest = slices.DeleteFunc(rest, func(r kept) bool { return gone[r.name] })
	}
	unverified, _ := split(rest, func(r kept) bool { return r.unverified })
	take(unverified, byTime(), 0)
	take(rest, byUser(), max(limit/userShare, minUserShare))
	take(rest, byTime(), 0)
	return old
}

func split(records []kept, fits func(kept) bool) (fit, others []kept) {
	for _, record := range records {
		if fits(record) {
			fit = append(fit, record)
		} else {
			others = append(others, record)
		}
	}
	return fit, others
}

// thinning takes records from the largest groups by the first key, in those from the largest by the second, and in the last by last.
type thinning struct {
	keys []func(kept) string
	last func(a, b kept) int
}

func byUser() thinning {
	return thinning{
		keys: []func(kept) string{
			func(r kept) string { return r.user }, func(r kept) string { return r.reason }, func(r kept) string { return r.write },
		},
		last: byAge,
	}
}

// byTime takes from the days, then the windows, then the seconds with the most records.
func byTime() thinning {
	return thinning{
		keys: []func(kept) string{
			func(r kept) string { return r.at.UTC().Format(time.DateOnly) },
			func(r kept) string { return r.at.UTC().Format(time.RFC3339) },
			func(r kept) string { return r.created.UTC().Format(time.RFC3339) },
		},
		last: func(a, b kept) int { return cmp.Or(cmp.Compare(a.count, b.count), byAge(a, b)) },
	}
}

func byAge(a, b kept) int {
	return cmp.Or(a.at.Compare(b.at), a.created.Compare(b.created), cmp.Compare(a.name, b.name))
}

// order returns the records in the order in which they are taken, until no group has more than above; of equal groups first from the
// one with the oldest record.
func (t thinning) order(records []kept, above int) []kept {
	if len(t.keys) == 0 {
		return slices.SortedFunc(slices.Values(records), t.last)
	}
	groups := map[string][]kept{}
	for _, record := range records {
		groups[t.keys[0](record)] = append(groups[t.keys[0](record)], record)
	}
	largest := slices.SortedFunc(maps.Values(groups), func(a, b []kept) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), byAge(slices.MinFunc(a, byAge), slices.MinFunc(b, byAge)))
	})
	for i, group := range largest {
		largest[i] = thinning{t.keys[1:], t.last}.order(group, 0)
	}
	var ordered []kept
	for size := len(records); size > above; size-- {
		for _, group := range largest {
			if len(group) < size {
				break
			}
			ordered = append(ordered, group[len(group)-size])
		}
	}
	return ordered
}

// deleteAll deletes the records that have not changed meanwhile. It removes finalizers, which another client has added.
func (s *Store) deleteAll(ctx context.Context, records []kept) ([]kept, error) {
	var deleted []kept
	for _, record := range records {
		err := s.delete(ctx, record)
		switch {
		case err == nil:
			deleted = append(deleted, record)
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err): // a changed record counts again
			return deleted, fmt.Errorf("delete audit record %q: %w", record.name, err)
		}
	}
	return deleted, nil
}

func (s *Store) delete(ctx context.Context, record kept) error {
	object := &v1alpha1.AuditRecord{}
	object.Name = record.name
	if record.held {
		if err := s.client.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		object.Finalizers = nil
		if err := s.client.Update(ctx, object, client.FieldOwner(guardian.FieldManager)); err != nil {
			return err
		}
		record.resourceVersion = object.ResourceVersion
	}
	return s.client.Delete(ctx, object, client.Preconditions{ResourceVersion: &record.resourceVersion})
}
