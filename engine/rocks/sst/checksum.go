package sst

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"github.com/zeebo/xxh3"
)

// ChecksumType is the code in the footer. Source: tikv/rocksdb 8.10.tikv include/rocksdb/table.h (ChecksumType).
type ChecksumType uint8

// The checksum types of a block trailer.
const (
	ChecksumNone   ChecksumType = 0 // the field is zero
	ChecksumCRC32C ChecksumType = 1 // Castagnoli, masked
	ChecksumXXH32  ChecksumType = 2 // seed 0
	ChecksumXXH64  ChecksumType = 3 // seed 0, low 32 bits
	ChecksumXXH3   ChecksumType = 4 // XXH3-64 without the last byte, low 32 bits, which the last byte then modifies; since 6.27
)

// String gives the name that RocksDB's options use.
func (c ChecksumType) String() string {
	switch c {
	case ChecksumNone:
		return "kNoChecksum"
	case ChecksumCRC32C:
		return "kCRC32c"
	case ChecksumXXH32:
		return "kxxHash"
	case ChecksumXXH64:
		return "kxxHash64"
	case ChecksumXXH3:
		return "kXXH3"
	}
	return fmt.Sprintf("checksum type %d", uint8(c))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maskCRC is what LevelDB stores instead of a crc: a crc over bytes that hold a crc is a weak one.
func maskCRC(c uint32) uint32 { return (c>>15 | c<<17) + 0xa282ead8 }

// checksum is computed over b: stored payload and, as its last byte, the compression type.
// Source: tikv/rocksdb 8.10.tikv table/format.cc (ComputeBuiltinChecksum).
func checksum(t ChecksumType, b []byte) uint32 {
	switch t {
	case ChecksumCRC32C:
		return maskCRC(crc32.Checksum(b, castagnoli))
	case ChecksumXXH32:
		return xxh32(b)
	case ChecksumXXH64:
		return uint32(xxhash.Sum64(b))
	case ChecksumXXH3:
		if len(b) == 0 {
			return 0
		}
		last := b[len(b)-1]
		return uint32(xxh3.Hash(b[:len(b)-1])) ^ uint32(last)*0x6b9083d9
	}
	return 0
}

// contextModifier is added to every checksum of a footer-version-6 file, so that a block that is read from the wrong place
// or file does not pass. base is zero, and so is the modifier, in all older versions.
// Source: tikv/rocksdb 8.10.tikv table/format.h (ChecksumModifierForContext).
func contextModifier(base uint32, off uint64) uint32 {
	if base == 0 {
		return 0
	}
	return base ^ (uint32(off) + uint32(off>>32))
}

// checksums gives the checksum that a block is stored with, and the one that its payload and type byte have.
func (f *footer) checksums(h handle, raw []byte) (stored, computed uint32) {
	body := raw[:len(raw)-4]
	return binary.LittleEndian.Uint32(raw[len(body):]), checksum(f.checksum, body) + contextModifier(f.base, h.off)
}
