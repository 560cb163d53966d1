package raftstate

import (
	"slices"
	"strings"
	"testing"
)

// healthy is an ordinary region on store 1: truncated 10 ≤ applied 20 = commit 20 ≤ last 25, terms 6 up to 15, then 7.
func healthy() StartInput {
	return StartInput{
		StoreID: 1,
		Region: RegionLocalState{Region: Region{ID: 2, Epoch: Epoch{5, 9},
			Peers: []Peer{{ID: 3, StoreID: 1}, {ID: 4, StoreID: 2}, {ID: 5, StoreID: 3}}}},
		Raft: &RaftLocalState{HardState: HardState{Term: 7, Vote: 3, Commit: 20}, LastIndex: 25},
		Apply: &RaftApplyState{AppliedIndex: 20, CommitIndex: 20, CommitTerm: 7,
			TruncatedState: TruncatedState{Index: 10, Term: 6}},
		EntryTerm: logOf(11, 25),
	}
}

func logOf(first, last uint64) func(uint64) (uint64, bool) {
	return func(i uint64) (uint64, bool) {
		if i < first || i > last {
			return 0, false
		}
		if i <= 15 {
			return 6, true
		}
		return 7, true
	}
}

// Each case changes one thing in a healthy region and breaks exactly the rules named, with TiKV's words.
func TestStartCheck(t *testing.T) {
	roles := func(r ...PeerRole) func(*StartInput) {
		return func(in *StartInput) {
			for i := range in.Region.Region.Peers {
				in.Region.Region.Peers[i].Role = r[i]
			}
		}
	}
	broken := map[Rule]bool{}
	for _, c := range []struct {
		name        string
		change      func(in *StartInput)
		rules       []Rule
		fragment    string
		consequence Consequence
	}{
		{"healthy", func(*StartInput) {}, nil, "", 0},
		{"own store is not among the peers", func(in *StartInput) { in.StoreID = 9 }, []Rule{RuleOwnPeer},
			"find no peer for store 9 in region 2", StopsStart},
		{"own peer id is 0", func(in *StartInput) { in.StoreID, in.Region.Region.Peers[2].ID = 3, 0 }, []Rule{RuleOwnPeerID}, "invalid peer id", StopsStart},
		{"the recorded commit index has no entry", func(in *StartInput) {
			in.Apply.CommitIndex = 22
			in.EntryTerm = func(i uint64) (uint64, bool) { return 7, i <= 20 || i == 25 }
		}, []Rule{RuleCommitEntry}, "log at recorded commit index [7] 22 doesn't exist, may lose data", StopsStart},
		{"the entry at the recorded commit index has another term", func(in *StartInput) {
			in.Apply.CommitIndex, in.Apply.CommitTerm = 22, 6
		}, []Rule{RuleCommitEntry}, "log at recorded commit index [6] 22", StopsStart},
		{"the recorded commit index is ahead, with its entry: forwarded", func(in *StartInput) { in.Apply.CommitIndex = 22 }, nil, "", 0},
		{"commit beyond the log", func(in *StartInput) { in.Raft.HardState.Commit = 26 }, []Rule{RuleCommitInLog},
			"max(commit index, recorded commit index) > last index", StopsStart},
		{"hard state of an older term", func(in *StartInput) { in.Raft.HardState.Term = 6 }, []Rule{RuleTerm},
			"term of raft state < commit term of apply state", StopsStart},
		{"applied beyond commit: 8.1 and later start, raft-rs of older lines objects as well", func(in *StartInput) { in.Apply.AppliedIndex = 21 },
			[]Rule{RuleApplied, RuleRaftApplied}, "applied index > max(commit index, recorded commit index)", StopsOldLines},
		{"applied beyond last as 8.2 writes it", func(in *StartInput) {
			in.Raft.HardState.Commit, in.Apply.CommitIndex, in.Apply.AppliedIndex = 25, 25, 27
		}, []Rule{RuleApplied, RuleRaftApplied}, "27 > 25", StopsOldLines},
		{"the last entry is missing", func(in *StartInput) { in.EntryTerm = logOf(11, 24) }, []Rule{RuleLastTerm},
			"entry at 25 doesn't exist, may lose data", StopsStart},
		{"the applied entry is missing", func(in *StartInput) { in.EntryTerm = logOf(21, 25) }, []Rule{RuleAppliedTerm},
			"entry at apply index 20 doesn't exist, may lose data", StopsStart},
		{"empty hard state", func(in *StartInput) {
			*in.Raft, *in.Apply = RaftLocalState{}, RaftApplyState{}
		}, []Rule{RuleHardState}, "empty hard state", StopsStart},
		{"commit below the truncated index", func(in *StartInput) {
			in.Raft.HardState.Commit, in.Apply.CommitIndex, in.Apply.AppliedIndex = 9, 9, 9
			in.EntryTerm = logOf(1, 25)
			in.Apply.CommitTerm = 6
		}, []Rule{RuleCommitRange}, "hs.commit 9 is out of range [10, 25]", StopsStart},
		{"learners only", roles(Learner, Learner, Learner), []Rule{RuleConfState}, "removed all voters", StopsStart},
		{"a joint state without incoming voter", roles(DemotingVoter, DemotingVoter, Learner), []Rule{RuleConfState}, "removed all voters",
			StopsStart},
		{"a joint state", roles(Voter, IncomingVoter, DemotingVoter), nil, "", 0},
		{"a joint state without outgoing voter", roles(IncomingVoter, IncomingVoter, IncomingVoter), []Rule{RuleJointRoles},
			"no outgoing voter", PanicsLater},
		{"4.0: commit below the last commit index", func(in *StartInput) { in.Apply.LastCommitIndex = 21 }, []Rule{RuleLastCommit},
			"last commit index", StopsOldLines},
		{"no raft state", func(in *StartInput) { in.Raft = nil }, []Rule{RuleMissingRaft}, "log at recorded commit index", StopsStart},
		{"just split off, no raft state yet", func(in *StartInput) {
			in.Raft, in.Apply, in.EntryTerm = nil, &RaftApplyState{AppliedIndex: 5, TruncatedState: TruncatedState{5, 5}}, logOf(1, 0)
		}, nil, "", 0},
		{"just split off, no record at all", func(in *StartInput) { in.Raft, in.Apply, in.EntryTerm = nil, nil, logOf(1, 0) }, nil, "", 0},
		{"log cut at applied: truncated moved up, no entries", func(in *StartInput) {
			in.Raft.LastIndex, in.Apply.TruncatedState, in.EntryTerm = 20, TruncatedState{20, 7}, logOf(1, 0)
		}, nil, "", 0},
		{"tombstone: nothing is looked at", func(in *StartInput) {
			*in = StartInput{StoreID: 9, Region: RegionLocalState{State: Tombstone}}
		}, nil, "", 0},
		{"a snapshot is being applied", func(in *StartInput) {
			in.Region.State = Applying
			in.Snapshot = &RaftLocalState{HardState: HardState{Term: 8, Commit: 90}, LastIndex: 90}
			in.Apply = &RaftApplyState{AppliedIndex: 90, CommitIndex: 90, CommitTerm: 8, TruncatedState: TruncatedState{90, 8}}
		}, nil, "", 0},
		{"a snapshot is being applied, its raft state is gone", func(in *StartInput) { in.Region.State = Applying },
			[]Rule{RuleApplyingRecord}, "failed to get raftstate from kv engine", StopsStart},
		{"last index below the initial one", func(in *StartInput) {
			in.Raft = &RaftLocalState{HardState: HardState{Term: 7, Commit: 3}, LastIndex: 3}
			in.Apply = &RaftApplyState{}
			in.EntryTerm = logOf(1, 3)
		}, []Rule{RuleLastTerm}, "entry at 3", StopsStart},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := healthy()
			c.change(&in)
			got := StartCheck(in)
			var rules []Rule
			for _, v := range got {
				rules = append(rules, v.Rule)
				broken[v.Rule] = true
			}
			if !slices.Equal(rules, c.rules) {
				t.Fatalf("got %v, expected rules %v", got, c.rules)
			}
			if len(got) > 0 && (!strings.Contains(got[0].Message, c.fragment) || got[0].Consequence != c.consequence || got[0].Region != 2) {
				t.Errorf("%+v", got[0])
			}
		})
	}
	for r := RuleOwnPeer; r <= RuleApplyingRecord; r++ {
		if !broken[r] {
			t.Errorf("no case breaks rule %d", r)
		}
	}
}

