package pd

import (
	"encoding/json"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/engine/pd/regionmeta"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Number is an id or a counter with its source.
type Number struct {
	Value  uint64 `json:"value"`
	Source Source `json:"source"`
}

// Timestamp is a TSO with its source. Its JSON has the decimal string and the time.
type Timestamp struct {
	TS     mvcc.TS `json:"ts"`
	Time   string  `json:"time"` // RFC 3339; empty for 0
	Source Source  `json:"source"`
}

func stamp(ts mvcc.TS, s Source) Timestamp { return Timestamp{ts, timeText(ts), s} }

func timeText(ts mvcc.TS) string {
	if ts == 0 {
		return ""
	}
	return ts.Time().Format("2006-01-02T15:04:05.000Z07:00")
}

// Knowledge is what one PD directory says. Fields of keys that do not exist are empty: section 7 lists those that are absent until
// they are first used.
type Knowledge struct {
	Dir string `json:"dir"`
	// ClusterID decides which of the /pd/<id>/ trees counts.
	ClusterID Number `json:"cluster_id"`
	// OtherTrees are cluster ids of other /pd/<id>/ trees: what is left of a PD before pd-recover.
	OtherTrees []uint64 `json:"other_cluster_ids,omitempty"`
	// Recovered says why this PD was made by pd-recover; empty when nothing hints at it. What the lost PD knew, safe points
	// included, is not in it then.
	Recovered string `json:"recovered,omitempty"`

	Etcd    Etcd     `json:"etcd"`
	Leader  *Member  `json:"leader,omitempty"`
	Members []Member `json:"members"`

	Bootstrapped  bool   `json:"bootstrapped"`
	BootstrapTime string `json:"bootstrap_time,omitempty"`
	MaxPeerCount  uint32 `json:"max_peer_count,omitempty"`

	Stores []Store `json:"stores"`
	// EtcdRegions are descriptors in etcd: the bootstrap region with its first epoch, unless use-region-storage is off.
	EtcdRegions []raftstate.Region `json:"etcd_regions"`
	// RegionMeta is nil when there is no such directory, or it cannot be read: RegionMetaError says why then.
	RegionMeta      *regionmeta.Meta    `json:"region_meta,omitempty"`
	Tilings         []regionmeta.Tiling `json:"-"`
	RegionMetaError string              `json:"region_meta_error,omitempty"`

	TSO               TSO        `json:"tso"`
	AllocID           *Number    `json:"alloc_id,omitempty"`
	GC                GC         `json:"gc"`
	MinResolvedTS     *Timestamp `json:"min_resolved_ts,omitempty"`
	ExternalTimestamp *Timestamp `json:"external_timestamp,omitempty"`
	DR                DR         `json:"replication_mode"`

	Rules      []Rule      `json:"placement_rules"`
	RuleGroups []RuleGroup `json:"rule_groups"`
	LabelRules []LabelRule `json:"region_label_rules"`
	Keyspaces  []Keyspace  `json:"keyspaces"`
	// Schedulers are the persisted configurations by name; Config the persisted sections of PD's configuration, those that have
	// values. They override the configuration file at the next start.
	Schedulers map[string]json.RawMessage `json:"schedulers"`
	Config     map[string]json.RawMessage `json:"config"`
	// Markers are the names below cluster/markers. With snapshot-recovering, TiKV starts in snapshot-recovery mode.
	Markers []string `json:"markers"`

	// Named are keys whose purpose is known and whose value does not matter here; Unknown the others. Bad are keys whose value does not
	// decode, in sentences.
	Named   []KeyInfo `json:"other_keys"`
	Unknown []KeyInfo `json:"unknown_keys"`
	Bad     []string  `json:"undecodable_keys"`
	// Tail is what would change if all of this member's log was committed.
	Tail []Change `json:"possible_changes"`
	// Warnings are sentences for the operator.
	Warnings []string `json:"warnings"`

	state *etcd.State
	// resolved are the values of min-resolved-ts that the backend still holds, by revision; with DR Auto-Sync only.
	resolved []Timestamp
}

// Etcd is the state of the embedded etcd.
type Etcd struct {
	Line            string       `json:"line"` // cluster version, which tells 3.4 from 3.5; empty: unknown
	Backend         string       `json:"backend"`
	Snapshot        string       `json:"snapshot,omitempty"`
	MemberID        uint64       `json:"member_id"`
	ClusterID       uint64       `json:"cluster_id"` // etcd's, not PD's
	ConsistentIndex uint64       `json:"consistent_index"`
	HardCommit      uint64       `json:"hard_state_commit"`
	Commit          uint64       `json:"commit"`
	LastIndex       uint64       `json:"last_index"`
	LastTerm        uint64       `json:"last_term"`
	Revision        int64        `json:"revision"`
	Members         []EtcdMember `json:"members"`
	Damage          []string     `json:"damage"`
	Notes           []string     `json:"notes"`
}

// EtcdMember is a member of the etcd cluster.
type EtcdMember struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peer_urls"`
	ClientURLs []string `json:"client_urls,omitempty"`
	Learner    bool     `json:"is_learner,omitempty"`
}

// Member is what PD keeps of one of its servers: pdpb.Member for the leader, keys below member/<id>/ for the others.
type Member struct {
	ID            uint64 `json:"member_id"`
	Name          string `json:"name,omitempty"`
	Priority      *int   `json:"leader_priority,omitempty"`
	DeployPath    string `json:"deploy_path,omitempty"`
	BinaryVersion string `json:"binary_version,omitempty"`
	GitHash       string `json:"git_hash,omitempty"`
}

