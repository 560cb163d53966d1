package sst

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Names of the properties that this package interprets or writes.
// Source: tikv/rocksdb 8.10.tikv table/table_properties.cc, include/rocksdb/table.h.
const (
	propDataSize         = "rocksdb.data.size"
	propIndexSize        = "rocksdb.index.size"
	propIndexPartitions  = "rocksdb.index.partitions"
	propTopIndexSize     = "rocksdb.top-level.index.size"
	propIndexUserKey     = "rocksdb.index.key.is.user.key"
	propIndexDelta       = "rocksdb.index.value.is.delta.encoded"
	propFilterSize       = "rocksdb.filter.size"
	propRawKeySize       = "rocksdb.raw.key.size"
	propRawValueSize     = "rocksdb.raw.value.size"
	propDataBlocks       = "rocksdb.num.data.blocks"
	propEntries          = "rocksdb.num.entries"
	propFilterEntries    = "rocksdb.num.filter_entries"
	propDeleted          = "rocksdb.deleted.keys"
	propMergeOperands    = "rocksdb.merge.operands"
	propRangeDels        = "rocksdb.num.range-deletions"
	propFormatVersion    = "rocksdb.format.version"
	propFixedKeyLen      = "rocksdb.fixed.key.length"
	propCFID             = "rocksdb.column.family.id"
	propCFName           = "rocksdb.column.family.name"
	propCreationTime     = "rocksdb.creation.time"
	propOldestKeyTime    = "rocksdb.oldest.key.time"
	propFileCreationTime = "rocksdb.file.creation.time"
	propComparator       = "rocksdb.comparator"
	propMergeOperator    = "rocksdb.merge.operator"
	propPrefixExtractor  = "rocksdb.prefix.extractor.name"
	propCollectors       = "rocksdb.property.collectors"
	propFilterPolicy     = "rocksdb.filter.policy"
	propCompression      = "rocksdb.compression"
	propFileNumber       = "rocksdb.original.file.number"
	propTailStart        = "rocksdb.tail.start.offset"
	propIndexType        = "rocksdb.block.based.table.index.type"          // u32 LE
	propWholeKey         = "rocksdb.block.based.table.whole.key.filtering" // "0" or "1"
	propPrefixFiltering  = "rocksdb.block.based.table.prefix.filtering"    // "0" or "1"
	propExternalVersion  = "rocksdb.external_sst_file.version"             // u32 LE
	propGlobalSeqno      = "rocksdb.external_sst_file.global_seqno"        // u64 LE
	comparatorName       = "leveldb.BytewiseComparator"
)

// NoCF is the column family id of a file that was made outside any database.
const NoCF uint32 = 2147483647

// Properties are the table properties, decoded. Sizes are bytes, times unix seconds. A property that the file does not
// have is zero; All tells the difference.
type Properties struct {
	DataSize         uint64 // stored data blocks with trailers
	IndexSize        uint64 // index block, uncompressed, with trailer
	FilterSize       uint64 // stored filter block without trailer
	RawKeySize       uint64 // internal keys, range tombstones included
	RawValueSize     uint64 // values, range tombstones included; Titan leaves out those of blob indexes
	NumDataBlocks    uint64
	NumEntries       uint64 // point records and range tombstones
	NumFilterEntries uint64
	NumDeletions     uint64 // deletes, single deletes, range tombstones
	NumMergeOperands uint64
	NumRangeDels     uint64
	IndexPartitions  uint64
	IndexType        uint32 // 0 binary, 1 hash, 2 partitioned, 3 binary with first key
	IndexUserKey     bool   // separators are user keys
	IndexDelta       bool   // handles are delta encoded
	CFID             uint32
	CFName           string
	CreationTime     uint64
	OldestKeyTime    uint64
	FileCreationTime uint64
	Comparator       string
	MergeOperator    string
	PrefixExtractor  string
	Collectors       string // "[a,b]"
	FilterPolicy     string
	Compression      string
	WholeKeyFilter   bool
	PrefixFilter     bool
	OrigFileNumber   uint64
	TailStart        uint64
	ExternalVersion  uint32 // 0: not made for ingestion
	GlobalSeqno      uint64 // as stored: usually 0, the MANIFEST knows
	// User are the properties of collectors: every key that does not start with "rocksdb.".
	User map[string]string
	// All are all properties as stored.
	All map[string]string
}

