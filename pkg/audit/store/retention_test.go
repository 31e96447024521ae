// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// some returns records of a user, one each step.
func some(user, reason string, count int, from time.Time, step time.Duration) []kept {
	records := make([]kept, count)
	for i := range records {
		at := from.Add(time.Duration(i) * step)
		records[i] = kept{
			name: fmt.Sprintf("%s-%s-%05d-%d", user, reason, i, from.Unix()), user: user, reason: reason, count: 1,
			at: at.Truncate(10 * time.Minute), created: at,
		}
	}
	return records
}

// flood returns records of as many made-up users.
func flood(count int, from time.Time, step time.Duration) []kept {
	records := some("made-up", "ReservedUpdate", count, from, step)
	for i := range records {
		records[i].user = fmt.Sprintf("made-up-%d", i)
	}
	return records
}

func left(all []kept, limit int64, fits func(kept) bool) (total, fitting int) {
	gone := map[string]bool{}
	for _, record := range outdated(slices.Clone(all), Retention{Age: 90 * 24 * time.Hour, Max: limit}, noon) {
		gone[record.name] = true
	}
	for _, record := range all {
		if !gone[record.name] {
			total++
			if fits(record) {
				fitting++
			}
		}
	}
	return total, fitting
}

func TestRetentionKeepsQuietUsers(t *testing.T) {
	const limit = 1000
	mallory := some("mallory", "TokenMint", 3, noon.Add(-30*time.Hour), time.Hour)
	isMallorys := func(r kept) bool { return r.user == "mallory" && r.reason == "TokenMint" }
	unverified := flood(20_000, noon.Add(-time.Hour), 100*time.Millisecond)
	for i := range unverified {
		unverified[i].unverified = true
	}
	for name, others := range map[string][]kept{
		"and one noisy user":               some("noisy", "ReservedUpdate", 10_000, noon.Add(-20*time.Hour), time.Second),
		"and an earlier noisy user":        some("noisy", "ReservedUpdate", 10_000, noon.Add(-60*time.Hour), time.Second),
		"and users with one record each":   flood(20_000, noon.Add(-20*time.Hour), time.Second),
		"in a flood of users of many days": flood(20_000, noon.Add(-80*24*time.Hour), 5*time.Minute)[:14_000],
		"and noise of the same user":       some("mallory", "ReservedUpdate", 10_000, noon.Add(-20*time.Hour), time.Second),
		"and unverified callers":           unverified,
		"and both": slices.Concat(some("noisy", "ReservedUpdate", 10_000, noon.Add(-20*time.Hour), time.Second),
			flood(20_000, noon.Add(-20*time.Hour), time.Second)),
	} {
		t.Run(name, func(t *testing.T) {
			total, kept := left(slices.Concat(mallory, others), limit, isMallorys)
			if want := 3; total != limit || kept < want {
				t.Errorf("%d records left, %d of mallory: want %d and %d", total, kept, limit, want)
			}
		})
	}
}

// Reviews of unverified callers cost the others no record.
func TestRetentionDeletesRecordsOfUnverifiedCallersFirst(t *testing.T) {
	unverified := flood(500, noon.Add(-time.Hour), time.Second)
	for i := range unverified {
		unverified[i].unverified = true
	}
	honest := some("jane", "ReservedUpdate", 900, noon.Add(-40*time.Hour), time.Minute)
	total, kept := left(slices.Concat(unverified, honest), 1000, func(r kept) bool { return !r.unverified })
	if total != 1000 || kept != 900 {
		t.Errorf("%d left, %d of them verified: want 1000 and 900", total, kept)
	}
}

func TestRetentionDeletesAUsersOldestOfTheNoisiestReason(t *testing.T) {
	all := slices.Concat(
		some("jane", "ReservedUpdate", 50, noon.Add(-10*time.Hour), time.Minute),
		some("jane", "TokenMint", 5, noon.Add(-20*time.Hour), time.Minute),
	)
	gone := outdated(slices.Clone(all), Retention{Age: 90 * 24 * time.Hour, Max: 35}, noon)
	for _, record := range gone {
		if record.reason != "ReservedUpdate" || record.created.After(noon.Add(-10*time.Hour+20*time.Minute)) {
			t.Errorf("gone: %s", record.name)
		}
	}
	if len(gone) != 20 {
		t.Errorf("%d are gone, want 20", len(gone))
	}
}

