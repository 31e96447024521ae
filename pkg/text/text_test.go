// SPDX-FileCopyrightText: The apigw-guardian Authors
// SPDX-License-Identifier: Apache-2.0

package text

import (
	"os/exec"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	long := strings.Repeat("a", 300)
	for name, test := range map[string]struct{ text, want string }{
		"an ordinary name stays":         {"system:serviceaccount:a:b", "system:serviceaccount:a:b"},
		"letters of any language stay":   {"Jürgen 张伟", "Jürgen 张伟"},
		"an escape sequence is broken":   {"\x1b[2Jjane", "�[2Jjane"},
		"a line break is no break":       {"jane\nDenied", "jane�Denied"},
		"a turn of the direction is not": {"jane\u202eenaj", "jane�enaj"},
		"broken UTF-8 is mended":         {"jane\xff", "jane�"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Printable(test.text, 40); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	t.Run("long names stay two", func(t *testing.T) {
		one, other := Printable(long+"x", 40), Printable(long+"y", 40)
		if one == other || len(one) > 40 || !strings.HasPrefix(one, "aaaa") {
			t.Errorf("got %q and %q", one, other)
		}
	})
}

func FuzzPrintable(f *testing.F) {
	f.Add("jane", 13)
	f.Add("\x1b\u202e\xff"+strings.Repeat("张", 40), 20)
	f.Fuzz(func(t *testing.T, text string, most int) {
		most = 13 + int(uint(most)%400)
		got := Printable(text, most)
		if len(got) > most || !utf8.ValidString(got) {
			t.Errorf("%d bytes, valid %t: %q", len(got), utf8.ValidString(got), got)
		}
		for _, r := range got {
			if !unicode.IsPrint(r) && r != utf8.RuneError {
				t.Errorf("%q has %U", got, r)
			}
		}
		if again := Printable(got, most); again != got {
			t.Errorf("twice is not once: %q and %q", got, again)
		}
	})
}

// A shell is the judge: what it takes for one word must be the text.
func TestQuoteIsOneWordOfAShell(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"alice", "alice@example.com", "", "$(echo broken)", "a'b", "'; echo broken; '", "a b", "`x`", "-rf", "~", "a\\b", "*", "!!", "é",
	} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+Quote(text)).Output()
		if err != nil || string(out) != text {
			t.Errorf("%q became %s, which a shell takes for %q (%v)", text, Quote(text), out, err)
		}
	}
}
