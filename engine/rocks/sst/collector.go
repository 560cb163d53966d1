package sst

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Collector computes user properties while a table is written. Add sees the point records in file order and then the range
// tombstones, as RocksDB's collectors do: userKey, kind (an ikey.Kind) and value; a tombstone has kind 0x0F, its begin as
// userKey and its end as value. Finish adds properties to props; their names must not start with "rocksdb.". The slices
// are only valid during the call. Built-in types only, so that pure packages can implement it.
type Collector interface {
	Name() string
	Add(userKey []byte, kind byte, value []byte)
	Finish(props map[string]string)
}

// Names of Titan's collector and its property. Source: tikv/titan src/blob_file_size_collector.{h,cc}.
const (
	BlobCollectorName       = "BlobFileSizeCollector"
	PropBlobDiscardableSize = "TitanDB.blob_discardable_size"
)

// blobCollector sums what the table's blob indexes reference.
//
//	TitanDB.blob_discardable_size : count v32 | { blob file number v64 | bytes v64 } ascending by number
//
// Despite its name the value counts live bytes: Titan subtracts what all tables reference from each blob file's size, and
// in level-merge mode removes a file that no table counts without looking at the keys. So it must be exact.
// Source: tikv/titan src/blob_file_size_collector.cc.
type blobCollector struct{ sizes map[uint64]uint64 }

// NewBlobCollector gives Titan's BlobFileSizeCollector. A table without blob indexes gets no property.
func NewBlobCollector() Collector { return &blobCollector{sizes: map[uint64]uint64{}} }

func (c *blobCollector) Name() string { return BlobCollectorName }

func (c *blobCollector) Add(_ []byte, kind byte, value []byte) {
	if ikey.Kind(kind) != ikey.KindBlobIndex {
		return
	}
	// A value that is no blob index references nothing that Titan could find.
	if file, size, ok := decodeBlobIndex(value); ok {
		c.sizes[file] += size
	}
}

func (c *blobCollector) Finish(props map[string]string) {
	if len(c.sizes) == 0 {
		return
	}
	b := binary.AppendUvarint(nil, uint64(len(c.sizes)))
	for _, file := range slices.Sorted(maps.Keys(c.sizes)) {
		b = binary.AppendUvarint(binary.AppendUvarint(b, file), c.sizes[file])
	}
	props[PropBlobDiscardableSize] = string(b)
}

// decodeBlobIndex decodes the value of a 0x11 record.
//
//	+------+-----------------------+------------------+----------------+
//	| 1 u8 | blob file number v64  | offset v64       | size v64       |
//	+------+-----------------------+------------------+----------------+
//
// size includes the blob record's header of 9 bytes. Source: tikv/titan src/blob_format.cc (BlobIndex).
func decodeBlobIndex(b []byte) (file, size uint64, ok bool) {
	if len(b) == 0 || b[0] != 1 {
		return 0, 0, false
	}
	var v [3]uint64
	b = b[1:]
	for i := range v {
		u, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, 0, false
		}
		v[i], b = u, b[n:]
	}
	return v[0], v[2], true
}
