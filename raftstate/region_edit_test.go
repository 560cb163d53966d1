package raftstate

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_serverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// A record of a later version: unknown fields in the record, in the region and in a peer must outlive the edits.
func laterRecord(t *testing.T) (RegionLocalState, [][]byte) {
	t.Helper()
	unknown := func(n protowire.Number, s string) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), []byte(s))
	}
	peer, err := (&metapb.Peer{Id: 11, StoreId: 1, Role: metapb.PeerRole_Voter}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	inPeer, inRegion, inRecord := unknown(90, "peer"), unknown(91, "region"), unknown(92, "record")
	peer = append(peer, inPeer...)
	region, err := (&metapb.Region{Id: 7, StartKey: []byte("a"), EndKey: []byte("b"), RegionEpoch: &metapb.RegionEpoch{ConfVer: 3, Version: 4}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{peer, mustPeer(t, 12, 2), mustPeer(t, 13, 3)} {
		region = protowire.AppendBytes(protowire.AppendTag(region, 5, protowire.BytesType), p)
	}
	region = append(region, inRegion...)
	raw := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(raft_serverpb.PeerState_Merging))
	raw = protowire.AppendBytes(protowire.AppendTag(raw, 2, protowire.BytesType), region)
	raw = append(raw, inRecord...)
	s, err := ParseRegionLocalState(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s, [][]byte{inPeer, inRegion, inRecord}
}

func mustPeer(t *testing.T, id, store uint64) []byte {
	t.Helper()
	b, err := (&metapb.Peer{Id: id, StoreId: store}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWithPeersKeepsTheRest(t *testing.T) {
	s, unknown := laterRecord(t)
	want := []Peer{{ID: 11, StoreID: 1}, {ID: 20, StoreID: 9, Role: Learner, IsWitness: true}}
	got, err := s.WithPeers(want, Epoch{ConfVer: 103, Version: 4})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got.Region.Peers); d != "" {
		t.Error(d)
	}
	if got.Region.Epoch != (Epoch{ConfVer: 103, Version: 4}) || got.State != Merging || got.Region.ID != 7 || string(got.Region.EndKey) != "b" {
		t.Errorf("got %+v", got)
	}
	for _, u := range unknown {
		if !bytes.Contains(got.Raw, u) {
			t.Errorf("unknown field %q is gone", u)
		}
	}
	back, err := got.WithPeers(s.Region.Peers, s.Region.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Raw, s.Raw) {
		t.Errorf("there and back again:\n%X\n%X", s.Raw, back.Raw)
	}
}

func TestWithState(t *testing.T) {
	s, unknown := laterRecord(t)
	got, err := s.WithState(Tombstone)
	if err != nil {
		t.Fatal(err)
	}
	if got.State != Tombstone || len(got.Region.Peers) != 3 {
		t.Errorf("got %+v", got)
	}
	for _, u := range unknown {
		if !bytes.Contains(got.Raw, u) {
			t.Errorf("unknown field %q is gone", u)
		}
	}
	if normal, err := got.WithState(Normal); err != nil || normal.State != Normal {
		t.Errorf("%v %v", normal.State, err)
	}
}
