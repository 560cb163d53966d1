package pd

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pingcap/kvproto/pkg/keyspacepb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/pdpb"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// u64be is PD's number: exactly 8 bytes, big endian (tikv/pd pkg/utils/typeutil/conversion.go).
func u64be(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%d bytes, want 8", len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}

// textTS reads a timestamp that is text: hex without prefix, or decimal.
func textTS(b []byte, radix int) (mvcc.TS, error) {
	n, err := strconv.ParseUint(string(b), radix, 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is no timestamp", b)
	}
	return mvcc.TS(n), nil
}

// windowEnd is the first timestamp of the millisecond in which a window ends. PD stores nanoseconds since 1970.
func windowEnd(nanos uint64) mvcc.TS { return mvcc.TS(nanos/uint64(time.Millisecond)) << 18 }

func (d *decoder) cluster(kv etcd.KV, _ []string) error {
	var c metapb.Cluster
	if err := c.Unmarshal(kv.Value); err != nil {
		return err
	}
	d.k.Bootstrapped, d.k.MaxPeerCount = true, c.MaxPeerCount
	if c.Id != d.k.ClusterID.Value {
		return fmt.Errorf("it says cluster %d", c.Id)
	}
	return nil
}

func (d *decoder) bootstrap(kv etcd.KV, _ []string) error {
	n, err := u64be(kv.Value)
	if err == nil {
		d.k.BootstrapTime = formatTime(time.Unix(0, int64(n)))
	}
	return err
}

// idOf reads the %020d of a key.
func idOf(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no id", s)
	}
	return n, nil
}

// store decodes metapb.Store. On load PD forces the node state of Offline and Tombstone stores, so stored pairs can disagree.
func (d *decoder) store(kv etcd.KV, args []string) error {
	id, err := idOf(args[0])
	if err != nil {
		return err
	}
	var m metapb.Store
	if err := m.Unmarshal(kv.Value); err != nil {
		return err
	}
	if m.Id != id {
		return fmt.Errorf("it holds store %d", m.Id)
	}
	s := &Store{ID: id, Address: m.Address, State: m.State.String(), NodeState: m.NodeState.String(), Destroyed: m.PhysicallyDestroyed, Labels: []Label{},
		Version: m.Version, PeerAddress: m.PeerAddress, StatusAddress: m.StatusAddress, GitHash: m.GitHash, DeployPath: m.DeployPath,
		StartedAt: m.StartTimestamp, LastHeartbeat: m.LastHeartbeat, Source: d.source(kv)}
	switch m.State {
	case metapb.StoreState_Offline:
		s.NodeState = metapb.NodeState_Removing.String()
	case metapb.StoreState_Tombstone:
		s.NodeState = metapb.NodeState_Removed.String()
	}
	if m.StartTimestamp != 0 {
		s.StartTime = formatTime(time.Unix(m.StartTimestamp, 0))
	}
	if m.LastHeartbeat != 0 {
		s.HeartbeatTime = formatTime(time.Unix(0, m.LastHeartbeat))
	}
	for _, l := range m.Labels {
		s.Labels = append(s.Labels, Label{l.Key, l.Value})
	}
	d.stores[id] = s
	return nil
}

func (d *decoder) weight(kv etcd.KV, args []string) error {
	id, err := idOf(args[0])
	if err != nil {
		return err
	}
	f, err := strconv.ParseFloat(string(kv.Value), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Errorf("%.40q is no weight", kv.Value)
	}
	w := d.weights[id]
	switch args[1] {
	case "leader":
		w[0] = &f
	case "region":
		w[1] = &f
	default:
		return fmt.Errorf("there is no weight %q", args[1])
	}
	d.weights[id] = w
	return nil
}

func (d *decoder) region(kv etcd.KV, args []string) error {
	id, err := idOf(args[0])
	if err != nil {
		return err
	}
	r, err := raftstate.ParseRegion(kv.Value)
	if err != nil {
		return err
	}
	if r.ID != id {
		return fmt.Errorf("it holds region %d", r.ID)
	}
	d.k.EtcdRegions = append(d.k.EtcdRegions, r)
	return nil
}

func (d *decoder) minResolved(kv etcd.KV, _ []string) error {
	ts, err := textTS(kv.Value, 16)
	if err == nil {
		t := stamp(ts, d.source(kv))
		d.k.MinResolvedTS = &t
	}
	return err
}

