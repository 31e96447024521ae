// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"

	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Retention is which records are kept.
type Retention struct {
	// Age is how long after its last write a record is kept. Most is how many are kept; Trim says which ones go first. Both are
	// above zero.
	Age  time.Duration
	Most int64
}

const (
	// userShare is how many records a user may have before retention takes from that user first, as a divisor of Most, and
	// minUserShare the least of it.
	userShare, minUserShare = 100, 3
	// maxScanned bounds how many records one Trim looks at, in multiples of Most. Should somebody have made more, the next Trim
	// goes on.
	maxScanned = 4
)

// kept is what retention knows of a record.
type kept struct {
	name, resourceVersion string
	user, reason          string
	unverified, held      bool
	count                 int64
	// at is when the record's window began, and created when the API server first stored it: another client can move neither.
	at, created time.Time
}

// Trim deletes the records that the retention does not keep, and returns how many those were: the ones that are too old, and
// then, while there are too many,
//
//   - those of callers that are not verified;
//   - those of the users with the most, above a hundredth of Most: of the reason with the most, the oldest first;
//   - and else those of the days, windows and seconds with the most: a flood of users thins itself out.
//
// Whatever it has deleted before an error is deleted.
func (s *Store) Trim(ctx context.Context, retention Retention, now time.Time) (int, error) {
	if due, err := s.mayBeDue(ctx, retention, now); err != nil || !due {
		return 0, err
	}
	records, err := s.scan(ctx, retention.Most*maxScanned)
	if err != nil {
		return 0, err
	}
	return s.deleteAll(ctx, outdated(records, retention, now))
}

// mayBeDue looks at the first record only: names in order are records in order of time. A name that states no time hides the
// oldest.
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
	return count > retention.Most || !named || isOld(keptOf(&page.Items[0]), retention, now), nil
}

// scan reads what retention needs to know of the records, in order of their names, up to a number of them.
func (s *Store) scan(ctx context.Context, most int64) ([]kept, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var records []kept
	for page := range s.pages(ctx) {
		if page.err != nil {
			return nil, explain("list the audit records", page.err)
		}
		for item := range page.items.Elements() {
			var record v1alpha1.AuditRecord
			if err := json.Unmarshal(item, &record); err != nil {
				return nil, fmt.Errorf("list the audit records: read what the API server answered: %w", err)
			}
			records = append(records, keptOf(&record))
		}
		if int64(len(records)) >= most {
			break
		}
	}
	return records, ctx.Err()
}

func keptOf(record *v1alpha1.AuditRecord) kept {
	at, named := audit.WindowOf(record.Name)
	if created := record.CreationTimestamp.Time; !named || created.Before(at) {
		at = created
	}
	return kept{
		name: record.Name, resourceVersion: record.ResourceVersion, user: record.Spec.User.Name, reason: record.Spec.Reason,
		unverified: record.Spec.Caller == v1alpha1.CallerUnverified, held: len(record.Finalizers) > 0,
		count: record.Spec.Count, at: at, created: record.CreationTimestamp.Time,
	}
}

// isOld reports whether the record's window ended before the retention's age.
func isOld(record kept, retention Retention, now time.Time) bool {
	return now.Sub(record.at) > retention.Age+audit.Window
}

// openFor is how long after the start of its window a replica may still count into a record, or read it once more. Retention
// takes none of these, so a replica that finds one gone knows that another client deleted it.
const openFor = audit.Window + 2*time.Minute

