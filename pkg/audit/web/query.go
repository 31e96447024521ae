// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// query selects a view of the records.
type query struct {
	filter audit.Filter
	// page counts from 1. size is the number of records per page.
	page, size int
	// place is where days begin.
	place *time.Location
}

const (
	defaultSize = 50
	maxSize     = 200
	maxPage     = 1 << 30
)

// readQuery reads the parameters of a view. All are optional.
func readQuery(values url.Values) (query, error) {
	q := query{page: 1, size: defaultSize, place: time.UTC}
	for name, given := range values {
		if err := q.set(name, given[0]); err != nil {
			return query{}, err
		}
	}
	if !q.filter.Until.IsZero() && !q.filter.Until.After(q.filter.Since) {
		return query{}, errors.New("the time ends before it begins: give an until that is after since")
	}
	return q, nil
}

// set reads one parameter. An empty value leaves the default.
func (q *query) set(name, value string) (err error) {
	f := &q.filter
	texts := map[string]*string{
		"user": &f.User, "resource": &f.Resource, "operation": &f.Operation, "outcome": &f.Outcome, "reason": &f.Reason, "text": &f.Text,
	}
	if text, found := texts[name]; found {
		*text = value
		return nil
	}
	switch name {
	case "since":
		f.Since, err = moment(value)
	case "until":
		f.Until, err = moment(value)
	case "page":
		q.page, err = number(value, q.page, maxPage)
	case "size":
		q.size, err = number(value, q.size, maxSize)
	case "zone": // without the table of time zones, days are UTC days
		if place, err := time.LoadLocation(value); err == nil {
			q.place = place
		}
	default:
		return fmt.Errorf("there is no parameter %q", name)
	}
	if err != nil {
		return fmt.Errorf("%s %q: %w", name, value, err)
	}
	return nil
}

func moment(value string) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return at, errors.New("give a time such as 2026-11-26T08:00:00Z")
	}
	return at, nil
}

func number(value string, preset, limit int) (int, error) {
	if value == "" {
		return preset, nil
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("give a number from 1 to %d", limit)
	}
	return n, nil
}
