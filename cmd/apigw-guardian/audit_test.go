// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"30m":                       now.Add(-30 * time.Minute),
		"24h":                       now.Add(-24 * time.Hour),
		"7d":                        now.Add(-7 * 24 * time.Hour),
		"1d12h30m":                  now.Add(-36*time.Hour - 30*time.Minute),
		"0s":                        now,
		"1w":                        now.Add(-7 * 24 * time.Hour),
		"2026-11-24":                time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC),
		"2026-11-24 08:20":          time.Date(2026, 11, 24, 8, 20, 0, 0, time.UTC),
		"2026-11-24T08:20:01":       time.Date(2026, 11, 24, 8, 20, 1, 0, time.UTC),
		"36500d":                    now.Add(-36500 * 24 * time.Hour),
		"2026-11-24T08:20:00Z":      time.Date(2026, 11, 24, 8, 20, 0, 0, time.UTC),
		"2026-11-24T09:20:00+01:00": time.Date(2026, 11, 24, 8, 20, 0, 0, time.UTC),
	} {
		got, err := moment("--since", text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"d", "-5m", "1d-5m", "7", "yesterday", "2026-13-24", "2026-11", "1h1d", "d7", "99999999999d", "2562048h", "+5m", "1d+5m", "-1d", "NaN",
	} {
		if at, err := moment("--since", text, now); !errors.Is(err, errUsage) {
			t.Errorf("%q is %v, %v", text, at, err)
		}
	}
}

func TestFilterFlagsThatSelectNothingAreWrong(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		set   func(*filterFlags)
		wrong bool
	}{
		"no flag":                   {func(*filterFlags) {}, false},
		"words in lower case":       {func(f *filterFlags) { f.Operation, f.Outcome, f.Reason = "delete", "denied", "tokenmint" }, false},
		"since before until":        {func(f *filterFlags) { f.since, f.until = "2h", "1h" }, false},
		"since after until":         {func(f *filterFlags) { f.since, f.until = "1h", "2h" }, true},
		"one day alone":             {func(f *filterFlags) { f.since, f.until = "2026-11-24", "2026-11-24" }, true},
		"an until that is no time":  {func(f *filterFlags) { f.until = "x" }, true},
		"a since in a future clock": {func(f *filterFlags) { f.since = "2027-01-01T00:00:00Z" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := &filterFlags{}
			test.set(flags)
			if err := flags.check(now); errors.Is(err, errUsage) != test.wrong {
				t.Errorf("got %v", err)
			}
		})
	}
}
