package sst

import (
	"encoding/binary"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Magic numbers, the last 8 bytes of a table, little endian.
// Source: tikv/rocksdb 8.10.tikv table/block_based/block_based_table_builder.cc, table/plain, table/cuckoo.
const (
	magicBlockBased       uint64 = 0x88e241b785f4cff7
	magicLegacyBlockBased uint64 = 0xdb4775248b80fb57
	magicPlain            uint64 = 0x8242229663bf9564
	magicLegacyPlain      uint64 = 0x4f3418eb7a8f13b8
	magicCuckoo           uint64 = 0x926789d0c5f17873
)

const (
	footerLegacySize = 48
	footerSize       = 53
	trailerSize      = 5
	maxVersion       = 6
	// maxBlock bounds what one block may take in memory. A block holds at least one record, so it is as long as the
	// longest value; TiKV's limit for one entry is far below.
	maxBlock = 1 << 30
)

// handle locates a block. Size is without the 5-byte trailer.
type handle struct{ off, size uint64 }

// decodeHandle returns the handle and what follows it.
func decodeHandle(b []byte) (handle, []byte, bool) {
	off, n := binary.Uvarint(b)
	if n <= 0 {
		return handle{}, nil, false
	}
	size, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return handle{}, nil, false
	}
	return handle{off, size}, b[n+m:], true
}

func appendHandle(dst []byte, h handle) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, h.off), h.size)
}

// footer is the decoded end of a table.
//
//	version 0, 48 bytes                       magic 0xdb4775248b80fb57; checksum type is crc32c
//	+----------------------------------------------+---------------+
//	| metaindex handle, index handle, zero pad: 40 | magic u64 LE  |
//	+----------------------------------------------+---------------+
//
//	version 1 to 5, 53 bytes                  magic 0x88e241b785f4cff7
//	+------------------+------------------------------+----------------+--------------+
//	| checksum type u8 | handles as above, padded: 40 | version u32 LE | magic u64 LE |
//	+------------------+------------------------------+----------------+--------------+
//
//	version 6, 53 bytes
//	+------------------+-------------+---------------------+------------------+-----------------------+
//	| checksum type u8 | 3e 00 7a 00 | footer checksum u32 | base context u32 | metaindex size u32 LE |
//	+------------------+-------------+---------------------+------------------+-----------------------+
//	| 24 reserved, the last 8 must be zero | version u32 LE | magic u64 LE |
//	+--------------------------------------+----------------+--------------+
//
// Version 6 has its metaindex directly before the footer and its index handle in the metaindex.
// Source: tikv/rocksdb 8.10.tikv table/format.cc (FooterBuilder::Build, Footer::DecodeFrom).
type footer struct {
	version  uint32
	checksum ChecksumType
	base     uint32 // context of the checksums; 0 before version 6
	meta     handle
	index    handle // zero in version 6
	off      uint64 // where the footer starts: no block reaches beyond
}

var footerV6Marker = [4]byte{0x3e, 0x00, 0x7a, 0x00}

// decodeFooter decodes the footer at the end of tail, which is the end of a file of the given size.
func decodeFooter(path string, tail []byte, size uint64) (footer, error) {
	at := func(back int) int64 { return int64(size) - int64(back) }
	if len(tail) < footerLegacySize {
		return footer{}, base.Corruptf(path, 0, "%d bytes are too short for a table", size)
	}
	magic := binary.LittleEndian.Uint64(tail[len(tail)-8:])
	switch magic {
	case magicLegacyBlockBased:
		f := footer{checksum: ChecksumCRC32C, off: size - footerLegacySize}
		return f, f.handles(path, tail[len(tail)-footerLegacySize:])
	case magicBlockBased:
	case magicPlain, magicLegacyPlain:
		return footer{}, base.Unsupportedf(path, "this is a plain table, not a block-based one")
	case magicCuckoo:
		return footer{}, base.Unsupportedf(path, "this is a cuckoo table, not a block-based one")
	default:
		return footer{}, base.Corruptf(path, at(8), "the file does not end like a table (magic number 0x%016x)", magic)
	}
	if len(tail) < footerSize {
		return footer{}, base.Corruptf(path, 0, "%d bytes are too short for a table", size)
	}
	b := tail[len(tail)-footerSize:]
	f := footer{
		version:  binary.LittleEndian.Uint32(b[41:]),
		checksum: ChecksumType(b[0]),
		off:      size - footerSize,
	}
	if f.version == 0 || f.version > maxVersion {
		return footer{}, base.Unsupportedf(path, "table format version %d (1 to %d are known under this magic number)", f.version, maxVersion)
	}
	if f.checksum > ChecksumXXH3 {
		return footer{}, base.Unsupportedf(path, "%v of the blocks is not known", f.checksum)
	}
	if f.version < 6 {
		return f, f.handles(path, b[1:])
	}
	if [4]byte(b[1:5]) != footerV6Marker {
		return footer{}, base.Corruptf(path, at(footerSize-1), "marker of footer version 6 is missing")
	}
	stored := binary.LittleEndian.Uint32(b[5:])
	f.base = binary.LittleEndian.Uint32(b[9:])
	if f.base == 0 {
		return footer{}, base.Corruptf(path, at(footerSize-9), "base context checksum of a version 6 footer is zero")
	}
	metaSize := uint64(binary.LittleEndian.Uint32(b[13:]))
	plain := [footerSize]byte(b)
	clear(plain[5:9])
	if got := checksum(f.checksum, plain[:]) + contextModifier(f.base, f.off); got != stored {
		return footer{}, base.Corruptf(path, at(footerSize-5), "footer checksum is %08x, computed %08x", stored, got)
	}
	if binary.LittleEndian.Uint64(b[33:]) != 0 {
		return footer{}, base.Unsupportedf(path, "reserved bytes of the version 6 footer are in use")
	}
	if metaSize+trailerSize > f.off {
		return footer{}, base.Corruptf(path, at(footerSize-13), "metaindex size %d is larger than the file", metaSize)
	}
	f.meta = handle{f.off - trailerSize - metaSize, metaSize}
	return f, nil
}

func (f *footer) handles(path string, b []byte) error {
	var ok bool
	b = b[:40]
	if f.meta, b, ok = decodeHandle(b); ok {
		f.index, _, ok = decodeHandle(b)
	}
	if !ok {
		return base.Corruptf(path, int64(f.off), "footer does not hold two block handles")
	}
	for _, h := range []handle{f.meta, f.index} {
		if err := f.check(h); err != "" {
			return base.Corruptf(path, int64(f.off), "footer: %s", err)
		}
	}
	return nil
}

// check tells why h cannot be a block of this file; empty when it can.
func (f *footer) check(h handle) string {
	if h.size > maxBlock {
		return fmt.Sprintf("block of %d bytes at %d is larger than the limit of %d", h.size, h.off, uint64(maxBlock))
	}
	if h.off > f.off || h.size+trailerSize > f.off-h.off {
		return fmt.Sprintf("block of %d bytes at %d reaches beyond the footer at %d", h.size, h.off, f.off)
	}
	return ""
}

// encodeFooter makes the footer of versions 1 to 5.
func encodeFooter(version uint32, c ChecksumType, meta, index handle) []byte {
	b := make([]byte, footerSize)
	b[0] = byte(c)
	h := appendHandle(appendHandle(nil, meta), index)
	copy(b[1:41], h)
	binary.LittleEndian.PutUint32(b[41:], version)
	binary.LittleEndian.PutUint64(b[45:], magicBlockBased)
	return b
}
