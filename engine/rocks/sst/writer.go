package sst

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// WriterOptions describe the table to write. The zero value is an uncompressed table without filter.
type WriterOptions struct {
	// Compression is the block type code: 0, 1, 4, 5 or 7. Its name becomes a property.
	Compression byte
	// BlockSize is where a data block is cut, in bytes before compression; default 32 KiB.
	BlockSize int
	// RestartInterval of data blocks; default 16.
	RestartInterval int
	// FormatVersion of the footer, 2 to 5; 0 means 2. Index separators are whole internal keys and handles are written whole in all of
	// them: the properties say so, and every reader goes by these.
	FormatVersion uint32
	// Checksum of the blocks; 0, ChecksumNone, means ChecksumCRC32C: nothing is written unprotected.
	Checksum ChecksumType
	// Filter is what the filter holds, FilterForm how it is built.
	Filter     FilterKind
	FilterForm FilterForm
	// FilterMillibits is the filter's size in thousandths of a bit a key, for Ribbon that of the equivalent Bloom filter; 0 means
	// DefaultFilterMillibits.
	FilterMillibits int
	// FilterPolicy is the policy's name among the properties; empty writes no such property.
	FilterPolicy string
	// CFID and CFName of the column family.
	CFID   uint32
	CFName string
	// PrefixExtractor is the name that the CF's files carry; empty writes no such property.
	PrefixExtractor string
	// Collectors of user properties, in the order in which their names are listed.
	Collectors []Collector
	// CreationTime, OldestKeyTime, FileCreationTime are unix seconds.
	CreationTime, OldestKeyTime, FileCreationTime uint64
	// FileNumber is the file's own number; 0 writes no such property.
	FileNumber uint64
}

// DefaultBlockSize is TiKV's for the default and write CF since v7.1.
const DefaultBlockSize = 32 << 10

const (
	minVersion = 2
	// MaxWriterVersion is the newest format version that the writer has.
	MaxWriterVersion       = 5
	defaultRestartInterval = 16
	flushAt                = 256 << 10
	// maxRecord keeps a block of one record below what the reader accepts.
	maxRecord = maxBlock - 1<<20
)

// ErrEmpty is returned by Finish when the table has neither a record nor a range tombstone: no engine keeps such a file.
var ErrEmpty = errors.New("table has no records")

// Meta is what the MANIFEST has to know of a written table. Smallest and Largest cover the range tombstones too: the begin of
// one is a boundary with its own sequence, the end an exclusive one with the sentinel (ikey.MaxSeq, 0x0F).
// Invariant: Smallest <= Largest by ikey.Compare, SmallestSeq <= LargestSeq, RangeDels <= Deletions <= Entries.
type Meta struct {
	Size                          uint64 // of the file, bytes
	Smallest, Largest             ikey.Key
	SmallestSeq, LargestSeq       uint64
	Entries, Deletions, RangeDels uint64 // Entries and Deletions count range tombstones, as the properties do
	Props                         *Properties
}

// Writer writes one table. After an error it is dead: every later call returns that error.
type Writer struct {
	f      vfs.File
	o      WriterOptions
	out    []byte // not yet written
	off    uint64 // of the next block in the file
	data   blockBuilder
	index  blockBuilder
	comp   compressor
	filter filterBuilder
	dels   []ikey.RangeDel
	last   []byte // encoded internal key of the last record
	handle []byte // of a block, encoded
	titan  bool   // Titan's way of counting raw.value.size
	props  Properties
	meta   Meta
	err    error
}

// NewWriter starts a table in f, which must be empty. The writer neither syncs nor closes f.
func NewWriter(f vfs.File, o WriterOptions) *Writer {
	if o.BlockSize <= 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.RestartInterval <= 0 {
		o.RestartInterval = defaultRestartInterval
	}
	if o.FilterMillibits <= 0 {
		o.FilterMillibits = DefaultFilterMillibits
	}
	if o.FormatVersion == 0 {
		o.FormatVersion = minVersion
	}
	if o.Checksum == ChecksumNone {
		o.Checksum = ChecksumCRC32C
	}
	w := &Writer{
		f: f, o: o,
		data:   blockBuilder{interval: o.RestartInterval},
		index:  blockBuilder{interval: 1},
		comp:   compressor{code: o.Compression},
		filter: newFilterBuilder(&o),
	}
	switch o.Compression {
	case CompressionNone, CompressionSnappy, CompressionLZ4, CompressionLZ4HC, CompressionZSTD:
	default:
		w.err = fmt.Errorf("write table: %w", errCompression(o.Compression))
	}
	if w.o.Filter = w.filter.kind; o.FormatVersion < minVersion || o.FormatVersion > MaxWriterVersion {
		w.err = fmt.Errorf("write table: format version %d, not %d to %d", o.FormatVersion, minVersion, MaxWriterVersion)
	}
	if o.Checksum > ChecksumXXH3 {
		w.err = fmt.Errorf("write table: %v is not known", o.Checksum)
	}
	for _, c := range o.Collectors {
		w.titan = w.titan || c.Name() == BlobCollectorName
	}
	return w
}

