package raftlog

import (
	"errors"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// KV is what OpenRocks needs of a RocksDB: one column family, deletions and memtables resolved. Slices are valid only until
// the next call or, in Scan, during the call of fn.
type KV interface {
	Get(key []byte) (value []byte, ok bool, err error)
	// Scan calls fn for the keys in [start, end) in ascending order. An error of fn ends it and is returned as it is.
	Scan(start, end []byte, fn func(key, value []byte) error) error
}

// rocksStore is a raft RocksDB (components/keys/src/lib.rs of tikv/tikv): per region its entries, then its state.
//
//	| 01 | 02 | region u64be | 01 | index u64be |  eraftpb.Entry
//	| 01 | 02 | region u64be | 02 |               RaftLocalState
type rocksStore struct{ kv KV }

// OpenRocks reads a raft RocksDB through kv. The caller keeps kv open and closes it.
func OpenRocks(kv KV) (Store, error) { return rocksStore{kv}, nil }

var errStop = errors.New("stop")

// first returns the first key in [start, end) and its value.
func (r rocksStore) first(start, end []byte) (key, value []byte, err error) {
	err = r.kv.Scan(start, end, func(k, v []byte) error {
		key, value = append([]byte{}, k...), append([]byte{}, v...)
		return errStop
	})
	if err == errStop {
		err = nil
	}
	return key, value, err
}

func badKey(key []byte) error {
	err := base.Corruptf("", -1, "this key does not belong into a raft database")
	err.Key = append([]byte{}, key...)
	return err
}

// Regions jumps from region to region: one seek for each, whatever the size of the logs.
func (r rocksStore) Regions() ([]uint64, error) {
	var ids []uint64
	start, end := raftstate.RaftRange()
	for {
		key, _, err := r.first(start, end)
		if err != nil || key == nil {
			return ids, err
		}
		kind, region, _, ok := raftstate.ParseLocalKey(key)
		if !ok || kind != raftstate.KeyRaftLog && kind != raftstate.KeyRaftState {
			return ids, badKey(key)
		}
		ids = append(ids, region)
		if region == ^uint64(0) {
			return ids, nil
		}
		start = raftstate.RegionRaftStart(region + 1)
	}
}

func (r rocksStore) RaftState(region uint64) ([]byte, bool, error) {
	v, ok, err := r.kv.Get(raftstate.RaftStateKey(region))
	if err != nil || !ok {
		return nil, false, err
	}
	return append([]byte{}, v...), true, nil
}

func (r rocksStore) Entries(region, from, to uint64, fn func(e raftstate.Entry) error) error {
	if from >= to {
		return nil
	}
	return r.scan(region, from, raftstate.RaftLogKey(region, to), fn)
}

// scan walks the entries from an index on; end is the key that ends the range.
func (r rocksStore) scan(region, from uint64, end []byte, fn func(e raftstate.Entry) error) error {
	return r.kv.Scan(raftstate.RaftLogKey(region, from), end, func(k, v []byte) error {
		kind, _, index, ok := raftstate.ParseLocalKey(k)
		if !ok || kind != raftstate.KeyRaftLog {
			return badKey(k)
		}
		e, err := raftstate.ParseEntry(v)
		if err == nil && e.Index != index {
			err = errIndex(index, e.Index)
		}
		if err != nil {
			ce := base.Corruptf("", -1, "%v", err)
			ce.Region, ce.Key = region, append([]byte{}, k...)
			return ce
		}
		return fn(e)
	})
}

// Bounds finds the last entry by a scan that begins at last_index: a RocksDB of TiKV normally has nothing above it, and the
// interface has no step backwards. Without a usable state the whole region is scanned.
func (r rocksStore) Bounds(region uint64) (first, last uint64, ok bool, err error) {
	logStart, logEnd := raftstate.RaftLogKey(region, 0), raftstate.RaftStateKey(region)
	key, _, err := r.first(logStart, logEnd)
	if err != nil || key == nil {
		return 0, 0, false, err
	}
	kind, _, first, known := raftstate.ParseLocalKey(key)
	if !known || kind != raftstate.KeyRaftLog {
		return 0, 0, false, badKey(key)
	}
	from := first
	if raw, have, err := r.RaftState(region); err != nil {
		return 0, 0, false, err
	} else if s, perr := raftstate.ParseRaftLocalState(raw); have && perr == nil && s.LastIndex > first {
		from = s.LastIndex
	}
	for {
		found := false
		err := r.kv.Scan(raftstate.RaftLogKey(region, from), logEnd, func(k, _ []byte) error {
			kind, _, index, known := raftstate.ParseLocalKey(k)
			if !known || kind != raftstate.KeyRaftLog {
				return badKey(k)
			}
			last, found = index, true
			return nil
		})
		if err != nil {
			return 0, 0, false, err
		}
		if found || from == first {
			return first, last, found, nil
		}
		from = first
	}
}

func (r rocksStore) Close() error { return nil }
