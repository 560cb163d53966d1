package mvcc

import "encoding/binary"

// Shared lock: several transactions hold one key. Since release 8.5.6.
//
//	+--------+--------------------+--------------------+-------------------------------+
//	| 'H' 48 | 'i' 69 | flags u8  | 'h' 68 | n varint  | n x compact bytes, each an    |
//	|        | (optional)         |                    | ordinary lock of type L or S  |
//	+--------+--------------------+--------------------+-------------------------------+
//
// flags bit 0: shrink only; other bits are refused. The order of the n locks is that of a hash map. n can be 0.
// Source: tikv components/txn_types/src/lock.rs (SharedLocks), master.
type sharedRecord struct {
	head  []byte   // everything before the count: 'H', the flags, 'h'
	inner [][]byte // the records, as they are
	tail  []byte
}

const sharedWhat = "shared lock record"

func parseShared(b []byte) (sharedRecord, error) {
	r := reader{what: sharedWhat, b: b}
	var s sharedRecord
	if t := r.u8("type"); r.err == nil && t != LockShared {
		r.fail("type %#x", t)
	}
	tag := r.u8("tag")
	if tag == 'i' {
		if flags := r.u8("flags"); flags&^1 != 0 {
			r.fail("unknown flags %#x", flags)
		}
		tag = r.u8("tag")
	}
	if r.err == nil && tag != 'h' {
		r.fail("tag %#x instead of 'h'", tag)
	}
	s.head = b[:r.off]
	n := r.count("number of locks", 1)
	for i := 0; i < n && r.err == nil; i++ {
		s.inner = append(s.inner, r.compact("lock"))
	}
	s.tail = b[r.off:]
	return s, r.err
}

// ParseLocks decodes a lock-CF value of any kind. An ordinary lock gives one element; a shared one gives its inner locks in
// the order of the record, possibly none. Slices alias b.
func ParseLocks(b []byte) (locks []Lock, shared bool, err error) {
	if len(b) == 0 || b[0] != LockShared {
		l, err := ParseLock(b)
		if err != nil {
			return nil, false, err
		}
		return []Lock{l}, false, nil
	}
	s, err := parseShared(b)
	if err != nil {
		return nil, true, err
	}
	for i, rec := range s.inner {
		l, err := ParseLock(rec)
		if err != nil {
			return nil, true, formatErr(sharedWhat, 0, "lock %d of %d: %v", i+1, len(s.inner), err)
		}
		if l.Type != LockLock && l.Type != LockPessimistic {
			return nil, true, formatErr(sharedWhat, 0, "lock %d of %d has type %q", i+1, len(s.inner), l.Type)
		}
		locks = append(locks, l)
	}
	return locks, true, nil
}

// RemoveShared re-encodes a shared lock without the inner locks that drop names. Flags, the order, the bytes of the locks
// that stay and an unknown tail are preserved. With left = 0 nobody holds the key any more and the record should be deleted.
func RemoveShared(b []byte, drop func(Lock) bool) (out []byte, left int, err error) {
	locks, shared, err := ParseLocks(b)
	if err != nil {
		return nil, 0, err
	}
	if !shared {
		return nil, 0, formatErr(sharedWhat, 0, "not a shared lock")
	}
	s, err := parseShared(b)
	if err != nil {
		return nil, 0, err
	}
	kept := s.inner[:0:0]
	for i, rec := range s.inner {
		if !drop(locks[i]) {
			kept = append(kept, rec)
		}
	}
	out = append(make([]byte, 0, len(b)), s.head...)
	out = binary.AppendUvarint(out, uint64(len(kept)))
	for _, rec := range kept {
		out = appendCompact(out, rec)
	}
	return append(out, s.tail...), len(kept), nil
}
