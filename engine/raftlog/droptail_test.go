package raftlog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

func raftState(tb testing.TB, term, vote, commit, last uint64) *raftstate.RaftLocalState {
	tb.Helper()
	s, err := raftstate.RaftLocalState{}.With(raftstate.HardState{Term: term, Vote: vote, Commit: commit}, last)
	must(tb, err)
	return &s
}

func applyState(tb testing.TB, applied, truncated, truncatedTerm, commit, commitTerm uint64) *raftstate.RaftApplyState {
	tb.Helper()
	s, err := raftstate.RaftApplyState{AppliedIndex: applied}.WithTruncated(raftstate.TruncatedState{Index: truncated, Term: truncatedTerm})
	must(tb, err)
	s, err = s.WithCommit(commit, commitTerm)
	must(tb, err)
	return &s
}

// story prints what dropping a tail gives: new records, the log, and which start rules break; before it and after it.
func story(t *testing.T, s Store, region uint64, raft *raftstate.RaftLocalState, apply *raftstate.RaftApplyState) string {
	t.Helper()
	terms := &Terms{Store: s, Region: region}
	in := raftstate.StartInput{StoreID: 1, Raft: raft, Apply: apply, EntryTerm: terms.Term}
	in.Region.Region = raftstate.Region{ID: region, Peers: []raftstate.Peer{{ID: 9, StoreID: 1}}}
	var out string
	for _, v := range raftstate.StartCheck(in) {
		out += fmt.Sprintf(" rule %d", v.Rule)
	}
	must(t, terms.Err)
	return out
}

// Strategy D on the log 5..20 of region 2 (term 6 up to 14, 7 from 15), from several states.
func TestDropTail(t *testing.T) {
	dir := func() testDir { return newDir().rewrite(1, nb().log(2, 5, 14, 6)).log(8, nb().log(2, 15, 20, 7)) }
	for _, c := range []struct {
		name  string
		raft  *raftstate.RaftLocalState
		apply *raftstate.RaftApplyState
		keep  bool
		term  uint64 // MinTerm
		want  string
	}{
		{"committed and uncommitted tail", raftState(t, 7, 3, 18, 20), applyState(t, 16, 8, 6, 16, 7), false, 0,
			"term 7 vote 3 commit 16 last 16; applied 16 truncated 16/7 commit 16/7; dropped 17..20; log none"},
		{"the same, history kept", raftState(t, 7, 3, 18, 20), applyState(t, 16, 8, 6, 16, 7), true, 0,
			"term 7 vote 3 commit 16 last 16; applied 16 truncated 8/6 commit 16/7; dropped 17..20; history; log 5..16"},
		{"applied in the rewrite queue", raftState(t, 7, 3, 18, 20), applyState(t, 10, 8, 6, 12, 6), true, 0,
			"term 7 vote 3 commit 10 last 10; applied 10 truncated 8/6 commit 10/6; dropped 11..20; history; log 5..10"},
		{"term raised", raftState(t, 7, 3, 18, 20), applyState(t, 16, 8, 6, 16, 7), false, 11,
			"term 11 vote 0 commit 16 last 16; applied 16 truncated 16/7 commit 16/7; dropped 17..20; log none"},
		{"no tail", raftState(t, 7, 3, 20, 20), applyState(t, 20, 8, 6, 20, 7), true, 0,
			"term 7 vote 3 commit 20 last 20; applied 20 truncated 8/6 commit 20/7; dropped none; history; log 5..20"},
		{"nothing applied since the truncation", raftState(t, 7, 3, 18, 20), applyState(t, 14, 14, 6, 14, 6), true, 0,
			"term 7 vote 3 commit 14 last 14; applied 14 truncated 14/6 commit 14/6; dropped 15..20; log none"},
		{"commit of the hard state lags", raftState(t, 7, 0, 12, 20), applyState(t, 16, 8, 6, 17, 7), true, 0,
			"term 7 vote 0 commit 16 last 16; applied 16 truncated 8/6 commit 16/7; dropped 17..20; history; log 5..16"},
		{"a vote for a newer term stays", raftState(t, 9, 3, 18, 20), applyState(t, 16, 8, 6, 16, 7), true, 0,
			"term 9 vote 3 commit 16 last 16; applied 16 truncated 8/6 commit 16/7; dropped 17..20; history; log 5..16"},
		{"applied before it was persisted", raftState(t, 7, 3, 20, 20), applyState(t, 22, 8, 6, 22, 8), true, 0,
			"term 8 vote 0 commit 22 last 22; applied 22 truncated 22/8 commit 22/8; dropped none; log none"},
	} {
		mem := dataDir(dir())
		fs := base.NewMem(mem)
		s := openData(t, fs)
		var b Batch
		d, err := DropTail(&b, s, Drop{Region: 2, Raft: c.raft, Apply: c.apply, KeepHistory: c.keep, MinTerm: c.term})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		tx, p, err := begin(fs, &b)
		must(t, err)
		must(t, tx.Publish())
		after, err := p.Published()
		must(t, err)
		got := fmt.Sprintf("term %d vote %d commit %d last %d; applied %d truncated %d/%d commit %d/%d; dropped ", d.Raft.HardState.Term,
			d.Raft.HardState.Vote, d.Raft.HardState.Commit, d.Raft.LastIndex, d.Apply.AppliedIndex, d.Apply.TruncatedState.Index,
			d.Apply.TruncatedState.Term, d.Apply.CommitIndex, d.Apply.CommitTerm)
		if d.Last < d.First {
			got += "none"
		} else {
			got += fmt.Sprintf("%d..%d", d.First, d.Last)
		}
		if d.History {
			got += "; history"
		}
		if first, last, ok, _ := after.Bounds(2); ok {
			got += fmt.Sprintf("; log %d..%d", first, last)
		} else {
			got += "; log none"
		}
		if got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		if broken := story(t, after, 2, &d.Raft, &d.Apply); broken != "" {
			t.Errorf("%s: afterwards%s", c.name, broken)
		}
		// The raft side comes first: a server that starts in between with the old apply state must stop, or do no harm.
		if broken := story(t, after, 2, &d.Raft, c.apply); broken == "" && d.First <= d.Last && !d.History && c.apply.AppliedIndex != c.apply.TruncatedState.Index {
			t.Errorf("%s: starts between the two writes", c.name)
		}
		if broken := raftstate.Derive(&d.Raft, &d.Apply).Invariants(); len(broken) > 0 {
			t.Errorf("%s: %v", c.name, broken)
		}
		must(t, tx.Finish(nil))
	}
}

