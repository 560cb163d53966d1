package sst

import (
	"strconv"
	"strings"
)

// FilterKind says what a table's filter holds.
type FilterKind uint8

const (
	// FilterNone writes no filter: always safe, slower point reads.
	FilterNone FilterKind = iota
	// FilterWholeKey holds user keys: TiKV's default, lock and raft CF.
	FilterWholeKey
	// FilterPrefix holds what WriterOptions.PrefixExtractor makes of user keys: TiKV's write CF, keys without their last 8 bytes.
	FilterPrefix
	// FilterWholeKeyAndPrefix holds both: a write CF with whole-key-filtering switched on.
	FilterWholeKeyAndPrefix
)

// String names the kind.
func (k FilterKind) String() string {
	return [...]string{"none", "whole key", "prefix", "whole key and prefix"}[k&3]
}

func (k FilterKind) wholeKey() bool { return k == FilterWholeKey || k == FilterWholeKeyAndPrefix }
func (k FilterKind) prefix() bool   { return k == FilterPrefix || k == FilterWholeKeyAndPrefix }

// FilterForm says how a filter is built.
type FilterForm uint8

const (
	// FormBloom is RocksDB's Bloom policy: the legacy form below format version 5, the fast local one from there.
	FormBloom FilterForm = iota
	// FormFastBloom is the fast local form in any format version: a Ribbon policy's above the level where Ribbon begins.
	FormFastBloom
	// FormRibbon is the Standard128 Ribbon filter, or the fast local Bloom form where RocksDB falls back to it.
	FormRibbon
	// FormLegacyBloom is the legacy form in any format version: an internal policy of RocksDB's.
	FormLegacyBloom
)

// String names the form.
func (f FilterForm) String() string {
	return [...]string{"Bloom", "fast local Bloom", "Ribbon", "legacy Bloom"}[f&3]
}

// DefaultFilterMillibits is TiKV's bloom-filter-bits-per-key, in thousandths.
const DefaultFilterMillibits = 10000

// filterPolicy is the name under which the metaindex lists every built-in filter.
const filterPolicy = "rocksdb.BuiltinBloomFilter"

// Prefix extractors that TiKV configures. Source: tikv/tikv components/engine_rocks/src/util.rs.
const (
	extractorSuffix = "FixedSuffixSliceTransform" // key without its last 8 bytes
	extractorNoop   = "NoopSliceTransform"        // the whole key

	extractorRocksNoop = "rocksdb.Noop" // RocksDB's own, likewise
)

// prefixSuffix is how many bytes of a commit_ts stand behind the key in the write CF.
const prefixSuffix = 8

// extractor gives the prefix of a user key, and whether it has one.
type extractor func(user []byte) ([]byte, bool)

// extractorOf finds an extractor by the name that OPTIONS and properties give it; nil for one that is not known. The names with a
// length are RocksDB's own (tikv/rocksdb 8.10.tikv util/slice.cc); TiKV's write CF cuts 8 bytes off.
func extractorOf(name string) extractor {
	fixed := func(n int, capped bool) extractor {
		return func(user []byte) ([]byte, bool) {
			if len(user) < n {
				return user, capped
			}
			return user[:n], true
		}
	}
	switch name {
	case extractorSuffix:
		return func(user []byte) ([]byte, bool) {
			n := len(user) - prefixSuffix
			return user[:max(n, 0)], n >= 0
		}
	case extractorNoop, extractorRocksNoop:
		return func(user []byte) ([]byte, bool) { return user, true }
	}
	for head, capped := range map[string]bool{"rocksdb.FixedPrefix.": false, "rocksdb.CappedPrefix.": true} {
		if length, ok := strings.CutPrefix(name, head); ok {
			if n, err := strconv.ParseUint(length, 10, 16); err == nil {
				return fixed(int(n), capped)
			}
		}
	}
	return nil
}

// HasPrefix tells whether this package knows the prefixes of an extractor, so that a filter can hold them.
func HasPrefix(name string) bool { return extractorOf(name) != nil }

// filterable makes of a kind one that is safe in a table that names an extractor: RocksDB, when it is opened with an extractor of the same
// name, asks a full filter for prefixes without a look at the property prefix_filtering. A filter that lacks them would hide what is there.
// So whole keys are joined by the prefixes, as RocksDB's builder does it, and without them there is no filter. No extractor at all, which
// is "nullptr" among the properties, leaves whole keys.
// Source: tikv/rocksdb 8.10.tikv table/block_based/block_based_table_reader.cc (PrefixRangeMayMatch, FullFilterKeyMayMatch), where only
// table_prefix_extractor(), for an extractor of another name, heeds the property; 6.29.tikv and 6.4.tikv the same.
func filterable(kind FilterKind, name string) FilterKind {
	switch {
	case kind == FilterNone:
	case name == "" || name == "nullptr":
		if kind.wholeKey() {
			return FilterWholeKey
		}
		return FilterNone
	case !HasPrefix(name):
		return FilterNone
	case kind == FilterWholeKey && name != extractorNoop && name != extractorRocksNoop: // whose prefixes are the whole keys
		return FilterWholeKeyAndPrefix
	}
	return kind
}

