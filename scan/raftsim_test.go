package scan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// tailStory makes the entries of a tail; epochs are conf_ver/version.
type tailStory struct {
	t       *testing.T
	entries []raftstate.Entry
}

func (s *tailStory) add(confVer, version uint64, typ raftstate.EntryType, admin *raft_cmdpb.AdminRequest) {
	s.t.Helper()
	m := raft_cmdpb.RaftCmdRequest{AdminRequest: admin, Header: &raft_cmdpb.RaftRequestHeader{RegionEpoch: &metapb.RegionEpoch{ConfVer: confVer, Version: version}}}
	if admin == nil {
		m.Requests = []*raft_cmdpb.Request{{CmdType: raft_cmdpb.CmdType_Put, Put: &raft_cmdpb.PutRequest{Cf: "lock", Key: []byte("k"), Value: []byte("v")}}}
	}
	data, err := m.Marshal()
	if err != nil {
		s.t.Fatal(err)
	}
	if typ == raftstate.EntryConfChangeV2 {
		cc := eraftpb.ConfChangeV2{Context: data}
		if data, err = cc.Marshal(); err != nil {
			s.t.Fatal(err)
		}
	}
	s.entries = append(s.entries, raftstate.Entry{Index: uint64(10 + len(s.entries)), Type: typ, Data: data})
}

func changes(n int) *raft_cmdpb.AdminRequest {
	var cs []*raft_cmdpb.ChangePeerRequest
	for i := range n {
		typ := eraftpb.ConfChangeType_AddNode
		if i > 0 {
			typ = eraftpb.ConfChangeType_AddLearnerNode // demotes a voter
		}
		cs = append(cs, &raft_cmdpb.ChangePeerRequest{ChangeType: typ, Peer: &metapb.Peer{Id: uint64(4 - i), StoreId: uint64(4 - i)}})
	}
	return &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_ChangePeerV2, ChangePeerV2: &raft_cmdpb.ChangePeerV2Request{Changes: cs}}
}

// A tail is applied entry by entry: what an admin command does to the epoch decides which of the entries behind it still count.
func TestEpochSim(t *testing.T) {
	split := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_BatchSplit, Splits: &raft_cmdpb.BatchSplitRequest{
		Requests: []*raft_cmdpb.SplitRequest{{SplitKey: []byte("a")}, {SplitKey: []byte("b")}}}}
	prepare := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_PrepareMerge, PrepareMerge: &raft_cmdpb.PrepareMergeRequest{Target: &metapb.Region{Id: 9}}}
	rollback := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_RollbackMerge, RollbackMerge: &raft_cmdpb.RollbackMergeRequest{Commit: 3}}
	commit := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_CommitMerge, CommitMerge: &raft_cmdpb.CommitMergeRequest{
		Source: &metapb.Region{Id: 9, RegionEpoch: &metapb.RegionEpoch{ConfVer: 2, Version: 30}}}}
	compact := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_CompactLog, CompactLog: &raft_cmdpb.CompactLogRequest{CompactIndex: 7, CompactTerm: 6}}
	cc := raftstate.EntryConfChangeV2
	for _, c := range []struct {
		name  string
		tell  func(s *tailStory)
		noOps []uint64
		after raftstate.Epoch
	}{
		{"writes compare the version only", func(s *tailStory) {
			s.add(5, 20, 0, nil)
			s.add(4, 20, 0, nil)
			s.add(5, 19, 0, nil)
		}, []uint64{12}, raftstate.Epoch{ConfVer: 5, Version: 20}},
		{"behind a split into three the old version is a no-op", func(s *tailStory) {
			s.add(5, 20, 0, split)
			s.add(5, 20, 0, nil)
			s.add(5, 22, 0, nil)
		}, []uint64{11}, raftstate.Epoch{ConfVer: 5, Version: 22}},
		{"a split with an old conf_ver does not happen", func(s *tailStory) {
			s.add(4, 20, 0, split)
			s.add(5, 20, 0, nil)
		}, []uint64{10}, raftstate.Epoch{ConfVer: 5, Version: 20}},
		{"compaction of the log compares nothing", func(s *tailStory) { s.add(1, 1, 0, compact) }, nil, raftstate.Epoch{ConfVer: 5, Version: 20}},
		{"a simple change counts one", func(s *tailStory) {
			s.add(5, 20, cc, changes(1))
			s.add(5, 20, 0, split)
		}, []uint64{11}, raftstate.Epoch{ConfVer: 6, Version: 20}},
		{"into a joint state with two changes and out again", func(s *tailStory) {
			s.add(5, 20, cc, changes(2)) // one incoming, one demoting
			s.add(7, 20, cc, changes(0))
		}, nil, raftstate.Epoch{ConfVer: 9, Version: 20}},
		{"a merge is prepared and taken back", func(s *tailStory) {
			s.add(5, 20, 0, prepare)
			s.add(5, 20, 0, nil)
			s.add(6, 21, 0, rollback)
			s.add(6, 22, 0, nil)
		}, []uint64{11}, raftstate.Epoch{ConfVer: 6, Version: 22}},
		{"the target of a merge goes above the source", func(s *tailStory) { s.add(5, 20, 0, commit) }, nil, raftstate.Epoch{ConfVer: 5, Version: 31}},
		{"a new leader's entry does nothing", func(s *tailStory) {
			s.entries = append(s.entries, raftstate.Entry{Index: 10})
		}, []uint64{10}, raftstate.Epoch{ConfVer: 5, Version: 20}},
	} {
		story := &tailStory{t: t}
		c.tell(story)
		sim := newEpochSim(raftstate.RegionLocalState{Region: raftstate.Region{ID: 2, Epoch: raftstate.Epoch{ConfVer: 5, Version: 20},
			Peers: []raftstate.Peer{{ID: 1, StoreID: 1}, {ID: 2, StoreID: 2}, {ID: 3, StoreID: 3}}}})
		var got []uint64
		for _, e := range story.entries {
			if reason := sim.apply(e); reason != "" {
				got = append(got, e.Index)
				if !slices.ContainsFunc([]string{"is not the region's", "empty entry"}, func(w string) bool { return strings.Contains(reason, w) }) {
					t.Errorf("%s: %s", c.name, reason)
				}
			}
		}
		if d := cmp.Diff(fmt.Sprint(c.noOps, c.after), fmt.Sprint(got, sim.epoch)); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}
