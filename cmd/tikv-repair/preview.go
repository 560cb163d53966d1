package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
)

// tablesShown bounds the list of tables in the preview; --json has them all.
const tablesShown = 10

// showPreview tells the operator what a rewind would do. It is talk: standard error.
func (a *app) showPreview(p *repair.Preview, force map[string]bool) {
	if !a.c.quiet {
		fmt.Fprint(a.stderr, previewText(p, force))
	}
}

func previewText(p *repair.Preview, force map[string]bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Rewind to    %s = %s\n", p.ToTS, p.ToTime)
	if p.NewestCommitTS == 0 {
		b.WriteString("Newest commit: none\n")
	} else {
		fmt.Fprintf(&b, "Newest       %s = %s; T is %s it\n", p.NewestCommitTS, p.NewestCommitTime, distance(p.ToTS, p.NewestCommitTS))
	}
	if p.SafePoint != nil {
		text := p.SafePoint.String()
		if p.SafePointTime != "" {
			text += " = " + p.SafePointTime
		}
		if p.SafePointSource != "" { // a plan does not carry it
			text += ", " + p.SafePointSource
		}
		fmt.Fprintf(&b, "Safe point   %s\n", text)
	}
	if p.VersionsRemoved+p.RawRemoved == 0 {
		b.WriteString("Lost         nothing: no version is above T\n")
	} else {
		fmt.Fprintf(&b, "Lost         %d versions in %d rows, %s of records; %d long values; %d raw entries\n",
			p.VersionsRemoved, p.RowsChanged, bytesText(uint64(p.BytesRemoved)), p.DefaultRows, p.RawRemoved)
		fmt.Fprintf(&b, "             oldest %s, newest %s\n", p.OldestLostTime, p.NewestLostTime)
		b.WriteString(lossTables(p))
		b.WriteString(bars(p.Histogram))
	}
	fmt.Fprintf(&b, "Locks        %d committed, %d removed\n", p.LocksCommitted, p.LocksRemoved)
	b.WriteString(lockLines(p.Locks))
	if p.Limits != nil {
		b.WriteString(limitsShort(p.Limits))
	}
	if p.FencesCleared > 0 {
		fmt.Fprintf(&b, "GC fences    %d above T are cleared: the rows that carry them would vanish otherwise\n", p.FencesCleared)
	}
	b.WriteString(waitingText(p.Regions))
	fmt.Fprintf(&b, "Work         %d of %d tables rewritten, %s of log folded; about %s to write", p.FilesToRewrite, p.FilesLive, bytesText(uint64(p.LogBytes)), bytesText(uint64(p.SpaceNeeded)))
	if p.SpaceFree >= 0 {
		fmt.Fprintf(&b, ", %s free", bytesText(uint64(p.SpaceFree)))
	}
	fmt.Fprintf(&b, "; about %.1f s\n", p.SecondsNeeded)
	for _, pr := range p.Problems {
		b.WriteString(problemText(pr, force))
	}
	return b.String()
}

// maxLockLines is how many lines of lock decisions are printed: a reason may name the transaction, and of those there are many.
const maxLockLines = 10

func lockLines(lines []repair.LockLine) string {
	var b strings.Builder
	for _, l := range lines[:min(len(lines), maxLockLines)] {
		fmt.Fprintf(&b, "             %4d %s: %s\n", l.Locks, l.Decision, l.Reason)
	}
	if len(lines) <= maxLockLines {
		return b.String()
	}
	more := map[string]int64{}
	for _, l := range lines[maxLockLines:] {
		more[l.Decision] += l.Locks
	}
	for _, decision := range slices.Sorted(maps.Keys(more)) {
		fmt.Fprintf(&b, "             %4d more %s; --json lists them\n", more[decision], decision)
	}
	return b.String()
}

// waitingText is one line for each region with log entries that are not applied.
func waitingText(regions []repair.RegionLine) string {
	var t table
	var entries uint64
	n := 0
	for _, r := range regions {
		if r.TailEntries == 0 {
			continue
		}
		entries += r.TailEntries
		switch n++; {
		case n == 1:
			t.add("             region", "applied", "last", "strategy", "reason")
			fallthrough
		case n <= tablesShown:
			reason := r.Reason
			if r.TailApplied > 0 {
				reason += fmt.Sprintf(" (%d records)", r.TailApplied)
			}
			if r.Lost > 0 {
				reason += fmt.Sprintf("; %d versions at or below T are lost, the newest of %s", r.Lost, r.NewestTime)
			}
			if r.Opaque > 0 {
				reason += fmt.Sprintf("; %d entries cannot be looked into", r.Opaque)
			}
			t.add(fmt.Sprintf("             %d", r.Region), r.Applied, r.Last, string(r.Strategy), reason)
		case n == tablesShown+1:
			t.add("             …", "", "", "", "--json lists all")
		}
	}
	switch {
	case len(regions) == 0: // a plan says elsewhere what becomes of the logs
		return ""
	case n == 0:
		return fmt.Sprintf("Regions      %d; every log is applied to its end\n", len(regions))
	}
	return fmt.Sprintf("Regions      %d; %d log entries of %d of them are not applied\n", len(regions), entries, n) + t.String()
}

func problemText(p plan.Problem, force map[string]bool) string {
	state := p.Severity().String()
	if force[p.Name()] && plan.Forceable(p) {
		state += ", accepted"
	}
	s := fmt.Sprintf("Problem      %s (%s)", p.Name(), state)
	if w := p.Where(); w != "" {
		s += ", " + w
	}
	return s + ": " + p.What() + "\n             next: " + p.Next() + "\n"
}

func lossTables(p *repair.Preview) string {
	var t table
	for i, l := range p.Tables {
		if i == tablesShown {
			t.add("            ", fmt.Sprintf("and %d more; --json lists all", len(p.Tables)-i))
			break
		}
		t.add("            ", l.Name, fmt.Sprintf("%d versions", l.Versions), fmt.Sprintf("%d rows", l.Rows), bytesText(uint64(l.Bytes)))
	}
	return t.String()
}

const barWidth = 40

func bars(bs []repair.Bucket) string {
	var most int64 = 1
	for _, b := range bs {
		most = max(most, b.Versions)
	}
	var s strings.Builder
	for _, b := range bs {
		n := int(b.Versions * barWidth / most)
		if n == 0 && b.Versions > 0 {
			n = 1
		}
		fmt.Fprintf(&s, "             %s %8d %s\n", b.From, b.Versions, strings.Repeat("#", n))
	}
	return s.String()
}
