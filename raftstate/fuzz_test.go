package raftstate

import (
	"bytes"
	"errors"
	"testing"

	"github.com/pingcap/kvproto/pkg/eraftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte("\x10\x06\x18\x0a\x22\x03abc"))
	f.Add([]byte("\x08\x02\x10\x06\x18\x0a\x32\x01\x01\x28\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		var m eraftpb.Entry
		if err := m.Unmarshal(b); err != nil {
			return // kvproto refuses some field numbers that the wire package takes
		}
		if m.Term != e.Term || m.Index != e.Index || int32(m.EntryType) != int32(e.Type) || !bytes.Equal(m.Data, e.Data) ||
			!bytes.Equal(m.Context, e.Context) {
			t.Errorf("%+v, kvproto has %+v", e, m)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(int32(0), append(protowire.AppendBytes([]byte{0}, must(header.Marshal())), 0, 1, 1, 'k', 1, 'v'))
	f.Add(int32(0), []byte("\x0a\x02\x08\x02\x12\x0b\x08\x03\x22\x07\x12\x01k\x1a\x02vv"))
	f.Add(int32(0), []byte("\x1a\x06\x08\x03\x22\x02\x08\x09"))
	f.Add(int32(2), []byte("\x1a\x04\x0a\x02\x08\x02"))
	f.Fuzz(func(t *testing.T, typ int32, data []byte) {
		c, err := Decode(Entry{Type: EntryType(typ), Data: data})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if err == nil && c.Kind == CommandAdmin && c.Admin == nil {
			t.Error("an admin command without one")
		}
	})
}

// FuzzWithEpoch: whatever parses can be given another epoch, and only that changes.
func FuzzWithEpoch(f *testing.F) {
	_, values := raftCF(f)
	for _, v := range values {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseRegionLocalState(raw)
		if err != nil || len(raw) == 0 {
			return
		}
		b := s.WithEpoch(12, 345)
		if b == nil {
			return // a message that the wire package refuses and kvproto takes
		}
		got, err := ParseRegionLocalState(b)
		if err != nil || got.Region.Epoch != (Epoch{12, 345}) {
			t.Fatalf("%X became %X: %v %+v", raw, b, err, got.Region.Epoch)
		}
	})
}

func FuzzStates(f *testing.F) {
	_, values := raftCF(f)
	for _, v := range values {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		raft, err1 := ParseRaftLocalState(b)
		apply, err2 := ParseRaftApplyState(b)
		region, err3 := ParseRegionLocalState(b)
		_, err4 := ParseStoreIdent(b)
		_, err5 := ParseRegion(b)
		for _, err := range []error{err1, err2, err3, err4, err5} {
			if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
		}
		none := func(uint64) (uint64, bool) { return 0, false }
		StartCheck(StartInput{StoreID: 1, Region: region, Raft: &raft, Apply: &apply, EntryTerm: none})
		Derive(&raft, &apply).Invariants()
	})
}

func FuzzLocalKey(f *testing.F) {
	f.Add(RaftLogKey(2, 3))
	f.Add(RegionStateKey(2))
	f.Add([]byte{1, 2})
	f.Fuzz(func(t *testing.T, key []byte) {
		kind, region, index, ok := ParseLocalKey(key)
		if ok != (kind != KeyUnknown) {
			t.Fatal(kind, ok)
		}
		if b := buildKey(kind, region, index); b != nil && !bytes.Equal(b, key) {
			t.Errorf("%X is built as %X", key, b)
		}
	})
}
