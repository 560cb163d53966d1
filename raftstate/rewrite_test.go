package raftstate

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// A record that is rewritten says what was asked for, and keeps everything that this version does not know.
func TestRewriteRegion(t *testing.T) {
	varint := func(b []byte, n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	sub := func(b []byte, n protowire.Number, v []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
	}
	peer := func(id, store uint64, extra string) []byte {
		return sub(sub(nil, 5, sub(varint(varint(nil, 1, id), 2, store), 90, []byte(extra))), 91, []byte("between"))
	}
	region := varint(sub(sub(nil, 2, []byte("a")), 3, []byte("m")), 1, 7)
	region = sub(region, 4, sub(varint(varint(nil, 1, 3), 2, 4), 92, []byte("epoch")))
	region = append(append(region, peer(11, 1, "one")...), peer(12, 2, "two")...)
	region = varint(varint(region, 7, 1), 8, 99)
	region = sub(region, 93, []byte("region"))
	raw := sub(varint(nil, 1, uint64(Merging)), 2, region)
	raw = sub(sub(raw, 3, varint(nil, 1, 55)), 94, []byte("record"))
	s, err := ParseRegionLocalState(raw)
	if err != nil {
		t.Fatal(err)
	}
	kept := []string{"one", "region", "record", "epoch", "between"}
	for _, c := range []struct {
		name      string
		state     PeerState
		want      Region
		keepMerge bool
		gone      string
	}{
		{"one peer, another range", Normal, Region{ID: 7, StartKey: Key("b"), EndKey: Key("m"), Epoch: Epoch{103, 5}, Peers: []Peer{{ID: 11, StoreID: 1}}}, false, "two"},
		{"to the end of the key space", Normal, Region{ID: 7, Epoch: Epoch{103, 5}, Peers: []Peer{{ID: 11, StoreID: 1, Role: Learner}}}, false, "two"},
		{"a tombstone that remembers its merge", Tombstone, Region{ID: 7, StartKey: Key("a"), EndKey: Key("m"), Epoch: Epoch{3, 4}, Peers: []Peer{{ID: 11, StoreID: 1}}}, true, "two"},
		{"still in flashback", Merging, Region{ID: 7, StartKey: Key("a"), EndKey: Key("m"), Epoch: Epoch{3, 4}, Peers: []Peer{{ID: 11, StoreID: 1}}, IsInFlashback: true, FlashbackStartTS: 99}, true, "two"},
	} {
		got, err := s.Rewrite(c.state, c.want, c.keepMerge)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.State != c.state || !got.Region.Equal(c.want) || (got.MergeState != nil) != c.keepMerge {
			t.Errorf("%s: %s %+v", c.name, got.State, got.Region)
		}
		for _, k := range kept {
			if !bytes.Contains(got.Raw, []byte(k)) {
				t.Errorf("%s: unknown field %q is gone", c.name, k)
			}
		}
		if bytes.Contains(got.Raw, []byte(c.gone)) {
			t.Errorf("%s: the removed peer left %q", c.name, c.gone)
		}
	}
	same, err := s.Rewrite(s.State, s.Region, true)
	if err != nil || !same.Region.Equal(s.Region) {
		t.Errorf("unchanged: %v %+v", err, same.Region)
	}
	if _, err := s.Rewrite(Normal, Region{ID: 8}, false); err == nil {
		t.Error("the record of region 7 became one of region 8")
	}
	want := Region{ID: 9, StartKey: Key("x"), EndKey: Key("y"), Epoch: Epoch{1, 1}, Peers: []Peer{{ID: 10, StoreID: 3}}}
	fresh, err := RegionLocalState{}.Rewrite(Normal, want, false)
	if err != nil || !fresh.Region.Equal(want) || fresh.State != Normal {
		t.Errorf("a new record: %v %+v", err, fresh)
	}
	for i := range raw {
		bad, err := ParseRegionLocalState(raw[:i])
		if err != nil {
			continue
		}
		// Whatever still decodes gives the wanted record or an error, never another one.
		if got, err := bad.Rewrite(Normal, Region{ID: bad.Region.ID, Epoch: Epoch{1, 2}, Peers: []Peer{{ID: 1, StoreID: 1}}}, false); err == nil && got.Region.Epoch != (Epoch{1, 2}) {
			t.Errorf("cut at %d: %+v", i, got.Region)
		}
	}
}
