package wal

import (
	"encoding/binary"
	"iter"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// The payload of a WAL record is one write batch:
//
//	+----------------+-------------+---------------------------------------------+
//	| sequence (u64) | count (u32) | records: tag (u8), [CF id (v32)], body ...  |
//	+----------------+-------------+---------------------------------------------+
//
//	lp(x) : v32 length, then the bytes. The tag without CF id means column family 0.
//	tag (plain / with CF id)
//	0x00 / 0x04  Delete         lp(key)
//	0x01 / 0x05  Put            lp(key) lp(value)
//	0x07 / 0x08  SingleDelete   lp(key)
//	0x0F / 0x0E  DeleteRange    lp(begin) lp(end), end exclusive; note the reversed order of the tags
//	0x11 / 0x10  BlobIndex      lp(key) lp(blob index), Titan, in all TiKV forks
//	0x03         LogData        lp(blob)     consumes no sequence, not in count
//	0x0D         Noop           -            the same
//
// Data record i, from 0, has sequence header.sequence + i; count is the number of data records. Everything else that
// RocksDB knows (merge, transactions, wide columns, native blobs) TiKV does not write: refused by name.
// Source: tikv/rocksdb 8.10.tikv db/write_batch.cc (ReadRecordFromWriteBatch, WriteBatchInternal::Iterate), db/dbformat.h.
const batchHeader = 12

// Record is one data record of a write batch. For a range deletion Key.User is the begin and Value the exclusive end.
type Record struct {
	CF    uint32
	Key   ikey.Key
	Value []byte
}

// Inverted tells whether this is a range deletion that ends before it begins, which RocksDB does not insert.
func (r Record) Inverted() bool {
	return r.Key.Kind == ikey.KindRangeDelete && string(r.Key.User) > string(r.Value)
}

type tagShape struct {
	kind    ikey.Kind
	cf      bool // a CF id follows
	value   bool // a second string follows
	data    bool // consumes a sequence number
	blob    bool // one string that is no record: LogData
	refused string
}

var batchTags = map[byte]tagShape{
	0x00: {kind: ikey.KindDelete, data: true},
	0x04: {kind: ikey.KindDelete, data: true, cf: true},
	0x01: {kind: ikey.KindPut, data: true, value: true},
	0x05: {kind: ikey.KindPut, data: true, value: true, cf: true},
	0x07: {kind: ikey.KindSingleDelete, data: true},
	0x08: {kind: ikey.KindSingleDelete, data: true, cf: true},
	0x0F: {kind: ikey.KindRangeDelete, data: true, value: true},
	0x0E: {kind: ikey.KindRangeDelete, data: true, value: true, cf: true},
	0x11: {kind: ikey.KindBlobIndex, data: true, value: true},
	0x10: {kind: ikey.KindBlobIndex, data: true, value: true, cf: true},
	0x03: {blob: true},
	0x0D: {},
	0x02: {refused: "Merge"},
	0x06: {refused: "Merge"},
	0x09: {refused: "BeginPrepare"},
	0x0A: {refused: "EndPrepare"},
	0x0B: {refused: "Commit"},
	0x0C: {refused: "Rollback"},
	0x12: {refused: "BeginPersistedPrepare"},
	0x13: {refused: "BeginUnprepare"},
	0x14: {refused: "DeletionWithTimestamp"},
	0x15: {refused: "CommitXIDAndTimestamp"},
	0x16: {refused: "WideColumnEntity"},
	0x17: {refused: "WideColumnEntity"},
	0x18: {refused: "native BlobIndex"},
	0x19: {refused: "native BlobIndex"},
}

// shapes and known are batchTags as arrays: the loop below runs once per record of every WAL.
var shapes, known = func() (s [256]tagShape, k [256]bool) {
	for tag, shape := range batchTags {
		s[tag], k[tag] = shape, true
	}
	return s, k
}()

// DecodeBatch takes a write batch apart. The whole batch is checked before it returns, so that the records never end
// early; they alias payload. A range deletion may end before it begins: see Record.Inverted. An error is a *base.Error of class ErrCorrupt (Offset counts within payload) or, for a record
// that TiKV never writes, ErrUnsupported; Path is empty.
func DecodeBatch(payload []byte) (seq uint64, count uint32, records iter.Seq[Record], err error) {
	b, e := parseBatch(payload)
	if e != nil {
		return b.seq, b.count, nil, e
	}
	return b.seq, b.count, func(yield func(Record) bool) {
		it := b.records()
		for it.next() {
			if !yield(it.rec) {
				return
			}
		}
	}, nil
}

type batch struct {
	seq   uint64
	count uint32
	body  []byte
}

// parseBatch checks a whole batch.
func parseBatch(payload []byte) (batch, *base.Error) {
	if len(payload) < batchHeader {
		return batch{}, base.Corruptf("", 0, "write batch of %d bytes, below its header of %d", len(payload), batchHeader)
	}
	b := batch{seq: binary.LittleEndian.Uint64(payload), count: binary.LittleEndian.Uint32(payload[8:]), body: payload[batchHeader:]}
	if b.seq > ikey.MaxSeq || uint64(b.count) > ikey.MaxSeq-b.seq {
		return b, base.Corruptf("", 0, "sequence %d with %d records is above the largest sequence", b.seq, b.count)
	}
	it := b.records()
	for it.next() {
	}
	switch {
	case it.err != nil:
		it.err.Offset = int64(len(payload) - len(it.rest))
		return b, it.err
	case it.n != uint64(b.count):
		return b, base.Corruptf("", 8, "write batch has wrong count: header %d, records %d", b.count, it.n)
	}
	return b, nil
}

func (b batch) records() batchIter { return batchIter{seq: b.seq, rest: b.body} }

type batchIter struct {
	seq  uint64
	n    uint64 // data records so far
	rest []byte
	rec  Record
	err  *base.Error
}

// next moves to the next data record; false at the end or on an error.
func (it *batchIter) next() bool {
	for len(it.rest) > 0 {
		tag := it.rest[0]
		shape := &shapes[tag]
		switch {
		case !known[tag]:
			it.err = base.Corruptf("", 0, "unknown write batch tag 0x%02X", tag)
			return false
		case shape.refused != "":
			it.err = base.Unsupportedf("", "write batch record 0x%02X (%s)", tag, shape.refused)
			return false
		}
		rest, ok := it.rest[1:], true
		it.rec = Record{}
		if shape.cf {
			var cf uint64
			if cf, rest, ok = uvarint(rest); !ok || cf > 1<<32-1 {
				it.err = base.Corruptf("", 0, "write batch record 0x%02X: bad column family id", tag)
				return false
			}
			it.rec.CF = uint32(cf)
		}
		if shape.data || shape.blob {
			it.rec.Key.User, rest, ok = lengthPrefixed(rest)
		}
		if ok && shape.value {
			it.rec.Value, rest, ok = lengthPrefixed(rest)
		}
		if !ok {
			it.err = base.Corruptf("", 0, "write batch record 0x%02X: string runs past the end", tag)
			return false
		}
		it.rest = rest
		if shape.data {
			it.rec.Key.Seq, it.rec.Key.Kind = it.seq+it.n, shape.kind
			it.n++
			return true
		}
	}
	return false
}

// uvarint reads a varint of at most 5 bytes.
func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 || n > binary.MaxVarintLen32 {
		return 0, b, false
	}
	return v, b[n:], true
}

func lengthPrefixed(b []byte) ([]byte, []byte, bool) {
	n, rest, ok := uvarint(b)
	if !ok || n > uint64(len(rest)) {
		return nil, b, false
	}
	return rest[:n:n], rest[n:], true
}
