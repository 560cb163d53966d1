package main

import (
	"fmt"
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
	for _, l := range p.Locks {
		fmt.Fprintf(&b, "             %4d %s: %s\n", l.Locks, l.Decision, l.Reason)
	}
	if p.FencesCleared > 0 {
		fmt.Fprintf(&b, "GC fences    %d above T are cleared: the rows that carry them would vanish otherwise\n", p.FencesCleared)
	}
	var tail uint64
	var applied int64
	for _, r := range p.Regions {
		tail += r.TailEntries
		applied += r.TailApplied
	}
	fmt.Fprintf(&b, "Regions      %d; %d log entries wait: %d records of them are applied first, the rest is made harmless (epochs raised)\n", len(p.Regions), tail, applied)
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
