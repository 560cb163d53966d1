package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// txnsShown bounds the transactions in the text about what limits T; --json has them all.
const txnsShown = 5

// withLimits gives inspect the flag --limits.
func (a *app) withLimits(cmd *cobra.Command) *cobra.Command {
	var limits bool
	var pd []string
	f := cmd.Flags()
	f.BoolVar(&limits, "limits", false, "print what limits the timestamp T that the stores given can be returned to, with the evidence")
	f.StringArrayVar(&pd, "pd", nil, "with --limits: PD's data `directory`; repeat for more members of the same PD")
	cmd.Long += `

With --limits it gathers from all stores given, together, what speaks against a timestamp T: the newest commit of each region and store, the oldest lock and
its transaction, transactions that are committed in one region and locked or missing in another (the keys that async commit and the raft logs name
are looked up on all stores), replicas that have not applied the same, and what PD knew to be resolved. It names no T. It reads properties of tables, logs
and locks, and single keys: "at most" marks a newest commit that may be of a neighbour in the same table.`
	cmd.Example += `
  tikv-repair inspect --limits --pd /data/pd /data/tikv-1 /data/tikv-2`
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !limits {
			if len(pd) > 0 {
				return usagef("--pd goes with --limits; to look at PD alone: tikv-repair inspect %s", pd[0])
			}
			return run(cmd, args)
		}
		return a.limits(cmd.Context(), args, pd)
	}
	return cmd
}

func (a *app) limits(ctx context.Context, dirs, pdDirs []string) error {
	var stores []string
	for _, dir := range dirs {
		if scan.IsPD(a.fs, dir) {
			pdDirs = append(pdDirs, dir)
		} else {
			stores = append(stores, dir)
		}
	}
	switch {
	case len(stores) == 0:
		return usagef("--limits is about stores: give the data directory of at least one stopped TiKV store")
	case len(stores) > 1 && a.c.overridden():
		return usagef("--wal-dir, --raft-dir, --raft-wal-dir and --titan-dir belong to one directory, not %d", len(stores))
	}
	known, _, err := a.pdReports(pdDirs)
	if err != nil {
		return err
	}
	l, err := a.findLimits(ctx, stores, known)
	if err != nil {
		return err
	}
	if a.c.json {
		return a.printJSON(l)
	}
	return a.print(limitsText(l))
}

// findLimits opens stores and gathers what limits T; known is what PD knew, if it was asked.
func (a *app) findLimits(ctx context.Context, stores []string, known []*plan.PDReport) (*plan.Limits, error) {
	var pd *plan.PDReport
	if len(known) > 0 {
		pd = known[0]
	}
	var open []*scan.Store
	for _, dir := range stores {
		s, err := a.openStore(dir, a.scanOptions())
		if err != nil {
			return nil, err
		}
		defer s.Close()
		open = append(open, s)
	}
	return scan.FindLimits(ctx, open, pd, scan.LimitsOptions{})
}

// stampText is a timestamp in both forms.
func stampText(ts mvcc.TS, at string) string {
	if ts == 0 {
		return "none"
	}
	return fmt.Sprintf("%s = %s", ts, at)
}

func atMostText(atMost bool) string {
	if atMost {
		return "at most "
	}
	return ""
}

// limitsText is all of it, with long lists cut.
func limitsText(l *plan.Limits) string {
	var b strings.Builder
	for _, s := range l.Stores {
		fmt.Fprintf(&b, "store %d, %s\n", s.StoreID, s.Dir)
		fmt.Fprintf(&b, "  newest commit  %s; %d regions, %d locked keys\n", stampText(s.Newest, s.NewestTime), len(s.Regions), s.LockedKeys)
		b.WriteString(regionLimits(s.Regions))
	}
	if len(l.Differ) > 0 {
		b.WriteString("replicas that have not applied the same\n")
		b.WriteString(replicaGaps(l.Differ))
	}
	b.WriteString(locksLimit(l, 15, "oldest lock", "transactions", "so"))
	return b.String()
}

// limitsShort is what the preview of a rewind has of it: newest commit and regions of the store are there already.
func limitsShort(l *plan.Limits) string {
	return locksLimit(l, 13, "Oldest lock", "Unfinished", "Is T whole?")
}

