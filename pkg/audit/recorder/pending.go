// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"hash/maphash"
	"net"
	"slices"
	"time"

	"golang.org/x/time/rate"

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

// The allowances of a budget: a burst, and a rate per minute. A window of a busy cluster without an attack has some dozens of
// users and records. A flood adds about 200 records a minute, which retention thins out.
const (
	// A new user is one without a bucket. Each gets a record.
	newUsersBurst, newUsersPerMinute = 1000, 10
	// A reserve is for new users when the above is used up: one by IP address, one by connection. Each caller has a share of it.
	reserveBurst, reservePerMinute = 250, 30
	addressBurst, connectionBurst  = 16, 4
	sharePerMinute                 = 1
	// More records are all users' records after the first of each. Own records are one user's share of them.
	moreRecordsBurst, moreRecordsPerMinute = 1000, 10
	ownRecordsBurst, ownRecordsPerMinute   = 60, 1
	// A user flood is a record that one user's writes of one operation and kind share. Own floods are one user's share of them.
	userFloodsBurst, userFloodsPerMinute = 1000, 60
	ownFloodsBurst, ownFloodsPerMinute   = 12, 1
)

const (
	// unverifiedPart is the part of each allowance that unverified callers have.
	unverifiedPart = 0.05
	// maxHeld bounds the bytes of the records in memory. maxHeldFirst bounds them for all but the reserves.
	maxHeld      = 24 << 20
	maxHeldFirst = 16 << 20
	// pendingBytes is the size of a record in memory without its texts.
	pendingBytes = 1 << 10
	// shares is how many shares a reserve has.
	shares = 1024
)

// budget bounds the records in memory. The recorder's mutex guards it.
type budget struct {
	part                              float64
	newUsers, moreRecords, userFloods *rate.Limiter
	addresses, connections            *reserve
	// users has a bucket for each user with a record in memory, by audit.Event.UserKey.
	users map[string]*bucket
	held  int
}

// bucket is one user's share. held is how many records the user has in memory.
type bucket struct {
	records, floods *rate.Limiter
	held            int
}

// newBudget makes a budget with a part of each allowance.
func newBudget(part float64) *budget {
	return &budget{
		part:        part,
		newUsers:    limiter(part, newUsersBurst, newUsersPerMinute),
		moreRecords: limiter(part, moreRecordsBurst, moreRecordsPerMinute),
		userFloods:  limiter(part, userFloodsBurst, userFloodsPerMinute),
		addresses:   newReserve(part, addressBurst),
		connections: newReserve(part, connectionBurst),
		users:       map[string]*bucket{},
	}
}

func limiter(part, burst, perMinute float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(part*perMinute/time.Minute.Seconds()), max(1, int(part*burst)))
}

// allowRecord reports whether the event may have a new record: the first of a new user, or one more of a known user. An event
// without a peer is the guard's own, such as a repair, and no caller can forge it.
func (b *budget) allowRecord(event *audit.Event) bool {
	if event.Peer == "" {
		return b.fits(maxHeld)
	}
	user := b.users[event.UserKey()]
	if user == nil {
		return b.allowNewUser(event.Peer)
	}
	return b.fits(maxHeldFirst) && take(b.moreRecords, user.records)
}

// allowNewUser takes from the reserves last. peer is the address of the connection.
func (b *budget) allowNewUser(peer string) bool {
	if b.fits(maxHeldFirst) && b.newUsers.Allow() {
		return true
	}
	host, _, err := net.SplitHostPort(peer)
	return err == nil && b.fits(maxHeld) && (b.addresses.allow(host) || b.connections.allow(peer))
}

// allowUserFlood reports whether the event may have a new record that its user, operation and kind share.
func (b *budget) allowUserFlood(event *audit.Event) bool {
	user := b.users[event.UserKey()]
	return user != nil && b.fits(maxHeld) && take(b.userFloods, user.floods)
}

// allowUser reports whether the event may have a new record that its user shares. A user has one each window.
func (b *budget) allowUser(event *audit.Event) bool {
	return b.users[event.UserKey()] != nil && b.fits(maxHeld)
}

// take takes from both limiters if both have some.
func take(all, own *rate.Limiter) bool { return own.Tokens() >= 1 && all.Allow() && own.Allow() }

func (b *budget) fits(limit int) bool { return b.held < int(b.part*float64(limit)) }

// hold adds a record. user is its UserKey; nil if the record names no user.
func (b *budget) hold(p *pending, user *string) {
	p.budget, p.user, p.bytes = b, user, bytesOf(&p.record.Spec)
	b.held += p.bytes
	if user == nil {
		return
	}
	if b.users[*user] == nil {
		b.users[*user] = &bucket{
			records: limiter(b.part, ownRecordsBurst, ownRecordsPerMinute),
			floods:  limiter(b.part, ownFloodsBurst, ownFloodsPerMinute),
		}
	}
	b.users[*user].held++
}

// release undoes hold.
func (p *pending) release() {
	if p.budget == nil {
		return
	}
	p.budget.held -= p.bytes
	if p.user == nil {
		return
	}
	user := p.budget.users[*p.user]
	if user.held--; user.held == 0 {
		delete(p.budget.users, *p.user)
	}
}

// bytesOf is about how much memory a record takes.
func bytesOf(spec *v1alpha1.AuditRecordSpec) int {
	bytes := pendingBytes + len(spec.Operation) + len(spec.Resource) + len(spec.Message) + len(spec.User.Name) + len(spec.User.UID)
	for _, text := range slices.Concat(spec.Changed, spec.User.Groups, audit.ExtraLines(&spec.User)) {
		bytes += len(text)
	}
	return bytes
}

// reserve is an allowance in which each caller has a share. Two callers may share one by chance.
type reserve struct {
	seed     maphash.Seed
	all      *rate.Limiter
	newShare func() *rate.Limiter
	shares   [shares]*rate.Limiter
}

func newReserve(part, shareBurst float64) *reserve {
	return &reserve{
		seed:     maphash.MakeSeed(),
		all:      limiter(part, reserveBurst, reservePerMinute),
		newShare: func() *rate.Limiter { return limiter(part, shareBurst, sharePerMinute) },
	}
}

func (r *reserve) allow(caller string) bool {
	share := &r.shares[maphash.String(r.seed, caller)%shares]
	if *share == nil {
		*share = r.newShare()
	}
	return take(r.all, *share)
}
