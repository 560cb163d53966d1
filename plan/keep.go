package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// lastToKeep is the last index in (from, to] of an entry that changes something at or below T; 0: none. Groups are judged whole.
func (pl *planner) lastToKeep(p *PeerReport, from, to uint64) (last uint64) {
	for _, g := range p.above(from) {
		if g.First > to {
			break
		}
		if !g.onlyAbove(pl.opt.ToTS) {
			last = min(g.Last, to)
		}
	}
	return last
}

// target decides how far the winner is applied offline and what becomes of the rest of its log.
//
// Without a rewind as little as possible: TiKV applies the rest (strategy K). With one, up to the last entry that changes anything at or
// below T, the rest becomes a no-op (strategy N). The whole log, where the version has to rise for another reason: writes behind it would
// be no-ops. The log is dropped (strategy D) where TiKV would stop at it.
func (pl *planner) target(g *group, c *choice, m *member) uint64 {
	w := m.p
	end, _ := w.end()
	c.resultEnd = end
	x := max(w.Applied, m.to)
	want := x
	if pl.rewind() {
		want = max(want, pl.lastToKeep(w, w.Applied, end))
	}
	if g.shrink != nil || pl.ahead(g) {
		want = max(want, w.Last)
	}
	drop := w.Applied > w.Last || w.stops() != ""
	if drop {
		want = max(want, w.Last)
	}
	if bad, why := reach(w, w.Applied, want); bad != 0 {
		want, drop = max(x, bad-1), true
		c.notes = append(c.notes, fmt.Sprintf("entry %d of the log on store %d cannot be applied offline: %s", bad, w.StoreID, why))
	}
	if !drop {
		for _, e := range w.above(want) {
			if e.StopsTiKV || e.Kind == GroupMissing || e.Kind == GroupOpaque && e.Blocked == "" {
				at := max(e.First, want+1)
				if bad, _ := reach(w, w.Applied, at-1); bad != 0 {
					at = bad
				}
				want, drop = max(x, at-1), true
				c.notes = append(c.notes, fmt.Sprintf("TiKV would stop at entry %d of the log on store %d: %s", at, w.StoreID, reasonOf(e)))
				break
			}
			if e.Admin != nil && e.Admin.Type == raftstate.AdminVerifyHash && e.Admin.HashIndex > want {
				// The hash covers the region's record, which changes: TiKV would take the difference for corruption and stop.
				if bad, _ := reach(w, w.Applied, e.Last); bad != 0 {
					drop = true
					break
				}
				want = e.Last
			}
		}
	}
	if drop {
		c.tail = TailDrop
		c.resultEnd = want
	}
	return want
}

func reasonOf(e LogGroup) string {
	if e.Blocked != "" {
		return e.Blocked
	}
	return "it is " + e.Kind.String()
}

// ahead tells whether PD knows a higher version of something in the region's range, so that it would refuse the region as it is, or a
// survivor a higher version of the region itself, as a tombstone, so that it would not take a replica again.
func (pl *planner) ahead(g *group) bool {
	return !pl.rewind() && pl.knownVersion(g, g.future.StartKey, g.future.EndKey) > g.future.Epoch.Version
}

func (pl *planner) knownVersion(g *group, start, end raftstate.Key) uint64 {
	v := pl.pdVersion(g.id, start, end)
	for _, t := range g.tombs {
		v = max(v, t.Region.Epoch.Version)
	}
	for _, p := range g.peers {
		if !pl.full(p) {
			v = max(v, p.Region.Epoch.Version)
		}
	}
	return v
}

// others adds the peers that can be made equal to the winner.
func (pl *planner) others(g *group, c *choice, cands []*PeerReport, limit uint64) {
	rest := slices.Clone(cands)
	slices.SortStableFunc(rest, func(a, b *PeerReport) int {
		return cmp.Or(cmp.Compare(b.Applied, a.Applied), cmp.Compare(a.StoreID, b.StoreID))
	})
	for _, p := range rest {
		if p.StoreID == c.winner.StoreID {
			continue
		}
		if pl.opt.Keep == KeepWinner && !(g.healthy && pl.rewind()) && !pl.bearsOrphan(p, limit) {
			c.left[p.StoreID] = "only the winner is kept (--keep=winner)"
			continue
		}
		if why := pl.admit(c, p, limit); why != "" {
			c.left[p.StoreID] = why
		}
	}
}

