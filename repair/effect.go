// Package repair changes stopped stores: the rewind pass, its preview, applying it with undo, and the proof afterwards.
package repair

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
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
	write, deflt *rocks.Spool
	// changed are the numbers of the files of the set in which a record goes or changes.
	changed map[uint64]bool
	// logChanged says the same of the logs.
	logChanged bool
	// bytesRead is what the pass has read of tables.
	bytesRead int64
}

// TableLoss is the part of the loss that lies in one table, or in what is no table.
type TableLoss struct {
	Name     string `json:"name"`
	Versions int64  `json:"versions"`
	Rows     int64  `json:"rows"`
	Bytes    int64  `json:"bytes"`
}

func newEffect() *Effect {
	return &Effect{Tables: map[string]*TableLoss{}, changed: map[uint64]bool{}, write: &rocks.Spool{}, deflt: &rocks.Spool{}}
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
	e.write.Join(o.write)
	e.deflt.Join(o.deflt)
	maps.Copy(e.changed, o.changed)
	e.logChanged = e.logChanged || o.logChanged
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
	before := w.store.DB.BytesRead()
	shards, err := w.shards()
	if err != nil {
		return nil, err
	}
	parts := make([]*Effect, len(shards))
	for _, f := range w.store.DB.CF(scan.CFWrite).Files() {
		if w.o.SafePoint == nil || w.inSet(f) {
			w.expect(int64(f.Size))
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.threads())
	for i, sh := range shards {
		g.Go(func() error {
			p := &pass{w: w, e: newEffect(), ctx: ctx}
			p.e.write = rocks.NewSpool(w.store.FS, w.spill, fmt.Sprintf("write-%06d", i))
			p.e.deflt = rocks.NewSpool(w.store.FS, w.spill, fmt.Sprintf("default-%06d", i))
			parts[i] = p.e
			if err := p.run(sh.lower, sh.upper); err != nil {
				return err
			}
			return p.hold(true)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, p := range parts {
		total.merge(p)
	}
	w.changed = total.changed
	total.bytesRead = w.store.DB.BytesRead() - before
	return total, nil
}

type shard struct{ lower, upper []byte }

// shards cuts the data range on user-key borders, so that no key's versions lie in two shards, into parts of about as many bytes of
// the files that are read.
func (w *Rewinder) shards() ([]shard, error) {
	type cut struct {
		prefix []byte
		size   uint64
	}
	var cuts []cut
	var sum uint64
	add := func(user []byte, size uint64) {
		if p, _, ok := mvcc.SplitKey(user); ok {
			cuts = append(cuts, cut{p, size})
			sum += size
		}
	}
	cf := w.store.DB.CF(scan.CFWrite)
	want := 4 * w.threads()
	var set []rocks.LevelFile
	for _, f := range cf.Files() {
		if w.o.SafePoint == nil || w.inSet(f) {
			set = append(set, f)
		}
	}
	for _, f := range set {
		if len(set) > 64*want {
			add(f.Largest.User, f.Size)
			continue
		}
		r, done, err := cf.Table(f.FileMeta)
		if err != nil {
			return nil, err
		}
		bs := r.BlockBounds()
		step := max(1, len(bs)/(2*want))
		for i := step - 1; i < len(bs); i += step {
			add(bytes.Clone(bs[i].Separator), uint64(step)*bs[i].Size)
		}
		if err := done(); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(cuts, func(a, b cut) int { return bytes.Compare(a.prefix, b.prefix) })
	out := []shard{{lower: []byte{'z'}}}
	var at uint64
	for _, c := range cuts {
		if at += c.size; at*uint64(want) < sum*uint64(len(out)) || len(out) >= want {
			continue
		}
		if last := &out[len(out)-1]; bytes.Compare(c.prefix, last.lower) > 0 {
			last.upper = c.prefix
			out = append(out, shard{lower: c.prefix})
		}
	}
	out[len(out)-1].upper = []byte{'z' + 1}
	return out, nil
}

// pass is the logical pass over one shard.
type pass struct {
	w   *Rewinder
	e   *Effect
	ctx context.Context
	in  *rocks.Pass

	// fences says that the fences of records at or below T are looked up row by row, also in files that are not in the set. Otherwise
	// every record is looked at anyway.
	fences bool
	row    []byte // prefix of the current row
	atT    []byte // row and T: where the records at or below T begin
	table  *TableLoss
	names  tableNames
	lostPD bool   // the current row lost a Put or a Delete
	last   []byte // the user key whose newest record has been seen
	n      int
	rows   int
	near   int64 // bytes that the meter knows of
	far    int64

	atDefault []byte
}

func (p *pass) run(lower, upper []byte) (err error) {
	cf := p.w.store.DB.CF(scan.CFWrite)
	sel := p.w.inSet
	if p.fences = p.w.o.SafePoint != nil; !p.fences {
		sel = nil
	}
	if p.in, err = cf.NewPass(lower, upper, sel); err != nil {
		return err
	}
	defer func() {
		if e := p.in.Close(); err == nil {
			err = e
		}
		p.meter()
		p.e.changed, p.e.logChanged = p.in.Touched(), p.in.LogTouched()
	}()
	for p.in.Valid() {
		if err := p.nextRow(); err != nil {
			return err
		}
		if p.rows++; p.rows&255 == 0 {
			if err := p.hold(false); err != nil {
				return err
			}
		}
	}
	return p.in.Err()
}

// hold keeps the new records that are in memory within the bound, for all shards together: those that still run have a half of it, those
// that have ended the other. It must be called between two rows.
func (p *pass) hold(ended bool) error {
	w := p.w
	if w.spill.Dir == "" {
		return nil
	}
	used := p.e.write.Used() + p.e.deflt.Used()
	full := used > w.spill.Limit/int64(2*w.threads())
	if ended {
		full = w.held.Add(used) > w.spill.Limit/2
	}
	if !full {
		return nil
	}
	if ended {
		w.held.Add(-used)
	}
	if err := p.e.write.Flush(); err != nil {
		return err
	}
	return p.e.deflt.Flush()
}

// nextRow takes all records of the row that the pass stands in.
func (p *pass) nextRow() error {
	prefix, _, ok := mvcc.SplitKey(p.in.User())
	if !ok {
		return p.w.corrupt(p.in.User(), "not a transactional key")
	}
	p.row = append(p.row[:0], prefix...)
	p.atT = mvcc.AppendTS(append(p.atT[:0], prefix...), p.w.o.T)
	p.lostPD, p.table, p.last = false, nil, p.last[:0]
	for p.inRow() && bytes.Compare(p.in.User(), p.atT) < 0 {
		p.in.Touch() // whatever it is: it goes
		if p.visible() {
			if err := p.lose(); err != nil {
				return err
			}
		}
		if err := p.step(); err != nil {
			return err
		}
	}
	// A fence above T names a Put or Delete above T that existed when it was written, so that no other row can have one as long as
	// the GC safe point is at or below T. It stands on a record from (key, T) down to the first Put or Delete.
	looking := !p.fences || p.lostPD
	if p.fences && looking {
		p.in.Join(p.atT)
	}
	for p.inRow() {
		seen := p.visible()
		if p.in.Kind() == ikey.KindPut {
			w, err := p.peek()
			if err != nil {
				return err
			}
			if w.Fence > p.w.o.T && p.isSet() {
				p.in.Touch()
			}
			if looking && seen {
				if w.Fence > p.w.o.T {
					if err := p.clear(); err != nil {
						return err
					}
				}
				if p.fences && (w.Type == mvcc.WritePut || w.Type == mvcc.WriteDelete) {
					looking = false
					p.in.Leave()
					continue // the record may have been one of those that left
				}
			}
		} else if seen {
			return p.blob()
		}
		if err := p.step(); err != nil {
			return err
		}
	}
	p.in.Leave()
	return p.in.Err()
}

// inRow tells whether the pass stands in the current row.
func (p *pass) inRow() bool {
	if !p.in.Valid() {
		return false
	}
	u := p.in.User()
	return len(u) == len(p.atT) && bytes.Equal(u[:len(p.row)], p.row)
}

// visible tells whether a reader would find the present record. It must be asked for each record in turn.
func (p *pass) visible() bool {
	u := p.in.User()
	if bytes.Equal(u, p.last) {
		return false
	}
	p.last = append(p.last[:0], u...)
	switch p.in.Kind() {
	case ikey.KindDelete, ikey.KindSingleDelete:
		return false
	}
	return !p.in.Covered()
}

func (p *pass) step() error {
	p.in.Next()
	if p.n++; p.n&4095 == 0 {
		p.meter()
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
	}
	return p.in.Err()
}

// meter tells how far the pass has come. What is read to look up fences was not foreseen.
func (p *pass) meter() {
	near, far := p.in.Read()
	p.w.expect(far - p.far)
	p.w.progress(near - p.near + far - p.far)
	p.near, p.far = near, far
}

// peek reads the present record.
func (p *pass) peek() (mvcc.Peeked, error) {
	w, err := mvcc.PeekWrite(p.in.Value())
	if err != nil {
		err = p.w.corrupt(p.in.User(), err.Error())
	}
	return w, err
}

func (p *pass) blob() error {
	return &base.Error{Class: base.ErrUnsupported, Op: "rewind", Path: p.w.store.Layout.KVDir, Offset: -1, CF: scan.CFWrite, Key: bytes.Clone(p.in.User()),
		Reason: "a write record lies in a Titan blob file", Next: "TiKV keeps the write column family out of Titan; this store was configured by hand"}
}

// lose accounts for the present record, which is visible and above T.
func (p *pass) lose() error {
	if p.in.Kind() == ikey.KindBlobIndex {
		return p.blob()
	}
	d, err := p.peek()
	if err != nil {
		return err
	}
	if p.table == nil {
		p.table = p.e.table(p.names.of(p.row))
	}
	u := p.in.User()
	p.e.lose(mvcc.KeyTS(u), int64(len(u)+len(p.in.Value())), p.table)
	if d.Type == mvcc.WritePut || d.Type == mvcc.WriteDelete {
		if !p.lostPD {
			p.e.RowsChanged++
			p.table.Rows++
		}
		p.lostPD = true
	}
	if d.NeedsDefault() {
		p.e.DefaultRows++
		p.atDefault = mvcc.AppendTS(append(p.atDefault[:0], p.row...), d.StartTS)
		p.e.deflt.Add(ikey.Key{User: p.atDefault, Kind: ikey.KindDelete}, nil)
	}
	return nil
}

// isSet tells whether the present record lies in the logs or in a file that is rewritten.
func (p *pass) isSet() bool {
	f := p.in.File()
	return f == nil || p.w.set[f.Number]
}

// clear accounts for the fence of the present record. The physical pass clears it in place when the record lies in the logs or in a file
// that is rewritten; otherwise the record is written anew on top.
func (p *pass) clear() error {
	p.e.FencesCleared++
	if p.isSet() {
		return nil
	}
	u := p.in.User()
	d, err := mvcc.Rewind(p.w.o.T, mvcc.KeyTS(u), p.in.Value())
	if err != nil {
		return p.w.corrupt(u, err.Error())
	}
	p.e.write.Add(ikey.Key{User: u, Kind: ikey.KindPut}, d.Value)
	return nil
}
