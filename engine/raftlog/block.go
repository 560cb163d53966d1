package raftlog

import (
	"encoding/binary"
	"fmt"

	"github.com/pierrec/lz4/v4"
)

// Entries block; tikv/raft-engine 0.4.2 src/log_batch.rs, src/util.rs (lz4):
//
//	compression 0:  eraftpb.Entry messages one after the other, cut by the tail offsets | CRC-32 u32 LE
//	compression 1:  decoded length u32 LE | one LZ4 block (not a frame)                 | CRC-32 u32 LE
//
// The checksum covers everything before it and, unlike that of the items, is not mixed with the file number.
const (
	compressionNone = 0
	compressionLZ4  = 1

	// maxDecodedBlock is LZ4's own limit, which the writer keeps for the entries of one batch.
	maxDecodedBlock = 0x7E000000
	// maxLZ4Ratio: one more byte of input gives at most 255 bytes of output.
	maxLZ4Ratio = 255
)

// DecodeBlock checks an entries block with its checksum and returns the entries in it. An uncompressed result shares b.
func DecodeBlock(b []byte, compression byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("entries block: %d bytes", len(b))
	}
	body := b[:len(b)-4]
	if want, got := binary.LittleEndian.Uint32(b[len(b)-4:]), crc(body); want != got {
		return nil, fmt.Errorf("entries block: checksum %08X, expected %08X", got, want)
	}
	switch compression {
	case compressionNone:
		return body, nil
	case compressionLZ4:
		if len(body) <= 4 {
			return nil, fmt.Errorf("entries block: LZ4 envelope of %d bytes", len(body))
		}
		n, src := binary.LittleEndian.Uint32(body), body[4:]
		if n > maxDecodedBlock || uint64(n) > uint64(len(src))*maxLZ4Ratio {
			return nil, fmt.Errorf("entries block: %d bytes out of %d of LZ4", n, len(src))
		}
		dst := make([]byte, n)
		got, err := lz4.UncompressBlock(src, dst)
		if err != nil {
			return nil, fmt.Errorf("entries block: %w", err)
		}
		if got != int(n) {
			return nil, fmt.Errorf("entries block: LZ4 gave %d bytes, expected %d", got, n)
		}
		return dst, nil
	}
	return nil, fmt.Errorf("entries block: compression %d", compression)
}
