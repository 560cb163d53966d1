package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// A log file (WAL or MANIFEST) is a sequence of 32 KiB blocks. A physical record never crosses a block boundary; a logical
// record is one Full, or First Middle* Last. All integers are little endian.
//
//	legacy header, types 1-4
//	+-----------+--------------+-----------+---------------+
//	| crc (u32) | length (u16) | type (u8) | payload       |
//	+-----------+--------------+-----------+---------------+
//	recyclable header, types 5-8
//	+-----------+--------------+-----------+--------------------------------+---------------+
//	| crc (u32) | length (u16) | type (u8) | low 32 bits of the log (u32)   | payload       |
//	+-----------+--------------+-----------+--------------------------------+---------------+
//
//	crc    : mask(crc32c(everything from the type byte to the end of the payload))
//	length : of the payload; 0 is legal (a First in the last 7 bytes of a block)
//	fewer bytes than a header left in a block: zeros, skipped
//
// Source: tikv/rocksdb 8.10.tikv db/log_format.h, db/log_reader.cc (ReadRecord, ReadPhysicalRecord), db/log_writer.cc.
const (
	// BlockSize is the size of a block of a log file, in bytes.
	BlockSize = 32 << 10

	legacyHeader     = 7
	recyclableHeader = 11
)

const (
	typeZero   = 0
	typeFull   = 1
	typeFirst  = 2
	typeMiddle = 3
	typeLast   = 4

	typeRecyclableFull = 5
	typeRecyclableLast = 8
	// recyclableShift turns a recyclable type into its legacy twin.
	recyclableShift = 4

	typeSetCompression       = 9
	typeUserTimestampSize    = 10
	typeRecyclableUserTSSize = 11
)

const crcMaskDelta = 0xa282ead8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the masked CRC-32C of a physical record from its type byte on.
func checksum(b []byte) uint32 {
	c := crc32.Checksum(b, castagnoli)
	return (c>>15 | c<<17) + crcMaskDelta
}

// Reader takes the logical records out of a WAL or a MANIFEST.
//
// Next returns either a record, or one *Damage and on the next call goes on behind it, exactly where RocksDB's reader
// would, or io.EOF. Any other error (a failed read, a record type that is refused by name) is final.
type Reader struct {
	r         io.Reader
	path      string
	logNumber uint64

	backing  [BlockSize]byte
	buf      []byte // unread part of the block
	end      int64  // file offset behind buf
	eof      bool   // the block in buf is the last one
	recycled bool   // a recyclable record of this log was read
	err      error

	inFragment bool
	scratch    []byte
	start      int64 // offset of the First of scratch

	// A Full record that follows an unfinished one is held back while the damage is reported.
	held       []byte
	heldOffset int64
	hasHeld    bool

	// zeroFrom is the offset where preallocated space seemed to begin, -1 when none; zeroDirty: there were other bytes
	// than zeros in what was dropped.
	zeroFrom  int64
	zeroDirty bool

	// A physical record that waits while the gap before it is reported.
	waiting phys
	waits   bool
}

// NewReader reads the log file path from r, which stands at the first byte. logNumber is the number in the name of a WAL,
// 0 for a MANIFEST; only recyclable records carry it.
func NewReader(r io.Reader, path string, logNumber uint64) *Reader {
	return &Reader{r: r, path: path, logNumber: logNumber, zeroFrom: -1}
}

// Offset is how far the file was taken apart, in bytes from its start.
func (r *Reader) Offset() int64 { return r.end - int64(len(r.buf)) }

