// Package ikey has what every part of the RocksDB reader shares: record kinds, the order of internal keys, and the
// iterator contract.
//
//	internal key : user key bytes | u64 little endian (sequence << 8 | kind)
//
// Order: user key ascending bytewise, then the packed u64 descending, so that the newest record of a key comes first.
// Source: tikv/rocksdb 8.10.tikv db/dbformat.h (ValueType, ParsedInternalKey, InternalKeyComparator).
package ikey

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Kind is the record type in the low byte of an internal key's trailer.
type Kind uint8

// The record types that a TiKV store may hold. Others are refused.
const (
	KindDelete       Kind = 0x00
	KindPut          Kind = 0x01
	KindMerge        Kind = 0x02 // refused
	KindSingleDelete Kind = 0x07
	KindRangeDelete  Kind = 0x0F
	KindBlobIndex    Kind = 0x11 // Titan, in every TiKV fork
)

// String gives the name used in dumps and errors.
func (k Kind) String() string {
	switch k {
	case KindDelete:
		return "delete"
	case KindPut:
		return "put"
	case KindMerge:
		return "merge"
	case KindSingleDelete:
		return "single-delete"
	case KindRangeDelete:
		return "range-delete"
	case KindBlobIndex:
		return "blob-index"
	}
	return fmt.Sprintf("kind-0x%02X", uint8(k))
}

// MaxSeq is the largest sequence number, 2^56-1.
const MaxSeq = uint64(1)<<56 - 1

// RangeDelSentinel is the trailer of a file boundary that is the exclusive end of a range tombstone.
const RangeDelSentinel = MaxSeq<<8 | uint64(KindRangeDelete)

// Pack makes a trailer.
func Pack(seq uint64, k Kind) uint64 { return seq<<8 | uint64(k) }

// Key is an internal key taken apart.
type Key struct {
	User []byte
	Seq  uint64
	Kind Kind
}

// Decode takes an encoded internal key apart; the result aliases b. It reports false when b is shorter than a trailer.
func Decode(b []byte) (Key, bool) {
	if len(b) < 8 {
		return Key{}, false
	}
	t := binary.LittleEndian.Uint64(b[len(b)-8:])
	return Key{User: b[:len(b)-8], Seq: t >> 8, Kind: Kind(t)}, true
}

// Append encodes k behind dst.
func (k Key) Append(dst []byte) []byte {
	dst = append(dst, k.User...)
	return binary.LittleEndian.AppendUint64(dst, Pack(k.Seq, k.Kind))
}

// Encode gives the bytes of k.
func (k Key) Encode() []byte { return k.Append(make([]byte, 0, len(k.User)+8)) }

// Clone copies the user key.
func (k Key) Clone() Key {
	k.User = append([]byte(nil), k.User...)
	return k
}

// String prints user key in hex, sequence and kind.
func (k Key) String() string { return fmt.Sprintf("%X@%d:%s", k.User, k.Seq, k.Kind) }

// Compare orders internal keys: negative when a comes first.
func Compare(a, b Key) int {
	if c := bytes.Compare(a.User, b.User); c != 0 {
		return c
	}
	ta, tb := Pack(a.Seq, a.Kind), Pack(b.Seq, b.Kind)
	switch {
	case ta > tb:
		return -1
	case ta < tb:
		return 1
	}
	return 0
}

// RangeDel is a range tombstone: it hides records of [Start, End) with a sequence below Seq.
type RangeDel struct {
	Start, End []byte
	Seq        uint64
}

// Iter walks point records of one source, or of several merged, in the order of Compare: every record, nothing hidden.
// Key and Value alias memory that the next call may overwrite. After false, Err tells whether it was the end.
type Iter interface {
	First() bool
	// SeekGE goes to the newest record of the first user key >= user.
	SeekGE(user []byte) bool
	Next() bool
	Key() Key
	Value() []byte
	Err() error
	Close() error
}
