package plan

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// end is the last index that the peer has in its log or, applied before it was persisted, in its data; with its term.
func (p *PeerReport) end() (index, term uint64) {
	if p.Applied > p.Last {
		return p.Applied, p.AppliedTerm
	}
	return p.Last, p.LastTerm
}

// groupAt finds the group that holds an index.
func (p *PeerReport) groupAt(index uint64) (LogGroup, bool) {
	i, found := slices.BinarySearchFunc(p.Log, index, func(g LogGroup, index uint64) int {
		switch {
		case g.Last < index:
			return -1
		case g.First > index:
			return 1
		}
		return 0
	})
	if !found {
		return LogGroup{}, false
	}
	return p.Log[i], true
}

// termAt is the term of the entry at an index, as far as the report tells.
func (p *PeerReport) termAt(index uint64) (uint64, bool) {
	if g, ok := p.groupAt(index); ok && g.Kind != GroupMissing {
		return g.Term, true
	}
	switch {
	case index == p.Truncated.Index:
		return p.Truncated.Term, true
	case index == raftstate.InitLogIndex:
		return raftstate.InitLogTerm, true
	case index == p.Applied && p.AppliedTerm != 0:
		return p.AppliedTerm, true
	case index == p.Last && p.LastTerm != 0:
		return p.LastTerm, true
	}
	return 0, false
}

// above lists the groups with an entry above an index.
func (p *PeerReport) above(index uint64) []LogGroup {
	i, _ := slices.BinarySearchFunc(p.Log, index, func(g LogGroup, index uint64) int {
		if g.Last <= index {
			return -1
		}
		return 1
	})
	return p.Log[i:]
}

// commonEnd is the last index up to which two logs are known to agree. Two logs that have an entry of the same index and term agree up
// to it (raft's log matching), and everything that both have applied agrees.
func commonEnd(a, b *PeerReport) uint64 {
	floor := min(a.Applied, b.Applied)
	ea, _ := a.end()
	eb, _ := b.end()
	for i := min(ea, eb); i > floor; {
		ta, oka := a.termAt(i)
		tb, okb := b.termAt(i)
		switch {
		case !oka || !okb:
			i--
			// Below the first entry of either log nothing can be compared any more.
			if i < a.Truncated.Index || i < b.Truncated.Index {
				return floor
			}
			continue
		case ta == tb:
			return i
		}
		// Terms never fall along a log: the log with the higher term here cannot agree before that term began.
		higher := a
		if tb > ta {
			higher = b
		}
		if g, ok := higher.groupAt(i); ok {
			i = g.First - 1
		} else {
			i--
		}
	}
	return floor
}

// minTS is the smallest timestamp of anything that a run changes; MaxTS when there is nothing.
func (w *WriteSum) minTS() mvcc.TS {
	m := mvcc.MaxTS
	for _, ts := range []mvcc.TS{w.MinCommitTS, w.MinStartTS} {
		if ts != 0 {
			m = min(m, ts)
		}
	}
	return m
}

// onlyAbove tells whether everything that a group changes in the data is above t, so that a rewind to t removes it again. Deletes of locks
// alone carry no timestamp; a lock that is still there is decided by its transaction, which gives the same.
func (g LogGroup) onlyAbove(t mvcc.TS) bool {
	switch g.Kind {
	case GroupEmpty, GroupConfChange:
		return true
	case GroupAdmin:
		return g.Admin != nil && !structural(g.Admin.Type)
	case GroupWrite:
		w := g.Write
		return g.Blocked == "" && (w == nil || w.Unstamped == 0 && w.DeleteRanges == 0 && w.Ingests == 0 && w.minTS() > t)
	}
	return false
}

// structural tells whether an admin command changes the range, the data's owner or the state of a region.
func structural(t raftstate.AdminType) bool {
	switch t {
	case raftstate.AdminSplit, raftstate.AdminBatchSplit, raftstate.AdminPrepareMerge, raftstate.AdminCommitMerge, raftstate.AdminRollbackMerge,
		raftstate.AdminPrepareFlashback, raftstate.AdminFinishFlashback, raftstate.AdminBatchSwitchWitness:
		return true
	}
	return false
}

// harmless tells whether an admin command has no effect on data or records that matters, whatever is done to the region.
func harmless(t raftstate.AdminType) bool {
	switch t {
	case raftstate.AdminCompactLog, raftstate.AdminTransferLeader, raftstate.AdminComputeHash, raftstate.AdminVerifyHash, raftstate.AdminUpdateGcPeer:
		return true
	}
	return false
}

