// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Replica is the name of the replica in imported records.
const Replica = "import"

// importSuffix follows the name of the guard's record in the name of the imported record with the missing writes. The two are
// neighbours in a list, and importing the same log again results in the same name.
const importSuffix = "-" + Replica

// maxReason is the max length of AuditRecordSpec.Reason.
const maxReason = 64

// Log is the sum of the judgments of all events of an audit log. The events may come in any order, from several API servers, and
// repeatedly. It keeps some bytes for each event that concerns a reserved resource, and none for others. It is not safe for
// concurrent use; NewLog returns a usable one.
type Log struct {
	set      *reserved.Set
	events   int
	from, to time.Time
	counts   Counts
	seen     map[[sha256.Size]byte]struct{}
	groups   map[string]*group
	marks    []mark
}

// Counts are numbers of writes to reserved resources.
type Counts struct {
	// Denied and LetThrough are the writes that records must count. LetThrough succeeded.
	Denied     int `json:"denied"`
	LetThrough int `json:"letThrough"`
	// Refused are writes that the guard allowed, with or without a record, and the API server refused.
	Refused int `json:"refused"`
	// Passed are writes that changed nothing, or were made by the control plane.
	Passed int `json:"passed"`
	// Unguarded are writes that succeeded without the guard. Failed are writes that were refused because it was unreachable.
	Unguarded int `json:"unguarded"`
	Failed    int `json:"failed"`
	DryRuns   int `json:"dryRuns"`
	// Unclear are writes that may have concerned a reserved resource: the log has not enough information.
	Unclear int `json:"unclear"`
	// Duplicates are repeated events, which no other field counts again.
	Duplicates int `json:"duplicates"`
}

// group has the writes that one record must count.
type group struct {
	// record is the name of the guard's record; empty if the guard made none. imported is the name of the imported record.
	record, imported string
	event            audit.Event
	first, last      time.Time
	count            int64
}

// NewLog returns an empty log whose events are judged with this set.
func NewLog(set *reserved.Set) *Log {
	return &Log{set: set, seen: map[[sha256.Size]byte]struct{}{}, groups: map[string]*group{}}
}

// Add judges one event and adds its judgments.
func (l *Log) Add(event *Event) {
	l.events++
	if l.from.IsZero() || event.Received.Before(l.from) {
		l.from = event.Received
	}
	if event.Time.After(l.to) {
		l.to = event.Time
	}
	judgments := Judge(l.set, event)
	if len(judgments) == 0 {
		return
	}
	key := event.key()
	if _, isKnown := l.seen[key]; isKnown {
		l.counts.Duplicates++
		return
	}
	l.seen[key] = struct{}{}
	if len(event.Decisions) > 0 {
		l.marks = append(l.marks, mark{at: event.Time})
	}
	for _, judgment := range judgments {
		l.add(judgment)
	}
}

// key identifies an event. The ID does not suffice: a client may choose it, and could hide one request behind another. The bytes
// of the line would not do either: a log shipper may reformat them.
func (e *Event) key() [sha256.Size]byte {
	return sha256.Sum256([]byte(strings.Join([]string{
		e.ID, e.Stage, e.Verb, e.URI, e.User.Name, e.Received.UTC().Format(time.RFC3339Nano), e.Time.UTC().Format(time.RFC3339Nano),
	}, "\x00")))
}

func (l *Log) add(judgment Judgment) {
	switch judgment.Kind {
	case Decided:
		switch {
		case judgment.Event.Outcome == v1alpha1.Denied:
			l.counts.Denied++
		case judgment.Refused:
			l.counts.Refused++
		default:
			l.counts.LetThrough++
		}
		l.count(judgment)
	case Refused:
		l.counts.Refused++
	case Passed:
		l.counts.Passed++
	case Unguarded:
		l.counts.Unguarded++
		l.marks = append(l.marks, mark{at: judgment.Event.Time, away: Unguarded})
		l.count(judgment)
	case Failed:
		l.counts.Failed++
		l.marks = append(l.marks, mark{at: judgment.Event.Time, away: Failed})
	case DryRun:
		l.counts.DryRuns++
	case Unclear:
		l.counts.Unclear++
	}
}

