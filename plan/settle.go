package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// placed is a part of the key space and who holds it afterwards.
type placed struct {
	start, end raftstate.Key
	epoch      raftstate.Epoch
	applied    uint64
	g          *group            // nil: a region that TiKV creates by itself from a split
	virtual    *raftstate.Region // with g == nil
}

func (p placed) id() uint64 {
	if p.g != nil {
		return p.g.id
	}
	return p.virtual.ID
}

// settleRounds bounds the search for a state in which nothing depends on something that has changed. Each round touches more groups, so it
// ends; merges and splits depend on neighbours only, so it ends soon.
const settleRounds = 16

// settle decides for all groups: touched ones get what stays of them, and the key space is divided among all.
func (pl *planner) settle() {
	for range settleRounds {
		pl.couple()
		for i := range pl.groups {
			if g := &pl.groups[i]; g.touched && g.choice == nil && g.fate == "" && g.newest != nil {
				pl.choose(g)
				if g.choice == nil {
					g.fate, g.fateWhy = DecisionRemoved, pl.noCopy(g)
				}
			}
		}
		if !pl.place() {
			return
		}
	}
	pl.problem(&ReportMismatch{Reason: "the regions' splits and merges contradict each other in a way that this version does not resolve"})
}

func (pl *planner) noCopy(g *group) string {
	for _, p := range g.peers {
		if why := pl.excluded(p); why != "" {
			return why
		}
	}
	return "no survivor has usable data of it"
}

func (g *group) touch(why string) bool {
	if g == nil || g.newest == nil || g.touched {
		return false
	}
	g.touched, g.cause = true, why
	return true
}

// couple treats both sides of a merge that is under way alike: TiKV finishes it where both are left alone, and where one is rewritten the
// other must not wait for it.
func (pl *planner) couple() {
	for again := true; again; {
		again = false
		for i := range pl.groups {
			g := &pl.groups[i]
			if g.newest == nil || g.fate != "" {
				continue
			}
			if !g.touched {
				for _, id := range mergesInto(g) {
					switch t := pl.group(id); {
					case t == nil || t.newest == nil || t.fate != "":
						again = g.touch(fmt.Sprintf("it would wait for a merge into region %d, which does not go on", id)) || again
					case t.touched:
						again = g.touch(fmt.Sprintf("it would wait for a merge into region %d, which is rewritten", id)) || again
					}
				}
			}
			if g.leans && !g.touched {
				if why := pl.sick(g, pl.coming(g)); why != "" {
					g.healthy, g.why = false, why
					again = g.touch(why) || again
				}
			}
			if g.touched {
				for _, t := range pl.merges[g.id] {
					again = pl.group(t.Region).touch(fmt.Sprintf("its log takes in region %d, which is rewritten", g.id)) || again
				}
			}
		}
	}
}

// place divides the key space. It tells whether a decision has to be made again.
func (pl *planner) place() (again bool) {
	all := make([]placed, 0, len(pl.groups)+len(pl.groups)/64)
	pl.final = nil
	for i := range pl.groups {
		g := &pl.groups[i]
		switch {
		case g.newest == nil || g.fate != "":
		case g.touched:
			a := g.choice.after
			all = append(all, placed{a.StartKey, a.EndKey, a.Epoch, g.choice.winner.Applied, g, nil})
			all = append(all, pl.bornOf(g)...)
		default:
			all = append(all, placed{g.future.StartKey, g.future.EndKey, g.future.Epoch, g.newest.Applied, g, nil})
		}
	}
	more, touched := pl.virtualChildren()
	if touched {
		return true
	}
	all = append(all, more...)
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(bytes.Compare(a.start, b.start), compareEnds(a.end, b.end), cmp.Compare(a.id(), b.id()))
	})
	pl.final = all[:0] // never longer than what was read
	for i := 0; i < len(all); {
		j, end := i+1, all[i].end
		for j < len(all) && startBeforeEnd(all[j].start, end) {
			if compareEnds(all[j].end, end) > 0 {
				end = all[j].end
			}
			j++
		}
		if j == i+1 {
			pl.final = append(pl.final, all[i])
		} else {
			kept, redo := pl.untangle(slices.Clone(all[i:j]))
			again = again || redo
			pl.final = append(pl.final, kept...)
		}
		i = j
	}
	return again
}

