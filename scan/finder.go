package scan

import (
	"bytes"
	"slices"
	"sort"
)

// RegionFinder finds the live regions of a store by database key.
type RegionFinder struct {
	regions []Region // by start key
}

// RegionFinder takes the regions as they are now.
func (s *Store) RegionFinder() RegionFinder { return RegionFinder{s.liveByStart()} }

func (s *Store) liveByStart() []Region {
	var out []Region
	for _, r := range s.Regions {
		if r.Live() {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b Region) int { return bytes.Compare(a.State.Region.StartKey, b.State.Region.StartKey) })
	return out
}

// at is the position of the last region that begins at or before a data key; -1 without one.
func (f RegionFinder) at(key []byte) int {
	return sort.Search(len(f.regions), func(i int) bool { return bytes.Compare(f.regions[i].State.Region.StartKey, key[1:]) > 0 }) - 1
}

// Find gives the region that holds a data key (with the leading 'z'). Where regions overlap it is the one that begins last.
func (f RegionFinder) Find(key []byte) (Region, bool) {
	if len(key) == 0 || key[0] != 'z' {
		return Region{}, false
	}
	i := f.at(key)
	if i < 0 {
		return Region{}, false
	}
	end := f.regions[i].State.Region.EndKey
	return f.regions[i], len(end) == 0 || bytes.Compare(key[1:], end) < 0
}

// ID is the id of the region that holds a data key; 0 without one.
func (f RegionFinder) ID(key []byte) uint64 {
	r, ok := f.Find(key)
	if !ok {
		return 0
	}
	return r.ID
}

// Touching lists the ids of the regions that have a part of [lo, hi], two keys of the database.
func (f RegionFinder) Touching(lo, hi []byte) []uint64 {
	if len(hi) == 0 || hi[0] < 'z' || len(lo) == 0 || lo[0] > 'z' {
		return nil
	}
	if lo[0] < 'z' {
		lo = []byte{'z'}
	}
	var out []uint64
	for i := max(f.at(lo), 0); i < len(f.regions); i++ {
		r := f.regions[i].State.Region
		if hi[0] == 'z' && bytes.Compare(r.StartKey, hi[1:]) > 0 {
			break
		}
		if len(r.EndKey) == 0 || bytes.Compare(r.EndKey, lo[1:]) > 0 {
			out = append(out, r.ID)
		}
	}
	return out
}
