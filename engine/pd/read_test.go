package pd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	"github.com/tikv-repair/tikv-repair/tests/lockholder"
)

func TestMain(m *testing.M) { lockholder.Main(m) }

// A live PD is told from each of its locks, with its pid, and nothing of the directory changes.
func TestLive(t *testing.T) {
	dir := filepath.Join(fixtures.Dir(t, "multi3-dr-autosync", fixtures.WithPD()), "pd")
	for _, c := range []string{"flock member/snap/db", "flock region-meta/LOCK", "ofd member/wal/0000000000000000-0000000000000000.wal", "ofd member/wal/0.tmp"} {
		pid, stop := lockholder.Hold(t, dir, c)
		_, err := pd.Read(base.NewOS(), dir)
		if !errors.Is(err, base.ErrInUse) || !strings.Contains(err.Error(), fmt.Sprintf("process %d ", pid)) || !strings.Contains(base.Next(err), "pd-server") {
			t.Errorf("%s: %v, next %q", c, err, base.Next(err))
		}
		stop()
	}
	if _, err := pd.Read(base.NewOS(), dir); err != nil {
		t.Errorf("stopped: %v", err)
	}
}

var archives = []string{"multi3-dr-autosync", "multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi4-dr-learner", "multi5-lost3"}

// noAnswers are the archives without replication.json and min-resolved-ts.json.
var noAnswers = []string{"multi3-lost2"}

// What PD answered shortly before it was killed, field by field against its directory. Every field that may differ says why.
func TestAgainstPDsAnswers(t *testing.T) {
	for _, name := range archives {
		t.Run(name, func(t *testing.T) {
			k, err := pd.Read(base.NewMem(fixtures.Mem(t, name, fixtures.WithPD())), "/pd")
			if err != nil {
				t.Fatal(err)
			}
			for what, list := range map[string][]string{"damage": k.Etcd.Damage, "undecodable": k.Bad, "warnings": k.Warnings} {
				if len(list) > 0 {
					t.Errorf("%s: %q", what, list)
				}
			}
			if len(k.Unknown) > 0 || len(k.Tail) > 0 || k.RegionMetaError != "" || k.Recovered != "" {
				t.Errorf("unknown %v, tail %v, region-meta %q, recovered %q", k.Unknown, k.Tail, k.RegionMetaError, k.Recovered)
			}
			facts := fixtures.Facts(t, name)
			if k.ClusterID.Value != facts.ClusterID {
				t.Errorf("cluster id %d, want %d", k.ClusterID.Value, facts.ClusterID)
			}
			floor, _ := k.TSOFloor()
			if newest := mvcc.TS(facts.END); floor <= newest || floor.Physical() > newest.Physical()+120_000 {
				t.Errorf("TSO floor %s for a newest commit of %s", floor, newest)
			}
			if !k.GC.Known || k.GC.SafePoint.TS != 0 || k.GC.SafePoint.Source.Certainty != pd.Absent {
				t.Errorf("safe point %+v: there was no TiDB", k.GC)
			}
			if k.AllocID == nil || k.MaxID() != k.AllocID.Value {
				t.Errorf("bound of ids %v, largest %d", k.AllocID, k.MaxID())
			}
			sameStores(t, name, k)
			if !slices.Contains(noAnswers, name) {
				sameReplication(t, name, k)
				sameMinResolved(t, name, k)
			}
		})
	}
}