// unborn tells whether a region that a split creates has no copy anywhere, and never had one on a survivor.
func (pl *planner) unborn(id uint64) bool {
	g := pl.group(id)
	return g == nil || g.newest == nil && len(g.tombs) == 0
}

// bornOf are the regions that the plan creates by carrying out splits of a group.
func (pl *planner) bornOf(g *group) (out []placed) {
	seen := map[uint64]bool{}
	for _, m := range g.choice.members {
		for _, s := range m.steps {
			for _, c := range s.children {
				if pl.unborn(c.ID) && !seen[c.ID] {
					seen[c.ID] = true
					out = append(out, placed{start: c.StartKey, end: c.EndKey, epoch: c.Epoch, virtual: &c})
				}
			}
		}
	}
	return out
}

// virtualChildren are regions without a live copy that TiKV creates by itself from splits in the logs of regions that are left alone. One
// that would be without a quorum touches its parent, so that the plan carries out the split.
func (pl *planner) virtualChildren() (out []placed, touched bool) {
	for _, id := range slices.Sorted(maps.Keys(pl.pending)) {
		list := pl.pending[id]
		parent := pl.group(list[0].parent)
		g := pl.group(id)
		if g != nil && g.fate == DecisionRemoved && parent.fate == "" && parent.touch(fmt.Sprintf("it would create region %d, of which nothing stays", id)) {
			touched = true
		}
		if g != nil && g.newest != nil || parent.touched || parent.fate != "" {
			continue
		}
		coming := map[uint64]bool{}
		for _, p := range list {
			coming[p.store] = true
		}
		c := list[0].region
		if why := lacks(c, func(p raftstate.Peer) bool { return coming[p.StoreID] }); why != "" {
			touched = parent.touch(fmt.Sprintf("region %d, which it splits off, would have no quorum: %s", id, why)) || touched
			continue
		}
		out = append(out, placed{start: c.StartKey, end: c.EndKey, epoch: c.Epoch, virtual: &c})
	}
	return out, touched
}

// untangle resolves regions that claim the same keys: the newest descriptors win (by version, then conf_ver, then applied index). One that
// is wholly covered is superseded; of one that is partly covered, the uncovered part stays, as the old copy it is.
func (pl *planner) untangle(all []placed) (kept []placed, again bool) {
	slices.SortStableFunc(all, func(a, b placed) int {
		return cmp.Or(compareEpoch(b.epoch, a.epoch), cmp.Compare(b.applied, a.applied), cmp.Compare(a.id(), b.id()))
	})
	for _, x := range all {
		var over []placed
		for _, k := range kept {
			if overlaps(x.start, x.end, k.start, k.end) {
				over = append(over, k)
			}
		}
		if len(over) == 0 {
			kept = append(kept, x)
			continue
		}
		slices.SortFunc(over, func(a, b placed) int { return bytes.Compare(a.start, b.start) })
		free := uncovered(x.start, x.end, over)
		if x.g == nil {
			// The split is old: regions that came later have a part of what it made, or all.
			if pl.bornPart[x.id()] = (*placed)(nil); len(free) > 0 {
				x.start, x.end = free[0][0], free[0][1]
				for _, k := range over {
					x.epoch.Version = max(x.epoch.Version, k.epoch.Version)
				}
				pl.bornPart[x.id()] = &x
				kept = append(kept, x)
			}
			continue
		}
		if len(free) == 0 {
			pl.supersede(x.g, over)
			again = true
			continue
		}
		part := free[0]
		version := x.epoch.Version
		for _, k := range over {
			version = max(version, k.epoch.Version)
		}
		if s := x.g.shrink; s != nil && bytes.Equal(s.start, part[0]) && bytes.Equal(s.end, part[1]) && s.version >= version {
			kept = append(kept, x)
			continue
		}
		x.g.shrink = &shrink{part[0], part[1], version}
		x.g.touch(fmt.Sprintf("newer regions (%s) hold a part of its range, and nothing says how it was split", names(over)))
		x.g.choice = nil
		again = true
	}
	slices.SortFunc(kept, func(a, b placed) int { return bytes.Compare(a.start, b.start) })
	return kept, again
}

