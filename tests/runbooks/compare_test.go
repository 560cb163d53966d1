package runbooks

import (
	"regexp"
	"strings"
)

// cut stands for what a page leaves out: alone on a line for any number of lines, at the end of a line for the rest of it.
const cut = "…"

// What differs from one run to the next: the moment, how long it took, how much room the disk has.
var varying = []struct {
	what *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`\b([a-z]+(?:-[a-z]+)*)-\d{8}T\d{6}Z(-[0-9a-f]{6})?`), "$1-ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`), "TIME"},
	{regexp.MustCompile(`\b\d+\.\d\d s\b`), "SECONDS"},
	{regexp.MustCompile(`\babout \d+(\.\d+)? s\b`), "about SECONDS"},
	{regexp.MustCompile(`[\d.]+ ?[KMGTP]?i?B free`), "SPACE free"},
	{regexp.MustCompile(`\b(process|pid) \d+`), "$1 PID"},
	// Sizes of our own JSON files vary with the times in them, and so does what is summed up with them.
	{regexp.MustCompile(`\s+`), " "},
}

func normal(line string) string {
	for _, v := range varying {
		line = v.what.ReplaceAllString(line, v.name)
	}
	return strings.TrimRight(line, " ")
}

// same tells whether a line of the page stands for a line of the output.
func same(want, got string) bool {
	if w, ok := strings.CutSuffix(want, cut); ok && strings.TrimSpace(w) != "" {
		return strings.HasPrefix(normal(got), strings.TrimRight(normal(w), " "))
	}
	return normal(want) == normal(got)
}

func isCut(line string) bool { return strings.TrimSpace(line) == cut }

// matches tells whether what the page shows stands for the output.
func matches(want, got []string) bool {
	if len(want) == 0 {
		return len(got) == 0
	}
	if isCut(want[0]) {
		for skip := 1; skip <= len(got); skip++ {
			if matches(want[1:], got[skip:]) {
				return true
			}
		}
		return false
	}
	return len(got) > 0 && same(want[0], got[0]) && matches(want[1:], got[1:])
}

// renewed is the output with the omissions of the page, as far as they can be found again: what stands in front of the first and
// behind the last one keeps its number of lines; a piece between two begins at the line that is most like its first.
func renewed(want, got []string) []string {
	var pieces [][]string
	start := 0
	for i, l := range append(want[:len(want):len(want)], cut) {
		if isCut(l) {
			pieces = append(pieces, want[start:i])
			start = i + 1
		}
	}
	last := len(pieces) - 1
	if last <= 0 {
		return got
	}
	if len(pieces[0])+len(pieces[last]) >= len(got) {
		return got
	}
	out := append([]string(nil), got[:len(pieces[0])]...)
	at, end := len(pieces[0]), len(got)-len(pieces[last])
	for _, p := range pieces[1:last] {
		best, length := -1, 0
		for i := at + 1; len(p) > 0 && i+len(p) < end; i++ {
			if n := common(normal(p[0]), normal(got[i])); n > length {
				best, length = i, n
			}
		}
		if best >= 0 {
			out = append(append(out, cut), got[best:best+len(p)]...)
			at = best + len(p)
		}
	}
	if at < end {
		out = append(out, cut)
	}
	return append(out, got[end:]...)
}

func common(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