func TestRetentionIgnoresTimesThatAnotherClientCanChange(t *testing.T) {
	old := some("jane", "x", 1, noon.Add(-91*24*time.Hour), 0)
	if _, kept := left(old, 10, func(kept) bool { return true }); kept != 0 {
		t.Error("a record that is too old is kept")
	}
	record := denied("jane", 1)
	record.CreationTimestamp.Time = noon.Add(-91 * 24 * time.Hour)
	for _, name := range []string{"20990101t0000-delete-0123456789abcdef0123", "zzz"} {
		record.Name = name
		if !isOld(keptOf(record), Retention{Age: 90 * 24 * time.Hour}, noon) {
			t.Errorf("a record of that age, but named %s, is kept", name)
		}
	}
	record.CreationTimestamp.Time = noon
	record.Spec.LastTime.Time = time.Unix(0, 0)
	if isOld(keptOf(record), Retention{Age: 90 * 24 * time.Hour}, noon) {
		t.Error("a record of today goes, as its time was edited")
	}
}

func TestAFinalizerDoesNotKeepARecord(t *testing.T) {
	record := denied("jane", 1)
	record.Finalizers = []string{"x/y"}
	s := newStore(t, interceptor.Funcs{}, record)
	deleted, err := s.deleteAll(t.Context(), []kept{keptOf(stored(t, s, record.Name))})
	if err != nil || len(deleted) != 1 {
		t.Errorf("%d deleted, %v", len(deleted), err)
	}
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(record), record); !apierrors.IsNotFound(err) {
		t.Errorf("it is still there: %v", err)
	}
}

// A replica takes the loss of an open record for tampering.
func TestRetentionKeepsOpenRecords(t *testing.T) {
	t.Parallel()
	var records []kept
	for i := range 20 {
		records = append(records, kept{name: fmt.Sprint(i), user: "eve", at: noon.Add(-time.Duration(i) * time.Minute)})
	}
	for _, gone := range outdated(records, Retention{Age: 24 * time.Hour, Max: 4}, noon) {
		if noon.Sub(gone.at) < openFor {
			t.Errorf("the record of %s is taken", gone.at)
		}
	}
}

// One program that retries for ever costs a rare write of the same user and reason nothing.
func TestRetentionDeletesTheRepeatedWriteFirst(t *testing.T) {
	retried := some("shared", "ReservedUpdate", 9_990, noon.Add(-69*24*time.Hour), 10*time.Minute)
	for i := range retried {
		retried[i].write = "retried"
	}
	rare := some("shared", "ReservedUpdate", 5, noon.Add(-70*24*time.Hour), time.Hour)
	for i := range rare {
		rare[i].name, rare[i].write = fmt.Sprintf("rare-%d", i), fmt.Sprintf("rare-%d", i)
	}
	total, kept := left(slices.Concat(rare, retried), 1000, func(r kept) bool { return r.write != "retried" })
	if total != 1000 || kept != 5 {
		t.Errorf("%d left, %d of them rare: want 1000 and 5", total, kept)
	}
}

func TestRetentionSaysWhatItDropped(t *testing.T) {
	old := some("jane", "TokenMint", 1, noon.Add(-200*24*time.Hour), time.Minute)
	noisy := some("noisy", "ReservedUpdate", 6, noon.Add(-10*time.Hour), 10*time.Minute)
	noisy[0].count = 5
	got := droppedOf(slices.Concat(old, noisy), Retention{Age: 90 * 24 * time.Hour, Max: 4}, noon)
	want := []Dropped{
		{User: "noisy", Reason: "ReservedUpdate", Records: 6, Writes: 10, From: noon.Add(-10 * time.Hour), To: noon.Add(-10*time.Hour + 50*time.Minute)},
		{User: "jane", Reason: "TokenMint", TooOld: true, Records: 1, Writes: 1, From: old[0].at, To: old[0].at},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
