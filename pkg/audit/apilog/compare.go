// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package apilog

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
	"github.com/apigw-guardian/apigw-guardian/pkg/reserved"
	"github.com/apigw-guardian/apigw-guardian/pkg/text"
)

// Replica is the name under which an imported record counts.
const Replica = "import"

// importSuffix ends the name of the record that holds what the guard's own record of that name lacks, so that the two stand
// together and the same log leads to the same name again.
const importSuffix = "-" + Replica

// maxReason is the bound of AuditRecordSpec.Reason.
const maxReason = 64

// Log is what a whole audit log tells: the sum of the judgments of its events, which may come in any order, from several
// API servers, and more than once. Make one by NewLog. It keeps some bytes for each event that concerns a reserved resource,
// and nothing of any other.
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
	// Denied and LetThrough are what records must count.
	Denied     int `json:"denied"`
	LetThrough int `json:"letThrough"`
	// Passed changed nothing, or were the control plane's own.
	Passed int `json:"passed"`
	// Unguarded were made without the guard, and Failed refused for want of it.
	Unguarded int `json:"unguarded"`
	Failed    int `json:"failed"`
	DryRuns   int `json:"dryRuns"`
	// Unclear may have concerned a reserved resource; the log does not tell.
	Unclear int `json:"unclear"`
	// Duplicates are events that stand in the log more than once; the other counts have them once.
	Duplicates int `json:"duplicates"`
}

// group is the writes that one record counts, or should.
type group struct {
	// record is the name of the guard's record; empty where the guard made none. imported is that of the imported one.
	record, imported string
	event            audit.Event
	first, last      time.Time
	count            int64
}

// NewLog returns an empty log, which is judged against the set.
func NewLog(set *reserved.Set) *Log {
	return &Log{set: set, seen: map[[sha256.Size]byte]struct{}{}, groups: map[string]*group{}}
}

// Add judges one event and adds what it tells.
func (l *Log) Add(event *Event) {
	l.events++
	if l.from.IsZero() || event.Received.Before(l.from) {
		l.from = event.Received
	}
	if event.Time.After(l.to) {
		l.to = event.Time
	}
	findings := Judge(l.set, event)
	if len(findings) == 0 {
		return
	}
	key := event.key()
	if _, again := l.seen[key]; again {
		l.counts.Duplicates++
		return
	}
	l.seen[key] = struct{}{}
	if len(event.Decisions) > 0 {
		l.marks = append(l.marks, mark{at: event.Time})
	}
	for _, finding := range findings {
		l.add(finding)
	}
}

