package mvcc

import (
	"bytes"
	"encoding/binary"
)

// Value types of RocksDB entries that the collectors tell apart, as in an SST's internal keys.
const (
	KindDelete       byte = 0x00
	KindPut          byte = 0x01
	KindSingleDelete byte = 0x07
	KindRangeDelete  byte = 0x0F
	KindBlobIndex    byte = 0x11 // Titan
)

// Collector is what an SST writer feeds: every point entry of the file in order, with the key as in the DB ('z' and all)
// but without the 8 bytes of the internal key. Finish adds the properties to the table's user properties.
type Collector interface {
	Name() string
	Add(userKey []byte, kind byte, value []byte)
	Finish(props map[string]string)
}

// Names of the user properties. All numbers in their values are u64 BE.
const (
	PropMinTS          = "tikv.min_ts"
	PropMaxTS          = "tikv.max_ts"
	PropNumRows        = "tikv.num_rows"
	PropNumPuts        = "tikv.num_puts"
	PropNumDeletes     = "tikv.num_deletes"
	PropNumVersions    = "tikv.num_versions"
	PropMaxRowVersions = "tikv.max_row_versions"
	PropNumErrors      = "tikv.num_errors"
	PropRowsIndex      = "tikv.rows_index"
	PropRangeIndex     = "tikv.range_index"
	PropOldestStaleTS  = "tikv.oldest_stale_version_ts"
	PropNewestStaleTS  = "tikv.newest_stale_version_ts"
	PropOldestDeleteTS = "tikv.oldest_delete_ts"
	PropNewestDeleteTS = "tikv.newest_delete_ts"
	PropMaxExpireTS    = "tikv.max_expire_ts"
	PropMinExpireTS    = "tikv.min_expire_ts"
	PropBlobSize       = "TitanDB.blob_discardable_size"
)

// Names of TiKV's collector factories, as in rocksdb.property.collectors.
const (
	MVCCCollectorName    = "tikv.mvcc-properties-collector"
	RangeCollectorName   = "tikv.range-properties-collector"
	TTLCollectorName     = "tikv.ttl-properties-collector"
	RawMVCCCollectorName = "tikv.rawkv-mvcc-properties-collector"
)

// rowsPerPoint is the distance of two points of tikv.rows_index.
const rowsPerPoint = 10000

// MVCCOptions say which TiKV's properties to write.
type MVCCOptions struct {
	// StaleTS writes the four oldest_/newest_ properties: TiKV since 7.5.7, 8.5.4 and 9.0, not 8.1. A rewritten file should
	// have them exactly if the original had them.
	StaleTS bool
}

// mvccCounts are the properties that the write-CF and the raw V2 collector share.
//
// Invariants: num_rows ≤ num_versions; max_row_versions ≤ num_versions; min_ts ≤ max_ts unless nothing was counted.
type mvccCounts struct {
	minTS, maxTS               uint64
	rows, puts, deletes        uint64
	versions, maxRow, errors   uint64
	oldestStale, newestStale   uint64
	oldestDelete, newestDelete uint64

	lastRow     []byte
	rowVersions uint64
}

func newMVCCCounts() mvccCounts {
	return mvccCounts{minTS: uint64(MaxTS), oldestStale: uint64(MaxTS), oldestDelete: uint64(MaxTS)}
}

// count does what both collectors do with an entry before its value: it returns whether the value is to be looked at.
func (c *mvccCounts) count(userKey []byte, kind byte) bool {
	if kind != KindPut && kind != KindDelete && kind != KindBlobIndex {
		return false
	}
	n := len(userKey) - tsLen
	if n < 0 || userKey[0] != DataPrefix {
		c.errors++
		return false
	}
	ts := ^binary.BigEndian.Uint64(userKey[n:])
	c.minTS, c.maxTS = min(c.minTS, ts), max(c.maxTS, ts)
	if kind == KindDelete {
		return false
	}
	c.versions++
	if row := userKey[:n]; !bytes.Equal(row, c.lastRow) {
		c.rows++
		c.rowVersions = 1
		c.lastRow = append(c.lastRow[:0], row...)
	} else {
		c.rowVersions++
		c.oldestStale, c.newestStale = min(c.oldestStale, ts), max(c.newestStale, ts)
	}
	c.maxRow = max(c.maxRow, c.rowVersions)
	return true
}

func (c *mvccCounts) finish(props map[string]string, stale bool) {
	put := func(name string, v uint64) { props[name] = u64Prop(v) }
	put(PropMinTS, c.minTS)
	put(PropMaxTS, c.maxTS)
	put(PropNumRows, c.rows)
	put(PropNumPuts, c.puts)
	put(PropNumDeletes, c.deletes)
	put(PropNumVersions, c.versions)
	put(PropMaxRowVersions, c.maxRow)
	put(PropNumErrors, c.errors)
	if stale {
		put(PropOldestStaleTS, c.oldestStale)
		put(PropNewestStaleTS, c.newestStale)
		put(PropOldestDeleteTS, c.oldestDelete)
		put(PropNewestDeleteTS, c.newestDelete)
	}
}

func u64Prop(v uint64) string {
	return string(binary.BigEndian.AppendUint64(nil, v))
}

// mvccCollector writes the properties of a write-CF file.
//
// tikv.rows_index: the first row, every 10000th and the last one:
//
//	+----------+-----------+------------------+------------------+
//	| klen u64 | key       | rows since the   | rows up to here, |  repeated
//	| BE       | 'z'|enc.. | last point u64   | inclusive u64    |
//	+----------+-----------+------------------+------------------+
//
// Source: tikv components/engine_rocks/src/properties.rs (MvccPropertiesCollector), master.
type mvccCollector struct {
	mvccCounts
	opts      MVCCOptions
	size, off uint64
	index     []byte
}

// NewMVCCCollector collects what TiKV's tikv.mvcc-properties-collector would over a write-CF file.
func NewMVCCCollector(o MVCCOptions) Collector {
	return &mvccCollector{mvccCounts: newMVCCCounts(), opts: o}
}

func (c *mvccCollector) Name() string { return MVCCCollectorName }

func (c *mvccCollector) Add(userKey []byte, kind byte, value []byte) {
	if !c.count(userKey, kind) {
		return
	}
	if kind == KindBlobIndex {
		c.puts++
	} else if len(value) == 0 {
		c.errors++
		return
	} else {
		switch value[0] {
		case WritePut:
			c.puts++
		case WriteDelete:
			c.deletes++
			ts := ^binary.BigEndian.Uint64(userKey[len(userKey)-tsLen:])
			c.oldestDelete, c.newestDelete = min(c.oldestDelete, ts), max(c.newestDelete, ts)
		case WriteLock, WriteRollback:
		default:
			c.errors++
			return
		}
	}
	if c.rowVersions == 1 {
		c.size++
		c.off++
		if c.off == 1 || c.size >= rowsPerPoint {
			c.point()
		}
	}
}

func (c *mvccCollector) point() {
	c.index = appendHandle(c.index, c.lastRow, c.size, c.off)
	c.size = 0
}

func (c *mvccCollector) Finish(props map[string]string) {
	if c.size > 0 {
		c.point()
	}
	c.finish(props, c.opts.StaleTS)
	props[PropRowsIndex] = string(c.index)
}

// appendHandle appends one point of tikv.rows_index or tikv.range_index.
func appendHandle(dst, key []byte, a, b uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = binary.BigEndian.AppendUint64(dst, a)
	return binary.BigEndian.AppendUint64(dst, b)
}
