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

// Bounds of a chart: how many bars it has, how long one is, and how much of its name is shown.
const (
	maxBars  = 10
	maxDays  = 14
	maxBar   = 40
	minBar   = 8
	maxLabel = 48
)

// Summary writes a bar chart for each way to count writes.
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

// part is the tallies that are charted, and a word on the others; "" for none.
type part struct {
	tallies []audit.Tally
	others  string
}

func first(tallies []audit.Tally) part {
	if len(tallies) <= maxBars {
		return part{tallies: tallies}
	}
	return part{tallies[:maxBars], others(tallies[maxBars:], "others")}
}

func last(tallies []audit.Tally) part {
	from := max(len(tallies)-maxDays, 0)
	if from == 0 {
		return part{tallies: tallies}
	}
	return part{tallies[from:], others(tallies[:from], "earlier days")}
}

func others(tallies []audit.Tally, word string) string {
	var sum int64
	for _, tally := range tallies {
		sum += tally.Count
	}
	return fmt.Sprintf("and %d %s with %s; -o json has them all", len(tallies), word, plural(sum, "write"))
}

// chart writes a heading and a bar for each tally, such as
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

// label is the name of a bar. It leaves room for a count of ten digits and a bar.
func (s Screen) label(tally audit.Tally) string {
	return s.shortened(cmp.Or(tally.Name, "(not known)"), max(min(maxLabel, s.Width-3*gap-10-minBar), minBar))
}

// shortened is shorten on a terminal, and the text itself elsewhere.
func (s Screen) shortened(text string, most int) string {
	if s.Width == 0 {
		return text
	}
	return shorten(text, most)
}

// bar draws count in proportion to largest, which fills the room. What counts at all can be seen.
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
