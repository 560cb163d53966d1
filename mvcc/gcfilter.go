package mvcc

import "bytes"

// GCEntry is one point entry of a write-CF compaction, in the order RocksDB merges them: ascending keys, so one key's
// versions newest first, and for the same key and commit_ts the newest sequence number first.
type GCEntry struct {
	Key      []byte // 'z'|enc(user key), without the timestamp
	CommitTS TS
	Kind     byte // KindPut, KindDelete or KindBlobIndex
	Value    []byte
}

// DefaultRow names a row of the default CF.
type DefaultRow struct {
	Key     []byte // 'z'|enc(user key)
	StartTS TS
}

// GCResult is what one compaction leaves and what it sets in motion.
type GCResult struct {
	Kept         []GCEntry    // the output files, tombstones included
	DefaultRows  []DefaultRow // deleted from the default CF
	WorkerKeys   [][]byte     // handed to the GC worker, which removes all their versions ≤ safe point from the whole DB
	FilteredPuts int          // Puts among the versions removed by the filter
}

// GCFilter models the garbage collection TiKV does while it compacts files of the write CF: per key, among versions ≤ safe
// point, it drops Rollback and Lock records down to the first Put or Delete, keeps that one, and drops everything older. It
// sees only the files of this compaction. That is why a rewind must not leave versions above T behind a tombstone: once the
// safe point has passed them, a compaction of the file that holds a hidden Put > T, without the file that holds its
// tombstone, drops the older version that readers are to see.
//
// entries is one compaction in merge order; bottommost says that no file below overlaps. Snapshots are not modelled. An
// entry that is no plain value is kept without looking at it; so is everything above the safe point. Removing an older
// version leaves no tombstone behind, removing a Rollback or Lock does.
// Source: tikv src/server/gc_worker/compaction_filter.rs (WriteCompactionFilter::do_filter), rocksdb
// db/compaction/compaction_iterator.cc, master.
func GCFilter(entries []GCEntry, safePoint TS, bottommost bool) (GCResult, error) {
	var res GCResult
	f := gcFilter{safePoint: safePoint, bottommost: bottommost, res: &res}
	for i, e := range entries {
		if i > 0 && entries[i-1].CommitTS == e.CommitTS && bytes.Equal(entries[i-1].Key, e.Key) {
			// The newer entry of the same internal key hides this one before the filter could see it.
			continue
		}
		if e.Kind == KindDelete {
			if !bottommost {
				res.Kept = append(res.Kept, e)
			}
			continue
		}
		if err := f.add(e); err != nil {
			return GCResult{}, err
		}
	}
	f.endKey()
	return res, nil
}

type gcFilter struct {
	safePoint  TS
	bottommost bool
	res        *GCResult

	key            []byte
	removeOlder    bool // the first Put or Delete ≤ safe point was met
	deleteOverlaps int  // older versions met after a bottommost Delete; -1: no such Delete
	started        bool
}

func (f *gcFilter) add(e GCEntry) error {
	if e.CommitTS > f.safePoint || e.Kind != KindPut {
		f.res.Kept = append(f.res.Kept, e)
		return nil
	}
	if !f.started || !bytes.Equal(f.key, e.Key) {
		f.endKey()
		f.started, f.key, f.removeOlder, f.deleteOverlaps = true, e.Key, false, -1
	} else if f.deleteOverlaps >= 0 {
		f.deleteOverlaps++
	}
	w, err := PeekWrite(e.Value)
	if err != nil {
		return err
	}
	older := f.removeOlder
	drop := older
	if !older {
		switch w.Type {
		case WriteRollback, WriteLock:
			drop = true
		case WritePut:
			f.removeOlder = true
		case WriteDelete:
			f.removeOlder = true
			if f.bottommost {
				f.deleteOverlaps = 0
			}
		}
	}
	if !drop {
		f.res.Kept = append(f.res.Kept, e)
		return nil
	}
	if w.Type == WritePut {
		f.res.FilteredPuts++
	}
	if w.NeedsDefault() {
		f.res.DefaultRows = append(f.res.DefaultRows, DefaultRow{Key: e.Key, StartTS: w.StartTS})
	}
	if !older && !f.bottommost {
		f.res.Kept = append(f.res.Kept, GCEntry{Key: e.Key, CommitTS: e.CommitTS, Kind: KindDelete})
	}
	return nil
}

// endKey hands a key over to the GC worker when a Delete is all that this compaction has of it.
func (f *gcFilter) endKey() {
	if f.started && f.deleteOverlaps == 0 {
		f.res.WorkerKeys = append(f.res.WorkerKeys, f.key)
	}
	f.deleteOverlaps = -1
}
