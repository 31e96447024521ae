// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
)

// Format is a format of the document.
type Format string

const (
	// HTML is one page that loads nothing, and forbids that by a content security policy.
	HTML Format = "html"
	// Markdown is that of GitHub, with tables.
	Markdown Format = "md"
	// JSON is the Report.
	JSON Format = "json"
)

// Formats returns all formats, in the order for help texts.
func Formats() []Format { return []Format{HTML, Markdown, JSON} }

// Write writes the report.
func (r *Report) Write(w io.Writer, format Format) error {
	var text string
	switch format {
	case HTML:
		text = r.page()
	case Markdown:
		text = r.markdown()
	case JSON:
		data, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return fmt.Errorf("write the report as JSON: %w", err)
		}
		text = string(data) + "\n"
	default:
		return fmt.Errorf("unknown format %q", format)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

//go:embed style.css
var style string

// page writes HTML by hand: html/template would make the linker keep every method of the program. All that is not a constant of this
// file passes through html.EscapeString.
func (r *Report) page() string {
	var b strings.Builder
	hash := sha256.Sum256([]byte(style))
	policy := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; base-uri 'none'; form-action 'none'"
	b.WriteString("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")
	element(&b, "meta", "", "http-equiv", "Content-Security-Policy", "content", policy)
	element(&b, "meta", "", "name", "viewport", "content", "width=device-width, initial-scale=1")
	element(&b, "meta", "", "name", "color-scheme", "content", "light dark")
	element(&b, "title", strings.TrimSuffix(title+", "+r.Cluster, ", "))
	b.WriteString("<style>" + style + "</style>\n</head>\n<body>\n<main>\n")
	element(&b, "h1", title)
	for _, s := range r.sections() {
		b.WriteString("<section>\n")
		element(&b, "h2", s.title)
		for _, text := range s.texts {
			element(&b, "p", text)
		}
		if len(s.table.rows) > 0 {
			s.table.page(&b)
		}
		b.WriteString("</section>\n")
	}
	b.WriteString("</main>\n</body>\n</html>\n")
	return b.String()
}

// element writes an element with a text, and attributes as names and values. A meta element has no text.
func element(b *strings.Builder, tag, text string, attributes ...string) {
	b.WriteString("<" + tag)
	for pair := range slices.Chunk(attributes, 2) {
		b.WriteString(" " + pair[0] + "=\"" + html.EscapeString(pair[1]) + "\"")
	}
	b.WriteString(">")
	if tag != "meta" {
		b.WriteString(html.EscapeString(text) + "</" + tag + ">")
	}
	b.WriteString("\n")
}

func (t *table) page(b *strings.Builder) {
	kind := ""
	if t.bars != nil {
		kind = " class=\"tally\""
	}
	b.WriteString("<table" + kind + ">\n<thead><tr>\n")
	for i, head := range t.head {
		element(b, "th", head, append(t.class(i), "scope", "col")...)
	}
	if t.bars != nil {
		element(b, "th", "", "class", "bar", "aria-hidden", "true")
	}
	b.WriteString("</tr></thead>\n<tbody>\n")
	for i, row := range t.rows {
		b.WriteString("<tr>\n")
		for j, cell := range row {
			element(b, "td", cell, append(t.classOf(j, cell), "data-head", t.head[j])...)
		}
		if t.bars != nil { // an attribute of SVG, because the policy forbids attributes with styles
			fmt.Fprintf(b, "<td class=\"bar\" aria-hidden=\"true\"><svg viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\">"+
				"<rect width=\"%d\" height=\"8\"/></svg></td>\n", t.bars[i])
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</tbody>\n</table>\n")
}

// maxWord is how many bytes of a cell stay on one line.
const maxWord = 12

func (t *table) classOf(column int, cell string) []string {
	switch class := t.class(column); {
	case class != nil:
		return class
	case slices.Contains([]string{"From", "To", "At", "First", "Last"}, t.head[column]):
		return []string{"class", "time"}
	case t.head[column] == "Record":
		return []string{"class", "record"}
	case len(cell) <= maxWord:
		return []string{"class", "word"}
	}
	return nil
}

func (t *table) class(column int) []string {
	if column < len(t.head)-t.numbers {
		return nil
	}
	return []string{"class", "number"}
}

func (r *Report) markdown() string {
	var b strings.Builder
	b.WriteString("# " + escape(title) + "\n")
	for _, s := range r.sections() {
		b.WriteString("\n## " + escape(s.title) + "\n")
		for _, text := range s.texts {
			b.WriteString("\n" + escape(text) + "\n")
		}
		if len(s.table.rows) > 0 {
			s.table.markdown(&b)
		}
	}
	return b.String()
}

func (t *table) markdown(b *strings.Builder) {
	marks := make([]string, len(t.head))
	for i := range marks {
		marks[i] = "---"
		if i >= len(t.head)-t.numbers {
			marks[i] = "--:"
		}
	}
	b.WriteString("\n")
	for _, row := range slices.Concat([][]string{t.head}, t.rows) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = escape(cell)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
		if marks != nil {
			b.WriteString("| " + strings.Join(marks, " | ") + " |\n")
			marks = nil
		}
	}
}

// escape keeps a text from being markup, a link or a mention, in the Markdown of GitHub.
func escape(text string) string {
	return strings.NewReplacer(
		`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "#", `\#`, "|", `\|`,
		"~", `\~`, "!", `\!`, "@", "&#64;", "://", "&#58;//", "www.", "www&#46;", "WWW.", "WWW&#46;", "\n", " ", "\r", " ",
	).Replace(text)
}
