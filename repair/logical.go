package repair

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// logicalPass computes the effect on the write column family. Only files that the rewrite set chooses are merged, unless every
// record has to be looked at for fences (unknown safe point).
//
// Why that is exact: every physical copy of a record above T, tombstones included, lies in the logs or in a file whose max_ts is
// above T, and those are all in the set; range tombstones apply from every file. (A SingleDelete does not count for max_ts; TiKV writes
// none.)
func (w *Rewinder) logicalPass(ctx context.Context) (*Effect, error) {
	total := newEffect()
	if w.quiet(ctx) {
		w.changed, w.fenced = total.changed, total.fenced
		return total, nil
	}
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
	w.changed, w.fenced = total.changed, total.fenced
	total.bytesRead = w.store.DB.BytesRead() - before
	return total, nil
}

type shard struct{ lower, upper []byte }

// shards cuts the data range on user-key borders, so that no key's versions lie in two shards, into parts of about as many bytes of
// the files that are read.
func (w *Rewinder) shards() ([]shard, error) {
	type cut struct {
		at   []byte
		size uint64
	}
	var cuts []cut
	var sum uint64
	add := func(user []byte, size uint64) {
		if b, ok := mvcc.RowBorder(user); ok {
			cuts = append(cuts, cut{b, size})
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
	slices.SortFunc(cuts, func(a, b cut) int { return bytes.Compare(a.at, b.at) })
	out := []shard{{lower: []byte{'z'}}}
	var at uint64
	for _, c := range cuts {
		if at += c.size; at*uint64(want) < sum*uint64(len(out)) || len(out) >= want {
			continue
		}
		if last := &out[len(out)-1]; bytes.Compare(c.at, last.lower) > 0 {
			last.upper = c.at
			out = append(out, shard{lower: c.at})
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
	for held := 0; p.in.Valid(); {
		if err := p.stretch(); err != nil {
			return err
		}
		if !p.in.Valid() {
			break
		}
		if err := p.nextRow(); err != nil {
			return err
		}
		if p.rows++; p.rows >= held+256 {
			held = p.rows
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

func (p *pass) begin(prefix []byte) {
	p.row = append(p.row[:0], prefix...)
	p.lostPD, p.table = false, nil
}

// stretch takes the rows ahead that lie in one table alone, as most rows do, and have nothing about them that needs a second look. It
// decides each as nextRow would and leaves the others, and what may go on behind the stretch, to that.
func (p *pass) stretch() error {
	b, from, to := p.in.Stretch()
	if b == nil {
		return p.in.Err()
	}
	i := from
	for i < to {
		prefix, _, ok := mvcc.SplitKey(b.User(i))
		if !ok {
			break
		}
		j := i + 1
		for n := len(prefix); j < to && len(b.User(j)) == n+8 && b.Shares(j, n); j++ {
		}
		if j == to {
			break
		}
		plain, err := p.plainRow(b, i, j, prefix)
		if err != nil {
			return err
		}
		if !plain {
			break
		}
		i = j
		p.rows++
	}
	if i == from {
		return nil
	}
	p.in.Skip(i - from)
	return p.moved(i - from)
}

// plainRow takes the row of records i to j-1, whole and in one table, unless its fences have to be looked at.
func (p *pass) plainRow(b *sst.Batch, i, j int, prefix []byte) (bool, error) {
	atT := i
	for ; atT < j && mvcc.KeyTS(b.User(atT)) > p.w.o.T; atT++ {
		if ikey.Kind(b.Trailer(atT)) == ikey.KindBlobIndex {
			return false, nil
		}
	}
	if atT > i && p.fences && !p.in.Alone() {
		return false, nil // the record below T that counts may be in a file that is left out
	}
	for k := atT; k < j; k++ {
		switch ikey.Kind(b.Trailer(k)) {
		case ikey.KindPut:
			if w, err := mvcc.PeekWrite(b.Value(k)); err != nil || w.Fence > p.w.o.T {
				return false, nil
			}
		case ikey.KindBlobIndex:
			return false, nil
		}
	}
	if atT == i {
		return true, nil
	}
	p.in.Touch()
	p.begin(prefix)
	for k := i; k < atT; k++ {
		u := b.User(k)
		if k > i && b.Shares(k, len(u)) || ikey.Kind(b.Trailer(k)) != ikey.KindPut {
			continue // hidden by the one before, or a deletion
		}
		if err := p.lose(u, b.Value(k)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// nextRow takes all records of the row that the pass stands in.
func (p *pass) nextRow() error {
	prefix, _, ok := mvcc.SplitKey(p.in.User())
	if !ok {
		return p.w.corrupt(p.in.User(), "not a transactional key")
	}
	p.begin(prefix)
	p.atT = mvcc.AppendTS(append(p.atT[:0], prefix...), p.w.o.T)
	p.last = p.last[:0]
	for p.inRow() && bytes.Compare(p.in.User(), p.atT) < 0 {
		p.in.Touch() // whatever it is: it goes
		if p.visible() {
			if p.in.Kind() == ikey.KindBlobIndex {
				return p.blob()
			}
			if err := p.lose(p.in.User(), p.in.Value()); err != nil {
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
			w, err := p.peek(p.in.User(), p.in.Value())
			if err != nil {
				return err
			}
			if w.Fence > p.w.o.T && p.isSet() {
				p.in.Touch()
				if f := p.in.File(); f != nil {
					p.e.fenced[f.Number] = true
				}
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
	return p.moved(1)
}

// moved counts records that have been passed.
func (p *pass) moved(n int) error {
	if p.n += n; p.n >= 4096 {
		p.n = 0
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

func (p *pass) peek(user, value []byte) (mvcc.Peeked, error) {
	w, err := mvcc.PeekWrite(value)
	if err != nil {
		err = p.w.corrupt(user, err.Error())
	}
	return w, err
}

func (p *pass) blob() error {
	return &base.Error{Class: base.ErrUnsupported, Op: "rewind", Path: p.w.store.Layout.KVDir, Offset: -1, CF: scan.CFWrite, Key: bytes.Clone(p.in.User()),
		Reason: "a write record lies in a Titan blob file", Next: "TiKV keeps the write column family out of Titan; this store was configured by hand"}
}

// lose accounts for a record of the row that is visible and above T.
func (p *pass) lose(u, value []byte) error {
	d, err := p.peek(u, value)
	if err != nil {
		return err
	}
	if p.table == nil {
		p.table = p.e.table(p.names.of(p.row))
	}
	p.e.lose(mvcc.KeyTS(u), int64(len(u)+len(value)), p.table)
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