func TestInvariants(t *testing.T) {
	in := healthy()
	if b := Derive(in.Raft, in.Apply).Invariants(); b != nil {
		t.Fatal(b)
	}
	for _, c := range []struct {
		change func(d *Derived)
		want   string
	}{
		{func(d *Derived) { d.Truncated.Index = 21 }, "truncated 21 ≤ applied 20"},
		{func(d *Derived) { d.Applied = 21 }, "applied 21 ≤ commit 20"},
		{func(d *Derived) { d.Commit = 26 }, "commit 26 ≤ last 25"},
		{func(d *Derived) { d.Truncated.Term = 8 }, "truncated.term 8 ≤ commit_term 7"},
		{func(d *Derived) { d.CommitTerm = 8 }, "commit_term 8 ≤ hard_state.term 7"},
	} {
		d := Derive(in.Raft, in.Apply)
		c.change(&d)
		if got := d.Invariants(); len(got) != 1 || got[0] != c.want {
			t.Errorf("got %v, expected %s", got, c.want)
		}
	}
	if got := (RaftLocalState{HardState: HardState{Commit: 3}, LastIndex: 2}).Invariants(); len(got) != 1 {
		t.Errorf("raft state: %v", got)
	}
	if got := (RaftApplyState{AppliedIndex: 2, TruncatedState: TruncatedState{3, 1}}).Invariants(); len(got) != 1 {
		t.Errorf("apply state: %v", got)
	}
}

func TestDerive(t *testing.T) {
	raft := &RaftLocalState{HardState: HardState{Term: 7, Commit: 22}, LastIndex: 25}
	apply := &RaftApplyState{AppliedIndex: 20, CommitIndex: 21, CommitTerm: 7, TruncatedState: TruncatedState{10, 6}}
	d := Derive(raft, apply)
	if d.Commit != 22 || d.Committed != 22 || d.Unapplied != 2 || d.Uncommitted != 3 || d.Unpersisted != 0 {
		t.Errorf("%+v", d)
	}
	apply.AppliedIndex = 27
	if d = Derive(raft, apply); d.Committed != 27 || d.Unapplied != 0 || d.Uncommitted != 0 || d.Unpersisted != 2 {
		t.Errorf("%+v", d)
	}
	if d = Derive(nil, nil); d.Applied != 5 || d.Last != 5 || d.Commit != 5 || d.Truncated != (TruncatedState{5, 5}) || d.Term != 5 {
		t.Errorf("%+v", d)
	}
	none := func(uint64) (uint64, bool) { return 0, false }
	if term, ok := Derive(raft, apply).TermOf(27, none); !ok || term != 7 {
		t.Errorf("term of an unpersisted applied index: %d %v", term, ok)
	}
}
