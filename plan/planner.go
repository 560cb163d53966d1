package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// confVerMargin lifts conf_ver above what a majority that is gone may have reached unseen; epochs are only compared.
const confVerMargin = 100

// idMargin is left between the largest id seen and new ones when nobody knows how far PD's allocator has come.
const idMargin = 100_000

// group is all that the survivors have of one region id.
type group struct {
	id    uint64
	peers []*PeerReport // live, with a range; by store
	tombs []*PeerReport // tombstones

	newest *PeerReport // the live peer with the newest descriptor, usable ones first
	best   *PeerReport // the usable peer with the longest log; nil: there is none
	// frontier is the last index that is known to be committed, or proven so by what comes after it or by a child region.
	frontier uint64
	// future is what the range and epoch will be once TiKV has applied what is proven; it is newest's descriptor in most cases.
	future *raftstate.Region

	healthy bool
	why     string // why it is not
	leans   bool   // healthy only with peers that TiKV creates by splits in other regions' logs
	touched bool
	cause   string // why it is touched
	shrink  *shrink
	rolled  bool // a merge that was prepared is taken back
	choice  *choice
	fate    Decision // of a region of which nothing stays; "": it stays
	fateWhy string
}

// shrink cuts an old copy to the part that no newer region holds.
type shrink struct {
	start, end raftstate.Key
	version    uint64 // at least
}

type planner struct {
	in  Input
	opt Options

	failed  map[uint64]bool
	tiflash map[uint64]bool
	stores  map[uint64]*StoreReport
	storeID []uint64 // sorted
	dead    map[RegionStore]string
	forced  map[string]bool
	pd      []raftstate.Region // what PD knew, without overlaps, by start key
	pdByID  map[uint64]raftstate.Epoch
	maxID   uint64
	nextID  uint64
	created int

	groups  []group
	pending map[uint64][]pendingChild // by child id: stores whose parent copy has yet to carry out the split
	merges  map[uint64][]RegionStore  // by source id: target peers whose log takes the source in, above applied
	wins    map[uint64]int

	answers  map[string][]*Answer
	ask      map[string]*Question
	carried  []CarriedRange
	actions  map[uint64][]Action
	regions  []RegionPlan
	final    []placed // what the key space looks like afterwards
	problems []Problem
	txns     []TxnVerdict
	maxSeen  mvcc.TS
	healthy  int
	// childMade are the regions that splits carried out by the plan create.
	left []*PeerReport // see leftovers
	// bornPart is what is left of the range of a region that a split creates; nil: nothing. Without an entry it gets all of it.
	bornPart  map[uint64]*placed
	childMade map[uint64]*raftstate.Region
}

// pendingChild is a store that will create a region by itself.
type pendingChild struct {
	parent uint64
	store  uint64
	region raftstate.Region
}

// Make plans. The result is a pure function of in and opt: reports may come in any order. Problems are also in the plan; a plan whose
// problems block (see Blocks) must not be applied. The plan is nil when the reports do not belong together.
func Make(in Input, opt Options) (*Plan, []Problem) {
	pl := &planner{in: in, opt: opt, failed: map[uint64]bool{}, tiflash: map[uint64]bool{}, stores: map[uint64]*StoreReport{},
		dead: map[RegionStore]string{}, forced: map[string]bool{}, pending: map[uint64][]pendingChild{}, merges: map[uint64][]RegionStore{}, wins: map[uint64]int{},
		answers: map[string][]*Answer{}, ask: map[string]*Question{}, actions: map[uint64][]Action{},
		bornPart: map[uint64]*placed{}, childMade: map[uint64]*raftstate.Region{}, pdByID: map[uint64]raftstate.Epoch{}}
	if pl.opt.Keep == "" {
		pl.opt.Keep = KeepAll
	}
	if pl.opt.HoleFill == "" {
		pl.opt.HoleFill = HoleEmpty
	}
	for _, s := range opt.FailedStores {
		pl.failed[s] = true
	}
	for _, s := range opt.TiFlashStores {
		pl.tiflash[s] = true
	}
	for _, n := range opt.Forced {
		pl.forced[n] = true
	}
	if !pl.identities() {
		Sort(pl.problems)
		return nil, pl.problems
	}
	pl.index()
	pl.overrides()
	pl.examine()
	pl.quorums()
	pl.missingStores()
	pl.settle()
	pl.holes()
	pl.act()
	pl.transactions()
	return pl.finish(), pl.problems
}

func (pl *planner) problem(p Problem) { pl.problems = append(pl.problems, p) }

// rewind tells whether the plan goes back to a T.
func (pl *planner) rewind() bool { return pl.opt.ToTS != 0 }

