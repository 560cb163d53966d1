package scan

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// maxLoggedKeys bounds the keys that transactions of the raft logs of one store are remembered with; those that began last are kept. Each key is
// looked up in every store.
const maxLoggedKeys = 20_000

// logged remembers prewrites of log entries.
type logged struct {
	waiting []plan.LoggedLock // not applied: all of them
	applied []plan.LoggedLock
	keys    int // of applied
	floor   mvcc.TS
}

func (g *logged) add(l plan.LoggedLock) {
	if !l.Applied {
		g.waiting = append(g.waiting, l)
		return
	}
	g.applied = append(g.applied, l)
	if g.keys += 1 + len(l.Lock.Secondaries); g.keys > 2*maxLoggedKeys {
		g.prune()
	}
}

// prune drops the prewrites of the transactions that began first.
func (g *logged) prune() {
	slices.SortStableFunc(g.applied, func(a, b plan.LoggedLock) int { return cmp.Compare(b.Lock.StartTS, a.Lock.StartTS) })
	keys := 0
	for i, l := range g.applied {
		if keys += 1 + len(l.Lock.Secondaries); keys > maxLoggedKeys && i > 0 {
			g.keys = keys - 1 - len(l.Lock.Secondaries)
			g.floor = max(g.floor, l.Lock.StartTS+1)
			clear(g.applied[i:])
			g.applied = g.applied[:i]
			return
		}
	}
}

func (g *logged) locks() []plan.LoggedLock {
	if g.keys > maxLoggedKeys {
		g.prune()
	}
	return append(g.waiting, g.applied...)
}

// readLog takes from the log of one region the prewrites, and the outcomes that wait; newest is the largest commit_ts that waits.
func (v *limitsView) readLog(region uint64, out *plan.LimitsStore) (newest mvcc.TS, err error) {
	d := v.numbers[region]
	opaque := 0
	err = v.s.Raft.Entries(region, d.Truncated.Index+1, d.Last+1, func(e raftstate.Entry) error {
		cmd, err := raftstate.Decode(e)
		if err != nil {
			opaque++
			return nil
		}
		for i := range cmd.Requests {
			q := &cmd.Requests[i]
			switch {
			case q.CF == CFLock && q.Op == raftstate.OpPut:
				v.prewrite(q, e.Index <= d.Applied)
			case q.CF == CFWrite && e.Index > d.Applied:
				newest = max(newest, pending(q, out.Pending))
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, base.ErrCorrupt) {
		return 0, err
	}
	if err != nil {
		out.Unreadable = append(out.Unreadable, fmt.Sprintf("log of region %d on store %d: %v", region, out.StoreID, err))
	} else if opaque > 0 {
		out.Unreadable = append(out.Unreadable, fmt.Sprintf("log of region %d on store %d: %s not decode", region, out.StoreID, map[bool]string{true: "1 entry does", false: fmt.Sprintf("%d entries do", opaque)}[opaque == 1]))
	}
	return newest, nil
}

// prewrite remembers the locks of one request. What does not decode is a finding of check.
func (v *limitsView) prewrite(q *raftstate.Request, applied bool) {
	user, _, err := mvcc.DecodeBytes(q.Key)
	if err != nil {
		return
	}
	locks, shared, err := mvcc.ParseLocks(q.Value)
	if err != nil || shared {
		return
	}
	for _, l := range locks {
		if l.Pessimistic() {
			continue
		}
		keep := mvcc.Lock{Type: l.Type, Primary: bytes.Clone(l.Primary), StartTS: l.StartTS, ForUpdateTS: l.ForUpdateTS, MinCommitTS: l.MinCommitTS,
			AsyncCommit: l.AsyncCommit, HasShortValue: l.HasShortValue}
		for _, k := range l.Secondaries {
			keep.Secondaries = append(keep.Secondaries, bytes.Clone(k))
		}
		v.logged.add(plan.LoggedLock{UserKey: bytes.Clone(user), Lock: keep, Applied: applied})
	}
}

// pending notes the outcome that a write request would record, and gives its commit_ts; 0: it is none.
func pending(q *raftstate.Request, to map[plan.KeyStart]plan.PendingWrite) mvcc.TS {
	prefix, ts, ok := mvcc.SplitKey(append([]byte{mvcc.DataPrefix}, q.Key...))
	if !ok {
		return 0
	}
	if q.Op != raftstate.OpPut {
		return ts
	}
	user, err := mvcc.UserKey(prefix)
	if err != nil {
		return ts
	}
	w, err := mvcc.ParseWrite(q.Value)
	switch {
	case err != nil:
	case w.Type == mvcc.WriteRollback:
		to[plan.KeyStart{User: string(user), Start: w.StartTS}] = plan.PendingWrite{}
	default:
		to[plan.KeyStart{User: string(user), Start: w.StartTS}] = plan.PendingWrite{CommitTS: ts, Type: w.Type}
		if w.OverlappedRollback {
			to[plan.KeyStart{User: string(user), Start: ts}] = plan.PendingWrite{}
		}
	}
	return ts
}

// NewestLogged is part of plan.LimitsView. An ingested file may hold anything: with one the answer is not whole.
func (v *limitsView) NewestLogged(region, from, to uint64) (newest mvcc.TS, whole bool, err error) {
	whole = true
	next := from + 1
	err = v.s.Raft.Entries(region, from+1, to+1, func(e raftstate.Entry) error {
		if e.Index != next {
			whole = false
		}
		next = e.Index + 1
		cmd, err := raftstate.Decode(e)
		if err != nil {
			whole = false
			return nil
		}
		for i := range cmd.Requests {
			q := &cmd.Requests[i]
			if q.Op == raftstate.OpIngest {
				whole = false
			}
			if q.CF != CFWrite {
				continue
			}
			if _, ts, ok := mvcc.SplitKey(append([]byte{mvcc.DataPrefix}, q.Key...)); ok {
				newest = max(newest, ts)
			}
		}
		return nil
	})
	if errors.Is(err, base.ErrCorrupt) {
		return newest, false, nil
	}
	return newest, whole && next == to+1, err
}
