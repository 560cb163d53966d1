package scan

import (
	"bytes"
	"slices"
	"sort"
)

// RegionFinder finds the live regions of a store by database key.
type RegionFinder struct {
	spans []regionSpan // by start key
}

// regionSpan is the range of one live region, without the 'z' of data keys; an empty end is the end of the key space.
type regionSpan struct {
	start, end []byte
	id         uint64
	region     *Region // nil when the store does not hold its regions
}

// RegionFinder takes the regions as they are now.
func (s *Store) RegionFinder() RegionFinder { return finderOf(s.liveByStart()) }

// finderOf finds among regions that are sorted by start key, and keeps them.
func finderOf(regions []Region) RegionFinder {
	var f RegionFinder
	for i := range regions {
		r := &regions[i]
		f.spans = append(f.spans, regionSpan{r.State.Region.StartKey, r.State.Region.EndKey, r.ID, r})
	}
	return f
}

// LeanFinder is RegionFinder for a store that was opened without its regions: it holds ranges and ids alone, and knows no Region.
func (s *Store) LeanFinder() (RegionFinder, error) {
	var f RegionFinder
	err := s.EachRegion(func(r Region) error {
		if r.Live() {
			f.spans = append(f.spans, regionSpan{start: bytes.Clone(r.State.Region.StartKey), end: bytes.Clone(r.State.Region.EndKey), id: r.ID})
		}
		return nil
	})
	f.spans = slices.Clip(f.spans)
	slices.SortStableFunc(f.spans, func(a, b regionSpan) int { return bytes.Compare(a.start, b.start) })
	// A region ends where its neighbour begins: one copy of the key does.
	for i := range f.spans {
		if i+1 < len(f.spans) && bytes.Equal(f.spans[i].end, f.spans[i+1].start) {
			f.spans[i].end = f.spans[i+1].start
		}
	}
	return f, err
}

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
	return sort.Search(len(f.spans), func(i int) bool { return bytes.Compare(f.spans[i].start, key[1:]) > 0 }) - 1
}

// span is the one that holds a data key (with the leading 'z'). Where regions overlap it is the one that begins last.
func (f RegionFinder) span(key []byte) *regionSpan {
	if i := f.atData(key); f.holds(i, key) {
		return &f.spans[i]
	}
	return nil
}

// atData is at for any key; -1 for one that is no data key.
func (f RegionFinder) atData(key []byte) int {
	if len(key) == 0 || key[0] != 'z' {
		return -1
	}
	return f.at(key)
}

// isAt tells whether atData gives i for a data key, as far as it is quick to tell.
func (f RegionFinder) isAt(i int, key []byte) bool {
	return i >= 0 && i < len(f.spans) && len(key) > 0 && key[0] == 'z' && bytes.Compare(f.spans[i].start, key[1:]) <= 0 &&
		(i+1 == len(f.spans) || bytes.Compare(key[1:], f.spans[i+1].start) < 0)
}

// holds tells whether a data key is below the end of span i.
func (f RegionFinder) holds(i int, key []byte) bool {
	return i >= 0 && (len(f.spans[i].end) == 0 || bytes.Compare(key[1:], f.spans[i].end) < 0)
}

// Find gives the region that holds a data key.
func (f RegionFinder) Find(key []byte) (Region, bool) {
	if sp := f.span(key); sp != nil && sp.region != nil {
		return *sp.region, true
	}
	return Region{}, false
}

// ID is the id of the region that holds a data key; 0 without one.
func (f RegionFinder) ID(key []byte) uint64 {
	if sp := f.span(key); sp != nil {
		return sp.id
	}
	return 0
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
	for i := max(f.at(lo), 0); i < len(f.spans); i++ {
		sp := &f.spans[i]
		if hi[0] == 'z' && bytes.Compare(sp.start, hi[1:]) > 0 {
			break
		}
		if len(sp.end) == 0 || bytes.Compare(sp.end, lo[1:]) > 0 {
			out = append(out, sp.id)
		}
	}
	return out
}