// Add appends a record. Keys must be strictly ascending by ikey.Compare; kinds are Put, Delete, SingleDelete, BlobIndex.
func (w *Writer) Add(k ikey.Key, value []byte) error {
	if w.err != nil {
		return w.err
	}
	switch k.Kind {
	case ikey.KindPut, ikey.KindDelete, ikey.KindSingleDelete, ikey.KindBlobIndex:
	default:
		return w.fail(fmt.Errorf("write table: record %v has a kind that no table may hold", k))
	}
	if k.Seq > ikey.MaxSeq {
		return w.fail(fmt.Errorf("write table: record %v has a sequence number above 2^56-1", k))
	}
	if uint64(len(k.User))+uint64(len(value)) > maxRecord {
		return w.fail(fmt.Errorf("write table: record of %d bytes is larger than %d", len(k.User)+len(value), maxRecord))
	}
	if err := w.inOrder(k); err != nil {
		return err
	}
	if w.cutBefore(len(k.User)+8, len(value)) {
		if err := w.flushData(); err != nil {
			return err
		}
	}
	w.last = k.Append(w.last[:0])
	w.data.add(w.last, value)
	w.count(k, value)
	return nil
}

// inOrder checks that k comes after the last record.
func (w *Writer) inOrder(k ikey.Key) error {
	n := len(w.last) - 8
	if n < 0 {
		w.meta.Smallest = k.Clone()
		return nil
	}
	c := bytes.Compare(w.last[:n], k.User)
	if c > 0 || c == 0 && binary.LittleEndian.Uint64(w.last[n:]) <= ikey.Pack(k.Seq, k.Kind) {
		prev, _ := ikey.Decode(w.last)
		return w.fail(fmt.Errorf("write table: record %v does not come after %v", k, prev))
	}
	return nil
}

// count takes a record into filter, properties and sequence range.
func (w *Writer) count(k ikey.Key, value []byte) {
	w.filter.add(k.User)
	w.props.RawKeySize += uint64(len(k.User)) + 8
	if !w.titan || k.Kind != ikey.KindBlobIndex {
		w.props.RawValueSize += uint64(len(value))
	}
	if k.Kind == ikey.KindDelete || k.Kind == ikey.KindSingleDelete {
		w.props.NumDeletions++
	}
	w.seq(k.Seq)
	for _, c := range w.o.Collectors {
		c.Add(k.User, byte(k.Kind), value)
	}
}

// CopyBlock appends all records of a batch by copying its block as it is stored. It reports false, and does nothing, where the block
// cannot stand in the new table unchanged, or where it would leave a much too short block before it: the caller then adds the records
// one by one. Filter, index and properties are exact either way.
func (w *Writer) CopyBlock(b *Batches) (bool, error) {
	if w.err != nil {
		return false, w.err
	}
	foot := &b.r.foot
	n := b.Len()
	if n == 0 || !b.whole || b.r.global || foot.checksum != w.o.Checksum || foot.base != 0 || foot.version < 2 {
		return false, nil
	}
	size := len(b.stored) - trailerSize
	if !w.mayStand(b.stored[size], b.r.props.Compression) || len(b.payload) > 2*w.o.BlockSize {
		return false, nil
	}
	if w.data.n > 0 && w.data.size() < w.o.BlockSize/8 {
		return false, nil
	}
	if err := w.flushData(); err != nil {
		return false, err
	}
	if err := w.inOrder(b.Key(0)); err != nil {
		return false, err
	}
	for i := range n {
		w.count(b.Key(i), b.Value(i))
	}
	w.last = b.Key(n - 1).Append(w.last[:0])
	h := handle{w.off, uint64(size)}
	w.out = append(w.out, b.stored...)
	w.off += uint64(len(b.stored))
	w.indexed(h)
	if len(w.out) < flushAt {
		return true, nil
	}
	return true, w.flushOut()
}

