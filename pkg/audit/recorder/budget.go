// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"hash/maphash"
	"net"
	"time"

	"golang.org/x/time/rate"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// The allowances of a budget: a number at once, and then so many a minute. A window of the busiest honest cluster has some
// dozens of users and records. A flood that does not end adds about 200 records a minute, which retention thins out.
const (
	// New users are those without a bucket. Each gets a record.
	newUsersBurst, newUsersPerMinute = 1000, 10
	// A reserve is for new users when the above is used up. It is shared out by the network addresses of the reviews, so that one
	// caller cannot use it up: one reserve by IP address, and one by connection.
	reserveBurst, reservePerMinute = 250, 30
	addressBurst, connectionBurst  = 16, 4
	sharePerMinute                 = 1
	// More records are those of all users after the first of each; the user's own are one user's share of them.
	moreRecordsBurst, moreRecordsPerMinute = 1000, 10
	ownRecordsBurst, ownRecordsPerMinute   = 60, 1
	// User floods are the records in which one user's writes of one operation and kind share; own floods are one user's share.
	userFloodsBurst, userFloodsPerMinute = 1000, 60
	ownFloodsBurst, ownFloodsPerMinute   = 12, 1
)

const (
	// unverifiedPart is what callers that are not verified have of each allowance.
	unverifiedPart = 0.05
	// maxHeld bounds the bytes of the records in memory, and maxHeldFirst what everything but the reserves may take of it.
	maxHeld      = 24 << 20
	maxHeldFirst = 16 << 20
	// entryBytes is what an entry takes besides its texts.
	entryBytes = 1 << 10
	// shares is how many shares a reserve has. Two callers have the same one by chance only.
	shares = 1024
)

// budget bounds how many records there may be. The recorder's mutex guards it.
type budget struct {
	part                              float64
	newUsers, moreRecords, userFloods *rate.Limiter
	addresses, connections            *reserve
	// users has a bucket for each user who has an entry, by audit.Event.UserKey.
	users map[string]*bucket
	held  int
}

// bucket is one user's.
type bucket struct {
	records, floods *rate.Limiter
	// entries is how many the user has. The bucket goes with the last.
	entries int
}

// newBudget makes a budget of a part of the allowances.
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

// allowRecord reports whether the fact may have a record of its own: the first of a new user, or one more of a known one. A
// fact without an address is the guard's own, such as a repair, which no caller can make up.
func (b *budget) allowRecord(fact *audit.Event) bool {
	if fact.Peer == "" {
		return b.fits(maxHeld)
	}
	user := b.users[fact.UserKey()]
	if user == nil {
		return b.allowNewUser(fact.Peer)
	}
	return b.fits(maxHeldFirst) && user.records.Tokens() >= 1 && b.moreRecords.Allow() && user.records.Allow()
}

// allowNewUser takes from the reserves last. peer is the address of the connection.
func (b *budget) allowNewUser(peer string) bool {
	if b.fits(maxHeldFirst) && b.newUsers.Allow() {
		return true
	}
	host, _, err := net.SplitHostPort(peer)
	return err == nil && b.fits(maxHeld) && (b.addresses.allow(host) || b.connections.allow(peer))
}

// allowUserFlood reports whether the fact may have a record that it shares with others of its user, operation and kind.
func (b *budget) allowUserFlood(fact *audit.Event) bool {
	user := b.users[fact.UserKey()]
	return user != nil && b.fits(maxHeld) && user.floods.Tokens() >= 1 && b.userFloods.Allow() && user.floods.Allow()
}

// allowUser reports whether the fact may have a record that it shares with others of its user. A user has one each window.
func (b *budget) allowUser(fact *audit.Event) bool {
	return b.users[fact.UserKey()] != nil && b.fits(maxHeld)
}

func (b *budget) fits(most int) bool { return b.held < int(b.part*float64(most)) }

// hold takes an entry into account. user is its UserKey; nil where its record names no user.
func (b *budget) hold(e *entry, user *string) {
	e.budget, e.user, e.bytes = b, user, bytesOf(&e.record.Spec)
	b.held += e.bytes
	if user == nil {
		return
	}
	if b.users[*user] == nil {
		b.users[*user] = &bucket{
			records: limiter(b.part, ownRecordsBurst, ownRecordsPerMinute),
			floods:  limiter(b.part, ownFloodsBurst, ownFloodsPerMinute),
		}
	}
	b.users[*user].entries++
}

// release gives back what hold took.
func (b *budget) release(e *entry) {
	b.held -= e.bytes
	if e.user == nil {
		return
	}
	user := b.users[*e.user]
	if user.entries--; user.entries == 0 {
		delete(b.users, *e.user)
	}
}

// bytesOf is about how much memory a record takes.
func bytesOf(spec *v1alpha1.AuditRecordSpec) int {
	bytes := entryBytes + len(spec.Operation) + len(spec.Resource) + len(spec.Message) + len(spec.User.Name) + len(spec.User.UID)
	for _, texts := range [][]string{spec.Changed, spec.User.Groups} {
		for _, text := range texts {
			bytes += len(text)
		}
	}
	return bytes
}

// reserve is an allowance in which each caller has a share.
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
	return (*share).Tokens() >= 1 && r.all.Allow() && (*share).Allow()
}
