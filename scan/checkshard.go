package scan

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
)

// shardsPerThread evens out shards of different weight.
const shardsPerThread = 4

// shards makes parts of about as many bytes of tables, on the borders of user keys: none parts the versions of one. Spans that no live
// region holds stay whole, because each is one finding. The spans do not overlap.
func (c *checker) shards(spans []checkSpan, mode RawMode) []*shard {
	slices.SortFunc(spans, func(a, b checkSpan) int { return bytes.Compare(a.lower, b.lower) })
	var out []*shard
	var last *shard
	add := func(s checkSpan, cut bool) {
		if bytes.Compare(s.lower, s.upper) >= 0 {
			return
		}
		if last == nil || cut {
			last = &shard{c: c, s: c.s, mode: mode, stray: plan.StrayKeys{CF: CFDefault}}
			out = append(out, last)
		}
		last.parts = append(last.parts, s)
	}
	cuts := c.cuts(shardsPerThread*c.o.Threads, mode)
	for _, s := range spans {
		cut := false
		for len(cuts) > 0 && bytes.Compare(cuts[0], s.upper) < 0 {
			if at := cuts[0]; s.live && bytes.Compare(at, s.lower) > 0 {
				add(checkSpan{span{s.lower, at}, true}, cut)
				s.lower = at
			}
			cut, cuts = true, cuts[1:]
		}
		add(s, cut)
	}
	return out
}

// manyFiles is how many tables a shard must have for the ends of tables to be borders enough.
const manyFiles = 16

// cuts are the first keys of n parts of the data, but for the first.
func (c *checker) cuts(n int, mode RawMode) [][]byte {
	type weight struct {
		prefix []byte
		size   uint64
	}
	var all []weight
	var sum uint64
	add := func(key []byte, size uint64) {
		if at, ok := border(key, mode); ok {
			all = append(all, weight{at, size})
			sum += size
		}
	}
	for _, name := range []string{CFWrite, CFDefault} {
		cf := c.s.DB.CF(name)
		files := cf.Files()
		for _, f := range files {
			if len(files) < manyFiles*n && c.insideCuts(cf, f, n, add) {
				continue
			}
			add(f.Largest.User, f.Size)
		}
	}
	slices.SortFunc(all, func(a, b weight) int { return bytes.Compare(a.prefix, b.prefix) })
	var out [][]byte
	var at uint64
	for _, w := range all {
		if at += w.size; at*uint64(n) >= sum*uint64(len(out)+1) && len(out) < n-1 && (len(out) == 0 || bytes.Compare(w.prefix, out[len(out)-1]) > 0) {
			out = append(out, w.prefix)
		}
	}
	return out
}

// insideCuts offers borders inside a table; false: there are none.
func (c *checker) insideCuts(cf *rocks.CF, f rocks.LevelFile, n int, add func(key []byte, size uint64)) bool {
	r, done, err := cf.Table(f.FileMeta)
	if err != nil {
		return false
	}
	bs := r.BlockBounds()
	step := max(1, len(bs)/(2*n))
	for i := step - 1; i < len(bs); i += step {
		add(bs[i].Separator, uint64(step)*bs[i].Size)
	}
	_ = done() // closes an idle file at most
	return len(bs) > 0
}

// shard walks the three data column families side by side over some spans, which ascend. It is for one goroutine. What it finds is held
// back until commit.
type shard struct {
	c     *checker
	s     *Store
	parts []checkSpan
	mode  RawMode
	reads *tableReads // tables are checked on the way; nil: they have been

	at      checkSpan // the present part
	w, d, l *cursor
	track   *track
	read    int64 // bytes that the meter knows of
	n       uint64
	counts  CheckCounts
	stray   plan.StrayKeys
	found   []plan.Problem
	alike   map[string]uint64
	again   error // something that can only be judged once all tables have been read

	key     []byte    // 'z' | enc(user key) that is looked at
	wants   []want    // versions and locks of the key that wait for their default row
	owners  []mvcc.TS // start_ts of locks of the key that own a default row without needing it
	newest  bool      // no Put or Delete of the key was met yet
	over    mvcc.TS   // commit_ts of the last Put or Delete of the key that was met: what supersedes the next one
	latest  mvcc.TS   // commit_ts of the record that plain met last
	tainted bool      // a record of the key does not decode: what it owns is not known
}

// want is a default row that must exist.
type want struct {
	start, commit mvcc.TS
	over          mvcc.TS // commit_ts of the version that supersedes this one
	newest, lock  bool
}

// late looks at spans whose tables have all been read. Only an interruption is an error.
func (w *shard) late(ctx context.Context) error {
	err := w.run(ctx)
	if err == nil || isInterrupted(err) {
		w.commit()
		return err
	}
	// One part that cannot be read does not hide the others.
	for _, s := range w.parts {
		p := &shard{c: w.c, s: w.s, parts: []checkSpan{s}, mode: w.mode, stray: plan.StrayKeys{CF: CFDefault}}
		err := p.run(ctx)
		p.commit()
		if isInterrupted(err) {
			return err
		}
		if err != nil {
			w.c.fail("data", err)
			w.c.skip("some of the keys " + upperHex(s.lower) + " to " + upperHex(s.upper))
		}
	}
	return nil
}

