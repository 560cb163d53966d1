package raftlog

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// A tail with everything in it: applied 10, committed 14, last 19; entry 16 is missing, 18 does not decode.
func TestSummarizeTail(t *testing.T) {
	m := &memKV{}
	put := func(index uint64, typ eraftpb.EntryType, data []byte) {
		e := eraftpb.Entry{EntryType: typ, Term: 6, Index: index, Data: data}
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		m.put(raftstate.RaftLogKey(2, index), b)
	}
	cmd := func(confVer, version uint64, admin *raft_cmdpb.AdminRequest, reqs ...*raft_cmdpb.Request) []byte {
		r := raft_cmdpb.RaftCmdRequest{Header: &raft_cmdpb.RaftRequestHeader{RegionEpoch: &metapb.RegionEpoch{ConfVer: confVer, Version: version}},
			AdminRequest: admin, Requests: reqs}
		b, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	write := func(ts uint64) *raft_cmdpb.Request {
		return &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_Put, Put: &raft_cmdpb.PutRequest{Cf: "write",
			Key: binary.BigEndian.AppendUint64([]byte("key"), ^ts)}}
	}
	lockDel := &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_Delete, Delete: &raft_cmdpb.DeleteRequest{Cf: "lock", Key: []byte("key")}}
	put(10, 0, cmd(99, 99, nil, write(1))) // applied: not looked at
	put(11, 0, nil)
	put(12, 0, cmd(3, 9, nil, write(500), write(400), lockDel))
	put(13, 0, cmd(4, 7, &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_CompactLog, CompactLog: &raft_cmdpb.CompactLogRequest{CompactIndex: 9}}))
	cc := eraftpb.ConfChangeV2{Context: cmd(3, 9, &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_ChangePeerV2})}
	ccb, err := cc.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	put(14, eraftpb.EntryType_EntryConfChangeV2, ccb)
	put(15, 0, cmd(3, 9, nil, write(600)))
	put(17, 0, cmd(3, 9, nil, &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_DeleteRange}, &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_IngestSST,
		IngestSst: &raft_cmdpb.IngestSSTRequest{Sst: &import_sstpb.SSTMeta{Uuid: []byte("u")}}}))
	put(18, 0, []byte{0xFF})
	put(20, 0, cmd(99, 99, nil, write(9999))) // above last: dead
	s, _ := OpenRocks(m)
	got, err := SummarizeTail(s, 2, 10, 14, 19)
	if err != nil {
		t.Fatal(err)
	}
	want := TailSummary{Region: 2, Applied: 10, Committed: 14, Last: 19,
		CommittedPart: PartSummary{Entries: 4, Empty: 1, Writes: 1, Admin: 1, ConfChange: 1, Puts: map[string]int{"write": 2},
			Deletes: map[string]int{"lock": 1}, WriteCommits: 2, MinCommitTS: 400, MaxCommitTS: 500},
		UncommittedPart: PartSummary{Entries: 3, Writes: 2, Puts: map[string]int{"write": 1}, RangeDels: 1, Ingests: 1,
			SSTs: []raftstate.SST{{UUID: raftstate.Key("u"), CF: "default"}}, WriteCommits: 1, MinCommitTS: 600, MaxCommitTS: 600},
		AdminEntries: []AdminEntry{
			{Index: 13, Term: 6, Type: raftstate.AdminCompactLog, Committed: true, Epoch: raftstate.Epoch{ConfVer: 4, Version: 7},
				Admin: &raftstate.Admin{Type: raftstate.AdminCompactLog, CompactIndex: 9}},
			{Index: 14, Term: 6, Type: raftstate.AdminChangePeerV2, Committed: true, Epoch: raftstate.Epoch{ConfVer: 3, Version: 9},
				Admin: &raftstate.Admin{Type: raftstate.AdminChangePeerV2}},
		},
		MaxEpoch: raftstate.Epoch{ConfVer: 4, Version: 9},
		Missing:  [][2]uint64{{16, 16}, {19, 19}},
	}
	if len(got.Bad) != 1 || got.Bad[0].Index != 18 {
		t.Errorf("bad entries: %+v", got.Bad)
	}
	got.Bad = nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err = SummarizeTail(s, 2, 20, 20, 20); err != nil || got.CommittedPart.Entries+got.UncommittedPart.Entries+len(got.Missing) != 0 {
		t.Errorf("no tail: %+v %v", got, err)
	}
}