// regionLimits lists the regions, those that have come furthest in time first.
func regionLimits(rs []plan.RegionLimits) string {
	var t table
	rs = slices.Clone(rs)
	slices.SortStableFunc(rs, func(a, b plan.RegionLimits) int {
		return cmp.Compare(max(b.Newest, b.NewestWaiting), max(a.Newest, a.NewestWaiting))
	})
	for i, r := range rs {
		if i == tablesShown {
			t.add("  …", fmt.Sprintf("%d more; --json lists all", len(rs)-i))
			break
		}
		waits := ""
		if r.Waiting > 0 {
			waits = fmt.Sprintf("%s, newest commit %s", map[bool]string{true: "1 entry waits", false: fmt.Sprintf("%d entries wait", r.Waiting)}[r.Waiting == 1], stampText(r.NewestWaiting, r.NewestWaitingTime))
		}
		t.add(fmt.Sprintf("  region %d", r.RegionID), atMostText(r.AtMost)+stampText(r.Newest, r.NewestTime), fmt.Sprintf("applied %d", r.Applied), waits)
	}
	return t.String()
}

func replicaGaps(gs []plan.ReplicaGap) string {
	var t table
	for i, g := range gs {
		if i == tablesShown {
			t.add("  …", fmt.Sprintf("%d more; --json lists all", len(gs)-i))
			break
		}
		var applied []string
		for _, r := range g.Replicas {
			applied = append(applied, fmt.Sprintf("%d on store %d", r.Applied, r.StoreID))
		}
		newest := "newest commit in the difference " + stampText(g.Newest, g.NewestTime)
		if g.Partial {
			newest += ", of the entries that are left"
		}
		t.add(fmt.Sprintf("  region %d", g.RegionID), strings.Join(applied, ", "), newest)
	}
	return t.String()
}

// locksLimit tells of the oldest lock, of the first transactions, and what follows. The names are those of lines, width that of their column.
func locksLimit(l *plan.Limits, width int, oldest, txns, so string) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-*s%s\n", width, name, fmt.Sprintf(format, args...))
	}
	if t := l.OldestLock; t == nil && l.LocksBelow != 0 {
		line(oldest, "none of a transaction that started before %s; there are later ones", stampText(l.LocksBelow, scan.Time(l.LocksBelow)))
	} else if t == nil {
		line(oldest, "none")
	} else {
		line(oldest, "%s: %s, %s", stampText(t.Txn.StartTS, scan.Time(t.Txn.StartTS)), locksOf(t), t.State)
		line("", "primary %s (%s)", mvcc.DescribeUserKey([]byte(t.Txn.Primary)), strings.ToUpper(fmt.Sprintf("%x", t.Txn.Primary)))
	}
	unfinished(l, txns, line)
	for i, w := range l.Words {
		line(map[bool]string{true: so}[i == 0], "%s", w)
	}
	return b.String()
}

func unfinished(l *plan.Limits, name string, line func(name, format string, args ...any)) {
	var counts []string
	for _, s := range plan.TxnStates() {
		if n := l.ByState[s]; n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(counts) == 0 {
		line(name, "no transaction")
		return
	}
	line(name, "%s", strings.Join(counts, ", "))
	for i := range l.Txns {
		if i == txnsShown {
			line("", "  %d more; --json lists all", len(l.Txns)-i)
			break
		}
		t := &l.Txns[i]
		line("", "  %s %s: %s; %s", t.State, t.Txn.StartTS, locksOf(t), t.Reason)
	}
}

// locksOf says how many keys of a transaction are in which state.
func locksOf(t *plan.TxnLimit) string {
	var parts []string
	for _, s := range []plan.KeyState{plan.KeyCommitted, plan.KeyCommitWaits, plan.KeyLocked, plan.KeyLockWaits, plan.KeyPessimistic, plan.KeyRolledBack, plan.KeyRollbackWait, plan.KeyMissing, plan.KeyElsewhere} {
		if n := t.Named(s); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return "keys: " + strings.Join(parts, ", ")
}