// run looks at all parts.
func (w *shard) run(ctx context.Context) error {
	w.found, w.alike = nil, map[string]uint64{}
	defer w.close()
	if err := w.open(); err != nil {
		return err
	}
	for _, w.at = range w.parts {
		for _, it := range []*cursor{w.w, w.d, w.l} {
			it.SeekGE(w.at.lower)
		}
		look := w.outside
		if w.at.live {
			look = w.live
		}
		if err := errors.Join(look(ctx), w.err()); err != nil {
			return err
		}
	}
	return nil
}

func (w *shard) open() error {
	lower, upper := w.parts[0].lower, w.parts[len(w.parts)-1].upper
	for _, o := range []struct {
		cf string
		to **cursor
	}{{CFWrite, &w.w}, {CFDefault, &w.d}, {CFLock, &w.l}} {
		var err error
		if *o.to, err = w.s.cursor(o.cf, lower, upper, w.reads.watch()); err != nil {
			return err
		}
	}
	if w.reads != nil {
		return nil
	}
	cf := CFWrite
	if w.mode == RawV1 || w.mode == RawV1TTL {
		cf = CFDefault
	}
	w.track = newTrack(w.s.DB.CF(cf), lower, upper, w.c.o.Meter)
	return nil
}

// close gives the cursors back.
func (w *shard) close() {
	w.progress()
	w.track.end()
	for _, it := range []*cursor{w.w, w.d, w.l} {
		if it != nil {
			_ = it.Close() // what went wrong is in Err, which was looked at
		}
	}
	w.w, w.d, w.l = nil, nil, nil
}

// add keeps a finding for commit, or counts it when there are enough of its name.
func (w *shard) add(p plan.Problem) {
	if w.alike[p.Name()]++; w.alike[p.Name()] <= maxAlike {
		w.found = append(w.found, p)
	}
}

// commit makes what was found and counted a part of the result.
func (w *shard) commit() {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	res := w.c.res
	for _, p := range w.found {
		w.c.addLocked(p)
	}
	for name, n := range w.alike {
		if n > maxAlike {
			res.More[name] += n - maxAlike
		}
	}
	res.Counts.Writes += w.counts.Writes
	res.Counts.Values += w.counts.Values
	res.Counts.Locks += w.counts.Locks
	if w.stray.Records > 0 {
		bare := &w.c.bare
		bare.CF = CFDefault
		if bare.Records == 0 || w.stray.First < bare.First {
			bare.First = w.stray.First
		}
		bare.Records += w.stray.Records
	}
}

// step counts n records and looks at the context now and then.
func (w *shard) step(ctx context.Context, n int, key []byte) error {
	before := (w.n + 1023) >> 10
	w.n += uint64(n)
	passed := (w.n+1023)>>10 - before
	if passed == 0 {
		return nil
	}
	w.track.at(key)
	w.progress()
	w.c.o.Meter.Rows.Add(int64(passed) << 10)
	return interrupted(ctx)
}

// progress tells the meter what has been read, when the tables are read for the first time.
func (w *shard) progress() {
	if w.reads == nil {
		return
	}
	n := int64(0)
	for _, it := range []*cursor{w.w, w.d, w.l} {
		if it != nil {
			n += it.Read()
		}
	}
	w.reads.progress(w.c.o.Meter, n-w.read)
	w.read = n
}

func (w *shard) err() error { return errors.Join(w.w.Err(), w.d.Err(), w.l.Err(), w.again) }

// in tells whether a cursor stands inside the present part.
func (w *shard) in(it *cursor) bool { return it.ok && bytes.Compare(it.User(), w.at.upper) < 0 }

// outside counts what no live region holds.
func (w *shard) outside(ctx context.Context) error {
	found := map[string]uint64{}
	for _, o := range []struct {
		cf string
		it *cursor
	}{{CFWrite, w.w}, {CFDefault, w.d}, {CFLock, w.l}} {
		for ; w.in(o.it); o.it.Next() {
			if err := w.step(ctx, 1, o.it.User()); err != nil {
				return err
			}
			found[o.cf]++
		}
	}
	if len(found) > 0 {
		w.add(&plan.OutsideData{Store: w.c.store(), Start: upperHex(w.at.lower), End: upperHex(w.at.upper), Records: found})
	}
	return nil
}

// live joins the column families key by key.
func (w *shard) live(ctx context.Context) error {
	if w.mode == RawV1 || w.mode == RawV1TTL {
		return w.bare(ctx)
	}
	for {
		if w.mode == RawNone && !w.c.o.apart {
			if err := w.plain(ctx); err != nil {
				return err
			}
		}
		key, ok := w.next()
		if !ok {
			return nil
		}
		w.key = append(w.key[:0], key...)
		look := w.versions
		if w.mode == RawV2 && mvcc.IsRawV2Prefix(w.key) {
			look = w.rawVersions
		}
		if err := look(ctx); err != nil {
			return err
		}
	}
}
