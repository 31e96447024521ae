// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/apis/guardian/v1alpha1"
)

// Tally is a count of writes under a name.
type Tally struct {
	Name  string `json:"name"`
	Count int64  `json:"count"`
	// Object is what Name names, in Summary.ByResource only.
	Object *v1alpha1.ObjectReference `json:"object,omitempty"`
}

// Summary counts writes, not records.
type Summary struct {
	Records int   `json:"records"`
	Writes  int64 `json:"writes"`
	// ByUser, ByResource, ByReason and ByOutcome have the largest count first.
	ByUser     []Tally `json:"byUser"`
	ByResource []Tally `json:"byResource"`
	ByReason   []Tally `json:"byReason"`
	ByOutcome  []Tally `json:"byOutcome"`
	// ByDay has a tally for every day ("2006-01-02") from the first to the last, also for days without a write.
	ByDay []Tally `json:"byDay"`
}

// Summarize counts the writes of the records. All writes of a record count on the day of the last one, in the time zone.
func Summarize(records []v1alpha1.AuditRecord, place *time.Location) Summary {
	users, resources := map[string]int64{}, map[string]int64{}
	objects := map[string]*v1alpha1.ObjectReference{}
	reasons, outcomes, days := map[string]int64{}, map[string]int64{}, map[string]int64{}
	summary := Summary{Records: len(records)}
	for i := range records {
		spec := &records[i].Spec
		summary.Writes += spec.Count
		users[spec.User.Name] += spec.Count
		resources[spec.Resource] += spec.Count
		objects[spec.Resource] = &spec.Object
		reasons[spec.Reason] += spec.Count
		outcomes[string(spec.Outcome)] += spec.Count
		days[spec.LastTime.In(place).Format(time.DateOnly)] += spec.Count
	}
	summary.ByUser, summary.ByResource = tallies(users), tallies(resources)
	for i := range summary.ByResource {
		summary.ByResource[i].Object = objects[summary.ByResource[i].Name]
	}
	summary.ByReason, summary.ByOutcome = tallies(reasons), tallies(outcomes)
	summary.ByDay = everyDay(days)
	return summary
}

func tallies(counts map[string]int64) []Tally {
	result := make([]Tally, 0, len(counts))
	for name, count := range counts {
		result = append(result, Tally{Name: name, Count: count})
	}
	slices.SortFunc(result, func(a, b Tally) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return result
}

// maxDays bounds the days without a write between two others, against a record with a wrong time.
const maxDays = 3660

func everyDay(counts map[string]int64) []Tally {
	result := make([]Tally, 0, len(counts))
	var next time.Time
	for i, name := range slices.Sorted(maps.Keys(counts)) {
		day, _ := time.Parse(time.DateOnly, name) // Summarize has formatted it
		for ; i > 0 && next.Before(day) && day.Sub(next) < maxDays*24*time.Hour; next = next.AddDate(0, 0, 1) {
			result = append(result, Tally{Name: next.Format(time.DateOnly)})
		}
		result, next = append(result, Tally{Name: name, Count: counts[name]}), day.AddDate(0, 0, 1)
	}
	return result
}
