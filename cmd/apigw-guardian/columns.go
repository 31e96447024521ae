// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strings"
	"text/tabwriter"

	"k8s.io/client-go/util/jsonpath"
)

const columnsPrefix = "custom-columns="

// columns prints a row for each item of a list, or one for a single object, as kubectl does.
type columns struct {
	// headers are nil if they are not printed.
	headers []string
	paths   []*jsonpath.JSONPath
}

// columnPath is what kubectl accepts as the path of a column: x.y, .x.y, {x.y} and {.x.y}.
var columnPath = regexp.MustCompile(`^(?:\{\.?([^{}]+)\}|\.?([^{}]+))$`)

func newColumns(spec string) (*columns, error) {
	c := &columns{}
	for _, column := range strings.Split(spec, ",") {
		header, expression, found := strings.Cut(column, ":")
		parts := columnPath.FindStringSubmatch(expression)
		if !found || parts == nil {
			return nil, fmt.Errorf("column %q: must be HEADER:PATH, such as USER:.spec.user.name", column)
		}
		parsed := jsonpath.New(header).AllowMissingKeys(true)
		if err := parsed.Parse("{." + parts[1] + parts[2] + "}"); err != nil {
			return nil, fmt.Errorf("column %q: %w", column, err)
		}
		c.headers, c.paths = append(c.headers, header), append(c.paths, parsed)
	}
	return c, nil
}

// print writes the fields of a result, as they are in JSON.
func (c *columns) print(w io.Writer, fields any) error {
	items := []any{fields}
	if object, isObject := fields.(map[string]any); isObject {
		if list, isList := object["items"].([]any); isList {
			items = list
		}
	}
	var lines strings.Builder
	if c.headers != nil {
		lines.WriteString(strings.Join(c.headers, "\t") + "\n")
	}
	for _, item := range items {
		cells := make([]string, len(c.paths))
		for i, path := range c.paths {
			var err error
			if cells[i], err = cellOf(path, item); err != nil {
				return err
			}
		}
		lines.WriteString(strings.Join(cells, "\t") + "\n")
	}
	tabs := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	_, err := io.WriteString(tabs, lines.String())
	return cmp.Or(err, tabs.Flush())
}

func cellOf(path *jsonpath.JSONPath, item any) (string, error) {
	found, err := path.FindResults(item)
	if err != nil {
		return "", err
	}
	var values []string
	for _, results := range found {
		for _, value := range results {
			values = append(values, fmt.Sprint(value.Interface()))
		}
	}
	if len(values) == 0 {
		return "<none>", nil
	}
	return strings.Join(values, ","), nil
}
