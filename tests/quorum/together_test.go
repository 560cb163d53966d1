package quorum

import (
	"context"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// subset is one choice of surviving stores.
type subset struct {
	name     string
	survive  []string // directories
	failed   []uint64
	toTS     uint64
	original *vfs.MemFS
}

// subsets lists every choice of survivors of an archive, from one store to all but one.
func subsets(t testing.TB, name string) []subset {
	t.Helper()
	mem := fixtures.Mem(t, name)
	dirs := storeDirs(t, mem)
	ids := map[string]uint64{}
	for _, d := range dirs {
		ids[d] = open(t, mem, d).Ident.StoreID
	}
	var out []subset
	for mask := 1; mask < 1<<len(dirs)-1; mask++ {
		s := subset{original: mem}
		for i, d := range dirs {
			if mask>>i&1 == 1 {
				s.survive = append(s.survive, d)
			} else {
				s.failed = append(s.failed, ids[d])
			}
		}
		s.name = fmt.Sprintf("%s %v", name, s.survive)
		out = append(out, s)
	}
	return out
}

// copyOf copies the survivors alone.
func (s subset) copyOf(t testing.TB) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	for _, d := range s.survive {
		if ok, err := vfs.Clone(s.original, to, d, d); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	return to
}

func together(t testing.TB, fs base.FS, s subset, force ...string) (*repair.TogetherResult, error) {
	t.Helper()
	o := repair.TogetherOptions{Verb: "drop-peers", Now: now, Threads: 2, Version: "test",
		Plan: plan.Options{PlanID: "drop-peers-test", Tool: "test", Made: "2026-09-21T00:00:00Z", FailedStores: s.failed, Forced: force}}
	return repair.Together(context.Background(), fs, s.survive, scan.Options{}, o)
}

func TestTogetherTry(t *testing.T) {
	for _, name := range multi {
		for _, s := range subsets(t, name) {
			t.Run(s.name, func(t *testing.T) {
				res, err := together(t, base.NewMem(s.copyOf(t)), s, "empty-region")
				if err != nil {
					t.Error(err, base.Next(err))
				}
				if res != nil && res.Plan != nil {
					t.Logf("%s %+v", res.State, res.Plan.Summary)
					for _, p := range res.Plan.Problems {
						t.Logf("%s %s: %s", p.Name, p.Severity, p.What)
					}
				}
			})
		}
	}
}

func TestDebugOne(t *testing.T) {
	for _, s := range subsets(t, "multi4-dr-learner") {
		mem := s.copyOf(t)
		res, err := together(t, base.NewMem(mem), s, "empty-region")
		if err == nil {
			continue
		}
		t.Log(s.name, err)
		for _, st := range res.Plan.Stores {
			for _, a := range st.Actions {
				if a.RegionID == 32 {
					t.Logf("store %d: %+v apply %+v", st.StoreID, a, a.Apply)
				}
			}
		}
		for _, d := range s.survive {
			st := open(t, mem, d)
			infos, _ := st.RegionInfos(scan.RegionQuery{IDs: []uint64{32}})
			for _, i := range infos {
				t.Logf("%s %+v %s", d, i.Derived, i.Verdict.Text)
			}
			st = open(t, s.original, d)
			infos, _ = st.RegionInfos(scan.RegionQuery{IDs: []uint64{32}})
			for _, i := range infos {
				t.Logf("before %s %+v %s %+v", d, i.Derived, i.Verdict.Text, i.Local)
			}
		}
	}
}