// Next returns the payload of the next logical record and the file offset of its first physical record. The payload is
// valid until the next call.
func (r *Reader) Next() ([]byte, int64, error) {
	if r.hasHeld {
		r.hasHeld = false
		return r.held, r.heldOffset, nil
	}
	if r.err != nil {
		return nil, r.Offset(), r.err
	}
	for {
		p := r.physical()
		if d := r.gap(p); d != nil {
			return nil, d.Offset, d
		}
		switch p.what {
		case physRecord:
			payload, off, done, d := r.assemble(p)
			if d != nil {
				return nil, d.Offset, d
			}
			if done {
				return payload, off, nil
			}
		case physZero:
			if r.inFragment {
				return r.damaged(r.abandon(ZeroInFragment, p, "zeros inside a fragmented record"))
			}
		case physChecksum:
			return r.damaged(r.abandon(ChecksumMismatch, p, "checksum mismatch"))
		case physBadLength:
			if !r.eof {
				return r.damaged(r.abandon(BadLength, p, "bad record length"))
			}
			return r.finish(r.abandon(TornBody, p, "truncated record body"))
		case physTornHeader:
			return r.finish(r.abandon(TornHeader, p, "truncated record header"))
		case physOld:
			switch {
			case r.inFragment:
				return r.finish(r.abandon(TornFragment, p, "fragmented record without an end before a record of another log"))
			case !r.recycled:
				d := r.abandon(OtherLog, p, "record of another log in a log that was not recycled; the engine takes it for the end")
				d.Silent = true
				return r.finish(d)
			}
			r.err = io.EOF
		case physEOF:
			if r.inFragment {
				return r.finish(r.abandon(TornFragment, p, "fragmented record without an end"))
			}
			r.err = io.EOF
		case physError:
			r.err = p.err
		}
		if r.err != nil {
			return nil, p.off, r.err
		}
	}
}

func (r *Reader) damaged(d *Damage) ([]byte, int64, error) { return nil, d.Offset, d }

// finish reports damage behind which nothing is read any more.
func (r *Reader) finish(d *Damage) ([]byte, int64, error) {
	r.err = io.EOF
	return nil, d.Offset, d
}

// abandon drops the open fragment and describes the damage from its start, or from p.
func (r *Reader) abandon(kind DamageKind, p phys, reason string) *Damage {
	d := &Damage{Kind: kind, Path: r.path, Offset: p.off, Reason: reason, RecordsBehind: p.behind, restZero: p.restZero}
	if r.inFragment {
		d.Offset = r.start
	}
	d.Bytes = r.Offset() - d.Offset
	if kind == UnfinishedFragment {
		d.Bytes = p.off - d.Offset
	}
	r.inFragment, r.scratch = false, r.scratch[:0]
	return d
}

// gap reports dropped space that turns out not to be the tail: something follows zeros, or there was something in them.
// RocksDB drops such space without a word, and so the records that were there.
func (r *Reader) gap(p phys) *Damage {
	if p.what == physZero {
		if r.zeroFrom < 0 {
			r.zeroFrom = p.off
		}
		r.zeroDirty = r.zeroDirty || !p.restZero
		return nil
	}
	if r.zeroFrom < 0 || p.what == physError {
		return nil
	}
	if !r.zeroDirty && (p.what == physEOF || p.what == physTornHeader && p.restZero) {
		return nil
	}
	d := &Damage{Kind: ZeroGap, Path: r.path, Offset: r.zeroFrom, Bytes: p.off - r.zeroFrom, Silent: true,
		Reason: "space that looks preallocated, with data in it or behind it; the engine drops it without a word"}
	r.zeroFrom, r.zeroDirty = -1, false
	r.waiting, r.waits = p, true
	return d
}

// assemble feeds one sound physical record into the fragment state machine.
func (r *Reader) assemble(p phys) (payload []byte, off int64, done bool, d *Damage) {
	switch p.typ {
	case typeFull:
		if r.inFragment && len(r.scratch) > 0 {
			r.held, r.heldOffset, r.hasHeld = p.payload, p.off, true
			return nil, 0, false, r.abandon(UnfinishedFragment, p, "fragmented record without an end before a full record")
		}
		// An empty First at the end of a block followed by a Full: written by old versions, no damage.
		r.inFragment = false
		return p.payload, p.off, true, nil
	case typeFirst:
		if r.inFragment && len(r.scratch) > 0 {
			d = r.abandon(UnfinishedFragment, p, "fragmented record without an end before another one")
		}
		r.inFragment, r.start = true, p.off
		r.scratch = append(r.scratch[:0], p.payload...)
		return nil, 0, false, d
	case typeMiddle, typeLast:
		if !r.inFragment {
			return nil, 0, false, r.abandon(MissingStart, p, "fragment without a first part")
		}
		r.scratch = append(r.scratch, p.payload...)
		if p.typ == typeMiddle {
			return nil, 0, false, nil
		}
		r.inFragment = false
		return r.scratch, r.start, true, nil
	}
	return nil, 0, false, r.abandon(UnknownType, p, fmt.Sprintf("unknown record type %d", p.typ))
}

type physKind uint8