func sameStores(t *testing.T, name string, k *pd.Knowledge) {
	var doc struct {
		Stores []struct {
			Store struct {
				ID            uint64     `json:"id"`
				Address       string     `json:"address"`
				Labels        []pd.Label `json:"labels"`
				Version       string     `json:"version"`
				PeerAddress   string     `json:"peer_address"`
				StatusAddress string     `json:"status_address"`
				GitHash       string     `json:"git_hash"`
				StartedAt     int64      `json:"start_timestamp"`
				DeployPath    string     `json:"deploy_path"`
				LastHeartbeat int64      `json:"last_heartbeat"`
				NodeState     int        `json:"node_state"`
				StateName     string     `json:"state_name"`
			} `json:"store"`
		} `json:"stores"`
	}
	if err := json.Unmarshal(fixtures.File(t, name, "stores.json"), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Stores) != len(k.Stores) {
		t.Errorf("%d stores, PD answered %d", len(k.Stores), len(doc.Stores))
	}
	nodeStates := []string{"Preparing", "Serving", "Removing", "Removed"}
	for _, d := range doc.Stores {
		api := d.Store
		i := slices.IndexFunc(k.Stores, func(s pd.Store) bool { return s.ID == api.ID })
		if i < 0 {
			t.Errorf("store %d is not there", api.ID)
			continue
		}
		s := k.Stores[i]
		for _, f := range []struct {
			field     string
			api, disk any
		}{
			{"address", api.Address, s.Address},
			{"version", api.Version, s.Version},
			{"peer address", api.PeerAddress, s.PeerAddress},
			{"status address", api.StatusAddress, s.StatusAddress},
			{"git hash", api.GitHash, s.GitHash},
			{"deploy path", api.DeployPath, s.DeployPath},
			{"start", api.StartedAt, s.StartedAt},
			{"node state", nodeStates[api.NodeState], s.NodeState},
		} {
			if f.api != f.disk {
				t.Errorf("store %d: %s is %v, PD answered %v", s.ID, f.field, f.disk, f.api)
			}
		}
		if d := gocmp.Diff(append([]pd.Label{}, api.Labels...), s.Labels); d != "" {
			t.Errorf("store %d: labels %s", s.ID, d)
		}
		// Differs: PD's answer says Disconnected or Down by heartbeats, which are in memory only; on disk such a store is Up.
		if on := map[string]string{"Disconnected": "Up", "Down": "Up"}[api.StateName]; api.StateName != s.State && on != s.State {
			t.Errorf("store %d is %s, PD answered %s", s.ID, s.State, api.StateName)
		}
		// Differs: the record is written at registration, at a change, at the first heartbeat that a leader sees, and every 5 minutes.
		if late := api.LastHeartbeat - s.LastHeartbeat; late < 0 || late > 300e9 {
			t.Errorf("store %d: the heartbeat on disk is %d ns older than PD's answer", s.ID, late)
		}
	}
}

func sameReplication(t *testing.T, name string, k *pd.Knowledge) {
	var api struct {
		Mode string `json:"mode"`
		DR   struct {
			LabelKey string `json:"label_key"`
			State    string `json:"state"`
			StateID  uint64 `json:"state_id"`
		} `json:"dr-auto-sync"`
	}
	if err := json.Unmarshal(fixtures.File(t, name, "replication.json"), &api); err != nil {
		t.Fatal(err)
	}
	// Differs: total_regions of the answer is counted in memory.
	if k.DR.Mode != api.Mode {
		t.Errorf("mode %s, PD answered %s", k.DR.Mode, api.Mode)
	}
	if api.Mode != "dr-auto-sync" {
		if k.DR.Last != nil {
			t.Errorf("there is a state %v in mode %s", k.DR.Last, api.Mode)
		}
		return
	}
	if k.DR.Last == nil || k.DR.Last.State != api.DR.State || k.DR.Last.StateID != api.DR.StateID || k.DR.Settings.LabelKey != api.DR.LabelKey {
		t.Errorf("%+v, PD answered %+v", k.DR, api.DR)
	}
	var history []string
	for _, h := range k.DR.History {
		history = append(history, h.DRStatus.String()+": "+string(h.Source.Certainty))
	}
	want := []string{
		"sync, state id 10: superseded",
		"async_wait, state id 57, in step: stores [1 3]: superseded",
		"async_wait, state id 58, in step: no store: superseded",
		"async, state id 59, since 2026-11-21T04:56:58.087162083Z, in step: no store: superseded",
		"sync_recover, state id 60, since 2026-11-21T04:57:04.587503702Z: committed",
	}
	if d := gocmp.Diff(want, history); d != "" {
		t.Error(d)
	}
	// West was lost at revision 61, PD went to async at 67; what it knew before counts.
	if ts, why := k.ConsistentTS(); ts == nil || ts.TS != k.MinResolvedTS.TS || ts.Source.Revision != 64 || !strings.Contains(why, "(revision 64) before the switch to async (revision 67)") {
		t.Errorf("consistent at %+v: %s", ts, why)
	}
	// The file next to it is the same as the key.
	if n := len(k.DR.Records); n != 2 || k.DR.Records[1].Source.Certainty != pd.Copied || gocmp.Diff(k.DR.Records[0].DRStatus, k.DR.Records[1].DRStatus) != "" {
		t.Errorf("records %+v", k.DR.Records)
	}
}

