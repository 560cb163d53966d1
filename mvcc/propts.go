package mvcc

import "encoding/binary"

// PropTS reads the timestamps that bound a write-CF file: with trust, every point entry of it (tombstones included) has
// min ≤ commit_ts ≤ max, so a file with max ≤ T need not be scanned for versions above T. Without trust scan the file.
// (A gc_fence is inside a value and not bounded by max.)
//
// props are all of the table's user properties, rangeDels its number of range tombstones. Trusted only if
//   - min and max are there, 8 bytes each, min ≤ max: a file in which the collector looked at nothing has max 0;
//   - num_errors is there and 0: a key it could not split has no part in the bounds;
//   - there is no range tombstone: it carries no timestamp;
//   - there is no Titan blob index in it: collectors before 6.5.8 / 7.1.3 / 7.5.1 did not look at those;
//   - tombstones were counted: num_deletes (since 5.0) is there, or rocksdb.deleted.keys says there is no tombstone;
//     collectors before 3.1 did not look at them.
//
// Source: tikv components/engine_rocks/src/properties.rs, options.rs (TsFilter), master; compared by release.
func PropTS(props map[string]string, rangeDels uint64) (min, max TS, trust bool) {
	var values [len(PropTSNames)][]byte
	for i, n := range PropTSNames {
		if v, ok := props[n]; ok {
			values[i] = []byte(v)
		}
	}
	return PropTSValues(values[:], rangeDels)
}

// PropTSNames are the properties that PropTS looks at.
var PropTSNames = [...]string{PropMinTS, PropMaxTS, PropNumErrors, PropBlobSize, PropNumDeletes, propDeletedKeys}

const propDeletedKeys = "rocksdb.deleted.keys"

// PropTSValues is PropTS of the values of PropTSNames, nil where there is none.
func PropTSValues(values [][]byte, rangeDels uint64) (min, max TS, trust bool) {
	lo, okLo := u64FromProp(values[0])
	hi, okHi := u64FromProp(values[1])
	if !okLo || !okHi {
		return 0, MaxTS, false
	}
	errs, okErrs := u64FromProp(values[2])
	trust = lo <= hi && okErrs && errs == 0 && rangeDels == 0 && !hasBlobs(values[3]) && tombstonesCounted(values[4], values[5])
	return TS(lo), TS(hi), trust
}

func u64FromProp(v []byte) (uint64, bool) {
	if len(v) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(v), true
}

// hasBlobs reports whether Titan's collector counted a blob, or wrote something that does not decode.
func hasBlobs(size []byte) bool {
	if size == nil {
		return false
	}
	n, used := binary.Uvarint(size)
	return used <= 0 || n != 0
}

func tombstonesCounted(deletes, deleted []byte) bool {
	if _, ok := u64FromProp(deletes); ok {
		return true
	}
	n, used := binary.Uvarint(deleted)
	return used > 0 && n == 0
}
