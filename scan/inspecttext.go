package scan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func orUnknown(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return "unknown"
}

func pluralY[T int | int64 | uint64](n T, stem string) string {
	if n == 1 {
		return "1 " + stem + "y"
	}
	return fmt.Sprintf("%d %sies", n, stem)
}

func writeDB(b *strings.Builder, p func(name, format string, args ...any), name string, d Database) {
	p(name, "%s, last sequence %d", d.Manifest, d.LastSeq)
	for _, cf := range d.CFs {
		fmt.Fprintf(b, "  %-14s %s, %d bytes", cf.Name, plural(cf.Files, "table"), cf.Bytes)
		for i, l := range cf.Levels {
			sep := ", "
			if i == 0 {
				sep = ": "
			}
			fmt.Fprintf(b, "%sL%d %d", sep, l.Level, l.Files)
		}
		fmt.Fprintf(b, "; %s in the log\n", plural(cf.LogRecords, "record"))
	}
	w := d.WAL
	fmt.Fprintf(b, "  %-14s %s, %d bytes, %s to replay", "log", plural(w.Files, "file"), w.Bytes, plural(w.Records, "record"))
	if w.Skipped > 0 {
		fmt.Fprintf(b, ", %s obsolete", plural(w.Skipped, "file"))
	}
	if w.TornTail {
		b.WriteString(", torn tail (normal after a kill)")
	}
	b.WriteByte('\n')
	for _, t := range w.Problems {
		fmt.Fprintf(b, "  %-14s %s\n", "log problem", t)
	}
}

func counts(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	return strings.Join(parts, ", ")
}

// String is one line: how many, by state, and what is out of the ordinary.
func (r RegionSummary) String() string {
	s := fmt.Sprint(r.Total)
	if r.Total > 0 {
		s += ": " + counts(r.ByState)
	}
	for _, x := range []struct {
		n    int
		what string
	}{{r.Joint, "in a joint configuration"}, {r.Learners, "with a learner here"}, {r.Witnesses, "with a witness here"},
		{r.Flashback, "in flashback"}, {r.NoPeer, "that do not list this store"}} {
		if x.n > 0 {
			s += fmt.Sprintf("; %d %s", x.n, x.what)
		}
	}
	return s
}

// String is one line: how many, by type, and from when.
func (l LockSummary) String() string {
	if l.Keys == 0 {
		return "none"
	}
	s := fmt.Sprintf("%s of %s: %s", plural(l.Keys, "key"), plural(l.Transactions, "transaction"), counts(l.ByType))
	if l.AsyncCommit > 0 {
		s += fmt.Sprintf(" (%d async commit)", l.AsyncCommit)
	}
	return s + fmt.Sprintf("; started from %s = %s to %s = %s", l.Oldest, l.OldestTime, l.Newest, l.NewestTime)
}