const (
	physRecord physKind = iota
	physZero
	physChecksum
	physBadLength
	physTornHeader
	physOld
	physEOF
	physError
)

// phys is one physical record, or why there is none.
type phys struct {
	what     physKind
	typ      byte // legacy type
	restZero bool // what the block holds behind it (physZero, physTornHeader: it as well) is zeros
	behind   bool // physBadLength: a sound record follows in the block
	payload  []byte
	off      int64
	err      error
}

// physical takes one physical record off the buffer, reading the next block when it is used up.
func (r *Reader) physical() phys {
	if r.waits {
		r.waits = false
		return r.waiting
	}
	for {
		header := legacyHeader
		recyclable := len(r.buf) >= legacyHeader && r.buf[6] >= typeRecyclableFull && r.buf[6] <= typeRecyclableLast
		if recyclable {
			header = recyclableHeader
		}
		if len(r.buf) < header {
			if p, ok := r.more(); !ok {
				return p
			}
			continue
		}
		off, typ := r.Offset(), r.buf[6]
		length := int(binary.LittleEndian.Uint16(r.buf[4:]))
		if recyclable && binary.LittleEndian.Uint32(r.buf[7:]) != uint32(r.logNumber) {
			r.buf = nil
			return phys{what: physOld, off: off}
		}
		size := header + length
		if size > len(r.buf) {
			p := phys{what: physBadLength, off: off, behind: soundRecord(r.buf[1:])}
			r.buf = nil
			return p
		}
		if typ == typeZero && length == 0 {
			p := phys{what: physZero, off: off, restZero: allZero(r.buf)}
			r.buf = nil
			return p
		}
		if binary.LittleEndian.Uint32(r.buf) != checksum(r.buf[6:size]) {
			if e := r.unsupported(typ, length, off); e != nil {
				return phys{what: physError, off: off, err: e}
			}
			p := phys{what: physChecksum, off: off, restZero: allZero(r.buf[size:])}
			r.buf = nil
			return p
		}
		if e := r.unsupported(typ, length, off); e != nil {
			return phys{what: physError, off: off, err: e}
		}
		p := phys{what: physRecord, typ: typ, payload: r.buf[header:size], off: off}
		if recyclable {
			r.recycled = true
			p.typ -= recyclableShift
		}
		r.buf = r.buf[size:]
		return p
	}
}

// unsupported refuses the record types that TiKV never writes, provided that they are sound: a damaged type byte must
// not look like a feature.
func (r *Reader) unsupported(typ byte, length int, off int64) error {
	name, size := "", legacyHeader+length
	switch typ {
	case typeSetCompression:
		name = "compressed WAL"
	case typeUserTimestampSize:
		name = "user-defined timestamp size"
	case typeRecyclableUserTSSize:
		name, size = "user-defined timestamp size, recyclable", recyclableHeader+length
	default:
		return nil
	}
	if size > len(r.buf) || binary.LittleEndian.Uint32(r.buf) != checksum(r.buf[6:size]) {
		return nil
	}
	return base.Unsupportedf(r.path, "log record type %d (%s) at offset %d", typ, name, off)
}

// more reads the next block; what is left of the current one is the trailer of the block, or at the end of the file a
// torn header.
func (r *Reader) more() (phys, bool) {
	off := r.Offset()
	if r.eof {
		p := phys{what: physEOF, off: off}
		if len(r.buf) > 0 {
			p = phys{what: physTornHeader, off: off, restZero: allZero(r.buf)}
		}
		r.buf = nil
		return p, false
	}
	n, err := io.ReadFull(r.r, r.backing[:])
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.eof = true
	case err != nil:
		return phys{what: physError, off: r.end, err: base.IO("read", r.path, err)}, false
	}
	r.buf = r.backing[:n]
	r.end += int64(n)
	return phys{}, true
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// soundRecord looks for a physical record with a good checksum anywhere in b. It tells a length that was damaged from a
// write that was cut off: behind the latter there is nothing.
func soundRecord(b []byte) bool {
	for ; len(b) >= legacyHeader; b = b[1:] {
		size := legacyHeader + int(binary.LittleEndian.Uint16(b[4:]))
		if typ := b[6]; typ < typeFull || typ > typeLast || size > len(b) {
			continue
		}
		if binary.LittleEndian.Uint32(b) == checksum(b[6:size]) {
			return true
		}
	}
	return false
}