// step is an admin command or conf change above applied whose epoch fits when its turn comes, so that it changes the region.
type step struct {
	index    uint64
	admin    *raftstate.Admin // nil: leave the joint state
	after    raftstate.Region
	state    raftstate.PeerState
	children []raftstate.Region // of a split
}

func (s step) structural() bool { return s.admin != nil && structural(s.admin.Type) }

// walked is what the entries above applied do to a region's descriptor.
type walked struct {
	steps []step
	// proven is the last index of an entry whose header has the version that a structural step before it made: its leader had applied the
	// step, so the step was committed. 0: none.
	proven uint64
	// maxEpoch is over all headers.
	maxEpoch raftstate.Epoch
}

// walk follows the descriptor of a peer through its log.
//
//	command                        compares    conf_ver    version                     range
//	ChangePeer, ChangePeerV2       conf_ver    + changes
//	Split, BatchSplit of k         both                    +k                          the part that it keeps
//	PrepareMerge                   both        +1          +1                          (Merging)
//	CommitMerge                    both                    max(source, own) + 1        with the source's
//	RollbackMerge                  both                    +1                          (Normal)
//	BatchSwitchWitness of n        conf_ver    +n
//
// Source: tikv/tikv master components/raftstore/src/store/util.rs (admin_cmd_epoch_lookup), fsm/apply.rs (exec_*).
func walk(p *PeerReport) walked {
	var w walked
	cur, state := p.Region, p.State
	changed := false
	for _, g := range p.above(p.Applied) {
		if g.First <= p.Applied && g.Kind != GroupWrite && g.Kind != GroupEmpty {
			continue
		}
		w.maxEpoch.ConfVer = max(w.maxEpoch.ConfVer, g.Epoch.ConfVer)
		w.maxEpoch.Version = max(w.maxEpoch.Version, g.Epoch.Version)
		if changed && g.Epoch.Version == cur.Epoch.Version {
			w.proven = g.Last
		}
		if g.Kind != GroupAdmin && g.Kind != GroupConfChange {
			continue
		}
		if g.Admin != nil {
			c := g.Admin.Type.Checks()
			if c.ConfVer && g.Epoch.ConfVer != cur.Epoch.ConfVer || c.Version && g.Epoch.Version != cur.Epoch.Version {
				continue
			}
			if harmless(g.Admin.Type) {
				continue
			}
		}
		s := step{index: g.First, admin: g.Admin}
		cur, state, s.children = applyAdmin(cur, state, g)
		s.after, s.state = cur, state
		changed = changed || s.structural()
		w.steps = append(w.steps, s)
	}
	return w
}

func applyAdmin(r raftstate.Region, state raftstate.PeerState, g LogGroup) (raftstate.Region, raftstate.PeerState, []raftstate.Region) {
	a := g.Admin
	r.Peers = slices.Clone(r.Peers)
	if a == nil {
		leaveJoint(&r)
		return r, state, nil
	}
	switch a.Type {
	case raftstate.AdminChangePeer, raftstate.AdminChangePeerV2:
		changePeers(&r, a)
	case raftstate.AdminSplit, raftstate.AdminBatchSplit:
		return splitRegion(r, state, a)
	case raftstate.AdminPrepareMerge:
		r.Epoch.ConfVer++
		r.Epoch.Version++
		state = raftstate.Merging
	case raftstate.AdminRollbackMerge:
		r.Epoch.Version++
		state = raftstate.Normal
	case raftstate.AdminCommitMerge:
		if a.Source != nil {
			r = joined(r, *a.Source)
		}
	case raftstate.AdminPrepareFlashback:
		r.IsInFlashback, r.FlashbackStartTS = true, a.FlashbackStartTS
	case raftstate.AdminFinishFlashback:
		r.IsInFlashback, r.FlashbackStartTS = false, 0
	case raftstate.AdminBatchSwitchWitness:
		r.Epoch.ConfVer += uint64(len(a.Witnesses))
		for _, w := range a.Witnesses {
			for i := range r.Peers {
				if r.Peers[i].ID == w.PeerID {
					r.Peers[i].IsWitness = w.IsWitness
				}
			}
		}
	}
	return r, state, nil
}