func names(ps []placed) string {
	s := ""
	for i, p := range ps {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprint(p.id())
	}
	return s
}

// uncovered lists the parts of a range that others, sorted by start and without overlaps, leave free.
func uncovered(start, end raftstate.Key, over []placed) (free [][2]raftstate.Key) {
	at := start
	for _, k := range over {
		if bytes.Compare(at, k.start) < 0 {
			free = append(free, [2]raftstate.Key{at, k.start})
		}
		if len(k.end) == 0 {
			return free
		}
		if bytes.Compare(at, k.end) < 0 {
			at = k.end
		}
	}
	if startBeforeEnd(at, end) {
		free = append(free, [2]raftstate.Key{at, end})
	}
	return free
}

// supersede ends a region whose whole range others hold.
func (pl *planner) supersede(g *group, over []placed) {
	g.touched, g.fate, g.choice = true, DecisionSuperseded, nil
	g.fateWhy = "regions with newer descriptors hold its range: " + names(over)
	// A source of a merge whose range newer regions hold was taken in; the target may have been split since.
	if t := pl.targets(g); len(t) > 0 {
		g.fate, g.fateWhy = DecisionMerged, fmt.Sprintf("it was merged into region %d", t[0].id)
	}
}

// gap is a part of the key space that nobody holds.
type gap struct {
	start, end  raftstate.Key
	left, right *placed
}

func gaps(final []placed) (out []gap) {
	var at raftstate.Key
	var left *placed
	open := true // at is a valid start: the space is not yet covered to its end
	for i := range final {
		p := &final[i]
		if bytes.Compare(at, p.start) < 0 {
			out = append(out, gap{at, p.start, left, p})
		}
		at, left = p.end, p
		if len(p.end) == 0 {
			open = false
		}
	}
	if open {
		out = append(out, gap{at, nil, left, nil})
	}
	return out
}

// holes fills what nobody holds: with a stale copy when that is wanted and one covers the gap alone, else with an empty region.
func (pl *planner) holes() {
	for _, h := range gaps(pl.final) {
		if pl.opt.HoleFill == HoleStale {
			if g := pl.staleFor(h); g != nil {
				pl.revive(g, h)
				continue
			}
		}
		pl.createEmpty(h)
	}
}

// leftovers lists what may overlap a gap: tombstones, peers of regions that do not stay, and those whose range is not what their region has
// afterwards.
func (pl *planner) leftovers() []*PeerReport {
	if pl.left != nil {
		return pl.left
	}
	pl.left = []*PeerReport{}
	for i := range pl.groups {
		g := &pl.groups[i]
		pl.left = append(pl.left, g.tombs...)
		for _, p := range g.peers {
			now := g.future
			if g.choice != nil {
				now = &g.choice.after
			}
			if g.fate != "" || !bytes.Equal(p.Region.StartKey, now.StartKey) || !bytes.Equal(p.Region.EndKey, now.EndKey) {
				pl.left = append(pl.left, p)
			}
		}
	}
	return pl.left
}

// staleFor finds the copy of a region that does not stay and that covers a gap alone: the one with the most applied.
func (pl *planner) staleFor(h gap) *group {
	var found *group
	for _, p := range pl.leftovers() {
		g := pl.group(p.RegionID)
		if g.fate == "" || g.best == nil || g.choice != nil || !covers(g.best.Region.StartKey, g.best.Region.EndKey, h.start, h.end) {
			continue
		}
		if found == nil || cmp.Or(compareEpoch(g.best.Region.Epoch, found.best.Region.Epoch), cmp.Compare(g.best.Applied, found.best.Applied)) > 0 {
			found = g
		}
	}
	return found
}

// revive gives a gap to an old copy.
func (pl *planner) revive(g *group, h gap) {
	version := g.newest.Region.Epoch.Version
	for _, p := range pl.leftovers() {
		if overlaps(p.Region.StartKey, p.Region.EndKey, h.start, h.end) {
			version = max(version, p.Region.Epoch.Version)
		}
	}
	g.shrink = &shrink{h.start, h.end, version}
	g.fate, g.touched, g.cause = "", true, staleCause
	pl.choose(g)
	if g.choice == nil {
		g.fate, g.fateWhy = DecisionSuperseded, "no usable copy"
		pl.createEmpty(h)
		return
	}
}
