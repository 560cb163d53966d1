package mvcc

import (
	"encoding/binary"
)

// RangeOptions are the distances of two points of tikv.range_index; 0 takes TiKV's default. Both are per column family in
// TiKV's configuration: prop-size-index-distance and prop-keys-index-distance.
type RangeOptions struct {
	SizeDistance uint64 // bytes, default 4 MiB
	KeysDistance uint64 // entries, default 40960
}

const (
	defaultSizeDistance = 4 << 20
	defaultKeysDistance = 40 << 10
)

// rangeCollector writes tikv.range_index: cumulative sizes and counts at some keys of the file, from which TiKV estimates
// region sizes. Only values and blob indexes count; a blob index counts with the size of its blob.
//
//	+----------+-----+-----------------+-----------------+
//	| klen u64 | key | bytes so far    | entries so far  |  repeated
//	| BE       |     | u64, inclusive  | u64, inclusive  |
//	+----------+-----+-----------------+-----------------+
//
// Source: tikv components/engine_rocks/src/properties.rs (RangePropertiesCollector), master.
type rangeCollector struct {
	opts               RangeOptions
	size, keys         uint64
	lastSize, lastKeys uint64 // at the last point
	lastKey            []byte
	index              []byte
}

// NewRangeCollector collects what TiKV's tikv.range-properties-collector would over a file of any data column family.
func NewRangeCollector(o RangeOptions) Collector {
	if o.SizeDistance == 0 {
		o.SizeDistance = defaultSizeDistance
	}
	if o.KeysDistance == 0 {
		o.KeysDistance = defaultKeysDistance
	}
	return &rangeCollector{opts: o}
}

func (c *rangeCollector) Name() string { return RangeCollectorName }

func (c *rangeCollector) Add(userKey []byte, kind byte, value []byte) {
	s := uint64(len(userKey)) + uint64(len(value))
	switch kind {
	case KindPut:
	case KindBlobIndex:
		size, ok := parseBlobIndex(value)
		if !ok {
			return
		}
		s += size
	default:
		return
	}
	first := len(c.lastKey) == 0
	c.size += s
	c.keys++
	c.lastKey = append(c.lastKey[:0], userKey...)
	if first || c.size-c.lastSize >= c.opts.SizeDistance || c.keys-c.lastKeys >= c.opts.KeysDistance {
		c.point()
	}
}

func (c *rangeCollector) point() {
	c.index = appendHandle(c.index, c.lastKey, c.size, c.keys)
	c.lastSize, c.lastKeys = c.size, c.keys
}

func (c *rangeCollector) Finish(props map[string]string) {
	if c.size > c.lastSize || c.keys > c.lastKeys {
		c.point()
	}
	props[PropRangeIndex] = string(c.index)
}

// Titan's blob index, the value of an entry of kind 0x11.
//
//	+--------+--------------------+---------------+-------------+
//	| 01     | file number varint | offset varint | size varint |  size includes the blob record's 9-byte header
//	+--------+--------------------+---------------+-------------+
//
// Source: titan src/blob_format.h (BlobIndex), master.
func parseBlobIndex(b []byte) (size uint64, ok bool) {
	if len(b) == 0 || b[0] != 1 {
		return 0, false
	}
	b = b[1:]
	var v [3]uint64
	for i := range v {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		v[i], b = x, b[n:]
	}
	return v[2], true
}
