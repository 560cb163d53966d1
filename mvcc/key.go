// Package mvcc knows how TiKV lays multi-version data over three column families: keys, write records, locks, what is
// visible at a timestamp, what a rewind to T does to each record, and the table properties TiKV computes over them.
// It is pure: no files, no clock, no logging.
package mvcc

import (
	"encoding/binary"
	"fmt"
)

// FormatError says which bytes of a key or record do not decode. Callers add the file or key they came from.
type FormatError struct {
	What   string // "write record", "lock record", "encoded bytes", ...
	Offset int    // byte offset inside the record
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: offset %d: %s", e.What, e.Offset, e.Reason)
}

func formatErr(what string, off int, format string, args ...any) error {
	return &FormatError{What: what, Offset: off, Reason: fmt.Sprintf(format, args...)}
}

// DataPrefix is the first byte of every key that belongs to a region.
const DataPrefix = 'z'

const (
	groupSize = 8
	encGroup  = groupSize + 1
	tsLen     = 8
)

// Memcomparable bytes: groups of eight, each followed by a marker, so that the encoded forms sort like the raw ones and
// none is a prefix of another.
//
//	+--------------------+--------+-----+------------------------------+-------------+
//	| 8 data bytes       | 0xFF   | ... | 8-p data bytes, p zero bytes | 0xFF-p      |
//	+--------------------+--------+-----+------------------------------+-------------+
//	  a full group, more follow           the last group, p = 1..8
//
// The last group is always there: n raw bytes give (n/8+1)*9 encoded ones.
// Source: tikv components/codec/src/byte.rs (MemComparableByteCodec), master.

// EncodeBytes appends the memcomparable form of raw to dst.
func EncodeBytes(dst, raw []byte) []byte {
	for len(raw) >= groupSize {
		dst = append(dst, raw[:groupSize]...)
		dst = append(dst, 0xFF)
		raw = raw[groupSize:]
	}
	pad := groupSize - len(raw)
	dst = append(dst, raw...)
	for range pad {
		dst = append(dst, 0)
	}
	return append(dst, 0xFF-byte(pad))
}

// DecodeBytes decodes one memcomparable string at the start of enc and returns what follows it. It refuses a marker below
// 0xF7, padding that is not zero, and a missing last group.
func DecodeBytes(enc []byte) (raw, rest []byte, err error) {
	n, err := encodedLen(enc)
	if err != nil {
		return nil, nil, err
	}
	return appendDecoded(make([]byte, 0, n/encGroup*groupSize), enc[:n]), enc[n:], nil
}

// encodedLen is the length of the memcomparable string at the start of enc, fully checked.
func encodedLen(enc []byte) (int, error) {
	for off := 0; ; off += encGroup {
		if len(enc)-off < encGroup {
			return 0, formatErr("encoded bytes", off, "the last group is missing")
		}
		marker := enc[off+groupSize]
		if marker == 0xFF {
			continue
		}
		if marker < 0xFF-groupSize {
			return 0, formatErr("encoded bytes", off+groupSize, "marker %#x is below 0xf7", marker)
		}
		for i := groupSize - int(0xFF-marker); i < groupSize; i++ {
			if enc[off+i] != 0 {
				return 0, formatErr("encoded bytes", off+i, "padding is %#x instead of 0", enc[off+i])
			}
		}
		return off + encGroup, nil
	}
}

// appendDecoded appends the raw bytes of enc, which encodedLen has checked and which ends with its last group.
func appendDecoded(dst, enc []byte) []byte {
	last := len(enc) - encGroup
	for off := 0; off < last; off += encGroup {
		dst = append(dst, enc[off:off+groupSize]...)
	}
	pad := int(0xFF - enc[len(enc)-1])
	return append(dst, enc[last:last+groupSize-pad]...)
}

// Data keys, as they are in the DB. The timestamp is inverted so that the newest version of a key sorts first.
//
//	lock CF     'z' | enc(user key)
//	write CF    'z' | enc(user key) | u64 BE ^commit_ts     (Rollback: ^start_ts)
//	default CF  'z' | enc(user key) | u64 BE ^start_ts
//
// Source: tikv components/keys/src/lib.rs (data_key), components/txn_types/src/types.rs (Key), master.

