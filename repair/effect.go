// Package repair changes stopped stores: the rewind pass, its preview, applying it with undo, and the proof afterwards.
package repair

import (
	"bytes"
	"context"
	"sort"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// Effect is what a rewind to T does to the data that readers see. The logical pass computes it; the physical pass writes it.
type Effect struct {
	VersionsRemoved int64
	RowsChanged     int64 // user keys with a removed Put or Delete
	BytesRemoved    int64 // keys and values of the removed write records
	DefaultRows     int64 // default-CF rows that go, those of locks included
	FencesCleared   int64
	RawRemoved      int64   // API V2 raw entries
	Oldest, Newest  mvcc.TS // of the removed versions; 0 without any
	Tables          map[string]*TableLoss
	Histogram       histogram

	Locks    []plan.LockDecision
	Problems []plan.Problem

	// write gets records with fresh sequences on top of everything: commit records made of locks, and records of files that
	// stay as they are whose gc_fence is cleared. deflt gets the deletes of default-CF rows.
	write, deflt *rocks.Run
}

// TableLoss is the part of the loss that lies in one table, or in what is no table.
type TableLoss struct {
	Name     string `json:"name"`
	Versions int64  `json:"versions"`
	Rows     int64  `json:"rows"`
	Bytes    int64  `json:"bytes"`
}

func newEffect() *Effect {
	return &Effect{Tables: map[string]*TableLoss{}, write: &rocks.Run{}, deflt: &rocks.Run{}}
}

func (e *Effect) merge(o *Effect) {
	e.VersionsRemoved += o.VersionsRemoved
	e.RowsChanged += o.RowsChanged
	e.BytesRemoved += o.BytesRemoved
	e.DefaultRows += o.DefaultRows
	e.FencesCleared += o.FencesCleared
	e.RawRemoved += o.RawRemoved
	if o.Oldest != 0 && (e.Oldest == 0 || o.Oldest < e.Oldest) {
		e.Oldest = o.Oldest
	}
	e.Newest = max(e.Newest, o.Newest)
	for n, t := range o.Tables {
		m := e.table(n)
		m.Versions += t.Versions
		m.Rows += t.Rows
		m.Bytes += t.Bytes
	}
	e.Histogram.merge(o.Histogram)
	e.write.Append(o.write)
	e.deflt.Append(o.deflt)
}

func (e *Effect) table(name string) *TableLoss {
	t := e.Tables[name]
	if t == nil {
		t = &TableLoss{Name: name}
		e.Tables[name] = t
	}
	return t
}

// lose accounts for one removed version.
func (e *Effect) lose(ts mvcc.TS, size int64, table *TableLoss) {
	e.VersionsRemoved++
	e.BytesRemoved += size
	table.Versions++
	table.Bytes += size
	if e.Oldest == 0 || ts < e.Oldest {
		e.Oldest = ts
	}
	e.Newest = max(e.Newest, ts)
	e.Histogram.add(ts, 1)
}

// TableLosses lists the loss per table, the largest first.
func (e *Effect) TableLosses() []*TableLoss {
	out := make([]*TableLoss, 0, len(e.Tables))
	for _, t := range e.Tables {
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool {
		if out[i].Versions != out[j].Versions {
			return out[i].Versions > out[j].Versions
		}
		return out[i].Name < out[j].Name
	})
	return out
}

// logicalPass computes the effect on the write column family. Only files that the rewrite set chooses are merged, unless every
// record has to be looked at for fences (unknown safe point).
//
// Why that is exact: every physical copy of a record above T, tombstones included, lies in the logs or in a file whose max_ts is
// above T, and those are all in the set; range tombstones apply from every file.
func (w *Rewinder) logicalPass(ctx context.Context) (*Effect, error) {
	total := newEffect()
	shards := w.shards()
	parts := make([]*Effect, len(shards))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.threads())
	for i, sh := range shards {
		g.Go(func() error {
			p := &pass{w: w, e: newEffect(), ctx: ctx}
			parts[i] = p.e
			return p.run(sh.lower, sh.upper)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, p := range parts {
		total.merge(p)
	}
	return total, nil
}

type shard struct{ lower, upper []byte }

// shards cuts the data range on user-key borders, so that no key's versions lie in two shards.
func (w *Rewinder) shards() []shard {
	var cuts [][]byte
	for _, f := range w.store.DB.CF(scan.CFWrite).Files() {
		if p, _, ok := mvcc.SplitKey(f.Smallest.User); ok && w.inSet(f) {
			cuts = append(cuts, p)
		}
	}
	sort.Slice(cuts, func(i, j int) bool { return bytes.Compare(cuts[i], cuts[j]) < 0 })
	want := 4 * w.threads()
	out := []shard{{lower: []byte{'z'}}}
	for i := 1; i < want && len(cuts) > 0; i++ {
		c := cuts[i*len(cuts)/want]
		if last := &out[len(out)-1]; bytes.Compare(c, last.lower) > 0 {
			last.upper = c
			out = append(out, shard{lower: c})
		}
	}
	out[len(out)-1].upper = []byte{'z' + 1}
	return out
}

// pass is the logical pass over one shard.
type pass struct {
	w      *Rewinder
	e      *Effect
	ctx    context.Context
	fences *rocks.Visible // over all files; nil while every record is looked at anyway
	row    []byte         // prefix of the current row
	table  *TableLoss
	lostPD bool // the current row lost a Put or a Delete
	n      int
}

func (p *pass) run(lower, upper []byte) (err error) {
	cf := p.w.store.DB.CF(scan.CFWrite)
	sel := p.w.inSet
	if p.w.o.SafePoint == nil {
		sel = nil
	} else {
		if p.fences, err = cf.NewVisible(lower, upper, nil); err != nil {
			return err
		}
		defer p.fences.Close()
	}
	v, err := cf.NewVisible(lower, upper, sel)
	if err != nil {
		return err
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		if err := p.record(v); err != nil {
			return err
		}
		if p.n++; p.n&4095 == 0 && p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
	}
	if err := v.Err(); err != nil {
		return err
	}
	return p.endRow()
}

func (p *pass) record(v *rocks.Visible) error {
	key, value := v.User(), v.Value()
	prefix, ts, ok := mvcc.SplitKey(key)
	if !ok {
		return p.w.corrupt(key, "not a transactional key")
	}
	if v.Kind() == ikey.KindBlobIndex {
		return &base.Error{Class: base.ErrUnsupported, Op: "rewind", Path: p.w.store.Layout.KVDir, Offset: -1, CF: scan.CFWrite, Key: bytes.Clone(key),
			Reason: "a write record lies in a Titan blob file", Next: "TiKV keeps the write column family out of Titan; this store was configured by hand"}
	}
	if !bytes.Equal(prefix, p.row) {
		if err := p.endRow(); err != nil {
			return err
		}
		p.row = append(p.row[:0], prefix...)
		p.lostPD, p.table = false, nil
	}
	d, err := mvcc.Rewind(p.w.o.T, ts, value)
	if err != nil {
		return p.w.corrupt(key, err.Error())
	}
	switch d.Action {
	case mvcc.Drop:
		if p.table == nil {
			p.table = p.e.table(tableName(prefix))
		}
		p.e.lose(ts, int64(len(key)+len(value)), p.table)
		if d.Type == mvcc.WritePut || d.Type == mvcc.WriteDelete {
			if !p.lostPD {
				p.e.RowsChanged++
				p.table.Rows++
			}
			p.lostPD = true
		}
		if d.HasDefault {
			p.e.DefaultRows++
			p.e.deflt.Add(ikey.Key{User: mvcc.AppendTS(bytes.Clone(prefix), d.DefaultTS), Kind: ikey.KindDelete}, nil)
		}
	case mvcc.ClearFence:
		if p.fences == nil {
			p.clear(key, d.Value, v.Source())
		}
	}
	return nil
}

// endRow looks for the fence that the row's removed Put or Delete may have left behind: in the records from (key, T) down to the
// first Put or Delete. A fence above T names a Put or Delete above T that existed when it was written, so that no other row can
// have one as long as the GC safe point is at or below T.
func (p *pass) endRow() error {
	if !p.lostPD || p.fences == nil {
		return nil
	}
	for ok := p.fences.SeekGE(mvcc.AppendTS(bytes.Clone(p.row), p.w.o.T)); ok; ok = p.fences.Next() {
		prefix, ts, isTxn := mvcc.SplitKey(p.fences.User())
		if !isTxn || !bytes.Equal(prefix, p.row) {
			break
		}
		d, err := mvcc.Rewind(p.w.o.T, ts, p.fences.Value())
		if err != nil {
			return p.w.corrupt(p.fences.User(), err.Error())
		}
		if d.Action == mvcc.ClearFence {
			p.clear(p.fences.User(), d.Value, p.fences.Source())
		}
		if d.Type == mvcc.WritePut || d.Type == mvcc.WriteDelete {
			break
		}
	}
	return p.fences.Err()
}

// clear accounts for a fence. The physical pass clears it in place when the record lies in the logs or in a file that is
// rewritten; otherwise the record is written anew on top.
func (p *pass) clear(key, value []byte, src rocks.Source) {
	p.e.FencesCleared++
	if src.File == nil || p.w.inSet(rocks.LevelFile{Level: src.Level, FileMeta: src.File}) {
		return
	}
	p.e.write.Add(ikey.Key{User: bytes.Clone(key), Kind: ikey.KindPut}, value)
}

// tableName names the part of the key space that a row lies in.
func tableName(prefix []byte) string {
	user, err := mvcc.UserKey(prefix)
	if err != nil {
		return "undecodable keys"
	}
	return mvcc.DescribeUserKey(user).Space()
}
