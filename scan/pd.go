package scan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// PD is what the directories of one stopped PD cluster say, one or several of its members'.
type PD struct {
	Kind       string          `json:"kind"` // pd
	Members    []*pd.Knowledge `json:"members"`
	Comparison pd.Comparison   `json:"comparison"`
	Evidence   *PDEvidence     `json:"-"`
	Recovery   PDRecovery      `json:"recovery"`
}

// PDRecovery says in words what the replication state means for the stores that are left.
type PDRecovery struct {
	Verdict string   `json:"verdict"` // PDWhole, PDConsistentAt, PDUnknown, PDNoDR
	Words   []string `json:"words"`
	Next    string   `json:"next,omitempty"`
}

// The verdicts of a PDRecovery.
const (
	PDNoDR         = "no-dr"         // DR Auto-Sync is not on
	PDWhole        = "complete"      // a surviving site has everything
	PDConsistentAt = "consistent-at" // the data is consistent at min-resolved-ts only
	PDUnknown      = "unknown"       // what is here does not tell
)

// PDEvidence is what a repair takes from PD: pure data. Several members are one: what only grows is the largest of all.
type PDEvidence struct {
	Dirs      []string `json:"dirs"`
	ClusterID uint64   `json:"cluster_id"`
	// Majority: more than half of the voting members are here, so that nothing committed is missing. Given of Voters are.
	Majority bool `json:"majority"`
	Given    int  `json:"given"`
	Voters   int  `json:"voters"`

	// SafePoint is the highest safe point that GC may have used. SafePointKnown is false when a higher one may be lost, or none was
	// found and that proves nothing; SafePointWhy says what is the case.
	SafePoint         pd.Timestamp          `json:"safe_point"`
	SafePointKnown    bool                  `json:"safe_point_known"`
	SafePointWhy      string                `json:"safe_point_reason"`
	ServiceSafePoints []pd.ServiceSafePoint `json:"service_safe_points"`

	// TSOFloor is above every timestamp that PD gave out; 0: unknown. AllocID is the bound of allocated ids, MaxID the largest id seen.
	TSOFloor       mvcc.TS   `json:"tso_floor"`
	TSOFloorTime   string    `json:"tso_floor_time"`
	TSOFloorSource pd.Source `json:"tso_floor_source"`
	AllocID        pd.Number `json:"alloc_id"`
	MaxID          uint64    `json:"max_id"`

	Stores []PDStore `json:"stores"`
	// Regions are all descriptors of the region-metas, the highest epoch of each id first seen wins; HighestEpoch is per region id over
	// everything, superseded records too. They are what PD had seen, never proof that nothing is newer.
	Regions      []raftstate.Region         `json:"regions"`
	HighestEpoch map[uint64]raftstate.Epoch `json:"highest_epochs"`

	// MinResolvedTS is the cluster's; PD persists none of single stores. Nil: unknown.
	MinResolvedTS *pd.Timestamp `json:"min_resolved_ts,omitempty"`
	// ConsistentTS is the latest timestamp at which one site alone is proven to be consistent: MinResolvedTS, or an earlier value of it when
	// PD had switched to async. Nil: nothing proves one. ConsistentWhy says why in both cases.
	ConsistentTS  *pd.Timestamp `json:"consistent_ts,omitempty"`
	ConsistentWhy string        `json:"consistent_reason"`
	// DR is the replication state with the highest id; nil when DR Auto-Sync was never on.
	DR     *pd.DRRecord `json:"dr_state,omitempty"`
	DRMode string       `json:"replication_mode"`
	// Reserve says why a later state of DR may be lost; empty: it is the last one.
	Reserve string `json:"dr_state_reserve,omitempty"`
}

// PDStore is a store that PD knows.
type PDStore struct {
	ID      uint64     `json:"id"`
	State   string     `json:"state"` // Up, Offline, Tombstone
	Labels  []pd.Label `json:"labels"`
	Address string     `json:"address"`
}

// MissingStores are the stores that PD counts on (not tombstones) and that are not among those given.
func (e *PDEvidence) MissingStores(given []uint64) []uint64 {
	var out []uint64
	for _, s := range e.Stores {
		if s.State != "Tombstone" && !slices.Contains(given, s.ID) {
			out = append(out, s.ID)
		}
	}
	return out
}

// HighestVersion is the highest version of any descriptor that overlaps [start, end): keys are memcomparable, an empty end is the end of
// the key space. A heartbeat with a lower one would be rejected as stale.
func (e *PDEvidence) HighestVersion(start, end []byte) uint64 {
	var v uint64
	for _, r := range e.Regions {
		if (len(end) == 0 || string(r.StartKey) < string(end)) && (len(r.EndKey) == 0 || string(start) < string(r.EndKey)) {
			v = max(v, r.Epoch.Version)
		}
	}
	return v
}

// IsPD tells whether dir looks like a PD data directory, or a part of one.
func IsPD(fs base.FS, dir string) bool { return pd.Is(fs, dir) || pd.Inside(fs, dir) }