// bearsOrphan tells whether a peer's log splits off a region that has no copy yet: its data are here, and may be nowhere else.
func (pl *planner) bearsOrphan(p *PeerReport, limit uint64) bool {
	for _, s := range walk(p).steps {
		for _, c := range s.children {
			if s.index <= limit && pl.unborn(c.ID) {
				return true
			}
		}
	}
	return false
}

// admit makes p a member, if it can hold the same data; otherwise it says why not.
func (pl *planner) admit(c *choice, p *PeerReport, limit uint64) string {
	w := c.winner
	win := c.member(w.StoreID)
	common := commonEnd(w, p)
	q, carried := p, uint64(0)
	need := win.to
	exact := !pl.rewind() || c.tail == TailDrop
	if exact {
		need = max(need, p.Applied)
	} else {
		need = pl.needForRewind(w, p, win.to)
	}
	// Entries that were applied before they were persisted have to come from the others, unless the log begins anew.
	// A log that is cut off the winner's and ranks above it would win an election, and take back what is committed.
	rival := rankLog(p, w) > 0 && common < p.Last && c.tail != TailDrop
	if need > common || rival || c.tail != TailDrop && p.Applied > p.Last {
		common = min(common, p.Last)
		if q = pl.carry(w, p, common); q == nil {
			return fmt.Sprintf("its log agrees with the winner's up to %d and %d is needed: PD copies the region again", common, need)
		}
		carried = common
	}
	if bad, why := reach(q, q.Applied, need); bad != 0 {
		return fmt.Sprintf("entry %d of its log cannot be applied offline: %s", bad, why)
	}
	if exact && need > win.to {
		for _, m := range c.members {
			if bad, why := reach(m.p, m.p.Applied, need); bad != 0 {
				return fmt.Sprintf("it has applied %d, and entry %d on store %d cannot be applied offline: %s", p.Applied, bad, m.p.StoreID, why)
			}
			if m.p != w && m.carried == 0 && need > commonEnd(w, m.p) {
				return fmt.Sprintf("it has applied %d, which store %d cannot reach", p.Applied, m.p.StoreID)
			}
		}
		for i := range c.members {
			c.members[i].to = need
		}
		if c.tail == TailDrop {
			c.resultEnd = max(c.resultEnd, need)
		}
	}
	if why := q.stops(); c.tail != TailDrop && why != "" {
		return "TiKV would not start with it: " + why
	}
	for _, s := range walk(q).steps {
		if s.index <= need && s.index <= limit {
			if why := pl.cannot(q.StoreID, s); why != "" {
				return fmt.Sprintf("%s at index %d cannot be carried out here: %s", s.admin.Type, s.index, why)
			}
		}
	}
	c.members = append(c.members, member{p: q, to: max(need, q.Applied), carried: carried})
	return ""
}

// align makes sure that no member can be elected without an entry that another member has applied or knows to be committed: the quorum that
// once held these entries is gone, so raft does not see to it any more. With two voters it does: each needs the other's vote.
//
// Without a rewind, members with a shorter log get the rest of the winner's. With one, all begin anew at the same index with an empty log:
// the last one that has anything at or below T. What some have applied above it is taken back by the rewind.
func (pl *planner) align(g *group, c *choice, limit uint64) {
	if c.tail == TailDrop {
		return
	}
	w := c.member(c.winner.StoreID)
	top, _ := w.p.end()
	if c.tail == TailNeutralise {
		top = 0
		for _, m := range c.members {
			top = max(top, m.to, m.p.HardCommit)
		}
	}
	short := func(m member) bool { return m.p != w.p && m.carried == 0 && commonEnd(w.p, m.p) < top }
	if !slices.ContainsFunc(c.members, short) {
		return
	}
	voters := 0
	for _, q := range pl.roles(g, c) {
		if q.Role == raftstate.Voter {
			voters++
		}
	}
	if len(c.members) == 2 && voters == 2 {
		return
	}
	if c.tail == TailNeutralise {
		pl.lower(c, limit)
		return
	}
	for i := range c.members {
		m := &c.members[i]
		if !short(*m) {
			continue
		}
		common := min(commonEnd(w.p, m.p), m.p.Last)
		if q := pl.carry(w.p, m.p, common); q != nil {
			m.p, m.carried = q, common
		} else {
			c.left[m.p.StoreID] = fmt.Sprintf("its log agrees with the winner's up to %d only, and it could be elected without the rest: PD copies the region again", common)
		}
	}
	c.members = slices.DeleteFunc(c.members, func(m member) bool { return short(m) })
}

