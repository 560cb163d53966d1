package repair

import (
	"errors"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// log sums up the entries of (truncated, last] as groups.
func (c *collector) log(p *plan.PeerReport, r scan.Region) error {
	g := grouper{c: c, r: r, p: p, next: p.Truncated.Index + 1}
	err := c.s.Raft.Entries(r.ID, g.next, p.Last+1, func(e raftstate.Entry) error {
		if e.Index < g.next {
			return nil
		}
		g.missing(e.Index)
		if err := g.entry(e); err != nil {
			return err
		}
		g.next = e.Index + 1
		return nil
	})
	if err != nil && !errors.Is(err, base.ErrCorrupt) {
		return err
	}
	// Entries that cannot be read count as missing; the start rules name the error.
	g.missing(p.Last + 1)
	p.Log = g.out
	return nil
}

type grouper struct {
	c    *collector
	r    scan.Region
	p    *plan.PeerReport
	next uint64 // the index that comes next
	out  []plan.LogGroup
}

// missing closes a gap in front of index.
func (g *grouper) missing(index uint64) {
	for g.next < index {
		// A group never crosses applied or commit.
		last := index - 1
		for _, b := range []uint64{g.p.Applied, g.p.Commit} {
			if g.next <= b && b < last {
				last = b
			}
		}
		g.out = append(g.out, plan.LogGroup{First: g.next, Last: last, Kind: plan.GroupMissing})
		g.next = last + 1
	}
}

// runLimit bounds the entries of a run at an index: short near the applied index, where replicas differ, longer away from it.
func (g *grouper) runLimit(index uint64) uint64 {
	d := max(index, g.p.Applied) - min(index, g.p.Applied)
	return max(8, d/4)
}

func (g *grouper) entry(e raftstate.Entry) error {
	one := plan.LogGroup{First: e.Index, Last: e.Index, Term: e.Term}
	cmd, err := raftstate.Decode(e)
	if err != nil {
		one.Kind, one.Blocked, one.StopsTiKV = plan.GroupOpaque, "it does not decode: "+err.Error(), true
		g.out = append(g.out, one)
		return nil
	}
	one.Epoch, _ = cmd.Epoch()
	switch {
	case cmd.Kind == raftstate.CommandConfChange:
		one.Kind = plan.GroupConfChange
		if cmd.HasHeader {
			one.Admin = cmd.Admin
		}
	case cmd.Kind == raftstate.CommandAdmin:
		one.Kind, one.Admin = plan.GroupAdmin, cmd.Admin
	case cmd.Kind == raftstate.CommandEmpty, cmd.Kind == raftstate.CommandWrite && len(cmd.Requests) == 0:
		one.Kind = plan.GroupEmpty
	case cmd.Kind == raftstate.CommandWrite:
		one.Kind, one.Write = plan.GroupWrite, new(plan.WriteSum)
		for _, q := range cmd.Requests {
			addRequest(one.Write, q)
		}
	default:
		one.Kind, one.Blocked = plan.GroupOpaque, "what applying it does is not known"
	}
	if cmd.Unknown {
		one.Blocked = "it holds fields that this version does not know"
	}
	if one.Blocked == "" && one.Kind == plan.GroupWrite {
		one.Blocked, one.StopsTiKV = g.blocked(e.Index, cmd)
	}
	if c := g.c; c.o.ToTS != 0 && e.Index > g.p.Applied {
		for _, q := range cmd.Requests {
			c.tailLock(g.r.ID, e.Index, q)
		}
	}
	g.add(one)
	return nil
}

// blocked says why a write command cannot be executed by this store's own means, and whether TiKV stops there, too.
func (g *grouper) blocked(index uint64, cmd raftstate.Command) (reason string, stops bool) {
	lower, upper := g.r.Bounds()
	// What is applied already has its ingested files in the database, and may have had another range.
	pending := index > g.p.Applied && cmd.Header.Epoch.Version == g.r.State.Region.Epoch.Version
	for _, q := range cmd.Requests {
		switch {
		case q.Op == raftstate.OpIngest && pending:
			if _, reason := ingestedRecords(g.r, q, ownLog(g.c.s, g.r.ID).importFile); reason != "" {
				_, absent := importFile(g.c.s, q.SST.UUID)
				return reason, absent != ""
			}
		case q.Op == raftstate.OpIngest:
			return "the file that it ingests has been taken into the database", false
		case q.Op == raftstate.OpOther:
			return "request " + q.Name, false
		case pending:
			if _, reason := tailRecordOf(q, lower, upper); reason != "" {
				return reason, false
			}
		}
	}
	return "", false
}

// add appends a group, or lets the last one grow.
func (g *grouper) add(one plan.LogGroup) {
	single := one.Kind == plan.GroupAdmin || one.Kind == plan.GroupConfChange || one.Blocked != ""
	if n := len(g.out); n > 0 && !single {
		last := &g.out[n-1]
		if last.Kind == one.Kind && last.Term == one.Term && last.Epoch == one.Epoch && last.Blocked == "" && last.Entries() < g.runLimit(one.First) &&
			last.Last != g.p.Applied && last.Last != g.p.Commit {
			last.Last = one.Last
			if one.Write != nil {
				addSum(last.Write, *one.Write)
			}
			return
		}
	}
	g.out = append(g.out, one)
}

// addRequest counts one request of a write command.
func addRequest(w *plan.WriteSum, q raftstate.Request) {
	switch q.Op {
	case raftstate.OpIngest:
		w.Ingests++
		return
	case raftstate.OpDeleteRange:
		w.DeleteRanges++
		return
	case raftstate.OpPut, raftstate.OpDelete:
	default:
		return
	}
	w.Records++
	switch q.CF {
	case scan.CFWrite:
		_, ts, ok := mvcc.SplitKey(append([]byte{mvcc.DataPrefix}, q.Key...))
		if !ok {
			w.Unstamped++
			return
		}
		widen(&w.MinCommitTS, &w.MaxCommitTS, ts)
		if q.Op == raftstate.OpPut {
			if rec, err := mvcc.ParseWrite(q.Value); err == nil && (rec.Type == mvcc.WritePut || rec.Type == mvcc.WriteDelete) {
				w.Versions++
			}
		}
	case scan.CFDefault:
		_, ts, ok := mvcc.SplitKey(append([]byte{mvcc.DataPrefix}, q.Key...))
		if !ok {
			w.Unstamped++
			return
		}
		widen(&w.MinStartTS, &w.MaxStartTS, ts)
	case scan.CFLock:
		if q.Op == raftstate.OpDelete {
			return
		}
		locks, _, err := mvcc.ParseLocks(q.Value)
		if err != nil {
			w.Unstamped++
			return
		}
		for _, l := range locks {
			if !l.Pessimistic() {
				widen(&w.MinStartTS, &w.MaxStartTS, l.StartTS)
			}
		}
	}
}

// widen takes a timestamp into a range; 0, 0 is the empty one.
func widen(lo, hi *mvcc.TS, ts mvcc.TS) {
	if *hi == 0 || ts < *lo {
		*lo = ts
	}
	*hi = max(*hi, ts)
}

func addSum(to *plan.WriteSum, x plan.WriteSum) {
	to.Records += x.Records
	to.Versions += x.Versions
	to.Unstamped += x.Unstamped
	to.DeleteRanges += x.DeleteRanges
	to.Ingests += x.Ingests
	if x.MaxCommitTS != 0 {
		widen(&to.MinCommitTS, &to.MaxCommitTS, x.MinCommitTS)
		widen(&to.MinCommitTS, &to.MaxCommitTS, x.MaxCommitTS)
	}
	if x.MaxStartTS != 0 {
		widen(&to.MinStartTS, &to.MaxStartTS, x.MinStartTS)
		widen(&to.MinStartTS, &to.MaxStartTS, x.MaxStartTS)
	}
}

// reportLock is a lock as a report has it.
func reportLock(store, region, index uint64, user []byte, l mvcc.Lock) plan.LockReport {
	out := plan.LockReport{
		StoreID: store, RegionID: region, Key: user, Index: index, Type: string(rune(l.Type)), Primary: l.Primary,
		StartTS: l.StartTS, ForUpdateTS: l.ForUpdateTS, MinCommitTS: l.MinCommitTS, AsyncCommit: l.AsyncCommit, ShortValue: l.HasShortValue,
	}
	for _, k := range l.Secondaries {
		out.Secondaries = append(out.Secondaries, k)
	}
	return out
}

// decidable tells whether what becomes of a lock depends on its transaction: a pessimistic or shared one is removed in any case, and so is one
// that started after T.
func (c *collector) decidable(l mvcc.Lock, shared bool) bool {
	return !shared && !l.Pessimistic() && l.StartTS <= c.o.ToTS
}

// tailLock notes the locks that an entry above applied would put.
func (c *collector) tailLock(region, index uint64, q raftstate.Request) {
	if q.Op != raftstate.OpPut || q.CF != scan.CFLock {
		return
	}
	user, _, err := mvcc.DecodeBytes(q.Key)
	if err != nil {
		return // such an entry is Unstamped in its group
	}
	locks, shared, err := mvcc.ParseLocks(q.Value)
	if err != nil {
		return
	}
	for _, l := range locks {
		if c.decidable(l, shared) {
			c.tailLocks = append(c.tailLocks, reportLock(c.s.Ident.StoreID, region, index, slices.Clone(user), l))
		}
	}
}

// locks are the lines of the lock column family, then those of the tails.
func (c *collector) locks() error {
	s := c.s
	err := s.EachLock(func(l scan.LockAt) error {
		for _, one := range l.Locks {
			if !c.decidable(one, l.Shared) {
				continue
			}
			if err := c.lock(reportLock(s.Ident.StoreID, c.finder.ID(mvcc.LockKey(l.User)), 0, l.User, one)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, l := range c.tailLocks {
		if err := c.lock(l); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) lock(l plan.LockReport) error {
	if l.RegionID == 0 {
		return nil // outside any region: no replica, no transaction; check reports it
	}
	c.end.Locks++
	return c.line(&l)
}