// mayStand tells whether a block that is stored with a compression, in a table whose property names another or the same one, may stand in
// the new table as it is. The property of the new table is, as RocksDB's own, the compression that was asked for, whatever its blocks have:
//   - NoCompression is a promise there, on which RocksDB (6.4 to 8.10, BlocksMaybeCompressed) skips decompression: no compressed block may
//     stand in such a table;
//   - a block of another compression may: each carries its own type, and the next compaction makes it anew. Compressing it now would cost
//     more than all the rest of the copy;
//   - a block that is not compressed may where its table's compression was tried and did not pay, but not where none was tried.
func (w *Writer) mayStand(code byte, property string) bool {
	if code == w.o.Compression {
		return true
	}
	if code == CompressionNone {
		return property != "" && property != CompressionName(CompressionNone)
	}
	return w.o.Compression != CompressionNone
}

// seq counts an entry and widens the sequence range.
func (w *Writer) seq(s uint64) {
	if w.props.NumEntries == 0 || s < w.meta.SmallestSeq {
		w.meta.SmallestSeq = s
	}
	w.meta.LargestSeq = max(w.meta.LargestSeq, s)
	w.props.NumEntries++
}

// cutBefore is RocksDB's flush policy, so that a table written again is cut where it was.
// Source: tikv/rocksdb 8.10.tikv table/block_based/flush_block_policy.cc (FlushBlockBySizePolicy; deviation 10 percent).
func (w *Writer) cutBefore(key, value int) bool {
	if w.data.n == 0 {
		return false
	}
	size := w.data.size()
	return size >= w.o.BlockSize || size > (w.o.BlockSize*90+99)/100 && w.data.sizeAfter(key, value) > w.o.BlockSize
}

// AddRangeDel adds a range tombstone, at any time before Finish and in any order.
func (w *Writer) AddRangeDel(d ikey.RangeDel) error {
	if w.err != nil {
		return w.err
	}
	if string(d.Start) >= string(d.End) {
		return w.fail(fmt.Errorf("write table: range tombstone [%X, %X) is empty", d.Start, d.End))
	}
	if d.Seq > ikey.MaxSeq {
		return w.fail(fmt.Errorf("write table: range tombstone at %X has a sequence number above 2^56-1", d.Start))
	}
	w.dels = append(w.dels, ikey.RangeDel{Start: slices.Clone(d.Start), End: slices.Clone(d.End), Seq: d.Seq})
	return nil
}

func (w *Writer) fail(err error) error {
	w.err = err
	return err
}

// writeBlock appends payload with its trailer; compress tries the table's compression.
func (w *Writer) writeBlock(payload []byte, compress bool) (handle, error) {
	stored, code := payload, CompressionNone
	if compress {
		var err error
		if stored, code, err = w.comp.compress(payload); err != nil {
			return handle{}, w.fail(fmt.Errorf("write table: %w", err))
		}
	}
	h := handle{w.off, uint64(len(stored))}
	start := len(w.out)
	w.out = append(append(w.out, stored...), code)
	w.out = binary.LittleEndian.AppendUint32(w.out, checksum(w.o.Checksum, w.out[start:]))
	w.off += h.size + trailerSize
	if len(w.out) < flushAt {
		return h, nil
	}
	return h, w.flushOut()
}

// flushOut hands the buffer to the file, which may change it.
func (w *Writer) flushOut() error {
	if _, err := w.f.Write(w.out); err != nil {
		return w.fail(base.IO("write table", "", err))
	}
	w.out = w.out[:0]
	return nil
}

// flushData ends the data block. Its index key is its whole last key: a shortened separator would need the pseudo kind for
// seeks, which differs between the RocksDB lines.
func (w *Writer) flushData() error {
	if w.data.n == 0 {
		return nil
	}
	h, err := w.writeBlock(w.data.finish(), true)
	if err != nil {
		return err
	}
	w.data.reset()
	w.indexed(h)
	return nil
}

