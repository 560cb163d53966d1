package sst

import (
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Compression codes of a block's trailer. Source: tikv/rocksdb 8.10.tikv include/rocksdb/compression_type.h.
const (
	CompressionNone         byte = 0x00
	CompressionSnappy       byte = 0x01
	CompressionZlib         byte = 0x02
	CompressionBZip2        byte = 0x03
	CompressionLZ4          byte = 0x04
	CompressionLZ4HC        byte = 0x05
	CompressionXpress       byte = 0x06 // Windows; refused
	CompressionZSTD         byte = 0x07
	CompressionZSTDNotFinal byte = 0x40
)

var compressionNames = map[byte]string{
	CompressionNone: "NoCompression", CompressionSnappy: "Snappy", CompressionZlib: "Zlib", CompressionBZip2: "BZip2",
	CompressionLZ4: "LZ4", CompressionLZ4HC: "LZ4HC", CompressionXpress: "Xpress", CompressionZSTD: "ZSTD",
	CompressionZSTDNotFinal: "ZSTDNotFinal",
}

// CompressionName gives RocksDB's name of a code, as the property rocksdb.compression has it. 8.10 takes NoCompression
// there to mean that it never has to decompress a block of the file, so the name must be true.
func CompressionName(code byte) string {
	if n, ok := compressionNames[code]; ok {
		return n
	}
	return fmt.Sprintf("compression type 0x%02X", code)
}

// CompressionCode is the inverse of CompressionName.
func CompressionCode(name string) (byte, bool) {
	for c, n := range compressionNames {
		if n == name {
			return c, true
		}
	}
	return 0, false
}

// errCompression is a compression that is not decoded, as opposed to one whose bytes are damaged.
type errCompression byte

func (e errCompression) Error() string { return CompressionName(byte(e)) + " blocks are not supported" }

var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxBlock), zstd.WithDecodeAllCapLimit(true))
})

// maxExpansion is the most that n stored bytes of the given compression can become: a size prefix above it is a lie, and
// nothing may be allocated by it. LZ4: each length byte adds 255. Snappy: a 3-byte copy gives 64. Deflate: 1032 to 1.
// ZSTD: a 4-byte RLE block gives 128 KiB.
func maxExpansion(code byte, n int) uint64 {
	switch code {
	case CompressionSnappy:
		return 64 * uint64(n)
	case CompressionLZ4, CompressionLZ4HC:
		return 255*uint64(n) + 64
	case CompressionZlib:
		return 1032*uint64(n) + 1032
	}
	return 32768*uint64(n) + 1<<17
}

// decompress decodes a stored payload into dst's memory where that suffices; the result aliases dst or src.
//
//	type   footer version >= 2           footer version 0, 1
//	0      raw                           raw
//	1      snappy, has its own length    same
//	2, 3   size varint32 | stream        stream only
//	4, 5   size varint32 | LZ4 block     size u32 LE | 4 bytes | LZ4 block
//	7      size varint32 | zstd frame    same
//
// The zlib stream is raw deflate. Source: tikv/rocksdb 8.10.tikv util/compression.h.
func decompress(code byte, version uint32, src, dst []byte) ([]byte, error) {
	switch code {
	case CompressionNone:
		return src, nil
	case CompressionSnappy:
		n, err := snappy.DecodedLen(src)
		if err != nil {
			return nil, err
		}
		if dst, err = sized(code, dst, uint64(n), len(src)); err != nil {
			return nil, err
		}
		return exact(snappy.Decode(dst[:n], src))(n)
	case CompressionXpress:
		return nil, errCompression(code)
	case CompressionZlib, CompressionBZip2, CompressionLZ4, CompressionLZ4HC, CompressionZSTD, CompressionZSTDNotFinal:
	default:
		return nil, errCompression(code)
	}
	var size uint64
	stream := code == CompressionZlib || code == CompressionBZip2
	known := true
	switch {
	case version >= 2 || code == CompressionZSTD || code == CompressionZSTDNotFinal:
		n := 0
		if size, n = binary.Uvarint(src); n <= 0 || n > 5 {
			return nil, fmt.Errorf("%s block has no size prefix", CompressionName(code))
		}
		src = src[n:]
	case stream:
		known = false
	default:
		if len(src) < 8 {
			return nil, fmt.Errorf("%s block has no size prefix", CompressionName(code))
		}
		size = uint64(binary.LittleEndian.Uint32(src))
		src = src[8:]
	}
	if stream {
		return inflate(code, src, dst, size, known)
	}
	dst, err := sized(code, dst, size, len(src))
	if err != nil {
		return nil, err
	}
	if code == CompressionLZ4 || code == CompressionLZ4HC {
		n, err := lz4.UncompressBlock(src, dst[:size])
		if err != nil {
			return nil, err
		}
		return exact(dst[:n], nil)(int(size))
	}
	dec, err := zstdDecoder()
	if err != nil {
		return nil, err
	}
	return exact(dec.DecodeAll(src, dst[:0:size]))(int(size))
}

