package pd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
)

// The key map of section 7. In a pattern, R is /pd/<cluster id>, a word in * is one part of the path, ** all that is left.
// A rule without decode names keys whose value does not matter here.
type rule struct {
	pattern string
	what    string
	decode  func(d *decoder, kv etcd.KV, args []string) error
}

var rules = []rule{
	{"/pd/cluster_id", "", nil},
	{"R/raft", "", (*decoder).cluster},
	{"R/raft/status/raft_bootstrap_time", "", (*decoder).bootstrap},
	{"R/raft/s/*", "", (*decoder).store},
	{"R/raft/r/*", "", (*decoder).region},
	{"R/raft/min_resolved_ts", "", (*decoder).minResolved},
	{"R/raft/external_timestamp", "", (*decoder).external},
	{"R/schedule/store_weight/*/*", "", (*decoder).weight},
	{"R/alloc_id", "", (*decoder).allocID},
	{"R/timestamp", "", (*decoder).timestamp},
	{"R/lta/*/timestamp", "", (*decoder).timestamp},
	{"R/dc-location/*", "local TSO: the member's location", nil},
	{"R/leader", "", (*decoder).leader},
	{"R/member/*/*", "", (*decoder).member},
	{"R/config", "", (*decoder).config},
	{"R/scheduler_config/**", "", (*decoder).scheduler},
	{"R/rules/**", "", (*decoder).placementRule},
	{"R/rule_group/**", "", (*decoder).ruleGroup},
	{"R/region_label/**", "", (*decoder).labelRule},
	{"R/replication_mode/dr-auto-sync", "", (*decoder).drStatus},
	{"R/service_middleware", "limits of PD's own API", nil},
	{"R/gc/safe_point", "", (*decoder).hexSafePoint},
	{"R/gc/safe_point/service/**", "", (*decoder).serviceSafePoint},
	{"R/gc/gc_state_revision", "guard of GC transactions", nil},
	{"R/gc/global_gc_barriers/**", "", (*decoder).globalBarrier},
	{"R/keyspaces/meta/*", "", (*decoder).keyspace},
	{"R/keyspaces/id/**", "name of a keyspace", nil},
	{"R/keyspaces/alloc_id", "bound of keyspace ids", nil},
	{"R/keyspaces/gc_safepoint/*/gc", "", (*decoder).hexSafePoint},
	{"R/keyspaces/gc_safepoint/*/service/**", "", (*decoder).serviceSafePoint},
	{"R/keyspaces/gc_safe_point/*", "", (*decoder).keyspaceSafePoint},
	{"R/keyspaces/service_safe_point/*/**", "", (*decoder).serviceSafePoint},
	{"/tidb/store/gcworker/saved_safe_point", "", (*decoder).decimalSafePoint},
	{"/keyspaces/tidb/*/tidb/store/gcworker/saved_safe_point", "", (*decoder).decimalSafePoint},
	{"/tidb/server/minstartts/**", "oldest transaction of a TiDB server", nil},
	{"R/tso/keyspace_groups/membership/*", "keyspace group of the TSO service", nil},
	{"C/tso/*/gta/timestamp", "", (*decoder).timestamp},
	{"C/**", "registry of a PD microservice (leased)", nil},
	{"resource_group/**", "resource control", nil},
	{"R/cluster/markers/*", "", (*decoder).marker},
	{"R/affinity_groups/**", "affinity group", nil},
	{"R/maintenance/**", "maintenance mark", nil},
	{"R/meta_service_groups/**", "metadata service group", nil},
	{"encryption_keys", "data keys of an encrypted region-meta", nil},
}

// match fits a key to a pattern; root is /pd/<id>, services /ms/<id>.
func match(pattern, key, root, services string) (args []string, ok bool) {
	for short, long := range map[string]string{"R/": root + "/", "C/": services + "/"} {
		if rest, is := strings.CutPrefix(pattern, short); is {
			pattern = long + rest
		}
	}
	p, k := strings.Split(pattern, "/"), strings.Split(key, "/")
	for i, part := range p {
		switch {
		case part == "**":
			if i >= len(k) {
				return nil, false
			}
			return append(args, strings.Join(k[i:], "/")), true
		case i >= len(k), part != "*" && part != k[i]:
			return nil, false
		case part == "*":
			args = append(args, k[i])
		}
	}
	return args, len(p) == len(k)
}