// The tails of the fixtures: every entry is there and decodes; the killed clusters have tails, and their writes carry
// timestamps of the time of the test.
func TestTailsOfFixtures(t *testing.T) {
	regions, entries, commits := 0, 0, 0
	for _, archive := range []string{"multi3-lost2", "multi5-lost3", "multi3-merging-late", "single-default"} {
		mem := fixtures.Mem(t, archive)
		for _, dir := range fixtures.Stores(t, archive) {
			e, _, err := OpenEngine(base.NewMem(mem), dir+"/raft-engine", "")
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range regionInfos(t, archive, dir) {
				if r.Raft == nil {
					continue
				}
				d := raftstate.Derive(r.Raft, r.Apply)
				s, err := SummarizeTail(e, r.RegionID, d.Applied, d.Committed, d.Last)
				if err != nil {
					t.Fatal(err)
				}
				n := s.CommittedPart.Entries + s.UncommittedPart.Entries
				if len(s.Missing)+len(s.Bad) > 0 || s.Unknown || d.Last > d.Applied && uint64(n) != d.Last-d.Applied {
					t.Errorf("%s%s: %+v", archive, dir, s)
				}
				if uint64(s.CommittedPart.Entries) != d.Unapplied || uint64(s.UncommittedPart.Entries) != d.Uncommitted {
					t.Errorf("%s%s: %+v %+v", archive, dir, s, d)
				}
				for _, p := range []PartSummary{s.CommittedPart, s.UncommittedPart} {
					if p.Entries != p.Empty+p.Writes+p.Admin+p.ConfChange+p.Other {
						t.Errorf("%+v", p)
					}
					if p.WriteCommits > 0 && (p.MinCommitTS>>58 != 470610604657999873>>58 || p.MinCommitTS > p.MaxCommitTS) {
						t.Errorf("commit_ts %d..%d", p.MinCommitTS, p.MaxCommitTS)
					}
					commits += p.WriteCommits
				}
				if n > 0 {
					regions++
				}
				entries += n
			}
		}
	}
	t.Logf("%d regions with a tail, %d entries, %d commits", regions, entries, commits)
	if regions == 0 || entries < regions || commits == 0 {
		t.Error("the fixtures should have tails with commits")
	}
}

// raftstore-v2: states of all kinds in the engine, group 0 for the store, writes in their own codec.
func TestTabletsV2(t *testing.T) {
	e, _, err := OpenEngine(base.NewMem(fixtures.Mem(t, "tablets-v2")), "/data/raft-engine", "")
	if err != nil {
		t.Fatal(err)
	}
	ident, ok := e.Value(0, []byte{0x01})
	if s, err := raftstate.ParseStoreIdent(ident); !ok || err != nil || s.StoreID == 0 || s.ClusterID == 0 {
		t.Errorf("store ident %X: %+v %v", ident, s, err)
	}
	ids, _ := e.Regions()
	simple, admin := 0, 0
	for _, id := range ids {
		for _, k := range e.Keys(id) {
			v, _ := e.Value(id, k)
			var err error
			switch k[0] {
			case 0x52:
				_, err = raftstate.ParseRaftLocalState(v)
			case 0x03:
				_, err = raftstate.ParseRegionLocalState(v)
			case 0x04:
				_, err = raftstate.ParseRaftApplyState(v)
			case 0x06, 0x07:
			default:
				err = errors.New("key is not in the format notes")
			}
			if err != nil {
				t.Errorf("region %d, key %X: %v", id, k, err)
			}
		}
		err := e.Entries(id, 0, ^uint64(0), func(x raftstate.Entry) error {
			c, err := raftstate.Decode(x)
			if c.SimpleWrite {
				simple++
			}
			if c.Kind == raftstate.CommandAdmin {
				admin++
			}
			return err
		})
		if err != nil {
			t.Errorf("region %d: %v", id, err)
		}
	}
	t.Logf("%d regions, %d simple writes, %d admin commands", len(ids), simple, admin)
	if len(ids) == 0 || simple == 0 || admin == 0 {
		t.Error("nothing there")
	}
}
