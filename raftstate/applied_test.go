package raftstate

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// Applying entries moves three numbers and nothing else, also in a record of a later version that has fields unknown here.
func TestWithApplied(t *testing.T) {
	field := func(b []byte, n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
	}
	truncated := field(field(nil, 1, 10), 2, 6)
	raw := field(nil, 1, 20)
	raw = protowire.AppendBytes(protowire.AppendTag(raw, 2, protowire.BytesType), truncated)
	raw = field(raw, 4, 22)
	raw = field(raw, 5, 7)
	unknown := protowire.AppendBytes(protowire.AppendTag(nil, 900, protowire.BytesType), []byte("later"))
	raw = append(raw, unknown...)
	s, err := ParseRaftApplyState(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name                                   string
		applied, index, term, wantIdx, wantTrm uint64
	}{
		{"up to what was known to be committed", 22, 22, 7, 22, 7},
		{"beyond it", 25, 25, 8, 25, 8},
		{"commit never goes back", 21, 21, 6, 22, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := s.WithApplied(c.applied, c.index, c.term)
			got, err := ParseRaftApplyState(b)
			if err != nil {
				t.Fatal(err)
			}
			if got.AppliedIndex != c.applied || got.CommitIndex != c.wantIdx || got.CommitTerm != c.wantTrm || got.TruncatedState != s.TruncatedState {
				t.Errorf("got %+v", got)
			}
			if !bytes.HasSuffix(b, unknown) {
				t.Errorf("the unknown field is gone: %X", b)
			}
		})
	}
	got, err := ParseRaftApplyState(RaftApplyState{}.WithApplied(9, 9, 6))
	if err != nil {
		t.Fatal(err)
	}
	if want := (TruncatedState{Index: 5, Term: 5}); got.AppliedIndex != 9 || got.TruncatedState != want || got.CommitIndex != 9 || got.CommitTerm != 6 {
		t.Errorf("region just split off: %+v", got)
	}
}
