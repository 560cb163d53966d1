package mvcc

import "encoding/binary"

// Raw values. A V1 store holds the bare value. The others append to it:
//
//	V1 with TTL   value | expire u64 BE (seconds since 1970, 0 = never)
//	V2            value | [expire u64 BE] | flags u8
//
// flags bit 0: expire is there; bit 1: logical delete (the value is empty then, the whole record is 02). Other bits are
// refused. Source: tikv components/api_version/src/{api_v1ttl,api_v2}.rs, master.
const (
	rawFlagExpire = 1 << 0
	rawFlagDelete = 1 << 1
)

// First bytes of user keys in an API V2 store.
const (
	rawPrefixV2 = 'r'
	txnPrefixV2 = 'x'
)

// ParseRawV2 takes an API V2 raw value apart. expire is in seconds since 1970, 0 means never. val aliases b.
func ParseRawV2(b []byte) (val []byte, expire uint64, deleted bool, err error) {
	if len(b) == 0 {
		return nil, 0, false, formatErr("raw V2 value", 0, "flags are missing")
	}
	n := len(b) - 1
	flags := b[n]
	if flags&^(rawFlagExpire|rawFlagDelete) != 0 {
		return nil, 0, false, formatErr("raw V2 value", n, "unknown flags %#x", flags)
	}
	if flags&rawFlagExpire != 0 {
		if n < 8 {
			return nil, 0, false, formatErr("raw V2 value", 0, "expire needs 8 bytes, %d left", n)
		}
		n -= 8
		expire = binary.BigEndian.Uint64(b[n:])
	}
	return b[:n:n], expire, flags&rawFlagDelete != 0, nil
}

// AppendRawV2 is the inverse of ParseRawV2.
func AppendRawV2(dst, val []byte, expire uint64, deleted bool) []byte {
	dst = append(dst, val...)
	var flags byte
	if expire != 0 {
		dst = binary.BigEndian.AppendUint64(dst, expire)
		flags |= rawFlagExpire
	}
	if deleted {
		flags |= rawFlagDelete
	}
	return append(dst, flags)
}

// ParseRawV1TTL takes a raw value of a V1 store with TTL apart. expire is in seconds since 1970, 0 means never.
func ParseRawV1TTL(b []byte) (val []byte, expire uint64, err error) {
	n := len(b) - 8
	if n < 0 {
		return nil, 0, formatErr("raw TTL value", 0, "expire needs 8 bytes, %d there", len(b))
	}
	return b[:n:n], binary.BigEndian.Uint64(b[n:]), nil
}

// IsRawV2Key reports whether a decoded user key of an API V2 store is a raw one: 'r', keyspace id (3 bytes), key.
func IsRawV2Key(user []byte) bool { return len(user) >= 1+keyspaceLen && user[0] == rawPrefixV2 }

// IsTxnV2Key reports whether a decoded user key of an API V2 store is a transactional one with a keyspace.
func IsTxnV2Key(user []byte) bool { return len(user) >= 1+keyspaceLen && user[0] == txnPrefixV2 }

// IsRawV2Prefix reports whether 'z'‖enc(user) belongs to an API V2 raw key: the first group holds the first 8 bytes of the user
// key as they are, so that no decoding is needed.
func IsRawV2Prefix(prefix []byte) bool {
	return len(prefix) >= 1+9 && prefix[0] == 'z' && prefix[1] == rawPrefixV2 && prefix[9] >= 0xFF-(8-1-keyspaceLen)
}