// joined is the target of a merge after it has taken in its neighbour.
func joined(target, source raftstate.Region) raftstate.Region {
	target.Epoch.Version = max(target.Epoch.Version, source.Epoch.Version) + 1
	if bytes.Equal(source.EndKey, target.StartKey) && len(source.EndKey) > 0 {
		target.StartKey = source.StartKey
	} else {
		target.EndKey = source.EndKey
	}
	return target
}

func leaveJoint(r *raftstate.Region) {
	for i := range r.Peers {
		switch r.Peers[i].Role {
		case raftstate.IncomingVoter:
			r.Peers[i].Role = raftstate.Voter
		case raftstate.DemotingVoter:
			r.Peers[i].Role = raftstate.Learner
		default:
			continue
		}
		r.Epoch.ConfVer++
	}
}

func changePeers(r *raftstate.Region, a *raftstate.Admin) {
	if len(a.Changes) == 0 {
		leaveJoint(r)
		return
	}
	joint := a.Type == raftstate.AdminChangePeerV2 && len(a.Changes) > 1
	r.Epoch.ConfVer += uint64(len(a.Changes))
	for _, c := range a.Changes {
		at := slices.IndexFunc(r.Peers, func(p raftstate.Peer) bool { return p.StoreID == c.Peer.StoreID })
		role := raftstate.Voter
		switch c.Type {
		case "RemoveNode":
			if at >= 0 {
				r.Peers = slices.Delete(r.Peers, at, at+1)
			}
			continue
		case "AddNode":
			if joint {
				role = raftstate.IncomingVoter
			}
		case "AddLearnerNode":
			role = raftstate.Learner
			if joint && at >= 0 && r.Peers[at].Role == raftstate.Voter {
				role = raftstate.DemotingVoter
			}
		}
		n := c.Peer
		n.Role = role
		if at >= 0 {
			n.ID = r.Peers[at].ID
			r.Peers[at] = n
		} else {
			r.Peers = append(r.Peers, n)
		}
	}
}

// splitRegion cuts a region: all parts get the same epoch; the old id keeps the last part with right_derive, else the first. The new
// regions' peers are those of the old one in the same order, with new ids.
func splitRegion(r raftstate.Region, state raftstate.PeerState, a *raftstate.Admin) (raftstate.Region, raftstate.PeerState, []raftstate.Region) {
	r.Epoch.Version += uint64(len(a.Splits))
	bounds := []raftstate.Key{r.StartKey}
	for _, s := range a.Splits {
		bounds = append(bounds, s.Key)
	}
	bounds = append(bounds, r.EndKey)
	var children []raftstate.Region
	for i, s := range a.Splits {
		c := r
		c.ID = s.NewRegionID
		at := i + 1
		if a.RightDerive {
			at = i
		}
		c.StartKey, c.EndKey = bounds[at], bounds[at+1]
		c.Peers = slices.Clone(r.Peers)
		for j := range c.Peers {
			if j < len(s.NewPeerIDs) {
				c.Peers[j].ID = s.NewPeerIDs[j]
			}
		}
		if len(s.NewPeerIDs) != len(r.Peers) {
			// TiKV refuses such a split when it applies it: the entry is a no-op.
			r.Epoch.Version -= uint64(len(a.Splits))
			return r, state, nil
		}
		children = append(children, c)
	}
	if a.RightDerive {
		r.StartKey = bounds[len(bounds)-2]
	} else {
		r.EndKey = bounds[1]
	}
	return r, state, children
}

// compareEpoch orders epochs by version, then conf_ver.
func compareEpoch(a, b raftstate.Epoch) int {
	return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.ConfVer, b.ConfVer))
}

// keyBefore compares two keys of which the second is an end key: "" is behind everything.
func startBeforeEnd(start, end raftstate.Key) bool {
	return len(end) == 0 || bytes.Compare(start, end) < 0
}

// compareEnds orders end keys; "" is the last.
func compareEnds(a, b raftstate.Key) int {
	switch {
	case len(a) == 0 && len(b) == 0:
		return 0
	case len(a) == 0:
		return 1
	case len(b) == 0:
		return -1
	}
	return bytes.Compare(a, b)
}

func overlaps(aStart, aEnd, bStart, bEnd raftstate.Key) bool {
	return startBeforeEnd(aStart, bEnd) && startBeforeEnd(bStart, aEnd)
}

// covers tells whether the first range holds the whole second one.
func covers(aStart, aEnd, bStart, bEnd raftstate.Key) bool {
	return bytes.Compare(aStart, bStart) <= 0 && compareEnds(aEnd, bEnd) >= 0
}
