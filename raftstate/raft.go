package raftstate

import (
	"bytes"
	"fmt"

	"github.com/pingcap/kvproto/pkg/raft_serverpb"
)

// APIVersion is kvrpcpb.APIVersion, the layout of keys that a store was created with.
type APIVersion int32

// The API versions. A store from before 5.3 has none recorded: V1.
const (
	APIV1    APIVersion = 0
	APIV1TTL APIVersion = 1
	APIV2    APIVersion = 2
)

// String gives the name in TiKV's configuration.
func (v APIVersion) String() string { return enumName([]string{"V1", "V1TTL", "V2", "V3"}, int32(v)) }

// MarshalText gives String.
func (v APIVersion) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// StoreIdent names the cluster and the store: 1 cluster_id, 2 store_id, 3 api_version (since 5.3).
// Source: pingcap/kvproto proto/raft_serverpb.proto.
type StoreIdent struct {
	ClusterID  uint64     `json:"cluster_id"`
	StoreID    uint64     `json:"store_id"`
	APIVersion APIVersion `json:"api_version"`
	Raw        []byte     `json:"-"`
}

// ParseStoreIdent decodes a StoreIdent. Errors are of class ErrCorrupt.
func ParseStoreIdent(b []byte) (StoreIdent, error) {
	var m raft_serverpb.StoreIdent
	if err := m.Unmarshal(b); err != nil {
		return StoreIdent{}, &DecodeError{What: "StoreIdent", Err: err}
	}
	return StoreIdent{m.ClusterId, m.StoreId, APIVersion(m.ApiVersion), bytes.Clone(b)}, nil
}

// HardState is what raft must not forget: Vote is the peer voted for in Term; Commit may lag behind.
type HardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

// RaftLocalState is the raft store's record of a region: 1 hard_state {1 term, 2 vote, 3 commit}, 2 last_index.
// Source: pingcap/kvproto proto/raft_serverpb.proto, proto/eraftpb.proto.
//
// Invariant: hard_state.commit ≤ last_index.
type RaftLocalState struct {
	HardState HardState `json:"hard_state"`
	LastIndex uint64    `json:"last_index"`
	Raw       []byte    `json:"-"`
}

// ParseRaftLocalState decodes a RaftLocalState. Errors are of class ErrCorrupt.
func ParseRaftLocalState(b []byte) (RaftLocalState, error) {
	var m raft_serverpb.RaftLocalState
	if err := m.Unmarshal(b); err != nil {
		return RaftLocalState{}, &DecodeError{What: "RaftLocalState", Err: err}
	}
	h := m.GetHardState()
	return RaftLocalState{HardState{h.GetTerm(), h.GetVote(), h.GetCommit()}, m.LastIndex, bytes.Clone(b)}, nil
}

// InitialRaftState is what a server assumes for an initialised region without a record (init_raft_state).
func InitialRaftState() RaftLocalState {
	return RaftLocalState{HardState: HardState{Term: InitLogTerm, Commit: InitLogIndex}, LastIndex: InitLogIndex}
}

// TruncatedState is the last compacted entry.
type TruncatedState struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// RaftApplyState is the kv db's record of a region's progress: 1 applied_index, 2 truncated_state {1 index, 2 term},
// 3 last_commit_index (up to 4.0), 4 commit_index, 5 commit_term.
// Source: pingcap/kvproto proto/raft_serverpb.proto.
//
// Invariant: truncated.index ≤ applied_index. commit_index may be below applied_index (8.2 and later apply entries before
// they are persisted).
type RaftApplyState struct {
	AppliedIndex    uint64         `json:"applied_index"`
	LastCommitIndex uint64         `json:"last_commit_index,omitempty"`
	CommitIndex     uint64         `json:"commit_index"`
	CommitTerm      uint64         `json:"commit_term"`
	TruncatedState  TruncatedState `json:"truncated_state"`
	Raw             []byte         `json:"-"`
}

// ParseRaftApplyState decodes a RaftApplyState. Errors are of class ErrCorrupt.
func ParseRaftApplyState(b []byte) (RaftApplyState, error) {
	var m raft_serverpb.RaftApplyState
	if err := m.Unmarshal(b); err != nil {
		return RaftApplyState{}, &DecodeError{What: "RaftApplyState", Err: err}
	}
	t := m.GetTruncatedState()
	return RaftApplyState{
		AppliedIndex: m.AppliedIndex, LastCommitIndex: m.LastCommitIndex, CommitIndex: m.CommitIndex, CommitTerm: m.CommitTerm,
		TruncatedState: TruncatedState{t.GetIndex(), t.GetTerm()}, Raw: bytes.Clone(b),
	}, nil
}