// key tells events apart. The id alone does not: whoever asks may choose it, and could hide one request behind another. Nor
// do the bytes of the line: what ships logs may write them anew.
func (e *Event) key() [sha256.Size]byte {
	sum := sha256.New()
	for _, text := range []string{
		e.ID, e.Stage, e.Verb, e.URI, e.User.Name, e.Received.UTC().Format(time.RFC3339Nano), e.Time.UTC().Format(time.RFC3339Nano),
	} {
		sum.Write([]byte(text))
		sum.Write([]byte{0})
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

func (l *Log) add(finding Finding) {
	switch finding.Kind {
	case Owed:
		if finding.Event.Outcome == v1alpha1.Denied {
			l.counts.Denied++
		} else {
			l.counts.LetThrough++
		}
		l.count(finding)
	case Passed:
		l.counts.Passed++
	case Unguarded:
		l.counts.Unguarded++
		l.marks = append(l.marks, mark{at: finding.Event.Time, away: Unguarded})
		l.count(finding)
	case Failed:
		l.counts.Failed++
		l.marks = append(l.marks, mark{at: finding.Event.Time, away: Failed})
	case DryRun:
		l.counts.DryRuns++
	case Unclear:
		l.counts.Unclear++
	}
}

// count adds the write to those of its record: the one that the guard named, or one that only the log knows.
func (l *Log) count(finding Finding) {
	record, imported := finding.Record, finding.Record+importSuffix
	if len(validation.IsDNS1123Subdomain(imported)) > 0 {
		record, imported = "", finding.Event.Name()
	}
	at := finding.Event.Time
	g := l.groups[imported]
	if g == nil {
		l.groups[imported] = &group{record: record, imported: imported, event: finding.Event, first: at, last: at, count: 1}
		return
	}
	g.count++
	g.keepCommon(finding.Event)
	if at.Before(g.first) {
		g.first = at
	}
	if !at.Before(g.last) {
		g.last, g.event.Message = at, finding.Event.Message
	}
}

// keepCommon drops from the event what is not the same for all its writes: one record may count many users' in a flood.
func (g *group) keepCommon(other audit.Event) {
	if g.event.User.Name != other.User.Name {
		g.event.User = v1alpha1.User{}
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

// mark is a time at which the guard was there, or was away: Failed or Unguarded.
type mark struct {
	at   time.Time
	away Kind
}

// Span is a time in which nothing shows that the guard was there: from the first write that it was not asked about to the
// last, by the clocks of the API servers. It was away for at least as long.
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

// Report is how a log and the records agree.
type Report struct {
	Events int `json:"events"`
	// From and To are the first and the last time in the log; absent of an empty one.
	From   *metav1.MicroTime `json:"from,omitempty"`
	To     *metav1.MicroTime `json:"to,omitempty"`
	Writes Counts            `json:"writes"`
	// Agreeing is the number of records whose count is the log's.
	Agreeing int `json:"agreeing"`
	// Missing are records that are not there or count less than the log has, unguarded writes included. Surplus are records
	// that count more; this is no fault (see docs/decisions/audit-import.md). Both are in order of time.
	Missing []Difference `json:"missing"`
	Surplus []Difference `json:"surplus"`
	Away    []Span       `json:"away"`
}

// Difference is a record whose count is not the log's.
type Difference struct {
	// Record is the name of the guard's record, or that of the imported record where the guard made none.
	Record    string                `json:"record"`
	Outcome   v1alpha1.Outcome      `json:"outcome"`
	Operation admissionv1.Operation `json:"operation,omitempty"`
	Resource  string                `json:"resource,omitempty"`
	User      string                `json:"user,omitempty"`
	Reason    string                `json:"reason,omitempty"`
	FirstTime metav1.MicroTime      `json:"firstTime"`
	LastTime  metav1.MicroTime      `json:"lastTime"`
	// Logged is what the log has, and Recorded what the guard's record and the imported one count together.
	Logged   int64 `json:"logged"`
	Recorded int64 `json:"recorded"`

	// toStore is the imported record that would make up for what is missing.
	toStore *v1alpha1.AuditRecord
}

// ToStore are the records that make up for what is missing: each is the whole record as it should be, whether it is new or
// counts more than the one that is there. Storing them and comparing again finds nothing missing.
func (r *Report) ToStore() []*v1alpha1.AuditRecord {
	records := make([]*v1alpha1.AuditRecord, 0, len(r.Missing))
	for _, difference := range r.Missing {
		records = append(records, difference.toStore)
	}
	return records
}

// Compare holds the log against the records, which are all those of its span of time, imported ones included. Records
// outside of the span do no harm.
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
	for _, g := range slices.SortedFunc(maps.Values(l.groups), byTime) {
		named[g.record], named[g.imported] = true, true
		l.compare(report, g, byName)
	}
	for i := range records {
		if !named[audit.FirstName(records[i].Name)] && l.covers(&records[i]) {
			report.Surplus = append(report.Surplus, unlogged(&records[i]))
		}
	}
	return report
}

func byTime(a, b *group) int {
	return cmp.Or(a.first.Compare(b.first), cmp.Compare(a.imported, b.imported))
}

func (l *Log) compare(report *Report, g *group, byName map[string][]*v1alpha1.AuditRecord) {
	own, imported := byName[g.record], byName[g.imported]
	recorded := g.countOf(own)
	difference := g.difference(recorded + g.countOf(imported))
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

// countOf adds up records of one name, second ones included. One that names another user counts nothing: another client made
// or edited it. A record of a flood names none.
func (g *group) countOf(records []*v1alpha1.AuditRecord) int64 {
	count, user := int64(0), g.toStore(g.count).Spec.User.Name
	for _, record := range records {
		if named := record.Spec.User.Name; named == user || named == "" || user == "" {
			count += record.Spec.Count
		}
	}
	return count
}

// covers reports whether the log has the whole time of a record. Where it does not, a record may well count more.
func (l *Log) covers(record *v1alpha1.AuditRecord) bool {
	return !record.Spec.FirstTime.Time.Before(l.from) && !record.Spec.LastTime.After(l.to)
}

func (g *group) difference(recorded int64) Difference {
	shown := g.toStore(g.count).Spec // the same bounds hold for a terminal
	return Difference{
		Record: cmp.Or(g.record, g.imported), Outcome: shown.Outcome, Operation: shown.Operation, Resource: shown.Resource,
		User: shown.User.Name, Reason: shown.Reason, FirstTime: shown.FirstTime, LastTime: shown.LastTime,
		Logged: g.count, Recorded: recorded,
	}
}

func (g *group) toStore(count int64) *v1alpha1.AuditRecord {
	record := g.event.Record(Replica, count)
	record.Name = g.imported
	record.Spec.Reason = text.Printable(record.Spec.Reason, maxReason) // a log may hold what no guard has written
	record.Spec.FirstTime = metav1.NewMicroTime(g.first.Truncate(time.Microsecond))
	record.Spec.LastTime = metav1.NewMicroTime(g.last.Truncate(time.Microsecond))
	return record
}

func unlogged(record *v1alpha1.AuditRecord) Difference {
	spec := &record.Spec
	return Difference{
		Record: record.Name, Outcome: spec.Outcome, Operation: spec.Operation, Resource: spec.Resource, User: spec.User.Name,
		Reason: spec.Reason, FirstTime: spec.FirstTime, LastTime: spec.LastTime, Recorded: spec.Count,
	}
}
