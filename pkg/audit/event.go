// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit knows what an audit record says: the event of one write, which events share a record, and what an administrator
// asks of many records. It stores nothing.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Window is the span of time in which equal events share a record. Windows start at multiples of it, so that every replica
// puts an event into the same record without asking another.
const Window = 10 * time.Minute

// Event is one write to a reserved resource that was denied, or let through on purpose. Its texts are foreign: unbounded, and
// not fit to print, until they are in a record.
type Event struct {
	Time       time.Time
	RequestUID string
	Outcome    v1alpha1.Outcome
	Operation  admissionv1.Operation
	Object     v1alpha1.ObjectReference
	Reason     string
	// Message is the sentence for the person who was denied.
	Message string
	Changed []string
	User    v1alpha1.User
	Caller  v1alpha1.Caller
	Source  v1alpha1.Source
	// Peer is the network address that the review came from. It is in no record: the recorder shares its budget by it.
	Peer string

	// flood is how long the window of a record is that unequal events share; zero for a record of equal events.
	flood time.Duration
}

// FloodReason is the reason of a record that unequal events share.
const FloodReason = "Flood"

// floodWindow is the span of time that a nameless record of a flood covers.
const floodWindow = time.Minute

// FloodedByUser returns the event as it is counted when one user's new records come faster than they may be stored. It shares
// a record with all others of its outcome, caller, user, operation and type of resource.
func (f *Event) FloodedByUser() Event {
	flooded := f.FloodedOfUser()
	flooded.Operation = f.Operation
	flooded.Object = v1alpha1.ObjectReference{Group: f.Object.Group, Resource: f.Object.Resource}
	return flooded
}

// FloodedOfUser returns the event as it is counted when even the records of FloodedByUser come too fast. It shares a record
// with all others of its outcome, caller and user.
func (f *Event) FloodedOfUser() Event {
	flooded := f.Flooded()
	flooded.Message = "Writes by this user came too fast for a record each. The guard's log has every one."
	flooded.User.Name = f.User.Name
	flooded.flood = Window
	return flooded
}

// Flooded returns the event as it is counted when too many users are new: it shares one record a minute with all others of
// its outcome and caller, whoever did what.
func (f *Event) Flooded() Event {
	return Event{
		Time:       f.Time,
		RequestUID: f.RequestUID,
		Outcome:    f.Outcome,
		Reason:     FloodReason,
		Message:    "Writes by many users came too fast for a record each. The guard's log has every one.",
		Source:     f.Source,
		Caller:     f.Caller,
		flood:      floodWindow,
	}
}

// UserKey returns the user's name, bounded: what tells users apart in memory.
func (f *Event) UserKey() string { return text.Printable(f.User.Name, maxName) }

// Ends returns when the window of the event's record is over: no later event falls into it.
func (f *Event) Ends() time.Time {
	window := f.window()
	return f.Time.UTC().Truncate(window).Add(window)
}

func (f *Event) window() time.Duration {
	if f.flood > 0 {
		return f.flood
	}
	return Window
}

// nameTime is how a record's name states the start of its window.
const nameTime = "20060102t1504"

// Name returns the name of the record that the event belongs to: the start of its window, the operation, and a digest of
// what makes events equal, such as "20261125t0820-update-7f3a90c1d25e8b6a4410". Names in order are records in order of time.
func (f *Event) Name() string {
	return f.Time.UTC().Truncate(f.window()).Format(nameTime) + "-" + f.word() + "-" + f.digest()
}

func (f *Event) word() string {
	switch operation := strings.ToLower(string(f.Operation)); {
	case f.flood > 0:
		return "flood"
	case operation == "create", operation == "update", operation == "delete":
		return operation
	default:
		return "unreadable"
	}
}

// digestBytes is 80 bits: nobody finds another event that falls into the same record.
const digestBytes = 10

// digest is over all that makes events equal, whole and not shortened: what an attacker makes long stays distinct.
func (f *Event) digest() string {
	sum := sha256.New()
	for _, text := range []string{
		string(f.Outcome), string(f.Operation), f.Object.Group, f.Object.Resource, f.Object.Namespace, f.Object.Name, f.Reason,
		f.User.Name, f.User.UID, string(f.Caller), string(f.Source),
	} {
		writeText(sum, text)
	}
	writeTexts(sum, f.Changed)
	writeTexts(sum, slices.Sorted(slices.Values(f.User.Groups)))
	return hex.EncodeToString(sum.Sum(nil)[:digestBytes])
}

// writeText writes the length first, so that no text runs into the next. A hash's Write never fails.
func writeText(sum hash.Hash, text string) {
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(text)))
	_, _ = sum.Write(length[:])
	_, _ = sum.Write([]byte(text))
}

func writeTexts(sum hash.Hash, texts []string) {
	writeText(sum, strconv.Itoa(len(texts)))
	for _, text := range texts {
		writeText(sum, text)
	}
}

// groups are the user's. Where a record has no room for all, the first ones must not depend on their order.
func (f *Event) groups() []string {
	if len(f.User.Groups) <= maxItems {
		return f.User.Groups
	}
	return slices.Sorted(slices.Values(f.User.Groups))
}

// Record returns the record of count writes like this one, all counted by one replica.
func (f *Event) Record(replica string, count int64) *v1alpha1.AuditRecord {
	object := f.Object
	cleanObject(&object)
	record := &v1alpha1.AuditRecord{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "AuditRecord"},
		ObjectMeta: metav1.ObjectMeta{Name: f.Name()},
		Spec: v1alpha1.AuditRecordSpec{
			Outcome:   f.Outcome,
			Operation: admissionv1.Operation(text.Printable(string(f.Operation), maxOperation)),
			Object:    object,
			Resource:  object.String(),
			Changed:   printables(f.Changed, maxPath),
			Reason:    f.Reason,
			Message:   text.Printable(f.Message, maxMessage),
			User: v1alpha1.User{
				Name:   text.Printable(f.User.Name, maxName),
				UID:    text.Printable(f.User.UID, maxName),
				Groups: printables(f.groups(), maxName),
			},
			Source: f.Source,
			Caller: f.Caller,
		},
	}
	counted := f.Counted(replica, count).Spec
	record.Spec.FirstTime, record.Spec.LastTime = counted.FirstTime, counted.LastTime
	record.Spec.Count, record.Spec.Counts = count, counted.Counts
	record.Spec.LastRequestUID, record.Spec.Replica = counted.LastRequestUID, replica
	return record
}