func (d *decoder) external(kv etcd.KV, _ []string) error {
	ts, err := textTS(kv.Value, 16)
	if err == nil {
		t := stamp(ts, d.source(kv))
		d.k.ExternalTimestamp = &t
	}
	return err
}

func (d *decoder) allocID(kv etcd.KV, _ []string) error {
	n, err := u64be(kv.Value)
	if err == nil {
		d.k.AllocID = &Number{n, d.source(kv)}
	}
	return err
}

// timestamp is the end of a TSO window. PD up to 8.5 takes the largest of all keys below /pd/<id>/ that end with "timestamp" and have 8
// bytes; later ones read R/timestamp alone (section 11).
func (d *decoder) timestamp(kv etcd.KV, _ []string) error {
	n, err := u64be(kv.Value)
	if err != nil {
		return err
	}
	w := Window{n, stamp(windowEnd(n), d.source(kv))}
	d.k.TSO.All = append(d.k.TSO.All, w)
	if key := string(kv.Key); key == d.root+"/timestamp" {
		d.k.TSO.Exact = &w
	} else if !strings.HasPrefix(key, d.root+"/") {
		return nil
	}
	if d.k.TSO.Window == nil || n > d.k.TSO.Window.Nanos {
		d.k.TSO.Window = &w
	}
	return nil
}

func (d *decoder) leader(kv etcd.KV, _ []string) error {
	var m pdpb.Member
	if err := m.Unmarshal(kv.Value); err != nil {
		return err
	}
	d.k.Leader = &Member{ID: m.MemberId, Name: m.Name, DeployPath: m.DeployPath, BinaryVersion: m.BinaryVersion, GitHash: m.GitHash}
	return nil
}

func (d *decoder) member(kv etcd.KV, args []string) error {
	id, err := idOf(args[0])
	if err != nil {
		return err
	}
	m := d.priority[id]
	if m == nil {
		m = &Member{ID: id}
		d.priority[id] = m
	}
	text := string(kv.Value)
	switch args[1] {
	case "leader_priority":
		p, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%.40q is no priority", text)
		}
		m.Priority = &p
	case "deploy_path":
		m.DeployPath = text
	case "binary_version":
		m.BinaryVersion = text
	case "git_hash":
		m.GitHash = text
	default:
		d.k.Unknown = append(d.k.Unknown, KeyInfo{Key: string(kv.Key), Bytes: len(kv.Value), Revision: kv.Mod})
	}
	return nil
}

// configSections are the parts of the configuration that PD persists (tikv/pd server/config/persist_options.go); the other members of
// the object are zero values.
var configSections = []string{"schedule", "replication", "pd-server", "replication-mode", "label-property", "keyspace", "micro-service", "cluster-version", "store"}

func (d *decoder) config(kv etcd.KV, _ []string) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(kv.Value, &all); err != nil {
		return err
	}
	d.k.Config = map[string]json.RawMessage{}
	for _, name := range configSections {
		if v, ok := all[name]; ok && !slices.Contains([]string{"null", "{}", `""`}, string(v)) {
			d.k.Config[name] = v
		}
	}
	var mode struct {
		Mode string   `json:"replication-mode"`
		DR   DRLabels `json:"dr-auto-sync"`
	}
	if v, ok := d.k.Config["replication-mode"]; ok {
		if err := json.Unmarshal(v, &mode); err != nil {
			return fmt.Errorf("replication-mode: %w", err)
		}
	}
	d.k.DR.Mode, d.k.DR.Settings = mode.Mode, mode.DR
	return nil
}

func (d *decoder) scheduler(kv etcd.KV, args []string) error {
	if d.k.Schedulers == nil {
		d.k.Schedulers = map[string]json.RawMessage{}
	}
	if !json.Valid(kv.Value) {
		return errors.New("not JSON")
	}
	d.k.Schedulers[args[0]] = kv.Value
	return nil
}

func (d *decoder) placementRule(kv etcd.KV, _ []string) error {
	return appendJSON(&d.k.Rules, kv.Value)
}
func (d *decoder) ruleGroup(kv etcd.KV, _ []string) error {
	return appendJSON(&d.k.RuleGroups, kv.Value)
}
func (d *decoder) labelRule(kv etcd.KV, _ []string) error {
	return appendJSON(&d.k.LabelRules, kv.Value)
}

