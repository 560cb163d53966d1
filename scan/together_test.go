package scan_test

import (
	"strings"
	"testing"

	"github.com/pingcap/kvproto/pkg/raft_serverpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func together(r ...*scan.CheckResult) *scan.Together { return scan.CheckTogether(r, 0) }

func togetherText(t *scan.Together) string {
	return names(&scan.CheckResult{Findings: t.Findings}) + strings.Join(t.NotChecked, "\n")
}

// All stores of a cluster that were killed at one moment: lagging, merging, with lost peers. Their regions cover everything exactly once, and
// nothing contradicts.
func TestTogetherFixtures(t *testing.T) {
	for _, name := range fixtures.Names() {
		if unreadable[name] {
			continue
		}
		var all []*scan.CheckResult
		for _, dir := range fixtures.Stores(t, name) {
			all = append(all, check(t, base.NewMem(fixtures.Mem(t, name)), dir, true))
		}
		j := together(all...)
		if j.Worst() > plan.Info || len(j.NotChecked) > 0 {
			t.Errorf("%s:\n%s", name, togetherText(j))
		}
		t.Logf("%s: %s", name, togetherText(j))
	}
}

// Without some of the stores nothing that is shown contradicts either; the stores that are named and not shown are told.
func TestTogetherSomeStores(t *testing.T) {
	for _, name := range fixtures.Names() {
		if unreadable[name] || !strings.HasPrefix(name, "multi") {
			continue
		}
		var all []*scan.CheckResult
		for _, dir := range fixtures.Stores(t, name) {
			all = append(all, check(t, base.NewMem(fixtures.Mem(t, name)), dir, true))
		}
		for some := 1; some < 1<<len(all)-1; some++ {
			var these []*scan.CheckResult
			for i, r := range all {
				if some>>i&1 == 1 {
					these = append(these, r)
				}
			}
			if j := together(these...); j.Worst() > plan.Warning {
				t.Errorf("%s, stores %b:\n%s", name, some, togetherText(j))
			}
		}
	}
}

// cluster is the three stores of one fixture, each of which a test changes.
type cluster struct {
	*patient
	dirs []string
}

func admitCluster(t *testing.T, fixture string) *cluster {
	return &cluster{admit(t, fixture), fixtures.Stores(t, fixture)}
}

// on lets a test change one store.
func (c *cluster) on(store int, hurt func(p *patient)) {
	c.dir = c.dirs[store]
	hurt(c.patient)
}

func (c *cluster) everywhere(hurt func(p *patient)) {
	for i := range c.dirs {
		c.on(i, hurt)
	}
}

func lose(id uint64) func(p *patient) {
	return func(p *patient) { p.region(id, func(*scan.Region) []byte { return nil }) }
}

func changed(id uint64, change func(s *raft_serverpb.RegionLocalState)) func(p *patient) {
	return func(p *patient) {
		p.region(id, func(r *scan.Region) []byte { return state(p.t, r, change) })
	}
}

// Each contradiction between the stores of a cluster gives exactly its finding. In multi3-lost2 region 8 lies between regions 6 and 24.
func TestTogetherFinds(t *testing.T) {
	widen := func(version uint64) func(s *raft_serverpb.RegionLocalState) {
		return func(s *raft_serverpb.RegionLocalState) {
			s.Region.EndKey = append(s.Region.EndKey[:len(s.Region.EndKey):len(s.Region.EndKey)], 1)
			s.Region.RegionEpoch.Version += version
		}
	}
	merged := func(s *raft_serverpb.RegionLocalState) {
		s.State = raft_serverpb.PeerState_Tombstone
		s.MergeState = &raft_serverpb.MergeState{MinIndex: 7, Commit: 8}
		s.Region.RegionEpoch.Version++
	}
	removed := func(s *raft_serverpb.RegionLocalState) { s.State = raft_serverpb.PeerState_Tombstone }
	for _, c := range []struct {
		name   string
		hurt   func(c *cluster)
		failed int // directories that could not be looked at
		want   string
		words  string
	}{
		{"nothing", func(*cluster) {}, 0, "", ""},
		{"a region is lost on one store: others have it", func(c *cluster) { c.on(0, lose(8)) }, 0, "", ""},
		{"a region is lost on two of three", func(c *cluster) { c.on(0, lose(8)); c.on(1, lose(8)) }, 0, "", ""},
		{"a region is lost on all", func(c *cluster) { c.everywhere(lose(8)) }, 0, "error cluster-gap", "the gap is between regions 6 and 24"},
		{"a region is a tombstone on all", func(c *cluster) { c.everywhere(changed(8, removed)) }, 0, "error cluster-gap", "the gap is between regions 6 and 24"},
		{"a region is lost on all that could be looked at", func(c *cluster) { c.everywhere(lose(8)) }, 1, "warning cluster-gap", "a store that was not looked at may hold them"},
		{"one store has merged a region, the target is as it was", func(c *cluster) { c.on(0, changed(8, merged)) }, 0, "error cluster-gap", "between regions 6 and 24"},
		{"a store lags behind a split: its older, wider region does not count", func(c *cluster) {
			c.on(1, changed(8, func(s *raft_serverpb.RegionLocalState) { widen(0)(s); s.Region.RegionEpoch.Version-- }))
		}, 0, "", ""},
		{"a region reaches into an older one", func(c *cluster) { c.on(0, changed(8, widen(100))) }, 0, "warning cluster-overlap", "lags behind a split or a merge"},
		{"a region reaches into one of the same version", func(c *cluster) {
			c.everywhere(changed(8, func(s *raft_serverpb.RegionLocalState) { widen(0)(s); s.Region.RegionEpoch.Version = 1000 }))
			c.everywhere(changed(24, func(s *raft_serverpb.RegionLocalState) { s.Region.RegionEpoch.Version = 1000 }))
		}, 0, "error cluster-overlap", "neither is older than the other"},
		{"two stores have different ranges for one epoch", func(c *cluster) { c.on(1, changed(8, widen(0))) }, 0, "error region-disagree", "its range differs"},
		{"two stores have different peers for one epoch", func(c *cluster) {
			c.on(1, changed(8, func(s *raft_serverpb.RegionLocalState) { s.Region.Peers[0].Id += 1000 }))
		}, 0, "error region-disagree", "its peers differ"},
		{"two stores list the same peers in another order", func(c *cluster) {
			c.on(1, changed(8, func(s *raft_serverpb.RegionLocalState) {
				s.Region.Peers[0], s.Region.Peers[1] = s.Region.Peers[1], s.Region.Peers[0]
			}))
		}, 0, "", ""},
		{"a directory is given twice", func(c *cluster) { c.dirs = append(c.dirs, c.dirs[0]) }, 0, "error store-twice", "/store0, /store0"},
		{"a store is not given", func(c *cluster) { c.dirs = c.dirs[1:] }, 0, "info store-absent", "and no directory shows what is on it"},
		{"a region state does not decode", func(c *cluster) {
			c.on(0, func(p *patient) { p.region(8, func(*scan.Region) []byte { return []byte{0xFF} }) })
		}, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := admitCluster(t, "multi3-lost2")
			c.hurt(cl)
			var all []*scan.CheckResult
			for _, dir := range cl.dirs {
				r, err := scan.Check(t.Context(), cl.base(), dir, scan.CheckOptions{Quick: true, Joined: true})
				cl.must(err)
				all = append(all, r)
			}
			j := scan.CheckTogether(all, c.failed)
			var got []string
			for _, f := range j.Findings {
				got = append(got, f.Severity().String()+" "+f.Name())
			}
			if strings.Join(got, ", ") != c.want || c.want != "" && !strings.Contains(j.Findings[0].What(), c.words) {
				t.Errorf("got %v, want %q with %q\n%s", got, c.want, c.words, togetherText(j))
			}
		})
	}
}