// index sorts the peers into groups by region id.
func (pl *planner) index() {
	peers := slices.Clone(pl.in.Peers)
	slices.SortFunc(peers, func(a, b *PeerReport) int {
		return cmp.Or(cmp.Compare(a.RegionID, b.RegionID), cmp.Compare(a.StoreID, b.StoreID))
	})
	n := 0
	for i, p := range peers {
		if i == 0 || peers[i-1].RegionID != p.RegionID {
			n++
		}
	}
	pl.groups = make([]group, 0, n)
	for i := 0; i < len(peers); {
		j := i + 1
		for j < len(peers) && peers[j].RegionID == peers[i].RegionID {
			j++
		}
		all := peers[i:j:j]
		// Tombstones and peers without a range behind the live ones, in one slice.
		slices.SortStableFunc(all, func(a, b *PeerReport) int { return cmp.Compare(liveness(a), liveness(b)) })
		live := 0
		for live < len(all) && liveness(all[live]) == 0 {
			live++
		}
		tombs := live
		for tombs < len(all) && liveness(all[tombs]) == 1 {
			tombs++
		}
		pl.groups = append(pl.groups, group{id: all[0].RegionID, peers: all[:live:live], tombs: all[live:tombs:tombs]})
		i = j
	}
}

func liveness(p *PeerReport) int {
	switch {
	case p.State == raftstate.Tombstone:
		return 1
	case !p.Region.Initialized():
		return 2
	}
	return 0
}

// group finds the survivors of a region id.
func (pl *planner) group(id uint64) *group {
	i, ok := slices.BinarySearchFunc(pl.groups, id, func(g group, id uint64) int { return cmp.Compare(g.id, id) })
	if !ok {
		return nil
	}
	return &pl.groups[i]
}

// peerOn finds the live peer of a region on a store.
func (g *group) peerOn(store uint64) *PeerReport {
	if g == nil {
		return nil
	}
	for _, p := range g.peers {
		if p.StoreID == store {
			return p
		}
	}
	return nil
}

// excluded tells why a peer must not be kept by the operator's word.
func (pl *planner) excluded(p *PeerReport) string { return pl.dead[RegionStore{p.RegionID, p.StoreID}] }

// overrides checks what the operator named by hand.
func (pl *planner) overrides() {
	for _, t := range pl.opt.Tombstones {
		if pl.group(t.Region).peerOn(t.Store) == nil {
			pl.problem(&BadOverride{Option: "tombstone", Region: t.Region, Store: t.Store, Reason: "there is no live peer of this region on this store"})
			continue
		}
		pl.dead[t] = "it is to be destroyed by the operator's word (--tombstone)"
	}
	for _, id := range pl.opt.Recreate {
		g := pl.group(id)
		if g == nil || len(g.peers) == 0 {
			pl.problem(&BadOverride{Option: "recreate", Region: id, Reason: "no store has a live peer of this region"})
			continue
		}
		for _, p := range g.peers {
			pl.dead[RegionStore{id, p.StoreID}] = "the region is to be made anew, empty, by the operator's word (--recreate)"
		}
	}
	for _, id := range slices.Sorted(maps.Keys(pl.opt.Winners)) {
		s := pl.opt.Winners[id]
		p := pl.group(id).peerOn(s)
		switch {
		case p == nil:
			pl.problem(&BadOverride{Option: "winner", Region: id, Store: s, Reason: "there is no live peer of this region on this store"})
		case !p.Usable:
			pl.problem(&BadOverride{Option: "winner", Region: id, Store: s, Reason: "this peer cannot be kept: " + p.Reason})
		case pl.excluded(p) != "":
			pl.problem(&BadOverride{Option: "winner", Region: id, Store: s, Reason: pl.excluded(p)})
		}
	}
}

// full tells whether a peer can be kept: its data are whole, it is not a witness, and the operator does not forbid it.
func (pl *planner) full(p *PeerReport) bool {
	if !p.Usable || pl.excluded(p) != "" || p.State != raftstate.Normal && p.State != raftstate.Merging {
		return false
	}
	own, ok := p.Region.PeerOn(p.StoreID)
	return ok && !own.IsWitness
}

// stops tells why TiKV would not start with the peer as it is, or stop when it applies its log.
func (p *PeerReport) stops() string {
	for _, g := range p.above(p.Applied) {
		if g.StopsTiKV {
			return fmt.Sprintf("it would stop at entry %d of the log: %s", g.First, reasonOf(g))
		}
	}
	for _, r := range p.StartRules {
		if r.Consequence == raftstate.StopsStart.String() {
			return r.Message
		}
	}
	return ""
}

// votes tells whether the peer takes part in elections once TiKV runs, though it may have no data.
func (pl *planner) votes(p *PeerReport) bool {
	if pl.excluded(p) != "" || p.stops() != "" {
		return false
	}
	own, ok := p.Region.PeerOn(p.StoreID)
	if !ok {
		return false
	}
	switch p.State {
	case raftstate.Normal, raftstate.Merging:
		return p.Usable || own.IsWitness
	case raftstate.Applying:
		return p.Snapshot != nil && p.Snapshot.Complete
	case raftstate.Unavailable:
		return true
	}
	return false
}

