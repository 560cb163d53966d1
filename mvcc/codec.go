package mvcc

import "encoding/binary"

// Numbers inside records: u64 is big endian, varint is unsigned LEB128 of at most ten bytes, compact bytes are a zigzag
// varint length and the bytes.
// Source: tikv components/codec/src/number.rs, components/tikv_util/src/codec/bytes.rs, master.

// reader walks a record and remembers the first error, so that decoders read like the box above them.
type reader struct {
	what string
	b    []byte
	off  int
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = formatErr(r.what, r.off, format, args...)
	}
}

func (r *reader) more() bool { return r.err == nil && r.off < len(r.b) }

func (r *reader) u8(field string) byte {
	if r.err != nil || r.off >= len(r.b) {
		r.fail("%s is missing", field)
		return 0
	}
	r.off++
	return r.b[r.off-1]
}

func (r *reader) u64(field string) uint64 {
	if r.err != nil || len(r.b)-r.off < 8 {
		r.fail("%s needs 8 bytes, %d left", field, len(r.b)-r.off)
		return 0
	}
	r.off += 8
	return binary.BigEndian.Uint64(r.b[r.off-8:])
}

func (r *reader) varint(field string) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.off:])
	if n <= 0 {
		r.fail("%s is not a varint", field)
		return 0
	}
	r.off += n
	return v
}

func (r *reader) bytes(field string, n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)-r.off) {
		r.fail("%s needs %d bytes, %d left", field, n, len(r.b)-r.off)
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off : r.off]
}

func (r *reader) compact(field string) []byte {
	if r.err != nil {
		return nil
	}
	v, n := binary.Varint(r.b[r.off:])
	if n <= 0 || v < 0 {
		r.fail("length of %s is not a varint ≥ 0", field)
		return nil
	}
	r.off += n
	return r.bytes(field, uint64(v))
}

// count reads the number of elements that follow; each needs at least min bytes, which bounds what a decoder allocates.
func (r *reader) count(field string, min int) int {
	n := r.varint(field)
	if r.err == nil && n > uint64((len(r.b)-r.off)/min) {
		r.fail("%s is %d, only %d bytes left", field, n, len(r.b)-r.off)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func appendCompact(dst, b []byte) []byte {
	return append(binary.AppendVarint(dst, int64(len(b))), b...)
}

// LastChange tells where the previous Put or Delete of a key is, seen from a Lock or Rollback record or a lock:
// the zero value is Unknown (not written), {0, n} is "none, or the newest older one is a Delete", {ts, n} is its commit_ts
// and the estimated number of records down to and including it.
type LastChange struct {
	TS       TS
	Versions uint64
}

// Known reports whether the field is written at all.
func (l LastChange) Known() bool { return l != LastChange{} }

func (r *reader) lastChange() LastChange {
	l := LastChange{TS: TS(r.u64("last_change_ts")), Versions: r.varint("versions to the last change")}
	if r.err == nil && l.TS != 0 && l.Versions == 0 {
		r.fail("last_change_ts %d with 0 versions", l.TS)
	}
	return l
}

func (l LastChange) append(dst []byte) []byte {
	if !l.Known() {
		return dst
	}
	dst = binary.BigEndian.AppendUint64(append(dst, 'l'), uint64(l.TS))
	return binary.AppendUvarint(dst, l.Versions)
}
