package sst

import (
	"encoding/binary"
	"math/bits"
)

const (
	bloomLineBytes = 64
	bloomLineBits  = bloomLineBytes * 8
	filterTail     = 5 // metadata behind the bits of every kind of filter

	// First byte of the metadata where it is not the number of probes of a legacy filter.
	markFastBloom = 0xFF
	markRibbon    = 0xFE

	// RocksDB computes these sizes in 32 bits.
	maxLegacyBits = 0xffff0000
	maxFastBytes  = 0xffffffc0
)

// legacyBloom makes the filter block that RocksDB's Bloom policy writes below format version 5, bit for bit.
//
//	+--------------------------------------------+-----------+----------------------+
//	| lines of 64 bytes; their number is odd     | probes u8 | lines u32 LE         |
//	+--------------------------------------------+-----------+----------------------+
//
// The hash chooses the line and, stepped by its own rotation, one bit of the line per probe. Bits per key are whole ones.
// Source: tikv/rocksdb 8.10.tikv util/bloom_impl.h (LegacyLocalityBloomImpl), table/block_based/filter_policy.cc
// (LegacyBloomBitsBuilder); the same in 6.4.tikv table/full_filter_bits_builder.h.
func legacyBloom(hashes []uint32, millibits int) []byte {
	probes := legacyProbes(millibits)
	total := min(uint64(len(hashes))*uint64(wholeBits(millibits)), maxLegacyBits)
	lines := uint32((total+bloomLineBits-1)/bloomLineBits) | 1
	out := make([]byte, int(lines)*bloomLineBytes, int(lines)*bloomLineBytes+filterTail+trailerSize)
	for _, h := range hashes {
		line := out[int(h%lines)*bloomLineBytes:][:bloomLineBytes]
		delta := bits.RotateLeft32(h, -17)
		for range probes {
			bit := h % bloomLineBits
			line[bit/8] |= 1 << (bit % 8)
			h += delta
		}
	}
	return binary.LittleEndian.AppendUint32(append(out, byte(probes)), lines)
}

func wholeBits(millibits int) int { return (millibits + 500) / 1000 }

// legacyProbes rounds down, which made queries cheaper.
func legacyProbes(millibits int) int {
	return min(max(int(float64(wholeBits(millibits))*0.69), 1), 30)
}

// fastBloom makes the filter block that RocksDB's Bloom policy writes from format version 5 on, bit for bit.
//
//	+-----------------------+---------+--------------------+-----------------------------------------+-----------+
//	| lines of 64 bytes     | FF: new | 00: FastLocalBloom | probes in bits 0 to 4; 0: 64-byte lines | 0 u16     |
//	+-----------------------+---------+--------------------+-----------------------------------------+-----------+
//
// The lower half of the hash chooses the line; the upper half, multiplied from probe to probe, gives 9 bits for each.
// Source: tikv/rocksdb 8.10.tikv util/bloom_impl.h (FastLocalBloomImpl), table/block_based/filter_policy.cc (FastLocalBloomBitsBuilder,
// BuiltinFilterPolicy::GetBloomBitsReader).
func fastBloom(hashes []uint64, millibits int) []byte {
	n, probes := fastBloomBytes(len(hashes), millibits), fastBloomProbes(millibits)
	lines := uint64(n / bloomLineBytes)
	out := make([]byte, n, n+filterTail+trailerSize)
	for _, h := range hashes {
		line := out[(uint64(uint32(h))*lines>>32)*bloomLineBytes:][:bloomLineBytes]
		p := uint32(h >> 32)
		for range probes {
			bit := p >> 23
			line[bit/8] |= 1 << (bit % 8)
			p *= bloomGolden
		}
	}
	return append(out, markFastBloom, 0, byte(probes), 0, 0)
}

const bloomGolden = 0x9e3779b9

// fastBloomBytes is the size of the lines for n keys.
func fastBloomBytes(n, millibits int) int {
	raw := min((uint64(n)*uint64(millibits)+7999)/8000, maxFastBytes)
	return int((raw + bloomLineBytes - 1) &^ (bloomLineBytes - 1))
}

// fastBloomProbes is RocksDB's measured optimum. Source: util/bloom_impl.h (FastLocalBloomImpl::ChooseNumProbes).
func fastBloomProbes(millibits int) int {
	for i, most := range []int{2080, 3580, 5100, 6640, 8300, 10070, 11720, 14001, 16050, 18300, 22001, 25501} {
		if millibits <= most {
			return i + 1
		}
	}
	if millibits > 50000 {
		return 24
	}
	return (millibits-1)/2000 - 1
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
