package scan

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// slice is a part of the key space that one thread dumps: about a table.
type slice struct {
	segs []segment
	size int64 // of the tables that end in it
}

// sliceSize is the least size of the tables of a slice; tests have it smaller.
var sliceSize int64 = 2 << 20

// border is where, at a key or a little before it, one part of the data may end and the next begin; false: nowhere.
func border(key []byte, mode RawMode) ([]byte, bool) {
	if mode == RawV1 || mode == RawV1TTL {
		return bytes.Clone(key), true // each key is a row of its own
	}
	b, ok := mvcc.RowBorder(key)
	return bytes.Clone(b), ok
}

// slices cuts segments at the ends of tables. No slice is without a segment, but when there is none at all.
func (v *View) slices(segs []segment) []slice {
	type end struct {
		key  []byte
		size int64
	}
	var ends []end
	if len(segs) > 0 {
		lower, upper := segs[0].lower, segs[len(segs)-1].upper
		for _, name := range []string{CFWrite, CFDefault} {
			for _, f := range v.s.DB.CF(name).Files() {
				at, ok := border(f.Largest.User, v.Raw)
				if ok && bytes.Compare(f.Largest.User, lower) >= 0 && bytes.Compare(f.Smallest.User, upper) < 0 {
					ends = append(ends, end{at, int64(f.Size)})
				}
			}
		}
	}
	slices.SortFunc(ends, func(a, b end) int { return bytes.Compare(a.key, b.key) })
	var out []slice
	var cur slice
	var size int64
	cut := func() {
		if cur.size += size; len(cur.segs) > 0 {
			out = append(out, cur)
			cur = slice{}
		}
		size = 0
	}
	for _, e := range ends {
		for len(segs) > 0 && bytes.Compare(segs[0].upper, e.key) <= 0 {
			cur.segs, segs = append(cur.segs, segs[0]), segs[1:]
		}
		if size += e.size; size < sliceSize {
			continue
		}
		if len(segs) > 0 && bytes.Compare(segs[0].lower, e.key) < 0 {
			head := segs[0]
			head.upper, segs[0].lower = e.key, e.key
			cur.segs = append(cur.segs, head)
		}
		cut()
	}
	cur.segs = append(cur.segs, segs...)
	cut()
	return out
}

// dump prints slices in order. Threads take them in turn, each with one Rows that goes forward from slice to slice, and run ahead of what is
// printed as far as their channels let them.
type dump struct {
	v      *View
	o      DumpOptions
	out    *bufio.Writer
	slices []slice
	res    DumpResult
}

// dumpPart is a piece of the output of a slice.
type dumpPart struct {
	out         []byte
	rows, bytes int64
	bad         []error
	end         bool // of the slice
	err         error
}

const (
	partSize = 256 << 10
	// aheadParts is how far a thread may be ahead: about the rows of one table.
	aheadParts = 32
)

var partPool = sync.Pool{New: func() any { b := make([]byte, 0, partSize+partSize/4); return &b }}

func (d *dump) run(ctx context.Context) error {
	if len(d.slices) == 0 {
		return nil
	}
	for _, s := range d.slices {
		d.o.Meter.Total.Add(s.size)
	}
	threads := min(d.v.s.threads(d.o.Threads, CFWrite, CFDefault), len(d.slices))
	ahead := aheadParts
	if m := d.v.s.o.Memory; m > 0 {
		ahead = max(1, min(ahead, int(m/8/int64(threads)/partSize)))
	}
	ctx, stop := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	parts := make([]chan dumpPart, threads)
	for i := range threads {
		parts[i] = make(chan dumpPart, ahead)
		all.Go(func() {
			defer close(parts[i])
			d.take(ctx, i, threads, parts[i])
		})
	}
	for i, s := range d.slices {
		for end := false; !end; {
			p, ok := <-parts[i%threads]
			if !ok {
				return interrupted(ctx)
			}
			if err := d.print(p); err != nil {
				return err
			}
			end = p.end
		}
		d.o.Meter.Done.Add(s.size)
	}
	return nil
}

// print puts a part out.
func (d *dump) print(p dumpPart) error {
	if _, err := d.out.Write(p.out); err != nil {
		return base.IO("write", "the output", err)
	}
	if p.out != nil && cap(p.out) <= 4*partSize {
		b := p.out[:0]
		partPool.Put(&b)
	}
	d.res.Rows += p.rows
	d.res.Bytes += p.bytes
	d.res.Bad += int64(len(p.bad))
	for _, err := range p.bad {
		if d.o.Bad != nil {
			d.o.Bad(err)
		}
	}
	d.o.Meter.Rows.Add(p.rows)
	return p.err
}

// take makes the parts of every slice whose turn it is. Slices that it does not come to the end of have an error, or the context has one.
func (d *dump) take(ctx context.Context, first, step int, to chan<- dumpPart) {
	var segs []segment
	var of []int // slice of each segment
	for i := first; i < len(d.slices); i += step {
		segs = append(segs, d.slices[i].segs...)
		for range d.slices[i].segs {
			of = append(of, i)
		}
	}
	var p dumpPart
	send := func() bool {
		select {
		case to <- p:
			p = dumpPart{}
			return true
		case <-ctx.Done():
			return false
		}
	}
	at := first
	reach := func(slice int) bool {
		for ; at < slice; at += step {
			p.end = true
			if !send() {
				return false
			}
		}
		return true
	}
	rows, err := d.v.rows(segs)
	if err == nil {
		rows.Watch(ctx, nil)
		err = d.each(rows, func() bool { return reach(of[rows.seg]) }, &p, send)
		if e := rows.Close(); err == nil {
			err = e
		}
	}
	if err != nil {
		p.err = err
		send()
		return
	}
	reach(len(d.slices))
}

// each takes the rows. enter is called before the first row that may belong to another slice, send when a part is full; once one of them
// gives false, nobody wants more.
func (d *dump) each(rows *Rows, enter func() bool, p *dumpPart, send func() bool) error {
	emit := tsvLine
	if d.o.Format == JSONL {
		emit = jsonLine
	}
	for rows.Next() {
		if !enter() {
			return nil
		}
		value, err := rows.Value()
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) {
				return err
			}
			if p.bad = append(p.bad, err); len(p.bad) >= 64 && !send() {
				return nil
			}
			continue
		}
		key, ok := d.o.clientKey(rows.UserKey())
		if !ok {
			continue
		}
		if p.out == nil {
			p.out = *partPool.Get().(*[]byte)
		}
		if p.out, err = emit(p.out, rows, key, value); err != nil {
			return err
		}
		p.rows++
		p.bytes += int64(len(key) + len(value))
		if len(p.out) >= partSize && !send() {
			return nil
		}
	}
	return rows.Err()
}
