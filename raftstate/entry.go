package raftstate

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// EntryType is eraftpb.EntryType.
type EntryType int32

// The types of a log entry.
const (
	EntryNormal       EntryType = 0
	EntryConfChange   EntryType = 1
	EntryConfChangeV2 EntryType = 2
)

// String gives the protobuf name.
func (t EntryType) String() string {
	switch t {
	case EntryNormal:
		return "Normal"
	case EntryConfChange:
		return "ConfChange"
	case EntryConfChangeV2:
		return "ConfChangeV2"
	}
	return strconv.Itoa(int(t))
}

// MarshalText gives String.
func (t EntryType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Entry is eraftpb.Entry. In bytes, fields that are zero left out:
//
//	1 entry_type  enum    Normal 0, ConfChange 1, ConfChangeV2 2
//	2 term        u64
//	3 index       u64
//	4 data        bytes   a command (see Decode); empty: the no-op of a new leader
//	6 context     bytes   one byte of ProposalContext bits: 1 sync log, 2 split, 4 prepare merge, 8 commit merge, 16 rollback merge
//	5 sync_log    bool    legacy
//
// Source: pingcap/kvproto proto/eraftpb.proto; tikv/tikv components/raftstore/src/store/peer.rs (ProposalContext).
type Entry struct {
	Type    EntryType `json:"entry_type"`
	Term    uint64    `json:"term"`
	Index   uint64    `json:"index"`
	Data    []byte    `json:"-"`
	Context Key       `json:"context,omitempty"`
	Raw     []byte    `json:"-"` // to write an entry again, copy these bytes
}

// ParseEntry decodes an entry without copying: Data, Context and Raw are parts of b. Errors are of class ErrCorrupt.
func ParseEntry(b []byte) (Entry, error) {
	e := Entry{Raw: b}
	rest := b
	for len(rest) > 0 {
		n, t, tag := protowire.ConsumeTag(rest)
		if tag < 0 {
			return Entry{}, &DecodeError{What: "Entry", Err: protowire.ParseError(tag)}
		}
		rest = rest[tag:]
		var size int
		switch {
		case t == protowire.VarintType:
			var v uint64
			v, size = protowire.ConsumeVarint(rest)
			switch n {
			case 1:
				e.Type = EntryType(int32(v))
			case 2:
				e.Term = v
			case 3:
				e.Index = v
			}
		case t == protowire.BytesType:
			var v []byte
			v, size = protowire.ConsumeBytes(rest)
			switch n {
			case 4:
				e.Data = v
			case 6:
				e.Context = v
			}
		default:
			if n <= 6 {
				return Entry{}, corruptf("Entry", "field %d has wire type %d", n, t)
			}
			size = protowire.ConsumeFieldValue(n, t, rest)
		}
		if size < 0 {
			return Entry{}, &DecodeError{What: "Entry", Err: protowire.ParseError(size)}
		}
		if wantsBytes := n == 4 || n == 6; n <= 6 && wantsBytes != (t == protowire.BytesType) {
			return Entry{}, corruptf("Entry", "field %d has wire type %d", n, t)
		}
		rest = rest[size:]
	}
	return e, nil
}
