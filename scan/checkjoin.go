package scan

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// mvccPass is the MVCC part of spans of which all tables were read the first time. A shard that met something that is not to be judged on
// that way has nothing but its parts.
type mvccPass struct {
	spans  []checkSpan
	mode   RawMode
	shards []*shard
}

// join reads the tables of the data column families once for both ends: every shard joins the column families over its keys, while each
// batch that is decoded for it is compared with what the table promises. It gives the tables of which every block was read and found good.
//
// Nothing becomes a finding here. A table or shard in which anything is odd is left to those that look at one thing at a time, so that what
// is found does not depend on the way.
func (c *checker) join(ctx context.Context) (good map[uint64]bool, err error) {
	regions, ok := c.peekRegions()
	if !ok {
		return nil, nil
	}
	mode, err := c.s.RawMode()
	if err != nil {
		return nil, nil // a damaged table, which will be found
	}
	j := &mvccPass{mode: mode}
	j.spans, _ = spansOf((&Store{Regions: regions}).liveByStart())
	reads := &tableReads{tables: map[uint64]*tableRead{}}
	for _, name := range []string{CFWrite, CFDefault, CFLock} {
		for _, f := range c.s.DB.CF(name).Files() {
			if twin := reads.tables[f.Number]; twin != nil {
				twin.odd = true
				continue
			}
			reads.tables[f.Number] = &tableRead{cf: name, f: f}
			reads.size += int64(f.Size)
		}
	}
	c.o.Meter.Total.Add(reads.size)
	j.shards = c.shards(slices.Clone(j.spans), mode)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.s.threads(c.o.Threads, CFWrite, CFDefault, CFLock))
	for i, w := range j.shards {
		w.reads = reads
		g.Go(func() error {
			err := w.run(gctx)
			if isInterrupted(err) {
				return err
			}
			if err != nil {
				j.shards[i] = &shard{c: c, s: c.s, parts: w.parts, again: err}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	reads.progress(c.o.Meter, reads.size)
	c.joined = j
	return c.goodTables(ctx, reads)
}

// peekRegions reads the live regions, for their ranges; false: not all of them can be read.
func (c *checker) peekRegions() (out []Region, ok bool) {
	lower, upper := raftstate.RegionStateRange()
	v, err := c.s.DB.CF(CFRaft).NewVisible(lower, upper, nil)
	if err != nil {
		return nil, false
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		kind, id, _, ok := raftstate.ParseLocalKey(v.User())
		if !ok || kind != raftstate.KeyRegionState {
			continue
		}
		value, err := c.s.Value(CFRaft, v.Kind(), v.User(), v.Value())
		if err != nil {
			return nil, false
		}
		r := Region{ID: id}
		if r.State, err = raftstate.ParseRegionLocalState(bytes.Clone(value)); err != nil || r.State.Region.ID != id {
			return nil, false
		}
		out = append(out, r)
	}
	return out, v.Err() == nil
}

// goodTables reads the other blocks of the tables whose data blocks are good.
func (c *checker) goodTables(ctx context.Context, reads *tableReads) (map[uint64]bool, error) {
	good := map[uint64]bool{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Threads)
	for n, t := range reads.tables {
		if t.odd || t.left != 0 || t.blocks == 0 {
			continue
		}
		g.Go(func() error {
			r, done, err := c.s.DB.CF(t.cf).Table(t.f.FileMeta)
			if err == nil {
				if t.whole(r) {
					mu.Lock()
					good[n] = true
					mu.Unlock()
				}
				err = done()
			}
			if err != nil {
				mu.Lock()
				delete(good, n)
				mu.Unlock()
			}
			return interrupted(ctx)
		})
	}
	return good, g.Wait()
}

// tableReads are tables that are read by several shards.
type tableReads struct {
	tables map[uint64]*tableRead
	size   int64        // of all tables, bytes
	done   atomic.Int64 // bytes that were read, those on borders more than once
}

// progress tells the meter of n more bytes, but never of more than there are.
func (r *tableReads) progress(m *Meter, n int64) {
	after := r.done.Add(n)
	m.Done.Add(min(after, r.size) - min(after-n, r.size))
}

// tableRead is what is known of one table. Blocks on the borders of shards are read twice.
type tableRead struct {
	cf string
	f  rocks.LevelFile

	mu       sync.Mutex
	odd      bool
	blocks   int
	seen     []bool // blocks
	left     int    // blocks that were not read
	records  uint64
	min, max mvcc.TS // bounds of the properties; bounded: they hold for every record
	bounded  bool
}

// watch is told of what streams decode; nil without tables to read.
func (r *tableReads) watch() rocks.Watch {
	if r == nil {
		return nil
	}
	return func(f *manifest.FileMeta, table *sst.Reader) func(int, bool, *sst.Batch) {
		t := r.tables[f.Number]
		if t == nil {
			return nil
		}
		t.open(table)
		block, n, odd := -1, 0, false
		return func(b int, end bool, batch *sst.Batch) {
			if b != block {
				block, n, odd = b, 0, false
			}
			odd = odd || !t.fits(b, n == 0, end, batch)
			n += batch.Len()
			if odd || end {
				t.add(b, n, odd)
			}
		}
	}
}

func (t *tableRead) open(r *sst.Reader) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.blocks > 0 {
		return
	}
	t.blocks = r.Blocks()
	t.seen, t.left = make([]bool, t.blocks), t.blocks
	if t.cf == CFWrite {
		t.min, t.max, t.bounded = mvcc.PropTS(r.Props().All, r.Props().NumRangeDels)
	}
}

// add notes a block.
func (t *tableRead) add(block, n int, odd bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.odd = t.odd || odd; t.odd || t.left == 0 || t.seen[block] {
		return
	}
	t.seen[block] = true
	t.records += uint64(n)
	if t.left--; t.left == 0 {
		t.seen = nil
	}
}

// fits tells whether the records of a batch are what the MANIFEST and the properties say; start and end: it is the first, the last of its block.
func (t *tableRead) fits(block int, start, end bool, b *sst.Batch) bool {
	n := b.Len()
	if n == 0 || block == 0 && start && keyBefore(b.Key(0), t.f.Smallest) || block == t.blocks-1 && end && keyBefore(t.f.Largest, b.Key(n-1)) {
		return false
	}
	for i := range n {
		if seq := b.Trailer(i) >> 8; seq < t.f.SmallestSeq || seq > t.f.LargestSeq {
			return false
		}
	}
	for i := 0; t.bounded && i < n; i++ {
		u := b.User(i)
		if len(u) < 8 {
			continue
		}
		if ts := mvcc.KeyTS(u); ts < t.min || ts > t.max {
			if _, _, ok := mvcc.SplitKey(u); ok {
				return false
			}
		}
	}
	return true
}

// whole tells whether the other blocks of a table are good as well, and the number of records is right.
func (t *tableRead) whole(r *sst.Reader) bool {
	dels, err := r.RangeDels()
	if err != nil || r.VerifyMetaChecksums() != nil {
		return false
	}
	for _, d := range dels {
		if d.Seq < t.f.SmallestSeq || d.Seq > t.f.LargestSeq {
			return false
		}
	}
	want := r.Props().NumEntries
	return want == 0 || want == t.records+uint64(len(dels))
}

// meets tells whether a shard has keys in common with one of the ranges, which are those of damaged tables.
func (w *shard) meets(bad []span) bool {
	for _, p := range w.parts {
		for _, b := range bad {
			if bytes.Compare(b.lower, p.upper) < 0 && bytes.Compare(b.upper, p.lower) > 0 {
				return true
			}
		}
	}
	return false
}
