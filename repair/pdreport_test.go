package repair

import (
	"encoding/hex"
	"encoding/json"
	"slices"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// apiRegions are the regions of PD's API.
type apiRegions struct {
	Regions []struct {
		ID    uint64          `json:"id"`
		Start string          `json:"start_key"`
		End   string          `json:"end_key"`
		Epoch raftstate.Epoch `json:"epoch"`
		Peers []struct {
			ID    uint64 `json:"id"`
			Store uint64 `json:"store_id"`
			Role  int    `json:"role"`
		} `json:"peers"`
	} `json:"regions"`
}

type apiStores struct {
	Stores []struct {
		Store struct {
			ID      uint64     `json:"id"`
			Address string     `json:"address"`
			Labels  []pd.Label `json:"labels"`
		} `json:"store"`
	} `json:"stores"`
}

// The report of the PD of every cluster says what that PD's own API had said just before it was stopped, and comes back from its line.
func TestPDReportAgainstAPI(t *testing.T) {
	for _, c := range []struct {
		name  string
		saved bool // the API's answers about replication and min-resolved-ts are there
		dr    string
	}{
		{"multi3-lost2", false, ""},
		{"multi3-merging-early", true, ""},
		{"multi3-merging-late", true, ""},
		{"multi4-dr-learner", true, ""},
		{"multi5-lost3", true, ""},
		{"multi3-dr-autosync", true, pd.DRSyncRecover},
	} {
		t.Run(c.name, func(t *testing.T) {
			read, err := scan.ReadPD(base.NewMem(fixtures.Mem(t, c.name, fixtures.WithPD())), []string{"/pd"})
			if err != nil {
				t.Fatal(err)
			}
			p := PDReport(read.Evidence, "t")
			var regions apiRegions
			decode(t, fixtures.File(t, c.name, "regions.json"), &regions)
			byID := map[uint64]raftstate.Region{}
			for _, r := range p.Regions {
				byID[r.ID] = r
			}
			if len(regions.Regions) == 0 || len(byID) != len(p.Regions) {
				t.Fatalf("%d regions in the API, %d in the report, %d ids", len(regions.Regions), len(p.Regions), len(byID))
			}
			for _, want := range regions.Regions {
				got, ok := byID[want.ID]
				switch {
				case !ok:
					t.Errorf("region %d is not in the report", want.ID)
				case got.Epoch != want.Epoch || !sameHex(got.StartKey, want.Start) || !sameHex(got.EndKey, want.End):
					t.Errorf("region %d: %+v, the API has %+v", want.ID, got, want)
				}
				for _, q := range want.Peers {
					if !slices.Contains(got.Peers, raftstate.Peer{ID: q.ID, StoreID: q.Store, Role: raftstate.PeerRole(q.Role)}) {
						t.Errorf("region %d: no peer %+v in %+v", want.ID, q, got.Peers)
					}
				}
			}
			var stores apiStores
			decode(t, fixtures.File(t, c.name, "stores.json"), &stores)
			if len(stores.Stores) != len(p.Stores) {
				t.Errorf("%d stores, the API has %d", len(p.Stores), len(stores.Stores))
			}
			for _, want := range stores.Stores {
				i := slices.IndexFunc(p.Stores, func(s plan.PDStore) bool { return s.ID == want.Store.ID })
				if i < 0 || p.Stores[i].Address != want.Store.Address || p.Stores[i].State != "Up" || p.Stores[i].TiFlash || len(p.Stores[i].Labels) != len(want.Store.Labels) {
					t.Errorf("store %d: %+v", want.Store.ID, p.Stores)
				}
				for _, l := range want.Store.Labels {
					if i >= 0 && p.Stores[i].Labels[l.Key] != l.Value {
						t.Errorf("store %d: label %s is %q", want.Store.ID, l.Key, p.Stores[i].Labels[l.Key])
					}
				}
			}
			facts := fixtures.Facts(t, c.name)
			if p.ClusterID != facts.ClusterID || p.AllocID != 1000 {
				t.Errorf("cluster %d, bound of ids %d", p.ClusterID, p.AllocID)
			}
			// Every commit's timestamp was handed out, so that the floor is above the last one; PD reserves a few seconds at a time.
			if end := mvcc.TS(facts.END); p.TSO <= end || p.TSO.Physical() > end.Physical()+60_000 || p.TSOSource == "" {
				t.Errorf("TSO floor %s (%s), the last commit %s", p.TSO, p.TSOSource, end)
			}
			if !p.GCNeverRan || p.SafePoint != 0 || p.SafePointUnsure {
				t.Errorf("safe point %s, unsure %v, never ran %v", p.SafePoint, p.SafePointUnsure, p.GCNeverRan)
			}
			if p.DRState != c.dr || p.ConsistentTS != p.MinResolvedTS || p.ConsistentWhy == "" {
				t.Errorf("DR %q, consistent at %s because %s, min-resolved-ts %s", p.DRState, p.ConsistentTS, p.ConsistentWhy, p.MinResolvedTS)
			}
			if c.saved {
				resolvedAgainstAPI(t, c.name, p)
			}
			line, err := plan.MarshalLine(p)
			if err != nil {
				t.Fatal(err)
			}
			var in plan.Input
			if err := in.Add(line); err != nil || len(in.PD) != 1 {
				t.Fatalf("%d reports, %v", len(in.PD), err)
			}
			if again, err := plan.MarshalLine(in.PD[0]); err != nil || string(again) != string(line) {
				t.Errorf("the line does not come back: %v", err)
			}
		})
	}
}

// resolvedAgainstAPI compares the state of DR Auto-Sync and min-resolved-ts. PD saves the latter once a second at most: what it saved may be older
// than what it answered.
func resolvedAgainstAPI(t *testing.T, name string, p *plan.PDReport) {
	t.Helper()
	var dr struct {
		Mode string `json:"mode"`
		DR   struct {
			State   string `json:"state"`
			StateID uint64 `json:"state_id"`
		} `json:"dr-auto-sync"`
	}
	decode(t, fixtures.File(t, name, "replication.json"), &dr)
	if dr.DR.State != p.DRState || dr.DR.StateID != p.DRStateID {
		t.Errorf("DR %s %d, the API has %+v", p.DRState, p.DRStateID, dr)
	}
	var resolved struct {
		TS mvcc.TS `json:"-"`
		N  uint64  `json:"min_resolved_ts"`
	}
	decode(t, fixtures.File(t, name, "min-resolved-ts.json"), &resolved)
	resolved.TS = mvcc.TS(resolved.N)
	if p.MinResolvedTS > resolved.TS || p.MinResolvedTS == 0 || resolved.TS.Physical()-p.MinResolvedTS.Physical() > 5_000 {
		t.Errorf("min-resolved-ts %s, the API has %s", p.MinResolvedTS, resolved.TS)
	}
}

func decode(t *testing.T, b []byte, to any) {
	t.Helper()
	if err := json.Unmarshal(b, to); err != nil {
		t.Fatal(err)
	}
}

func sameHex(key raftstate.Key, text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && slices.Equal(b, key)
}

// What a PD says of safe points and of DR Auto-Sync, as a planner gets it.
func TestPDReportWords(t *testing.T) {
	sp := func(ts mvcc.TS, known bool) *scan.PDEvidence {
		return &scan.PDEvidence{SafePoint: pd.Timestamp{TS: ts}, SafePointKnown: known, SafePointWhy: "why", ConsistentWhy: "none"}
	}
	for _, c := range []struct {
		what          string
		in            *scan.PDEvidence
		never, unsure bool
	}{
		{"there never was one", sp(0, true), true, false},
		{"there is one", sp(70, true), false, false},
		{"there is one, and a later one may be lost", sp(70, false), false, true},
		{"there is none, and it may be lost", sp(0, false), false, true},
	} {
		if p := PDReport(c.in, ""); p.GCNeverRan != c.never || p.SafePointUnsure != c.unsure || p.SafePoint != c.in.SafePoint.TS {
			t.Errorf("%s: %+v", c.what, p)
		}
	}
	dr := func(mode string, r *pd.DRRecord, reserve string) *plan.PDReport {
		return PDReport(&scan.PDEvidence{DRMode: mode, DR: r, Reserve: reserve}, "")
	}
	async := &pd.DRRecord{DRStatus: pd.DRStatus{State: pd.DRAsync, StateID: 9}}
	if p := dr(drAutoSync, async, "one of three"); p.DRState != pd.DRAsync || p.DRStateID != 9 || p.DRReserve != "one of three" {
		t.Errorf("%+v", p)
	}
	if on, off := dr(drAutoSync, nil, ""), dr("majority", async, ""); on.DRState != "unknown" || off.DRState != "" {
		t.Errorf("%q, %q", on.DRState, off.DRState)
	}
	flash := PDReport(&scan.PDEvidence{Stores: []scan.PDStore{{ID: 9, Labels: []pd.Label{{Key: "engine", Value: "tiflash"}}}, {ID: 2}}}, "")
	if flash.Stores[0].ID != 2 || flash.Stores[0].TiFlash || !flash.Stores[1].TiFlash {
		t.Errorf("%+v", flash.Stores)
	}
	// Two members know different parts of a region's history.
	two := PDReport(&scan.PDEvidence{Regions: []raftstate.Region{{ID: 4, Epoch: raftstate.Epoch{ConfVer: 3, Version: 9}}},
		HighestEpoch: map[uint64]raftstate.Epoch{4: {ConfVer: 7, Version: 9}}}, "")
	if two.Regions[0].Epoch != (raftstate.Epoch{ConfVer: 7, Version: 9}) {
		t.Errorf("%+v", two.Regions)
	}
}
