// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// entry is a record that counts, or waits to be stored. The recorder's mutex guards it.
type entry struct {
	// record holds every count that is to be stored: this replica's, and those that a former process left in the spool.
	record *v1alpha1.AuditRecord
	// last is the record as the API server answered last; nil before that.
	last *v1alpha1.AuditRecord
	// replica is the name under which this process counts here. No former entry of the record had it.
	replica string
	// ends is when no further fact can fall into the record; zero where none has so far.
	ends time.Time
	// counted is this replica's count; stored and spooled are how much of it the API server and the disk have.
	counted, stored, spooled int64
	// left says that counts of a former process are not stored yet.
	left bool
	// moves is how often another client has altered the stored record, and the record has gone on under another name.
	moves int
	// checked says that the stored record was looked at after the window's end.
	checked bool
	// budget, user and bytes are what the entry takes of a budget; budget is nil for one out of the spool.
	budget *budget
	user   *string
	bytes  int
	// attempt is the attempt to store the record that is under way, or comes next.
	attempt *attempt
}

// attempt is closed when it has ended; failed tells how, and does not change from then on.
type attempt struct {
	ended  chan struct{}
	failed bool
}

func newAttempt() *attempt { return &attempt{ended: make(chan struct{})} }

func newEntry(record *v1alpha1.AuditRecord, replica string) *entry {
	return &entry{record: record, replica: replica, attempt: newAttempt()}
}

// count adds one fact.
func (e *entry) count(fact *audit.Event) {
	e.counted++
	audit.Merge(e.record, fact.Counted(e.replica, e.counted))
}

// unsafe is how many facts are in memory only.
func (e *entry) unsafe() int64 { return e.counted - max(e.stored, e.spooled) }

// waits reports whether something is not stored yet.
func (e *entry) waits() bool { return e.left || e.stored < e.counted }

// finish takes the outcome of an attempt that began when upTo was counted, and wakes those who wait for it. stored is nil
// where the attempt failed. A record with nothing left to store counts as checked after its window's end: the attempt has
// looked at it, and another one may fail as well. It reports whether the record waits for another attempt.
func (e *entry) finish(stored *v1alpha1.AuditRecord, upTo int64) bool {
	if stored != nil {
		e.last, e.stored, e.left = lean(stored, e.record), upTo, false
	}
	e.checked = e.checked || !e.waits() && e.due(time.Now())
	e.attempt.failed = stored == nil
	close(e.attempt.ended)
	e.attempt = newAttempt()
	return e.waits()
}

// lean lets the stored record share the texts of the one that counts, which are equal: memory holds them once.
func lean(stored, counts *v1alpha1.AuditRecord) *v1alpha1.AuditRecord {
	stored.ManagedFields = nil
	stored.Spec.Operation, stored.Spec.Object, stored.Spec.Resource = counts.Spec.Operation, counts.Spec.Object, counts.Spec.Resource
	stored.Spec.Changed, stored.Spec.User = counts.Spec.Changed, counts.Spec.User
	if stored.Spec.Message == counts.Spec.Message {
		stored.Spec.Message = counts.Spec.Message
	}
	return stored
}

// moveOn lets the record go on under another name, with all that is counted here.
func (e *entry) moveOn() {
	e.moves++
	e.record.Name = audit.SecondName(e.record.Name)
	e.last, e.stored, e.spooled = nil, 0, 0
}

// due reports whether the stored record is still to be looked at: no further fact can fall into it.
func (e *entry) due(now time.Time) bool {
	return !e.checked && now.After(e.ends.Add(housekeepingInterval))
}