// Filterable is the kind of filter that a new table can have when its properties name this extractor: of whole keys, of prefixes, of both, or
// none where the prefixes are not known.
func Filterable(wholeKeys bool, extractor string) FilterKind {
	if wholeKeys {
		return filterable(FilterWholeKey, extractor)
	}
	return filterable(FilterPrefix, extractor)
}

// filterBuilder collects the hashes of a table's keys, in the order and with the repetitions of RocksDB's builder: they count for the
// filter's size. Source: tikv/rocksdb 8.10.tikv table/block_based/full_filter_block.cc (FullFilterBlockBuilder),
// table/block_based/filter_policy.cc (AddKey of each builder).
type filterBuilder struct {
	kind      FilterKind
	form      FilterForm
	millibits int
	extract   extractor
	short     []uint32 // of the legacy form
	long      []uint64 // of the others
	lastWhole []byte
	lastPref  []byte
	seenWhole bool
	seenPref  bool
	inDomain  bool // the previous key had a prefix
	prev      []byte
	same      bool // prev is the prefix added last, of a filter that holds nothing else
}

// newFilterBuilder makes the builder of a table. FormBloom is resolved by the format version, the kind by the extractor.
func newFilterBuilder(o *WriterOptions) filterBuilder {
	b := filterBuilder{kind: filterable(o.Filter, o.PrefixExtractor), form: o.FilterForm, millibits: o.FilterMillibits}
	if b.form == FormBloom {
		b.form = FormLegacyBloom
		if o.FormatVersion >= 5 {
			b.form = FormFastBloom
		}
	}
	if b.kind.prefix() {
		b.extract = extractorOf(o.PrefixExtractor)
	}
	return b
}

// add takes user keys in ascending order.
func (b *filterBuilder) add(user []byte) {
	if b.kind == FilterNone {
		return
	}
	var prefix []byte
	hasPrefix := false
	if b.extract != nil {
		prefix, hasPrefix = b.extract(user)
	}
	// RocksDB's builder, before it adds the second key, adds the prefix that a preceding filter partition would have ended
	// on. Without partitions that is the empty string. It counts for the size of the filter.
	if !b.seenPref && b.inDomain {
		b.addHash(b.lastPref)
		b.seenPref, b.same = true, false
	}
	if b.kind.wholeKey() {
		if !hasPrefix {
			b.addHash(user)
		} else if !b.seenWhole || string(b.lastWhole) != string(user) {
			b.addHash(user)
			b.seenWhole, b.lastWhole = true, append(b.lastWhole[:0], user...)
		}
	}
	b.inDomain = hasPrefix
	if !hasPrefix {
		return
	}
	if !b.kind.wholeKey() {
		// Neighbours with one hash count once anyway; this spares the hash.
		if !b.same || string(b.prev) != string(prefix) {
			b.addHash(prefix)
			b.same, b.prev = true, append(b.prev[:0], prefix...)
		}
	} else if !b.seenPref || string(b.lastPref) != string(prefix) {
		b.addHash(prefix)
		b.seenPref, b.lastPref = true, append(b.lastPref[:0], prefix...)
	}
}

func (b *filterBuilder) addHash(key []byte) {
	if b.form == FormLegacyBloom {
		h := bloomHash(key)
		if n := len(b.short); n == 0 || b.short[n-1] != h {
			b.short = append(b.short, h)
		}
		return
	}
	h := hash64(key)
	if n := len(b.long); n == 0 || b.long[n-1] != h {
		b.long = append(b.long, h)
	}
}

// entries is how many hashes the filter is made of.
func (b *filterBuilder) entries() int { return len(b.short) + len(b.long) }

// finish gives the filter block; nil when nothing was added, because an empty filter would hide every key.
func (b *filterBuilder) finish() []byte {
	switch {
	case b.entries() == 0:
		return nil
	case b.form == FormLegacyBloom:
		return legacyBloom(b.short, b.millibits)
	case b.form == FormRibbon:
		if out := ribbon(b.long, b.millibits); out != nil {
			return out
		}
	}
	return fastBloom(b.long, b.millibits)
}

// FilterBytesPerKey bounds the memory that making a table's filter takes for each of its keys, in bytes.
func (o *WriterOptions) FilterBytesPerKey() int {
	switch filterable(o.Filter, o.PrefixExtractor) {
	case FilterNone:
		return 0
	case FilterWholeKeyAndPrefix:
		return 2 * o.filterBytesPerHash()
	}
	return o.filterBytesPerHash()
}

func (o *WriterOptions) filterBytesPerHash() int {
	switch {
	case o.FilterForm == FormRibbon:
		return 8 + 2*8 + 4 // hash, row of coefficients, row of results
	case o.FilterForm == FormLegacyBloom, o.FilterForm == FormBloom && o.FormatVersion < 5:
		return 4
	}
	return 8
}
