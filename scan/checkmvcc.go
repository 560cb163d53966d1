package scan

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// records reads the data column families, in parallel: the MVCC invariants where live regions are, a count where none is, and
// keys that belong to neither data nor local state.
func (c *checker) records(ctx context.Context) error {
	if c.s.DB == nil {
		return nil
	}
	if c.o.Quick {
		c.skip("block checksums, raft log entries, data outside regions, MVCC invariants, Titan values: left out by a quick check")
		return nil
	}
	if err := c.localKeys(); err != nil {
		return err
	}
	if !c.regionsRead {
		return nil
	}
	mode, err := c.s.RawMode()
	if err != nil {
		// The table that was looked at is damaged: what the others and the MANIFEST tell is enough.
		mode = c.rawMode()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.s.threads(c.o.Threads, CFWrite, CFDefault, CFLock))
	for _, w := range c.shards(c.left(mode), mode) {
		g.Go(func() error { return w.late(ctx) })
	}
	err = g.Wait()
	c.stray(&c.bare)
	return err
}

// localKeys looks at what lies outside of the data keys: only TiKV's own records belong there.
func (c *checker) localKeys() error {
	for _, name := range []string{CFDefault, CFLock, CFWrite} {
		stray := &plan.StrayKeys{CF: name}
		for _, b := range []span{{nil, []byte{'z'}}, {[]byte{'z' + 1}, nil}} {
			v, err := c.s.DB.CF(name).NewVisible(b.lower, b.upper, nil)
			if err != nil {
				c.fail("column family "+name, err)
				continue
			}
			for ok := v.First(); ok; ok = v.Next() {
				kind, _, _, local := raftstate.ParseLocalKey(v.User())
				if !local || name != CFDefault || kind != raftstate.KeyStoreIdent && kind != raftstate.KeyBootstrapRegion && kind != raftstate.KeyStoreRecoverState {
					count(stray, v.User())
				}
			}
			if err := errors.Join(v.Err(), v.Close()); err != nil {
				c.fail("column family "+name, err)
			}
		}
		c.stray(stray)
	}
	return nil
}

// next gives the smallest user key, as a prefix, that any of the cursors stands on. Keys of no valid form are reported and skipped.
func (w *shard) next() (prefix []byte, ok bool) {
	take := func(p []byte) {
		if !ok || bytes.Compare(p, prefix) < 0 {
			prefix, ok = p, true
		}
	}
	for w.in(w.w) {
		if p, _, txn := mvcc.SplitKey(w.w.User()); txn {
			take(p)
			break
		}
		w.badRecord(CFWrite, w.w.User(), errNotTxn)
		w.w.Next()
	}
	for w.in(w.d) {
		if p, _, txn := mvcc.SplitKey(w.d.User()); txn {
			take(p)
			break
		}
		count(&w.stray, w.d.User())
		w.d.Next()
	}
	for w.in(w.l) {
		_, err := mvcc.UserKey(w.l.User())
		if err == nil {
			take(w.l.User())
			break
		}
		w.badRecord(CFLock, w.l.User(), err)
		w.l.Next()
	}
	return prefix, ok
}

var errNotTxn = errors.New("the key is not that of a transactional record")

func (w *shard) badRecord(cf string, key []byte, err error) {
	w.add(&plan.BadRecord{Store: w.c.store(), CF: cf, Key: upperHex(key), Reason: err.Error()})
}

// versions looks at one user key. Write records come by commit_ts, default rows by start_ts, both from the newest on; taking
// whichever is newer, write records first, puts every version before its row: start_ts ≤ commit_ts. A row that has come and was
// wanted by nobody is an orphan; once rows older than a wanted one come, or none, it is missing. So only what overlaps in time is
// held in memory, however many versions a key has.
func (w *shard) versions(ctx context.Context) error {
	w.wants, w.owners, w.newest, w.over, w.tainted = w.wants[:0], w.owners[:0], true, 0, false
	if w.l.ok && bytes.Equal(w.l.User(), w.key) {
		w.lock()
		w.l.Next()
	}
	return w.rest(ctx)
}

// rest is versions from the present records of the key on.
func (w *shard) rest(ctx context.Context) error {
	for {
		inW, inD := w.w.ok && sameKey(w.w.User(), w.key), w.d.ok && sameKey(w.d.User(), w.key)
		var wts, dts mvcc.TS
		if inW {
			_, wts, _ = mvcc.SplitKey(w.w.User())
		}
		if inD {
			_, dts, _ = mvcc.SplitKey(w.d.User())
		}
		switch {
		case !inW && !inD:
			w.missing(0, true)
			return nil
		case inW && (!inD || wts >= dts):
			if err := w.step(ctx, 1, w.w.User()); err != nil {
				return err
			}
			w.write(wts)
			w.w.Next()
		default:
			if err := w.step(ctx, 1, w.d.User()); err != nil {
				return err
			}
			w.row(dts)
			w.d.Next()
		}
	}
}

