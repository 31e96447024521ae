// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// query is what a view of the records is asked for.
type query struct {
	filter audit.Filter
	// page counts from 1, and size is the number of records of a page.
	page, size int
	// place is where days begin.
	place *time.Location
}

const (
	defaultSize = 50
	maxSize     = 200
)

// readQuery reads the parameters user, resource, operation, outcome, reason, text, since, until (RFC 3339), page, size and
// zone, all of which may be absent.
func readQuery(values url.Values) (query, error) {
	q := query{page: 1, size: defaultSize, place: time.UTC}
	readers := map[string]func(string) error{
		"user":      text(&q.filter.User),
		"resource":  text(&q.filter.Resource),
		"operation": text(&q.filter.Operation),
		"outcome":   text(&q.filter.Outcome),
		"reason":    text(&q.filter.Reason),
		"text":      text(&q.filter.Text),
		"since":     moments(&q.filter.Since),
		"until":     moments(&q.filter.Until),
		"page":      number(&q.page, 1<<30),
		"size":      number(&q.size, maxSize),
		"zone":      zone(&q.place),
	}
	for name, given := range values {
		read, known := readers[name]
		if !known {
			return query{}, fmt.Errorf("there is no parameter %q", name)
		}
		if given[0] == "" {
			continue
		}
		if err := read(given[0]); err != nil {
			return query{}, fmt.Errorf("%s %q: %w", name, given[0], err)
		}
	}
	if !q.filter.Until.IsZero() && !q.filter.Until.After(q.filter.Since) {
		return query{}, fmt.Errorf("the time ends before it begins: give an until that is after since")
	}
	return q, nil
}

func text(to *string) func(string) error {
	return func(given string) error {
		*to = given
		return nil
	}
}

func moments(to *time.Time) func(string) error {
	return func(given string) error {
		at, err := time.Parse(time.RFC3339, given)
		if err != nil {
			return fmt.Errorf("give a time such as 2026-11-26T08:00:00Z")
		}
		*to = at
		return nil
	}
}

func number(to *int, most int) func(string) error {
	return func(given string) error {
		n, err := strconv.Atoi(given)
		if err != nil || n < 1 || n > most {
			return fmt.Errorf("give a number from 1 to %d", most)
		}
		*to = n
		return nil
	}
}

// zone takes a name such as Europe/Berlin. A machine without the time zones' table shows days of UTC: that is no reason to
// show nothing.
func zone(to **time.Location) func(string) error {
	return func(given string) error {
		if place, err := time.LoadLocation(given); err == nil {
			*to = place
		}
		return nil
	}
}
