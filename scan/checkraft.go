package scan

import (
	"context"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// raft looks at the raft log and the start rules of every live region.
func (c *checker) raft(ctx context.Context) error {
	s := c.s
	if s.Raft == nil || s.DB == nil {
		return nil
	}
	logs := map[uint64]raftstate.Derived{}
	states := map[uint64]*raftstate.RaftLocalState{}
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		st, err := s.raftStateOf(r.ID)
		if err != nil {
			c.fail(fmt.Sprintf("raft state of region %d", r.ID), err)
			continue
		}
		states[r.ID] = st
		if !c.badApply[r.ID] && r.State.State != raftstate.Applying {
			logs[r.ID] = raftstate.Derive(st, r.Apply)
		}
	}
	if err := c.raftBlocks(logs); err != nil {
		return err
	}
	for _, r := range s.Regions {
		if err := interrupted(ctx); err != nil {
			return err
		}
		st, read := states[r.ID]
		if !read {
			continue
		}
		if c.ident && !c.badApply[r.ID] {
			if err := c.startRules(r, st); err != nil {
				return err
			}
		}
		if d, ok := logs[r.ID]; ok {
			c.res.Counts.RaftLogs++
			if err := c.raftLog(ctx, r.ID, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// raftBlocks verifies every entries block of a raft-engine that a live entry lies in.
func (c *checker) raftBlocks(logs map[uint64]raftstate.Derived) error {
	e, ok := c.s.Raft.(*raftlog.Engine)
	if !ok || c.o.Quick {
		return nil
	}
	dead := func(region, index uint64) bool {
		d, live := logs[region]
		return !live || index <= d.Truncated.Index || index > d.Last
	}
	err := e.VerifyBlocks(dead, func(region uint64, err error) error {
		c.raftDamage(err)
		return nil
	})
	if err != nil {
		c.fail("raft store", err)
	}
	return nil
}

// raftDamage reports unreadable bytes of the raft store, once a place.
func (c *checker) raftDamage(err error) {
	if c.known(err) {
		return
	}
	p := &plan.RaftLogDamage{Store: c.store(), Path: c.s.Layout.RaftDir, Reason: err.Error()}
	if e := asError(err); e != nil && e.Path != "" {
		p.Path, p.Reason = e.Path, reason(err)
		if e.Region != 0 {
			p.Reason += fmt.Sprintf(" (entries of region %d)", e.Region)
		}
		c.mu.Lock()
		c.places[placeOf(e)] = true
		c.mu.Unlock()
	}
	c.add(p)
}

// raftLog looks for holes in (truncated, last] and for entries that do not decode. A quick check compares the ends only. Entries
// that were applied before they were persisted lie above last: their absence is legal.
func (c *checker) raftLog(ctx context.Context, region uint64, d raftstate.Derived) error {
	if d.Last <= d.Truncated.Index {
		return nil
	}
	lost := func(from, to uint64, why string) {
		c.add(&plan.RaftEntries{Store: c.store(), Region: region, From: from, To: to, Applied: d.Applied, Reason: why})
	}
	const missing = "missing"
	if c.o.Quick {
		first, last, ok, err := c.s.Raft.Bounds(region)
		switch {
		case err != nil:
			c.raftDamage(err)
		case !ok:
			lost(d.Truncated.Index+1, d.Last, missing)
		default:
			if first > d.Truncated.Index+1 {
				lost(d.Truncated.Index+1, min(first-1, d.Last), missing)
			}
			if last < d.Last {
				lost(max(last, d.Truncated.Index)+1, d.Last, missing)
			}
		}
		return nil
	}
	at := d.Truncated.Index + 1
	var n uint64
	err := c.s.Raft.Entries(region, at, next(d.Last), func(e raftstate.Entry) error {
		if n&255 == 0 {
			if err := interrupted(ctx); err != nil {
				return err
			}
		}
		n++
		if e.Index > at {
			lost(at, e.Index-1, missing)
		}
		at = e.Index + 1
		if _, err := raftstate.Decode(e); err != nil {
			lost(e.Index, e.Index, "it does not decode: "+err.Error())
		}
		return nil
	})
	c.res.Counts.LogEntries += n
	switch {
	case isInterrupted(err):
		return err
	case err != nil:
		c.raftDamage(err)
	case at <= d.Last:
		lost(at, d.Last, missing)
	}
	return nil
}
