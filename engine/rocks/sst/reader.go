package sst

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// ReaderOptions say what the MANIFEST knows about a table.
type ReaderOptions struct {
	// CF is the column family's name, for errors.
	CF string
	// Size is the size that the MANIFEST gives, in bytes; 0 takes the file's. A difference is corruption.
	Size int64
	// LargestSeq is the largest sequence number that the MANIFEST gives: in a file made for ingestion
	// (external_sst_file.version >= 2) every record has it. ikey.MaxSeq: unknown, the file's own property counts.
	LargestSeq uint64
	// Read, when it is not nil, counts the stored bytes of the blocks that Batches read.
	Read *atomic.Int64
}

// Reader reads one table. Its methods may be called from several goroutines, each with its own iterators.
type Reader struct {
	path  string
	f     vfs.File
	o     ReaderOptions
	size  int64
	tail  []byte // the end of the file, while its head is read
	foot  footer
	meta  map[string]handle
	props *Properties
	form  indexForm
	index []indexEntry
	// partitions are the top level of a partitioned index.
	partitions []indexEntry
	// global tells that every record has the sequence number globalSeq.
	global    bool
	globalSeq uint64
}

// Keys of the metaindex. Source: tikv/rocksdb 8.10.tikv table/block_based/block_based_table_reader.cc, table/meta_blocks.cc.
const (
	metaProperties       = "rocksdb.properties"
	metaPropertiesLegacy = "rocksdb.stats"
	metaRangeDel         = "rocksdb.range_del"
	metaCompressionDict  = "rocksdb.compression_dict"
	metaIndex            = "rocksdb.index"
	metaFullFilter       = "fullfilter."
	metaPartFilter       = "partitionedfilter."
	metaBlockFilter      = "filter."
)

// Open opens a table and checks footer, metaindex, properties and index. Errors have class ErrCorrupt for bytes that do
// not decode, ErrUnsupported for what is refused by name, ErrIO for the file system's.
func Open(fs base.FS, path string, o ReaderOptions) (*Reader, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, base.IO("open", path, err)
	}
	r := &Reader{path: path, f: f, o: o}
	if err := r.open(); err != nil {
		f.Close()
		var e *base.Error
		if errors.As(err, &e) && e.CF == "" {
			e.CF = o.CF
		}
		return nil, err
	}
	return r, nil
}

func (r *Reader) open() error {
	buf := headPool.Get().(*[]byte)
	err := r.readEnd(*buf)
	if err == nil {
		err = r.readProperties()
	}
	r.tail = nil
	headPool.Put(buf)
	if err != nil {
		return err
	}
	if err := r.readGlobalSeq(); err != nil {
		return err
	}
	index := r.foot.index
	if r.foot.version >= 6 {
		h, ok := r.meta[metaIndex]
		if !ok {
			return r.corrupt(r.foot.meta.off, "metaindex does not name the index")
		}
		index = h
	}
	return r.readIndex(index)
}

func (r *Reader) readAt(b []byte, off uint64) error {
	n, err := r.f.ReadAt(b, int64(off))
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.corrupt(off, "file ends within a block: %d of %d bytes", n, len(b))
	}
	return base.IO("read", r.path, err)
}

// rawBlock reads the stored payload, its type byte and its checksum into buf's memory where that suffices.
func (r *Reader) rawBlock(h handle, buf []byte) ([]byte, error) {
	if bad := r.foot.check(h); bad != "" {
		return nil, r.corrupt(min(h.off, uint64(r.size)), "%s", bad)
	}
	n := int(h.size) + trailerSize
	if cap(buf) < n {
		buf = make([]byte, n, n+n/4)
	}
	buf = buf[:n]
	if start := uint64(r.size) - uint64(len(r.tail)); h.off >= start && len(r.tail) > 0 {
		copy(buf, r.tail[h.off-start:])
		return buf, nil
	}
	return buf, r.readAt(buf, h.off)
}

// checksumError compares the checksum of a raw block; empty when it holds.
func (r *Reader) checksumError(h handle, raw []byte) error {
	stored, got := r.foot.checksums(h, raw)
	if got != stored {
		return r.corrupt(h.off, "checksum (%v) of a block of %d bytes is %08x, computed %08x", r.foot.checksum, h.size, stored, got)
	}
	return nil
}

// readBlock reads, verifies and decompresses a block. raw and dec are memory to use; it returns the payload, which
// aliases one of them, and both as they are now, to be used again.
func (r *Reader) readBlock(h handle, raw, dec []byte) (payload, raw2, dec2 []byte, err error) {
	b, err := r.rawBlock(h, raw)
	if err != nil {
		return nil, raw, dec, err
	}
	if err := r.checksumError(h, b); err != nil {
		return nil, b, dec, err
	}
	payload, dec, err = r.decompressed(h, b, dec)
	return payload, b, dec, err
}

