package plan

import (
	"fmt"
	"math/rand"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// A model of a TiKV cluster, for random tests of the planner: raft groups with writes, splits, merges, conf changes, changes of leader and
// compacted logs. It has its own idea of what applying a command does and shares no code with the planner.

const simBase = raftstate.InitLogIndex // the entry log[i] has index simBase+1+i

type simEntry struct {
	term  uint64
	kind  GroupKind
	epoch raftstate.Epoch
	admin *raftstate.Admin
	key   string // of a write
	id    int    // of a write
	ts    uint64 // of a write
	bad   bool   // cannot be applied any more: its file is gone
	// source has the log of a merge's source, up to the preparation.
	source []simEntry
}

type simPeer struct {
	store, id, region uint64
	log               []simEntry
	commit, applied   uint64
	trunc             uint64
	term              uint64
	desc              raftstate.Region
	state             raftstate.PeerState
	merge             *raftstate.MergeState
	unpersisted       uint64 // entries at the end of log that are applied and not in the stored log
}

func (p *simPeer) last() uint64 { return simBase + uint64(len(p.log)) }

func (p *simPeer) at(index uint64) *simEntry { return &p.log[index-simBase-1] }

func (p *simPeer) termAt(index uint64) uint64 {
	if index <= simBase {
		return raftstate.InitLogTerm
	}
	return p.at(index).term
}

// simWrite is a write that took effect on its region's true history.
type simWrite struct {
	id     int
	region uint64
	key    string
	ts     uint64
	index  uint64
}

type simCluster struct {
	rnd    *rand.Rand
	stores []uint64
	peers  map[uint64]map[uint64]*simPeer // store → region
	tombs  map[uint64]map[uint64]*simPeer
	data   map[uint64]map[string][]simWrite // store → key
	leader map[uint64]uint64                // region → store
	// truth has, for each region, what each committed entry does: applied as soon as it is committed.
	truth  map[uint64]*simPeer
	effect map[uint64]map[uint64]simWrite // region → index
	nextID uint64
	writes int
	ts     uint64
	merged map[uint64]bool // regions that a committed merge has taken in
	// restarted: the accident has happened, and what is true is what the survivors say.
	restarted bool
}

func newSim(seed int64) *simCluster {
	c := &simCluster{rnd: rand.New(rand.NewSource(seed)), peers: map[uint64]map[uint64]*simPeer{}, tombs: map[uint64]map[uint64]*simPeer{}, data: map[uint64]map[string][]simWrite{},
		leader: map[uint64]uint64{}, merged: map[uint64]bool{}, truth: map[uint64]*simPeer{}, effect: map[uint64]map[uint64]simWrite{}, nextID: 1000, ts: 100}
	n := 3 + c.rnd.Intn(3)
	for s := 1; s <= n; s++ {
		id := uint64(s)
		c.stores = append(c.stores, id)
		c.peers[id], c.tombs[id], c.data[id] = map[uint64]*simPeer{}, map[uint64]*simPeer{}, map[string][]simWrite{}
	}
	bounds := []string{"", "h", "p", ""}
	for i := 0; i+1 < len(bounds); i++ {
		r := raftstate.Region{ID: c.id(), Epoch: raftstate.Epoch{ConfVer: 1, Version: 1}}
		if bounds[i] != "" {
			r.StartKey = raftstate.Key(bounds[i])
		}
		if bounds[i+1] != "" {
			r.EndKey = raftstate.Key(bounds[i+1])
		}
		size := 3
		if n >= 5 && c.rnd.Intn(3) == 0 {
			size = 5
		}
		for _, j := range c.rnd.Perm(n)[:size] {
			r.Peers = append(r.Peers, raftstate.Peer{ID: c.id(), StoreID: c.stores[j]})
		}
		for _, p := range r.Peers {
			c.add(p.StoreID, r)
		}
		c.begin(r)
	}
	return c
}

func (c *simCluster) id() uint64 {
	c.nextID++
	return c.nextID
}

// begin notes a new region's true history.
func (c *simCluster) begin(r raftstate.Region) {
	if c.truth[r.ID] == nil {
		c.truth[r.ID] = &simPeer{region: r.ID, desc: r, applied: simBase, commit: simBase, trunc: simBase}
		c.effect[r.ID] = map[uint64]simWrite{}
	}
}

func (c *simCluster) add(store uint64, r raftstate.Region) *simPeer {
	own, ok := r.PeerOn(store)
	if !ok {
		return nil
	}
	p := &simPeer{store: store, id: own.ID, region: r.ID, desc: r, applied: simBase, commit: simBase, trunc: simBase, term: raftstate.InitLogTerm}
	c.peers[store][r.ID] = p
	return p
}

func (c *simCluster) regionIDs() []uint64 {
	var out []uint64
	for id := range c.truth {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// replicas lists the live peers of a region by store.
func (c *simCluster) replicas(region uint64) (out []*simPeer) {
	for _, s := range c.stores {
		if p := c.peers[s][region]; p != nil {
			out = append(out, p)
		}
	}
	return out
}

// majority tells whether a set of stores is a quorum of a configuration.
func majority(r raftstate.Region, have func(raftstate.Peer) bool) bool {
	in, inHave, out, outHave := 0, 0, 0, 0
	for _, p := range r.Peers {
		i := p.Role == raftstate.Voter || p.Role == raftstate.IncomingVoter
		o := p.Role == raftstate.Voter || p.Role == raftstate.DemotingVoter
		if i {
			in++
		}
		if o {
			out++
		}
		if have(p) {
			if i {
				inHave++
			}
			if o {
				outHave++
			}
		}
	}
	return inHave*2 > in && outHave*2 > out
}

// vacant tells whether a store would let a message create a peer.
func (c *simCluster) vacant(q raftstate.Peer, r raftstate.Region) bool {
	if t := c.tombs[q.StoreID][r.ID]; t != nil && t.id >= q.ID {
		return false
	}
	for _, o := range c.peers[q.StoreID] {
		if overlaps(o.desc.StartKey, o.desc.EndKey, r.StartKey, r.EndKey) {
			return false
		}
	}
	return true
}

// elect makes a peer the leader, if the others let it: a majority of its configuration has no longer log.
func (c *simCluster) elect(p *simPeer, up func(uint64) bool) bool {
	if role := roleOf(p); role == raftstate.Learner {
		return false
	}
	// A committed conf change that is not applied keeps a peer from campaigning.
	for i := p.applied + 1; i <= min(p.commit, p.last()); i++ {
		if p.at(i).kind == GroupConfChange {
			return false
		}
	}
	var voters []*simPeer
	ok := majority(p.desc, func(q raftstate.Peer) bool {
		o := c.peers[q.StoreID][p.region]
		if o == nil && c.restarted && up(q.StoreID) && c.vacant(q, p.desc) {
			return true // the message creates the peer, which has nothing to object
		}
		if o == nil || !up(q.StoreID) || o.id != q.ID {
			return false
		}
		if o.term > p.term && o != p && o.termAt(o.last()) > p.termAt(p.last()) {
			return false
		}
		if o.termAt(o.last()) > p.termAt(p.last()) || o.termAt(o.last()) == p.termAt(p.last()) && o.last() > p.last() {
			return false
		}
		voters = append(voters, o)
		return true
	})
	if !ok {
		return false
	}
	for _, o := range c.replicas(p.region) {
		p.term = max(p.term, o.term)
	}
	p.term++
	for _, o := range voters {
		o.term = p.term
	}
	c.leader[p.region] = p.store
	p.log = append(p.log, simEntry{term: p.term, kind: GroupEmpty})
	return true
}

func roleOf(p *simPeer) raftstate.PeerRole {
	q, ok := p.desc.PeerOn(p.store)
	if !ok {
		return raftstate.Learner
	}
	return q.Role
}

func (c *simCluster) leaderOf(region uint64) *simPeer {
	s, ok := c.leader[region]
	if !ok {
		return nil
	}
	return c.peers[s][region]
}

// replicate brings up to n entries of the leader to a peer.
func (c *simCluster) replicate(l, p *simPeer, n int) {
	if l == p || l.term < p.term {
		return
	}
	if q, ok := l.desc.PeerOn(p.store); !ok || q.ID != p.id || p.last() < l.trunc {
		return
	}
	p.term = l.term
	match := min(p.last(), l.last())
	for match > simBase && p.termAt(match) != l.termAt(match) {
		match--
	}
	if match < p.commit {
		panic("a committed entry is replaced")
	}
	to := min(l.last(), match+uint64(n))
	if match < p.last() && to > match {
		p.log = slices.Clone(p.log[:match-simBase])
	}
	for i := max(match, p.last()) + 1; i <= to; i++ {
		p.log = append(slices.Clip(p.log), *l.at(i))
	}
	if p.last() >= to && p.termAt(to) == l.termAt(to) {
		p.commit = max(p.commit, min(l.commit, to))
	}
}

// commit moves the leader's commit index to what a majority has.
func (c *simCluster) commit(l *simPeer) {
	for i := l.last(); i > l.commit && l.termAt(i) == l.term; i-- {
		if majority(l.desc, func(q raftstate.Peer) bool {
			o := c.peers[q.StoreID][l.region]
			return o != nil && o.id == q.ID && o.last() >= i && o.termAt(i) == l.termAt(i)
		}) {
			l.commit = i
			break
		}
	}
	t := c.truth[l.region]
	if c.restarted {
		return
	}
	for t.applied < l.commit {
		t.log = append(t.log, *l.at(t.applied + 1))
		c.applyOne(t, nil)
	}
}

// applyOne applies the next entry of a peer. Without data (the truth) it notes what takes effect. The result is the reason of a panic.
func (c *simCluster) applyOne(p *simPeer, data map[string][]simWrite) string {
	i := p.applied + 1
	e := *p.at(i)
	p.applied = i
	switch e.kind {
	case GroupWrite:
		if e.epoch.Version != p.desc.Epoch.Version {
			return ""
		}
		if e.bad {
			return "its file is gone"
		}
		w := simWrite{e.id, p.region, e.key, e.ts, i}
		if data == nil {
			c.effect[p.region][i] = w
		} else {
			data[e.key] = append(data[e.key], w)
		}
	case GroupConfChange, GroupAdmin:
		if k := e.admin.Type.Checks(); k.ConfVer && e.epoch.ConfVer != p.desc.Epoch.ConfVer || k.Version && e.epoch.Version != p.desc.Epoch.Version {
			return ""
		}
		return c.applyAdmin(p, e, i, data)
	}
	return ""
}

func (c *simCluster) applyAdmin(p *simPeer, e simEntry, i uint64, data map[string][]simWrite) string {
	a := e.admin
	d := p.desc
	d.Peers = slices.Clone(d.Peers)
	switch a.Type {
	case raftstate.AdminChangePeerV2:
		simChange(&d, a.Changes)
	case raftstate.AdminBatchSplit:
		s := a.Splits[0]
		child := d
		child.ID, child.Peers = s.NewRegionID, slices.Clone(d.Peers)
		for j := range child.Peers {
			child.Peers[j].ID = s.NewPeerIDs[j]
		}
		d.Epoch.Version++
		child.Epoch.Version++
		if a.RightDerive {
			child.EndKey, d.StartKey = s.Key, s.Key
		} else {
			child.StartKey, d.EndKey = s.Key, s.Key
		}
		if data != nil {
			if c.peers[p.store][child.ID] == nil && c.tombs[p.store][child.ID] == nil {
				c.add(p.store, child)
			}
		}
		c.begin(child)
	case raftstate.AdminPrepareMerge:
		d.Epoch.Version++
		d.Epoch.ConfVer++
		p.state, p.merge = raftstate.Merging, &raftstate.MergeState{MinIndex: a.MinIndex, Commit: i, Target: a.Target}
	case raftstate.AdminRollbackMerge:
		d.Epoch.Version++
		p.state, p.merge = raftstate.Normal, nil
	case raftstate.AdminCommitMerge:
		if data != nil {
			s := c.peers[p.store][a.Source.ID]
			if s == nil {
				return fmt.Sprintf("region %d takes in region %d, which is not on store %d", p.region, a.Source.ID, p.store)
			}
			if s.last() < a.Commit || s.termAt(a.Commit) != e.source[a.Commit-simBase-1].term {
				s.log = slices.Clone(e.source)
			}
			for s.applied < a.Commit {
				if why := c.applyOne(s, data); why != "" {
					return why
				}
			}
			if s.state != raftstate.Merging || s.desc.Epoch != a.Source.Epoch {
				return fmt.Sprintf("region %d takes in region %d at epoch %v, on store %d it has %v and is %s", p.region, a.Source.ID, a.Source.Epoch, p.store, s.desc.Epoch, s.state)
			}
			delete(c.peers[p.store], s.region)
			c.tombs[p.store][s.region] = s
		}
		c.merged[a.Source.ID] = true
		d.Epoch.Version = max(d.Epoch.Version, a.Source.Epoch.Version) + 1
		if len(d.StartKey) > 0 && string(a.Source.EndKey) == string(d.StartKey) {
			d.StartKey = a.Source.StartKey
		} else {
			d.EndKey = a.Source.EndKey
		}
	}
	p.desc = d
	if _, ok := d.PeerOn(p.store); !ok && data != nil {
		delete(c.peers[p.store], p.region)
		c.tombs[p.store][p.region] = p
	}
	return ""
}

func simChange(d *raftstate.Region, changes []raftstate.PeerChange) {
	if len(changes) == 0 {
		for i := range d.Peers {
			switch d.Peers[i].Role {
			case raftstate.IncomingVoter:
				d.Peers[i].Role = raftstate.Voter
				d.Epoch.ConfVer++
			case raftstate.DemotingVoter:
				d.Peers[i].Role = raftstate.Learner
				d.Epoch.ConfVer++
			}
		}
		return
	}
	for _, ch := range changes {
		d.Epoch.ConfVer++
		at := slices.IndexFunc(d.Peers, func(q raftstate.Peer) bool { return q.ID == ch.Peer.ID })
		role := raftstate.Voter
		switch {
		case ch.Type == "RemoveNode":
			if at >= 0 {
				d.Peers = slices.Delete(d.Peers, at, at+1)
			}
			continue
		case ch.Type == "AddLearnerNode" && len(changes) > 1 && at >= 0:
			role = raftstate.DemotingVoter
		case ch.Type == "AddLearnerNode":
			role = raftstate.Learner
		case len(changes) > 1:
			role = raftstate.IncomingVoter
		}
		q := ch.Peer
		q.Role = role
		if at >= 0 {
			d.Peers[at] = q
		} else {
			d.Peers = append(d.Peers, q)
		}
	}
}

// run takes n random steps.
func (c *simCluster) run(n int) {
	for _, id := range c.regionIDs() {
		c.step(id, 0)
	}
	for range n {
		ids := c.regionIDs()
		c.step(ids[c.rnd.Intn(len(ids))], c.rnd.Intn(100))
	}
}

func (c *simCluster) step(region uint64, what int) {
	reps := c.replicas(region)
	if len(reps) == 0 {
		return
	}
	l := c.leaderOf(region)
	if l == nil || what < 3 {
		c.elect(reps[c.rnd.Intn(len(reps))], func(uint64) bool { return true })
		return
	}
	p := reps[c.rnd.Intn(len(reps))]
	switch {
	case what < 30:
		c.propose(l)
	case what < 60:
		c.replicate(l, p, 1+c.rnd.Intn(6))
		c.commit(l)
	case what < 88:
		for range 1 + c.rnd.Intn(4) {
			if c.peers[p.store][region] == p && p.applied < min(p.commit, p.last()) {
				if why := c.applyOne(p, c.data[p.store]); why != "" {
					panic(why)
				}
			}
		}
	case what < 90:
		if p.applied > p.trunc && p.state == raftstate.Normal && !c.preparing(region) {
			p.trunc += uint64(c.rnd.Intn(int(p.applied - p.trunc)))
		}
	case what < 92:
		c.snapshot(l, p)
	default:
		c.proposeAdmin(l)
	}
}

// preparing: while a merge is prepared the log stays, because the target may have to bring a lagging source up to date.
func (c *simCluster) preparing(region uint64) bool {
	for _, p := range c.replicas(region) {
		for i := p.applied + 1; i <= p.last(); i++ {
			if a := p.at(i).admin; a != nil && a.Type == raftstate.AdminPrepareMerge {
				return true
			}
		}
	}
	return false
}

// snapshot brings a peer that is far behind, or has just been added, to the leader's state.
func (c *simCluster) snapshot(l *simPeer, _ *simPeer) {
	for _, q := range l.desc.Peers {
		p := c.peers[q.StoreID][l.region]
		if p != nil && (p.last() >= l.trunc || p.id != q.ID) || l.state != raftstate.Normal || c.tombs[q.StoreID][l.region] != nil && c.tombs[q.StoreID][l.region].id >= q.ID {
			continue
		}
		// Nothing on that store may overlap.
		free := true
		for _, o := range c.peers[q.StoreID] {
			if o.region != l.region && overlaps(o.desc.StartKey, o.desc.EndKey, l.desc.StartKey, l.desc.EndKey) {
				free = false
			}
		}
		if !free || p != nil && !covers(p.desc.StartKey, p.desc.EndKey, l.desc.StartKey, l.desc.EndKey) {
			continue
		}
		n := &simPeer{store: q.StoreID, id: q.ID, region: l.region, desc: l.desc, applied: l.applied, commit: l.applied, trunc: l.applied, term: l.term,
			log: slices.Clone(l.log[:l.applied-simBase])}
		c.peers[q.StoreID][l.region] = n
		for k := range c.data[q.StoreID] {
			if inRange(k, l.desc) {
				delete(c.data[q.StoreID], k)
			}
		}
		for k, ws := range c.data[l.store] {
			if inRange(k, l.desc) {
				c.data[q.StoreID][k] = slices.Clone(ws)
			}
		}
		return
	}
}

func inRange(k string, r raftstate.Region) bool {
	return k >= string(r.StartKey) && (len(r.EndKey) == 0 || k < string(r.EndKey))
}

func (c *simCluster) propose(l *simPeer) {
	if l.state != raftstate.Normal || c.pendingMerge(l) {
		return
	}
	var keys []string
	for k := 'a'; k <= 'z'; k++ {
		if inRange(string(k), l.desc) {
			keys = append(keys, string(k))
		}
	}
	if len(keys) == 0 {
		return
	}
	c.writes++
	c.ts += uint64(1 + c.rnd.Intn(3))
	l.log = append(l.log, simEntry{term: l.term, kind: GroupWrite, epoch: l.desc.Epoch, key: keys[c.rnd.Intn(len(keys))], id: c.writes, ts: c.ts - uint64(c.rnd.Intn(12))})
}

// pendingMerge: between the proposal of a merge and its application nothing else is proposed.
func (c *simCluster) pendingMerge(l *simPeer) bool {
	for i := l.applied + 1; i <= l.last(); i++ {
		if e := l.at(i); e.admin != nil {
			return true
		}
	}
	return false
}

func (c *simCluster) proposeAdmin(l *simPeer) {
	if c.pendingMerge(l) {
		return
	}
	add := func(e simEntry) {
		e.term, e.epoch = l.term, l.desc.Epoch
		l.log = append(l.log, e)
	}
	if l.state == raftstate.Merging {
		c.goOnMerging(l, add)
		return
	}
	switch c.rnd.Intn(5) {
	case 0, 1:
		var keys []string
		for k := 'b'; k <= 'z'; k++ {
			if inRange(string(k), l.desc) && string(k) != string(l.desc.StartKey) {
				keys = append(keys, string(k))
			}
		}
		if len(keys) == 0 || c.nextID > 1200 {
			return
		}
		s := raftstate.Split{Key: raftstate.Key(keys[c.rnd.Intn(len(keys))]), NewRegionID: c.id()}
		for range l.desc.Peers {
			s.NewPeerIDs = append(s.NewPeerIDs, c.id())
		}
		add(simEntry{kind: GroupAdmin, admin: &raftstate.Admin{Type: raftstate.AdminBatchSplit, Splits: []raftstate.Split{s}, RightDerive: c.rnd.Intn(2) == 0}})
	case 2, 3:
		if ch := c.randomChange(l); ch != nil {
			add(simEntry{kind: GroupConfChange, admin: &raftstate.Admin{Type: raftstate.AdminChangePeerV2, Changes: ch}})
		}
	case 4:
		c.prepareMerge(l, add)
	}
}

func (c *simCluster) randomChange(l *simPeer) []raftstate.PeerChange {
	if l.desc.IsJoint() {
		return []raftstate.PeerChange{}
	}
	var free []uint64
	for _, s := range c.stores {
		if _, ok := l.desc.PeerOn(s); !ok && c.peers[s][l.region] == nil {
			free = append(free, s)
		}
	}
	var learners, voters []raftstate.Peer
	for _, p := range l.desc.Peers {
		if p.Role == raftstate.Learner {
			learners = append(learners, p)
		} else if p.StoreID != l.store {
			voters = append(voters, p)
		}
	}
	switch {
	case len(learners) > 0 && len(voters) > 0 && c.rnd.Intn(2) == 0:
		if p := c.peers[learners[0].StoreID][l.region]; p == nil || p.last() < l.commit {
			return nil
		}
		return []raftstate.PeerChange{{Type: "AddNode", Peer: learners[0]}, {Type: "AddLearnerNode", Peer: voters[c.rnd.Intn(len(voters))]}}
	case len(learners) > 0:
		return []raftstate.PeerChange{{Type: "RemoveNode", Peer: learners[0]}}
	case len(free) > 0:
		return []raftstate.PeerChange{{Type: "AddLearnerNode", Peer: raftstate.Peer{ID: c.id(), StoreID: free[c.rnd.Intn(len(free))]}}}
	case len(voters) > 2:
		return []raftstate.PeerChange{{Type: "RemoveNode", Peer: voters[c.rnd.Intn(len(voters))]}}
	}
	return nil
}

func sameStores(a, b raftstate.Region) bool {
	if len(a.Peers) != len(b.Peers) {
		return false
	}
	for _, p := range a.Peers {
		q, ok := b.PeerOn(p.StoreID)
		if !ok || q.Role != p.Role {
			return false
		}
	}
	return true
}

func (c *simCluster) prepareMerge(l *simPeer, add func(simEntry)) {
	if l.desc.IsJoint() {
		return
	}
	for _, id := range c.regionIDs() {
		t := c.peers[l.store][id]
		if t == nil || id == l.region || t.state != raftstate.Normal || !sameStores(t.desc, l.desc) || t.desc.IsJoint() {
			continue
		}
		if string(t.desc.EndKey) != string(l.desc.StartKey) && string(l.desc.EndKey) != string(t.desc.StartKey) || len(t.desc.EndKey) == 0 && len(l.desc.StartKey) == 0 {
			continue
		}
		if !(len(t.desc.EndKey) > 0 && string(t.desc.EndKey) == string(l.desc.StartKey)) && !(len(l.desc.EndKey) > 0 && string(l.desc.EndKey) == string(t.desc.StartKey)) {
			continue
		}
		// Every replica must be there, and within what the leader's log still has.
		low := l.last()
		for _, q := range l.desc.Peers {
			p := c.peers[q.StoreID][l.region]
			if p == nil || p.id != q.ID || c.peers[q.StoreID][id] == nil {
				return
			}
			match := min(p.last(), l.last())
			for match > simBase && p.termAt(match) != l.termAt(match) {
				match--
			}
			low = min(low, match)
		}
		for _, p := range c.replicas(l.region) {
			if low < p.trunc {
				return
			}
		}
		for i := low + 1; i <= l.last(); i++ {
			if l.at(i).admin != nil {
				return
			}
		}
		target := t.desc
		add(simEntry{kind: GroupAdmin, admin: &raftstate.Admin{Type: raftstate.AdminPrepareMerge, MinIndex: low + 1, Target: &target}})
		return
	}
}

// goOnMerging commits a prepared merge through the target's leader, or takes it back.
func (c *simCluster) goOnMerging(l *simPeer, add func(simEntry)) {
	t := c.leaderOf(l.merge.Target.ID)
	if t != nil && t.state == raftstate.Normal && t.desc.Epoch == l.merge.Target.Epoch && !c.pendingMerge(t) && c.rnd.Intn(4) > 0 {
		src := l.desc
		t.log = append(t.log, simEntry{term: t.term, epoch: t.desc.Epoch, kind: GroupAdmin, source: slices.Clone(l.log[:l.merge.Commit-simBase]),
			admin: &raftstate.Admin{Type: raftstate.AdminCommitMerge, Source: &src, Commit: l.merge.Commit}})
		return
	}
	// Only once the target's epoch has moved on can the old CommitMerge not come any more.
	now := c.truth[l.merge.Target.ID]
	if c.restarted {
		now = t
	}
	if c.merged[l.merge.Target.ID] && !c.merged[l.region] { // the target itself is gone
		add(simEntry{kind: GroupAdmin, admin: &raftstate.Admin{Type: raftstate.AdminRollbackMerge, Commit: l.merge.Commit}})
		return
	}
	if c.merged[l.region] || now == nil || now.desc.Epoch == l.merge.Target.Epoch || covers(now.desc.StartKey, now.desc.EndKey, l.desc.StartKey, l.desc.EndKey) {
		return
	}
	add(simEntry{kind: GroupAdmin, admin: &raftstate.Admin{Type: raftstate.AdminRollbackMerge, Commit: l.merge.Commit}})
}
