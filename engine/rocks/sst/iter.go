package sst

import (
	"bytes"
	"sort"
	"sync"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// blockBuffers are the memory of one iterator, handed on when it is closed.
type blockBuffers struct{ raw, dec, key, tmp []byte }

var bufferPool = sync.Pool{New: func() any { return new(blockBuffers) }}

// maxPooled keeps the buffers of an unusually large block from living on in the pool.
const maxPooled = 4 << 20

// iter is the ikey.Iter over the point records of a table within user-key bounds.
type iter struct {
	r            *Reader
	lower, upper []byte
	c            cursor
	buf          *blockBuffers
	blk          int // present block; -1 when none
	held         block
	heldAt       int // whose payload is in the buffers, verified; -1 when none
	key          ikey.Key
	valid        bool
	err          error
}

// NewIter iterates over all point records. Sequence numbers are the effective ones. Checksums are verified on every block
// read, and so are the order of records and that they lie within the index's bounds: all are ErrCorrupt.
func (r *Reader) NewIter() ikey.Iter { return r.NewIterRange(nil, nil) }

// NewIterRange iterates over the point records with user keys in [lower, upper); nil is open. The bounds must not change
// while the iterator lives.
func (r *Reader) NewIterRange(lower, upper []byte) ikey.Iter {
	it := &iter{r: r, lower: lower, upper: upper, buf: bufferPool.Get().(*blockBuffers), blk: -1, heldAt: -1}
	it.c.key, it.c.tmp = it.buf.key[:0], it.buf.tmp[:0]
	return it
}

// loadBlock makes block i the current one. Its first record must be above the separator before it: otherwise a seek would
// miss it.
func (it *iter) loadBlock(i int) bool {
	if it.heldAt == i { // seeks often come in groups
		it.c.load(it.held)
		it.blk = i
		return true
	}
	it.heldAt = -1
	e := it.r.index[i]
	payload, raw, dec, err := it.r.readBlock(e.h, it.buf.raw, it.buf.dec)
	it.buf.raw, it.buf.dec = raw, dec
	if err != nil {
		return it.fail(err)
	}
	b, bad := parseBlock(payload)
	if bad != "" {
		return it.corrupt(e.h, bad)
	}
	it.c.load(b)
	it.blk = i
	if i == 0 || len(b.entries) == 0 {
		it.held, it.heldAt = b, i
		return true
	}
	first, ok := it.c.restartKey(0)
	if !ok {
		return it.corrupt(e.h, it.c.bad)
	}
	if it.r.aboveSeparator(first, i-1) {
		it.held, it.heldAt = b, i
		return true
	}
	return it.corrupt(e.h, "first record is not above the separator of the block before")
}

// aboveSeparator tells whether an encoded internal key lies above separator i.
func (r *Reader) aboveSeparator(key []byte, i int) bool {
	sep := r.index[i].sep
	if r.form.userKey {
		return bytes.Compare(key[:len(key)-8], sep) > 0
	}
	return compareEncoded(key, sep) > 0
}

func (it *iter) fail(err error) bool {
	it.err, it.valid = err, false
	return false
}

func (it *iter) corrupt(h handle, why string) bool {
	return it.fail(it.r.corrupt(h.off, "data block of %d bytes: %s", h.size, why))
}

// First goes to the first record within the bounds.
func (it *iter) First() bool {
	if it.lower != nil {
		return it.SeekGE(it.lower)
	}
	if !it.begin() || len(it.r.index) == 0 || !it.loadBlock(0) {
		return false
	}
	return it.advance()
}

// begin forgets the position. An error stays: damage does not heal by seeking elsewhere.
func (it *iter) begin() bool {
	it.valid, it.blk, it.c.ordered = false, -1, false
	return it.err == nil
}

// SeekGE goes to the newest record of the first user key >= user within the bounds.
func (it *iter) SeekGE(user []byte) bool {
	if !it.begin() {
		return false
	}
	if it.lower != nil && bytes.Compare(user, it.lower) < 0 {
		user = it.lower
	}
	// A block whose separator has the very user key may still hold it; (user, largest sequence) sorts before all of it.
	i := sort.Search(len(it.r.index), func(i int) bool {
		return bytes.Compare(it.r.form.user(it.r.index[i].sep), user) >= 0
	})
	if i == len(it.r.index) || !it.loadBlock(i) {
		return false
	}
	if it.c.seekGE(user) {
		return it.accept()
	}
	if it.c.bad != "" {
		return it.corrupt(it.r.index[i].h, it.c.bad)
	}
	return it.advance()
}

// Next goes to the next record.
func (it *iter) Next() bool {
	if !it.valid {
		return false
	}
	return it.advance()
}

// advance goes to the next record, in the next block if need be.
func (it *iter) advance() bool {
	for !it.c.next() {
		h := it.r.index[it.blk].h
		if it.c.bad != "" {
			return it.corrupt(h, it.c.bad)
		}
		if it.c.ordered && it.r.aboveSeparator(it.c.key, it.blk) {
			return it.corrupt(h, "last record is above the block's separator")
		}
		if it.blk+1 == len(it.r.index) || it.beyondUpper() {
			it.valid = false
			return false
		}
		if !it.loadBlock(it.blk + 1) {
			return false
		}
	}
	return it.accept()
}

// beyondUpper spares the read of a block that the separator before it shows to be out of bounds.
func (it *iter) beyondUpper() bool {
	return it.upper != nil && bytes.Compare(it.r.form.user(it.r.index[it.blk].sep), it.upper) >= 0
}

// accept decodes the cursor's record.
func (it *iter) accept() bool {
	k, _ := ikey.Decode(it.c.key)
	switch k.Kind {
	case ikey.KindPut, ikey.KindDelete, ikey.KindSingleDelete, ikey.KindBlobIndex:
	case ikey.KindRangeDelete:
		return it.corrupt(it.r.index[it.blk].h, "range tombstone among the point records")
	default:
		e := base.Unsupportedf(it.r.path, "record type %s", kindName(k.Kind))
		e.CF, e.Key = it.r.o.CF, bytes.Clone(k.User)
		return it.fail(e)
	}
	if it.r.global {
		if k.Seq != 0 {
			return it.corrupt(it.r.index[it.blk].h, "record has a sequence number of its own in a file with a global one")
		}
		k.Seq = it.r.globalSeq
	}
	if it.upper != nil && bytes.Compare(k.User, it.upper) >= 0 {
		it.valid = false
		return false
	}
	it.key, it.valid = k, true
	return true
}

// kindName names the record types of RocksDB that a TiKV store does not hold.
// Source: tikv/rocksdb 8.10.tikv db/dbformat.h (ValueType).
func kindName(k ikey.Kind) string {
	switch k {
	case 0x14:
		return "deletion with timestamp (0x14)"
	case 0x16:
		return "wide-column entity (0x16)"
	case 0x19:
		return "BlobDB index (0x19)"
	}
	return k.String()
}

func (it *iter) Key() ikey.Key { return it.key }

func (it *iter) Value() []byte { return it.c.val }

func (it *iter) Err() error { return it.err }

// Close gives the buffers back. The iterator must not be used after it.
func (it *iter) Close() error {
	if b := it.buf; b != nil {
		it.buf = nil
		b.key, b.tmp = it.c.key[:0], it.c.tmp[:0]
		if cap(b.raw) <= maxPooled && cap(b.dec) <= maxPooled && cap(b.key) <= maxPooled {
			bufferPool.Put(b)
		}
		it.c, it.valid, it.blk, it.held, it.heldAt = cursor{}, false, -1, block{}, -1
		it.key = ikey.Key{}
	}
	return it.err
}