// lower lets all members of a rewound region begin anew at the last index that has anything at or below T.
func (pl *planner) lower(c *choice, limit uint64) {
	w := c.winner
	end, _ := w.end()
	from := w.Applied
	for _, m := range c.members {
		from = min(from, m.p.Applied)
	}
	x := max(from, pl.lastToKeep(w, from, end), lastStep(walk(w), limit))
	if from < w.Truncated.Index {
		x = max(x, w.Truncated.Index)
	}
	c.members = slices.DeleteFunc(c.members, func(m member) bool {
		bad, why := reach(m.p, m.p.Applied, x)
		if m.p != w && commonEnd(w, m.p) < x {
			bad, why = x, "its log does not agree with the winner's"
		}
		if bad != 0 {
			c.left[m.p.StoreID] = fmt.Sprintf("it cannot begin at index %d with the others: entry %d: %s", x, bad, why)
		}
		return bad != 0
	})
	for i := range c.members {
		m := &c.members[i]
		if m.to = x; x <= m.p.Applied {
			m.carried = 0 // the log is emptied, and nothing of it is applied first
		}
	}
	c.tail, c.lowered = TailDrop, true
}

// needForRewind is how far p has to be applied so that it equals, at T, a winner that is applied up to x: past everything at or below T,
// and past what the winner's log no longer tells about.
func (pl *planner) needForRewind(w, p *PeerReport, x uint64) uint64 {
	end, _ := w.end()
	need := pl.lastToKeep(w, p.Applied, max(x, min(end, w.Applied)))
	if p.Applied < w.Truncated.Index {
		need = max(need, w.Truncated.Index)
	}
	return max(need, p.Applied)
}

// outcome finds the descriptor of a member once it is applied, and the steps that the plan carries out on the way.
func (pl *planner) outcome(m *member, limit uint64) {
	m.after, m.state = m.p.Region, m.p.State
	for _, s := range walk(m.p).steps {
		if s.index > m.to || s.index > limit {
			break
		}
		m.after, m.state = s.after, s.state
		if s.structural() {
			m.steps = append(m.steps, s)
		}
	}
}

// epochs gives the new epoch and term.
//
// conf_ver rises above everything that anybody knows of the region, with a margin: conf changes in the log become no-ops, and a peer that
// comes back is recognised as stale. The version stays where writes in the log still have to apply, and rises where they must not, or where
// a descriptor with a higher version claims a part of the range.
func (pl *planner) epochs(g *group, c *choice) {
	seen := c.after.Epoch
	for _, p := range slices.Concat(g.peers, g.tombs) {
		seen.ConfVer = max(seen.ConfVer, p.Region.Epoch.ConfVer)
		c.term = max(c.term, p.HardTerm)
		for _, e := range p.Log {
			seen.ConfVer = max(seen.ConfVer, e.Epoch.ConfVer)
			if e.First > p.Applied {
				seen.Version = max(seen.Version, e.Epoch.Version)
			}
		}
	}
	c.confVer = max(seen.ConfVer, pl.pdByID[g.id].ConfVer) + confVerMargin
	c.version = c.after.Epoch.Version
	for _, m := range c.members {
		// A peer that had applied the preparation of a merge is one version ahead.
		c.version = max(c.version, m.after.Epoch.Version)
	}
	win := c.member(c.winner.StoreID)
	whole := win == nil || win.to >= c.winner.Last || c.tail == TailDrop
	if win != nil && win.state == raftstate.Merging && !c.applying {
		g.rolled = true
		c.version++
		c.notes = append(c.notes, "the merge that it had prepared is taken back")
	}
	pd := pl.knownVersion(g, c.after.StartKey, c.after.EndKey)
	switch {
	case c.applying:
	case pl.rewind():
		c.version = max(c.version, seen.Version, pd) + 1
	case g.shrink != nil && whole:
		c.version = max(c.version, seen.Version, g.shrink.version, pd) + 1
	case g.shrink != nil:
		c.version = max(c.version, g.shrink.version)
	case pd > c.version && whole:
		c.version = max(seen.Version, pd) + 1
	}
	if g.shrink != nil {
		c.after.StartKey, c.after.EndKey = g.shrink.start, g.shrink.end
	}
}

