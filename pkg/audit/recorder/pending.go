// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// pending is a record in memory that counts events or waits to be stored. The recorder's mutex guards it.
type pending struct {
	// record has every count to store: this replica's, and those that an earlier process left in the spool.
	record *v1alpha1.AuditRecord
	// last is the API server's last answer; nil before that.
	last *v1alpha1.AuditRecord
	// replica is the name under which this process counts here. It does not change, and no earlier record had it.
	replica string
	// ends is when the record gets no further event; zero until it gets one.
	ends time.Time
	// counted is this replica's count. stored and spooled are how much of it the API server and the disk have.
	counted, stored, spooled int64
	// restored says that counts of an earlier process are not stored yet.
	restored bool
	// moves is how often another client has altered the stored record.
	moves int
	// checked says that the stored record was read after the window's end.
	checked bool
	// budget, user and bytes are what the record takes of a budget; budget is nil for a restored one.
	budget *budget
	user   *string
	bytes  int
	// attempt is the current attempt to store the record, or the next.
	attempt *attempt
}

// attempt has a channel that is closed at its end. failed is valid from then on.
type attempt struct {
	ended  chan struct{}
	failed bool
}

func newAttempt() *attempt { return &attempt{ended: make(chan struct{})} }

func newPending(record *v1alpha1.AuditRecord, replica string) *pending {
	return &pending{record: record, replica: replica, attempt: newAttempt()}
}

func (p *pending) count(event *audit.Event) {
	p.counted++
	audit.Merge(p.record, event.Counted(p.replica, p.counted))
}

// unsafe is how many events are in memory only.
func (p *pending) unsafe() int64 { return p.counted - max(p.stored, p.spooled) }

// waits reports whether a count is not stored.
func (p *pending) waits() bool { return p.restored || p.stored < p.counted }

// over reports whether the record gets no further event.
func (p *pending) over(now time.Time) bool { return now.After(p.ends.Add(cleanupInterval)) }

// due reports whether the stored record must still be read after the end of its window.
func (p *pending) due(now time.Time) bool { return !p.checked && p.over(now) }

// finish takes the result of an attempt that began when upTo was counted: the stored record, or nil after an error. It wakes
// the waiting answers, and reports whether the record needs another attempt. A failed check is not repeated: it may fail again.
func (p *pending) finish(stored *v1alpha1.AuditRecord, upTo int64) bool {
	if stored != nil {
		p.last, p.stored, p.restored = lean(stored, p.record), upTo, false
	}
	p.checked = p.checked || !p.waits() && p.due(time.Now())
	p.attempt.failed = stored == nil
	close(p.attempt.ended)
	p.attempt = newAttempt()
	return p.waits()
}

// lean makes the stored record share its texts with the counting one, which has equal texts.
func lean(stored, counting *v1alpha1.AuditRecord) *v1alpha1.AuditRecord {
	stored.ManagedFields = nil
	stored.Spec.Operation, stored.Spec.Object, stored.Spec.Resource = counting.Spec.Operation, counting.Spec.Object, counting.Spec.Resource
	stored.Spec.Changed, stored.Spec.User = counting.Spec.Changed, counting.Spec.User
	if stored.Spec.Message == counting.Spec.Message {
		stored.Spec.Message = counting.Spec.Message
	}
	return stored
}

// moveOn gives the record a second name, under which everything is to be stored.
func (p *pending) moveOn() {
	p.moves++
	p.record.Name = audit.SecondName(p.record.Name)
	p.last, p.stored, p.spooled = nil, 0, 0
}
