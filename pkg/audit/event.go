// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit defines events and records, and how records merge, are filtered and are summarized. It stores nothing.
package audit

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian"
	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Window is the span of time in which equal events share a record. It starts at multiples of itself, equally in every replica.
const Window = 10 * time.Minute

// Event is one write that was denied, or allowed with a record. Its texts are unbounded and not safe to print until Record bounds them.
type Event struct {
	Time       time.Time
	RequestUID string
	Outcome    v1alpha1.Outcome
	Operation  admissionv1.Operation
	Object     v1alpha1.ObjectReference
	// ObjectUID is the uid of the object before the write. It does not tell events apart.
	ObjectUID string
	Reason    string
	// Message is the first line that the caller reads.
	Message string
	Changed []string
	// Unlock is the name of the Unlock that allowed the write, and Justification its reason, or that of an exemption.
	Unlock, Justification string

	// User has the Extra that the record may hold.
	User   v1alpha1.User
	Caller v1alpha1.Caller
	Source v1alpha1.Source
	// Peer is the network address of the review's sender. No record holds it: the recorder divides its budget by it.
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
func (e *Event) FloodedByUser() Event {
	flooded := e.FloodedOfUser()
	flooded.Operation = e.Operation
	flooded.Object = v1alpha1.ObjectReference{Group: e.Object.Group, Resource: e.Object.Resource}
	return flooded
}

// FloodedOfUser returns the event as it is counted when FloodedByUser gives too many records: one per outcome, caller and user.
func (e *Event) FloodedOfUser() Event {
	flooded := e.Flooded()
	flooded.Message = "Writes by this user came too fast for a record each. The guard's log has every one."
	flooded.User.Name = e.User.Name
	flooded.flood = Window
	return flooded
}

// Flooded returns the event as it is counted when too many users are new: one record a minute for each outcome and caller.
func (e *Event) Flooded() Event {
	return Event{
		Time:       e.Time,
		RequestUID: e.RequestUID,
		Outcome:    e.Outcome,
		Reason:     FloodReason,
		Message:    "Writes by many users came too fast for a record each. The guard's log has every one.",
		Source:     e.Source,
		Caller:     e.Caller,
		flood:      floodWindow,
	}
}

// UserKey returns the user's name, bounded: what tells users apart in memory.
func (e *Event) UserKey() string { return text.Printable(e.User.Name, maxName) }

// Ends returns when the window of the event's record is over: no later event falls into it.
func (e *Event) Ends() time.Time {
	window := e.window()
	return e.Time.UTC().Truncate(window).Add(window)
}

func (e *Event) window() time.Duration { return cmp.Or(e.flood, Window) }

// nameTime is how a record's name states the start of its window.
const nameTime = "20060102t1504"

// Name returns the name of the record that the event belongs to: the start of its window, the operation, and a digest of
// what makes events equal, such as "20261125t0820-update-7f3a90c1d25e8b6a4410". Names in order are records in order of time.
func (e *Event) Name() string {
	return e.Time.UTC().Truncate(e.window()).Format(nameTime) + "-" + e.word() + "-" + e.digest()
}

func (e *Event) word() string {
	switch operation := strings.ToLower(string(e.Operation)); {
	case e.flood > 0:
		return "flood"
	case operation == "create", operation == "update", operation == "delete":
		return operation
	default:
		return "unreadable"
	}
}

// digestBytes is 80 bits, too many to search for another event of the same record.
const digestBytes = 10

// digest covers every field that makes events equal, not shortened: two long texts with one beginning stay different.
func (e *Event) digest() string {
	sum := sha256.New()
	for _, text := range []string{
		string(e.Outcome), string(e.Operation), e.Object.Group, e.Object.Resource, e.Object.Namespace, e.Object.Name, e.Reason,
		e.User.Name, e.User.UID, string(e.Caller), string(e.Source),
	} {
		writeText(sum, text)
	}
	if e.Unlock != "" {
		writeText(sum, e.Unlock)
	}
	writeTexts(sum, e.Changed)
	writeTexts(sum, slices.Sorted(slices.Values(e.User.Groups)))
	for _, key := range slices.Sorted(maps.Keys(e.User.Extra)) {
		writeText(sum, key)
		writeTexts(sum, e.User.Extra[key])
	}
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

// groups returns the groups of the user. A record holds the first of them, so they are sorted if they are too many.
func (e *Event) groups() []string {
	if len(e.User.Groups) <= MaxItems {
		return e.User.Groups
	}
	return slices.Sorted(slices.Values(e.User.Groups))
}

// TypeMeta is that of a record. A list's items and a client's objects may lack it.
func TypeMeta() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "AuditRecord"}
}

// Record returns the record of count writes like this one, all counted by one replica.
func (e *Event) Record(replica string, count int64) *v1alpha1.AuditRecord {
	record := e.Counted(replica, count)
	record.TypeMeta, record.Name = TypeMeta(), e.Name()
	spec := &record.Spec
	spec.Outcome, spec.Operation, spec.Object, spec.Reason, spec.Message = e.Outcome, e.Operation, e.Object, e.Reason, e.Message
	spec.Changed, spec.Unlock, spec.Justification = first(e.Changed), e.Unlock, e.Justification
	spec.User = v1alpha1.User{Name: e.User.Name, UID: e.User.UID, Groups: first(e.groups()), Extra: e.User.Extra}
	spec.Source, spec.Caller = e.Source, e.Caller
	if e.ObjectUID != "" {
		record.Annotations = map[string]string{guardian.ObjectUIDAnnotation: text.Printable(e.ObjectUID, maxUID)}
	}
	Clean(record)
	spec.Resource = spec.Object.String()
	return record
}

// first returns a copy of the first MaxItems texts; nil for none.
func first(texts []string) []string {
	return append([]string(nil), texts[:min(len(texts), MaxItems)]...)
}

// Reasons of a record whose outcome is Tampered. No decision has them.
const (
	// RegistrationChanged: the webhook configuration was edited.
	RegistrationChanged = "RegistrationChanged"
	// RegistrationDeleted: the webhook configuration was deleted.
	RegistrationDeleted = "RegistrationDeleted"
	// LeaseHeld: the leader-election lease had a duration that no replica asks for.
	LeaseHeld = "LeaseHeld"
)

// DeniedByPolicy is the reason of an imported record: a ValidatingAdmissionPolicy of the chart denied a write to an object of the guard.
const DeniedByPolicy = "DeniedByPolicy"

// Reasons of a record whose outcome is Drift or Gap. No decision has them.
const (
	// Differs: the resource differs from its manifest.
	Differs = "Differs"
	// Absent: the resource does not exist.
	Absent = "Absent"
	// HealStopped: another client changes the resource again after each repair, so the leader repairs it no more.
	HealStopped = "HealStopped"
	// Undecided: the reason of a Gap.
	Undecided = "Undecided"
)

// LeaderReasons returns the reasons that no decision has, in the order in which people should read them.
func LeaderReasons() []string {
	return []string{RegistrationDeleted, RegistrationChanged, LeaseHeld, HealStopped, Absent, Differs, Undecided}
}

// Reasons of a record whose outcome is Retired or Rotated. No decision has them.
const (
	// Retirement: `apigw-guardian retire` has finished.
	Retirement = "Retirement"
	// Rotation: `apigw-guardian rotate` has finished.
	Rotation = "Rotation"
)