// lock looks at the lock of the key.
func (w *shard) lock() {
	w.counts.Locks++
	value, ok := w.value(CFLock, w.l)
	if !ok {
		w.tainted = true
		return
	}
	locks, _, err := mvcc.ParseLocks(value)
	if err != nil {
		w.tainted = true
		w.badRecord(CFLock, w.l.User(), err)
		return
	}
	for _, l := range locks {
		if l.NeedsDefault() {
			w.wants = append(w.wants, want{start: l.StartTS, lock: true})
		} else {
			// A pipelined transaction may have written a value first and something else later.
			w.owners = append(w.owners, l.StartTS)
		}
	}
}

// write looks at a write record.
func (w *shard) write(commit mvcc.TS) {
	w.counts.Writes++
	value, ok := w.value(CFWrite, w.w)
	if !ok {
		w.tainted = true
		return
	}
	p, err := mvcc.PeekWrite(value)
	if err != nil {
		w.tainted = true
		w.badRecord(CFWrite, w.w.User(), err)
		return
	}
	// An import writes start_ts = commit_ts (tikv/tikv components/sst_importer/src/sst_writer.rs), a transaction start_ts < commit_ts.
	if p.Type == mvcc.WriteRollback && p.StartTS != commit || p.StartTS > commit {
		w.add(&plan.TimestampOrder{Store: w.c.store(), Key: w.user(), Type: typeName(p.Type), CommitTS: commit, StartTS: p.StartTS})
		w.tainted = true // its row, if it has one, cannot be found in order
		if p.Type == mvcc.WritePut || p.Type == mvcc.WriteDelete {
			w.newest, w.over = false, commit
		}
		return
	}
	if p.NeedsDefault() {
		w.wants = append(w.wants, want{start: p.StartTS, commit: commit, over: w.over, newest: w.newest})
	}
	if p.Type == mvcc.WritePut || p.Type == mvcc.WriteDelete {
		w.newest, w.over = false, commit
	}
}

// row looks at a row of the default column family.
func (w *shard) row(start mvcc.TS) {
	w.counts.Values++
	i := slices.IndexFunc(w.wants, func(x want) bool { return x.start == start })
	owned := i >= 0 || slices.Contains(w.owners, start)
	if i >= 0 {
		w.wants = slices.Delete(w.wants, i, i+1)
	}
	if !owned && !w.tainted {
		w.add(&plan.OrphanRow{Store: w.c.store(), Key: w.user(), StartTS: start, SafePoint: w.c.o.SafePoint})
	}
	w.missing(start, false)
	w.value(CFDefault, w.d)
}

// missing reports the rows that can no longer come: those above start, or all at the end of the key. A version that a newer Put or
// Delete supersedes may have lost its row to a garbage collection that crashed before it removed the version itself; nobody
// reads it any more once the safe point has passed (compaction_filter.rs writes the deletions of rows first). With a known safe point that is
// told: a version that was superseded above it is still read.
func (w *shard) missing(start mvcc.TS, all bool) {
	w.wants = slices.DeleteFunc(w.wants, func(x want) bool {
		if !all && x.start <= start {
			return false
		}
		safe := w.c.o.SafePoint
		switch {
		case x.newest || x.lock:
			w.add(&plan.LostValue{Store: w.c.store(), Key: w.user(), Lock: x.lock, CommitTS: x.commit, StartTS: x.start})
		case safe != 0 && x.over > safe:
			w.add(&plan.LostValue{Store: w.c.store(), Key: w.user(), CommitTS: x.commit, StartTS: x.start, Until: x.over, SafePoint: safe})
		default:
			w.add(&plan.MissingValue{Store: w.c.store(), Key: w.user(), CommitTS: x.commit, StartTS: x.start, SafePoint: safe})
		}
		return true
	})
}

// user is the raw user key, for findings.
func (w *shard) user() string {
	u, err := mvcc.UserKey(w.key)
	if err != nil {
		return upperHex(w.key)
	}
	return upperHex(u)
}

// value resolves the value that a cursor stands on; false: it cannot be read, which has become a finding.
func (w *shard) value(cf string, it *cursor) ([]byte, bool) {
	if it.Kind() != ikey.KindBlobIndex {
		return it.Value(), true
	}
	if w.s.Titan == nil && w.s.Layout.TitanDir != "" {
		return nil, false // that the whole of Titan cannot be read has its finding
	}
	v, err := w.s.Value(cf, it.Kind(), it.User(), it.Value())
	if err == nil {
		return v, true
	}
	if w.reads != nil {
		w.again = err
		return nil, false
	}
	w.c.mu.Lock()
	var file *plan.DamagedFile
	if e := asError(err); e != nil {
		file = w.c.paths[e.Path]
	}
	if file != nil {
		file.Values++
	}
	w.c.mu.Unlock()
	if file == nil {
		w.add(&plan.UnreadableValue{Store: w.c.store(), CF: cf, Key: upperHex(it.User()), Reason: err.Error()})
	}
	return nil, false
}
