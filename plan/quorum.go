package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// quorums decides for each group whether it elects a leader by itself.
func (pl *planner) quorums() {
	for i := range pl.groups {
		g := &pl.groups[i]
		if g.newest == nil {
			continue
		}
		g.why = pl.sick(g, nil)
		g.healthy = g.why == ""
	}
	// A peer that a store has yet to create by applying its parent's split counts, when the parent applies it by itself.
	for i := range pl.groups {
		g := &pl.groups[i]
		if g.healthy || g.newest == nil {
			continue
		}
		if coming := pl.coming(g); len(coming) > 0 {
			if why := pl.sick(g, coming); why == "" {
				g.healthy, g.why, g.leans = true, "", true
			}
		}
	}
	wanted := map[uint64]bool{}
	for i := range pl.groups {
		for _, id := range mergesInto(&pl.groups[i]) {
			wanted[id] = true
		}
	}
	for i := range pl.groups {
		g := &pl.groups[i]
		if g.newest == nil {
			continue
		}
		stale := pl.staleLeftover(g)
		if stale != nil {
			pl.problem(stale)
			g.healthy, g.why = false, "a tombstone with a newer epoch shows that these peers had been removed"
		}
		_, chosen := pl.opt.Winners[g.id]
		switch {
		case !g.healthy:
			g.touched, g.cause = true, g.why
		case pl.rewind():
			g.touched, g.cause = true, "all replicas go back to T together"
		case chosen:
			g.touched, g.cause = true, "the operator named the winner (--winner)"
		case pl.stopped(g) && (len(mergesInto(g)) > 0 || wanted[g.id]):
			g.touched, g.cause = true, "one of its peers has to go, and a merge that needs it everywhere is under way"
		case pl.hasExcluded(g):
			g.touched, g.cause = true, "the operator destroys one of its peers (--tombstone)"
		}
	}
}

// coming are the stores that will create their peer of a region by themselves: by a split of a healthy region that is left alone.
func (pl *planner) coming(g *group) map[uint64]bool {
	out := map[uint64]bool{}
	for _, c := range pl.pending[g.id] {
		if parent := pl.group(c.parent); parent.healthy && (!parent.touched || pl.rewind()) {
			out[c.store] = true
		}
	}
	return out
}

func (pl *planner) stopped(g *group) bool {
	return slices.ContainsFunc(g.peers, func(p *PeerReport) bool { return p.stops() != "" })
}

// mergesInto lists the regions that a region is merged into, or may be once its log is applied.
func mergesInto(g *group) (out []uint64) {
	for _, p := range g.peers {
		if p.State == raftstate.Merging && p.MergeState != nil && p.MergeState.Target != nil {
			out = append(out, p.MergeState.Target.ID)
		}
		for _, e := range p.above(p.Applied) {
			if e.Admin != nil && e.Admin.Type == raftstate.AdminPrepareMerge && e.Admin.Target != nil {
				out = append(out, e.Admin.Target.ID)
			}
		}
	}
	return out
}

func (pl *planner) hasExcluded(g *group) bool {
	if len(pl.dead) == 0 {
		return false
	}
	for _, p := range g.peers {
		if pl.excluded(p) != "" {
			return true
		}
	}
	return false
}

