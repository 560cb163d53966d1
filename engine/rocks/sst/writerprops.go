package sst

import (
	"fmt"
	"strings"
)

// properties gives everything that goes into the properties block. What identifies the writing database is left out:
// RocksDB's block cache keys derive from it, and a copied identity can collide.
func (w *Writer) properties() (map[string]string, error) {
	p, o := &w.props, &w.o
	names := make([]string, len(o.Collectors))
	all := map[string]string{}
	for i, c := range o.Collectors {
		names[i] = c.Name()
		c.Finish(all)
	}
	for k := range all {
		if strings.HasPrefix(k, "rocksdb.") {
			return nil, w.fail(fmt.Errorf("write table: collector property %s takes a name of RocksDB", k))
		}
	}
	for k, v := range map[string]uint64{
		propDataSize: p.DataSize, propIndexSize: p.IndexSize, propFilterSize: p.FilterSize, propRawKeySize: p.RawKeySize,
		propRawValueSize: p.RawValueSize, propDataBlocks: p.NumDataBlocks, propEntries: p.NumEntries,
		propDeleted: p.NumDeletions, propMergeOperands: 0, propRangeDels: p.NumRangeDels, propFormatVersion: 0,
		propFixedKeyLen: 0, propCFID: uint64(o.CFID), propCreationTime: o.CreationTime, propOldestKeyTime: o.OldestKeyTime,
		propFileCreationTime: o.FileCreationTime, propIndexUserKey: 0, propIndexDelta: 0,
	} {
		all[k] = uvarintProp(v)
	}
	if p.NumFilterEntries > 0 {
		all[propFilterEntries] = uvarintProp(p.NumFilterEntries)
	}
	if o.FileNumber != 0 {
		all[propFileNumber] = uvarintProp(o.FileNumber)
	}
	all[propCFName] = o.CFName
	all[propComparator] = comparatorName
	all[propMergeOperator] = "nullptr"
	if o.PrefixExtractor != "" {
		all[propPrefixExtractor] = o.PrefixExtractor
	}
	if o.FilterPolicy != "" {
		all[propFilterPolicy] = o.FilterPolicy
	}
	all[propCollectors] = "[" + strings.Join(names, ",") + "]"
	all[propCompression] = CompressionName(o.Compression)
	all[propIndexType] = fixed32Prop(indexBinary)
	whole, prefix := o.filtering()
	all[propWholeKey], all[propPrefixFiltering] = boolProp(whole), boolProp(prefix)
	return all, nil
}

// filtering gives the two properties that say what the filter holds. Readers heed only the first, see filterable. Without filter they are
// TiKV's.
func (o *WriterOptions) filtering() (whole, prefix bool) {
	switch o.Filter {
	case FilterNone:
		return o.PrefixExtractor != extractorSuffix, o.PrefixExtractor == extractorSuffix || o.PrefixExtractor == extractorNoop
	case FilterWholeKey:
		// The prefix of the no-op extractor is the whole key, which the filter has.
		return true, o.PrefixExtractor == extractorNoop || o.PrefixExtractor == extractorRocksNoop
	}
	return o.Filter.wholeKey(), o.Filter.prefix()
}
