package pd

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// cid is the cluster id of section 14, root its tree.
const (
	cid  = 7318912894203200260
	root = "/pd/7318912894203200260"
)

func be(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

func proto(t testing.TB, m interface{ Marshal() ([]byte, error) }) string {
	t.Helper()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// view makes a view of keys and values; revisions follow the order of the keys.
func view(kvs map[string]string) *etcd.View {
	v := &etcd.View{}
	for k, x := range kvs {
		v.Keys = append(v.Keys, etcd.KV{Key: []byte(k), Value: []byte(x), Version: 1})
	}
	slices.SortFunc(v.Keys, func(a, b etcd.KV) int { return strings.Compare(string(a.Key), string(b.Key)) })
	for i := range v.Keys {
		v.Keys[i].Create, v.Keys[i].Mod = int64(i+2), int64(i+2)
	}
	return v
}

// basic is a PD that was bootstrapped.
func basic(t testing.TB, more map[string]string) map[string]string {
	m := map[string]string{
		"/pd/cluster_id": be(cid),
		root + "/raft":   proto(t, &metapb.Cluster{Id: cid, MaxPeerCount: 3}),
		root + "/raft/status/raft_bootstrap_time":                   be(1704067200123456789),
		root + "/timestamp":                                         be(1704067200123456789),
		root + "/alloc_id":                                          be(5000),
		root + "/raft/s/00000000000000000004":                       proto(t, &metapb.Store{Id: 4, Address: "a:1", State: metapb.StoreState_Offline}),
		root + "/replication_mode/dr-auto-sync":                     `{"state":"sync","state_id":10}`,
		root + "/schedule/store_weight/00000000000000000004/leader": "2.5",
	}
	for k, v := range more {
		m[k] = v
	}
	return m
}

// Each encoding of sections 7 and 8, with the vectors of section 14: key, value, and what it says.
func TestKeyMap(t *testing.T) {
	text := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	safe := func(k *Knowledge) string {
		var out []string
		for _, x := range k.GC.All {
			out = append(out, x.TS.String())
		}
		return fmt.Sprintf("%s of %v", k.GC.SafePoint.TS, out)
	}
	service := func(k *Knowledge) string {
		s := k.GC.Services[0]
		ks := "-"
		if s.KeyspaceID != nil {
			ks = fmt.Sprint(*s.KeyspaceID)
		}
		return fmt.Sprintf("%s %s %s %s", s.ServiceID, ks, s.TS, s.Expires)
	}
	for _, c := range []struct {
		key, value string
		say        func(k *Knowledge) string
		want       string
	}{
		{"/pd/cluster_id", be(cid), func(k *Knowledge) string { return fmt.Sprint(k.ClusterID.Value, k.Recovered) }, "7318912894203200260"},
		{root + "/raft", proto(t, &metapb.Cluster{Id: cid, MaxPeerCount: 5}), func(k *Knowledge) string { return fmt.Sprint(k.Bootstrapped, k.MaxPeerCount) }, "true 5"},
		{root + "/raft/status/raft_bootstrap_time", be(1704067200123456789), func(k *Knowledge) string { return k.BootstrapTime }, "2024-01-01T00:00:00.123456789Z"},
		{root + "/raft/s/00000000000000000009", proto(t, &metapb.Store{Id: 9, State: metapb.StoreState_Tombstone, NodeState: metapb.NodeState_Serving, PhysicallyDestroyed: true,
			Labels: []*metapb.StoreLabel{{Key: "zone", Value: "w"}}}), func(k *Knowledge) string {
			s := k.Stores[1]
			return fmt.Sprintln(s.ID, s.State, s.NodeState, s.Destroyed, s.Labels)
		}, "9 Tombstone Removed true [{zone w}]"},
		{root + "/schedule/store_weight/00000000000000000004/region", "0.5", func(k *Knowledge) string {
			return fmt.Sprintln(k.Stores[0].NodeState, *k.Stores[0].LeaderWeight, *k.Stores[0].RegionWeight)
		}, "Removing 2.5 0.5"},
		{root + "/raft/r/00000000000000000002", proto(t, &metapb.Region{Id: 2}), func(k *Knowledge) string { return fmt.Sprint(k.EtcdRegions[0].ID) }, "2"},
		{root + "/raft/min_resolved_ts", "635c801c9d60000", func(k *Knowledge) string {
			return k.MinResolvedTS.TS.String() + " " + string(k.MinResolvedTS.Source.Certainty)
		}, "447483648000000000 committed"},
		{root + "/raft/external_timestamp", "635c801c9d60000", func(k *Knowledge) string { return k.ExternalTimestamp.TS.String() }, "447483648000000000"},
		{root + "/alloc_id", "\x00\x00\x00\x00\x00\x00\x13\x88", func(k *Knowledge) string { return fmt.Sprint(k.AllocID.Value, k.MaxID()) }, "5000 5000"},
		{root + "/timestamp", "\x17\xa6\x10\x17\x08\xc0\xcd\x15", func(k *Knowledge) string {
			floor, _ := k.TSOFloor()
			return fmt.Sprint(k.TSO.Window.TS, " ", k.TSO.Window.Time, " ", floor-k.TSO.Window.TS)
		}, "446710992109043712 2024-01-01T00:00:00.123Z 262144"},
		{root + "/lta/dc-1/timestamp", be(1704067209000000000), func(k *Knowledge) string { return k.TSO.Window.Time + " " + k.TSO.Exact.Time }, "2024-01-01T00:00:09.000Z 2024-01-01T00:00:00.123Z"},
		{"/ms/7318912894203200260/tso/00001/gta/timestamp", be(1704067209000000000), func(k *Knowledge) string {
			floor, from := k.TSOFloor()
			return fmt.Sprint(k.TSO.Window.Time, " ", floor.Time().Second(), " ", from.Key)
		}, "2024-01-01T00:00:00.123Z 9 /ms/7318912894203200260/tso/00001/gta/timestamp"},
		{root + "/member/12/leader_priority", "-3", func(k *Knowledge) string { return fmt.Sprint(k.Members[0].ID, *k.Members[0].Priority) }, "12 -3"},
		{root + "/config", `{"name":"","replication-mode":{"replication-mode":"dr-auto-sync","dr-auto-sync":{"label-key":"zone","dr":"w"}},"schedule":{},"cluster-version":"8.5.1"}`,
			func(k *Knowledge) string {
				return fmt.Sprint(k.DR.Mode, " ", k.DR.Settings.LabelKey, " ", len(k.Config))
			}, "dr-auto-sync zone 2"},
		{root + "/scheduler_config/x", `{"a":1}`, func(k *Knowledge) string { return string(k.Schedulers["x"]) }, `{"a":1}`},
		{root + "/rules/7064-64656661756c74", `{"group_id":"pd","id":"default","role":"voter","count":3}`, func(k *Knowledge) string { return fmt.Sprintln(k.Rules[0].ID, k.Rules[0].Count) }, "default 3"},
		{root + "/rule_group/g", `{"id":"g","index":3,"override":true}`, func(k *Knowledge) string { return text(k.RuleGroups) }, `[{"id":"g","index":3,"override":true}]`},
		{root + "/region_label/a/b", `{"id":"a/b","labels":[],"rule_type":"key-range"}`, func(k *Knowledge) string { return k.LabelRules[0].ID }, "a/b"},
		{root + "/replication_mode/dr-auto-sync", `{"state":"async","state_id":3005,"available_stores":[1,2,3]}`, func(k *Knowledge) string { return k.DR.Last.DRStatus.String() }, "async, state id 3005, in step: stores [1 2 3]"},
		{root + "/gc/safe_point", "635c801c9d60000", safe, "447483648000000000 of [447483648000000000]"},
		{"/tidb/store/gcworker/saved_safe_point", "447483648000000000", safe, "447483648000000000 of [447483648000000000]"},
		{"/keyspaces/tidb/3/tidb/store/gcworker/saved_safe_point", "7", safe, "7 of [7]"},
		{root + "/keyspaces/gc_safepoint/3/gc", "ff", safe, "255 of [255]"},
		{root + "/keyspaces/gc_safe_point/00000003", `{"keyspace_id":3,"safe_point":447483648000000001}`, safe, "447483648000000001 of [447483648000000001]"},
		{root + "/gc/safe_point/service/gc_worker", `{"service_id":"gc_worker","expired_at":9223372036854775807,"safe_point":447483648000000000}`, service, "gc_worker - 447483648000000000 never"},
		{root + "/keyspaces/gc_safepoint/3/service/br", `{"space_id":"3","service_id":"br","expired_at":1704067200,"safe_point":5}`, service, "br 3 5 2024-01-01T00:00:00Z"},
		{root + "/keyspaces/service_safe_point/00000003/br", `{"service_id":"br","expired_at":1704067200,"safe_point":5,"keyspace_id":3}`, service, "br 3 5 2024-01-01T00:00:00Z"},
		{root + "/gc/global_gc_barriers/b", `{"barrier_id":"b","barrier_ts":6}`, service, "b - 6 never"},
		{root + "/keyspaces/meta/00000002", proto(t, &keyspacepb.KeyspaceMeta{Id: 2, Name: "two", State: keyspacepb.KeyspaceState_ARCHIVED}), func(k *Knowledge) string {
			return fmt.Sprintln(k.Keyspaces[0].ID, k.Keyspaces[0].Name, k.Keyspaces[0].State)
		}, "2 two ARCHIVED"},
		{root + "/cluster/markers/snapshot-recovering", "on", func(k *Knowledge) string { return k.Markers[0] }, "snapshot-recovering"},
		{"resource_group/settings/a/b", "", func(k *Knowledge) string { return k.Named[0].What }, "resource control"},
		{"encryption_keys", "", func(k *Knowledge) string { return k.Named[0].What }, "data keys of an encrypted region-meta"},
		{"/tidb/cdc/x", "v", func(k *Knowledge) string { return fmt.Sprintln(k.Unknown[0].Key, k.Unknown[0].Bytes) }, "/tidb/cdc/x 1"},
		{root + "/raft/x", "v", func(k *Knowledge) string { return k.Unknown[0].Key }, root + "/raft/x"},
		{"/pd/77/alloc_id", be(1), func(k *Knowledge) string { return fmt.Sprint(k.OtherTrees, " ", k.Recovered) }, "[77] there are keys of other clusters: [77]"},
	} {
		k, err := decodeView("pd", view(basic(t, map[string]string{c.key: c.value})), Certain)
		if err != nil {
			t.Fatal(err)
		}
		k.safePoint()
		if len(k.Bad) > 0 {
			t.Errorf("%s: %v", c.key, k.Bad)
			continue
		}
		if got := strings.TrimSpace(c.say(k)); got != c.want {
			t.Errorf("%s: %s, want %s", c.key, got, c.want)
		}
	}
}

// A value that does not decode is named with its key and does not hide the others.
func TestBadValues(t *testing.T) {
	for key, value := range map[string]string{
		root + "/raft/s/00000000000000000009":   proto(t, &metapb.Store{Id: 8}),
		root + "/raft/s/x":                      "",
		root + "/raft":                          proto(t, &metapb.Cluster{Id: 1}),
		root + "/alloc_id":                      "5000",
		root + "/timestamp":                     "short",
		root + "/gc/safe_point":                 "xyz",
		root + "/config":                        "[",
		root + "/leader":                        "\xff",
		root + "/rules/1":                       "{",
		root + "/scheduler_config/x":            "{",
		root + "/replication_mode/dr-auto-sync": `{"state":"maybe"}`,
		root + "/schedule/store_weight/00000000000000000004/leader": "NaN",
		root + "/member/x/leader_priority":                          "1",
	} {
		k, err := decodeView("pd", view(basic(t, map[string]string{key: value})), Certain)
		if err != nil {
			t.Fatal(err)
		}
		if len(k.Bad) != 1 || !strings.HasPrefix(k.Bad[0], key+" (revision ") {
			t.Errorf("%s: %q", key, k.Bad)
		}
		if k.safePoint(); key == root+"/gc/safe_point" && k.GC.Known {
			t.Error("a safe point that does not decode counts as none")
		}
	}
	if _, err := decodeView("pd", view(map[string]string{"/pd/cluster_id": "abc"}), Certain); err == nil {
		t.Error("a cluster id of three bytes is accepted")
	}
}

// What the absence of a safe point means: a table that reads as a story.
func TestSafePointKnown(t *testing.T) {
	for what, c := range map[string]struct {
		change func(kvs map[string]string, v *etcd.View)
		known  bool
		reason string
	}{
		"GC never ran": {func(map[string]string, *etcd.View) {}, true, "GC has not run"},
		"pd-recover made it": {func(_ map[string]string, v *etcd.View) {
			v.Keys[slices.IndexFunc(v.Keys, func(k etcd.KV) bool { return string(k.Key) == clusterIDKey })].Version = 2
		}, false, "made by pd-recover"},
		"never bootstrapped": {func(_ map[string]string, v *etcd.View) {
			v.Keys = slices.DeleteFunc(v.Keys, func(k etcd.KV) bool { return string(k.Key) == root+"/raft" })
		}, false, "never bootstrapped"},
		"the log is damaged": {nil, false, "damaged"},
	} {
		kvs := basic(t, nil)
		v := view(kvs)
		if c.change != nil {
			c.change(kvs, v)
		}
		k, err := decodeView("pd", v, Certain)
		if err != nil {
			t.Fatal(err)
		}
		if c.change == nil {
			k.Etcd.Damage = []string{"x"}
		}
		k.safePoint()
		if k.GC.Known != c.known || !strings.Contains(k.GC.Reason, c.reason) || k.GC.SafePoint.TS != 0 {
			t.Errorf("%s: known %v, %s", what, k.GC.Known, k.GC.Reason)
		}
	}
}

// What only the log of this member has: what only grows counts, the rest is listed.
func TestPossible(t *testing.T) {
	certain := view(basic(t, map[string]string{root + "/gc/safe_point": "5", root + "/raft/min_resolved_ts": "7"}))
	possible := &etcd.View{Keys: slices.Clone(certain.Keys)}
	set := func(key, value string) {
		for i := range possible.Keys {
			if kv := &possible.Keys[i]; string(kv.Key) == key {
				kv.Value, kv.Mod, kv.Version = []byte(value), 100+int64(i), 2
				return
			}
		}
		t.Fatal(key)
	}
	set(root+"/timestamp", be(1704067203123456789))
	set(root+"/alloc_id", be(6000))
	set(root+"/gc/safe_point", "9")
	set(root+"/raft/min_resolved_ts", "8")
	set(root+"/replication_mode/dr-auto-sync", `{"state":"async_wait","state_id":11}`)
	k, err := decodeView("pd", certain, Certain)
	if err != nil {
		t.Fatal(err)
	}
	p, err := decodeView("pd", possible, Possible)
	if err != nil {
		t.Fatal(err)
	}
	k.Tail = tail(certain, possible)
	k.raise(p)
	k.safePoint()
	if k.TSO.Window.Time != "2024-01-01T00:00:03.123Z" || k.TSO.Window.Source.Certainty != Possible || k.TSO.Exact.Source.Certainty != Possible ||
		k.AllocID.Value != 6000 || k.AllocID.Source.Certainty != Possible || k.GC.SafePoint.TS != 9 || k.DR.Last.StateID != 11 || k.DR.Last.Source.Certainty != Possible {
		t.Errorf("%+v %+v %+v %+v", k.TSO, k.AllocID, k.GC, k.DR)
	}
	// A lower bound is taken from what is certain.
	if k.MinResolvedTS.TS != 7 || k.MinResolvedTS.Source.Certainty != Certain {
		t.Errorf("min-resolved-ts %+v", k.MinResolvedTS)
	}
	var got []string
	for _, c := range k.Tail {
		got = append(got, fmt.Sprintf("%s %s = %s", c.Change, strings.TrimPrefix(c.Key, root), c.Text))
	}
	want := []string{"put /alloc_id = 6000", "put /gc/safe_point = 9 = 1970-01-01T00:00:00.000Z", "put /raft/min_resolved_ts = 8 = 1970-01-01T00:00:00.000Z",
		"put /replication_mode/dr-auto-sync = async_wait, state id 11, in step: no store", "put /timestamp = 446710992895475712 = 2024-01-01T00:00:03.123Z"}
	if d := gocmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func FuzzDecode(f *testing.F) {
	for k, v := range basic(f, map[string]string{root + "/config": `{"schedule":{"a":1}}`, root + "/gc/safe_point/service/x": `{"expired_at":1}`,
		root + "/keyspaces/meta/00000002": "\x08\x02", root + "/leader": "\x0a\x02pd", "/ms/1/x": ""}) {
		f.Add(k, []byte(v))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		k, err := decodeView("pd", &etcd.View{Keys: []etcd.KV{{Key: []byte(key), Value: value, Version: 1, Mod: math.MaxInt64}}}, Certain)
		if err != nil {
			return
		}
		k.safePoint()
		k.state = &etcd.State{}
		if _, err := json.Marshal(k); err != nil {
			t.Error(err)
		}
	})
}

func FuzzDRStatus(f *testing.F) {
	f.Add([]byte(`{"state":"sync","state_id":1001}`))
	f.Add([]byte(`{"state":"sync_recover","state_id":60,"recover_start":"2026-11-21T04:57:04.587503702Z"}`))
	f.Add([]byte(`{"state":"async","state_id":3005,"available_stores":[1,2,3]}`))
	f.Add([]byte(`{"state":"as`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseDRStatus(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseDRStatus(again)
		if err != nil || gocmp.Diff(s.String(), back.String()) != "" {
			t.Errorf("%s: %v, %v", again, back, err)
		}
	})
}

func FuzzRevision(f *testing.F) {
	f.Add([]byte("\x0a\x0e/pd/cluster_id\x10\x05\x18\x05\x20\x01\x2a\x01x"))
	f.Add([]byte{0xff})
	f.Fuzz(func(_ *testing.T, b []byte) {
		if r, ok := parseRevision(b); ok && len(r.key)+len(r.value) > len(b) {
			panic("parts are longer than the record")
		}
	})
}

// Which min-resolved-ts is proven for one site alone: revisions of the replication states and of the values, in the order of etcd.
func TestConsistentTS(t *testing.T) {
	for _, c := range []struct {
		what     string
		mode     string
		history  []string // state@revision
		resolved []int64  // revisions; the value is ten times that
		want     uint64   // 0: none
		why      string
	}{
		{"no DR Auto-Sync", "majority", nil, []int64{5}, 50, "of the cluster"},
		{"never persisted", "dr-auto-sync", []string{"sync@2"}, nil, 0, "no min-resolved-ts"},
		{"in sync", "dr-auto-sync", []string{"sync@2"}, []int64{5}, 50, "needed both sites"},
		{"about to switch", "dr-auto-sync", []string{"sync@2", "async_wait@7"}, []int64{5, 8}, 80, "needed both sites"},
		{"async, nothing written since", "dr-auto-sync", []string{"sync@2", "async_wait@7", "async@9"}, []int64{5, 8}, 80, "revision 8) before the switch to async (revision 9)"},
		{"async, and it went on growing", "dr-auto-sync", []string{"sync@2", "async_wait@7", "async@9"}, []int64{5, 8, 10, 12}, 80, "before the switch"},
		{"the stores in step changed later", "dr-auto-sync", []string{"sync@2", "async@9", "async@11"}, []int64{5, 10, 12}, 50, "before the switch to async (revision 9)"},
		{"catching up", "dr-auto-sync", []string{"sync@2", "async@9", "sync_recover@11"}, []int64{5, 10, 12}, 50, "before the switch to async"},
		{"it has been in sync in between", "dr-auto-sync", []string{"sync@2", "async@4", "sync_recover@6", "sync@8", "async@11"}, []int64{5, 10, 12}, 100, "revision 11"},
		{"the older values are compacted", "dr-auto-sync", []string{"sync@2", "async@9"}, []int64{12}, 0, "left after the switch to async"},
		{"the older states are compacted", "dr-auto-sync", []string{"async@9"}, []int64{5, 12}, 0, "no record of the last sync"},
	} {
		k := &Knowledge{}
		k.DR.Mode = c.mode
		for _, h := range c.history {
			state, at, _ := strings.Cut(h, "@")
			var n int64
			if _, err := fmt.Sscan(at, &n); err != nil {
				t.Fatal(err)
			}
			r := DRRecord{DRStatus{State: state, StateID: uint64(n)}, Source{Revision: n, Certainty: Superseded}}
			k.DR.History = append(k.DR.History, r)
			k.DR.Last = &r
		}
		for _, n := range c.resolved {
			x := stamp(mvcc.TS(n*10), Source{Revision: n})
			k.resolved = append(k.resolved, x)
			k.MinResolvedTS = &x
		}
		got, why := k.ConsistentTS()
		if (got == nil) != (c.want == 0) || got != nil && uint64(got.TS) != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: %+v, %s; want %d", c.what, got, why, c.want)
		}
	}
	// The file knows of a switch that etcd here does not.
	k := &Knowledge{MinResolvedTS: &Timestamp{TS: 5}}
	k.DR.Mode, k.DR.History = "dr-auto-sync", []DRRecord{{DRStatus{State: DRSync, StateID: 2}, Source{Revision: 2}}}
	k.DR.add(DRRecord{DRStatus{State: DRAsync, StateID: 9}, Source{File: "DR_STATE", Certainty: Copied}})
	if got, why := k.ConsistentTS(); got != nil || !strings.Contains(why, "in a file only") {
		t.Errorf("%v, %s", got, why)
	}
}
