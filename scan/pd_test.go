package scan

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// What a replication state means for the stores that are left: a table that reads as a story.
func TestRecovery(t *testing.T) {
	one := pd.Timestamp{TS: 470610604671107073, Time: "2026-11-21T04:56:26.813Z"}
	for _, c := range []struct {
		what      string
		state     string
		certainty pd.Certainty
		majority  bool
		damage    bool
		resolved  bool
		verdict   string
		says      []string
		next      bool
	}{
		{"sync, all of PD is here", pd.DRSync, pd.Certain, true, false, true, PDWhole, []string{"a surviving site is complete"}, false},
		{"sync, on a member that was cut off", pd.DRSync, pd.Certain, false, false, true, PDUnknown, []string{"as long as this was the state", "at least as of state id 60", "1 of 3 voting members", "whatever came later"}, true},
		{"sync, in the file only", pd.DRSync, pd.Copied, true, false, true, PDUnknown, []string{"DR_STATE", "without fsync", "whatever came later"}, true},
		{"sync, not committed for sure", pd.DRSync, pd.Possible, true, false, true, PDUnknown, []string{"not known to be committed", "whatever came later"}, true},
		{"sync, and etcd is damaged", pd.DRSync, pd.Certain, true, true, true, PDUnknown, []string{"damaged", "whatever came later"}, true},
		{"about to switch", pd.DRAsyncWait, pd.Certain, true, false, true, PDConsistentAt, []string{"by design", "consistent only at min-resolved-ts = 470610604671107073"}, true},
		{"async", pd.DRAsync, pd.Certain, true, false, true, PDConsistentAt, []string{"may be on one site only", "2026-11-21T04:56:26.813Z", "1.001s before"}, true},
		{"catching up", pd.DRSyncRecover, pd.Certain, true, false, true, PDConsistentAt, []string{"never written to disk"}, true},
		{"async, and nothing was persisted", pd.DRAsync, pd.Certain, true, false, false, PDUnknown, []string{"no timestamp is proven to be whole on a surviving site alone: why"}, false},
	} {
		k := &pd.Knowledge{Dir: "pd"}
		if c.damage {
			k.Etcd.Damage = []string{"x"}
		}
		e := &PDEvidence{Dirs: []string{"pd"}, DRMode: "dr-auto-sync", Majority: c.majority, Given: 1, Voters: 3, TSOFloor: one.TS + 1001<<18,
			DR: &pd.DRRecord{DRStatus: pd.DRStatus{State: c.state, StateID: 60}, Source: pd.Source{Certainty: c.certainty}}}
		if c.resolved {
			e.ConsistentTS = &one
		}
		e.ConsistentWhy = "why"
		r := e.recovery(&PD{Members: []*pd.Knowledge{k}, Comparison: pd.Comparison{Newest: "pd"}})
		words := strings.Join(r.Words, "\n")
		if r.Verdict != c.verdict || (r.Next != "") != c.next || c.next && !strings.Contains(r.Next, "--to-ts min-resolved-ts --pd pd ") {
			t.Errorf("%s: %s, next %q", c.what, r.Verdict, r.Next)
		}
		for _, s := range c.says {
			if !strings.Contains(words, s) {
				t.Errorf("%s: no %q in\n%s", c.what, s, words)
			}
		}
	}
	off := (&PDEvidence{DRMode: "majority", DR: &pd.DRRecord{DRStatus: pd.DRStatus{State: pd.DRSync}}}).recovery(&PD{Members: []*pd.Knowledge{{}}})
	none := (&PDEvidence{}).recovery(nil)
	lost := (&PDEvidence{DRMode: "dr-auto-sync"}).recovery(nil)
	if off.Verdict != PDNoDR || none.Verdict != PDNoDR || lost.Verdict != PDUnknown {
		t.Errorf("%v, %v, %v", off, none, lost)
	}
}

// The evidence of a real PD: what a planner gets, and it survives JSON.
func TestEvidence(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "multi3-merging-late", fixtures.WithPD()))
	p, err := ReadPD(fs, []string{"/pd"})
	if err != nil {
		t.Fatal(err)
	}
	e := p.Evidence
	if e.ClusterID != fixtures.Facts(t, "multi3-merging-late").ClusterID || !e.Majority || e.AllocID.Value != 1000 || e.MaxID != 1000 || !e.SafePointKnown || e.DR != nil {
		t.Errorf("%+v", e)
	}
	if m := e.MissingStores([]uint64{4}); !slices.Equal(m, []uint64{1, 5}) {
		t.Errorf("missing %v", m)
	}
	// 13 live, 12 superseded, and the bootstrap region of etcd, which is one of them.
	ids := map[uint64]bool{}
	for _, r := range e.Regions {
		ids[r.ID] = true
		if h := e.HighestEpoch[r.ID]; h.Version < r.Epoch.Version || h.ConfVer < r.Epoch.ConfVer {
			t.Errorf("region %d: epoch %v, highest %v", r.ID, r.Epoch, h)
		}
	}
	if len(ids) != len(e.Regions) || len(ids) != len(e.HighestEpoch) || len(ids) < 25 {
		t.Errorf("%d regions, %d ids, %d epochs", len(e.Regions), len(ids), len(e.HighestEpoch))
	}
	var highest uint64
	for _, r := range e.Regions {
		highest = max(highest, r.Epoch.Version)
	}
	if e.HighestVersion(nil, nil) != highest {
		t.Errorf("highest version %d of all, want %d", e.HighestVersion(nil, nil), highest)
	}
	first := e.Regions[slices.IndexFunc(e.Regions, func(r raftstate.Region) bool { return len(r.EndKey) > 0 })]
	if v := e.HighestVersion(first.StartKey, first.EndKey); v < first.Epoch.Version || v > highest {
		t.Errorf("highest version %d of %v", v, first)
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back PDEvidence
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(b) {
		t.Errorf("JSON does not come back: %v", err)
	}
}

func TestPDOfTwoClusters(t *testing.T) {
	mem := fixtures.Mem(t, "multi3-merging-late", fixtures.WithPD())
	other := fixtures.Mem(t, "multi3-dr-autosync", fixtures.WithPD())
	fs := base.NewMem(mem)
	// The second PD moves in beside the first.
	for _, f := range []string{"member/snap/db", "member/wal/0000000000000000-0000000000000000.wal"} {
		b, err := base.ReadFile(base.NewMem(other), "/pd/"+f)
		if err != nil {
			t.Fatal(err)
		}
		if err := mem.MkdirAll(mem.PathDir("/pd2/"+f), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := base.WriteFileSync(fs, "/pd2/"+f, b, ""); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadPD(fs, []string{"/pd", "/pd2"}); !errors.Is(err, base.ErrUsage) || !strings.Contains(err.Error(), "of cluster") {
		t.Error(err)
	}
	a, err1 := ReadPDMember(fs, "/pd")
	b, err2 := ReadPDMember(fs, "/pd2")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	groups, err := GroupPD([]*PDMember{a, b})
	if err != nil || len(groups) != 2 || groups[1].Recovery.Verdict != PDConsistentAt || b.RegionMeta != nil {
		t.Errorf("%d groups, %v", len(groups), err)
	}
	if text := groups[1].Text(); !strings.Contains(text, "there is no region-meta") {
		t.Error(text)
	}
}
