package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// act turns the decisions into actions.
func (pl *planner) act() {
	for i := range pl.groups {
		g := &pl.groups[i]
		switch {
		case g.newest == nil:
		case !g.touched:
			pl.healthy++
			pl.leaveAlone(g)
		case g.fate != "":
			pl.end(g)
		default:
			pl.rewrite(g)
		}
	}
	for s := range pl.actions {
		slices.SortStableFunc(pl.actions[s], func(a, b Action) int {
			return cmp.Or(cmp.Compare(actionOrder(a), actionOrder(b)), cmp.Compare(a.RegionID, b.RegionID))
		})
	}
}

// actionOrder: what goes is out of the way before something new takes its place.
func actionOrder(a Action) int {
	switch a.Kind {
	case ActionTombstone:
		return 0
	case ActionRewrite:
		return 1
	}
	return 2
}

// leaveAlone tells what is worth knowing about a healthy region; only a peer that keeps TiKV from starting has to go.
func (pl *planner) leaveAlone(g *group) {
	for _, p := range g.peers {
		if why := p.stops(); why != "" {
			// The list keeps this peer: it must not come to life again with the same id and without its log, because it may have been
			// counted for what is committed. PD replaces it under a new id.
			pl.tombstone(p, "TiKV would not start with it, and the region has its quorum elsewhere: "+why, p.Region)
			pl.regions = append(pl.regions, RegionPlan{ID: g.id, Range: rangeOf(g.newest.Region), Decision: DecisionHealthy, Reason: "one of its peers is destroyed: TiKV would not start with it",
				Old: g.newest.Region, New: g.newest.Region, Survivors: pl.survivors(g), Loss: Loss{Certainty: LossNone}, CopyBytes: p.Bytes})
			continue
		}
		if own, ok := p.Region.PeerOn(p.StoreID); !p.Usable && ok && !own.IsWitness && p.State != raftstate.Applying {
			pl.problem(&UnusablePeer{Store: p.StoreID, Region: p.RegionID, Reason: p.Reason})
		}
	}
}

// tombstone destroys a peer. record is what the tombstone remembers (repair-semantics.md 6.2): messages from an older epoch are dropped, and
// those to a peer id that is in its list.
func (pl *planner) tombstone(p *PeerReport, why string, record raftstate.Region) *Action {
	pl.actions[p.StoreID] = append(pl.actions[p.StoreID], Action{Kind: ActionTombstone, RegionID: p.RegionID, Old: p.Fingerprint, Reason: why,
		New: NewState{State: raftstate.Tombstone, Region: record}})
	list := pl.actions[p.StoreID]
	return &list[len(list)-1]
}

// without is a descriptor without the peer on a store, so that PD can place a replica there again.
func without(r raftstate.Region, store uint64) raftstate.Region {
	r.Peers = slices.DeleteFunc(slices.Clone(r.Peers), func(q raftstate.Peer) bool { return q.StoreID == store })
	return r
}

// end destroys all copies of a region of which nothing stays.
func (pl *planner) end(g *group) {
	rp := RegionPlan{ID: g.id, Range: rangeOf(g.newest.Region), Decision: g.fate, Reason: g.fateWhy, Old: g.newest.Region, Survivors: pl.survivors(g)}
	rp.Loss.Certainty = LossNone
	if g.fate == DecisionRemoved {
		rp.Loss = Loss{Certainty: LossCertain, Notes: []string{"nothing of it stays: " + g.fateWhy}}
	}
	for i := range g.peers {
		p := g.peers[i]
		if t := pl.takenIn(g, p); t != 0 {
			rp.Survivors[i].Why = fmt.Sprintf("left as it is: region %d takes it in when TiKV applies its log here", t)
			continue
		}
		rp.Survivors[i].Why = g.fateWhy
		if g.fate == DecisionRemoved {
			rp.Survivors[i].Why = cmp.Or(pl.excluded(p), p.Reason, g.fateWhy)
		}
		why := rp.Survivors[i].Why
		merged := pl.mergedHere(g, p)
		record := without(p.Region, p.StoreID)
		if g.fate != DecisionMerged {
			// Nothing of this id goes on: what comes back, from a store that is gone or out of an old split, must not.
			top := pl.pdByID[g.id].ConfVer
			for _, q := range slices.Concat(g.peers, g.tombs) {
				top = max(top, q.Region.Epoch.ConfVer)
			}
			record.Epoch.ConfVer = top + confVerMargin
		}
		a := pl.tombstone(p, why, record)
		a.KeepMergeState = merged != 0 && p.MergeState != nil
		if merged > p.Applied {
			term, _ := p.termAt(merged)
			a.Apply = &ApplyLog{From: p.Applied, To: merged, Term: term, Version: p.Region.Epoch.Version}
			for _, s := range walk(p).steps {
				if s.structural() && s.index <= merged {
					a.Apply.Admin = append(a.Apply.Admin, AdminStep{s.index, s.admin.Type, s.after.Epoch.Version})
				}
			}
		}
	}
	pl.regions = append(pl.regions, rp)
}