// LockKey is the lock-CF key of a user key. It is also the prefix of the key's rows in the other two column families.
func LockKey(user []byte) []byte {
	k := make([]byte, 0, 1+(len(user)/groupSize+1)*encGroup+tsLen)
	return EncodeBytes(append(k, DataPrefix), user)
}

// DataKey is the key of one version: in the write CF with its commit_ts, in the default CF with its start_ts.
func DataKey(user []byte, ts TS) []byte { return AppendTS(LockKey(user), ts) }

// AppendTS appends the inverted big-endian timestamp to a prefix made by LockKey or cut off by SplitKey.
func AppendTS(prefix []byte, ts TS) []byte {
	return binary.BigEndian.AppendUint64(prefix, ^uint64(ts))
}

// SplitKey takes a transactional data key of the write or default CF apart. The prefix is 'z'|enc(user key) and aliases
// dbKey. ok is false for everything that cannot be such a key: another first byte, a length that leaves no whole groups, a
// bad marker or padding; so UserKey of a prefix from here always succeeds.
func SplitKey(dbKey []byte) (prefix []byte, ts TS, ok bool) {
	n := len(dbKey) - tsLen
	if n < 1+encGroup || (n-1)%encGroup != 0 || dbKey[0] != DataPrefix {
		return nil, 0, false
	}
	if !isEncoded(dbKey[1:n]) {
		return nil, 0, false
	}
	return dbKey[:n:n], TS(^binary.BigEndian.Uint64(dbKey[n:])), true
}

// RowBorder moves any byte string that begins with 'z', as the separators of an index block do that RocksDB has shortened, down to where no
// row is cut: either all keys of a row (its lock key, and its versions in the write and default CF) are below the border, or none is. It
// aliases key; ok is false for another first byte.
//
// Only a string that goes on behind a whole prefix can stand between the versions of that row; the row begins at its prefix.
func RowBorder(key []byte) (border []byte, ok bool) {
	if len(key) == 0 || key[0] != DataPrefix {
		return nil, false
	}
	for end := 1 + encGroup; end <= len(key); end += encGroup {
		if key[end-1] != 0xFF {
			return key[:end:end], true
		}
	}
	return key[:len(key):len(key)], true
}

// KeyTS is the timestamp of a key that SplitKey has accepted, or of one with the prefix and length of such a key.
func KeyTS(dbKey []byte) TS { return TS(^binary.BigEndian.Uint64(dbKey[len(dbKey)-tsLen:])) }

// isEncoded reports whether enc is exactly one memcomparable string. It does not allocate.
func isEncoded(enc []byte) bool {
	last := len(enc) - encGroup
	if last < 0 || last%encGroup != 0 {
		return false
	}
	for off := groupSize; off < last; off += encGroup {
		if enc[off] != 0xFF {
			return false
		}
	}
	pad := int(0xFF - enc[len(enc)-1])
	if pad < 1 || pad > groupSize {
		return false
	}
	for _, b := range enc[last+groupSize-pad : last+groupSize] {
		if b != 0 {
			return false
		}
	}
	return true
}

// UserKey decodes 'z'|enc(user key), the form of a lock-CF key and of a SplitKey prefix. It refuses anything after it.
func UserKey(prefix []byte) ([]byte, error) { return AppendUserKey(nil, prefix) }

// AppendUserKey is UserKey into a buffer of the caller.
func AppendUserKey(dst, prefix []byte) ([]byte, error) {
	if len(prefix) == 0 || prefix[0] != DataPrefix {
		return dst, formatErr("data key", 0, "does not start with 'z'")
	}
	n, err := encodedLen(prefix[1:])
	if err != nil {
		return dst, err
	}
	if 1+n != len(prefix) {
		return dst, formatErr("data key", 1+n, "%d bytes after the encoded user key", len(prefix)-1-n)
	}
	return appendDecoded(dst, prefix[1:]), nil
}
