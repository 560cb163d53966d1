package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// outcome is one live peer as it is after the plan.
type after struct {
	store   uint64
	region  *raftstate.Region
	peer    *PeerReport // nil: created
	act     *Action     // nil: left alone
	applied uint64
}

type checker struct {
	in   Input
	p    *Plan
	out  []Violation
	live []after       // by region, store
	rep  []*PeerReport // by region, store
}

// Check tests the invariants of repair-semantics.md 10 on the result of a plan. It shares no decision with the planner: it carries the
// actions out on the reports and looks at what comes out. A violation is a bug of the planner, and the plan must not be used.
//
// I6 is tested for what is rewritten or created, from the numbers of the reports; I10 for peers, not for data; I13 is a matter of apply.
func Check(in Input, p *Plan) []Violation {
	c := &checker{in: in, p: p, rep: slices.Clone(in.Peers)}
	slices.SortFunc(c.rep, func(a, b *PeerReport) int {
		return cmp.Or(cmp.Compare(a.RegionID, b.RegionID), cmp.Compare(a.StoreID, b.StoreID))
	})
	c.carryOut()
	c.ranges()
	c.records()
	c.epochs()
	c.logs()
	c.ids()
	c.untouched()
	c.refusals()
	slices.SortFunc(c.out, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Invariant, b.Invariant), cmp.Compare(a.Where, b.Where), cmp.Compare(a.What, b.What))
	})
	return c.out
}

func (c *checker) add(inv, where, format string, args ...any) {
	c.out = append(c.out, Violation{Invariant: inv, Where: where, What: fmt.Sprintf(format, args...)})
}

// reports lists the peers of a region as they were reported, of the live ones what they are afterwards.
func (c *checker) reports(id uint64) []*PeerReport {
	return section(c.rep, id, func(r *PeerReport) uint64 { return r.RegionID })
}

func (c *checker) of(id uint64) []after {
	return section(c.live, id, func(l after) uint64 { return l.region.ID })
}

// section finds the elements of a region in a slice that is sorted by region.
func section[T any](s []T, id uint64, of func(T) uint64) []T {
	i, _ := slices.BinarySearchFunc(s, id, func(t T, id uint64) int { return cmp.Compare(of(t), id) })
	j := i
	for j < len(s) && of(s[j]) == id {
		j++
	}
	return s[i:j:j]
}

// regions calls f for each region with the peers that it has afterwards.
func (c *checker) regions(f func(id uint64, ls []after)) {
	for i := 0; i < len(c.live); {
		j := i + 1
		for j < len(c.live) && c.live[j].region.ID == c.live[i].region.ID {
			j++
		}
		f(c.live[i].region.ID, c.live[i:j:j])
		i = j
	}
}

func (c *checker) report(at RegionStore) *PeerReport {
	for _, r := range c.reports(at.Region) {
		if r.StoreID == at.Store {
			return r
		}
	}
	return nil
}

// carryOut applies the actions, and tests I12: each fits the report that it was made from.
func (c *checker) carryOut() {
	acted := map[RegionStore]*Action{}
	c.live = make([]after, 0, len(c.in.Peers)+64)
	for i := range c.p.Stores {
		s := &c.p.Stores[i]
		for j := range s.Actions {
			a := &s.Actions[j]
			at := RegionStore{a.RegionID, s.StoreID}
			where := atRegion(s.StoreID, a.RegionID)
			if acted[at] != nil {
				c.add("I12", where, "two actions")
			}
			acted[at] = a
			old := c.report(at)
			switch {
			case a.Kind == ActionCreate && old != nil && old.State != raftstate.Tombstone:
				c.add("I12", where, "created although it is there")
			case a.Kind != ActionCreate && old == nil:
				c.add("I12", where, "%s of a peer that was not reported", a.Kind)
			case a.Kind != ActionCreate && old.Fingerprint != a.Old:
				c.add("I12", where, "the fingerprint is not the report's")
			}
			if a.Kind == ActionTombstone && old != nil {
				e, was := a.New.Region.Epoch, old.Region.Epoch
				if a.New.Region.ID != a.RegionID || e.ConfVer < was.ConfVer || e.Version < was.Version {
					c.add("I4", where, "its tombstone remembers region %d, epoch %d:%d; it had %d:%d", a.New.Region.ID, e.ConfVer, e.Version, was.ConfVer, was.Version)
				}
			}
			if a.Kind != ActionTombstone {
				c.live = append(c.live, after{s.StoreID, &a.New.Region, old, a, a.New.Applied})
			}
		}
	}
	for _, r := range c.in.Peers {
		if r.State != raftstate.Tombstone && r.Region.Initialized() && acted[RegionStore{r.RegionID, r.StoreID}] == nil {
			c.live = append(c.live, after{r.StoreID, &r.Region, r, nil, r.Applied})
		}
	}
	c.storeRanges()
	slices.SortFunc(c.live, func(a, b after) int {
		return cmp.Or(cmp.Compare(a.region.ID, b.region.ID), cmp.Compare(a.store, b.store))
	})
}