// targets lists the regions that take a source in, or may.
func (pl *planner) targets(g *group) (out []*group) {
	add := func(id uint64) {
		if t := pl.group(id); t != nil && !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	for _, t := range pl.merges[g.id] {
		add(t.Region)
	}
	for _, id := range mergesInto(g) {
		add(id)
	}
	for _, t := range g.tombs {
		if t.MergeState != nil && t.MergeState.Target != nil {
			add(t.MergeState.Target.ID)
		}
	}
	return out
}

// takenIn names the region that is left alone and takes p in on this store when TiKV applies its log, or what its log still lacks here:
// TiKV needs p for that.
func (pl *planner) takenIn(g *group, p *PeerReport) uint64 {
	if g.fate != DecisionMerged || pl.excluded(p) != "" {
		return 0
	}
	for _, t := range pl.targets(g) {
		if t.touched {
			continue
		}
		// Taking p in would have destroyed it: where it lives, that is still to come.
		o := t.peerOn(p.StoreID)
		if o != nil && !overlaps(o.Region.StartKey, o.Region.EndKey, p.Region.StartKey, p.Region.EndKey) {
			return t.id
		}
	}
	return 0
}

// mergedHere tells up to where a source has to be applied before the target takes it in on this store; 0: the plan does not merge it here.
func (pl *planner) mergedHere(g *group, p *PeerReport) uint64 {
	for _, target := range pl.targets(g) {
		if target.choice == nil {
			continue
		}
		m := target.choice.member(p.StoreID)
		if m == nil {
			continue
		}
		for _, s := range m.steps {
			if s.admin.Type == raftstate.AdminCommitMerge && s.admin.Source.ID == g.id {
				to, _ := pl.sourceReady(p.StoreID, s.admin)
				return to
			}
		}
	}
	return 0
}

// rewrite gives the members of a touched region their new records and destroys its other peers.
func (pl *planner) rewrite(g *group) {
	c := g.choice
	n := c.after
	n.Peers = pl.roles(g, c)
	n.Epoch = raftstate.Epoch{ConfVer: c.confVer, Version: c.version}
	if n.IsInFlashback || g.newest.Region.IsInFlashback {
		pl.problem(&Flashback{Store: c.winner.StoreID, Region: g.id, StartTS: tsOf(g.newest.Region.FlashbackStartTS)})
		n.IsInFlashback, n.FlashbackStartTS = false, 0
	}
	if pd := pl.pdVersion(g.id, n.StartKey, n.EndKey); pd > c.version {
		pl.problem(&PDNewer{Region: g.id, Version: c.version, PDVersion: pd})
	}
	rp := RegionPlan{ID: g.id, Range: rangeOf(n), Decision: DecisionRewrite, Reason: g.cause, LostQuorum: !g.healthy, Old: g.newest.Region, New: n, Survivors: pl.survivors(g)}
	own, _ := c.winner.Region.PeerOn(c.winner.StoreID)
	rp.WinnerStore, rp.WinnerPeer = c.winner.StoreID, own.ID
	switch {
	case c.applying:
		rp.Decision = DecisionWait
	case g.healthy && pl.rewind():
		rp.Decision = DecisionRewind
	case g.shrink != nil && pl.opt.HoleFill == HoleStale && g.cause == staleCause:
		rp.Decision = DecisionStale
	}
	pl.carryEntries(g, c)
	kept := map[uint64]bool{}
	for i := range c.members {
		m := &c.members[i]
		kept[m.p.StoreID] = true
		rp.KeptStores = append(rp.KeptStores, m.p.StoreID)
		a := pl.rewriteAction(g, c, m, n)
		pl.actions[m.p.StoreID] = append(pl.actions[m.p.StoreID], a)
		pl.children(g, c, m)
	}
	for i, p := range g.peers {
		s := &rp.Survivors[i]
		if kept[p.StoreID] {
			s.Kept, s.Why = true, "kept"
			if p.StoreID == c.winner.StoreID {
				s.Why = "kept: the longest log"
				if len(g.peers) > 1 && c.winner != g.best && c.winner.StoreID != g.best.StoreID {
					s.Why = "kept: see the notes"
				}
			}
			continue
		}
		s.Why = cmp.Or(pl.excluded(p), c.left[p.StoreID], p.Reason, p.stops(), "it has no usable data")
		// With the new epoch: the old group, on stores that are gone or in splits that others have yet to carry out, cannot use this store
		// for a quorum of its own.
		pl.tombstone(p, fmt.Sprintf("region %d goes on without it: %s", g.id, s.Why), without(n, p.StoreID))
		rp.CopyBytes += p.Bytes
	}
	if len(c.members) < len(g.newest.Region.Peers) && rp.CopyBytes == 0 {
		rp.CopyBytes = c.winner.Bytes * uint64(len(g.newest.Region.Peers)-len(c.members))
	}
	rp.Loss = pl.lossOf(g, c)
	pl.regions = append(pl.regions, rp)
}

const staleCause = "a part of the key space is held by nobody, and this is the best old copy of it"

func (pl *planner) lossOf(g *group, c *choice) Loss {
	l := Loss{Certainty: LossPossible, Entries: c.lost, Notes: slices.Concat(c.notes, c.maybe)}
	switch {
	case len(c.lost) > 0:
		l.Certainty = LossCertain
	case g.healthy && len(c.maybe) == 0:
		l.Certainty = LossNone
	}
	if g.shrink != nil {
		if l.Certainty == LossNone {
			l.Certainty = LossPossible
		}
		l.Notes = append(l.Notes, "an old copy: what was written here since it was left behind is lost")
		pl.problem(&StaleCopy{Region: g.id, Store: c.winner.StoreID, Start: g.shrink.start, End: g.shrink.end})
	}
	if len(c.lost) > 0 {
		pl.problem(&CertainLoss{Region: g.id, Store: c.lost[0].StoreID, First: c.lost[0].First, Last: c.lost[len(c.lost)-1].Last, Versions: versions(c.lost), Why: c.lost[0].Why})
	}
	return l
}

func versions(ls []LostEntries) (n uint64) {
	for _, l := range ls {
		n += l.Versions
	}
	return n
}

// rewriteAction gives a member its new records.
func (pl *planner) rewriteAction(g *group, c *choice, m *member, n raftstate.Region) Action {
	p := m.p
	a := Action{Kind: ActionRewrite, RegionID: g.id, Old: p.Fingerprint, Reason: g.cause, Tail: c.tail, New: NewState{State: raftstate.Normal, Region: n}}
	if c.applying {
		a.New.State = raftstate.Applying
		a.New.Applied, a.New.AppliedTerm, a.New.Truncated = p.Applied, p.AppliedTerm, p.Truncated
		a.New.Last, a.New.LastTerm, a.New.Commit, a.New.Term, a.New.Vote = p.Last, p.LastTerm, p.HardCommit, p.HardTerm, p.Vote
		return a
	}
	term, ok := p.termAt(m.to)
	if !ok {
		term, _ = c.winner.termAt(m.to)
	}
	applied := originalApplied(g, p)
	if m.to > applied || m.carried != 0 {
		a.Apply = &ApplyLog{From: applied, To: m.to, Term: term, Version: p.Region.Epoch.Version, CarriedFrom: m.carried}
		for _, s := range m.steps {
			a.Apply.Admin = append(a.Apply.Admin, AdminStep{s.index, s.admin.Type, s.after.Epoch.Version})
		}
	}
	a.New.Applied, a.New.AppliedTerm = m.to, term
	if c.tail == TailDrop {
		a.New.Truncated = raftstate.TruncatedState{Index: m.to, Term: term}
		a.New.Last, a.New.LastTerm, a.New.Commit = m.to, term, m.to
	} else {
		a.New.Truncated, a.New.Last, a.New.LastTerm = p.Truncated, p.Last, p.LastTerm
		a.New.Commit = max(p.HardCommit, m.to)
	}
	a.New.Term, a.New.Vote = max(c.term, term), p.Vote
	if a.New.Term != p.HardTerm {
		a.New.Vote = 0
	}
	return a
}

// carryEntries asks for the log entries that members need from other stores, or takes them from the answers: what the winner's own log has
// comes from there, what was carried to the winner itself from the longest log.
func (pl *planner) carryEntries(g *group, c *choice) {
	from := c.winner.Last
	for _, m := range c.members {
		if m.carried != 0 {
			from = min(from, m.carried)
		}
	}
	own := c.winner.Last
	if k := c.member(c.winner.StoreID).carried; k != 0 {
		own = k
	}
	pl.carryFrom(g, c, c.winner.StoreID, from, own)
	if g.best != nil {
		pl.carryFrom(g, c, g.best.StoreID, max(own, from), c.winner.Last)
	}
}

func (pl *planner) carryFrom(g *group, c *choice, store, from, to uint64) {
	if from >= to {
		return
	}
	q := &Question{ID: fmt.Sprintf("entries-%d-%d-%d", g.id, from, to), Kind: AskEntries, Stores: []uint64{store}, RegionID: g.id, From: from, To: to,
		Reason: fmt.Sprintf("region %d: other stores need these log entries to hold the same data", g.id)}
	a := pl.answerOf(q.ID, store)
	if a == nil {
		pl.ask[q.ID] = q
		return
	}
	whole := uint64(len(a.Entries)) == to-from
	for i, e := range a.Entries {
		if term, ok := c.winner.termAt(e.Index); e.Index != from+1+uint64(i) || ok && term != e.Term {
			whole = false
		}
	}
	if !whole {
		pl.problem(&ReportMismatch{Store: store, Reason: fmt.Sprintf("its answer has not the log entries %d to %d of region %d that it reported", from+1, to, g.id)})
		return
	}
	pl.carried = append(pl.carried, CarriedRange{RegionID: g.id, FromStore: store, Entries: a.Entries})
}

// originalApplied is the applied index of the report: p may be as it is after entries were carried to it.
func originalApplied(g *group, p *PeerReport) uint64 {
	if o := g.peerOn(p.StoreID); o != nil {
		return o.Applied
	}
	return p.Applied
}

// children creates the regions that the splits carried out by a member give birth to, unless somebody has them already.
func (pl *planner) children(g *group, c *choice, m *member) {
	for _, s := range m.steps {
		for _, r := range s.children {
			if !pl.unborn(r.ID) {
				continue
			}
			pl.child(g, c, m, s, r)
		}
	}
}

// child creates one region on one store, as applying the split would: same data, an initial log.
func (pl *planner) child(g *group, c *choice, m *member, s step, r raftstate.Region) {
	why := fmt.Sprintf("the log of region %d splits it off at index %d, and no survivor has carried that out", g.id, s.index)
	n := pl.childMade[r.ID]
	part, cut := pl.bornPart[r.ID]
	if cut && part == nil {
		return
	}
	if n == nil {
		if cut {
			r.StartKey, r.EndKey, r.Epoch.Version = part.start, part.end, part.epoch.Version
			pl.problem(&StaleCopy{Region: r.ID, Store: m.p.StoreID, Start: r.StartKey, End: r.EndKey})
		}
		n = pl.newborn(c, s, r)
		pl.childMade[r.ID] = n
		rp := RegionPlan{ID: n.ID, Range: rangeOf(*n), Decision: DecisionSplitOff, Reason: why, New: *n, WinnerStore: n.Peers[0].StoreID, WinnerPeer: n.Peers[0].ID}
		rp.Loss.Certainty = LossPossible
		for _, q := range n.Peers {
			rp.KeptStores = append(rp.KeptStores, q.StoreID)
		}
		pl.regions = append(pl.regions, rp)
	}
	a := Action{Kind: ActionCreate, RegionID: n.ID, Reason: why, New: initial(*n)}
	pl.actions[m.p.StoreID] = append(pl.actions[m.p.StoreID], a)
}

// newborn is the descriptor of a region that a split creates: its peers are on the stores that carry the split out. A store that a conf
// change before the split had removed has the data all the same; its peer gets a new id.
func (pl *planner) newborn(c *choice, s step, r raftstate.Region) *raftstate.Region {
	n := r
	n.Peers = nil
	for _, o := range c.members {
		if !slices.ContainsFunc(o.steps, func(x step) bool { return x.index == s.index }) {
			continue
		}
		q := raftstate.Peer{StoreID: o.p.StoreID}
		if named, ok := r.PeerOn(q.StoreID); ok {
			q.ID = named.ID
		} else {
			q.ID = pl.newID()
		}
		n.Peers = append(n.Peers, q)
	}
	n.Epoch.ConfVer += confVerMargin
	if pd := pl.pdVersion(n.ID, n.StartKey, n.EndKey); pd > n.Epoch.Version {
		n.Epoch.Version = pd + 1 // its log is empty: nothing depends on the version
	}
	return &n
}

// initial are the records of a region without a log.
func initial(r raftstate.Region) NewState {
	const i, t = raftstate.InitLogIndex, raftstate.InitLogTerm
	return NewState{State: raftstate.Normal, Region: r, Applied: i, AppliedTerm: t, Truncated: raftstate.TruncatedState{Index: i, Term: t},
		Last: i, LastTerm: t, Commit: i, Term: t}
}

// createEmpty fills a gap: on the store of the right neighbour's winner, as PD does, else of the left one's.
func (pl *planner) createEmpty(h gap) {
	store := pl.storeID[0]
	for _, n := range []*placed{h.left, h.right} {
		if n == nil || n.g == nil {
			continue
		}
		if n.g.choice != nil {
			store = n.g.choice.winner.StoreID
		} else if n.g.best != nil {
			store = n.g.best.StoreID
		}
	}
	r := raftstate.Region{ID: pl.newID(), StartKey: h.start, EndKey: h.end, Epoch: raftstate.Epoch{ConfVer: 1, Version: 1}}
	r.Peers = []raftstate.Peer{{ID: pl.newID(), StoreID: store}}
	var had []RegionStore
	version := uint64(1)
	for _, p := range pl.leftovers() {
		if overlaps(p.Region.StartKey, p.Region.EndKey, h.start, h.end) {
			version = max(version, p.Region.Epoch.Version)
			if p.State != raftstate.Tombstone {
				had = append(had, RegionStore{p.RegionID, p.StoreID})
			}
		}
	}
	if len(h.start) == 0 && len(h.end) == 0 {
		// PD takes epoch (1,1) for a region made anew, but not one that spans everything.
		r.Epoch.Version = max(version, pl.pdVersion(0, nil, nil)) + 1
	}
	a := Action{Kind: ActionCreate, RegionID: r.ID, DeleteData: true, Reason: "nobody holds this part of the key space", New: initial(r)}
	pl.actions[store] = append(pl.actions[store], a)
	rp := RegionPlan{ID: r.ID, Range: rangeOf(r), Decision: DecisionCreate, Reason: "nobody holds this part of the key space", New: r, WinnerStore: store,
		WinnerPeer: r.Peers[0].ID, KeptStores: []uint64{store}, Loss: Loss{Certainty: LossCertain, Notes: []string{"all data of this range is lost"}}}
	pl.regions = append(pl.regions, rp)
	pl.problem(&Hole{Start: h.start, End: h.end, Region: r.ID, Store: store, Copies: had})
}

// survivors lists the peers of a group with their numbers.
func (pl *planner) survivors(g *group) []Survivor {
	var out []Survivor
	for _, p := range g.peers {
		own, _ := p.Region.PeerOn(p.StoreID)
		out = append(out, Survivor{StoreID: p.StoreID, PeerID: own.ID, Role: own.Role.String(), State: p.State.String(), ConfVer: p.Region.Epoch.ConfVer,
			Version: p.Region.Epoch.Version, Applied: p.Applied, AppliedTerm: p.AppliedTerm, Commit: p.Commit, Last: p.Last, LastTerm: p.LastTerm, HardTerm: p.HardTerm})
	}
	return out
}

// stores lists the stores that have something to do, and with a rewind all.
func (pl *planner) storePlans() []StorePlan {
	var out []StorePlan
	for _, id := range pl.storeID {
		out = append(out, StorePlan{StoreID: id, Fingerprint: pl.stores[id].Fingerprint, Rewind: pl.rewind(), Actions: pl.actions[id]})
	}
	return out
}