// clusterIDKey decides which tree counts.
const clusterIDKey = "/pd/cluster_id"

// decoder decodes one view of the keys.
type decoder struct {
	k        *Knowledge
	sure     Certainty
	root     string
	priority map[uint64]*Member
	stores   map[uint64]*Store
	weights  map[uint64][2]*float64 // leader, region
}

func (d *decoder) source(kv etcd.KV) Source {
	return Source{Dir: d.k.Dir, Key: string(kv.Key), Revision: kv.Mod, Certainty: d.sure}
}

// decodeView decodes every key of a view. It fails only when it is not even PD's.
func decodeView(dir string, v *etcd.View, sure Certainty) (*Knowledge, error) {
	k := &Knowledge{Dir: dir, Members: []Member{}, Stores: []Store{}, Rules: []Rule{}, RuleGroups: []RuleGroup{}, LabelRules: []LabelRule{},
		Keyspaces: []Keyspace{}, Named: []KeyInfo{}, Unknown: []KeyInfo{}, Bad: []string{}, Markers: []string{}, Tail: []Change{}, Warnings: []string{}}
	k.GC.All, k.GC.Services, k.TSO.All, k.DR.Records, k.DR.History = []Timestamp{}, []ServiceSafePoint{}, []Window{}, []DRRecord{}, []DRRecord{}
	d := &decoder{k: k, sure: sure, priority: map[uint64]*Member{}, stores: map[uint64]*Store{}, weights: map[uint64][2]*float64{}}
	id, ok := v.Get(clusterIDKey)
	if ok {
		n, err := u64be(id.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", clusterIDKey, err)
		}
		k.ClusterID = Number{n, d.source(id)}
	} else {
		k.ClusterID.Source = Source{Dir: dir, Key: clusterIDKey, Certainty: Absent}
	}
	d.root = "/pd/" + strconv.FormatUint(k.ClusterID.Value, 10)
	services := "/ms/" + strconv.FormatUint(k.ClusterID.Value, 10)
	for _, kv := range v.Keys {
		d.key(kv, services)
	}
	d.finish()
	if id.Version > 1 {
		k.Recovered = fmt.Sprintf("%s was written %d times", clusterIDKey, id.Version)
	} else if len(k.OtherTrees) > 0 {
		k.Recovered = fmt.Sprintf("there are keys of other clusters: %v", k.OtherTrees)
	}
	return k, nil
}

func (d *decoder) key(kv etcd.KV, services string) {
	key := string(kv.Key)
	info := KeyInfo{Key: key, Bytes: len(kv.Value), Revision: kv.Mod}
	for _, r := range rules {
		args, ok := match(r.pattern, key, d.root, services)
		if !ok {
			continue
		}
		if r.decode == nil {
			if info.What = r.what; info.What != "" {
				d.k.Named = append(d.k.Named, info)
			}
			return
		}
		if err := r.decode(d, kv, args); err != nil {
			d.k.Bad = append(d.k.Bad, fmt.Sprintf("%s (revision %d): %v", key, kv.Mod, err))
		}
		return
	}
	if rest, ok := strings.CutPrefix(key, "/pd/"); ok {
		id, _, _ := strings.Cut(rest, "/")
		if n, err := strconv.ParseUint(id, 10, 64); err == nil && n != d.k.ClusterID.Value {
			if !slices.Contains(d.k.OtherTrees, n) {
				d.k.OtherTrees = append(d.k.OtherTrees, n)
			}
			return
		}
	}
	d.k.Unknown = append(d.k.Unknown, info)
}

// tail lists the keys that differ between two views.
func tail(certain, possible *etcd.View) []Change {
	out := []Change{}
	for _, c := range etcd.Diff(certain, possible) {
		x := Change{Key: string(c.Key), Change: "delete"}
		if c.New != nil {
			x.Change, x.Revision = "put", c.New.Mod
		}
		out = append(out, x)
	}
	return out
}