// ReadPD reads the directories of members of one stopped PD cluster. The error classes are those of pd.Read, and ErrUsage when the
// directories belong to different clusters.
func ReadPD(fs base.FS, dirs []string) (*PD, error) {
	var ks []*pd.Knowledge
	for _, d := range dirs {
		k, err := pd.Read(fs, d)
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	return joinPD(ks)
}

// PDMember is what one directory says.
type PDMember = pd.Knowledge

// ReadPDMember reads one directory; GroupPD goes on with it.
func ReadPDMember(fs base.FS, dir string) (*PDMember, error) { return pd.Read(fs, dir) }

// GroupPD puts what was read together by cluster, in the order given. Members whose etcd clusters differ are apart, even when PD's cluster is
// the same: one of them was restored from a copy.
func GroupPD(ks []*PDMember) ([]*PD, error) {
	type cluster struct{ pd, etcd uint64 }
	var ids []cluster
	groups := map[cluster][]*pd.Knowledge{}
	for _, k := range ks {
		id := cluster{k.ClusterID.Value, k.Etcd.ClusterID}
		if groups[id] == nil {
			ids = append(ids, id)
		}
		groups[id] = append(groups[id], k)
	}
	out := []*PD{}
	for _, id := range ids {
		p, err := joinPD(groups[id])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func joinPD(ks []*pd.Knowledge) (*PD, error) {
	for _, k := range ks {
		if k.ClusterID.Value != ks[0].ClusterID.Value {
			return nil, &base.Error{Class: base.ErrUsage, Op: "read PD", Path: k.Dir, Offset: -1,
				Reason: fmt.Sprintf("this is a PD of cluster %d, %s one of cluster %d", k.ClusterID.Value, ks[0].Dir, ks[0].ClusterID.Value),
				Next:   "give directories of one cluster"}
		}
	}
	c, err := pd.Compare(ks)
	if err != nil {
		return nil, err
	}
	p := &PD{Kind: "pd", Members: ks, Comparison: c}
	p.Evidence = evidenceOf(ks, c)
	if p.Evidence.DR != nil {
		p.Evidence.Reserve = p.Evidence.reserve(p)
	}
	p.Recovery = p.Evidence.recovery(p)
	return p, nil
}

// newest is the member whose log is the newest.
func (p *PD) newest() *pd.Knowledge {
	i := slices.IndexFunc(p.Members, func(k *pd.Knowledge) bool { return k.Dir == p.Comparison.Newest })
	return p.Members[i]
}

func evidenceOf(ks []*pd.Knowledge, c pd.Comparison) *PDEvidence {
	first := ks[slices.IndexFunc(ks, func(k *pd.Knowledge) bool { return k.Dir == c.Newest })]
	e := &PDEvidence{Dirs: c.Order, ClusterID: first.ClusterID.Value, Majority: c.Majority, Given: c.Given, Voters: c.Voters,
		SafePoint: first.GC.SafePoint, SafePointKnown: first.GC.Known, SafePointWhy: first.GC.Reason, ServiceSafePoints: first.GC.Services,
		MinResolvedTS: first.MinResolvedTS, DR: first.DR.Last, DRMode: first.DR.Mode,
		Stores: []PDStore{}, Regions: []raftstate.Region{}, HighestEpoch: map[uint64]raftstate.Epoch{}}
	// Of the newest member alone: its history is of one log, in which revisions are an order.
	e.ConsistentTS, e.ConsistentWhy = first.ConsistentTS()
	for _, s := range first.Stores {
		e.Stores = append(e.Stores, PDStore{s.ID, s.State, s.Labels, s.Address})
	}
	best := map[uint64]raftstate.Region{}
	for _, k := range ks {
		if k.GC.SafePoint.TS > e.SafePoint.TS {
			e.SafePoint = k.GC.SafePoint
		}
		if k.MinResolvedTS != nil && (e.MinResolvedTS == nil || k.MinResolvedTS.TS > e.MinResolvedTS.TS) {
			e.MinResolvedTS = k.MinResolvedTS
		}
		if floor, from := k.TSOFloor(); floor > e.TSOFloor {
			e.TSOFloor, e.TSOFloorTime, e.TSOFloorSource = floor, Time(floor), from
		}
		if k.AllocID != nil && k.AllocID.Value >= e.AllocID.Value {
			e.AllocID = *k.AllocID
		}
		e.MaxID = max(e.MaxID, k.MaxID())
		if k.DR.Last != nil && (e.DR == nil || k.DR.Last.StateID > e.DR.StateID) {
			e.DR = k.DR.Last
		}
		for _, r := range k.Regions() {
			h := e.HighestEpoch[r.ID]
			e.HighestEpoch[r.ID] = raftstate.Epoch{ConfVer: max(h.ConfVer, r.Epoch.ConfVer), Version: max(h.Version, r.Epoch.Version)}
			if b, ok := best[r.ID]; !ok || r.Epoch.Version > b.Epoch.Version || r.Epoch.Version == b.Epoch.Version && r.Epoch.ConfVer > b.Epoch.ConfVer {
				best[r.ID] = r
			}
		}
	}
	for _, r := range best {
		e.Regions = append(e.Regions, r)
	}
	slices.SortFunc(e.Regions, func(a, b raftstate.Region) int {
		return cmp.Or(strings.Compare(string(a.StartKey), string(b.StartKey)), cmp.Compare(a.ID, b.ID))
	})
	return e
}