// InitialApplyState is what a server assumes for an initialised region without a record (init_apply_state).
func InitialApplyState() RaftApplyState {
	return RaftApplyState{AppliedIndex: InitLogIndex, TruncatedState: TruncatedState{InitLogIndex, InitLogTerm}}
}

// Derived are the numbers of one region that follow from its records.
//
//	first ... truncated | truncated+1 ... applied | applied+1 ... committed | committed+1 ... last
//	      garbage       |       in the data       |  committed, unapplied   |    uncommitted
//
// Invariants, in the order of the log:
//
//	truncated ≤ applied ≤ commit ≤ last
//	truncated.term ≤ commit_term ≤ hard_state.term
//
// applied ≤ commit and applied ≤ last do not hold for a store of 8.2 or later that applied entries before it had persisted
// them; such a region has Unpersisted > 0 and starts.
type Derived struct {
	Truncated TruncatedState `json:"truncated"`
	Applied   uint64         `json:"applied"`
	// Commit is the recorded commit index: max(hard_state.commit, apply.commit_index).
	Commit uint64 `json:"commit"`
	// Committed is the lower bound of what is committed: max(Commit, Applied).
	Committed  uint64 `json:"committed"`
	CommitTerm uint64 `json:"commit_term"` // apply.commit_term
	Term       uint64 `json:"term"`        // hard_state.term
	Last       uint64 `json:"last"`
	// Unapplied is the number of entries in (applied, committed], Uncommitted that in (committed, last], Unpersisted that of
	// applied entries above last.
	Unapplied   uint64 `json:"unapplied"`
	Uncommitted uint64 `json:"uncommitted"`
	Unpersisted uint64 `json:"unpersisted"`
}

// Derive computes the numbers of an initialised region. A nil record is missing: the server's initial values stand for it.
func Derive(raft *RaftLocalState, apply *RaftApplyState) Derived {
	r, a := InitialRaftState(), InitialApplyState()
	if raft != nil {
		r = *raft
	}
	if apply != nil {
		a = *apply
	}
	d := Derived{
		Truncated: a.TruncatedState, Applied: a.AppliedIndex, Commit: max(r.HardState.Commit, a.CommitIndex),
		CommitTerm: a.CommitTerm, Term: r.HardState.Term, Last: r.LastIndex,
	}
	d.Committed = max(d.Commit, d.Applied)
	if d.Applied < min(d.Committed, d.Last) {
		d.Unapplied = min(d.Committed, d.Last) - d.Applied
	}
	if d.Last > d.Committed {
		d.Uncommitted = d.Last - d.Committed
	}
	if d.Applied > d.Last {
		d.Unpersisted = d.Applied - d.Last
	}
	return d
}

// Invariants tests exactly the formulas above and returns those that do not hold, with their numbers.
func (d Derived) Invariants() []string {
	var broken []string
	le := func(an string, a uint64, bn string, b uint64) {
		if a > b {
			broken = append(broken, fmt.Sprintf("%s %d ≤ %s %d", an, a, bn, b))
		}
	}
	le("truncated", d.Truncated.Index, "applied", d.Applied)
	le("applied", d.Applied, "commit", d.Commit)
	le("commit", d.Commit, "last", d.Last)
	if d.CommitTerm != 0 { // a region just split off has none yet
		le("truncated.term", d.Truncated.Term, "commit_term", d.CommitTerm)
	}
	le("commit_term", d.CommitTerm, "hard_state.term", d.Term)
	return broken
}

// Invariants tests hard_state.commit ≤ last_index.
func (s RaftLocalState) Invariants() []string {
	if s.HardState.Commit > s.LastIndex {
		return []string{fmt.Sprintf("hard_state.commit %d ≤ last_index %d", s.HardState.Commit, s.LastIndex)}
	}
	return nil
}

// Invariants tests truncated.index ≤ applied_index.
func (s RaftApplyState) Invariants() []string {
	if s.TruncatedState.Index > s.AppliedIndex {
		return []string{fmt.Sprintf("truncated.index %d ≤ applied_index %d", s.TruncatedState.Index, s.AppliedIndex)}
	}
	return nil
}

// TermOf resolves the term at index as a starting server does: the initial index, the truncated index, the entry, or for an
// applied index above last the recorded commit term. entry looks into the log.
func (d Derived) TermOf(index uint64, entry func(index uint64) (term uint64, ok bool)) (uint64, bool) {
	switch {
	case index == InitLogIndex:
		return InitLogTerm, true
	case index == d.Truncated.Index:
		return d.Truncated.Term, true
	case index == d.Applied && index > d.Last:
		return d.CommitTerm, true
	}
	return entry(index)
}
