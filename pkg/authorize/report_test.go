// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package authorize

import (
	"slices"
	"testing"
)

func TestLinesAreInTheOrderOfTheReservations(t *testing.T) {
	t.Parallel()
	var got []string
	o := newOrdered(4, func(line Line) { got = append(got, line.Name) })
	want := func(names ...string) {
		t.Helper()
		if !slices.Equal(got, names) {
			t.Errorf("got %q, want %q", got, names)
		}
	}
	o.add(2, Line{Name: "c1"})
	o.add(1, Line{Name: "b1"})
	o.finish(2)
	want()
	o.add(0, Line{Name: "a1"})
	want("a1")
	o.finish(0)
	want("a1", "b1")
	o.add(1, Line{Name: "b2"})
	want("a1", "b1", "b2")
	o.finish(1)
	want("a1", "b1", "b2", "c1")
	o.add(3, Line{Name: "d1"})
	o.finish(3)
	want("a1", "b1", "b2", "c1", "d1")
}
