package repair

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Entries that were carried in a list bring a replica to the same place as the store that they come from, and to any index before it.
func TestBringToFromAList(t *testing.T) {
	const name, lagging, ahead = "multi4-dr-learner", "/store0", "/store1"
	fs := base.NewMem(fixtures.Mem(t, name))
	other := openStore(t, fs, ahead)
	defer other.Close()
	src := StoreSource(other)
	regions := 0
	for _, r := range other.Regions {
		sl, absent, err := src.Log(r.ID)
		if err != nil || absent != "" {
			t.Fatal(absent, err)
		}
		list := &ListSource{From: "entries.bin", Region: r.ID, Before: sl.Before, Committed: sl.Committed}
		err = src.Entries(r.ID, sl.Before.Index+1, sl.Last+1, func(e raftstate.Entry) error {
			c, err := raftstate.ParseEntry(bytes.Clone(e.Raw))
			list.List = append(list.List, c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		bring := func(to uint64, s EntrySource) (*scan.Store, TailApplied) {
			store := openStore(t, fs, lagging)
			var b raftlog.Batch
			got, ps, err := BringTo(store, &b, Reach{Region: r.ID, To: to, Sources: []EntrySource{s}})
			if err != nil || len(ps) != 0 {
				t.Fatalf("region %d to %d: %v %v", r.ID, to, ps, err)
			}
			e, err := raftlog.PlanEdit(store.Raft, &b, time.Unix(1, 0))
			if err != nil || e.Empty() != (got.Appended == 0) {
				t.Fatalf("region %d: %v", r.ID, err)
			}
			return store, got
		}
		a, fromList := bring(0, list)
		b, fromStore := bring(0, src)
		if fromList.To != fromStore.To || fromList.Records != fromStore.Records || fromList.Appended != fromStore.Appended {
			t.Errorf("region %d: %+v, from the store %+v", r.ID, fromList, fromStore)
		}
		lower, upper := r.Bounds()
		for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite, scan.CFRaft} {
			if d := firstDifference(t, a, b, cf, lower, upper); d != "" {
				t.Errorf("region %d, %s: %s", r.ID, cf, d)
			}
			if d := firstDifference(t, a, other, cf, lower, upper); d != "" && fromList.To == r.Apply.AppliedIndex && cf != scan.CFRaft {
				t.Errorf("region %d, %s, against the store itself: %s", r.ID, cf, d)
			}
		}
		a.Close()
		b.Close()
		if fromList.To-fromList.From < 3 {
			continue
		}
		regions++
		half := (fromList.From + fromList.To) / 2
		s, got := bring(half, list)
		if got.To != half || got.Stopped != nil {
			t.Errorf("region %d to %d: %+v", r.ID, half, got)
		}
		s.Close()
	}
	if regions < 5 {
		t.Errorf("only %d regions had a way to go", regions)
	}
}

// A list is no better than what it says of itself, and a region that is not there cannot be brought anywhere.
func TestBringToRefuses(t *testing.T) {
	entry := func(index, term uint64) raftstate.Entry { return raftstate.Entry{Index: index, Term: term} }
	for what, l := range map[string]*ListSource{
		"a gap":              {From: "x", Region: 1, Before: EntryID{5, 5}, List: []raftstate.Entry{entry(6, 6), entry(8, 6)}},
		"a gap at its start": {From: "x", Region: 1, Before: EntryID{5, 5}, List: []raftstate.Entry{entry(7, 6)}},
		"a term that falls":  {From: "x", Region: 1, Before: EntryID{5, 5}, List: []raftstate.Entry{entry(6, 6), entry(7, 5)}},
	} {
		if _, _, err := l.Log(1); !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
		if _, absent, err := l.Log(2); absent == "" || err != nil {
			t.Errorf("%s, another region: %q %v", what, absent, err)
		}
	}
	s := openStore(t, base.NewMem(fixtures.Mem(t, "multi3-lost2")), "/store0")
	defer s.Close()
	if _, _, err := BringTo(s, &raftlog.Batch{}, Reach{Region: 424242}); !errors.Is(err, base.ErrPlanMismatch) || base.Next(err) == "" {
		t.Error(err)
	}
	// A state in which data is not what the applied index says.
	for i := range s.Regions {
		if r := &s.Regions[i]; r.ID == 6 {
			r.State.State = raftstate.Applying
		}
	}
	var b raftlog.Batch
	got, ps, err := BringTo(s, &b, Reach{Region: 6, To: 201})
	if err != nil || got.To != got.From || len(ps) != 1 || !b.Empty() {
		t.Errorf("%+v %v %v", got, ps, err)
	} else if p, ok := ps[0].(*plan.TailStops); !ok || p.Reason != "the replica is Applying" {
		t.Errorf("%+v", ps[0])
	}
}