// roles gives the peers of a rewritten region: exactly those that are kept. Where a quorum was lost all become voters; a healthy region that
// is only rewound keeps its roles, out of the joint state.
func (pl *planner) roles(g *group, c *choice) []raftstate.Peer {
	var out []raftstate.Peer
	voters := 0
	for _, m := range c.members {
		own, _ := m.p.Region.PeerOn(m.p.StoreID)
		role := raftstate.Voter
		if g.healthy && pl.rewind() {
			if q, ok := g.newest.Region.PeerOn(m.p.StoreID); ok && q.ID == own.ID && (q.Role == raftstate.Learner || q.Role == raftstate.DemotingVoter) {
				role = raftstate.Learner
			}
		}
		if role == raftstate.Voter {
			voters++
		}
		out = append(out, raftstate.Peer{ID: own.ID, StoreID: m.p.StoreID, Role: role})
	}
	if voters == 0 {
		for i := range out {
			out[i].Role = raftstate.Voter
		}
	}
	return out
}

// losses names what survivors have, or know to be committed, and the result does not have.
func (pl *planner) losses(g *group, c *choice, best *PeerReport) {
	end, _ := c.winner.end()
	if c.tail == TailDrop && !c.lowered && c.resultEnd < end {
		c.lost = append(c.lost, lostRange(c.winner, c.resultEnd, min(end, max(g.frontier, c.resultEnd)), "the log is dropped there")...)
		if end > max(g.frontier, c.resultEnd) {
			c.maybe = append(c.maybe, fmt.Sprintf("entries %d to %d, not known to be committed, are dropped", max(g.frontier, c.resultEnd)+1, end))
		}
	}
	for _, p := range g.peers {
		if p.StoreID == c.winner.StoreID {
			continue
		}
		have := max(p.Applied, min(p.Commit, p.Last))
		if at := min(have, end); at > 0 {
			mine, ok := c.winner.termAt(at)
			if theirs, known := p.termAt(at); ok && known && mine != theirs {
				c.lost = append(c.lost, lostRange(p, commonEnd(c.winner, p), have, "the log that is kept has others in their place")...)
				continue
			}
		}
		if have > c.resultEnd && !(p.RegionID == c.winner.RegionID && c.tail == TailDrop && have <= end) {
			c.lost = append(c.lost, lostRange(p, c.resultEnd, have, "the replica with the longest usable log does not have them")...)
		}
		if c.winner.StoreID != best.StoreID && p == best && c.winner.Last < best.Last {
			c.maybe = append(c.maybe, fmt.Sprintf("store %d has a longer log, up to %d", best.StoreID, best.Last))
		}
	}
	// What anybody knows to be committed and nobody has.
	if top := g.frontier; top > c.resultEnd && top > end {
		held := uint64(0)
		for _, l := range c.lost {
			held = max(held, l.Last)
		}
		if top > max(held, c.resultEnd) {
			c.lost = append(c.lost, LostEntries{First: max(held, c.resultEnd) + 1, Last: top, Why: "a survivor knows them to be committed, and no survivor has them"})
		}
	}
}

// lostRange are the entries of (from, to] of a peer.
func lostRange(p *PeerReport, from, to uint64, why string) []LostEntries {
	if to <= from {
		return nil
	}
	l := LostEntries{StoreID: p.StoreID, First: from + 1, Last: to, Applied: to <= p.Applied, Why: why}
	for _, e := range p.above(from) {
		if e.First > to {
			break
		}
		l.add(e)
	}
	return []LostEntries{l}
}
