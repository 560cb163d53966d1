package scan_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// The maxima of every store are at least what tikv-ctl and the client's history say, and below what PD has reserved: its bound of ids and the
// end of its TSO window.
func TestMaxima(t *testing.T) {
	for _, name := range readable() {
		if !strings.HasPrefix(name, "multi") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name, fixtures.WithPD()))
			k, err := pd.Read(fs, "/pd")
			if err != nil {
				t.Fatal(err)
			}
			floor, _ := k.TSOFloor()
			var newest mvcc.TS
			for _, dir := range fixtures.Stores(t, name) {
				s, err := scan.Open(fs, dir, scan.Options{})
				if err != nil {
					t.Fatal(err)
				}
				m, err := s.Maxima()
				if err != nil {
					t.Fatal(err)
				}
				want := ctlMaxID(t, name, dir)
				if m.ID < want || m.ID >= k.AllocID.Value || m.TS >= floor || m.IDWhere == "" || (m.TSWhere == "") != (m.TS == 0) {
					t.Errorf("%s: %+v; tikv-ctl knows id %d, PD's bounds are %d and %s", dir, m, want, k.AllocID.Value, floor)
				}
				newest = max(newest, m.TS)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: id %d (%s), ts %s (%s)", dir, m.ID, m.IDWhere, m.TS, m.TSWhere)
			}
			if last := lastCommit(t, name); newest < last {
				t.Errorf("largest timestamp %s, the client committed at %s", newest, last)
			}
		})
	}
}

// ctlMaxID is the largest id of a region, peer or store that tikv-ctl printed for a store.
func ctlMaxID(t *testing.T, name, dir string) uint64 {
	t.Helper()
	var doc struct {
		Regions map[string]struct {
			State struct {
				Region struct {
					ID    uint64 `json:"id"`
					Peers []struct {
						ID    uint64 `json:"id"`
						Store uint64 `json:"store_id"`
					} `json:"peers"`
				} `json:"region"`
			} `json:"region_local_state"`
		} `json:"region_infos"`
	}
	if err := json.Unmarshal(fixtures.File(t, name, "tikv-ctl-regions-"+strings.TrimPrefix(dir, "/")+".json"), &doc); err != nil {
		t.Fatal(err)
	}
	var most uint64
	for _, r := range doc.Regions {
		most = max(most, r.State.Region.ID)
		for _, p := range r.State.Region.Peers {
			most = max(most, p.ID, p.Store)
		}
	}
	if most == 0 {
		t.Fatalf("%s%s: no region", name, dir)
	}
	return most
}

// lastCommit is the newest commit that a client of the fixture saw acknowledged.
func lastCommit(t *testing.T, name string) mvcc.TS {
	t.Helper()
	var last uint64
	for line := range strings.Lines(string(fixtures.File(t, name, "history.tsv"))) {
		field, _, _ := strings.Cut(line, "\t")
		ts, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		last = max(last, ts)
	}
	return mvcc.TS(last)
}
