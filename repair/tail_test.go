package repair

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Replicas of one region that were killed at different moments: when the log of the one that lags holds everything up to where another
// one stands, applying it must give the same data, record by record, in all three column families.
func TestAppliedTailEqualsTheReplicaThatIsAhead(t *testing.T) {
	compared, records := 0, int64(0)
	for _, name := range []string{"multi3-lost2", "multi5-lost3", "multi3-dr-autosync", "multi4-dr-learner", "multi3-merging-early", "multi3-merging-late"} {
		fs := base.NewMem(fixtures.Mem(t, name))
		dirs := fixtures.Stores(t, name)
		for _, lagging := range dirs {
			for _, ahead := range dirs {
				if lagging == ahead {
					continue
				}
				a, b := openStore(t, fs, lagging), openStore(t, fs, ahead)
				for _, r := range a.Regions {
					c, n := catchUp(t, fmt.Sprintf("%s%s after %s, region %d", name, lagging, ahead, r.ID), a, b, r)
					compared += c
					records += n
				}
				a.Close()
				b.Close()
			}
		}
	}
	t.Logf("%d replicas compared after %d records of their logs were applied", compared, records)
	if compared < 20 || records == 0 {
		t.Errorf("only %d comparisons with %d records: the fixtures should give more", compared, records)
	}
}

func openStore(t *testing.T, fs base.FS, dir string) *scan.Store {
	t.Helper()
	s, err := scan.Open(fs, dir, scan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func regionOf(s *scan.Store, id uint64) (scan.Region, bool) {
	for _, r := range s.Regions {
		if r.ID == id {
			return r, r.Live() && r.Apply != nil
		}
	}
	return scan.Region{}, false
}

// catchUp applies the tail of a's replica up to where b's stands and compares; 0 when there is nothing to catch up or the log ends before.
func catchUp(t *testing.T, what string, a, b *scan.Store, r scan.Region) (compared int, records int64) {
	t.Helper()
	other, ok := regionOf(b, r.ID)
	if !ok || !r.Live() || r.Apply == nil || other.State.Region.Epoch != r.State.Region.Epoch {
		return 0, 0
	}
	rp, _, err := planRegion(a, r, 0)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	goal := other.Apply.AppliedIndex
	if goal <= rp.derived.Applied || goal > rp.derived.Last {
		return 0, 0
	}
	done, err := applyTail(a, &rp, goal)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if done.Stopped != nil {
		t.Logf("%s: stopped at %d: %s", what, done.Stopped.Index, done.Stopped.Reason)
		return 0, 0
	}
	if rp.region.Apply.AppliedIndex != goal {
		t.Errorf("%s: applied index %d, want %d", what, rp.region.Apply.AppliedIndex, goal)
	}
	lower, upper := r.Bounds()
	for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
		if d := firstDifference(t, a, b, cf, lower, upper); d != "" {
			t.Errorf("%s, %d → %d, column family %s: %s", what, done.From, goal, cf, d)
		}
	}
	return 1, done.Records + done.Ranges
}

func firstDifference(t *testing.T, a, b *scan.Store, cf string, lower, upper []byte) string {
	t.Helper()
	va, err := a.DB.CF(cf).NewVisible(lower, upper, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer va.Close()
	vb, err := b.DB.CF(cf).NewVisible(lower, upper, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer vb.Close()
	oka, okb := va.First(), vb.First()
	for ; oka && okb; oka, okb = va.Next(), vb.Next() {
		if !bytes.Equal(va.User(), vb.User()) {
			return fmt.Sprintf("key %X against %X", va.User(), vb.User())
		}
		if !bytes.Equal(va.Value(), vb.Value()) {
			return fmt.Sprintf("key %X: value %X against %X", va.User(), va.Value(), vb.Value())
		}
	}
	if va.Err() != nil || vb.Err() != nil {
		t.Fatal(va.Err(), vb.Err())
	}
	switch {
	case oka:
		return fmt.Sprintf("key %X is too much", va.User())
	case okb:
		return fmt.Sprintf("key %X is missing", vb.User())
	}
	return ""
}
