// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package recorder

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// countsOf adds up the writes of the stored records that name a user.
func (s *memoryStore) countsOf(user string, fits func(v1alpha1.AuditRecordSpec) bool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := int64(0)
	for _, record := range s.records {
		if record.Spec.User.Name == user && fits(record.Spec) {
			count += record.Spec.Count
		}
	}
	return count
}

func isExact(spec v1alpha1.AuditRecordSpec) bool { return spec.Reason != audit.FloodReason }

const (
	attacker  = "10.1.2.3:4444"
	apiServer = "192.0.2.7:5555"
)

func from(peer string, event audit.Event) audit.Event {
	event.Peer = peer
	return event
}

func TestAFloodOfUsersIsCountedExactlyInFewRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		for i := range 20_000 {
			h.Record(t.Context(), from(attacker, by(fmt.Sprintf("user-%d", i))))
		}
		synctest.Wait()
		limit := newUsersBurst + addressBurst + connectionBurst + 1
		if store.total() != 20_000 || len(store.records) > limit {
			t.Errorf("%d events in %d records, want 20000 in at most %d", store.total(), len(store.records), limit)
		}
	})
}

// The attack: made-up reviews, and then the denials of a real attacker, who should have vanished among them.
func TestAFloodHidesNobody(t *testing.T) {
	for name, flood := range map[string]func(i int) audit.Event{
		"many made-up users": func(i int) audit.Event { return from(attacker, by(fmt.Sprintf("user-%d", i))) },
		"many made-up users behind many connections": func(i int) audit.Event {
			return from(fmt.Sprintf("10.1.2.3:%d", i), by(fmt.Sprintf("user-%d", i)))
		},
		"many made-up users behind the API server's address": func(i int) audit.Event {
			return from("192.0.2.7:4444", by(fmt.Sprintf("user-%d", i)))
		},
		"many objects of one made-up user": func(i int) audit.Event {
			event := from(attacker, by("user"))
			event.Object.Name = fmt.Sprint(i)
			return event
		},
		"many groups of one made-up user": func(i int) audit.Event {
			event := from(attacker, by("user"))
			event.User.Groups = []string{fmt.Sprint(i)}
			return event
		},
		"many kinds of one made-up user": func(i int) audit.Event {
			event := from(attacker, by("user"))
			event.Object.Resource = fmt.Sprintf("kind-%d", i)
			return event
		},
		"large reviews of many made-up users": func(i int) audit.Event {
			event := from(attacker, by(fmt.Sprintf("user-%d", i)))
			event.Message = strings.Repeat("x", 10_000)
			for j := range 32 {
				event.User.Groups = append(event.User.Groups, fmt.Sprint(j, strings.Repeat("g", 250)))
				event.Changed = append(event.Changed, strings.Repeat("c", 250))
			}
			return event
		},
	} {
		for _, count := range []int{1_100, 6_000} {
			t.Run(fmt.Sprint(name, ", ", count), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newMemoryStore()
					h := start(t, Options{Store: store, Mode: Blocking})
					for i := range count {
						h.Record(t.Context(), flood(i))
					}
					h.Record(t.Context(), by("the guard itself"))
					if got := store.countsOf("the guard itself", isExact); got != 1 {
						t.Errorf("the guard's own event has %d records", got)
					}
					for range 3 {
						h.Record(t.Context(), from(apiServer, by("mallory")))
					}
					if got := store.countsOf("mallory", isExact); got != 3 {
						t.Errorf("%d denials in mallory's name, want 3", got)
					}
					if store.total() != int64(count)+4 {
						t.Errorf("%d events stored, want %d", store.total(), count+4)
					}
				})
			})
		}
	}
}

func TestAFloodedEventKeepsUserOperationAndKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		for i := range 500 {
			event := from(apiServer, by("mallory"))
			event.Object.Name = fmt.Sprint(i)
			h.Record(t.Context(), event)
		}
		flooded := func(spec v1alpha1.AuditRecordSpec) bool {
			return spec.Reason == audit.FloodReason && spec.Operation == "UPDATE" && spec.Resource == "secrets"
		}
		exact, shared := store.countsOf("mallory", isExact), store.countsOf("mallory", flooded)
		if exact < ownRecordsBurst || exact+shared != 500 {
			t.Errorf("%d writes in records of their own and %d in shared ones, want at least %d, and 500", exact, shared, ownRecordsBurst)
		}
	})
}

// Reviews of callers that are not verified take nothing of the others' budget.
func TestUnverifiedCallersHaveABudgetOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newMemoryStore()
		h := start(t, Options{Store: store, Mode: Blocking})
		for i := range 20_000 {
			event := from(attacker, by(fmt.Sprintf("user-%d", i)))
			event.Caller = v1alpha1.CallerUnverified
			h.Record(t.Context(), event)
		}
		synctest.Wait()
		if limit := newUsersBurst/10 + 1; len(store.records) > limit {
			t.Errorf("%d records of unverified callers, want at most %d", len(store.records), limit)
		}
		for name, record := range store.records {
			if record.Spec.Caller != v1alpha1.CallerUnverified {
				t.Errorf("record %s does not say that its caller was not verified", name)
			}
		}
		if h.budget.held != 0 || h.budget.newUsers.Tokens() != newUsersBurst {
			t.Errorf("the others' budget has %d bytes held and %v tokens left", h.budget.held, h.budget.newUsers.Tokens())
		}
	})
}

// inMemory returns the size of the records, their number and that of their users.
func (h *harness) inMemory() (bytes, records, users int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.budget.held, len(h.records), len(h.budget.users)
}

func TestAMillionMadeUpUsersStayWithinTheMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, Options{Store: newMemoryStore(), Mode: Blocking})
		for i := range 1_000_000 {
			event := by(fmt.Sprintf("user-%d", i))
			event.Peer = fmt.Sprintf("10.1.%d.%d:%d", i%256, i/256%256, i%60_000)
			h.count(&event)
			if i%100_000 == 0 {
				time.Sleep(time.Minute)
			}
		}
		synctest.Wait()
		if bytes, records, users := h.inMemory(); bytes > maxHeld || records > 4000 || users > records {
			t.Errorf("%d bytes of %d records and %d users", bytes, records, users)
		}
		time.Sleep(audit.Window + 4*cleanupInterval)
		synctest.Wait()
		if bytes, records, users := h.inMemory(); bytes != 0 || records != 0 || users != 0 {
			t.Errorf("after the window: %d bytes of %d records and %d users", bytes, records, users)
		}
	})
}
