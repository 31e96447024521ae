// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"30m":                       now.Add(-30 * time.Minute),
		"24h":                       now.Add(-24 * time.Hour),
		"7d":                        now.Add(-7 * 24 * time.Hour),
		"1d12h30m":                  now.Add(-36*time.Hour - 30*time.Minute),
		"0s":                        now,
		"36500d":                    now.Add(-36500 * 24 * time.Hour),
		"2026-11-24T08:20:00Z":      time.Date(2026, 11, 24, 8, 20, 0, 0, time.UTC),
		"2026-11-24T09:20:00+01:00": time.Date(2026, 11, 24, 8, 20, 0, 0, time.UTC),
	} {
		got, err := ParseMoment(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseMomentRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "d", "-5m", "1d-5m", "7", "yesterday", "2026-11-24", "1h1d", "d7", "36501d", "99999999999d", "2562047h", "+5m", "1d+5m", "-1d", "NaN",
	} {
		if at, err := ParseMoment(text, time.Now()); !errors.Is(err, ErrMoment) {
			t.Errorf("%q is %v, %v", text, at, err)
		}
	}
}
