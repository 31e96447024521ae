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
func (e *entry) count(fact *audit.Fact) {
	e.counted++
	one := fact.Counted(e.replica, e.counted)
	if e.counted == 1 && len(e.record.Spec.Counts) == 0 {
		e.record.Spec.LastRequestUID, e.record.Spec.Replica = one.Spec.LastRequestUID, e.replica
	}
	audit.Merge(e.record, one)
}

// unsafe is how many facts are in memory only.
func (e *entry) unsafe() int64 { return e.counted - max(e.stored, e.spooled) }

// waits reports whether something is not stored yet.
func (e *entry) waits() bool { return e.left || e.stored < e.counted }

// finish takes the outcome of an attempt that began when upTo was counted, and wakes those who wait for it. stored is nil
// where the attempt failed.
func (e *entry) finish(stored *v1alpha1.AuditRecord, upTo int64) {
	if stored != nil {
		e.last, e.stored, e.left = stored, upTo, false
	}
	e.attempt.failed = stored == nil
	close(e.attempt.ended)
	e.attempt = newAttempt()
}