// changing tells whether a log holds a command above applied that moves region boundaries when TiKV applies it.
func changing(p *PeerReport) bool {
	if p == nil {
		return false
	}
	for _, g := range p.Log {
		if g.Last > p.Applied && g.Admin != nil && (len(g.Admin.Splits) > 0 || g.Admin.Type == raftstate.AdminCommitMerge || g.Admin.Type == raftstate.AdminPrepareMerge) {
			return true
		}
	}
	return p.State == raftstate.Merging
}

// storeRanges is the half of I1 about single stores: what is changed overlaps nothing.
func (c *checker) storeRanges() {
	slices.SortFunc(c.live, func(a, b after) int {
		return cmp.Or(cmp.Compare(a.store, b.store), bytes.Compare(a.region.StartKey, b.region.StartKey), cmp.Compare(a.region.ID, b.region.ID))
	})
	for i := 1; i < len(c.live); i++ {
		a, b := c.live[i-1], c.live[i]
		if a.store != b.store || a.act == nil && b.act == nil || changing(a.peer) && a.act == nil || changing(b.peer) && b.act == nil {
			continue
		}
		if overlaps(a.region.StartKey, a.region.EndKey, b.region.StartKey, b.region.EndKey) {
			c.add("I1", atStore(a.store), "regions %d and %d overlap", a.region.ID, b.region.ID)
		}
	}
}

// ranges is the other half of I1: all regions together divide the key space.
func (c *checker) ranges() {
	// The newest descriptor of each region.
	newest := make([]after, 0, len(c.live)/2)
	soft := map[uint64]bool{}
	c.regions(func(_ uint64, ls []after) {
		n := ls[0]
		for _, l := range ls[1:] {
			if compareEpoch(l.region.Epoch, n.region.Epoch) > 0 {
				n = l
			}
		}
		for _, l := range ls {
			if l.act == nil && changing(l.peer) {
				soft[n.region.ID] = true
			}
		}
		newest = append(newest, n)
		// TiKV has yet to divide these: regions that it will create then have no descriptor of their own.
		for _, l := range ls {
			if l.store != n.store && l.act == nil && changing(l.peer) {
				newest = append(newest, l)
			}
		}
	})
	slices.SortFunc(newest, func(a, b after) int {
		return cmp.Or(bytes.Compare(a.region.StartKey, b.region.StartKey), cmp.Compare(a.region.ID, b.region.ID))
	})
	var end raftstate.Key
	open := true
	var last after
	for i, n := range newest {
		switch {
		case open && bytes.Compare(end, n.region.StartKey) < 0:
			c.add("I1", fmt.Sprintf("region %d", n.region.ID), "nobody holds the keys %s to %s before it", end, n.region.StartKey)
		case i > 0 && overlaps(last.region.StartKey, last.region.EndKey, n.region.StartKey, n.region.EndKey) && !soft[n.region.ID] && !soft[last.region.ID]:
			if n.act != nil || last.act != nil {
				c.add("I1", fmt.Sprintf("region %d", n.region.ID), "it overlaps region %d", last.region.ID)
			}
		}
		if i == 0 || compareEnds(n.region.EndKey, end) > 0 {
			end, last = n.region.EndKey, n
		}
		if len(n.region.EndKey) == 0 {
			open = false
		}
	}
	if open && !anySoft(soft) {
		c.add("I1", "the key space", "nobody holds the keys from %s on", end)
	}
}