// Stores of two clusters are told apart, and each cluster is looked at for itself: together with others, a gap on the only store of one is
// found there.
func TestTogetherClusters(t *testing.T) {
	lone := admit(t, "single-default")
	lone.region(8, func(*scan.Region) []byte { return nil })
	r, err := scan.Check(t.Context(), lone.base(), lone.dir, scan.CheckOptions{Quick: true, Joined: true})
	lone.must(err)
	if found(r) != "region-leftover" {
		t.Errorf("alone: %s", names(r))
	}
	other := check(t, base.NewMem(fixtures.Mem(t, "single-levels")), "/data", true)
	j := together(r, other)
	if got := found(&scan.CheckResult{Findings: j.Findings}); got != "cluster-gap cluster-mix" || !strings.Contains(togetherText(j), "2 clusters") {
		t.Errorf("%s", togetherText(j))
	}
	// A directory that does not say which store it is may hold anything.
	nobody := admit(t, "single-raftdb")
	nobody.commit(op{cf: scan.CFDefault, key: raftstate.StoreIdentKey()})
	j = together(r, check(t, nobody.base(), nobody.dir, true))
	if got := found(&scan.CheckResult{Findings: j.Findings}); got != "cluster-gap" || j.Worst() != plan.Warning || len(j.NotChecked) != 1 {
		t.Errorf("%s", togetherText(j))
	}
}

// However many regions contradict, the findings are bounded: here every region reaches to the end of the key space.
func TestTogetherBounds(t *testing.T) {
	cl := admitCluster(t, "multi3-merging-early")
	cl.everywhere(func(p *patient) {
		var ops []op
		p.look(func(s *scan.Store) {
			for i := range s.Regions {
				if r := &s.Regions[i]; r.Live() {
					ops = append(ops, op{scan.CFRaft, raftstate.RegionStateKey(r.ID), state(t, r, func(s *raft_serverpb.RegionLocalState) { s.Region.EndKey = nil })})
				}
			}
		})
		p.commit(ops...)
	})
	var all []*scan.CheckResult
	for _, dir := range cl.dirs {
		all = append(all, check(t, cl.base(), dir, true))
	}
	j := together(all...)
	kept := 0
	for _, f := range j.Findings {
		if f.Name() == "cluster-overlap" {
			kept++
		}
	}
	if kept != 200 || j.More["cluster-overlap"] < 100 {
		t.Errorf("%d findings, more %v", kept, j.More)
	}
}
