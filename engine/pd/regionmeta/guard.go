package regionmeta

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/syndtr/goleveldb/leveldb/journal"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// goleveldb allocates what two places of a file ask for before it knows whether that many bytes are there: the footer of a table,
// which has no checksum, and the records of a MANIFEST. Both are looked at here first.

// Footer of a LevelDB table, at the end of the file:
//
//	+---------------------+--------------------------+------------------+
//	| metaindex handle    | index handle             | padding          |  40 bytes together
//	| uvarint off, length | uvarint offset, length   | zeros            |
//	+---------------------+--------------------------+------------------+
//	| magic 57 FB 80 8B 24 75 47 DB                                     |   8 bytes
//	+-------------------------------------------------------------------+
//
// A block of length n at an offset takes n+5 bytes: its compression type (1) and its checksum (4) follow it.
// Source: syndtr/goleveldb leveldb/table/table.go (the version that PD pins, c3a204f8e965).
const (
	footerLen    = 48
	magic        = "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
	blockTrailer = 5
)

func checkFooter(path string, f io.ReaderAt, size int64) error {
	if size < footerLen {
		return base.Corruptf(path, 0, "%d bytes are too few for a table", size)
	}
	var b [footerLen]byte
	if _, err := f.ReadAt(b[:], size-footerLen); err != nil {
		return base.IO("read", path, err)
	}
	if string(b[footerLen-len(magic):]) != magic {
		return base.Corruptf(path, size-int64(len(magic)), "the magic number of a LevelDB table is not there")
	}
	at := b[:footerLen-len(magic)]
	for _, what := range []string{"metaindex", "index"} {
		var v [2]uint64
		for i := range v {
			x, n := binary.Uvarint(at)
			if n <= 0 {
				return base.Corruptf(path, size-footerLen, "the handle of the %s block does not decode", what)
			}
			v[i], at = x, at[n:]
		}
		if room := uint64(size - footerLen); v[0] > room || v[1]+blockTrailer > room-v[0] || v[1] > room {
			return base.Corruptf(path, size-footerLen, "the %s block of %d bytes at %d is not in the file of %d", what, v[1], v[0], size)
		}
	}
	return nil
}

// maxLevel bounds the levels of a MANIFEST: goleveldb makes a slice for each. It stops growing levels long before.
const maxLevel = 64

// Tags of a session record in a MANIFEST, each a uvarint, and what follows it.
//
//	1 comparer     bytes                2 journal number   varint      3 next file number   varint
//	4 sequence     uvarint              5 compact pointer  uvarint level, bytes key
//	6 delete table uvarint level, varint number
//	7 add table    uvarint level, varint number, varint size, bytes smallest, bytes largest
//	9 previous journal number varint
//
// bytes: uvarint length and that many bytes; varint is written as an unsigned one.
// Source: syndtr/goleveldb leveldb/session_record.go. Fields: u a number, l a level, b bytes.
var manifestTags = map[uint64]string{1: "b", 2: "u", 3: "u", 4: "u", 5: "lb", 6: "lu", 7: "luubb", 9: "u"}

// errShort: a record ends inside a field.
var errShort = errors.New("a record ends inside a field")

// checkManifest decodes every record that goleveldb will decode, with lengths that are checked.
func checkManifest(path string, f io.ReaderAt, size int64) error {
	r := journal.NewReader(io.NewSectionReader(f, 0, size), nil, false, true)
	for n := 0; ; n++ {
		next, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return base.Corruptf(path, -1, "record %d: %v", n, err)
		}
		// A record is assembled of blocks that are in the file: it cannot be longer than that.
		b, err := io.ReadAll(next)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue // torn: goleveldb skips it, or refuses it when it is strict
		}
		if err != nil {
			return base.IO("read", path, err)
		}
		if err := checkSession(b); err != nil {
			return base.Corruptf(path, -1, "record %d: %v", n, err)
		}
	}
}

func checkSession(b []byte) error {
	number := func() (uint64, error) {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errShort
		}
		b = b[n:]
		return x, nil
	}
	for len(b) > 0 {
		tag, err := number()
		if err != nil {
			return err
		}
		for _, field := range manifestTags[tag] { // an unknown tag has no fields: goleveldb goes on behind it as well
			x, err := number()
			if err != nil {
				return err
			}
			switch field {
			case 'l':
				if x > maxLevel {
					return errors.New("a level that does not exist")
				}
			case 'b':
				if x > uint64(len(b)) {
					return errShort
				}
				b = b[x:]
			}
		}
	}
	return nil
}

// Log framing, shared by logs and MANIFESTs: blocks of 32 KiB, a chunk in them is
//
//	+--------------+-----------------+----------+-----------+
//	| CRC (4, LE)  | length (2, LE)  | type (1) | data      |
//	+--------------+-----------------+----------+-----------+
//
// and less than a header at the end of a block is filled up with zeros. Source: syndtr/goleveldb leveldb/journal/journal.go.
const (
	blockSize   = 32 << 10
	chunkHeader = 7
)

// tornHeader finds what goleveldb takes for the padding of a block that is not there: a log that ends inside the header of a chunk.
// at is the offset of that header; -1 when the log does not end so.
func tornHeader(f io.ReaderAt, size int64) (at int64, err error) {
	start := size / blockSize * blockSize
	b := make([]byte, size-start)
	if _, err := f.ReadAt(b, start); err != nil && !errors.Is(err, io.EOF) {
		return -1, err
	}
	i := 0
	for len(b)-i >= chunkHeader {
		i += chunkHeader + int(binary.LittleEndian.Uint16(b[i+4:]))
	}
	if i < len(b) && blockSize-i >= chunkHeader {
		return start + int64(i), nil
	}
	return -1, nil
}
