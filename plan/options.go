package plan

import (
	"cmp"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// Options are what the operator decided.
type Options struct {
	PlanID string // names the plan, its fence and its backups
	Tool   string // version of this tool
	Made   string // RFC 3339

	FailedStores []uint64 // gone for good: their replicas do not count, and they must never come back
	// TiFlashStores cannot report. Their learners are dropped from what is rewritten.
	TiFlashStores []uint64
	ToTS          mvcc.TS // rewind to; 0: none
	SafePoint     mvcc.TS // as stated by the operator; 0: not stated
	Keep          string  // KeepAll, KeepWinner; "": KeepAll
	HoleFill      string  // HoleEmpty, HoleStale; "": HoleEmpty
	// AllocID is an id above which nothing was ever handed out, as stated by the operator; 0: not stated.
	AllocID uint64

	Winners    map[uint64]uint64 // region → the store whose replica is kept, whatever the log says
	Tombstones []RegionStore     // peers to destroy
	Recreate   []uint64          // regions whose replicas are all destroyed; an empty region takes the place
	Forced     []string          // names of problems that the operator accepts
}

// RegionStore names a peer.
type RegionStore struct {
	Region uint64 `json:"region_id"`
	Store  uint64 `json:"store_id"`
}

// ByHand is one decision of the operator about one region: --winner, --tombstone or --recreate.
type ByHand struct {
	Region uint64 `json:"region_id"`
	Store  uint64 `json:"store_id,omitempty"` // not with recreate
	What   string `json:"what"`               // winner, tombstone, recreate
}

// ByHand lists the decisions about single regions, sorted; nil without any.
func (o Options) ByHand() []ByHand {
	var out []ByHand
	for region, store := range o.Winners {
		out = append(out, ByHand{region, store, "winner"})
	}
	for _, t := range o.Tombstones {
		out = append(out, ByHand{t.Region, t.Store, "tombstone"})
	}
	for _, region := range o.Recreate {
		out = append(out, ByHand{Region: region, What: "recreate"})
	}
	slices.SortFunc(out, func(a, b ByHand) int {
		return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Store, b.Store), cmp.Compare(a.What, b.What))
	})
	return slices.Compact(out)
}
