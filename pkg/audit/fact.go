// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

// Package audit knows what an audit record says: the fact of one write, which facts share a record, and what an administrator
// asks of many records. It stores nothing.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/policy"
	"github.com/apigw-guardian/apigw-guardian/pkg/review"
)

// Window is the span of time in which equal facts share a record. Windows start at multiples of it, so that every replica
// puts a fact into the same record without asking another.
const Window = 10 * time.Minute

// Fact is one write to a reserved resource that was denied, or let through on purpose. Its texts are foreign: unbounded, and
// not fit to print, until they are in a record.
type Fact struct {
	Time       time.Time
	RequestUID string
	Outcome    v1alpha1.Outcome
	Operation  string
	// Resource is the written object, as AuditRecordSpec.Resource has it.
	Resource string
	Reason   string
	// Message is the sentence for the person who was denied.
	Message string
	Changed []string
	User    review.User
	Caller  v1alpha1.Caller
	Source  v1alpha1.Source

	// flood marks a fact that shares a record with unequal ones.
	flood bool
}

// NewFact is the fact of a decision that has an outcome.
func NewFact(request *review.Request, decision policy.Decision, at time.Time) Fact {
	return Fact{
		Time:       at,
		RequestUID: request.UID,
		Outcome:    v1alpha1.Outcome(decision.Outcome),
		Operation:  request.Operation,
		Resource:   resourceOf(request, decision),
		Reason:     string(decision.Reason),
		Message:    decision.Sentence(),
		Changed:    decision.Changed,
		User:       request.User,
		Source:     v1alpha1.SourceGuard,
	}
}

// resourceOf falls back to what the head of the review says, where the objects could not be read.
func resourceOf(request *review.Request, decision policy.Decision) string {
	if decision.Resource != nil {
		return decision.ObjectName()
	}
	return ResourcePath(request.GVR.GroupResource().String(), request.Namespace, request.Name)
}

// ResourcePath joins what names an object: "secrets/kube-system/NAME", or "clusterroles.rbac.authorization.k8s.io/NAME" where
// the namespace is empty. Empty parts are left out.
func ResourcePath(parts ...string) string {
	path := make([]string, 0, len(parts))
	for _, part := range parts {
		if part != "" {
			path = append(path, part)
		}
	}
	return strings.Join(path, "/")
}

// FloodReason is the reason of a record that unequal facts share.
const FloodReason = "Flood"

// floodWindow is the span of time that one such record covers.
const floodWindow = time.Minute

// Flooded returns the fact as it is counted when new records come faster than they may be stored: it shares one record a
// minute with all others of its outcome, whoever did what.
func (f *Fact) Flooded() Fact {
	return Fact{
		Time:       f.Time,
		RequestUID: f.RequestUID,
		Outcome:    f.Outcome,
		Reason:     FloodReason,
		Message:    "Writes by many users, or to many names, came too fast for a record each. The guard's log has every one.",
		Source:     f.Source,
		flood:      true,
	}
}

// Ends returns when the window of the fact's record is over: no later fact falls into it.
func (f *Fact) Ends() time.Time {
	window := f.window()
	return f.Time.UTC().Truncate(window).Add(window)
}

func (f *Fact) window() time.Duration {
	if f.flood {
		return floodWindow
	}
	return Window
}

// Name returns the name of the record that the fact belongs to: the start of its window, the operation, and a digest of
// what makes facts equal, such as "20261125t0820-update-7f3a90c1d25e8b6a4410". Names in order are records in order of time.
func (f *Fact) Name() string {
	return f.Time.UTC().Truncate(f.window()).Format("20060102t1504") + "-" + f.word() + "-" + f.digest()
}

func (f *Fact) word() string {
	switch operation := strings.ToLower(f.Operation); {
	case f.flood:
		return "flood"
	case operation == "create", operation == "update", operation == "delete":
		return operation
	default:
		return "unreadable"
	}
}

// digestBytes is 80 bits: nobody finds another fact that falls into the same record.
const digestBytes = 10

// digest is over all that makes facts equal, whole and not shortened: what an attacker makes long stays distinct.
func (f *Fact) digest() string {
	sum := sha256.New()
	for _, text := range []string{
		string(f.Outcome), f.Operation, f.Resource, f.Reason, f.User.Name, string(f.Caller), string(f.Source),
	} {
		writeText(sum, text)
	}
	for _, path := range f.Changed {
		writeText(sum, path)
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

// Record returns the record that the fact belongs to. It counts nothing yet: merge what Counted returns.
func (f *Fact) Record() *v1alpha1.AuditRecord {
	at := metav1.NewMicroTime(f.Time.Truncate(time.Microsecond))
	return &v1alpha1.AuditRecord{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion().String(), Kind: "AuditRecord"},
		ObjectMeta: metav1.ObjectMeta{Name: f.Name()},
		Spec: v1alpha1.AuditRecordSpec{
			Outcome:   f.Outcome,
			Operation: Printable(f.Operation, maxOperation),
			Resource:  Printable(f.Resource, maxResource),
			Changed:   printables(f.Changed, maxPath),
			Reason:    f.Reason,
			Message:   Printable(f.Message, maxMessage),
			User: v1alpha1.User{
				Name:   Printable(f.User.Name, maxName),
				UID:    Printable(f.User.UID, maxName),
				Groups: printables(f.User.Groups, maxName),
			},
			FirstTime: at,
			LastTime:  at,
			Source:    f.Source,
			Caller:    f.Caller,
		},
	}
}
