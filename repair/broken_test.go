package repair

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// A peer that had applied entries before they were persisted is legal for TiKV 8.2 and later, which wrote it: only older lines object. That
// is no problem that an operator would have to accept.
func TestOldLinesAreNoProblem(t *testing.T) {
	s := openStore(t, base.NewMem(fixtures.Mem(t, "multi3-merging-late")), "/store2")
	defer s.Close()
	found := false
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		rp, ps, err := planRegion(s, r, mvcc.MaxTS)
		if err != nil {
			t.Fatal(err)
		}
		found = found || rp.derived.Unpersisted > 0
		if b := brokenRegions(ps); len(b) > 0 {
			t.Errorf("region %d counts as broken: %v", r.ID, ps[0].What())
		}
	}
	if !found {
		t.Error("the fixture should have a region with applied > last")
	}
}

// A region that TiKV would not start anyway: the rewind asks for it by name, and once accepted it does not keep the fence up for ever.
func TestRewindOfABrokenRegion(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "single-default"))
	region := breakRegion(t, fs)
	sp := mvcc.TS(1)
	facts := fixtures.Facts(t, "single-default")
	o := ResetOptions{RewindOptions: RewindOptions{T: mvcc.TS(facts.T1), SafePoint: &sp, Now: time.Unix(1700000000, 0)}}
	_, err := Reset(context.Background(), fs, "/data", scan.Options{}, o)
	if !errors.Is(err, base.ErrProblems) {
		t.Fatalf("not refused: %v", err)
	}
	o.Force = map[string]bool{(&plan.RegionStart{}).Name(): true}
	res, err := Reset(context.Background(), fs, "/data", scan.Options{}, o)
	if err != nil {
		t.Fatal(err)
	}
	if res.State != StateDone || len(res.Problems) != 1 || res.Problems[0].Name != "region-start" {
		t.Errorf("%+v", res)
	}
	if ok, err := base.Exists(fs, "/data/panic_mark_file"); err != nil || ok {
		t.Errorf("the fence: %v, %v", ok, err)
	}
	s := openStore(t, fs, "/data")
	defer s.Close()
	fs1, err := Verify(context.Background(), s, VerifyOptions{T: o.T})
	if err != nil || len(fs1) != 1 || fs1[0].Truth != truthStarts || fs1[0].Region != region {
		t.Errorf("verify says %v, %v", fs1, err)
	}
}

// breakRegion takes the term of the hard state of the first region back below what the apply state knows: start rule 5.
func breakRegion(t *testing.T, fs base.FS) uint64 {
	t.Helper()
	s := openStore(t, fs, "/data")
	defer s.Close()
	for _, r := range s.Regions {
		if r.Apply == nil || r.Apply.CommitTerm <= raftstate.InitLogTerm {
			continue
		}
		raw, ok, err := s.Raft.RaftState(r.ID)
		if err != nil || !ok {
			t.Fatal(err)
		}
		st, err := raftstate.ParseRaftLocalState(raw)
		if err != nil {
			t.Fatal(err)
		}
		h := st.HardState
		h.Term = raftstate.InitLogTerm
		if st, err = st.With(h, st.LastIndex); err != nil {
			t.Fatal(err)
		}
		var b raftlog.Batch
		if err := b.PutState(r.ID, st); err != nil {
			t.Fatal(err)
		}
		e, err := raftlog.PlanEdit(s.Raft, &b, time.Unix(1600000000, 0))
		if err != nil {
			t.Fatal(err)
		}
		tx, err := edit.Begin(fs, "/data", "break", "test", struct{}{}, e.Dirs(), time.Unix(1600000000, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []func() error{func() error { return e.Stage(tx) }, tx.Stage, tx.Publish, func() error { return tx.Finish(struct{}{}) }} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		return r.ID
	}
	t.Fatal("no region to break")
	return 0
}
