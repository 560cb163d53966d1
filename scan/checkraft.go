package scan

import (
	"context"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// raft looks at the raft log and the start rules of every live region.
func (c *checker) raft(ctx context.Context) error {
	s := c.s
	c.tailsUnread = s.Raft == nil || c.o.Quick || !c.regionsRead
	if s.Raft == nil || s.DB == nil {
		return nil
	}
	logs := map[uint64]raftstate.Derived{}
	states := map[uint64]*raftstate.RaftLocalState{}
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		st, err := s.RaftStateOf(r.ID)
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
			if err := c.raftLog(ctx, r, d); err != nil {
				return err
			}
		}
	}
	return c.raftLeftovers()
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
func (c *checker) raftLog(ctx context.Context, r Region, d raftstate.Derived) error {
	region := r.ID
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
	sim := newEpochSim(r.State)
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
		cmd, err := raftstate.Decode(e)
		switch {
		case err != nil:
			lost(e.Index, e.Index, "it does not decode: "+err.Error())
		case e.Index > d.Applied:
			c.tailEntry(r, d, sim, e, cmd)
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

// raftLeftovers looks for regions that the raft store knows and the key-value database does not, and for records of the raft column family
// that belong to no region. A peer that was created by a message and has not got its snapshot yet is legal: it has a vote, and no log.
func (c *checker) raftLeftovers() error {
	if !c.regionsRead {
		return nil
	}
	s := c.s
	left := c.stateLeftovers()
	ids, err := s.Raft.Regions()
	if err != nil {
		c.raftDamage(err)
		return nil
	}
	for _, id := range ids {
		if slices.ContainsFunc(s.Regions, func(r Region) bool { return r.ID == id }) {
			continue
		}
		st, err := s.RaftStateOf(id)
		if err != nil {
			c.fail(fmt.Sprintf("raft state of region %d", id), err)
			continue
		}
		first, last, ok, err := s.Raft.Bounds(id)
		if err != nil {
			c.raftDamage(err)
			continue
		}
		if st != nil && (ok || st.LastIndex > 0) {
			left[id] = append(left[id], fmt.Sprintf("a raft state (term %d, commit %d, last %d)", st.HardState.Term, st.HardState.Commit, st.LastIndex))
		}
		if ok {
			left[id] = append(left[id], fmt.Sprintf("log entries %d to %d", first, last))
		}
	}
	for id, records := range left {
		if len(records) > 0 {
			c.add(&plan.RegionLeftover{Store: c.store(), Region: id, Records: records})
		}
	}
	return nil
}

// stateLeftovers gives the records of regions without a region state, by region, and reports snapshot states that TiKV has forgotten to
// remove: it does so together with the end of the state Applying.
func (c *checker) stateLeftovers() map[uint64][]string {
	left := map[uint64][]string{}
	known := map[uint64]raftstate.PeerState{}
	for _, r := range c.s.Regions {
		known[r.ID] = r.State.State
	}
	for _, id := range c.applyStates {
		if _, ok := known[id]; !ok {
			left[id] = append(left[id], "an apply state")
		}
	}
	for _, id := range c.snapStates {
		state, ok := known[id]
		switch {
		case !ok:
			left[id] = append(left[id], "the raft state of a snapshot")
		case state != raftstate.Applying:
			c.add(&plan.RegionLeftover{Store: c.store(), Region: id, State: state.String(), Records: []string{"raft state of a snapshot"}})
		}
	}
	return left
}