// Label of a store.
type Label struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Store is metapb.Store with its weights. State wins over NodeState where they disagree. LastHeartbeat is written at most every five
// minutes: a store that died long before looks Up.
type Store struct {
	ID            uint64   `json:"id"`
	Address       string   `json:"address"`
	State         string   `json:"state"`      // Up, Offline, Tombstone
	NodeState     string   `json:"node_state"` // Preparing, Serving, Removing, Removed
	Destroyed     bool     `json:"physically_destroyed,omitempty"`
	Labels        []Label  `json:"labels"`
	Version       string   `json:"version"`
	PeerAddress   string   `json:"peer_address,omitempty"`
	StatusAddress string   `json:"status_address,omitempty"`
	GitHash       string   `json:"git_hash,omitempty"`
	DeployPath    string   `json:"deploy_path,omitempty"`
	StartTime     string   `json:"start_time,omitempty"`
	StartedAt     int64    `json:"start_timestamp,omitempty"` // unix seconds
	HeartbeatTime string   `json:"last_heartbeat_time,omitempty"`
	LastHeartbeat int64    `json:"last_heartbeat,omitempty"` // unix nanoseconds
	LeaderWeight  *float64 `json:"leader_weight,omitempty"`
	RegionWeight  *float64 `json:"region_weight,omitempty"`
	Source        Source   `json:"source"`
}

// TSO is the window of timestamps that PD has reserved: every timestamp that it ever gave out is below the end of its window
// (section 11).
type TSO struct {
	// Window is the largest end of a window, by the rule of PD up to 8.5, which looks at every key below /pd/<id>/ that ends with
	// "timestamp"; nil when there is none. Exact is that of R/timestamp alone, the rule of later ones.
	Window *Window `json:"window,omitempty"`
	Exact  *Window `json:"exact_key,omitempty"`
	// All are the windows of all such keys, those of separate TSO services (/ms/) included.
	All []Window `json:"all"`
}

// Window is the end of one TSO window: nanoseconds since 1970, and the first timestamp of that millisecond.
type Window struct {
	Nanos uint64 `json:"unix_nanos"`
	Timestamp
}

// ServiceSafePoint is a claim of a service (GC barrier) on versions: GC does not go past it until it expires.
type ServiceSafePoint struct {
	ServiceID  string  `json:"service_id"`
	KeyspaceID *uint32 `json:"keyspace_id,omitempty"`
	ExpiredAt  int64   `json:"expired_at"` // unix seconds; 0 and the maximum: never
	Expires    string  `json:"expires"`    // the same as a time; "never"
	Timestamp
}

// GC holds up to where old versions may be gone.
type GC struct {
	// SafePoint is the highest of all safe points that GC may have used: a rewind must not go below it. Known is false when there is
	// none and that proves nothing: Reason says why.
	SafePoint Timestamp `json:"safe_point"`
	Known     bool      `json:"known"`
	Reason    string    `json:"reason"`
	// All are the safe points by key: PD's, those of keyspaces, the ones that TiDB's gc worker saved.
	All      []Timestamp        `json:"all"`
	Services []ServiceSafePoint `json:"service_safe_points"`
}

// Rule is a placement rule; the ranges are hex, as PD writes them.
type Rule struct {
	GroupID          string          `json:"group_id"`
	ID               string          `json:"id"`
	Index            int             `json:"index,omitempty"`
	Override         bool            `json:"override,omitempty"`
	StartKey         string          `json:"start_key"`
	EndKey           string          `json:"end_key"`
	Role             string          `json:"role"`
	IsWitness        bool            `json:"is_witness"`
	Count            int             `json:"count"`
	LabelConstraints json.RawMessage `json:"label_constraints,omitempty"`
	LocationLabels   []string        `json:"location_labels,omitempty"`
	IsolationLevel   string          `json:"isolation_level,omitempty"`
}

// RuleGroup orders the rules of a group.
type RuleGroup struct {
	ID       string `json:"id"`
	Index    int    `json:"index,omitempty"`
	Override bool   `json:"override,omitempty"`
}

// LabelRule puts labels on key ranges.
type LabelRule struct {
	ID       string          `json:"id"`
	Index    int             `json:"index"`
	Labels   json.RawMessage `json:"labels"`
	RuleType string          `json:"rule_type"`
	Data     json.RawMessage `json:"data"`
}

// Keyspace is keyspacepb.KeyspaceMeta.
type Keyspace struct {
	ID        uint32            `json:"id"`
	Name      string            `json:"name"`
	State     string            `json:"state"`
	CreatedAt int64             `json:"created_at,omitempty"` // unix seconds
	Config    map[string]string `json:"config,omitempty"`
}

// KeyInfo is a key that is listed and not interpreted.
type KeyInfo struct {
	Key      string `json:"key"`
	What     string `json:"what,omitempty"`
	Bytes    int    `json:"bytes"`
	Revision int64  `json:"mod_revision"`
}

// Change is one key of the tail.
type Change struct {
	Key      string `json:"key"`
	Change   string `json:"change"` // put, delete
	Revision int64  `json:"mod_revision,omitempty"`
	Text     string `json:"value,omitempty"` // in words, where it matters
}

// FormatTime gives a time in UTC; empty for the zero time.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
