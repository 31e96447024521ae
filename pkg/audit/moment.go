// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// ErrMoment says that a text names no point in time.
var ErrMoment = errors.New("give how long ago (30m, 24h, 7d, 1d12h) or a time such as 2026-11-25T08:20:00Z")

// ParseMoment reads a point in time as people write it: how long before now ("30m", "24h", "7d", "1d12h"), or a time of RFC 3339.
// The error is ErrMoment.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := parseAgo(text)
	if err != nil {
		return time.Time{}, ErrMoment
	}
	return now.Add(-ago), nil
}

const (
	day = 24 * time.Hour
	// maxAgoDays is a hundred years. Days and what time.ParseDuration takes beside them stay far below what a duration holds.
	maxAgoDays = 36500
)

// parseAgo is time.ParseDuration with days in front, and no sign: what is reviewed has happened.
func parseAgo(text string) (time.Duration, error) {
	days, rest, hasDays := strings.Cut(text, "d")
	if !hasDays {
		days, rest = "0", text
	}
	count, err := strconv.ParseUint(days, 10, 16)
	if err != nil || count > maxAgoDays {
		return 0, ErrMoment
	}
	ago := time.Duration(count) * day
	if rest == "" && hasDays {
		return ago, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(rest, "+-") || more > maxAgoDays*day {
		return 0, ErrMoment
	}
	return ago + more, nil
}