func anySoft(m map[uint64]bool) bool {
	for _, v := range m {
		if v {
			return true
		}
	}
	return false
}

// records holds I2, I3, I5 and I7 for what is changed.
func (c *checker) records() {
	failed := map[uint64]bool{}
	for _, s := range c.p.FailedStores {
		failed[s] = true
	}
	reported := map[uint64]bool{}
	for _, s := range c.in.Stores {
		reported[s.StoreID] = true
	}
	c.regions(func(id uint64, ls []after) {
		var first *after
		for i := range ls {
			l := &ls[i]
			if l.act == nil {
				continue
			}
			where := atRegion(l.store, id)
			if _, ok := l.region.PeerOn(l.store); !ok {
				c.add("I2", where, "its own store is not in the peer list")
			}
			ids, stores, voters := map[uint64]bool{}, map[uint64]bool{}, 0
			for _, q := range l.region.Peers {
				if ids[q.ID] || stores[q.StoreID] {
					c.add("I2", where, "peer %d on store %d is listed twice", q.ID, q.StoreID)
				}
				ids[q.ID], stores[q.StoreID] = true, true
				switch q.Role {
				case raftstate.Voter:
					voters++
				case raftstate.Learner:
				default:
					c.add("I2", where, "a joint role")
				}
				if failed[q.StoreID] || !reported[q.StoreID] {
					c.add("I7", where, "it refers to store %d", q.StoreID)
				}
				if !slices.ContainsFunc(ls, func(o after) bool { return o.store == q.StoreID && o.act != nil }) {
					c.add("I3", where, "its peer on store %d is not part of the plan", q.StoreID)
				}
			}
			if voters == 0 {
				c.add("I2", where, "no voter")
			}
			if first == nil {
				first = l
				continue
			}
			c.pair(*first, *l)
		}
		if first != nil {
			for _, l := range ls {
				if l.act == nil {
					c.add("I3", atRegion(l.store, id), "it is left alone while other replicas change")
				}
			}
		}
	})
}

// pair compares two replicas that are kept: I3 and I5.
func (c *checker) pair(a, b after) {
	where := atRegion(b.store, b.region.ID)
	ra, rb := a.region, b.region
	if ra.Epoch != rb.Epoch || !bytes.Equal(ra.StartKey, rb.StartKey) || !bytes.Equal(ra.EndKey, rb.EndKey) || !samePeers(ra.Peers, rb.Peers) {
		c.add("I3", where, "its descriptor differs from that on store %d", a.store)
	}
	x, y := a.act.New, b.act.New
	if x.Applied == y.Applied {
		if x.AppliedTerm != y.AppliedTerm {
			c.add("I5", where, "applied %d has term %d, on store %d term %d", y.Applied, y.AppliedTerm, a.store, x.AppliedTerm)
		}
		return
	}
	lo, hi, holder := min(x.Applied, y.Applied), max(x.Applied, y.Applied), a
	if y.Applied > x.Applied {
		holder = b
	}
	if c.p.ToTS == 0 || a.act.Tail == TailDrop || b.act.Tail == TailDrop {
		c.add("I5", where, "applied is %d, on store %d %d", y.Applied, a.store, x.Applied)
		return
	}
	// Different only by what the rewind takes back.
	c.onlyAbove(where, holder, lo, hi)
}

// onlyAbove demands that some report shows, for each entry of (lo, hi], that all it does is above T. Reports cut their logs into runs of
// different lengths: one that shows it is enough.
func (c *checker) onlyAbove(where string, holder after, lo, hi uint64) {
	for at := lo + 1; at <= hi; {
		next := at
		for _, src := range c.sources(holder) {
			for _, g := range src.Log {
				if g.First <= at && at <= g.Last && g.Kind != GroupMissing && !tooOld(g, c.p.ToTS) {
					next = max(next, g.Last+1)
				}
			}
		}
		if next == at {
			c.add("I5", where, "applied %d and %d: entry %d between them may have something at or below T", lo, hi, at)
			return
		}
		at = next
	}
}

