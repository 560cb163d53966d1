package raftstate

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"
	"google.golang.org/protobuf/encoding/protowire"
)

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

var header = &raft_cmdpb.RaftRequestHeader{RegionId: 2, Peer: &metapb.Peer{Id: 3}, RegionEpoch: &metapb.RegionEpoch{ConfVer: 5, Version: 9}, Term: 6}

var wantHeader = Header{RegionID: 2, PeerID: 3, Epoch: Epoch{5, 9}, Term: 6}

func TestParseEntry(t *testing.T) {
	want := eraftpb.Entry{EntryType: eraftpb.EntryType_EntryConfChangeV2, Term: 6, Index: 300, Data: []byte("data"), Context: []byte{1}, SyncLog: true}
	b := append(must(want.Marshal()), 0xC2, 0x3E, 0x01, 'x') // and a field from the future
	e, err := ParseEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	if e.Type != EntryConfChangeV2 || e.Term != 6 || e.Index != 300 || string(e.Data) != "data" || string(e.Context) != "\x01" || len(e.Raw) != len(b) {
		t.Errorf("%+v", e)
	}
	for _, bad := range []string{"\x10", "\x22\x05abc", "\x20\x01", "\x12\x00", "\x00\x00", "\x15\x00\x00\x00\x00"} {
		if _, err := ParseEntry([]byte(bad)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestDecodeWrite(t *testing.T) {
	m := &raft_cmdpb.RaftCmdRequest{Header: header, Requests: []*raft_cmdpb.Request{
		{CmdType: raft_cmdpb.CmdType_Put, Put: &raft_cmdpb.PutRequest{Key: []byte("k"), Value: []byte("v")}},
		{CmdType: raft_cmdpb.CmdType_Delete, Delete: &raft_cmdpb.DeleteRequest{Cf: "lock", Key: []byte("k")}},
		{CmdType: raft_cmdpb.CmdType_DeleteRange, DeleteRange: &raft_cmdpb.DeleteRangeRequest{Cf: "write", StartKey: []byte("a"), EndKey: []byte("b"), NotifyOnly: true}},
		{CmdType: raft_cmdpb.CmdType_IngestSST, IngestSst: &raft_cmdpb.IngestSSTRequest{Sst: &import_sstpb.SSTMeta{Uuid: []byte("u"), CfName: "write",
			Range: &import_sstpb.Range{Start: []byte("a"), End: []byte("b")}, Length: 7, RegionId: 2, RegionEpoch: header.RegionEpoch}}},
		{CmdType: raft_cmdpb.CmdType_ReadIndex},
	}}
	c, err := Decode(Entry{Data: must(m.Marshal())})
	if err != nil {
		t.Fatal(err)
	}
	want := Command{Kind: CommandWrite, HasHeader: true, Header: wantHeader, Requests: []Request{
		{Op: OpPut, CF: "default", Key: Key("k"), Value: Key("v")},
		{Op: OpDelete, CF: "lock", Key: Key("k")},
		{Op: OpDeleteRange, CF: "write", Key: Key("a"), EndKey: Key("b"), NotifyOnly: true},
		{Op: OpIngest, CF: "write", Key: Key("a"), EndKey: Key("b"),
			SST: &SST{UUID: Key("u"), CF: "write", Start: Key("a"), End: Key("b"), Length: 7, RegionID: 2, Epoch: Epoch{5, 9}}},
		{Op: OpOther, Name: "ReadIndex"},
	}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	if e, ok := c.Epoch(); !ok || e != (Epoch{5, 9}) {
		t.Errorf("epoch %v %v", e, ok)
	}
	// custom_request, field 5, is not in this kvproto.
	c, err = Decode(Entry{Data: append(must((&raft_cmdpb.RaftCmdRequest{Header: header}).Marshal()), 0x2A, 0x01, 'x')})
	if err != nil || !c.Unknown || c.Kind != CommandOther {
		t.Errorf("unknown request: %+v %v", c, err)
	}
	c, err = Decode(Entry{})
	if _, ok := c.Epoch(); err != nil || c.Kind != CommandEmpty || ok {
		t.Errorf("empty: %+v %v", c, err)
	}
}

func TestDecodeAdmin(t *testing.T) {
	region := &metapb.Region{Id: 7, RegionEpoch: &metapb.RegionEpoch{ConfVer: 1, Version: 2}}
	ours := Region{ID: 7, Epoch: Epoch{1, 2}}
	peer := &metapb.Peer{Id: 8, StoreId: 4, Role: metapb.PeerRole_Learner}
	oursPeer := Peer{ID: 8, StoreID: 4, Role: Learner}
	change := &raft_cmdpb.ChangePeerRequest{ChangeType: eraftpb.ConfChangeType_AddLearnerNode, Peer: peer}
	oursChange := []PeerChange{{"AddLearnerNode", oursPeer}}
	split := &raft_cmdpb.SplitRequest{SplitKey: []byte("m"), NewRegionId: 20, NewPeerIds: []uint64{21, 22}, RightDerive: true}
	oursSplit := []Split{{Key("m"), 20, []uint64{21, 22}}}
	both, confVer := EpochCheck{true, true}, EpochCheck{ConfVer: true}
	for _, c := range []struct {
		in    *raft_cmdpb.AdminRequest
		want  Admin
		check EpochCheck
	}{
		{&raft_cmdpb.AdminRequest{ChangePeer: change}, Admin{Type: AdminChangePeer, Changes: oursChange}, confVer},
		{&raft_cmdpb.AdminRequest{Split: split}, Admin{Type: AdminSplit, Splits: oursSplit, RightDerive: true}, both},
		{&raft_cmdpb.AdminRequest{CompactLog: &raft_cmdpb.CompactLogRequest{CompactIndex: 9, CompactTerm: 6}},
			Admin{Type: AdminCompactLog, CompactIndex: 9, CompactTerm: 6}, EpochCheck{}},
		{&raft_cmdpb.AdminRequest{TransferLeader: &raft_cmdpb.TransferLeaderRequest{Peer: peer}},
			Admin{Type: AdminTransferLeader, TransferTo: &oursPeer}, EpochCheck{}},
		{&raft_cmdpb.AdminRequest{ComputeHash: &raft_cmdpb.ComputeHashRequest{}}, Admin{Type: AdminComputeHash}, EpochCheck{}},
		{&raft_cmdpb.AdminRequest{VerifyHash: &raft_cmdpb.VerifyHashRequest{Index: 5}}, Admin{Type: AdminVerifyHash, HashIndex: 5}, EpochCheck{}},
		{&raft_cmdpb.AdminRequest{PrepareMerge: &raft_cmdpb.PrepareMergeRequest{MinIndex: 4, Target: region}},
			Admin{Type: AdminPrepareMerge, MinIndex: 4, Target: &ours}, both},
		{&raft_cmdpb.AdminRequest{CommitMerge: &raft_cmdpb.CommitMergeRequest{Source: region, Commit: 11, Entries: []*eraftpb.Entry{{}, {}}}},
			Admin{Type: AdminCommitMerge, Source: &ours, Commit: 11, SourceEntries: 2}, both},
		{&raft_cmdpb.AdminRequest{RollbackMerge: &raft_cmdpb.RollbackMergeRequest{Commit: 12}}, Admin{Type: AdminRollbackMerge, Commit: 12}, both},
		{&raft_cmdpb.AdminRequest{Splits: &raft_cmdpb.BatchSplitRequest{Requests: []*raft_cmdpb.SplitRequest{split}, RightDerive: true}},
			Admin{Type: AdminBatchSplit, Splits: oursSplit, RightDerive: true}, both},
		{&raft_cmdpb.AdminRequest{ChangePeerV2: &raft_cmdpb.ChangePeerV2Request{Changes: []*raft_cmdpb.ChangePeerRequest{change}}},
			Admin{Type: AdminChangePeerV2, Changes: oursChange}, confVer},
		{&raft_cmdpb.AdminRequest{PrepareFlashback: &raft_cmdpb.PrepareFlashbackRequest{StartTs: 77}},
			Admin{Type: AdminPrepareFlashback, FlashbackStartTS: 77}, both},
		{&raft_cmdpb.AdminRequest{FinishFlashback: &raft_cmdpb.FinishFlashbackRequest{}}, Admin{Type: AdminFinishFlashback}, both},
		{&raft_cmdpb.AdminRequest{SwitchWitnesses: &raft_cmdpb.BatchSwitchWitnessRequest{SwitchWitnesses: []*raft_cmdpb.SwitchWitnessRequest{{PeerId: 8,
			IsWitness: true}}}}, Admin{Type: AdminBatchSwitchWitness, Witnesses: []WitnessSwitch{{8, true}}}, confVer},
		{&raft_cmdpb.AdminRequest{UpdateGcPeers: &raft_cmdpb.UpdateGcPeerRequest{PeerId: []uint64{8, 9}}},
			Admin{Type: AdminUpdateGcPeer, GCPeerIDs: []uint64{8, 9}}, EpochCheck{}},
	} {
		c.in.CmdType = raft_cmdpb.AdminCmdType(c.want.Type)
		data := must((&raft_cmdpb.RaftCmdRequest{Header: header, AdminRequest: c.in}).Marshal())
		got, err := Decode(Entry{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Command{Kind: CommandAdmin, HasHeader: true, Header: wantHeader, Admin: &c.want}, got); diff != "" {
			t.Errorf("%v: %s", c.want.Type, diff)
		}
		if got := c.want.Type.Checks(); got != c.check {
			t.Errorf("%v checks %+v", c.want.Type, got)
		}
		// The same command in the context of both kinds of conf change.
		v1 := must((&eraftpb.ConfChange{ChangeType: eraftpb.ConfChangeType_RemoveNode, NodeId: 8, Context: data}).Marshal())
		v2 := must((&eraftpb.ConfChangeV2{Changes: []*eraftpb.ConfChangeSingle{{ChangeType: eraftpb.ConfChangeType_RemoveNode, NodeId: 8}}, Context: data}).Marshal())
		want := Command{Kind: CommandConfChange, HasHeader: true, Header: wantHeader, Admin: &c.want, NodeChanges: []NodeChange{{"RemoveNode", 8}}}
		for _, e := range []Entry{{Type: EntryConfChange, Data: v1}, {Type: EntryConfChangeV2, Data: v2}} {
			if got, err := Decode(e); err != nil || !cmp.Equal(want, got) {
				t.Errorf("%v in a %v: %v %s", c.want.Type, e.Type, err, cmp.Diff(want, got))
			}
		}
	}
	if c, err := Decode(Entry{Type: EntryConfChangeV2}); err != nil || c.Kind != CommandConfChange || c.Admin != nil || c.HasHeader {
		t.Errorf("leave joint without a command: %+v %v", c, err)
	}
	for _, e := range []Entry{{Data: []byte("\x0a\xff")}, {Type: 9}, {Type: EntryConfChange, Data: []byte{0xFF}}, {Data: []byte("\x1a\x00")}} {
		if _, err := Decode(e); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// appendLen is the length code of SimpleWrite, written from its table.
func appendLen(b []byte, n int) []byte {
	switch {
	case n <= 240:
		return append(b, byte(n))
	case n <= 2287:
		return append(b, byte(241+(n-240)/256), byte((n-240)%256))
	case n <= 67823:
		return append(b, 249, byte((n-2288)/256), byte((n-2288)%256))
	case n <= 1<<24-1:
		return append(b, 250, byte(n>>16), byte(n>>8), byte(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 251), uint32(n))
}

func TestSimpleWrite(t *testing.T) {
	start := protowire.AppendBytes([]byte{0}, must(header.Marshal()))
	str := func(b []byte, s string) []byte { return append(appendLen(b, len(s)), s...) }
	for _, n := range []int{0, 1, 240, 241, 2287, 2288, 67823, 67824, 1 << 20, 1 << 24} {
		v := strings.Repeat("v", n)
		b := str(str(append(append([]byte{}, start...), 0, 1), "key"), v)
		c, err := Decode(Entry{Data: b})
		if err != nil || len(c.Requests) != 1 || string(c.Requests[0].Value) != v {
			t.Fatalf("length %d: %v", n, err)
		}
		if _, err := Decode(Entry{Data: b[:len(b)-1]}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("length %d, cut: %v", n, err)
		}
	}
	b := append([]byte{}, start...)
	b = str(str(append(b, 0, 0), "k"), "v")              // put default
	b = str(append(b, 1, 2), "k")                        // delete lock
	b = append(str(str(append(b, 2, 1), "a"), "b"), 1)   // delete range write
	b = str(str(str(append(b, 0, 3), "raft"), "k"), "v") // put into a named column family
	sst := must((&import_sstpb.SSTMeta{Uuid: []byte("u")}).Marshal())
	b = protowire.AppendBytes(append(b, 3, 1), sst) // ingest
	c, err := Decode(Entry{Data: b})
	if err != nil {
		t.Fatal(err)
	}
	want := Command{Kind: CommandWrite, SimpleWrite: true, HasHeader: true, Header: wantHeader, Requests: []Request{
		{Op: OpPut, CF: "default", Key: Key("k"), Value: Key("v")},
		{Op: OpDelete, CF: "lock", Key: Key("k")},
		{Op: OpDeleteRange, CF: "write", Key: Key("a"), EndKey: Key("b"), NotifyOnly: true},
		{Op: OpPut, CF: "raft", Key: Key("k"), Value: Key("v")},
		{Op: OpIngest, CF: "default", SST: &SST{UUID: Key("u"), CF: "default"}},
	}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"\x09", "\x00\x04", "\x00\x01\xfc", "\x03\xfb\xff\xff\xff\xff", "\x02\x01\x00\x00"} {
		if _, err := Decode(Entry{Data: append(append([]byte{}, start...), bad...)}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := Decode(Entry{Data: []byte{0}}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no header: %v", err)
	}
}

func TestStoreIdent(t *testing.T) {
	s, err := ParseStoreIdent([]byte{0x08, 0x07, 0x10, 0x01, 0x18, 0x02})
	if err != nil || s.ClusterID != 7 || s.StoreID != 1 || s.APIVersion != APIV2 || s.APIVersion.String() != "V2" {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := ParseStoreIdent([]byte{0x08}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v", err)
	}
}
