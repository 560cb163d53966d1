package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// maxCarry bounds how many log entries of a region are carried from one store to another before PD copies the region instead.
const maxCarry = 4096

// choice is what stays of a touched region.
type choice struct {
	winner  *PeerReport
	members []member // by store id, the winner included
	after   raftstate.Region
	tail    TailStrategy
	version uint64 // of the new epoch
	confVer uint64
	term    uint64 // of the hard states
	// resultEnd is the last index of the log that is in the result, in the data or still to be applied.
	resultEnd uint64
	lost      []LostEntries
	maybe     []string
	notes     []string
	left      map[uint64]string // store → why its peer is not kept
	applying  bool              // the only copy is a snapshot that TiKV has to finish
	// lowered: a rewind lets all members begin anew at an index below what some have applied; everything above it is above T.
	lowered bool
}

// member is one peer that is kept.
type member struct {
	p       *PeerReport
	to      uint64 // applied afterwards
	steps   []step // carried out on the way
	carried uint64 // entries above this index come from the plan; 0: none
	after   raftstate.Region
	state   raftstate.PeerState
}

// choose decides what stays of a touched group. It leaves g.choice nil when nothing can.
func (pl *planner) choose(g *group) {
	g.choice = nil
	var cands []*PeerReport
	for _, p := range g.peers {
		if pl.full(p) {
			cands = append(cands, p)
		}
	}
	if len(cands) == 0 {
		pl.chooseApplying(g)
		return
	}
	slices.SortStableFunc(cands, func(a, b *PeerReport) int {
		return cmp.Or(cmp.Compare(btoi(deadBranch(g, a)), btoi(deadBranch(g, b))), rankLog(b, a), cmp.Compare(b.Applied, a.Applied), roleCompare(b, a), cmp.Compare(pl.wins[a.StoreID], pl.wins[b.StoreID]), compareLogs(b, a))
	})
	c := &choice{left: map[uint64]string{}, tail: TailKeep}
	if pl.rewind() {
		c.tail = TailNeutralise
	}
	best := cands[0]
	w := best
	named := false
	if s, ok := pl.opt.Winners[g.id]; ok {
		for _, p := range cands {
			if p.StoreID == s {
				w, named = p, true
			}
		}
	}
	limit := g.frontier // steps up to here are carried out
	m, why := pl.winnerMember(g, w, cands, limit, named)
	if why != "" && !named {
		var note string
		if m, note = pl.otherWinner(g, cands, limit); m.p == nil {
			// Nobody can carry it out: the step and what builds on it is lost.
			m, limit = pl.withoutSteps(g, w, limit)
			c.notes = append(c.notes, why)
			c.lost = append(c.lost, pl.afterStep(w, limit)...)
		} else {
			c.notes = append(c.notes, note)
		}
	} else if why != "" {
		m, limit = pl.withoutSteps(g, w, limit)
		c.notes = append(c.notes, why)
		c.lost = append(c.lost, pl.afterStep(w, limit)...)
	}
	w = m.p
	c.winner = w
	pl.wins[w.StoreID]++
	x := pl.target(g, c, &m)
	m.to = x
	c.members = []member{m}
	pl.others(g, c, cands, limit)
	pl.align(g, c, limit)
	for i := range c.members {
		pl.outcome(&c.members[i], limit)
	}
	win := c.member(w.StoreID)
	c.after = win.after
	c.members = slices.DeleteFunc(c.members, func(o member) bool {
		same := slices.Equal(o.after.StartKey, c.after.StartKey) && slices.Equal(o.after.EndKey, c.after.EndKey)
		if !same {
			c.left[o.p.StoreID] = "its range would differ from the winner's"
		}
		return !same
	})
	slices.SortFunc(c.members, func(a, b member) int { return cmp.Compare(a.p.StoreID, b.p.StoreID) })
	pl.epochs(g, c)
	pl.losses(g, c, best)
	g.choice = c
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func roleCompare(a, b *PeerReport) int {
	pa, _ := a.Region.PeerOn(a.StoreID)
	pb, _ := b.Region.PeerOn(b.StoreID)
	return cmp.Compare(roleRank(pa.Role), roleRank(pb.Role))
}

func (c *choice) member(store uint64) *member {
	for i := range c.members {
		if c.members[i].p.StoreID == store {
			return &c.members[i]
		}
	}
	return nil
}

// chooseApplying keeps a peer whose data is a snapshot that is not yet in place: TiKV finishes it when it starts, so only peers and
// conf_ver may change.
func (pl *planner) chooseApplying(g *group) {
	if pl.rewind() {
		return
	}
	for _, p := range g.peers {
		own, ok := p.Region.PeerOn(p.StoreID)
		if p.State != raftstate.Applying || p.Snapshot == nil || !p.Snapshot.Complete || !ok || own.IsWitness || pl.excluded(p) != "" || p.stops() != "" {
			continue
		}
		if g.choice != nil && cmp.Or(compareEpoch(p.Region.Epoch, g.choice.after.Epoch), cmp.Compare(p.Snapshot.Index, g.choice.winner.Snapshot.Index)) <= 0 {
			continue
		}
		g.choice = &choice{winner: p, after: p.Region, tail: TailKeep, applying: true, resultEnd: max(p.Last, p.Snapshot.Index), left: map[uint64]string{},
			members: []member{{p: p, to: p.Applied, after: p.Region, state: p.State}}}
	}
	if g.choice != nil {
		g.choice.notes = append(g.choice.notes, "its only copy is a received snapshot: TiKV puts it in place when it starts")
		pl.epochs(g, g.choice)
		pl.losses(g, g.choice, g.choice.winner)
	}
}

// changesVersion tells whether a step has to be carried out for what comes after it: writes behind it carry the new version.
func changesVersion(s step) bool {
	if s.admin == nil {
		return false
	}
	switch s.admin.Type {
	case raftstate.AdminSplit, raftstate.AdminBatchSplit, raftstate.AdminCommitMerge, raftstate.AdminRollbackMerge:
		return true
	}
	return false
}

// lastStep is the last index that must be reached so that every proven step is carried out.
func lastStep(w walked, limit uint64) (r uint64) {
	for _, s := range w.steps {
		if s.index <= limit && changesVersion(s) {
			r = s.index
		}
	}
	return r
}

// winnerMember tests whether a peer can be brought to where every proven step is carried out and every index that another candidate has
// applied is reached. why is "" when it can.
func (pl *planner) winnerMember(g *group, w *PeerReport, cands []*PeerReport, limit uint64, named bool) (member, string) {
	m := member{p: w, to: w.Applied}
	walk := walk(w)
	need := lastStep(walk, limit)
	if !named {
		applied := uint64(0)
		for _, o := range cands {
			applied = max(applied, o.Applied)
		}
		if pl.rewind() {
			// What others have applied above T goes away again.
			applied = pl.lastToKeep(w, w.Applied, applied)
		}
		need = max(need, applied)
	}
	if need <= w.Applied {
		return m, ""
	}
	if bad, why := reach(w, w.Applied, need); bad != 0 {
		return m, fmt.Sprintf("entry %d of the log on store %d cannot be applied offline: %s", bad, w.StoreID, why)
	}
	for _, s := range walk.steps {
		if s.index <= need && s.index <= limit {
			if why := pl.cannot(w.StoreID, s); why != "" {
				return m, fmt.Sprintf("%s at index %d cannot be carried out on store %d: %s", s.admin.Type, s.index, w.StoreID, why)
			}
		}
	}
	m.to = need
	return m, ""
}

// cannot says why a step cannot be carried out offline on a store.
func (pl *planner) cannot(store uint64, s step) string {
	if s.admin == nil || s.admin.Type != raftstate.AdminCommitMerge {
		return ""
	}
	if s.admin.Source == nil {
		return "the command names no source"
	}
	_, why := pl.sourceReady(store, s.admin)
	return why
}

// sourceReady finds the copy of a merge's source on the target's store, and tells up to where it has to be applied first.
func (pl *planner) sourceReady(store uint64, a *raftstate.Admin) (uint64, string) {
	src := pl.group(a.Source.ID).peerOn(store)
	if src == nil || !pl.full(src) {
		return 0, fmt.Sprintf("its source, region %d, has no usable copy there", a.Source.ID)
	}
	if src.State == raftstate.Merging && src.Region.Epoch == a.Source.Epoch {
		return src.Applied, ""
	}
	for _, s := range walk(src).steps {
		if s.index == a.Commit && s.admin != nil && s.admin.Type == raftstate.AdminPrepareMerge && s.after.Epoch == a.Source.Epoch {
			if bad, why := reach(src, src.Applied, a.Commit); bad != 0 {
				return 0, fmt.Sprintf("entry %d of its source, region %d, cannot be applied: %s", bad, src.RegionID, why)
			}
			return a.Commit, ""
		}
	}
	return 0, fmt.Sprintf("the copy of its source, region %d, has another epoch", a.Source.ID)
}

// reach looks for the first entry of (from, to] that cannot be applied offline; 0: none.
func reach(p *PeerReport, from, to uint64) (bad uint64, why string) {
	if to <= from {
		return 0, ""
	}
	next := from + 1
	for _, g := range p.above(from) {
		if g.First > to {
			break
		}
		if g.First > next {
			return next, "it is missing"
		}
		switch {
		case g.Blocked != "":
			return max(g.First, next), g.Blocked
		case g.Kind == GroupMissing:
			return max(g.First, next), "it is missing"
		case g.Kind == GroupOpaque:
			return max(g.First, next), "its effect is not known"
		}
		next = g.Last + 1
	}
	if next <= to {
		return next, "the log ends before it"
	}
	return 0, ""
}

// otherWinner looks for a peer that is past what the one with the longest log cannot pass. What only the longest log holds is carried to it.
func (pl *planner) otherWinner(g *group, cands []*PeerReport, limit uint64) (member, string) {
	best := cands[0]
	end, _ := best.end()
	for _, p := range cands[1:] {
		common := commonEnd(best, p)
		if common == end {
			if m, why := pl.winnerMember(g, p, cands, limit, false); why == "" {
				return m, fmt.Sprintf("stores %d and %d have the same log, store %d has carried out more of it", best.StoreID, p.StoreID, p.StoreID)
			}
			continue
		}
		common = min(common, p.Last)
		if q := pl.carry(best, p, common); q != nil {
			if m, why := pl.winnerMember(g, q, cands, limit, false); why == "" {
				m.carried = common
				return m, fmt.Sprintf("store %d has the longest log, store %d has carried out more of it: the entries above %d go there", best.StoreID, p.StoreID, common)
			}
		}
	}
	return member{}, ""
}

// carry gives p as it is once its log is cut behind common, which is not above p.Last, and the entries above it have come from another store;
// nil when that store does not have them all.
func (pl *planner) carry(from, p *PeerReport, common uint64) *PeerReport {
	end, term := from.end()
	if from.Applied > from.Last || common < from.Truncated.Index || common < min(p.Applied, p.Last) || end < common || end-common > maxCarry {
		return nil
	}
	for _, e := range from.above(common) {
		// An ingested file would have to travel, too.
		if e.Kind == GroupMissing || e.Write != nil && e.Write.Ingests > 0 {
			return nil
		}
	}
	q := *p
	q.Log = nil
	for _, e := range p.Log {
		if e.First <= common {
			e.Last = min(e.Last, common)
			q.Log = append(q.Log, e)
		}
	}
	for _, e := range from.above(common) {
		e.First = max(e.First, common+1)
		q.Log = append(q.Log, e)
	}
	q.Last, q.LastTerm = end, term
	q.Commit = max(min(q.Commit, end), min(from.Commit, end))
	return &q
}

// withoutSteps gives up the first step that cannot be carried out.
func (pl *planner) withoutSteps(g *group, w *PeerReport, limit uint64) (member, uint64) {
	m := member{p: w, to: w.Applied}
	walk := walk(w)
	for _, s := range walk.steps {
		if s.index > limit || !changesVersion(s) {
			continue
		}
		bad, _ := reach(w, w.Applied, s.index)
		if bad != 0 || pl.cannot(w.StoreID, s) != "" {
			return m, s.index - 1
		}
		m.to = s.index
	}
	return m, limit
}

// afterStep lists what is lost when a proven step is not carried out: every entry behind it that was made for the new version.
func (pl *planner) afterStep(w *PeerReport, limit uint64) []LostEntries {
	var first step
	for _, s := range walk(w).steps {
		if s.index > limit && changesVersion(s) {
			first = s
			break
		}
	}
	if first.index == 0 {
		return nil
	}
	var out []LostEntries
	for _, e := range w.above(first.index) {
		if e.Epoch.Version < first.after.Epoch.Version || e.Kind != GroupWrite {
			continue
		}
		l := LostEntries{StoreID: w.StoreID, First: max(e.First, first.index+1), Last: e.Last,
			Why: fmt.Sprintf("made after %s at index %d, which is not carried out", first.admin.Type, first.index)}
		l.add(e)
		out = append(out, l)
	}
	return out
}

func (l *LostEntries) add(e LogGroup) {
	if e.Write == nil {
		return
	}
	l.Versions += e.Write.Versions
	if e.Write.MinCommitTS != 0 && (l.MinCommitTS == 0 || e.Write.MinCommitTS < l.MinCommitTS) {
		l.MinCommitTS = e.Write.MinCommitTS
	}
	l.MaxCommitTS = max(l.MaxCommitTS, e.Write.MaxCommitTS)
}
