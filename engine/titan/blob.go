package titan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Index is the value of a blob index record (type 0x11): where the real value is.
type Index struct {
	File   uint64 // blob file number
	Offset uint64 // of the record's header in the file
	Size   uint64 // bytes of the record, its 9 byte header included, padding not
}

// ParseIndex decodes a blob index. Trailing bytes are an error: no released Titan writes any (tikv/titan master
// src/blob_format.cc BlobIndex).
//
//	+--------+-------------+----------+----------+
//	| 1      | file number | offset   | size     |
//	| 1 byte | varint64    | varint64 | varint64 |
//	+--------+-------------+----------+----------+
func ParseIndex(b []byte) (Index, error) {
	if len(b) == 0 || b[0] != 1 {
		return Index{}, fmt.Errorf("blob index %X does not start with 01", clip(b))
	}
	d := decoder{b: b[1:]}
	x := Index{File: d.u64(), Offset: d.u64(), Size: d.u64()}
	if d.err != nil {
		return Index{}, fmt.Errorf("blob index %X is cut off", clip(b))
	}
	if len(d.b) > 0 {
		return Index{}, fmt.Errorf("blob index %X has %d trailing bytes", clip(b), len(d.b))
	}
	return x, nil
}

func clip(b []byte) []byte { return b[:min(len(b), 32)] }

// Blob file NNNNNN.blob, little endian (tikv/titan master src/blob_format.h, src/blob_file_builder.cc).
//
//	header  +------------+---------+---------------------------+----------------------+
//	        | 0x2be0a614 | version | flags: bit 0 = dictionary | block_size           |
//	        | 4 bytes    | 4 bytes | 4 bytes, version 2 and 3  | 8 bytes, version 3   |
//	        +------------+---------+---------------------------+----------------------+
//	record  +------------------+---------+-------------+--------------+---------------------------------+
//	        | crc32c, unmasked | size    | compression | payload      | zeros to a multiple of          |
//	        | 4 bytes          | 4 bytes | 1 byte      | "size" bytes | block_size, when that is not 0  |
//	        +------------------+---------+-------------+--------------+---------------------------------+
//	        crc32c covers size, compression and payload; payload, decompressed: lp(user key) | lp(value)
//	meta    dictionary block and metaindex block, version 2 with the dictionary flag only
//	footer  +--------------------------------+--------------------+-----------------------+
//	        | metaindex handle, padded to 20 | 0x2be0a6148e39edc6 | crc32c, unmasked, of  |
//	        |                                | 8 bytes            | the 28 bytes, 4 bytes |
//	        +--------------------------------+--------------------+-----------------------+
const (
	headerMagic  = 0x2be0a614
	footerMagic  = 0x2be0a6148e39edc6
	flagDict     = 1
	recordHeader = 9
	footerSize   = 32
	// maxRecord bounds what a record may claim to unpack to. TiKV's largest value is a raft entry's (8 MiB by default).
	maxRecord = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a blob file's decoded header.
type header struct {
	version   uint32
	flags     uint32
	blockSize uint64
	size      int // bytes of the header
}

func parseHeader(path string, b []byte) (header, error) {
	if len(b) < 8 || binary.LittleEndian.Uint32(b) != headerMagic {
		return header{}, base.Corruptf(path, 0, "not a blob file: bad header magic")
	}
	h := header{version: binary.LittleEndian.Uint32(b[4:])}
	switch h.version {
	case 1:
		h.size = 8
	case 2:
		h.size = 12
	case 3:
		h.size = 20
	default:
		return header{}, base.Unsupportedf(path, "blob file has version %d; versions 1 to 3 are known", h.version)
	}
	if len(b) < h.size {
		return header{}, base.Corruptf(path, 0, "blob file header is cut off")
	}
	if h.version >= 2 {
		h.flags = binary.LittleEndian.Uint32(b[8:])
	}
	if h.version == 3 {
		h.blockSize = binary.LittleEndian.Uint64(b[12:])
	}
	switch {
	case h.flags&^flagDict != 0:
		return header{}, base.Unsupportedf(path, "blob file has unknown flags %#x", h.flags)
	case h.flags&flagDict != 0:
		return header{}, base.Unsupportedf(path, "blob file is compressed with a dictionary (zstd-dict-size)")
	case h.blockSize > maxRecord:
		return header{}, base.Corruptf(path, 12, "block size %d is not plausible", h.blockSize)
	}
	return h, nil
}

// parseFooter checks the footer and tells whether the file has meta blocks. b is the file's last footerSize bytes.
func parseFooter(path string, off int64, b []byte) (hasMeta bool, err error) {
	if magic := binary.LittleEndian.Uint64(b[20:]); magic != footerMagic {
		return false, base.Corruptf(path, off+20, "blob file footer has magic %016x: the file is cut off or damaged", magic)
	}
	if got, want := crc32.Checksum(b[:28], castagnoli), binary.LittleEndian.Uint32(b[28:]); got != want {
		return false, base.Corruptf(path, off, "blob file footer has checksum %08x, expected %08x", got, want)
	}
	return !allZero(b[:20]), nil
}

// decodeRecord takes a whole record, header included, and gives its key and value. They may alias b.
func decodeRecord(b []byte) (key, value []byte, err error) {
	if len(b) < recordHeader {
		return nil, nil, errors.New("record is shorter than its header")
	}
	if size := binary.LittleEndian.Uint32(b[4:]); uint64(size) != uint64(len(b)-recordHeader) {
		return nil, nil, fmt.Errorf("record says %d bytes, its index %d", size, len(b)-recordHeader)
	}
	if got, want := crc32.Checksum(b[4:], castagnoli), binary.LittleEndian.Uint32(b); got != want {
		return nil, nil, fmt.Errorf("record has checksum %08x, expected %08x", got, want)
	}
	raw, err := decompress(b[8], b[recordHeader:])
	if err != nil {
		return nil, nil, err
	}
	key, rest, ok := lengthPrefixed(raw)
	value, rest, ok2 := lengthPrefixed(rest)
	if !ok || !ok2 || len(rest) > 0 {
		return nil, nil, errors.New("record is not one key and one value")
	}
	return key, value, nil
}

func lengthPrefixed(b []byte) (s, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	return b[w : w+int(n) : w+int(n)], b[w+int(n):], true
}

var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxRecord), zstd.WithDecoderConcurrency(0))
})

