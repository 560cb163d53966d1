package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/plan"
)

// maxRegionLines and maxStageLines bound what the text of a plan lists of regions, and of each stage; --json has all.
const (
	maxRegionLines = 40
	maxStageLines  = 12
)

// planText is a plan for people: what is done, region by region, what is lost, what stands in the way, and what comes next.
func planText(p *plan.Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "plan %s for cluster %d, %d stores\n", p.PlanID, p.ClusterID, len(p.Stores))
	if len(p.FailedStores) > 0 {
		fmt.Fprintf(&b, "gone for good    stores %s\n", numbers(p.FailedStores))
	}
	if p.ToTS != 0 {
		fmt.Fprintf(&b, "rewound to       %s (%s)\n", p.ToTS, p.ToTime)
	}
	s := p.Summary
	fmt.Fprintf(&b, "regions          %d left alone, %d rewritten, %d rewound, %d created; %d replicas tombstoned\n", s.Healthy, s.Rewritten, s.Rewound, s.Created, s.Tombstoned)
	fmt.Fprintf(&b, "loss             %d regions for certain, %d possibly\n", s.LossCertain, s.LossMaybe)
	if len(s.AffectedTables) > 0 {
		fmt.Fprintf(&b, "tables           %s\n", numbers(s.AffectedTables))
	}
	if len(s.MetaRegions) > 0 {
		fmt.Fprintf(&b, "meta regions     %s\n", numbers(s.MetaRegions))
	}
	if s.CopyBytes > 0 {
		fmt.Fprintf(&b, "PD has to copy   %s until every region has its replicas again\n", bytesText(s.CopyBytes))
	}
	for _, st := range p.Stages {
		fmt.Fprintf(&b, "\n%s: %s\n", st.Name, st.Info)
		lines := 0
		for _, store := range slices.Sorted(maps.Keys(st.Actions)) {
			for _, l := range st.Actions[store] {
				if lines++; lines <= maxStageLines {
					fmt.Fprintf(&b, "  %-10s %s\n", store, l)
				}
			}
		}
		if lines > maxStageLines {
			fmt.Fprintf(&b, "  and %d more lines\n", lines-maxStageLines)
		}
		for i, l := range st.Details {
			if i == maxStageLines {
				fmt.Fprintf(&b, "  and %d more lines\n", len(st.Details)-i)
				break
			}
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	b.WriteString(regionTable(p))
	for _, f := range p.Problems {
		accepted := ""
		if slices.Contains(p.Forced, f.Name) {
			accepted = ", accepted"
		}
		fmt.Fprintf(&b, "\n%s %s%s", f.Severity, f.Name, accepted)
		if f.Where != "" {
			fmt.Fprintf(&b, ", %s", f.Where)
		}
		fmt.Fprintf(&b, "\n  %s\n  next: %s\n", f.What, f.Next)
	}
	if len(p.NextSteps) > 0 {
		b.WriteString("\nwhat comes next:\n")
		for i, l := range p.NextSteps {
			fmt.Fprintf(&b, "  %d. %s\n", i+1, l)
		}
	}
	return b.String()
}

func regionTable(p *plan.Plan) string {
	if len(p.Regions) == 0 {
		return ""
	}
	var t table
	t.add("region", "decision", "winner", "kept", "loss", "reason")
	for i, r := range p.Regions {
		if i == maxRegionLines {
			break
		}
		winner := "-"
		if r.WinnerStore != 0 {
			winner = fmt.Sprintf("%d@%d", r.WinnerPeer, r.WinnerStore)
		}
		t.add(r.ID, r.Decision, winner, orDash(numbers(r.KeptStores)), r.Loss.Certainty, r.Reason)
	}
	text := "\n" + t.String()
	if n := len(p.Regions) - maxRegionLines; n > 0 {
		text += fmt.Sprintf("and %d more regions; --json lists them all\n", n)
	}
	return text
}

func numbers[T int64 | uint64](list []T) string {
	var s []string
	for _, x := range list {
		s = append(s, fmt.Sprint(x))
	}
	return strings.Join(s, " ")
}
