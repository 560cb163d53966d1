package raftstate

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// WithApplied returns the record's bytes after entries up to applied have been applied: applied_index, and, where they grow,
// commit_index and commit_term. Everything else stays byte for byte. A state without bytes is the initial one of a region just
// split off. Nil means that the bytes do not decode strictly, and must not be written.
func (s RaftApplyState) WithApplied(applied, commitIndex, commitTerm uint64) []byte {
	b := s.Raw
	if len(b) == 0 {
		t := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), InitLogIndex)
		t = protowire.AppendVarint(protowire.AppendTag(t, 2, protowire.VarintType), InitLogTerm)
		b = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), t)
	}
	set := map[protowire.Number]uint64{1: applied}
	if commitIndex > s.CommitIndex {
		set[4], set[5] = commitIndex, commitTerm
	}
	for _, n := range []protowire.Number{1, 4, 5} {
		v, ok := set[n]
		if !ok {
			continue
		}
		var err error
		if b, err = setVarint(b, []protowire.Number{n}, v); err != nil {
			return nil
		}
	}
	return b
}