func TestDropTailRefuses(t *testing.T) {
	s, _, err := newDir().log(1, nb().log(2, 5, 9, 6), nb().compact(2, 8)).open()
	must(t, err)
	for _, c := range []struct {
		name  string
		raft  *raftstate.RaftLocalState
		apply *raftstate.RaftApplyState
		keep  bool
		want  string
	}{
		{"the entry at applied is gone", raftState(t, 6, 0, 9, 9), applyState(t, 7, 4, 6, 7, 6), false, "term of applied_index 7"},
		{"history has a hole", raftState(t, 6, 0, 9, 9), applyState(t, 9, 5, 6, 9, 6), true, "entry 6 is not there"},
		{"applied below truncated", raftState(t, 6, 0, 9, 9), applyState(t, 8, 9, 6, 9, 6), true, "below the truncated"},
	} {
		var b Batch
		_, err := DropTail(&b, s, Drop{Region: 2, Raft: c.raft, Apply: c.apply, KeepHistory: c.keep})
		if !errors.Is(err, base.ErrProblems) || !strings.Contains(err.Error(), c.want) || !b.Empty() {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A region without records is one that was just split off: 5/5/5.
func TestDropTailOfANewRegion(t *testing.T) {
	s, _, err := newDir().log(1, nb().put(3, "R", "x")).open()
	must(t, err)
	var b Batch
	d, err := DropTail(&b, s, Drop{Region: 2, KeepHistory: true})
	must(t, err)
	if d.Index != 5 || d.Term != 5 || d.Raft.LastIndex != 5 || d.Apply.CommitIndex != 5 || d.Apply.TruncatedState.Index != 5 {
		t.Errorf("%+v", d)
	}
}

var _ Sink = (*edit.Tx)(nil)