func sameMinResolved(t *testing.T, name string, k *pd.Knowledge) {
	var api struct {
		TS uint64 `json:"min_resolved_ts"`
	}
	if err := json.Unmarshal(fixtures.File(t, name, "min-resolved-ts.json"), &api); err != nil {
		t.Fatal(err)
	}
	// stores_min_resolved_ts of the answer is in memory only: PD persists nothing of single stores.
	if k.MinResolvedTS == nil || k.MinResolvedTS.TS != mvcc.TS(api.TS) {
		t.Errorf("min-resolved-ts %+v, PD answered %d", k.MinResolvedTS, api.TS)
	}
}

// Damage beside etcd's files is told and hides nothing else.
func TestDamageBeside(t *testing.T) {
	for _, c := range []struct {
		file, content string
		told          func(k *pd.Knowledge) string
		want          string
	}{
		{"DR_STATE", "", func(k *pd.Knowledge) string { return strings.Join(k.Warnings, " ") }, "DR_STATE does not decode and is ignored"},
		{"DR_STATE", `{"state":"sync_rec`, func(k *pd.Knowledge) string { return strings.Join(k.Warnings, " ") }, "without fsync"},
		{"DR_STATE", `{"state":"sync","state_id":61}`, func(k *pd.Knowledge) string { return k.DR.Last.DRStatus.String() + " " + k.DR.Last.Source.String() }, "sync, state id 61 file /pd/DR_STATE, a copy"},
		{"region-meta/CURRENT", "x", func(k *pd.Knowledge) string { return k.RegionMetaError }, "not the name of a MANIFEST"},
		{"region-meta/000001.log", "", func(k *pd.Knowledge) string { return fmt.Sprint(len(k.RegionMeta.Records)) }, "0"},
		{"join", "pd=http://x", func(k *pd.Knowledge) string { return strings.Join(k.Warnings, " ") }, "file join"},
	} {
		fs := base.NewMem(fixtures.Mem(t, "multi3-dr-autosync", fixtures.WithPD()))
		if err := base.WriteFileSync(fs, "/pd/"+c.file, []byte(c.content), ""); err != nil {
			t.Fatal(err)
		}
		k, err := pd.Read(fs, "/pd")
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if !strings.Contains(c.told(k), c.want) || len(k.Stores) != 3 {
			t.Errorf("%s = %q: %s, want %s", c.file, c.content, c.told(k), c.want)
		}
	}
}

// What is no PD directory is told what it is.
func TestNotPD(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "multi3-dr-autosync", fixtures.WithPD()))
	for dir, want := range map[string]string{
		"/nowhere": "no such directory", "/store0": "TiKV data directory", "/pd/DR_STATE": "a file", "/pd/member": "part of a PD", "/pd/member/snap": "part of a PD",
		"/expect": "no member/",
	} {
		if _, err := pd.Read(fs, dir); !errors.Is(err, base.ErrNotStore) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
