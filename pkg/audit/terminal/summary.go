// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package terminal

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/apigw-guardian/apigw-guardian/pkg/audit"
)

// Bounds of a chart: the number of bars, their length, and the length of their labels.
const (
	maxBars  = 10
	maxDays  = 14
	maxBar   = 40
	minBar   = 8
	maxLabel = 48
)

// Summary prints a bar chart for each way to count writes.
func (s Screen) Summary(w io.Writer, summary *audit.Summary) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s in %s\n", plural(summary.Writes, "write"), plural(int64(summary.Records), "record"))
	s.chart(&text, "outcome", first(summary.ByOutcome))
	s.chart(&text, "reason", first(summary.ByReason))
	s.chart(&text, "user", first(summary.ByUser))
	s.chart(&text, "resource", first(summary.ByResource))
	s.chart(&text, "day", last(summary.ByDay))
	_, err := io.WriteString(w, text.String())
	return err
}

// part is the tallies of a chart, and a line about the others, or "".
type part struct {
	tallies []audit.Tally
	others  string
}

func first(tallies []audit.Tally) part {
	n := min(len(tallies), maxBars)
	return part{tallies[:n], others(tallies[n:], "others")}
}

func last(tallies []audit.Tally) part {
	n := max(len(tallies)-maxDays, 0)
	return part{tallies[n:], others(tallies[:n], "earlier days")}
}

func others(tallies []audit.Tally, word string) string {
	if len(tallies) == 0 {
		return ""
	}
	var sum int64
	for _, tally := range tallies {
		sum += tally.Count
	}
	return fmt.Sprintf("and %d %s with %s; -o json has them all", len(tallies), word, plural(sum, "write"))
}

// chart writes a heading and a bar for each tally:
//
//	By user
//	  alice              1200  ████████████████████████████████████████
//	  system:admin         30  █
func (s Screen) chart(text *strings.Builder, by string, shown part) {
	if len(shown.tallies) == 0 {
		return
	}
	var label, number int
	var largest int64
	for _, tally := range shown.tallies {
		label = max(label, cells(s.label(tally)))
		number = max(number, len(strconv.FormatInt(tally.Count, 10)))
		largest = max(largest, tally.Count)
	}
	room := maxBar
	if s.Width > 0 {
		room = min(maxBar, max(s.Width-label-number-3*gap, 1))
	}
	text.WriteString("\n" + s.bold("By "+by) + "\n")
	for _, tally := range shown.tallies {
		line := fmt.Sprintf("  %s  %*d  %s", pad(s.label(tally), label), number, tally.Count, s.bar(tally.Count, largest, room))
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if shown.others != "" {
		text.WriteString("  " + s.shortened(shown.others, s.Width-gap) + "\n")
	}
}

// label leaves room for a count of ten digits and a bar.
func (s Screen) label(tally audit.Tally) string {
	return s.shortened(cmp.Or(tally.Name, "(not known)"), max(min(maxLabel, s.Width-3*gap-10-minBar), minBar))
}

// shortened shortens a text on a terminal only.
func (s Screen) shortened(text string, columns int) string {
	if s.Width == 0 {
		return text
	}
	return shorten(text, columns)
}

// bar draws count in proportion to largest, which fills the room. A count above zero is visible.
func (s Screen) bar(count, largest int64, room int) string {
	if count <= 0 || largest <= 0 {
		return ""
	}
	share := float64(count) / float64(largest) * float64(room)
	if s.Width == 0 {
		return strings.Repeat("#", max(int(share+0.5), 1))
	}
	eighths := max(int(share*8+0.5), 1)
	bar := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		bar += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return bar
}

func plural(count int64, word string) string {
	if count == 1 {
		return "1 " + word
	}
	return strconv.FormatInt(count, 10) + " " + word + "s"
}