// errCompression marks a compression that the tool refuses by name.
var errCompression = errors.New("compression is not supported")

// decompress unpacks a payload in RocksDB's compress format 2: a varint32 with the unpacked size stands before the
// stream, except for snappy, which has its own (tikv/rocksdb 8.10.tikv util/compression.h).
func decompress(typ byte, b []byte) ([]byte, error) {
	switch typ {
	case 0:
		return b, nil
	case 1:
		n, err := snappy.DecodedLen(b)
		if err != nil || n > maxRecord || n > 64*len(b)+64 {
			return nil, fmt.Errorf("snappy stream of %d bytes claims %d (%v)", len(b), n, err)
		}
		return snappy.Decode(nil, b)
	case 4, 5, 7, 0x40:
	default:
		return nil, fmt.Errorf("type %d: %w", typ, errCompression)
	}
	size, w := binary.Uvarint(b)
	if w <= 0 || size > maxRecord {
		return nil, fmt.Errorf("unpacked size %d is not plausible", size)
	}
	b = b[w:]
	// What the algorithms can reach at most: a length from the file must not decide alone how much is allocated.
	// LZ4 extends a match by 255 bytes per byte; zstd's smallest block of 4 bytes unpacks to 128 KiB.
	limit := uint64(len(b))*255 + 64
	if typ == 7 || typ == 0x40 {
		limit = (uint64(len(b))/4 + 1) << 17
	}
	if size > limit {
		return nil, fmt.Errorf("%d bytes cannot unpack to %d", len(b), size)
	}
	if typ == 4 || typ == 5 {
		out := make([]byte, size)
		n, err := lz4.UncompressBlock(b, out)
		if err != nil || uint64(n) != size {
			return nil, fmt.Errorf("lz4 block unpacks to %d bytes of %d (%v)", n, size, err)
		}
		return out, nil
	}
	var fh zstd.Header
	if err := fh.Decode(b); err != nil || fh.Skippable || fh.HasFCS && fh.FrameContentSize != size {
		return nil, fmt.Errorf("zstd frame does not hold %d bytes (%v)", size, err)
	}
	dec, err := zstdDecoder()
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	out, err := dec.DecodeAll(b, make([]byte, 0, size))
	if err != nil || uint64(len(out)) != size {
		return nil, fmt.Errorf("zstd frame unpacks to %d bytes of %d (%v)", len(out), size, err)
	}
	return out, nil
}

// readAt fills b from off; a short file is reported as corruption of path.
func readAt(r io.ReaderAt, path string, b []byte, off int64) error {
	switch n, err := r.ReadAt(b, off); {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return base.Corruptf(path, off, "the file ends %d bytes early", len(b)-n)
	default:
		return base.IO("read", path, err)
	}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
