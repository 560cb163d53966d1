package mvcc

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

const keyspaceLen = 3

// Kinds of user keys.
const (
	KeyRow   = "row"   // row of a TiDB table
	KeyIndex = "index" // entry of a TiDB index
	KeyTable = "table" // inside a TiDB table's range, neither row nor index: region boundaries
	KeyMeta  = "meta"  // TiDB schema and system metadata
	KeyRaw   = "raw"   // API V2 raw key
	KeyTxn   = "txn"   // API V2 transactional key that is not TiDB's
	KeyOther = "other"
)

// KeyInfo is a user key in TiDB's terms, as far as it parses.
//
//	row    't' | table_id i64 | "_r" | handle i64, or a common handle (columns in memcomparable form)
//	index  't' | table_id i64 | "_i" | index_id i64 | column values, memcomparable [| handle]
//	meta   'm' | enc(meta key) | type flag u64 BE | [enc(field)]
//	V2     'x' or 'r' | keyspace_id u24 BE | one of the above after 'x', anything after 'r'
//
// i64 is big endian with the sign bit flipped. A partition has its own table id.
// Source: tikv components/tidb_query_datatype/src/codec/table.rs, components/api_version/src/keyspace.rs, master.
type KeyInfo struct {
	Kind         string  `json:"kind"`
	KeyspaceID   *uint32 `json:"keyspace_id,omitempty"`
	TableID      int64   `json:"table_id,omitempty"`
	Handle       *int64  `json:"handle,omitempty"`        // integer row handle
	CommonHandle string  `json:"common_handle,omitempty"` // upper-case hex
	IndexID      int64   `json:"index_id,omitempty"`
	IndexValues  string  `json:"index_values,omitempty"` // upper-case hex: column values and handle
	MetaKey      string  `json:"meta_key,omitempty"`
	MetaType     string  `json:"meta_type,omitempty"`  // one of h H s S l L
	MetaField    string  `json:"meta_field,omitempty"` // field of a hash, printable or upper-case hex
	Rest         string  `json:"rest,omitempty"`       // what is left unparsed, upper-case hex
}

// DescribeUserKey decodes a user key (no 'z', no timestamp, memcomparable form undone). It never fails: what does not parse
// is left as hex.
func DescribeUserKey(user []byte) KeyInfo {
	if !IsTxnV2Key(user) && !IsRawV2Key(user) {
		return describe(user, KeyOther)
	}
	id := uint32(user[1])<<16 | uint32(user[2])<<8 | uint32(user[3])
	rest := user[1+keyspaceLen:]
	var k KeyInfo
	if user[0] == rawPrefixV2 {
		k = KeyInfo{Kind: KeyRaw, Rest: upperHex(rest)}
	} else {
		k = describe(rest, KeyTxn)
	}
	k.KeyspaceID = &id
	return k
}

func describe(key []byte, unknown string) KeyInfo {
	if len(key) > 0 {
		switch key[0] {
		case 't':
			if k, ok := describeTable(key[1:]); ok {
				return k
			}
		case 'm':
			if k, ok := describeMeta(key[1:]); ok {
				return k
			}
		}
	}
	return KeyInfo{Kind: unknown, Rest: upperHex(key)}
}

func describeTable(b []byte) (KeyInfo, bool) {
	if len(b) < 8 {
		return KeyInfo{}, false
	}
	k := KeyInfo{Kind: KeyTable, TableID: decodeI64(b)}
	b = b[8:]
	switch {
	case len(b) > 2 && b[0] == '_' && b[1] == 'r':
		k.Kind = KeyRow
		if b = b[2:]; len(b) == 8 {
			h := decodeI64(b)
			k.Handle = &h
		} else {
			k.CommonHandle = upperHex(b)
		}
	case len(b) >= 2+8 && b[0] == '_' && b[1] == 'i':
		k.Kind = KeyIndex
		k.IndexID = decodeI64(b[2:])
		k.IndexValues = upperHex(b[10:])
	default:
		k.Rest = upperHex(b)
	}
	return k, true
}

func describeMeta(b []byte) (KeyInfo, bool) {
	name, rest, err := DecodeBytes(b)
	if err != nil || len(rest) < 8 {
		return KeyInfo{}, false
	}
	flag := binary.BigEndian.Uint64(rest)
	if flag > 0x7F || !strings.ContainsRune("hHsSlL", rune(flag)) {
		return KeyInfo{}, false
	}
	k := KeyInfo{Kind: KeyMeta, MetaKey: printable(name), MetaType: string(rune(flag))}
	rest = rest[8:]
	if flag == 'h' {
		if field, after, err := DecodeBytes(rest); err == nil {
			k.MetaField = printable(field)
			rest = after
		}
	}
	k.Rest = upperHex(rest)
	return k, true
}

// String is short enough for a table cell: "table 70 row 100", "table 70 index 2", "meta DB:1 Table:70".
func (k KeyInfo) String() string {
	var b strings.Builder
	if k.KeyspaceID != nil {
		fmt.Fprintf(&b, "keyspace %d ", *k.KeyspaceID)
	}
	switch k.Kind {
	case KeyRow:
		fmt.Fprintf(&b, "table %d row ", k.TableID)
		if k.Handle != nil {
			b.WriteString(strconv.FormatInt(*k.Handle, 10))
		} else {
			b.WriteString(k.CommonHandle)
		}
		return b.String()
	case KeyIndex:
		fmt.Fprintf(&b, "table %d index %d %s", k.TableID, k.IndexID, k.IndexValues)
	case KeyTable:
		fmt.Fprintf(&b, "table %d %s", k.TableID, k.Rest)
	case KeyMeta:
		fmt.Fprintf(&b, "meta %s %s %s", k.MetaKey, k.MetaField, k.Rest)
	default:
		fmt.Fprintf(&b, "%s %s", k.Kind, k.Rest)
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// decodeI64 reads TiDB's integer form: big endian with the sign bit flipped. b has at least 8 bytes.
func decodeI64(b []byte) int64 {
	return int64(binary.BigEndian.Uint64(b) ^ 1<<63)
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// printable keeps plain ASCII without spaces and turns everything else into upper-case hex.
func printable(b []byte) string {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return "0x" + upperHex(b)
		}
	}
	return string(b)
}

// Space names the part of the key space for sums: the table, "meta", "keyspace N", or "other keys".
func (k KeyInfo) Space() string {
	s := "other keys"
	switch {
	case k.TableID != 0:
		s = fmt.Sprintf("table %d", k.TableID)
	case k.MetaKey != "":
		s = "meta"
	case k.Kind == KeyRaw:
		s = "raw keys"
	}
	if k.KeyspaceID != nil {
		s = fmt.Sprintf("keyspace %d, %s", *k.KeyspaceID, s)
	}
	return s
}