// count adds the write to the group of its record. If the guard named no record, the name follows from the event.
func (l *Log) count(judgment Judgment) {
	record, imported := judgment.Record, judgment.Record+importSuffix
	if len(validation.IsDNS1123Subdomain(imported)) > 0 {
		record, imported = "", judgment.Event.Name()
	}
	at := judgment.Event.Time
	g := l.groups[imported]
	if g == nil {
		l.groups[imported] = &group{record: record, imported: imported, event: judgment.Event, first: at, last: at, count: 1}
		return
	}
	g.count++
	g.keepCommon(judgment.Event)
	if at.Before(g.first) {
		g.first = at
	}
	if !at.Before(g.last) {
		g.last, g.event.Message = at, judgment.Event.Message
	}
}

// keepCommon clears the fields that are not the same for all writes of the group: the record of a flood counts many users'.
func (g *group) keepCommon(other audit.Event) {
	if g.event.User.Name != other.User.Name {
		g.event.User = v1alpha1.User{}
	}
	if !reflect.DeepEqual(g.event.User.Extra, other.User.Extra) {
		g.event.User.Extra = nil
	}
	if g.event.Operation != other.Operation {
		g.event.Operation = ""
	}
	if g.event.Object != other.Object {
		g.event.Object = v1alpha1.ObjectReference{}
	}
	if g.event.Reason != other.Reason {
		g.event.Reason = ""
	}
}

// mark is a time at which the guard answered, or was away: Failed or Unguarded.
type mark struct {
	at   time.Time
	away Kind
}

// Span is a time without an answer of the guard, from the first write without its decision to the last. The times are those of the
// API servers. The guard was away at least that long.
type Span struct {
	From      metav1.MicroTime `json:"from"`
	To        metav1.MicroTime `json:"to"`
	Failed    int              `json:"failed"`
	Unguarded int              `json:"unguarded"`
}

func (l *Log) away() []Span {
	spans := []Span{}
	open := false
	slices.SortStableFunc(l.marks, func(a, b mark) int { return a.at.Compare(b.at) })
	for _, mark := range l.marks {
		if mark.away == "" {
			open = false
			continue
		}
		if !open {
			spans, open = append(spans, Span{From: metav1.NewMicroTime(mark.at)}), true
		}
		span := &spans[len(spans)-1]
		span.To = metav1.NewMicroTime(mark.at)
		if mark.away == Failed {
			span.Failed++
		} else {
			span.Unguarded++
		}
	}
	return spans
}

// Report is the result of a comparison of a log with records.
type Report struct {
	Events int `json:"events"`
	// From and To are the first and the last time in the log; nil if it is empty.
	From   *metav1.MicroTime `json:"from,omitempty"`
	To     *metav1.MicroTime `json:"to,omitempty"`
	Writes Counts            `json:"writes"`
	// Agreeing is the number of records whose count equals the log's.
	Agreeing int `json:"agreeing"`
	// Missing are records that do not exist or count fewer writes than the log, including unguarded writes. Surplus are records
	// that count more, which is not an error (see docs/decisions/audit-import.md). Both are in order of time.
	Missing []Difference `json:"missing"`
	Surplus []Difference `json:"surplus"`
	Away    []Span       `json:"away"`
}

// Difference is a record whose count differs from the log's.
type Difference struct {
	// Record is the name of the guard's record, or else of the imported record.
	Record    string                `json:"record"`
	Outcome   v1alpha1.Outcome      `json:"outcome"`
	Operation admissionv1.Operation `json:"operation,omitempty"`
	Resource  string                `json:"resource,omitempty"`
	User      string                `json:"user,omitempty"`
	Reason    string                `json:"reason,omitempty"`
	FirstTime metav1.MicroTime      `json:"firstTime"`
	LastTime  metav1.MicroTime      `json:"lastTime"`
	// Logged is the count of the log. Recorded is the sum of the counts of the guard's record and of the imported record.
	Logged   int64 `json:"logged"`
	Recorded int64 `json:"recorded"`

	// toStore is the imported record with the missing writes.
	toStore *v1alpha1.AuditRecord
}

