package raftstate

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is the path of a varint field in a message, and its new value.
type field struct {
	path []protowire.Number
	v    uint64
}

func setFields(what string, raw []byte, list ...field) ([]byte, error) {
	for _, f := range list {
		var err error
		if raw, err = setVarint(raw, f.path, f.v); err != nil {
			return nil, &DecodeError{What: what, Err: err}
		}
	}
	return raw, nil
}

// With returns the record with another hard state and last index. Every other byte of Raw stays, unknown fields and their order
// included; a record without Raw is written anew. The error is of class ErrCorrupt: Raw does not say what the fields of s say.
func (s RaftLocalState) With(h HardState, last uint64) (RaftLocalState, error) {
	const hard, what = 1, "RaftLocalState"
	if len(s.Raw) > 0 {
		if now, err := ParseRaftLocalState(s.Raw); err != nil {
			return RaftLocalState{}, err
		} else if now.HardState != s.HardState || now.LastIndex != s.LastIndex {
			return RaftLocalState{}, corruptf(what, "the bytes say %+v last %d, the fields %+v last %d", now.HardState, now.LastIndex, s.HardState, s.LastIndex)
		}
	}
	raw, err := setFields(what, s.Raw, field{[]protowire.Number{hard, 1}, h.Term}, field{[]protowire.Number{hard, 2}, h.Vote},
		field{[]protowire.Number{hard, 3}, h.Commit}, field{[]protowire.Number{2}, last})
	if err != nil {
		return RaftLocalState{}, err
	}
	out, err := ParseRaftLocalState(raw)
	if err == nil && (out.HardState != h || out.LastIndex != last) {
		err = corruptf(what, "written %+v last %d, read %+v last %d", h, last, out.HardState, out.LastIndex)
	}
	return out, err
}

// WithLast is With for the last index alone.
func (s RaftLocalState) WithLast(last uint64) (RaftLocalState, error) {
	return s.With(s.HardState, last)
}

// WithCommit is With for hard_state.commit alone.
func (s RaftLocalState) WithCommit(commit uint64) (RaftLocalState, error) {
	h := s.HardState
	h.Commit = commit
	return s.With(h, s.LastIndex)
}

// WithTerm is With for hard_state.term: a vote belongs to its term, so another term takes it away.
func (s RaftLocalState) WithTerm(term uint64) (RaftLocalState, error) {
	h := s.HardState
	if h.Term != term {
		h.Term, h.Vote = term, 0
	}
	return s.With(h, s.LastIndex)
}

// with sets fields of the record and proves that a decoder reads want.
func (s RaftApplyState) with(want RaftApplyState, list ...field) (RaftApplyState, error) {
	const what = "RaftApplyState"
	same := func(a, b RaftApplyState) bool {
		a.Raw, b.Raw = nil, nil
		return fmt.Sprint(a) == fmt.Sprint(b)
	}
	if len(s.Raw) > 0 {
		if now, err := ParseRaftApplyState(s.Raw); err != nil {
			return RaftApplyState{}, err
		} else if !same(now, s) {
			return RaftApplyState{}, corruptf(what, "the bytes say something else than the fields")
		}
	} else {
		// Written anew: every field counts.
		list = []field{{[]protowire.Number{1}, want.AppliedIndex}, {[]protowire.Number{2, 1}, want.TruncatedState.Index},
			{[]protowire.Number{2, 2}, want.TruncatedState.Term}, {[]protowire.Number{3}, want.LastCommitIndex},
			{[]protowire.Number{4}, want.CommitIndex}, {[]protowire.Number{5}, want.CommitTerm}}
	}
	raw, err := setFields(what, s.Raw, list...)
	if err != nil {
		return RaftApplyState{}, err
	}
	out, err := ParseRaftApplyState(raw)
	if err == nil && !same(out, want) {
		err = corruptf(what, "written %v, read %v", want, out)
	}
	return out, err
}

// WithTruncated returns the record with another truncated_state; every other byte of Raw stays. A record without Raw is written
// anew. The error is of class ErrCorrupt: Raw does not say what the fields of s say.
func (s RaftApplyState) WithTruncated(t TruncatedState) (RaftApplyState, error) {
	want := s
	want.TruncatedState = t
	return s.with(want, field{[]protowire.Number{2, 1}, t.Index}, field{[]protowire.Number{2, 2}, t.Term})
}

// WithCommit is WithTruncated for commit_index and commit_term, and for last_commit_index where the record has one: 4.0 wrote it
// and demands that it is not above hard_state.commit.
func (s RaftApplyState) WithCommit(index, term uint64) (RaftApplyState, error) {
	want := s
	want.CommitIndex, want.CommitTerm = index, term
	list := []field{{[]protowire.Number{4}, index}, {[]protowire.Number{5}, term}}
	if s.LastCommitIndex != 0 {
		want.LastCommitIndex = index
		list = append(list, field{[]protowire.Number{3}, index})
	}
	return s.with(want, list...)
}
