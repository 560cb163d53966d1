package raftstate

import (
	"encoding/binary"
	"fmt"
)

// Local keys, tikv/tikv master components/keys/src/lib.rs (unchanged since 3.0):
//
//	StoreIdent            kv default  | 01 | 01 |
//	bootstrap Region      kv default  | 01 | 02 |
//	StoreRecoverState     kv default  | 01 | 03 |
//	Entry                 raft        | 01 | 02 | region u64be | 01 | index u64be |
//	RaftLocalState        raft        | 01 | 02 | region u64be | 02 |
//	RaftApplyState        kv raft CF  | 01 | 02 | region u64be | 03 |
//	RaftLocalState (snap) kv raft CF  | 01 | 02 | region u64be | 04 |
//	RegionLocalState      kv raft CF  | 01 | 03 | region u64be | 01 |
//
// The two-byte 01 02 and 01 03 and the longer keys that begin with them are told apart by length.
const (
	localPrefix      = 0x01
	regionRaftPrefix = 0x02
	regionMetaPrefix = 0x03

	suffixRaftLog       = 0x01
	suffixRaftState     = 0x02
	suffixApplyState    = 0x03
	suffixSnapshotState = 0x04
	suffixRegionState   = 0x01
)

// KeyKind names what a local key addresses.
type KeyKind int

// The local keys of a v1 store.
const (
	KeyUnknown KeyKind = iota
	KeyStoreIdent
	KeyBootstrapRegion
	KeyStoreRecoverState
	KeyRaftLog
	KeyRaftState
	KeyApplyState
	KeySnapshotRaftState
	KeyRegionState
)

var keyKindNames = [...]string{"unknown", "store ident", "bootstrap region", "store recover state", "raft log entry",
	"raft state", "apply state", "snapshot raft state", "region state"}

// String gives the name used in errors.
func (k KeyKind) String() string {
	if k < 0 || int(k) >= len(keyKindNames) {
		return fmt.Sprintf("KeyKind(%d)", int(k))
	}
	return keyKindNames[k]
}

func regionKey(prefix byte, region uint64, suffix byte) []byte {
	b := make([]byte, 0, 19)
	b = append(b, localPrefix, prefix)
	b = binary.BigEndian.AppendUint64(b, region)
	return append(b, suffix)
}

// StoreIdentKey is the key of StoreIdent in the default CF of the kv db.
func StoreIdentKey() []byte { return []byte{localPrefix, 0x01} }

// RegionStateKey is the key of RegionLocalState in the raft CF of the kv db.
func RegionStateKey(region uint64) []byte {
	return regionKey(regionMetaPrefix, region, suffixRegionState)
}

// ApplyStateKey is the key of RaftApplyState in the raft CF of the kv db.
func ApplyStateKey(region uint64) []byte {
	return regionKey(regionRaftPrefix, region, suffixApplyState)
}

// SnapshotRaftStateKey is the key, in the raft CF of the kv db, of the RaftLocalState that belongs to a snapshot which is
// being applied.
func SnapshotRaftStateKey(region uint64) []byte {
	return regionKey(regionRaftPrefix, region, suffixSnapshotState)
}

// RaftStateKey is the key of RaftLocalState in a raft RocksDB.
func RaftStateKey(region uint64) []byte { return regionKey(regionRaftPrefix, region, suffixRaftState) }

// RaftLogKey is the key of one log entry in a raft RocksDB.
func RaftLogKey(region, index uint64) []byte {
	return binary.BigEndian.AppendUint64(regionKey(regionRaftPrefix, region, suffixRaftLog), index)
}

// RegionRaftStart is the lower bound of all keys of region with the prefix 01 02; RegionRaftStart(region+1) is their upper
// bound, except for the largest id.
func RegionRaftStart(region uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{localPrefix, regionRaftPrefix}, region)
}

// RaftRange bounds all region keys of a raft RocksDB: [01 02 00.., 01 03).
func RaftRange() (start, end []byte) {
	return RegionRaftStart(0), []byte{localPrefix, regionMetaPrefix}
}

// RegionStateRange bounds all region states of the raft CF of the kv db: [01 03, 01 04). A scan of it yields them in
// the order of region ids, as server start reads them.
func RegionStateRange() (start, end []byte) {
	return []byte{localPrefix, regionMetaPrefix}, []byte{localPrefix, regionMetaPrefix + 1}
}

// ParseLocalKey tells what a key of the local range [01, 02) addresses. region and index are 0 where they do not apply. ok is
// false when no such key exists; the caller knows in which database and column family it looked.
func ParseLocalKey(key []byte) (kind KeyKind, region, index uint64, ok bool) {
	if len(key) < 2 || key[0] != localPrefix {
		return KeyUnknown, 0, 0, false
	}
	if len(key) == 2 {
		switch key[1] {
		case 0x01:
			return KeyStoreIdent, 0, 0, true
		case 0x02:
			return KeyBootstrapRegion, 0, 0, true
		case 0x03:
			return KeyStoreRecoverState, 0, 0, true
		}
		return KeyUnknown, 0, 0, false
	}
	if len(key) != 11 && len(key) != 19 {
		return KeyUnknown, 0, 0, false
	}
	region = binary.BigEndian.Uint64(key[2:])
	long := len(key) == 19
	switch {
	case key[1] == regionMetaPrefix && key[10] == suffixRegionState && !long:
		return KeyRegionState, region, 0, true
	case key[1] != regionRaftPrefix:
	case key[10] == suffixRaftLog && long:
		return KeyRaftLog, region, binary.BigEndian.Uint64(key[11:]), true
	case key[10] == suffixRaftState && !long:
		return KeyRaftState, region, 0, true
	case key[10] == suffixApplyState && !long:
		return KeyApplyState, region, 0, true
	case key[10] == suffixSnapshotState && !long:
		return KeySnapshotRaftState, region, 0, true
	}
	return KeyUnknown, 0, 0, false
}