// decodeProperties decodes the properties block.
//
//	entry : as in a data block; key = name, value = varint64, string, or fixed width where noted at the names above
//
// Names are strictly ascending. Source: tikv/rocksdb 8.10.tikv table/meta_blocks.cc (ReadTablePropertiesHelper).
func decodeProperties(path string, off int64, payload []byte) (*Properties, error) {
	p := &Properties{User: map[string]string{}, All: map[string]string{}}
	prev := ""
	bad := eachEntry(payload, func(key, value []byte, _ int) string {
		k := string(key)
		if len(p.All) > 0 && k <= prev {
			return "properties are not in ascending order"
		}
		prev = k
		p.All[k] = string(value)
		if !strings.HasPrefix(k, "rocksdb.") {
			p.User[k] = string(value)
		}
		return ""
	})
	if bad != "" {
		return nil, base.Corruptf(path, off, "properties block: %s", bad)
	}
	var cfid, userKey, delta uint64
	ints := map[string]*uint64{
		propDataSize: &p.DataSize, propIndexSize: &p.IndexSize, propFilterSize: &p.FilterSize, propRawKeySize: &p.RawKeySize,
		propRawValueSize: &p.RawValueSize, propDataBlocks: &p.NumDataBlocks, propEntries: &p.NumEntries,
		propFilterEntries: &p.NumFilterEntries, propDeleted: &p.NumDeletions, propMergeOperands: &p.NumMergeOperands,
		propRangeDels: &p.NumRangeDels, propIndexPartitions: &p.IndexPartitions, propCFID: &cfid, propIndexUserKey: &userKey,
		propIndexDelta: &delta, propCreationTime: &p.CreationTime, propOldestKeyTime: &p.OldestKeyTime,
		propFileCreationTime: &p.FileCreationTime, propFileNumber: &p.OrigFileNumber, propTailStart: &p.TailStart,
	}
	for name, dst := range ints {
		v, ok := p.All[name]
		if !ok {
			continue
		}
		u, n := binary.Uvarint([]byte(v))
		if n <= 0 || n != len(v) {
			return nil, base.Corruptf(path, off, "property %s is not an integer: %X", name, v)
		}
		*dst = u
	}
	if cfid > 1<<32-1 {
		return nil, base.Corruptf(path, off, "property %s is %d", propCFID, cfid)
	}
	p.CFID, p.IndexUserKey, p.IndexDelta = uint32(cfid), userKey != 0, delta != 0
	for name, dst := range map[string]*uint32{propIndexType: &p.IndexType, propExternalVersion: &p.ExternalVersion} {
		if v, ok := p.All[name]; ok {
			if len(v) != 4 {
				return nil, base.Corruptf(path, off, "property %s has %d bytes, not 4", name, len(v))
			}
			*dst = binary.LittleEndian.Uint32([]byte(v))
		}
	}
	if v, ok := p.All[propGlobalSeqno]; ok {
		if len(v) != 8 {
			return nil, base.Corruptf(path, off, "property %s has %d bytes, not 8", propGlobalSeqno, len(v))
		}
		p.GlobalSeqno = binary.LittleEndian.Uint64([]byte(v))
	}
	p.CFName, p.Comparator, p.MergeOperator = p.All[propCFName], p.All[propComparator], p.All[propMergeOperator]
	p.PrefixExtractor, p.Collectors, p.FilterPolicy = p.All[propPrefixExtractor], p.All[propCollectors], p.All[propFilterPolicy]
	p.Compression = p.All[propCompression]
	p.WholeKeyFilter, p.PrefixFilter = p.All[propWholeKey] == "1", p.All[propPrefixFiltering] == "1"
	return p, nil
}

// encodeProperties makes the properties block of all.
func encodeProperties(all map[string]string) []byte {
	b := blockBuilder{interval: 1}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		b.add([]byte(k), []byte(all[k]))
	}
	return b.finish()
}

func uvarintProp(v uint64) string { return string(binary.AppendUvarint(nil, v)) }
func fixed32Prop(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }
func boolProp(v bool) string {
	if v {
		return "1"
	}
	return "0"
}