// examine finds the newest descriptor, the longest log and what is proven to be committed, for each group.
func (pl *planner) examine() {
	for i := range pl.groups {
		g := &pl.groups[i]
		for _, p := range g.peers {
			if g.newest == nil || pl.newer(p, g.newest) {
				g.newest = p
			}
			if pl.full(p) && (g.best == nil || pl.better(g, p, g.best)) {
				g.best = p
			}
			g.frontier = max(g.frontier, p.Commit, p.Applied)
		}
		if g.newest != nil {
			g.future = &g.newest.Region
		}
	}
	for i := range pl.groups {
		g := &pl.groups[i]
		if g.best == nil || !slices.ContainsFunc(g.peers, hasAdmin) {
			continue
		}
		w := walk(g.best)
		for _, s := range w.steps {
			if pl.witnessed(g, s) {
				w.proven = max(w.proven, s.index)
			}
		}
		g.frontier = max(g.frontier, w.proven)
		for _, s := range w.steps {
			if s.index <= g.frontier && compareEpoch(s.after.Epoch, g.future.Epoch) > 0 {
				after := s.after
				g.future = &after
			}
		}
		pl.pendingChanges(g)
	}
}

// hasAdmin tells whether a log has anything to walk above applied.
func hasAdmin(p *PeerReport) bool {
	for _, g := range p.above(p.Applied) {
		if g.Kind == GroupAdmin || g.Kind == GroupConfChange {
			return true
		}
	}
	return false
}

func (pl *planner) newer(a, b *PeerReport) bool {
	if x, y := pl.full(a), pl.full(b); x != y {
		return x
	}
	return compareEpoch(a.Region.Epoch, b.Region.Epoch) > 0
}

// better tells whether a's log is to be preferred to b's.
func (pl *planner) better(g *group, a, b *PeerReport) bool {
	if x, y := deadBranch(g, a), deadBranch(g, b); x != y {
		return y
	}
	return compareLogs(a, b) > 0
}

// deadBranch tells whether a log contradicts what another survivor knows to be committed. Where a quorum is gone the longest log need not hold
// all that is committed: a leader of an earlier term may have left entries that nobody else took, of a higher term than what was committed
// later by another leader's word.
func deadBranch(g *group, p *PeerReport) bool {
	end, _ := p.end()
	for _, o := range g.peers {
		if o == p {
			continue
		}
		at := min(end, max(o.Applied, min(o.Commit, o.Last)))
		mine, ok := p.termAt(at)
		theirs, known := o.termAt(at)
		if ok && known && mine != theirs {
			return true
		}
	}
	return false
}

// compareLogs orders logs as raft does in an election, by the term of the last entry and its index; then by applied index; then voters before
// learners; then by peer id. Entries that were applied before they were persisted count.
func compareLogs(a, b *PeerReport) int {
	pa, _ := a.Region.PeerOn(a.StoreID)
	pb, _ := b.Region.PeerOn(b.StoreID)
	return cmp.Or(rankLog(a, b), cmp.Compare(a.Applied, b.Applied), cmp.Compare(roleRank(pa.Role), roleRank(pb.Role)),
		cmp.Compare(pb.ID, pa.ID))
}

func roleRank(r raftstate.PeerRole) int {
	switch r {
	case raftstate.Voter:
		return 3
	case raftstate.IncomingVoter:
		return 2
	case raftstate.DemotingVoter:
		return 1
	}
	return 0
}

// witnessed tells whether a store shows that a step was carried out somewhere: a region that the split created exists, or the merged
// source is a tombstone that remembers the merge.
func (pl *planner) witnessed(g *group, s step) bool {
	for _, c := range s.children {
		if pl.group(c.ID) != nil {
			return true
		}
	}
	if s.admin != nil && s.admin.Type == raftstate.AdminCommitMerge && s.admin.Source != nil {
		if src := pl.group(s.admin.Source.ID); src != nil {
			for _, t := range src.tombs {
				if t.MergeState != nil && t.MergeState.Target != nil && t.MergeState.Target.ID == g.id {
					return true
				}
			}
		}
	}
	return false
}

// pendingChanges notes the stores that will create a child region when TiKV applies what is proven, and those whose log takes another
// region in.
func (pl *planner) pendingChanges(g *group) {
	for _, p := range g.peers {
		if !pl.votes(p) {
			continue
		}
		for _, s := range walk(p).steps {
			if s.admin != nil && s.admin.Type == raftstate.AdminCommitMerge && s.admin.Source != nil {
				pl.merges[s.admin.Source.ID] = append(pl.merges[s.admin.Source.ID], RegionStore{g.id, p.StoreID})
			}
			if s.index > g.frontier {
				continue
			}
			for _, c := range s.children {
				pl.pending[c.ID] = append(pl.pending[c.ID], pendingChild{g.id, p.StoreID, c})
			}
		}
	}
}

// newID takes an id that nobody had. Without a word about PD's allocator it stays far above all that the survivors know.
func (pl *planner) newID() uint64 {
	if pl.created == 0 {
		known := pl.opt.AllocID != 0 || slices.ContainsFunc(pl.in.PD, func(p *PDReport) bool { return p.AllocID != 0 })
		pl.nextID = max(pl.nextID, pl.maxID)
		if !known {
			pl.nextID += idMargin
			pl.problem(&UnknownAllocator{MaxSeen: pl.maxID, First: pl.nextID + 1})
		}
	}
	pl.created++
	pl.nextID++
	return pl.nextID
}

func (g *group) String() string { return fmt.Sprintf("region %d", g.id) }