// sized gives a buffer of size bytes after the claim was found plausible.
func sized(code byte, dst []byte, size uint64, stored int) ([]byte, error) {
	if size > maxBlock || size > maxExpansion(code, stored) {
		return nil, fmt.Errorf("%s block of %d bytes claims to decompress to %d", CompressionName(code), stored, size)
	}
	// Never nil, not even for nothing: lz4's assembly subtracts from the address of the output and would write to address 0.
	if uint64(cap(dst)) < size || dst == nil {
		dst = make([]byte, size)
	}
	return dst[:size], nil
}

func exact(b []byte, err error) func(want int) ([]byte, error) {
	return func(want int) ([]byte, error) {
		if err != nil {
			return nil, err
		}
		if len(b) != want {
			return nil, fmt.Errorf("decompressed to %d bytes, not %d", len(b), want)
		}
		return b, nil
	}
}

// inflate decodes the two stream formats, reading no more than one byte beyond the promised size.
func inflate(code byte, src, dst []byte, size uint64, known bool) ([]byte, error) {
	var r io.Reader
	if code == CompressionZlib {
		f := flate.NewReader(bytes.NewReader(src))
		defer f.Close()
		r = f
	} else {
		r = bzip2.NewReader(bytes.NewReader(src))
	}
	limit := uint64(maxBlock)
	if known {
		if size > limit || code == CompressionZlib && size > maxExpansion(code, len(src)) {
			return nil, fmt.Errorf("%s block of %d bytes claims to decompress to %d", CompressionName(code), len(src), size)
		}
		limit = size
	}
	buf := bytes.NewBuffer(dst[:0])
	if _, err := io.Copy(buf, io.LimitReader(r, int64(limit)+1)); err != nil {
		return nil, err
	}
	if n := uint64(buf.Len()); n > limit || known && n != size {
		return nil, fmt.Errorf("%s block decompresses to %d bytes or more, not %d", CompressionName(code), n, limit)
	}
	return buf.Bytes(), nil
}

// ZSTDLevel is how hard new blocks are compressed: twice as fast as the next one and some percent larger at most, until TiKV's next
// compaction makes them anew.
const ZSTDLevel = zstd.SpeedFastest

var zstdEncoders = sync.Pool{New: func() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(ZSTDLevel), zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	return e
}}

// compressor compresses blocks for one Writer in the form of footer version 2.
type compressor struct {
	code byte
	buf  []byte
	lz4  lz4.Compressor
	hc   lz4.CompressorHC
}

// compress returns what to store and its code. A block that does not shrink by an eighth stays as it is, which is
// RocksDB's own threshold: decompressing it would cost more than reading it.
func (c *compressor) compress(raw []byte) ([]byte, byte, error) {
	if c.code == CompressionNone {
		return raw, CompressionNone, nil
	}
	var out []byte
	switch c.code {
	case CompressionSnappy:
		out = snappy.Encode(c.buf[:cap(c.buf)], raw)
	case CompressionLZ4, CompressionLZ4HC:
		need := binary.MaxVarintLen32 + lz4.CompressBlockBound(len(raw))
		if cap(c.buf) < need {
			c.buf = make([]byte, need)
		}
		head := binary.PutUvarint(c.buf[:need], uint64(len(raw)))
		var n int
		var err error
		if c.code == CompressionLZ4 {
			n, err = c.lz4.CompressBlock(raw, c.buf[head:need])
		} else {
			n, err = c.hc.CompressBlock(raw, c.buf[head:need])
		}
		if err != nil {
			return nil, 0, err
		}
		if n == 0 {
			return raw, CompressionNone, nil
		}
		out = c.buf[:head+n]
	case CompressionZSTD:
		v := zstdEncoders.Get()
		e, ok := v.(*zstd.Encoder)
		if !ok {
			return nil, 0, v.(error)
		}
		out = e.EncodeAll(raw, binary.AppendUvarint(c.buf[:0], uint64(len(raw))))
		zstdEncoders.Put(e)
	default:
		return nil, 0, errCompression(c.code)
	}
	if cap(out) > cap(c.buf) {
		c.buf = out
	}
	if len(out) >= len(raw)-len(raw)/8 {
		return raw, CompressionNone, nil
	}
	return out, c.code, nil
}
