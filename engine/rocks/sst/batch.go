package sst

import (
	"bytes"
	"encoding/binary"
	"sort"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Batches walks the point records of a table a block at a time: for passes that look at every record. It verifies what an iterator
// verifies. It is for one goroutine and must be closed.
type Batches struct {
	Batch
	// Watch, unless it is nil, is told of every batch that is decoded, those that SeekGE passes over included: the number of its
	// block, and whether the block ends with it.
	Watch func(block int, end bool, b *Batch)

	r   *Reader
	buf *batchBuffers
	blk int // loaded block; -1 when none
	// ahead is a stretch of the file that begins at aheadOff and holds whole blocks.
	ahead    []byte
	aheadOff uint64

	block   block
	off     int    // of the next entry of the block
	last    []byte // encoded key before the batch's first
	ordered bool   // last is the predecessor
	jumped  bool   // the next block is not read because the one before it was
	loaded  int64
	err     error
}

// Batch is what a step of Batches decoded: a block's records, or a part of them when the keys of the block share so much that they
// would take a lot of memory whole. Everything in it is valid until the next step.
type Batch struct {
	recs    []batchRec
	arena   []byte // encoded keys
	payload []byte // of the block
	stored  []byte // the block as it is in the file, with its trailer
	whole   bool
}

type batchRec struct {
	trailer   uint64 // the effective one
	key, klen uint32 // in the arena, without trailer
	val, vlen uint32 // in payload
	shared    uint32 // leading bytes of the encoded key that are those of the record before in the batch, at least
}

// batchBuffers is the memory of one Batches, handed on when it is closed.
type batchBuffers struct {
	ahead, dec, arena, last []byte
	recs                    []batchRec
}

var batchPool = sync.Pool{New: func() any { return new(batchBuffers) }}

const (
	// arenaLimit bounds the keys of one batch, one key aside.
	arenaLimit = 256 << 10
	// readAhead is what is read at once of a table that is walked in order.
	readAhead = 256 << 10
)

// NewBatches stands before the first record.
func (r *Reader) NewBatches() *Batches {
	return &Batches{r: r, buf: batchPool.Get().(*batchBuffers), blk: -1}
}

// Len is the number of records.
func (b *Batch) Len() int { return len(b.recs) }

// User is the user key of record i.
func (b *Batch) User(i int) []byte {
	r := &b.recs[i]
	return b.arena[r.key : r.key+r.klen : r.key+r.klen]
}

// Shares tells whether the user key of record i, i > 0, begins with the first n bytes of that of the record before.
func (b *Batch) Shares(i, n int) bool {
	if int(b.recs[i].shared) >= n {
		return true
	}
	u, before := b.User(i), b.User(i-1)
	return len(u) >= n && len(before) >= n && bytes.Equal(u[:n], before[:n])
}

// Trailer is sequence << 8 | kind of record i, the effective one.
func (b *Batch) Trailer(i int) uint64 { return b.recs[i].trailer }

// Key is the internal key of record i.
func (b *Batch) Key(i int) ikey.Key {
	t := b.recs[i].trailer
	return ikey.Key{User: b.User(i), Seq: t >> 8, Kind: ikey.Kind(t)}
}

// Value is the value of record i.
func (b *Batch) Value(i int) []byte {
	r := &b.recs[i]
	return b.payload[r.val : r.val+r.vlen : r.val+r.vlen]
}

// Search is the first record at or behind from whose user key is >= user, Len when there is none.
func (b *Batch) Search(from int, user []byte) int {
	// The next one is near more often than not.
	step := 1
	for from+step < len(b.recs) && bytes.Compare(b.User(from+step), user) < 0 {
		from += step
		step *= 2
	}
	hi := min(from+step, len(b.recs))
	return from + sort.Search(hi-from, func(i int) bool { return bytes.Compare(b.User(from+i), user) >= 0 })
}

// Next decodes the next batch. After false, Err tells whether it was the end.
func (b *Batches) Next() bool {
	if b.err != nil {
		return false
	}
	if n := len(b.recs); n > 0 {
		r := &b.recs[n-1]
		// The stored trailer, not the effective one, orders the keys of a file with a global sequence number.
		b.buf.last = append(b.buf.last[:0], b.arena[r.key:r.key+r.klen+8]...)
		b.last, b.ordered = b.buf.last, true
	}
	b.recs = b.recs[:0]
	for len(b.recs) == 0 {
		if b.off >= len(b.block.entries) {
			if b.blk+1 >= len(b.r.index) || !b.load(b.blk+1) {
				return false
			}
		}
		if !b.decode() {
			return false
		}
		if b.Watch != nil {
			b.Watch(b.blk, b.off >= len(b.block.entries), &b.Batch)
		}
	}
	return true
}

// SeekGE decodes the batch that holds the first record with a user key >= user, or one before it in the same block. Seeking forward
// within the present block costs nothing.
func (b *Batches) SeekGE(user []byte) bool {
	if b.err != nil {
		return false
	}
	for n := len(b.recs); n > 0 && bytes.Compare(b.User(0), user) <= 0; n = len(b.recs) {
		if bytes.Compare(b.User(n-1), user) >= 0 {
			return true
		}
		if b.off >= len(b.block.entries) {
			break
		}
		if !b.Next() {
			return false
		}
	}
	index, form := b.r.index, b.r.form
	lo := 0
	if n := len(b.recs); n > 0 && bytes.Compare(b.User(n-1), user) < 0 {
		lo = b.blk + 1
	}
	i := lo
	if lo == len(index) || bytes.Compare(form.user(index[lo].sep), user) < 0 {
		i = lo + sort.Search(len(index)-lo, func(i int) bool { return bytes.Compare(form.user(index[lo+i].sep), user) >= 0 })
	}
	if i == len(index) {
		b.recs, b.blk, b.off, b.block = b.recs[:0], len(index)-1, 0, block{}
		return false
	}
	if i != b.blk+1 || i == 0 {
		b.ordered, b.recs, b.block, b.off = false, b.recs[:0], block{}, 0
		b.blk, b.jumped = i-1, true
	}
	for b.Next() {
		if bytes.Compare(b.User(len(b.recs)-1), user) >= 0 {
			return true
		}
	}
	return false
}

func (b *Batches) corrupt(why string, args ...any) bool {
	h := b.r.index[b.blk].h
	b.err = b.r.corrupt(h.off, "data block of %d bytes: "+why, append([]any{h.size}, args...)...)
	return false
}

// load reads block i and checks where it begins.
func (b *Batches) load(i int) bool {
	h := b.r.index[i].h
	raw, err := b.read(i, !b.jumped)
	b.blk, b.jumped = i, false
	b.loaded += int64(h.size) + trailerSize
	if n := b.r.o.Read; n != nil {
		n.Add(int64(h.size) + trailerSize)
	}
	if err == nil {
		err = b.r.checksumError(h, raw)
	}
	if err == nil {
		var p []byte
		p, b.buf.dec, err = b.r.decompressed(h, raw, b.buf.dec)
		b.payload, b.stored = p, raw
	}
	if err != nil {
		b.err = err
		return false
	}
	var bad string
	if b.block, bad = parseBlock(b.payload); bad != "" {
		return b.corrupt("%s", bad)
	}
	b.off = 0
	return true
}

// read gives the stored bytes of block i. Walking in order it reads some blocks at once.
func (b *Batches) read(i int, sequential bool) ([]byte, error) {
	r := b.r
	h := r.index[i].h
	if bad := r.foot.check(h); bad != "" {
		return nil, r.corrupt(min(h.off, uint64(r.size)), "%s", bad)
	}
	end := h.off + h.size + trailerSize
	if b.ahead == nil || h.off < b.aheadOff || end > b.aheadOff+uint64(len(b.ahead)) {
		to := end
		for j := i + 1; sequential && j < len(r.index) && to < h.off+readAhead; j++ {
			next := r.index[j].h
			if e := next.off + next.size + trailerSize; next.off >= to && next.off-to < 4096 && e <= h.off+readAhead && r.foot.check(next) == "" {
				to = e
				continue
			}
			break
		}
		n := int(to - h.off)
		if cap(b.buf.ahead) < n {
			b.buf.ahead = make([]byte, max(n, min(2*n, readAhead)))
		}
		b.ahead, b.aheadOff = b.buf.ahead[:n], h.off
		if err := r.readAt(b.ahead, h.off); err != nil {
			b.ahead = nil
			return nil, err
		}
	}
	return b.ahead[h.off-b.aheadOff : end-b.aheadOff], nil
}

// decode takes the entries apart until the block or the arena ends.
func (b *Batches) decode() bool {
	var (
		entries = b.block.entries
		arena   = b.buf.arena[:0]
		recs    = b.buf.recs[:0]
		prev    = b.last // encoded key before the next entry
		ordered = b.ordered
		start   = b.off
		off     = b.off
	)
	defer func() { b.buf.arena, b.buf.recs, b.arena, b.recs, b.off = arena, recs, arena, recs, off }()
	if len(entries) > 0 && off == 0 && b.blk > 0 {
		c := cursor{block: b.block}
		first, ok := c.restartKey(0)
		if !ok {
			return b.corrupt("%s", c.bad)
		}
		if !b.r.aboveSeparator(first, b.blk-1) {
			return b.corrupt("first record is not above the separator of the block before")
		}
	}
	for off < len(entries) && len(arena) < arenaLimit {
		shared, unshared, vlen, n := entryHeader(entries[off:])
		if n == 0 {
			return b.corrupt("entry at %d of the block has no valid header", off)
		}
		p := off + n
		if uint64(unshared)+uint64(vlen) > uint64(len(entries)-p) {
			return b.corrupt("entry at %d of the block reaches beyond it", off)
		}
		s := int(shared)
		if s > len(prev) || off == 0 && s != 0 {
			return b.corrupt("entry at %d of the block shares %d bytes with no key", off, s)
		}
		suffix := entries[p : p+int(unshared)]
		size := s + len(suffix)
		if size < 8 {
			return b.corrupt("entry at %d of the block has a key of %d bytes, less than a trailer", off, size)
		}
		at := len(arena)
		if cap(arena) < at+size {
			arena = append(make([]byte, 0, max(2*cap(arena), at+size, 32<<10)), arena...) // prev goes on with the old memory
		}
		arena = arena[:at+size]
		key := arena[at : at+size : at+size]
		copy(key, prev[:s])
		copy(key[s:], suffix)
		trailer := binary.LittleEndian.Uint64(key[size-8:])
		if ordered && !ascends(prev, key, trailer, s) {
			return b.corrupt("entry at %d of the block is not above its predecessor %X", off, prev)
		}
		switch ikey.Kind(trailer) {
		case ikey.KindPut, ikey.KindDelete, ikey.KindSingleDelete, ikey.KindBlobIndex:
		case ikey.KindRangeDelete:
			return b.corrupt("range tombstone among the point records")
		default:
			e := base.Unsupportedf(b.r.path, "record type %s", kindName(ikey.Kind(trailer)))
			e.CF, e.Key = b.r.o.CF, bytes.Clone(key[:size-8])
			b.err = e
			return false
		}
		if b.r.global {
			if trailer>>8 != 0 {
				return b.corrupt("record has a sequence number of its own in a file with a global one")
			}
			trailer |= b.r.globalSeq << 8
		}
		p += len(suffix)
		recs = append(recs, batchRec{trailer: trailer, key: uint32(at), klen: uint32(size - 8), val: uint32(p), vlen: vlen, shared: uint32(max(0, min(s, size-8, len(prev)-8)))})
		prev, ordered = key, true
		off = p + int(vlen)
	}
	if b.whole = start == 0 && off >= len(entries); off >= len(entries) && len(recs) > 0 && b.r.aboveSeparator(prev, b.blk) {
		return b.corrupt("last record is above the block's separator")
	}
	return true
}

// ascends tells whether key, which shares at least s bytes with prev, comes after it; both are encoded.
func ascends(prev, key []byte, trailer uint64, s int) bool {
	pu, ku := len(prev)-8, len(key)-8
	s = min(s, pu, ku)
	if s < min(pu, ku) && prev[s] < key[s] { // where the writer shares as much as it can, this is the end of it
		return true
	}
	if d := bytes.Compare(prev[s:pu], key[s:ku]); d != 0 {
		return d < 0
	}
	return binary.LittleEndian.Uint64(prev[pu:]) > trailer
}

// Loaded is how many stored bytes have been read.
func (b *Batches) Loaded() int64 { return b.loaded }

// Err is what ended the walk before its end.
func (b *Batches) Err() error { return b.err }

// Close gives the memory back.
func (b *Batches) Close() {
	buf := b.buf
	if buf == nil {
		return
	}
	b.buf = nil
	if cap(buf.ahead) <= maxPooled && cap(buf.dec) <= maxPooled && cap(buf.arena) <= maxPooled {
		batchPool.Put(buf)
	}
	b.Batch, b.ahead, b.last, b.block = Batch{}, nil, nil, block{}
}
