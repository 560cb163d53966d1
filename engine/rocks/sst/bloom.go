package sst

import (
	"encoding/binary"
	"math/bits"
)

// FilterKind says what a table's Bloom filter holds.
type FilterKind uint8

const (
	// FilterNone writes no filter: always safe, slower point reads.
	FilterNone FilterKind = iota
	// FilterWholeKey holds user keys: TiKV's default, lock and raft CF.
	FilterWholeKey
	// FilterPrefix holds user keys without their last 8 bytes: TiKV's write CF, prefix extractor FixedSuffixSliceTransform.
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

const (
	bloomPolicy     = "rocksdb.BuiltinBloomFilter"
	bloomBitsPerKey = 10
	bloomProbes     = 6 // int(bits per key * 0.69)
	bloomLineBytes  = 64
	bloomSuffix     = 8 // bytes of a commit_ts behind the key in the write CF
)

// bloomBuilder makes the filter block that RocksDB writes below format version 5, bit for bit.
//
//	+--------------------------------------------+-----------+----------------------+
//	| lines of 64 bytes; their number is odd     | probes u8 | number of lines u32  |
//	+--------------------------------------------+-----------+----------------------+
//
// The hash chooses the line and, stepped by its own rotation, one bit of the line per probe.
// Source: tikv/rocksdb 8.10.tikv util/bloom_impl.h (LegacyLocalityBloomImpl), table/block_based/filter_policy.cc
// (LegacyBloomBitsBuilder), table/block_based/full_filter_block.cc (FullFilterBlockBuilder).
type bloomBuilder struct {
	kind      FilterKind
	hashes    []uint32
	lastWhole []byte
	lastPref  []byte
	seenWhole bool
	seenPref  bool
	inDomain  bool // the previous key had a prefix
	prev      []byte
	same      bool // prev is the prefix added last, of a filter that holds nothing else
}

// add takes user keys in ascending order.
func (b *bloomBuilder) add(user []byte) {
	hasPrefix := b.kind.prefix() && len(user) >= bloomSuffix
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
	p := user[:len(user)-bloomSuffix]
	if !b.kind.wholeKey() {
		// Neighbours with one hash count once anyway; this spares the hash.
		if !b.same || string(b.prev) != string(p) {
			b.addHash(p)
			b.same, b.prev = true, append(b.prev[:0], p...)
		}
	} else if !b.seenPref || string(b.lastPref) != string(p) {
		b.addHash(p)
		b.seenPref, b.lastPref = true, append(b.lastPref[:0], p...)
	}
}

func (b *bloomBuilder) addHash(key []byte) {
	h := bloomHash(key)
	if n := len(b.hashes); n == 0 || b.hashes[n-1] != h {
		b.hashes = append(b.hashes, h)
	}
}

// finish gives the filter block; nil when nothing was added, because an empty filter would hide every key.
func (b *bloomBuilder) finish() []byte {
	if len(b.hashes) == 0 {
		return nil
	}
	const lineBits = bloomLineBytes * 8
	lines := uint32((uint64(len(b.hashes))*bloomBitsPerKey + lineBits - 1) / lineBits)
	lines |= 1
	out := make([]byte, int(lines)*bloomLineBytes, int(lines)*bloomLineBytes+trailerSize+trailerSize)
	for _, h := range b.hashes {
		line := out[int(h%lines)*bloomLineBytes:]
		delta := bits.RotateLeft32(h, -17)
		for range bloomProbes {
			bit := h % lineBits
			line[bit/8] |= 1 << (bit % 8)
			h += delta
		}
	}
	return binary.LittleEndian.AppendUint32(append(out, bloomProbes), lines)
}

// bloomHash is LevelDB's murmur-like hash. The last bytes are added as signed chars: that is what the compilers of the
// time made of it, and files depend on it. Source: tikv/rocksdb 8.10.tikv util/hash.cc (Hash), util/hash.h (BloomHash).
func bloomHash(b []byte) uint32 {
	const m = 0xc6a4a793
	h := uint32(0xbc9f1d34) ^ uint32(len(b))*m
	for ; len(b) >= 4; b = b[4:] {
		h += binary.LittleEndian.Uint32(b)
		h *= m
		h ^= h >> 16
	}
	for i := len(b) - 1; i >= 0; i-- {
		h += uint32(int32(int8(b[i]))) << (8 * i)
	}
	if len(b) > 0 {
		h *= m
		h ^= h >> 24
	}
	return h
}
