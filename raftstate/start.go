package raftstate

import (
	"fmt"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// Rule is one condition that a server checks when it starts a region.
//
// Write C = max(hard_state.commit, apply.commit_index), A = applied_index, L = last_index, T = truncated_state.
// Sources: tikv/tikv master components/raftstore/src/store/fsm/peer.rs (PeerFsm::create), entry_storage.rs (validate_states,
// init_last_term, init_applied_term), peer_storage.rs (initial_state); tikv/raft-rs src/raft.rs (load_state),
// src/confchange/restore.rs.
type Rule int

// The rules, in the numbering of the project's format notes.
const (
	RuleOwnPeer        Rule = 1  // own store in peers
	RuleOwnPeerID      Rule = 2  // own peer id ≠ 0
	RuleCommitEntry    Rule = 3  // hard_state.commit ≥ apply.commit_index, or the entry there exists with commit_term
	RuleCommitInLog    Rule = 4  // C ≤ L
	RuleTerm           Rule = 5  // hard_state.term ≥ commit_term
	RuleApplied        Rule = 6  // A ≤ C (TiKV's own check)
	RuleLastTerm       Rule = 7  // term(L) is known
	RuleAppliedTerm    Rule = 8  // term(A) is known
	RuleHardState      Rule = 9  // hard state not all zero
	RuleCommitRange    Rule = 10 // T.index ≤ hard_state.commit ≤ L
	RuleRaftApplied    Rule = 11 // A ≤ C (raft-rs)
	RuleConfState      Rule = 12 // the configuration can be restored: at least one incoming voter
	RuleJointRoles     Rule = 13 // a joint state has outgoing voters
	RuleLastCommit     Rule = 14 // hard_state.commit ≥ apply.last_commit_index (4.0)
	RuleMissingRaft    Rule = 15 // the raft state exists once A > 5
	RuleApplyingRecord Rule = 16 // a region in state Applying has the raft state of its snapshot
)

// Consequence is what happens to a server that starts in spite of a violation.
type Consequence int

// Consequences, worst last.
const (
	PanicsLater   Consequence = iota // the server starts; a later step panics
	StopsOldLines                    // some lines refuse to start; the violation's Lines says which
	StopsStart                       // the server does not start
)

// String gives the words used in output.
func (c Consequence) String() string {
	switch c {
	case PanicsLater:
		return "panics-later"
	case StopsOldLines:
		return "stops-old-lines"
	}
	return "stops-start"
}

// MarshalText gives String.
func (c Consequence) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Violation is one rule that a region breaks. Message contains the words that TiKV logs.
type Violation struct {
	Rule        Rule        `json:"rule"`
	Region      uint64      `json:"region_id"`
	Consequence Consequence `json:"consequence"`
	Lines       string      `json:"lines,omitempty"` // TiKV lines that enforce the rule, if not all
	Message     string      `json:"message"`
}

// Error makes a Violation an error.
func (v Violation) Error() string {
	return fmt.Sprintf("region %d, start rule %d: %s", v.Region, int(v.Rule), v.Message)
}

// StartInput is what a server reads of one region when it starts.
type StartInput struct {
	StoreID uint64
	Region  RegionLocalState
	Raft    *RaftLocalState // nil: no record
	Apply   *RaftApplyState // nil: no record
	// Snapshot is the raft state beside a region in state Applying; nil: no record.
	Snapshot *RaftLocalState
	// EntryTerm gives the term of a log entry; ok is false when the entry is not there.
	EntryTerm func(index uint64) (term uint64, ok bool)
}

// StartCheck tests the rules and returns every one that is broken, in their order. A rule that another one implies is left
// out, with one exception: 6 and 11 are the same inequality in two layers, and both are named. Tombstones are not checked
// by a server, nor here.
func StartCheck(in StartInput) []Violation {
	if in.Region.State == Tombstone {
		return nil
	}
	c := starter{in: in, d: Derive(in.Raft, in.Apply)}
	c.raft, c.apply = InitialRaftState(), InitialApplyState()
	if in.Raft != nil {
		c.raft = *in.Raft
	}
	if in.Apply != nil {
		c.apply = *in.Apply
	}
	c.recoverFromApplying()
	c.checkPeers()
	if in.Raft == nil && in.Region.State != Applying && c.apply.AppliedIndex > InitLogIndex {
		// The server assumes 5/5/5 and then stops at rule 3, 4 or 10: one cause, one violation.
		c.add(RuleMissingRaft, StopsStart, "", "no raft state although applied_index is %d: the server assumes last_index %d, and "+
			"\"log at recorded commit index\" or \"max(commit index, recorded commit index) > last index\" follows",
			c.apply.AppliedIndex, InitLogIndex)
		return c.out
	}
	c.checkLog()
	c.checkApplied()
	return c.out
}

type starter struct {
	in    StartInput
	raft  RaftLocalState
	apply RaftApplyState
	d     Derived
	out   []Violation
}

func (c *starter) add(r Rule, q Consequence, lines, format string, args ...any) {
	c.out = append(c.out, Violation{Rule: r, Region: c.in.Region.Region.ID, Consequence: q, Lines: lines,
		Message: fmt.Sprintf(format, args...)})
}

// recoverFromApplying does what a server does first with a snapshot that was being applied: the snapshot's raft state
// replaces an older one, and the log is emptied.
func (c *starter) recoverFromApplying() {
	if c.in.Region.State != Applying {
		return
	}
	s := c.in.Snapshot
	if s == nil {
		c.add(RuleApplyingRecord, StopsStart, "", "failed to get raftstate from kv engine, when recover from applying state")
		return
	}
	if c.in.Raft == nil || s.HardState.Commit > c.in.Raft.HardState.Commit {
		c.raft = *s
		c.in.EntryTerm = func(uint64) (uint64, bool) { return 0, false }
	}
	c.d = Derive(&c.raft, c.in.Apply)
}

func (c *starter) checkPeers() {
	r := c.in.Region.Region
	if p, ok := r.PeerOn(c.in.StoreID); !ok {
		c.add(RuleOwnPeer, StopsStart, "", "find no peer for store %d in region %d", c.in.StoreID, r.ID)
	} else if p.ID == 0 {
		c.add(RuleOwnPeerID, StopsStart, "", "invalid peer id of store %d in region %d", c.in.StoreID, r.ID)
	}
	cs, joint := confState(r)
	if len(r.Peers) > 0 {
		tr := tracker.MakeProgressTracker(1, 0)
		if _, _, err := confchange.Restore(confchange.Changer{Tracker: tr, LastIndex: c.raft.LastIndex}, cs); err != nil {
			c.add(RuleConfState, StopsStart, "", "%v", err)
		}
	}
	if joint && len(cs.VotersOutgoing) == 0 {
		c.add(RuleJointRoles, PanicsLater, "", "region %d has IncomingVoter but no outgoing voter: leaving the joint state panics "+
			"(can't leave a non-joint config)", r.ID)
	}
}

// confState translates peers as a server does (tikv/tikv components/raftstore/src/store/util.rs conf_state_from_region).
func confState(r Region) (cs *raftpb.ConfState, joint bool) {
	cs = &raftpb.ConfState{}
	for _, p := range r.Peers {
		switch p.Role {
		case Voter:
			cs.Voters = append(cs.Voters, p.ID)
			cs.VotersOutgoing = append(cs.VotersOutgoing, p.ID)
		case Learner:
			cs.Learners = append(cs.Learners, p.ID)
		case IncomingVoter:
			joint = true
			cs.Voters = append(cs.Voters, p.ID)
		case DemotingVoter:
			joint = true
			cs.VotersOutgoing = append(cs.VotersOutgoing, p.ID)
			cs.LearnersNext = append(cs.LearnersNext, p.ID)
		}
	}
	if !joint {
		cs.VotersOutgoing = nil
	}
	return cs, joint
}

// checkLog holds rules 3, 4, 5, 7, 9, 10 and 14.
func (c *starter) checkLog() {
	hs, last := c.raft.HardState, c.raft.LastIndex
	commit, recorded := hs.Commit, c.apply.CommitIndex
	if commit < recorded {
		if term, ok := c.in.EntryTerm(recorded); !ok || term != c.apply.CommitTerm {
			c.add(RuleCommitEntry, StopsStart, "", "log at recorded commit index [%d] %d doesn't exist, may lose data",
				c.apply.CommitTerm, recorded)
		} else {
			commit = recorded // the server forwards it and goes on with this value
		}
	}
	inLog := c.d.Commit <= last
	if !inLog {
		c.add(RuleCommitInLog, StopsStart, "", "max(commit index, recorded commit index) > last index: %d > %d", c.d.Commit, last)
	}
	if hs.Term < c.apply.CommitTerm {
		c.add(RuleTerm, StopsStart, "", "term of raft state < commit term of apply state: %d < %d", hs.Term, c.apply.CommitTerm)
	}
	if last != 0 {
		if !c.lastTermKnown(last) {
			c.add(RuleLastTerm, StopsStart, "", "entry at %d doesn't exist, may lose data", last)
		}
	}
	if c.in.Raft != nil && hs == (HardState{}) && commit == 0 && c.in.Region.Region.Initialized() {
		c.add(RuleHardState, StopsStart, "", "peer for region is initialized but local state has empty hard state")
	} else if inLog && commit < c.apply.TruncatedState.Index {
		c.add(RuleCommitRange, StopsStart, "", "hs.commit %d is out of range [%d, %d]", commit, c.apply.TruncatedState.Index, last)
	}
	if hs.Commit < c.apply.LastCommitIndex {
		c.add(RuleLastCommit, StopsOldLines, "4.0", "commit index %d < last commit index %d of apply state", hs.Commit,
			c.apply.LastCommitIndex)
	}
}

// lastTermKnown is init_last_term: unlike the applied index, a last index has no recorded term to fall back on, and one below
// the initial index fails an assertion whatever the log holds.
func (c *starter) lastTermKnown(last uint64) bool {
	if last == InitLogIndex || last == c.apply.TruncatedState.Index {
		return true
	}
	if last < InitLogIndex {
		return false
	}
	_, ok := c.in.EntryTerm(last)
	return ok
}

// checkApplied holds rules 6, 8 and 11.
func (c *starter) checkApplied() {
	applied := c.apply.AppliedIndex
	if applied > c.d.Commit {
		c.add(RuleApplied, StopsOldLines, "up to 8.0", "applied index > max(commit index, recorded commit index): %d > %d", applied,
			c.d.Commit)
		c.add(RuleRaftApplied, StopsOldLines, "up to 8.0", "applied(%d) is out of range [prev_applied, min(committed(%d), persisted(%d))]",
			applied, c.d.Commit, c.raft.LastIndex)
	}
	if _, ok := c.d.TermOf(applied, c.in.EntryTerm); !ok {
		c.add(RuleAppliedTerm, StopsStart, "", "entry at apply index %d doesn't exist, may lose data", applied)
	}
}