// decompressed gives the payload of a raw block in dec's memory, or in memory of its own, which it returns as well.
func (r *Reader) decompressed(h handle, raw, dec []byte) (payload, dec2 []byte, err error) {
	code, stored := raw[h.size], raw[:h.size]
	payload, err = decompress(code, r.foot.version, stored, dec)
	if err != nil {
		var u errCompression
		if errors.As(err, &u) {
			return nil, dec, r.unsupported("%v (block at offset %d)", u, h.off)
		}
		return nil, dec, r.corrupt(h.off, "%s block does not decompress: %v", CompressionName(code), err)
	}
	if code != CompressionNone && cap(payload) > cap(dec) {
		dec = payload
	}
	return payload, dec, nil
}

// metaBlock reads a block into memory of its own.
func (r *Reader) metaBlock(h handle) ([]byte, error) {
	b, _, _, err := r.readBlock(h, nil, nil)
	return b, err
}

// readMetaindex decodes the metaindex: an ordinary block, key = name, value = handle, names ascending.
func (r *Reader) readMetaindex() error {
	b, err := r.metaBlock(r.foot.meta)
	if err != nil {
		return err
	}
	r.meta = map[string]handle{}
	prev := ""
	bad := eachEntry(b, func(key, value []byte, _ int) string {
		h, _, ok := decodeHandle(value)
		if !ok {
			return "entry " + string(key) + " has no valid block handle"
		}
		if bad := r.foot.check(h); bad != "" {
			return string(key) + ": " + bad
		}
		if len(r.meta) > 0 && string(key) <= prev {
			return "names are not in ascending order"
		}
		prev = string(key)
		r.meta[prev] = h
		return ""
	})
	if bad != "" {
		return r.corrupt(r.foot.meta.off, "metaindex: %s", bad)
	}
	if _, ok := r.meta[metaCompressionDict]; ok {
		return r.unsupported("blocks are compressed with a dictionary (%s)", metaCompressionDict)
	}
	return nil
}

// readProperties reads the properties block. Old releases patched the global sequence number in place without renewing the
// checksum, so a block that does not verify is tried again with those 8 bytes zeroed, as RocksDB does.
// Source: tikv/rocksdb 8.10.tikv table/meta_blocks.cc (ReadTablePropertiesHelper).
func (r *Reader) readProperties() error {
	payload, err := r.propertiesBlock()
	if err != nil {
		return err
	}
	h := r.propertiesHandle()
	if r.props, err = decodeProperties(r.path, int64(h.off), payload); err != nil {
		return err
	}
	if c := r.props.Comparator; c != "" && c != comparatorName {
		return r.unsupported("comparator %s", c)
	}
	return nil
}

// propertiesHandle is where the properties block is; the zero handle when the metaindex does not name one.
func (r *Reader) propertiesHandle() handle {
	if h, ok := r.meta[metaProperties]; ok {
		return h
	}
	return r.meta[metaPropertiesLegacy]
}

// propertiesBlock reads and verifies the properties block.
func (r *Reader) propertiesBlock() ([]byte, error) {
	h := r.propertiesHandle()
	if h == (handle{}) {
		return nil, r.corrupt(r.foot.meta.off, "metaindex does not name a properties block")
	}
	raw, err := r.rawBlock(h, nil)
	if err != nil {
		return nil, err
	}
	payload := raw[:h.size]
	if err := r.checksumError(h, raw); err != nil {
		if !r.patchedProperties(h, raw) {
			return nil, err
		}
	}
	if raw[h.size] != CompressionNone {
		if payload, err = decompress(raw[h.size], r.foot.version, payload, nil); err != nil {
			return nil, r.corrupt(h.off, "properties block does not decompress: %v", err)
		}
	}
	return payload, nil
}

// patchedProperties tells whether the properties block verifies with the bytes of the global sequence number zeroed.
func (r *Reader) patchedProperties(h handle, raw []byte) bool {
	at, ok := globalSeqIn(raw[:h.size])
	if !ok {
		return false
	}
	zeroed := append([]byte(nil), raw...)
	clear(zeroed[at : at+8])
	return r.checksumError(h, zeroed) == nil
}

// globalSeqIn finds the 8 bytes of the global sequence number in a properties block that is not compressed.
func globalSeqIn(block []byte) (at int, ok bool) {
	bad := eachEntry(block, func(key, value []byte, off int) string {
		if string(key) == propGlobalSeqno && len(value) == 8 {
			at, ok = off, true
		}
		return ""
	})
	return at, ok && bad == ""
}

// GlobalSeqOffset is where the 8 bytes of the global sequence number lie in a file that was made for ingestion; false when the file has none,
// or its properties are compressed. They are the only bytes of a table that are ever written in place.
func (r *Reader) GlobalSeqOffset() (off int64, ok bool) {
	h, there := r.meta[metaProperties]
	if !there {
		return 0, false
	}
	raw, err := r.rawBlock(h, nil)
	if err != nil || raw[h.size] != CompressionNone {
		return 0, false
	}
	at, ok := globalSeqIn(raw[:h.size])
	return int64(h.off) + int64(at), ok
}

