package raftlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// File header, all integers big endian; tikv/raft-engine 0.4.2 src/file_pipe_log/format.rs (LogFileFormat):
//
//	+0   53  magic "RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5"
//	+53   8  version u64: 1 or 2
//	+61   8  version 2 only: alignment u64, 0 = none
//
// There is no checksum, no file number and no time stamp in it.
const (
	magic       = "RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5"
	headerLenV1 = len(magic) + 8
	headerLenV2 = headerLenV1 + 8
)

// Header is the header of a log file.
type Header struct {
	Version   uint64
	Alignment uint64
	Len       int // bytes
}

// DecodeHeader reads the header at the start of b, which needs no more than the first 69 bytes of the file.
func DecodeHeader(b []byte) (Header, error) {
	if len(b) < headerLenV1 {
		return Header{}, fmt.Errorf("file header: %d bytes, needs %d", len(b), headerLenV1)
	}
	if string(b[:len(magic)]) != magic {
		return Header{}, fmt.Errorf("file header: wrong magic")
	}
	h := Header{Version: binary.BigEndian.Uint64(b[len(magic):]), Len: headerLenV1}
	switch h.Version {
	case 1:
	case 2:
		if len(b) < headerLenV2 {
			return Header{}, fmt.Errorf("file header: %d bytes, version 2 needs %d", len(b), headerLenV2)
		}
		h.Alignment, h.Len = binary.BigEndian.Uint64(b[headerLenV1:]), headerLenV2
	default:
		return Header{}, fmt.Errorf("file header: version %d", h.Version)
	}
	return h, nil
}

// signature is what a version 2 file mixes into its item checksums: the low 32 bits of its number. A recycled file still
// holds batches of its former number, and so they fail.
func signature(version, seq uint64) uint32 {
	if version == 2 {
		return uint32(seq)
	}
	return 0
}

// Log batch, one atomic unit; tikv/raft-engine 0.4.2 src/log_batch.rs (LogBatch::finish_populate, decode_header):
//
//	+0          8  u64 BE  total_len << 8 | compression (0 none, 1 LZ4)
//	+8          8  u64 BE  item_off, from the start of the batch
//	+16            entries block, item_off - 16 bytes with its checksum; absent if item_off is 16:
//	                   block bytes | CRC-32 u32 LE
//	+item_off      item section, total_len - item_off bytes:
//	                   item count uvarint | items | CRC-32 u32 LE, XOR the low 32 bits of the file number in a version 2 file
//
// The next batch follows directly. CRC is CRC-32/IEEE without masking. The header is covered by no checksum.
const batchHeaderLen = 16

type batchHeader struct {
	total       int64
	itemOff     int64
	compression byte
}

// decodeBatchHeader reads the 16 bytes of a batch header; left is the number of bytes from its start to the end of the file.
func decodeBatchHeader(b []byte, left int64) (batchHeader, error) {
	first, off := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
	total := first >> 8
	switch {
	case first&0xFF > 1:
		return batchHeader{}, fmt.Errorf("batch: compression %d", first&0xFF)
	case off < batchHeaderLen || off > total:
		return batchHeader{}, fmt.Errorf("batch: item offset %d of %d bytes", off, total)
	case total > uint64(left):
		return batchHeader{}, fmt.Errorf("batch: %d bytes, %d are left in the file", total, left)
	case total-off <= 4:
		return batchHeader{}, fmt.Errorf("batch: item section of %d bytes", total-off)
	}
	return batchHeader{total: int64(total), itemOff: int64(off), compression: byte(first)}, nil
}