// ToStore returns the imported records with the missing writes. Each is complete, and replaces an existing record of its name.
// After they are stored, a comparison finds no missing records.
func (r *Report) ToStore() []*v1alpha1.AuditRecord {
	records := make([]*v1alpha1.AuditRecord, 0, len(r.Missing))
	for _, difference := range r.Missing {
		records = append(records, difference.toStore)
	}
	return records
}

// Compare compares the log with records. They must include all records of the log's time span, imported records too, and may
// include others.
func (l *Log) Compare(records []v1alpha1.AuditRecord) *Report {
	report := &Report{Events: l.events, Writes: l.counts, Missing: []Difference{}, Surplus: []Difference{}, Away: l.away()}
	if l.events > 0 {
		report.From, report.To = new(metav1.NewMicroTime(l.from)), new(metav1.NewMicroTime(l.to))
	}
	byName := map[string][]*v1alpha1.AuditRecord{}
	for i := range records {
		first := audit.FirstName(records[i].Name)
		byName[first] = append(byName[first], &records[i])
	}
	named := map[string]bool{}
	for _, g := range slices.SortedFunc(maps.Values(l.groups), func(a, b *group) int {
		return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.imported, b.imported))
	}) {
		named[g.record], named[g.imported] = true, true
		l.compare(report, g, byName)
	}
	for i := range records {
		if !named[audit.FirstName(records[i].Name)] && l.covers(&records[i]) {
			report.Surplus = append(report.Surplus, differenceOf(records[i].Name, &records[i].Spec, 0, records[i].Spec.Count))
		}
	}
	return report
}

func (l *Log) compare(report *Report, g *group, byName map[string][]*v1alpha1.AuditRecord) {
	own, imported := byName[g.record], byName[g.imported]
	recorded := g.countOf(own)
	shown := &g.toStore(g.count).Spec // its texts are bounded and printable
	difference := differenceOf(cmp.Or(g.record, g.imported), shown, g.count, recorded+g.countOf(imported))
	switch {
	case difference.Recorded < g.count:
		difference.toStore = g.toStore(g.count - recorded)
		report.Missing = append(report.Missing, difference)
	case difference.Recorded > g.count && !slices.ContainsFunc(own, func(r *v1alpha1.AuditRecord) bool { return !l.covers(r) }):
		report.Surplus = append(report.Surplus, difference)
	default:
		report.Agreeing++
	}
}

// countOf returns the sum of the counts of the records of one name, and of their second records. It ignores a record that names
// another user: another client has created or edited it. The record of a flood names no user.
func (g *group) countOf(records []*v1alpha1.AuditRecord) int64 {
	count, user := int64(0), g.toStore(g.count).Spec.User.Name
	for _, record := range records {
		if named := record.Spec.User.Name; named == user || named == "" || user == "" {
			count += record.Spec.Count
		}
	}
	return count
}

// covers reports whether the log has the whole time span of a record. Otherwise the record may count more than the log.
func (l *Log) covers(record *v1alpha1.AuditRecord) bool {
	return !record.Spec.FirstTime.Time.Before(l.from) && !record.Spec.LastTime.After(l.to)
}

func differenceOf(record string, spec *v1alpha1.AuditRecordSpec, logged, recorded int64) Difference {
	return Difference{
		Record: record, Outcome: spec.Outcome, Operation: spec.Operation, Resource: spec.Resource, User: spec.User.Name,
		Reason: spec.Reason, FirstTime: spec.FirstTime, LastTime: spec.LastTime, Logged: logged, Recorded: recorded,
	}
}

func (g *group) toStore(count int64) *v1alpha1.AuditRecord {
	record := g.event.Record(Replica, count)
	record.Name = g.imported
	record.Spec.Reason = text.Printable(g.event.Reason, maxReason) // the log may contain any text
	record.Spec.FirstTime = metav1.NewMicroTime(g.first.Truncate(time.Microsecond))
	record.Spec.LastTime = metav1.NewMicroTime(g.last.Truncate(time.Microsecond))
	return record
}
