package plan

import (
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// logs holds I6, the start rules on the new records, and that nothing which survived is lost without being named.
func (c *checker) logs() {
	for _, l := range c.live {
		if l.act == nil || l.act.New.State == raftstate.Applying {
			continue
		}
		n := l.act.New
		hard := raftstate.HardState{Term: n.Term, Vote: n.Vote, Commit: n.Commit}
		raft := &raftstate.RaftLocalState{HardState: hard, LastIndex: n.Last}
		apply := &raftstate.RaftApplyState{AppliedIndex: n.Applied, CommitIndex: n.Applied, CommitTerm: n.AppliedTerm, TruncatedState: n.Truncated}
		for _, v := range raftstate.StartCheck(raftstate.StartInput{StoreID: l.store, Region: raftstate.RegionLocalState{State: n.State, Region: *l.region},
			Raft: raft, Apply: apply, EntryTerm: c.terms(l)}) {
			c.add("I6", atRegion(l.store, l.region.ID), "%s", v.Message)
		}
		if n.Applied < n.Truncated.Index || n.Truncated.Index > n.Last {
			c.add("I6", atRegion(l.store, l.region.ID), "truncated %d, applied %d, last %d", n.Truncated.Index, n.Applied, n.Last)
		}
	}
	listed := map[uint64]*RegionPlan{}
	for i := range c.p.Regions {
		listed[c.p.Regions[i].ID] = &c.p.Regions[i]
	}
	for _, r := range c.in.Peers {
		if r.State == raftstate.Tombstone || !r.Region.Initialized() {
			continue
		}
		rp := listed[r.RegionID]
		if rp == nil || len(rp.KeptStores) == 0 {
			continue
		}
		reach := uint64(0)
		for _, l := range c.of(r.RegionID) {
			if l.act == nil {
				continue
			}
			reach = max(reach, l.act.New.Applied, l.act.New.Last)
		}
		have := max(r.Applied, min(r.Commit, r.Last))
		if c.p.ToTS != 0 && have > reach && len(rp.Loss.Entries) == 0 {
			c.onlyAbove(atRegion(r.StoreID, r.RegionID), after{store: r.StoreID, region: &r.Region, peer: r}, reach, have)
			continue
		}
		if have > reach && !slices.ContainsFunc(rp.Loss.Entries, func(e LostEntries) bool { return e.First <= reach+1 && e.Last >= have }) {
			c.add("loss", atRegion(r.StoreID, r.RegionID), "it has entries up to %d, the result up to %d, and the plan does not say that they are lost", have, reach)
		}
	}
}

// terms gives the log as it is afterwards.
func (c *checker) terms(l after) func(uint64) (uint64, bool) {
	return func(i uint64) (uint64, bool) {
		n := l.act.New
		if l.act.Tail == TailDrop || l.peer == nil || i <= n.Truncated.Index || i > n.Last {
			return 0, false
		}
		if ap := l.act.Apply; ap != nil && ap.CarriedFrom != 0 && i > ap.CarriedFrom {
			for _, r := range c.p.Carried {
				for _, e := range r.Entries {
					if r.RegionID == l.region.ID && e.Index == i {
						return e.Term, true
					}
				}
			}
			return n.LastTerm, !c.p.Final // asked for
		}
		for _, g := range l.peer.Log {
			if g.First <= i && i <= g.Last && g.Kind != GroupMissing {
				return g.Term, true
			}
		}
		return 0, false
	}
}

// ids is I8.
func (c *checker) ids() {
	top := uint64(0) // of ids that are in use, and so of all that are seen
	for _, r := range c.in.Peers {
		top = max(top, r.RegionID)
		for _, q := range r.Region.Peers {
			top = max(top, q.ID)
		}
	}
	used := top
	for _, s := range c.in.Stores {
		top = max(top, s.MaxID)
	}
	for _, p := range c.in.PD {
		top = max(top, p.AllocID)
	}
	fresh := map[uint64]bool{}
	for _, l := range c.live {
		if l.act == nil || l.act.Kind != ActionCreate {
			continue
		}
		for _, q := range l.region.Peers {
			used = max(used, q.ID)
		}
		if !l.act.DeleteData {
			continue // the ids are those of the split, and of the peers that it lacks
		}
		for _, id := range []uint64{l.region.ID, l.region.Peers[0].ID} {
			if id <= top || fresh[id] {
				c.add("I8", atRegion(l.store, l.region.ID), "the new id %d is not above %d, or taken twice", id, top)
			}
			fresh[id] = true
			used = max(used, id)
		}
	}
	if used > c.p.Floors.AllocID {
		c.add("I8", "allocator", "id %d is in use, the floor is %d", used, c.p.Floors.AllocID)
	}
}

// untouched is I10 and I11: a rewind changes all, a repair without one leaves simple healthy regions alone.
func (c *checker) untouched() {
	if c.p.ToTS != 0 {
		for _, l := range c.live {
			if l.act == nil {
				c.add("I10", atRegion(l.store, l.region.ID), "it is neither rewound nor destroyed")
			}
		}
		return
	}
	named := map[uint64]bool{}
	for _, rp := range c.p.Regions {
		named[rp.ID] = rp.LostQuorum
	}
	for id, lost := range named {
		ps := c.reports(id)
		if !lost || len(ps) == 0 || slices.ContainsFunc(c.p.ByHand, func(h ByHand) bool { return h.Region == id }) {
			continue
		}
		voters, alive, simple := 0, 0, true
		for _, q := range ps[0].Region.Peers {
			if q.Role != raftstate.Learner {
				voters++
			}
		}
		for _, p := range ps {
			own, _ := p.Region.PeerOn(p.StoreID)
			simple = simple && p.State == raftstate.Normal && p.Usable && len(p.StartRules) == 0 && !p.Region.IsJoint() && !own.IsWitness &&
				p.Region.Epoch == ps[0].Region.Epoch && !slices.ContainsFunc(p.Log, func(g LogGroup) bool {
				return g.Last > p.Applied && (g.StopsTiKV || g.Kind != GroupWrite && g.Kind != GroupEmpty)
			})
			if own.Role == raftstate.Voter {
				alive++
			}
		}
		if simple && 2*alive > voters {
			c.add("I11", fmt.Sprintf("region %d", id), "%d of %d voters survive, and it is rewritten", alive, voters)
		}
	}
}

// refusals is the part of I14 that a plan shows.
func (c *checker) refusals() {
	blocking := map[string]bool{}
	for _, f := range c.p.Blocking() {
		blocking[f.Name] = true
	}
	for _, s := range c.in.Stores {
		if s.Engine != EngineV1 {
			c.add("I14", atStore(s.StoreID), "engine %s", s.Engine)
		}
		if c.p.ToTS != 0 && s.SafePoint > c.p.ToTS && !blocking["safe-point-above-t"] {
			c.add("I14", atStore(s.StoreID), "its safe point is above T")
		}
		if c.p.ToTS != 0 && s.RawData && s.APIVersion != "V2" && !blocking["raw-data"] {
			c.add("I14", atStore(s.StoreID), "raw data has no versions")
		}
	}
}