// Items; tikv/raft-engine 0.4.2 src/log_batch.rs (LogItem, EntryIndexes, Command, KeyValue):
//
//	item          group uvarint | type u8 | payload
//	01 entries    count uvarint | if count > 0: first index uvarint | count × tail offset uvarint
//	02 command    01 clean  |  02 compact, index uvarint: drops entries below index
//	03 key value  01 put, key length uvarint, key, value length uvarint, value  |  02 delete, key length uvarint, key
//
// A tail offset is the end of an entry in the decoded entries block. It runs on over all entries items of the batch: an entry
// begins where the one before it ends, whatever its group.
const (
	itemEntries = 1
	itemCommand = 2
	itemKV      = 3
)

type opKind uint8

const (
	opEntries opKind = iota
	opClean
	opCompact
	opPut
	opDelete
)

// item is one decoded item. Its slices belong to the section that it was decoded from.
type item struct {
	group uint64
	op    opKind
	index uint64 // opEntries: first index; opCompact: first index that stays
	spans []span // opEntries: where each entry is in the decoded block
	key   []byte // opPut, opDelete
	value []byte // opPut
}

// span is a range of the decoded entries block. badSpan stands for one that no block can hold; reading its entry fails, but the
// engine accepts the batch, and the entry may be overwritten later.
type span struct{ off, len uint32 }

var badSpan = span{1<<32 - 1, 1<<32 - 1}

// decodeItems reads the item section without its checksum into dst[:0]. Bytes after the last counted item are ignored, as the
// engine does.
func decodeItems(dst []item, section []byte) ([]item, error) {
	r := itemReader{b: section}
	dst = dst[:0]
	var tail uint64
	for n := r.uvarint(); n > 0 && r.err == nil; n-- {
		it := item{group: r.uvarint()}
		switch t := r.byte(); t {
		case itemEntries:
			it.op = opEntries
			count := r.uvarint()
			if count == 0 {
				break
			}
			it.index = r.uvarint()
			if count > uint64(len(r.b)) { // each takes a byte at least
				r.fail("%d entries in %d bytes", count, len(r.b))
				break
			}
			if it.index+count < it.index {
				r.fail("entries beyond the largest index")
				break
			}
			it.spans = make([]span, count)
			for i := range it.spans {
				end := r.uvarint()
				if end < tail || end >= 1<<32 {
					it.spans[i] = badSpan
				} else {
					it.spans[i] = span{uint32(tail), uint32(end - tail)}
				}
				tail = end
			}
		case itemCommand:
			switch c := r.byte(); c {
			case 1:
				it.op = opClean
			case 2:
				it.op, it.index = opCompact, r.uvarint()
			default:
				r.fail("command %d", c)
			}
		case itemKV:
			switch c := r.byte(); c {
			case 1:
				it.op, it.key = opPut, r.bytes()
				it.value = r.bytes()
			case 2:
				it.op, it.key = opDelete, r.bytes()
			default:
				r.fail("key value operation %d", c)
			}
		default:
			r.fail("item type %d", t)
		}
		dst = append(dst, it)
	}
	return dst, r.err
}

type itemReader struct {
	b   []byte
	err error
}

func (r *itemReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("item: "+format, args...)
	}
	r.b = nil
}

func (r *itemReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("varint")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *itemReader) byte() byte {
	if len(r.b) == 0 {
		r.fail("cut short")
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *itemReader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("%d bytes of %d", n, len(r.b))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Atomic group marker, rewrite queue only: a put of key 5F 5F 01 whose value is one byte. Its group is a counter of the writing
// process, not a region. tikv/raft-engine src/log_batch.rs (AtomicGroupBuilder).
type atomicMark uint8

const (
	markBegin atomicMark = iota
	markMiddle
	markEnd
)

var atomicKey = []byte{0x5F, 0x5F, 0x01}

// marker finds the first atomic group marker of a batch.
func marker(items []item) (id uint64, m atomicMark, ok bool) {
	for i := range items {
		it := &items[i]
		if it.op == opPut && bytes.Equal(it.key, atomicKey) && len(it.value) == 1 {
			return it.group, atomicMark(it.value[0]), true
		}
	}
	return 0, 0, false
}

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }
