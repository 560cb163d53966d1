package plan

import (
	"flag"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

var (
	simSeeds = flag.Int("sim-seeds", 2000, "how many random clusters TestSimulator plans")
	simSeed  = flag.Int64("sim-seed", 0, "the only seed to run; 0: all")
)

// report is what collect would write about a store of the model.
func (c *simCluster) report(in *Input, store uint64, toTS mvcc.TS, rnd *rand.Rand) {
	in.Stores = append(in.Stores, &StoreReport{ClusterID: 1, StoreID: store, Engine: EngineV1, APIVersion: "V1", ToTS: toTS, MaxID: c.nextID, SafePoint: 1,
		Fingerprint: FingerprintOf([]byte{byte(store)})})
	var ids []uint64
	for id := range c.peers[store] {
		ids = append(ids, id)
	}
	for id := range c.tombs[store] {
		if c.peers[store][id] == nil {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		p := c.peers[store][id]
		tomb := p == nil
		if tomb {
			p = c.tombs[store][id]
		}
		r := &PeerReport{StoreID: store, RegionID: id, Region: p.desc, State: p.state, MergeState: p.merge, Usable: true, Fingerprint: FingerprintOf([]byte(fmt.Sprint(store, id))), Bytes: 1}
		if tomb {
			r.State, r.Usable = raftstate.Tombstone, false
			in.Peers = append(in.Peers, r)
			continue
		}
		last := p.last() - p.unpersisted
		r.RaftNumbers = RaftNumbers{Truncated: raftstate.TruncatedState{Index: p.trunc, Term: p.termAt(p.trunc)}, Applied: p.applied, AppliedTerm: p.termAt(p.applied),
			Last: last, LastTerm: p.termAt(last), Commit: min(p.commit, last), HardCommit: min(p.commit, last), HardTerm: p.term, CommitTerm: p.termAt(p.applied)}
		for i := p.trunc + 1; i <= last; i++ {
			r.addEntry(i, p.at(i), p.applied, r.Commit, rnd)
		}
		in.Peers = append(in.Peers, r)
	}
}

func (p *PeerReport) addEntry(i uint64, e *simEntry, applied, commit uint64, rnd *rand.Rand) {
	g := LogGroup{First: i, Last: i, Term: e.term, Kind: e.kind, Epoch: e.epoch, Admin: e.admin}
	if e.kind == GroupWrite {
		ts := mvcc.TS(e.ts)
		g.Write = &WriteSum{Records: 1, Versions: 1, MinCommitTS: ts, MaxCommitTS: ts}
		if e.bad {
			g.Blocked, g.StopsTiKV = "its file is gone", true
		}
	}
	if n := len(p.Log); n > 0 && e.kind == GroupWrite && i-1 != applied && i-1 != commit && rnd.Intn(4) > 0 {
		l := &p.Log[n-1]
		if l.Kind == GroupWrite && l.Term == g.Term && l.Epoch == g.Epoch && l.Blocked == "" && g.Blocked == "" {
			l.Last = i
			l.Write.Records++
			l.Write.Versions++
			l.Write.MinCommitTS, l.Write.MaxCommitTS = min(l.Write.MinCommitTS, g.Write.MinCommitTS), max(l.Write.MaxCommitTS, g.Write.MaxCommitTS)
			return
		}
	}
	p.Log = append(p.Log, g)
}

// accident damages a few replicas in ways that a crash can: entries that were applied but not persisted, a file that is gone.
func (c *simCluster) accident(up map[uint64]bool) {
	for _, s := range c.stores {
		for _, id := range c.regionIDs() {
			p := c.peers[s][id]
			if p == nil {
				continue
			}
			if p.applied == p.last() && c.rnd.Intn(8) == 0 {
				k := uint64(1 + c.rnd.Intn(2))
				if p.applied >= p.trunc+k && majority(p.desc, func(q raftstate.Peer) bool {
					o := c.peers[q.StoreID][id]
					return q.StoreID != s && o != nil && o.id == q.ID && o.last() >= p.applied
				}) {
					p.unpersisted = k
				}
			}
			if p.applied < p.last() && c.rnd.Intn(12) == 0 {
				i := p.applied + 1 + uint64(c.rnd.Intn(int(p.last()-p.applied)))
				if p.at(i).kind == GroupWrite {
					p.log = slices.Clone(p.log)
					p.at(i).bad = true
				}
			}
		}
	}
	for _, s := range c.stores {
		if !up[s] {
			c.peers[s], c.tombs[s], c.data[s] = map[uint64]*simPeer{}, map[uint64]*simPeer{}, map[string][]simWrite{}
		}
	}
}

// carryOut executes a plan on the survivors.
func (c *simCluster) carryOut(p *Plan) error {
	carried := map[uint64]map[uint64]simEntry{}
	for _, r := range p.Carried {
		if carried[r.RegionID] == nil {
			carried[r.RegionID] = map[uint64]simEntry{}
		}
		for _, e := range r.Entries {
			carried[r.RegionID][e.Index] = *c.peers[r.FromStore][r.RegionID].at(e.Index)
		}
	}
	for _, s := range p.Stores {
		for i := range s.Actions {
			a := &s.Actions[i]
			if err := c.act(s.StoreID, a, carried[a.RegionID]); err != nil {
				return fmt.Errorf("store %d, %s of region %d: %w", s.StoreID, a.Kind, a.RegionID, err)
			}
		}
		for k, ws := range c.data[s.StoreID] {
			held := false
			for _, q := range c.peers[s.StoreID] {
				held = held || inRange(k, q.desc)
			}
			if !held { // TiKV clears what lies between its regions
				delete(c.data[s.StoreID], k)
				continue
			}
			if p.ToTS != 0 {
				c.data[s.StoreID][k] = slices.DeleteFunc(ws, func(w simWrite) bool { return mvcc.TS(w.ts) > p.ToTS })
			}
		}
	}
	return nil
}

func (c *simCluster) act(store uint64, a *Action, carried map[uint64]simEntry) error {
	q := c.peers[store][a.RegionID]
	if a.Kind == ActionCreate {
		if q != nil {
			return fmt.Errorf("it is there")
		}
		q = c.add(store, a.New.Region)
		if a.DeleteData {
			for k := range c.data[store] {
				if inRange(k, a.New.Region) {
					delete(c.data[store], k)
				}
			}
		}
		q.term = a.New.Term
		c.begin(a.New.Region)
		return nil
	}
	if q == nil {
		return fmt.Errorf("it is not there")
	}
	stored := q.last() - q.unpersisted
	if l := a.Apply; l != nil {
		if l.From != q.applied {
			return fmt.Errorf("applied is %d, not %d", q.applied, l.From)
		}
		if l.CarriedFrom != 0 {
			q.log = slices.Clone(q.log[:l.CarriedFrom-simBase])
			for i := l.CarriedFrom + 1; ; i++ {
				e, ok := carried[i]
				if !ok {
					break
				}
				q.log = append(q.log, e)
			}
			q.unpersisted, stored = 0, q.last()
		}
		version := l.Version
		for i := l.From + 1; i <= l.To; i++ {
			if i > stored {
				return fmt.Errorf("entry %d is not there", i)
			}
			e := q.at(i)
			if k := slices.IndexFunc(l.Admin, func(s AdminStep) bool { return s.Index == i }); k >= 0 {
				if e.admin == nil || e.admin.Type != l.Admin[k].Type {
					return fmt.Errorf("entry %d is no %s", i, l.Admin[k].Type)
				}
				version = l.Admin[k].Version
				continue
			}
			if e.kind != GroupWrite || e.epoch.Version != version {
				continue
			}
			if e.bad {
				return fmt.Errorf("entry %d cannot be applied", i)
			}
			c.data[store][e.key] = append(c.data[store][e.key], simWrite{e.id, a.RegionID, e.key, e.ts, i})
		}
		q.applied = l.To
	}
	if a.Kind == ActionTombstone {
		delete(c.peers[store], a.RegionID)
		c.tombs[store][a.RegionID] = q
		return nil
	}
	n := a.New
	if a.Tail == TailDrop && n.Applied < q.applied {
		q.applied = n.Applied
	}
	if n.Applied != q.applied {
		return fmt.Errorf("applied is %d, the plan says %d", q.applied, n.Applied)
	}
	q.desc, q.state, q.merge, q.term, q.commit = n.Region, n.State, nil, n.Term, n.Commit
	if a.Tail == TailDrop {
		q.log, q.trunc, q.unpersisted = slices.Clone(q.log[:n.Applied-simBase]), n.Applied, 0
	}
	if q.last()-q.unpersisted != n.Last || q.termAt(n.Last) != n.LastTerm || q.termAt(n.Applied) != n.AppliedTerm {
		return fmt.Errorf("the log ends at %d with term %d, the plan says %d with term %d", q.last(), q.termAt(q.last()), n.Last, n.LastTerm)
	}
	return nil
}

// restart runs the survivors until nothing changes any more.
func (c *simCluster) restart(up []uint64) error {
	c.restarted, c.stores, c.merged = true, up, map[uint64]bool{}
	c.leader = map[uint64]uint64{}
	alive := func(s uint64) bool { return slices.Contains(up, s) }
	for round := range 40 {
		for _, id := range c.regionIDs() {
			reps := c.replicas(id)
			for _, p := range reps {
				if p.unpersisted > 0 { // the entries come back from the others
					p.unpersisted = 0
				}
			}
			l := c.leaderOf(id)
			if l == nil {
				for _, p := range reps {
					if c.elect(p, alive) {
						l = p
						break
					}
				}
			}
			for _, p := range reps {
				if l != nil && p != l {
					c.replicate(l, p, 1000)
				}
			}
			if l != nil {
				c.commit(l)
			}
			for _, p := range reps {
				if l != nil && p != l {
					c.replicate(l, p, 1000)
				}
				for c.peers[p.store][id] == p && p.applied < min(p.commit, p.last()) {
					if why := c.applyOne(p, c.data[p.store]); why != "" {
						return fmt.Errorf("TiKV on store %d stops at entry %d of region %d: %s", p.store, p.applied, id, why)
					}
				}
			}
			if l = c.leaderOf(id); l == nil {
				continue
			}
			if l.state == raftstate.Merging && !c.pendingMerge(l) && round > 2 {
				c.goOnMerging(l, func(e simEntry) {
					e.term, e.epoch = l.term, l.desc.Epoch
					l.log = append(l.log, e)
				})
			}
			for _, p := range reps { // peers that were removed find out
				if q, ok := l.desc.PeerOn(p.store); (!ok || q.ID != p.id) && l.applied == l.last() {
					delete(c.peers[p.store], id)
				}
			}
			c.snapshot(l, nil)
		}
	}
	return nil
}

// judge tells whether what runs now is a legal cluster.
func (c *simCluster) judge(up []uint64) error {
	type span struct {
		start, end string
		l          *simPeer
	}
	var all []span
	for _, id := range c.regionIDs() {
		reps := c.replicas(id)
		if len(reps) == 0 {
			continue
		}
		l := c.leaderOf(id)
		if l == nil {
			// A peer that was removed before the accident and never heard of it: others hold its range.
			if c.heldByOthers(reps[0]) {
				continue
			}
			return fmt.Errorf("region %d has no leader", id)
		}
		if l.state == raftstate.Merging && c.heldByOthers(l) {
			continue // left behind by a target that moved away; TiKV clears it
		}
		if l.state != raftstate.Normal {
			return fmt.Errorf("region %d is still %s", id, l.state)
		}
		all = append(all, span{string(l.desc.StartKey), string(l.desc.EndKey), l})
		for _, p := range reps {
			if _, ok := l.desc.PeerOn(p.store); !ok || p.applied != l.applied {
				continue
			}
			for k := 'a'; k <= 'z'; k++ {
				if inRange(string(k), l.desc) && !slices.Equal(c.data[p.store][string(k)], c.data[l.store][string(k)]) {
					return fmt.Errorf("region %d, key %c: store %d has %v, store %d has %v", id, k, l.store, c.data[l.store][string(k)], p.store, c.data[p.store][string(k)])
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmpStrings(a.start, b.start) })
	at := ""
	for i, s := range all {
		if s.start != at || i > 0 && at == "" {
			return fmt.Errorf("region %d begins at %q, the one before ends at %q", s.l.region, s.start, at)
		}
		at = s.end
	}
	if len(all) == 0 || at != "" {
		return fmt.Errorf("the key space ends at %q", at)
	}
	return nil
}

// heldByOthers tells whether the range of a peer belongs to other regions.
func (c *simCluster) heldByOthers(p *simPeer) bool {
	return slices.ContainsFunc(c.regionIDs(), func(id uint64) bool {
		l := c.leaderOf(id)
		return id != p.region && l != nil && l.state == raftstate.Normal && overlaps(l.desc.StartKey, l.desc.EndKey, p.desc.StartKey, p.desc.EndKey)
	})
}

func cmpStrings(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// kept lists what the survivors have: writes in the data of live peers, and those that they know to be committed.
func (c *simCluster) kept() map[int]simWrite {
	out := map[int]simWrite{}
	for _, s := range c.stores {
		for _, p := range c.peers[s] {
			for k, ws := range c.data[s] {
				if inRange(k, p.desc) {
					for _, w := range ws {
						out[w.id] = w
					}
				}
			}
			for i := p.applied + 1; i <= min(p.commit, p.last()-p.unpersisted); i++ {
				if w, ok := c.effect[p.region][i]; ok {
					out[w.id] = w
				}
			}
		}
	}
	return out
}

// listed tells whether a plan names the loss of a write.
func listed(p *Plan, problems []Problem, w simWrite) bool {
	for _, r := range p.Regions {
		if r.Decision == DecisionCreate && inRange(w.key, r.New) || r.Decision == DecisionRemoved && inRange(w.key, r.Old) {
			return true
		}
		if r.ID == w.region && slices.ContainsFunc(r.Loss.Entries, func(l LostEntries) bool { return l.First <= w.index && w.index <= l.Last }) {
			return true
		}
	}
	for _, x := range problems {
		if s, ok := x.(*StaleCopy); ok && w.key >= string(s.Start) && startBeforeEnd(raftstate.Key(w.key), s.End) {
			return true
		}
	}
	return false
}

// simDebug looks at a plan before it is carried out.
var simDebug func(*simCluster, Input, *Plan, []Problem)

var simAfter func(*simCluster)

type simStats struct{ plans, rewritten, tombstones, splitOff, merged, lost, carried, holes, healthy int }

// simulate runs one seed; the error says what is wrong.
func simulate(seed int64, st *simStats) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the model panics: %v", r)
			if os.Getenv("SIM_PANIC") != "" {
				panic(r)
			}
		}
	}()
	c := newSim(seed)
	c.run(100 + c.rnd.Intn(900))
	up := map[uint64]bool{}
	opt := Options{PlanID: "p", Tool: "t", Made: "m", AllocID: c.nextID}
	for _, s := range c.stores {
		up[s] = true
	}
	gone := c.rnd.Intn(len(c.stores))
	for _, i := range c.rnd.Perm(len(c.stores))[:gone] {
		up[c.stores[i]] = false
		opt.FailedStores = append(opt.FailedStores, c.stores[i])
	}
	opt.Keep = []string{KeepAll, KeepAll, KeepWinner}[c.rnd.Intn(3)]
	opt.HoleFill = []string{HoleEmpty, HoleStale}[c.rnd.Intn(2)]
	if c.rnd.Intn(3) == 0 {
		opt.ToTS = mvcc.TS(c.ts - uint64(c.rnd.Intn(40)))
	}
	c.accident(up)
	var in Input
	var stores []uint64
	for _, s := range c.stores {
		if up[s] {
			stores = append(stores, s)
			c.report(&in, s, opt.ToTS, c.rnd)
		}
	}
	p, problems := Make(in, opt)
	if p == nil {
		return fmt.Errorf("no plan: %v", problems[0].What())
	}
	if len(p.Questions) > 0 {
		c.answer(&in, p)
		st.carried++
		if p, problems = Make(in, opt); p == nil || len(p.Questions) > 0 {
			return fmt.Errorf("a second round of questions")
		}
	}
	if simDebug != nil {
		simDebug(c, in, p, problems)
	}
	for _, v := range Check(in, p) {
		return v
	}
	for _, x := range problems {
		if x.Severity() == Fatal {
			return fmt.Errorf("%s: %s", x.Name(), x.What())
		}
	}
	had := c.kept()
	if err := c.carryOut(p); err != nil {
		return err
	}
	if err := c.restart(stores); err != nil {
		return err
	}
	if simAfter != nil {
		simAfter(c)
	}
	if err := c.judge(stores); err != nil {
		return err
	}
	st.plans++
	st.rewritten += p.Summary.Rewritten + p.Summary.Rewound
	st.tombstones += p.Summary.Tombstoned
	st.healthy += p.Summary.Healthy
	for _, r := range p.Regions {
		switch r.Decision {
		case DecisionSplitOff:
			st.splitOff++
		case DecisionMerged:
			st.merged++
		case DecisionCreate:
			st.holes++
		}
	}
	final := map[int]bool{}
	for _, id := range c.regionIDs() {
		if l := c.leaderOf(id); l != nil {
			for k, ws := range c.data[l.store] {
				if !inRange(k, l.desc) {
					continue
				}
				for _, w := range ws {
					final[w.id] = true
					if opt.ToTS != 0 && mvcc.TS(w.ts) > opt.ToTS {
						return fmt.Errorf("write %d of region %d at %d is above T %d and still there", w.id, w.region, w.ts, opt.ToTS)
					}
				}
			}
		}
	}
	for _, w := range had {
		if final[w.id] || opt.ToTS != 0 && mvcc.TS(w.ts) > opt.ToTS {
			continue
		}
		if !listed(p, problems, w) {
			return fmt.Errorf("write %d (region %d, index %d, key %s, ts %d) is lost, and the plan does not say so", w.id, w.region, w.index, w.key, w.ts)
		}
		st.lost++
	}
	return nil
}

// answer does what collect --answer does.
func (c *simCluster) answer(in *Input, p *Plan) {
	for _, q := range p.Questions {
		for _, s := range q.Stores {
			a := &Answer{StoreID: s, Question: q.ID, Fingerprint: FingerprintOf([]byte{byte(s)}), Here: true}
			for i := q.From + 1; i <= q.To; i++ {
				a.Entries = append(a.Entries, CarriedEntry{Index: i, Term: c.peers[s][q.RegionID].termAt(i), Raw: []byte{1}})
			}
			in.Answers = append(in.Answers, a)
		}
	}
}

// TestSimulator plans for random clusters, carries the plans out, runs the survivors on, and demands that everything that a survivor had
// applied, or knew to be committed, is there or was listed as lost, that all replicas agree, and that the cluster is legal.
// TIKV_REPAIR_SIM_SEEDS (or -sim-seeds) sets how many.
func TestSimulator(t *testing.T) {
	first, n := int64(1), int64(*simSeeds)
	if s := os.Getenv("TIKV_REPAIR_SIM_SEEDS"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		n = int64(v)
	}
	if *simSeed != 0 {
		first, n = *simSeed, 1
	} else if testing.Short() {
		n = min(n, 200)
	}
	var st simStats
	failed := 0
	for seed := first; seed < first+n; seed++ {
		if err := simulate(seed, &st); err != nil {
			t.Errorf("seed %d: %v (go test ./plan -run TestSimulator -sim-seed %d)", seed, err, seed)
			if failed++; failed >= 10 {
				break
			}
		}
	}
	t.Logf("seeds %d to %d: %+v", first, first+n-1, st)
	if *simSeed == 0 && n >= 1000 && (st.splitOff == 0 || st.merged == 0 || st.lost == 0 || st.carried == 0 || st.holes == 0 || st.healthy == 0) {
		t.Errorf("a situation never came up: %+v", st)
	}
}

// TestSimulatorAlone is the control: without an accident and without a plan the model goes on by itself.
func TestSimulatorAlone(t *testing.T) {
	failed := 0
	for seed := int64(1); seed <= 500 && failed < 10; seed++ {
		c := newSim(seed)
		c.run(100 + c.rnd.Intn(900))
		had := c.kept()
		err := c.restart(c.stores)
		if err == nil {
			err = c.judge(c.stores)
		}
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
			failed++
			continue
		}
		final := map[int]bool{}
		for _, id := range c.regionIDs() {
			if l := c.leaderOf(id); l != nil {
				for _, ws := range c.data[l.store] {
					for _, w := range ws {
						final[w.id] = true
					}
				}
			}
		}
		for id, w := range had {
			if !final[id] {
				t.Errorf("seed %d: write %v is lost", seed, w)
				failed++
				break
			}
		}
	}
}
