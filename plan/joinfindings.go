package plan

import (
	"fmt"
	"maps"
	"strings"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"cluster-mix":     func() Problem { return new(ClusterMix) },
		"store-twice":     func() Problem { return new(StoreTwice) },
		"store-absent":    func() Problem { return new(StoreAbsent) },
		"cluster-gap":     func() Problem { return new(ClusterGap) },
		"cluster-overlap": func() Problem { return new(ClusterOverlap) },
		"region-disagree": func() Problem { return new(RegionDisagree) },
	})
}

func idList(ids []uint64) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ", "), "[]")
}

func storeList(ids []uint64) string {
	if len(ids) == 1 {
		return "store " + idList(ids)
	}
	return "stores " + idList(ids)
}

// ClusterDirs are the directories of one cluster.
type ClusterDirs struct {
	ClusterID uint64   `json:"cluster_id"`
	Dirs      []string `json:"dirs"`
}

// ClusterMix: directories that were looked at together belong to different clusters.
type ClusterMix struct {
	Clusters []ClusterDirs `json:"clusters"`
}

// Name is part of Problem, as are Severity, Where, What and Next of this and the following types.
func (*ClusterMix) Name() string       { return "cluster-mix" }
func (*ClusterMix) Severity() Severity { return Error }
func (*ClusterMix) Where() string      { return "all directories" }
func (p *ClusterMix) What() string {
	var parts []string
	for _, c := range p.Clusters {
		parts = append(parts, fmt.Sprintf("cluster %d: %s", c.ClusterID, strings.Join(c.Dirs, ", ")))
	}
	return fmt.Sprintf("they belong to %d clusters (%s)", len(p.Clusters), strings.Join(parts, "; "))
}
func (*ClusterMix) Next() string {
	return "give directories of one cluster; a store does not start with the PD of another cluster"
}

// StoreTwice: two directories say that they are the same store.
type StoreTwice struct {
	Store uint64   `json:"store_id"`
	Dirs  []string `json:"dirs"`
}

func (*StoreTwice) Name() string       { return "store-twice" }
func (*StoreTwice) Severity() Severity { return Error }
func (p *StoreTwice) Where() string    { return atStore(p.Store) }
func (p *StoreTwice) What() string {
	return "several directories are this store: " + strings.Join(p.Dirs, ", ")
}
func (*StoreTwice) Next() string {
	return "they are copies of one directory: find out which one is the newest, and never start two of them"
}

// StoreAbsent: peers live on stores of which no directory was given.
type StoreAbsent struct {
	Stores  []uint64 `json:"store_ids"`
	Regions int      `json:"regions"` // that have such a peer
}

func (*StoreAbsent) Name() string       { return "store-absent" }
func (*StoreAbsent) Severity() Severity { return Info }
func (p *StoreAbsent) Where() string    { return storeList(p.Stores) }
func (p *StoreAbsent) What() string {
	have := "have peers there"
	if p.Regions == 1 {
		have = "has a peer there"
	}
	return fmt.Sprintf("%s %s, and no directory shows what is on it", plural(p.Regions, "region"), have)
}
func (*StoreAbsent) Next() string {
	return "give their data directories as well, if they still exist"
}

// ClusterGap: a part of the key space that no region of any given directory holds.
type ClusterGap struct {
	Start  string `json:"start_key"` // region boundaries as in the descriptors, upper-case hex; "" is the end of the key space
	End    string `json:"end_key"`
	After  uint64 `json:"after_region_id,omitempty"`
	Before uint64 `json:"before_region_id,omitempty"`
	// Unseen: there are stores that were not looked at and may hold it.
	Unseen bool `json:"stores_unseen,omitempty"`
}

func (*ClusterGap) Name() string { return "cluster-gap" }
func (p *ClusterGap) Severity() Severity {
	if p.Unseen {
		return Warning
	}
	return Error
}
func (p *ClusterGap) Where() string { return fmt.Sprintf("keys %q to %q", p.Start, p.End) }
func (p *ClusterGap) What() string {
	s := "no region in any of these directories holds these keys"
	switch {
	case p.After != 0 && p.Before != 0:
		s += fmt.Sprintf(": the gap is between regions %d and %d", p.After, p.Before)
	case p.After != 0:
		s += fmt.Sprintf(": the gap is behind region %d", p.After)
	case p.Before != 0:
		s += fmt.Sprintf(": the gap is before region %d", p.Before)
	}
	if p.Unseen {
		s += "; a store that was not looked at may hold them"
	}
	return s
}
func (p *ClusterGap) Next() string {
	if p.Unseen {
		return "give the directories of the other stores as well; if they are lost, so are these keys"
	}
	return "do not start TiKV, it deletes what lies in a gap: copy the directories, then look at the neighbours and at tombstones with region --all"
}

// ClusterOverlap: the newest descriptors of two regions, each on some store, hold the same keys.
type ClusterOverlap struct {
	Region      uint64   `json:"region_id"`
	Stores      []uint64 `json:"store_ids"` // that have this descriptor
	Other       uint64   `json:"other_region_id"`
	OtherStores []uint64 `json:"other_store_ids"`
	Start       string   `json:"start_key"` // of the common part, upper-case hex
	End         string   `json:"end_key"`
	Version     uint64   `json:"version"`
	Against     uint64   `json:"other_version"`
}

func (*ClusterOverlap) Name() string { return "cluster-overlap" }
func (p *ClusterOverlap) Severity() Severity {
	if p.Version == p.Against {
		return Error
	}
	return Warning
}
func (p *ClusterOverlap) Where() string { return atRegion(0, p.Region) }
func (p *ClusterOverlap) What() string {
	s := fmt.Sprintf("on %s its range overlaps that of region %d on %s from %q to %q (versions %d and %d)", storeList(p.Stores), p.Other, storeList(p.OtherStores),
		p.Start, p.End, p.Version, p.Against)
	if p.Version == p.Against {
		return s + ": neither is older than the other"
	}
	return s + ": the one with the lower version lags behind a split or a merge"
}
func (p *ClusterOverlap) Next() string {
	if p.Version == p.Against {
		return fmt.Sprintf("compare both with region --region %d --region %d on all stores: one of them was made by hand, or comes from another time", p.Region, p.Other)
	}
	return "nothing has to be done if the stores of the older one can catch up from others; else its log tells: raft-log --tail"
}

// RegionDisagree: two stores have different descriptors of a region for one epoch.
type RegionDisagree struct {
	Region      uint64          `json:"region_id"`
	Epoch       raftstate.Epoch `json:"region_epoch"`
	Stores      []uint64        `json:"store_ids"` // that agree with the first one
	OtherStores []uint64        `json:"other_store_ids"`
	Differs     string          `json:"differs"` // "range" or "peers"
}

func (*RegionDisagree) Name() string       { return "region-disagree" }
func (*RegionDisagree) Severity() Severity { return Error }
func (p *RegionDisagree) Where() string    { return atRegion(0, p.Region) }
func (p *RegionDisagree) What() string {
	differs := p.Differs + " differs"
	if strings.HasSuffix(p.Differs, "s") {
		differs = p.Differs + " differ"
	}
	return fmt.Sprintf("at conf_ver %d, version %d its %s between %s and %s", p.Epoch.ConfVer, p.Epoch.Version, differs, storeList(p.Stores), storeList(p.OtherStores))
}
func (p *RegionDisagree) Next() string {
	return fmt.Sprintf("compare them with region --region %d on all stores: TiKV takes equal epochs for equal regions and does not notice", p.Region)
}