// outdated returns the records that are too old or too many.
func outdated(records []kept, retention Retention, now time.Time) []kept {
	open, closed := split(records, func(r kept) bool { return now.Sub(r.at) < openFor })
	old, rest := split(closed, func(r kept) bool { return isOld(r, retention, now) })
	take := func(from []kept, excess int, pick func([]kept, int) []kept) {
		taken := pick(from, min(max(excess, 0), len(from)))
		gone := make(map[string]bool, len(taken))
		for _, record := range taken {
			gone[record.name] = true
		}
		old = append(old, taken...)
		rest = slices.DeleteFunc(rest, func(r kept) bool { return gone[r.name] })
	}
	most := int(retention.Most)
	excess := func() int { return len(open) + len(rest) - most }
	unverified, _ := split(rest, func(r kept) bool { return r.unverified })
	take(unverified, excess(), thin)
	take(rest, excess(), func(from []kept, n int) []kept { return ofNoisyUsers(from, n, max(most/userShare, minUserShare)) })
	take(rest, excess(), thin)
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

// ofNoisyUsers returns up to n records of users with more than a number of them.
func ofNoisyUsers(records []kept, n, above int) []kept {
	return share(records, quota{n, above}, func(r kept) string { return r.user }, func(own []kept, n int) []kept {
		return share(own, quota{n, 0}, func(r kept) string { return r.reason }, func(alike []kept, n int) []kept {
			slices.SortFunc(alike, byAge)
			return alike[:n]
		})
	})
}

// thin returns n records from where they are closest in time: from the fullest days, in them from the fullest windows, and in
// those from the fullest seconds.
func thin(records []kept, n int) []kept { return thinBy(records, n, daysOf, windowsOf, secondsOf) }

func daysOf(r kept) string    { return r.at.UTC().Format(time.DateOnly) }
func windowsOf(r kept) string { return r.at.UTC().Format(time.RFC3339) }
func secondsOf(r kept) string { return r.created.UTC().Format(time.RFC3339) }

func thinBy(records []kept, n int, keys ...func(kept) string) []kept {
	if len(keys) == 0 {
		slices.SortFunc(records, func(a, b kept) int { return cmp.Or(cmp.Compare(a.count, b.count), byAge(a, b)) })
		return records[:n]
	}
	return share(records, quota{n, 0}, keys[0], func(group []kept, n int) []kept { return thinBy(group, n, keys[1:]...) })
}

func byAge(a, b kept) int {
	return cmp.Or(a.at.Compare(b.at), a.created.Compare(b.created), cmp.Compare(a.name, b.name))
}

// quota is how many records to take at most, and how many each group keeps.
type quota struct{ n, above int }

// share takes records from groups that a key makes: always from the largest, and of equal ones from that with the oldest
// record, until the quota is met. pick chooses within a group.
func share(records []kept, q quota, key func(kept) string, pick func(group []kept, n int) []kept) []kept {
	groups := map[string][]kept{}
	for _, record := range records {
		groups[key(record)] = append(groups[key(record)], record)
	}
	largest := slices.SortedFunc(maps.Values(groups), func(a, b []kept) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), byAge(slices.MinFunc(a, byAge), slices.MinFunc(b, byAge)))
	})
	level, width, spared := levelOf(largest, q.n, q.above)
	var taken []kept
	for i, group := range largest[:width] {
		keep := level
		if i >= width-spared {
			keep++
		}
		taken = append(taken, pick(group, len(group)-keep)...)
	}
	return taken
}

// levelOf returns the size down to which n records can be taken from the first groups, and how many of those, the last ones,
// are spared one record. The groups are in order of their sizes, the largest first.
func levelOf(largest [][]kept, n, above int) (level, width, spared int) {
	if len(largest) > 0 {
		level = len(largest[0])
	}
	for ; level > above && n > 0; level-- {
		for width < len(largest) && len(largest[width]) >= level {
			width++
		}
		n -= width
	}
	return level, width, max(-n, 0)
}

// deleteAll deletes the records that have not changed since. A finalizer that another client has put on one keeps it: it goes.
func (s *Store) deleteAll(ctx context.Context, records []kept) (int, error) {
	deleted := 0
	for _, record := range records {
		err := s.delete(ctx, record)
		switch {
		case err == nil:
			deleted++
		// A record that has changed since is one that counts again: the next round looks at it anew.
		case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err):
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