// indexed notes a data block that ends with the last record.
func (w *Writer) indexed(h handle) {
	w.handle = appendHandle(w.handle[:0], h)
	w.index.add(w.last, w.handle)
	w.props.NumDataBlocks++
}

// Finish writes what is left and returns what the MANIFEST needs. A table without any content gives ErrEmpty.
func (w *Writer) Finish() (Meta, error) {
	if w.err != nil {
		return Meta{}, w.err
	}
	w.err = errors.New("write table: already finished")
	m, err := w.finish()
	if err != nil {
		w.err = err
	}
	return m, err
}

func (w *Writer) finish() (Meta, error) {
	if err := w.flushData(); err != nil {
		return Meta{}, err
	}
	w.props.DataSize = w.off
	if w.props.NumEntries > 0 {
		k, _ := ikey.Decode(w.last)
		w.meta.Largest = k.Clone()
	}
	dels := w.finishRangeDels()
	if w.props.NumEntries == 0 {
		return Meta{}, ErrEmpty
	}
	meta := blockBuilder{interval: 1}
	if filter := w.filter.finish(); filter != nil {
		h, err := w.writeBlock(filter, false)
		if err != nil {
			return Meta{}, err
		}
		w.props.FilterSize, w.props.NumFilterEntries = h.size, uint64(w.filter.entries())
		meta.add([]byte(metaFullFilter+filterPolicy), appendHandle(nil, h))
	}
	raw := w.index.finish()
	w.props.IndexSize = uint64(len(raw)) + trailerSize
	index, err := w.writeBlock(raw, true)
	if err != nil {
		return Meta{}, err
	}
	props, err := w.properties()
	if err != nil {
		return Meta{}, err
	}
	var delHandle handle
	if dels != nil {
		if delHandle, err = w.writeBlock(dels, false); err != nil {
			return Meta{}, err
		}
	}
	h, err := w.writeBlock(encodeProperties(props), false)
	if err != nil {
		return Meta{}, err
	}
	meta.add([]byte(metaProperties), appendHandle(nil, h))
	if dels != nil {
		meta.add([]byte(metaRangeDel), appendHandle(nil, delHandle))
	}
	if h, err = w.writeBlock(meta.finish(), false); err != nil {
		return Meta{}, err
	}
	w.out = append(w.out, encodeFooter(w.o.FormatVersion, w.o.Checksum, h, index)...)
	w.meta.Size = w.off + footerSize
	if err := w.flushOut(); err != nil {
		return Meta{}, err
	}
	w.meta.Entries, w.meta.Deletions, w.meta.RangeDels = w.props.NumEntries, w.props.NumDeletions, w.props.NumRangeDels
	if w.meta.Props, err = decodeProperties("", 0, encodeProperties(props)); err != nil {
		return Meta{}, err
	}
	return w.meta, nil
}

// finishRangeDels counts the range tombstones, widens the boundaries and makes their block; nil when there are none.
func (w *Writer) finishRangeDels() []byte {
	if len(w.dels) == 0 {
		return nil
	}
	slices.SortStableFunc(w.dels, func(a, b ikey.RangeDel) int {
		if c := ikey.Compare(startKey(a), startKey(b)); c != 0 {
			return c
		}
		return strings.Compare(string(a.End), string(b.End))
	})
	b := blockBuilder{interval: 1}
	for _, d := range w.dels {
		k := startKey(d)
		b.add(k.Encode(), d.End)
		if w.props.NumEntries == 0 || ikey.Compare(k, w.meta.Smallest) < 0 {
			w.meta.Smallest = k
		}
		end := ikey.Key{User: d.End, Seq: ikey.MaxSeq, Kind: ikey.KindRangeDelete}
		if w.props.NumEntries == 0 || ikey.Compare(end, w.meta.Largest) > 0 {
			w.meta.Largest = end
		}
		w.props.RawKeySize += uint64(len(d.Start)) + 8
		w.props.RawValueSize += uint64(len(d.End))
		w.props.NumDeletions++
		w.props.NumRangeDels++
		w.seq(d.Seq)
		for _, c := range w.o.Collectors {
			c.Add(d.Start, byte(ikey.KindRangeDelete), d.End)
		}
	}
	return b.finish()
}

func startKey(d ikey.RangeDel) ikey.Key {
	return ikey.Key{User: d.Start, Seq: d.Seq, Kind: ikey.KindRangeDelete}
}
