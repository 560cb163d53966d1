package regionmeta

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Range is a range of memcomparable keys; an empty End is the end of the key space.
type Range struct {
	Start raftstate.Key `json:"start_key"`
	End   raftstate.Key `json:"end_key"`
}

// Tiling is what a PD has in memory after it loaded one family of records.
type Tiling struct {
	Family Family `json:"family"`
	// Live are the descriptors that PD goes on with, by start key; they do not overlap.
	Live []raftstate.Region `json:"live"`
	// Superseded lost against a descriptor of an overlapping range.
	Superseded []raftstate.Region `json:"superseded,omitempty"`
	// Holes are the ranges that no live descriptor covers.
	Holes []Range `json:"holes,omitempty"`
}

// Families lists the families that have records.
func (m *Meta) Families() []Family {
	var out []Family
	for _, r := range m.Records {
		if !slices.Contains(out, r.Family) {
			out = append(out, r.Family)
		}
	}
	return out
}

// Tile puts the records of a family together as PD does at its start: in the order of their ids, each through the staleness check of
// a heartbeat. Source: tikv/pd pkg/storage TryLoadRegionsOnce, pkg/core/region.go CheckAndPutRegion (release-8.5).
func (m *Meta) Tile(f Family) Tiling {
	var all []raftstate.Region
	for _, rec := range m.Records {
		if rec.Family == f {
			all = append(all, rec.Region)
		}
	}
	slices.SortStableFunc(all, byStart)
	t := Tiling{Family: f}
	// Only regions that are linked by overlaps have anything to do with each other; nearly always that is one region.
	for from := 0; from < len(all); {
		to, end := from+1, all[from].EndKey
		for to < len(all) && (len(end) == 0 || bytes.Compare(all[to].StartKey, end) < 0) {
			if e := all[to].EndKey; len(end) > 0 && (len(e) == 0 || bytes.Compare(e, end) > 0) {
				end = e
			}
			to++
		}
		live, lost := load(all[from:to])
		t.Live, t.Superseded = append(t.Live, live...), append(t.Superseded, lost...)
		from = to
	}
	t.Holes = holes(t.Live)
	return t
}

func byStart(a, b raftstate.Region) int { return bytes.Compare(a.StartKey, b.StartKey) }

// load gives the regions that are left, by start key, and those that lost against them.
func load(linked []raftstate.Region) (live, lost []raftstate.Region) {
	if len(linked) == 1 {
		return linked, nil
	}
	byID := slices.SortedStableFunc(slices.Values(linked), func(a, b raftstate.Region) int { return cmp.Compare(a.ID, b.ID) })
	for _, r := range byID {
		newer := func(l raftstate.Region) bool { return overlap(l, r) && r.Epoch.Version < l.Epoch.Version }
		if !recreated(r) && slices.ContainsFunc(live, newer) {
			lost = append(lost, r)
			continue
		}
		for _, l := range live {
			if overlap(l, r) {
				lost = append(lost, l)
			}
		}
		live = append(slices.DeleteFunc(live, func(l raftstate.Region) bool { return overlap(l, r) }), r)
	}
	slices.SortFunc(live, byStart)
	return live, lost
}

// recreated: unsafe recovery makes a region anew with the first epoch; PD takes it although its version is lower.
func recreated(r raftstate.Region) bool {
	return r.Epoch.Version == 1 && r.Epoch.ConfVer == 1 && (len(r.StartKey) > 0 || len(r.EndKey) > 0)
}

func overlap(a, b raftstate.Region) bool {
	return (len(a.EndKey) == 0 || bytes.Compare(b.StartKey, a.EndKey) < 0) && (len(b.EndKey) == 0 || bytes.Compare(a.StartKey, b.EndKey) < 0)
}

func holes(live []raftstate.Region) []Range {
	var out []Range
	at, end := raftstate.Key{}, false
	for _, r := range live {
		if !bytes.Equal(at, r.StartKey) {
			out = append(out, Range{at, r.StartKey})
		}
		at, end = r.EndKey, len(r.EndKey) == 0
	}
	if len(live) > 0 && !end {
		out = append(out, Range{Start: at})
	}
	return out
}
