package etcd

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// pdFixtures are the archives with a PD directory.
var pdFixtures = []string{"multi3-dr-autosync", "multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi4-dr-learner", "multi5-lost3"}

func TestFixturesOpen(t *testing.T) {
	if testing.Short() {
		t.Skip("unpacks 145 MB of zeros for each")
	}
	for _, name := range pdFixtures {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixtures.Dir(t, name, fixtures.WithPD()), "pd")
			s, err := Open(base.NewOS(), filepath.Join(dir, "member"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(s.Damage) != 0 {
				t.Errorf("damage %v", s.Damage)
			}
			id, ok := s.Certain.Get("/pd/cluster_id")
			if !ok || len(id.Value) != 8 {
				t.Errorf("cluster id %X", id.Value)
			}
			stores := 0
			for _, kv := range s.Certain.Prefix("/pd/") {
				if strings.Contains(string(kv.Key), "/raft/s/") {
					stores++
				}
			}
			if want := len(fixtures.Stores(t, name)); stores != want {
				t.Errorf("%d stores, want %d", stores, want)
			}
			r, err := s.CheckReplay(base.NewOS())
			if err != nil || r.Index != s.ConsistentIndex || len(r.Differences) != 0 {
				t.Errorf("replay %+v, %v", r, err)
			}
			t.Logf("%v last %d commit %d members %v", s.Notes, s.LastIndex, s.Commit, s.Possible.Members)
			t.Logf("%d keys, revision %d, consistent index %d", len(s.Certain.Keys), s.Certain.Revision, s.ConsistentIndex)
		})
	}
}
