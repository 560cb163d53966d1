package mvcc

import "encoding/binary"

// Types of a write record.
const (
	WritePut      byte = 'P'
	WriteDelete   byte = 'D'
	WriteLock     byte = 'L'
	WriteRollback byte = 'R'
)

// Write is one record of the write CF: a version of a key, or the trace of a transaction that changed nothing.
//
//	+-------------+-----------------+----------------------------------------------
//	| type u8     | start_ts varint | tagged fields, each at most once, in this order
//	| P D L R     |                 |
//	+-------------+-----------------+----------------------------------------------
//	+--------+--------+-------------+
//	| 'v' 76 | len u8 | value (len) |            short value
//	+--------+--------+-------------+
//	| 'R' 52 |                                   has_overlapped_rollback
//	+--------+------------------+
//	| 'F' 46 | gc_fence u64 BE  |                0: no newer Put/Delete when it was rewritten
//	+--------+------------------+-------------------+
//	| 'l' 6C | last_change_ts   | versions varint   |
//	|        | u64 BE           |                   |
//	+--------+------------------+-------------------+
//	| 'S' 53 | txn_source varint |
//	+--------+-------------------+
//	| other  | everything from here on is kept as Tail: a newer TiKV may add fields, older ones ignore them
//
// Source: tikv components/txn_types/src/write.rs (WriteRef::parse, to_bytes), master.
type Write struct {
	Type               byte // WritePut, WriteDelete, WriteLock or WriteRollback
	StartTS            TS
	ShortValue         []byte // aliases the parsed bytes; only meaningful with HasShortValue
	HasShortValue      bool
	OverlappedRollback bool // commit_ts is also the start_ts of a transaction that was rolled back
	HasGCFence         bool
	GCFence            TS // 0: never; otherwise reads at ≥ GCFence do not see this record
	LastChange         LastChange
	TxnSource          uint64 // bit field naming writers such as CDC
	Tail               []byte // unknown fields, kept
}

// Protected reports a rollback that must not be collapsed by a later one: a Rollback whose short value is "p".
func (w Write) Protected() bool {
	return w.Type == WriteRollback && w.HasShortValue && len(w.ShortValue) == 1 && w.ShortValue[0] == 'p'
}

// NeedsDefault reports whether the value is in the default CF, in the row with the same prefix at StartTS.
func (w Write) NeedsDefault() bool { return w.Type == WritePut && !w.HasShortValue }

func isWriteType(t byte) bool {
	return t == WritePut || t == WriteDelete || t == WriteLock || t == WriteRollback
}

const writeWhat = "write record"

// ParseWrite decodes a write-CF value. Slices alias b.
func ParseWrite(b []byte) (Write, error) {
	r := reader{what: writeWhat, b: b}
	w := Write{Type: r.u8("type")}
	if r.err == nil && !isWriteType(w.Type) {
		r.off = 0
		r.fail("unknown type %#x", w.Type)
	}
	w.StartTS = TS(r.varint("start_ts"))
	for r.more() {
		switch r.u8("tag") {
		case 'v':
			w.ShortValue = r.bytes("short value", uint64(r.u8("length of the short value")))
			w.HasShortValue = true
		case 'R':
			w.OverlappedRollback = true
		case 'F':
			w.GCFence = TS(r.u64("gc_fence"))
			w.HasGCFence = true
		case 'l':
			w.LastChange = r.lastChange()
		case 'S':
			w.TxnSource = r.varint("txn_source")
		default:
			w.Tail = b[r.off-1:]
			r.off = len(b)
		}
	}
	if r.err != nil {
		return Write{}, r.err
	}
	return w, nil
}

// Append appends the record as TiKV writes it: the exact inverse of ParseWrite for every record that TiKV wrote. The short
// value must not be longer than 255 bytes.
func (w Write) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, w.Type), uint64(w.StartTS))
	if w.HasShortValue {
		dst = append(append(dst, 'v', byte(len(w.ShortValue))), w.ShortValue...)
	}
	if w.OverlappedRollback {
		dst = append(dst, 'R')
	}
	if w.HasGCFence {
		dst = binary.BigEndian.AppendUint64(append(dst, 'F'), uint64(w.GCFence))
	}
	dst = w.LastChange.append(dst)
	if w.TxnSource != 0 {
		dst = binary.AppendUvarint(append(dst, 'S'), w.TxnSource)
	}
	return append(dst, w.Tail...)
}

// Peeked is what a scan needs of a write record.
type Peeked struct {
	Type          byte
	HasShortValue bool
	Overlapped    bool // has_overlapped_rollback
	StartTS       TS
	Fence         TS  // gc_fence; 0 when absent or zero
	FenceAt       int // offset of the fence's 8 bytes in the record; 0 when absent
}

// NeedsDefault is Write.NeedsDefault.
func (p Peeked) NeedsDefault() bool { return p.Type == WritePut && !p.HasShortValue }

// PeekWrite reads a write record without allocating. It accepts exactly what ParseWrite accepts.
func PeekWrite(b []byte) (Peeked, error) {
	if len(b) == 0 || !isWriteType(b[0]) {
		return Peeked{}, writeError(b)
	}
	p := Peeked{Type: b[0]}
	start, n := uvarintTS(b[1:])
	if n <= 0 {
		return Peeked{}, writeError(b)
	}
	p.StartTS = TS(start)
	for off := 1 + n; off < len(b); {
		left := len(b) - off - 1
		switch b[off] {
		case 'v':
			if left < 1 || left-1 < int(b[off+1]) {
				return Peeked{}, writeError(b)
			}
			p.HasShortValue = true
			off += 2 + int(b[off+1])
		case 'R':
			p.Overlapped = true
			off++
		case 'F':
			if left < 8 {
				return Peeked{}, writeError(b)
			}
			p.FenceAt = off + 1
			p.Fence = TS(binary.BigEndian.Uint64(b[off+1:]))
			off += 9
		case 'l':
			if left < 8 {
				return Peeked{}, writeError(b)
			}
			versions, n := binary.Uvarint(b[off+9:])
			if n <= 0 || versions == 0 && binary.BigEndian.Uint64(b[off+1:]) != 0 {
				return Peeked{}, writeError(b)
			}
			off += 9 + n
		case 'S':
			_, n := binary.Uvarint(b[off+1:])
			if n <= 0 {
				return Peeked{}, writeError(b)
			}
			off += 1 + n
		default:
			return p, nil
		}
	}
	return p, nil
}

// uvarintTS is binary.Uvarint. A timestamp of a cluster takes nine bytes until the year 3084: their groups of seven bits are moved
// together all at once.
func uvarintTS(b []byte) (uint64, int) {
	const more = 0x8080808080808080
	if len(b) < 9 || b[8] >= 0x80 {
		return binary.Uvarint(b)
	}
	x := binary.LittleEndian.Uint64(b)
	if x&more != more {
		return binary.Uvarint(b)
	}
	x = x&0x007f007f007f007f | x&0x7f007f007f007f00>>1
	x = x&0x00003fff00003fff | x&0x3fff00003fff0000>>2
	x = x&0x000000000fffffff | x&0x0fffffff00000000>>4
	return x | uint64(b[8])<<56, 9
}

// writeError gives the words of ParseWrite for a record that PeekWrite refuses.
func writeError(b []byte) error {
	if _, err := ParseWrite(b); err != nil {
		return err
	}
	return formatErr(writeWhat, 0, "does not decode")
}