// lowered proves that what a peer has applied above its new applied index goes away with the rewind.
func (c *checker) lowered(l after) {
	where := atRegion(l.store, l.region.ID)
	if c.p.ToTS == 0 || l.act.Tail != TailDrop {
		c.add("I5", where, "applied goes back from %d to %d", l.peer.Applied, l.applied)
		return
	}
	c.onlyAbove(where, l, l.applied, l.peer.Applied)
}

// sources lists the reports of a region, the holder's first.
func (c *checker) sources(holder after) []*PeerReport {
	out := []*PeerReport{holder.peer}
	for _, l := range c.of(holder.region.ID) {
		if l.peer != nil && l.store != holder.store {
			out = append(out, l.peer)
		}
	}
	return out
}

// tooOld tells whether a group may change something at or below t.
func tooOld(g LogGroup, t mvcc.TS) bool {
	if g.Admin != nil {
		switch g.Admin.Type {
		case raftstate.AdminCompactLog, raftstate.AdminTransferLeader, raftstate.AdminComputeHash, raftstate.AdminVerifyHash, raftstate.AdminUpdateGcPeer,
			raftstate.AdminChangePeer, raftstate.AdminChangePeerV2:
			return false
		}
		return true
	}
	if g.Kind == GroupOpaque || g.Kind == GroupMissing || g.Blocked != "" {
		return true
	}
	w := g.Write
	if w == nil {
		return false
	}
	return w.Unstamped > 0 || w.DeleteRanges > 0 || w.Ingests > 0 || w.MinCommitTS != 0 && w.MinCommitTS <= t || w.MinStartTS != 0 && w.MinStartTS <= t
}

// epochs is I4 and I9: nothing that is known is newer, and nothing in a log passes the epoch checks that should not.
func (c *checker) epochs() {
	forgiven := map[string]bool{}
	for _, f := range c.p.Problems {
		if f.Name == "pd-newer" {
			forgiven[f.Where] = true
		}
	}
	pd := map[uint64]raftstate.Epoch{}
	for _, p := range c.in.PD {
		for _, r := range p.Regions {
			pd[r.ID] = raftstate.Epoch{ConfVer: max(pd[r.ID].ConfVer, r.Epoch.ConfVer), Version: max(pd[r.ID].Version, r.Epoch.Version)}
		}
	}
	for _, r := range c.in.Peers {
		for _, l := range c.of(r.RegionID) {
			if l.act == nil || l.act.Kind == ActionCreate {
				continue
			}
			where := atRegion(l.store, r.RegionID)
			e := l.region.Epoch
			if e.ConfVer <= r.Region.Epoch.ConfVer {
				c.add("I4", where, "conf_ver %d is not above %d on store %d", e.ConfVer, r.Region.Epoch.ConfVer, r.StoreID)
			}
			if e.Version < r.Region.Epoch.Version {
				c.add("I4", where, "version %d is below %d on store %d", e.Version, r.Region.Epoch.Version, r.StoreID)
			}
			if q := pd[r.RegionID]; e.ConfVer <= q.ConfVer || e.Version < q.Version && !forgiven[fmt.Sprintf("region %d", r.RegionID)] {
				c.add("I4", where, "epoch %d:%d, PD knows %d:%d", e.ConfVer, e.Version, q.ConfVer, q.Version)
			}
		}
	}
	for _, l := range c.live {
		if l.act == nil || l.peer == nil {
			continue
		}
		if l.act.Kind == ActionRewrite && l.applied < l.peer.Applied {
			c.lowered(l)
		}
		if l.act.Tail == TailDrop {
			continue
		}
		for _, g := range l.peer.Log {
			if g.Last <= l.applied {
				continue
			}
			where := atRegion(l.store, l.region.ID)
			if l.act.Tail == TailNeutralise && g.Epoch.Version >= l.region.Epoch.Version {
				c.add("I9", where, "entry %d has version %d and would be applied after the rewind", g.First, g.Epoch.Version)
			}
			if (g.Kind == GroupAdmin || g.Kind == GroupConfChange) && g.Admin != nil {
				if k := g.Admin.Type.Checks(); k.ConfVer && g.Epoch.ConfVer == l.region.Epoch.ConfVer {
					c.add("I9", where, "%s at %d passes the epoch check", g.Admin.Type, g.First)
				}
			}
		}
	}
}
