package quorum

import (
	"bytes"
	"fmt"
	"regexp"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func together(t testing.TB, fs base.FS, s subset, o plan.Options) (*repair.TogetherResult, error) {
	t.Helper()
	return repair.Together(t.Context(), fs, s.survive, scan.Options{},
		repair.TogetherOptions{Verb: "drop-peers", Now: now, Threads: 2, Version: "test", Plan: o})
}

// whole repairs a subset in one go and holds the result to everything that has to be true of it; then once more, which changes nothing; then
// back.
func (s subset) whole(t *testing.T, ts mvcc.TS, n *counts) {
	mem := s.copyOf(t)
	res, err := together(t, base.NewMem(mem), s, s.options(ts))
	if err != nil {
		t.Fatalf("%v\nnext: %s", err, base.Next(err))
	}
	r := s.look(t, mem, res.Plan)
	defer r.close(t)
	r.check(t, n)
	if t.Failed() {
		return
	}
	before := s.trees(t, mem, true)
	again, err := together(t, base.NewMem(mem), s, s.options(ts))
	if err != nil || again.State != repair.StateUnchanged {
		t.Errorf("a second run: %+v, %v", again, err)
	}
	same(t, "a second run", s.trees(t, mem, true), before)
	s.undo(t, mem, res.Plan)
}

// Every choice of survivors of every archive: peers dropped, nothing rewound.
func TestDropPeersOfEverySubset(t *testing.T) {
	for _, name := range multi {
		a := load(t, name)
		n := &counts{}
		for i, s := range a.subsets() {
			if testing.Short() && i%5 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", name, s), func(t *testing.T) { s.whole(t, 0, n) })
		}
		n.meant(t, name, name == "multi4-dr-learner")
	}
}

// meant wants a test to have met what it is about. Without a rewind few archives leave several replicas of a region that lost its quorum.
func (n *counts) meant(t *testing.T, name string, replicas bool) {
	t.Helper()
	if n.regions == 0 || n.must == 0 || n.rows == 0 || replicas && n.replicas == 0 && !testing.Short() {
		t.Errorf("%s: nothing was checked: %+v", name, *n)
	}
	t.Logf("%s: %+v", name, *n)
}

// moments are timestamps to rewind an archive to: named ones, and one in the middle of the load that was cut off.
func (a *archive) moments(t testing.TB) []mvcc.TS {
	t.Helper()
	commits := fixtures.History(t, a.name)
	return []mvcc.TS{mvcc.TS(a.facts.T4), mvcc.TS(commits[len(commits)-len(commits)/16].CommitTS), mvcc.TS(a.facts.T2)}
}

// Every choice of survivors, each rewound to another moment as well: what a client reads is what the cluster had at T, where any survivor had it.
func TestRewindOfEverySubset(t *testing.T) {
	for _, name := range multi {
		a := load(t, name)
		moments := a.moments(t)
		n := &counts{}
		for i, s := range a.subsets() {
			if testing.Short() && i%5 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%s", name, s), func(t *testing.T) { s.whole(t, moments[i%len(moments)], n) })
		}
		n.meant(t, name, true)
		if n.exact == 0 {
			t.Errorf("%s: no row was compared with T", name)
		}
	}
}

// The site that is left, alone: the lagging one goes back to PD's min-resolved-ts, the learner to a moment that it has seen. Every row is
// exactly that of T, and what was a learner votes.
func TestSiteAlone(t *testing.T) {
	for _, c := range []struct {
		name, dir string
		at        func(t *testing.T, a *archive) mvcc.TS
	}{
		{"multi3-dr-autosync", "/store2", func(t *testing.T, a *archive) mvcc.TS {
			m := regexp.MustCompile(`"min_resolved_ts": (\d+)`).FindSubmatch(fixtures.File(t, a.name, "min-resolved-ts.json"))
			ts, err := mvcc.ParseTS(string(m[1]))
			must(t, err)
			return ts
		}},
		{"multi4-dr-learner", "/store3", func(_ *testing.T, a *archive) mvcc.TS { return mvcc.TS(a.facts.T4) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := load(t, c.name)
			ts := c.at(t, a)
			s, n := a.survivors(c.dir), &counts{}
			mem := s.copyOf(t)
			res, err := together(t, base.NewMem(mem), s, s.options(ts))
			must(t, err)
			r := s.look(t, mem, res.Plan)
			defer r.close(t)
			r.check(t, n)
			if want := bytes.Count(fixtures.RowsAt(t, c.name, uint64(ts)), []byte("\n")); n.exact != want || n.rows != want || want == 0 {
				t.Errorf("%d rows, %d of them as they were at T; the cluster had %d", n.rows, n.exact, want)
			}
			for _, h := range r.after {
				if len(h.region.Peers) != 1 || h.region.Peers[0].Role != raftstate.Voter {
					t.Errorf("region %d has the peers %v", h.region.ID, h.region.Peers)
				}
			}
		})
	}
}

// The operator lets a replica win that lags behind: what the others had more is lost, and the plan says so.
func TestLaggardWins(t *testing.T) {
	a := load(t, "multi4-dr-learner")
	s := a.survivors("/store0", "/store3")
	applied := map[uint64]*held{}
	o := s.options(0)
	o.Winners, o.Keep, o.Forced = map[uint64]uint64{}, plan.KeepWinner, []string{"certain-loss"}
	for _, h := range s.before() {
		if best := applied[h.region.ID]; best == nil || h.derived.Last < best.derived.Last {
			applied[h.region.ID] = h
			o.Winners[h.region.ID] = h.store
		}
	}
	mem := s.copyOf(t)
	res, err := together(t, base.NewMem(mem), s, o)
	if err != nil {
		t.Fatalf("%v\nnext: %s\n%+v", err, base.Next(err), res.Plan.Problems)
	}
	r, n := s.look(t, mem, res.Plan), &counts{}
	defer r.close(t)
	r.check(t, n)
	if n.lost == 0 {
		t.Errorf("nothing is lost: %+v", *n)
	}
	// The same decisions were carried out; others were not, and must not be taken for done.
	if again, err := together(t, base.NewMem(mem), s, o); err != nil || !again.DoneBefore {
		t.Errorf("the same again: %+v, %v", again, err)
	}
	o.PlanID, o.Winners = "another", nil
	if other, err := together(t, base.NewMem(mem), s, o); err != nil || other.DoneBefore {
		t.Errorf("without the operator's decisions: %+v, %v", other, err)
	}
}