// sick says why a region has no leader once TiKV runs; "" when it has one. coming are stores that create their peer by themselves.
//
// Both halves of a joint configuration need a majority (learners count for nothing), also in every configuration that conf changes in the
// longest log lead to: raft may have to commit those. Witnesses vote but have no data: someone with data must not be behind them.
func (pl *planner) sick(g *group, coming map[uint64]bool) string {
	if g.best == nil {
		return "no survivor has usable data"
	}
	alive := func(q raftstate.Peer) bool {
		if coming[q.StoreID] {
			return true
		}
		p := g.peerOn(q.StoreID)
		if p == nil || !pl.votes(p) {
			return false
		}
		own, _ := p.Region.PeerOn(p.StoreID)
		return own.ID == q.ID
	}
	if why := lacks(g.newest.Region, alive); why != "" {
		return why
	}
	if hasAdmin(g.best) {
		for _, s := range walk(g.best).steps {
			if why := lacks(s.after, alive); why != "" {
				return fmt.Sprintf("%s once entry %d of its log is applied", why, s.index)
			}
		}
	}
	if !slices.ContainsFunc(g.peers, func(p *PeerReport) bool { return pl.full(p) && pl.votes(p) && pl.electable(g, p, alive) }) {
		return "no replica can be elected: those whose configuration has a majority here have shorter logs than others"
	}
	for _, p := range g.peers {
		if pl.votes(p) && !pl.full(p) && p.State != raftstate.Unavailable && p.State != raftstate.Applying && rankLog(p, g.best) > 0 {
			return fmt.Sprintf("the witness on store %d has a longer log than any replica with data", p.StoreID)
		}
	}
	return ""
}

// electable tells whether a peer finds a majority, in the configuration that it starts with, of peers without a longer log. It applies what it
// knows to be committed before it campaigns.
func (pl *planner) electable(g *group, p *PeerReport, alive func(raftstate.Peer) bool) bool {
	r := p.Region
	for _, s := range walk(p).steps {
		if s.index <= min(p.Commit, p.Last) {
			r = s.after
		}
	}
	if own, ok := r.PeerOn(p.StoreID); !ok || own.Role == raftstate.Learner {
		return false
	}
	return lacks(r, func(q raftstate.Peer) bool {
		o := g.peerOn(q.StoreID)
		return alive(q) && (o == nil || rankLog(o, p) <= 0)
	}) == ""
}

func rankLog(a, b *PeerReport) int {
	ea, ta := a.end()
	eb, tb := b.end()
	return cmp.Or(cmp.Compare(ta, tb), cmp.Compare(ea, eb))
}

// lacks says which majority of a configuration is missing.
func lacks(r raftstate.Region, alive func(raftstate.Peer) bool) string {
	var in, inAlive, out, outAlive int
	var gone []string
	for _, p := range r.Peers {
		a := alive(p)
		inc := p.Role == raftstate.Voter || p.Role == raftstate.IncomingVoter
		outg := p.Role == raftstate.Voter || p.Role == raftstate.DemotingVoter
		if inc {
			in++
		}
		if outg {
			out++
		}
		if a && inc {
			inAlive++
		}
		if a && outg {
			outAlive++
		}
		if !a && (inc || outg) {
			gone = append(gone, fmt.Sprint(p.StoreID))
		}
	}
	which := ""
	switch {
	case 2*inAlive <= in:
		which = fmt.Sprintf("%d of %d voters survive", inAlive, in)
	case 2*outAlive <= out:
		which = fmt.Sprintf("%d of %d voters of the outgoing configuration survive", outAlive, out)
	default:
		return ""
	}
	if len(gone) > 0 {
		which += "; gone: store " + strings.Join(gone, ", ")
	}
	return which
}

// staleLeftover looks for a tombstone that shows that the region went on without the peers that are left (repair-semantics.md 9.3).
func (pl *planner) staleLeftover(g *group) *StaleLeftover {
	for _, t := range g.tombs {
		if t.Region.Epoch.ConfVer <= g.newest.Region.Epoch.ConfVer || len(t.Region.Peers) == 0 {
			continue
		}
		listed := false
		for _, p := range g.peers {
			if own, ok := p.Region.PeerOn(p.StoreID); ok {
				if q, ok := t.Region.PeerOn(p.StoreID); ok && q.ID == own.ID {
					listed = true
				}
			}
		}
		if !listed {
			return &StaleLeftover{Region: g.id, Store: t.StoreID, Tombstone: t.Region.Epoch, Newest: g.newest.Region.Epoch}
		}
	}
	return nil
}