// readGlobalSeq decides whether the file's records take their sequence number from the MANIFEST.
// Source: tikv/rocksdb 8.10.tikv table/block_based/block_based_table_reader.cc (GetGlobalSequenceNumber).
func (r *Reader) readGlobalSeq() error {
	off := r.meta[metaProperties].off
	_, hasVersion := r.props.All[propExternalVersion]
	_, hasSeq := r.props.All[propGlobalSeqno]
	v := r.props.ExternalVersion
	switch {
	case !hasVersion && hasSeq:
		return r.corrupt(off, "property %s in a file that was not made for ingestion", propGlobalSeqno)
	case !hasVersion:
		return nil
	case v < 2 && (hasSeq || v != 1):
		return r.corrupt(off, "property %s is %d, with a global sequence number: %v", propExternalVersion, v, hasSeq)
	case v < 2:
		return nil
	}
	r.global, r.globalSeq = true, r.props.GlobalSeqno
	if known := r.o.LargestSeq; known < ikey.MaxSeq {
		if r.globalSeq == 0 {
			r.globalSeq = known
		}
		if r.globalSeq != known {
			return r.corrupt(off, "global sequence number is %d, the MANIFEST says %d", r.globalSeq, known)
		}
	}
	if r.globalSeq > ikey.MaxSeq {
		return r.corrupt(off, "global sequence number %d is too large", r.globalSeq)
	}
	return nil
}

// Props gives the decoded properties; not to be changed.
func (r *Reader) Props() *Properties { return r.props }

// RangeDels gives the range tombstones in the order of the block, with their effective sequence numbers.
//
//	entry : key = begin | u64 LE (sequence << 8 | 0x0F), value = end, exclusive
//
// Source: tikv/rocksdb 8.10.tikv table/block_based/block_based_table_builder.cc (BlockBasedTableBuilder::Add).
func (r *Reader) RangeDels() ([]ikey.RangeDel, error) {
	h, ok := r.meta[metaRangeDel]
	if !ok {
		return nil, nil
	}
	b, err := r.metaBlock(h)
	if err != nil {
		return nil, err
	}
	var out []ikey.RangeDel
	bad := eachEntry(b, func(key, value []byte, _ int) string {
		k, ok := ikey.Decode(key)
		if !ok || k.Kind != ikey.KindRangeDelete {
			return "entry is no range tombstone"
		}
		if r.global {
			if k.Seq != 0 {
				return "range tombstone has a sequence number of its own in a file with a global one"
			}
			k.Seq = r.globalSeq
		}
		k = k.Clone()
		out = append(out, ikey.RangeDel{Start: k.User, End: append([]byte(nil), value...), Seq: k.Seq})
		return ""
	})
	if bad != "" {
		return nil, r.corrupt(h.off, "range tombstone block: %s", bad)
	}
	return out, nil
}

// Block is one data block.
type Block struct {
	Separator []byte // user key >= the block's last, <= the next block's first
	Offset    uint64 // in the file
	Size      uint64 // stored bytes with trailer
}

// BlockBounds gives the data blocks in order, to cut shards on. The separators alias the index: not to be changed.
func (r *Reader) BlockBounds() []Block {
	out := make([]Block, len(r.index))
	for i, e := range r.index {
		out[i] = Block{Separator: r.form.user(e.sep), Offset: e.h.off, Size: e.h.size + trailerSize}
	}
	return out
}

// Blocks is the number of data blocks.
func (r *Reader) Blocks() int { return len(r.index) }

// BlockTypes counts the data blocks by the compression in which they are stored.
func (r *Reader) BlockTypes() (map[byte]int, error) {
	out := map[byte]int{}
	var b [1]byte
	for _, e := range r.index {
		if err := r.readAt(b[:], e.h.off+e.h.size); err != nil {
			return nil, err
		}
		out[b[0]]++
	}
	return out, nil
}

// filter gives the handle of a full filter.
func (r *Reader) filter() (handle, bool) {
	for name, h := range r.meta {
		if strings.HasPrefix(name, metaFullFilter) {
			return h, true
		}
	}
	return handle{}, false
}

// HasFilter tells whether the file has a filter of any kind.
func (r *Reader) HasFilter() bool {
	for name := range r.meta {
		for _, p := range []string{metaFullFilter, metaPartFilter, metaBlockFilter} {
			if strings.HasPrefix(name, p) {
				return true
			}
		}
	}
	return false
}

// Version gives the format version of the footer, 0 to 6.
func (r *Reader) Version() uint32 { return r.foot.version }

// Checksum gives the checksum type of the blocks.
func (r *Reader) Checksum() ChecksumType { return r.foot.checksum }

// GlobalSeq gives the sequence number that all records have, and whether the file is one of those.
func (r *Reader) GlobalSeq() (uint64, bool) { return r.globalSeq, r.global }

// Size is the file's, in bytes.
func (r *Reader) Size() int64 { return r.size }

// Path is what was opened.
func (r *Reader) Path() string { return r.path }

// Close closes the file. Iterators must be closed before.
func (r *Reader) Close() error { return base.IO("close", r.path, r.f.Close()) }