func appendJSON[T any](list *[]T, b []byte) error {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*list = append(*list, v)
	return nil
}

func (d *decoder) drStatus(kv etcd.KV, _ []string) error {
	s, err := ParseDRStatus(kv.Value)
	if err == nil {
		d.k.DR.add(DRRecord{s, d.source(kv)})
	}
	return err
}

func (d *decoder) safePoint(kv etcd.KV, ts mvcc.TS, err error) error {
	if err == nil {
		d.k.GC.All = append(d.k.GC.All, stamp(ts, d.source(kv)))
	}
	return err
}

func (d *decoder) hexSafePoint(kv etcd.KV, _ []string) error {
	ts, err := textTS(kv.Value, 16)
	return d.safePoint(kv, ts, err)
}

func (d *decoder) decimalSafePoint(kv etcd.KV, _ []string) error {
	ts, err := textTS(kv.Value, 10)
	return d.safePoint(kv, ts, err)
}

func (d *decoder) keyspaceSafePoint(kv etcd.KV, _ []string) error {
	var v struct {
		SafePoint uint64 `json:"safe_point"`
	}
	err := json.Unmarshal(kv.Value, &v)
	return d.safePoint(kv, mvcc.TS(v.SafePoint), err)
}

const never = math.MaxInt64

func (d *decoder) barrier(kv etcd.KV, id string, keyspace *uint32, expired int64, ts uint64) {
	s := ServiceSafePoint{ServiceID: id, KeyspaceID: keyspace, ExpiredAt: expired, Expires: "never", Timestamp: stamp(mvcc.TS(ts), d.source(kv))}
	if expired != 0 && expired != never {
		s.Expires = formatTime(time.Unix(expired, 0))
	}
	d.k.GC.Services = append(d.k.GC.Services, s)
}

// serviceSafePoint is JSON; 6.5 and 7.1 name the keyspace space_id, as text (section 8).
func (d *decoder) serviceSafePoint(kv etcd.KV, _ []string) error {
	var v struct {
		ServiceID  string  `json:"service_id"`
		ExpiredAt  int64   `json:"expired_at"`
		SafePoint  uint64  `json:"safe_point"`
		KeyspaceID *uint32 `json:"keyspace_id"`
		SpaceID    string  `json:"space_id"`
	}
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return err
	}
	if n, err := strconv.ParseUint(v.SpaceID, 10, 32); v.SpaceID != "" && err == nil {
		id := uint32(n)
		v.KeyspaceID = &id
	}
	d.barrier(kv, v.ServiceID, v.KeyspaceID, v.ExpiredAt, v.SafePoint)
	return nil
}

func (d *decoder) globalBarrier(kv etcd.KV, _ []string) error {
	var v struct {
		ID   string `json:"barrier_id"`
		TS   uint64 `json:"barrier_ts"`
		Time *int64 `json:"expiration_time"`
	}
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return err
	}
	if v.Time == nil {
		v.Time = new(int64)
	}
	d.barrier(kv, v.ID, nil, *v.Time, v.TS)
	return nil
}

func (d *decoder) keyspace(kv etcd.KV, _ []string) error {
	var m keyspacepb.KeyspaceMeta
	if err := m.Unmarshal(kv.Value); err != nil {
		return err
	}
	d.k.Keyspaces = append(d.k.Keyspaces, Keyspace{m.GetId(), m.Name, m.State.String(), m.CreatedAt, m.Config})
	return nil
}

func (d *decoder) marker(_ etcd.KV, args []string) error {
	d.k.Markers = append(d.k.Markers, args[0])
	return nil
}

// finish joins what came in pieces.
func (d *decoder) finish() {
	k := d.k
	for id, w := range d.weights {
		if s := d.stores[id]; s != nil {
			s.LeaderWeight, s.RegionWeight = w[0], w[1]
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.stores)) {
		k.Stores = append(k.Stores, *d.stores[id])
	}
	for _, id := range slices.Sorted(maps.Keys(d.priority)) {
		k.Members = append(k.Members, *d.priority[id])
	}
	if k.EtcdRegions == nil {
		k.EtcdRegions = []raftstate.Region{}
	}
	slices.SortStableFunc(k.GC.All, func(a, b Timestamp) int { return cmp.Compare(b.TS, a.TS) })
}
