// Package bolt reads the bbolt file of etcd's backend through the seam, page by page.
//
// go.etcd.io/bbolt itself is not used: it maps the file, so it needs a real one, and on damaged pages it follows lengths and page
// numbers unchecked, into a fault or an endless recursion that no recover catches. Here every length is checked against the page,
// every page is visited once, and an error says at which byte. The library judges this reader in the tests.
package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Page header, the same in bbolt v1.3 to v1.5 (internal/common/page.go); all integers have the byte order of the machine that wrote
// the file, which is little-endian on every machine that TiKV supports:
//
//	+--------+----------+----------+-----------------+
//	| id     | flags    | count    | overflow        |
//	| u64    | u16      | u16      | u32             |  overflow: pages that follow and belong to this one
//	+--------+----------+----------+-----------------+
//	flags: 1 branch, 2 leaf, 4 meta, 0x10 freelist
const (
	headerSize = 16
	flagBranch = 0x01
	flagLeaf   = 0x02
	flagMeta   = 0x04
)

// Meta, after the header of pages 0 and 1 (internal/common/meta.go). The one with a right checksum and the higher txid counts:
//
//	+-------+---------+----------+-------+-----------+----------+----------+--------+------+----------+
//	| magic | version | pagesize | flags | root page | sequence | freelist | pages  | txid | checksum |
//	| u32   | u32     | u32      | u32   | u64       | u64      | u64      | u64    | u64  | u64      |
//	+-------+---------+----------+-------+-----------+----------+----------+--------+------+----------+
//	magic 0xED0CDAED, version 2; pages: the first page number that was never used; checksum: FNV-1a of the 56 bytes before it
const (
	magic    = 0xED0CDAED
	version  = 2
	metaSize = 64
	sumAt    = 56
)

// Elements follow the header; pos counts from the start of the element itself:
//
//	branch  | pos u32 | ksize u32 | page u64 |               key = [pos, pos+ksize)
//	leaf    | flags u32 | pos u32 | ksize u32 | vsize u32 |  key = [pos, pos+ksize), value follows; flags 1: the value is a bucket
//	bucket  | root page u64 | sequence u64 | inline page, only when root page is 0 |
const (
	elemSize   = 16
	bucketSize = 16
	leafBucket = 0x01
)

// maxDepth bounds the height of a tree: two children per branch page would reach it with 2^64 pages.
const maxDepth = 64

const minPage, maxPage = 512, 1 << 24

type meta struct {
	pageSize          int64
	root, pages, txid uint64
}

// File is an open bbolt file.
type File struct {
	// Notes are damages that did not keep the file from being read: an unreadable meta page, a cut end.
	Notes []error

	f    vfs.File
	path string
	size int64
	meta
	seen map[uint64]struct{}
}

// Open reads the meta pages. It takes no lock and changes nothing. Errors: ErrCorrupt when neither meta page is sound, ErrIO.
func Open(fs base.FS, path string) (*File, error) {
	f, err := fs.Open(path, vfs.RandomReadsOption)
	if err != nil {
		return nil, base.IO("open", path, err)
	}
	b := &File{f: f, path: path}
	if err := b.open(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return b, nil
}

// Close gives the file back.
func (b *File) Close() error { return base.IO("close", b.path, b.f.Close()) }

// TxID is the number of the newest whole transaction.
func (b *File) TxID() uint64 { return b.txid }

func (b *File) open() error {
	st, err := b.f.Stat()
	if err != nil {
		return base.IO("stat", b.path, err)
	}
	b.size = st.Size()
	first, err0 := b.metaAt(0)
	var second meta
	var err1 error
	if err0 == nil {
		second, err1 = b.metaAt(first.pageSize)
	} else if second, err1 = b.lookForSecond(); err1 != nil {
		return err0
	}
	switch {
	case err0 != nil:
		b.Notes = append(b.Notes, err0)
		b.meta = second
	case err1 != nil:
		b.Notes = append(b.Notes, err1)
		b.meta = first
	case second.txid > first.txid:
		b.meta = second
	default:
		b.meta = first
	}
	if b.pages > uint64(b.size/b.pageSize) {
		b.Notes = append(b.Notes, base.Corruptf(b.path, b.size, "the file ends here; bbolt used %d pages of %d bytes", b.pages, b.pageSize))
	}
	return nil
}

// lookForSecond finds the second meta page when the first does not tell the page size.
func (b *File) lookForSecond() (m meta, err error) {
	for size := int64(minPage); size <= maxPage; size *= 2 {
		if m, err = b.metaAt(size); err == nil && m.pageSize == size {
			return m, nil
		}
	}
	return meta{}, base.Corruptf(b.path, 0, "no second meta page")
}

func (b *File) metaAt(at int64) (meta, error) {
	buf := make([]byte, headerSize+metaSize)
	if at+int64(len(buf)) > b.size {
		return meta{}, base.Corruptf(b.path, b.size, "the file ends before the end of its meta page")
	}
	if err := b.read(buf, at); err != nil {
		return meta{}, err
	}
	le := binary.LittleEndian
	p := buf[headerSize:]
	h := fnv.New64a()
	h.Write(p[:sumAt])
	m := meta{pageSize: int64(le.Uint32(p[8:])), root: le.Uint64(p[16:]), pages: le.Uint64(p[40:]), txid: le.Uint64(p[48:])}
	switch {
	case le.Uint32(p) != magic:
		return meta{}, base.Corruptf(b.path, at+headerSize, "meta page: magic is %08X, not %08X", le.Uint32(p), uint32(magic))
	case le.Uint64(p[sumAt:]) != h.Sum64():
		return meta{}, base.Corruptf(b.path, at+headerSize+sumAt, "meta page: checksum does not fit")
	case le.Uint32(p[4:]) != version:
		return meta{}, base.Unsupportedf(b.path, "bbolt file version %d, only %d is known", le.Uint32(p[4:]), version)
	case m.pageSize < minPage || m.pageSize > maxPage || m.pageSize&(m.pageSize-1) != 0:
		return meta{}, base.Corruptf(b.path, at+headerSize+8, "meta page: page size %d", m.pageSize)
	case le.Uint16(buf[8:]) != flagMeta:
		return meta{}, base.Corruptf(b.path, at+8, "meta page: flags %04X", le.Uint16(buf[8:]))
	}
	return m, nil
}

// read fills buf from offset at; a short file is corruption.
func (b *File) read(buf []byte, at int64) error {
	n, err := b.f.ReadAt(buf, at)
	if n == len(buf) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return base.Corruptf(b.path, at+int64(n), "the file ends here")
	}
	return base.IO("read", b.path, err)
}

// page is one page with its overflow, or the inline page of a bucket.
type page struct {
	buf   []byte
	at    int64 // offset in the file
	count int
	leaf  bool
}

func (b *File) page(id uint64) (page, error) {
	if whole := uint64(b.size / b.pageSize); id < 2 || id >= b.pages || id >= whole {
		return page{}, base.Corruptf(b.path, b.size, "page %d is referenced; %d pages are used and the file has %d", id, b.pages, whole)
	}
	at := int64(id) * b.pageSize
	if _, twice := b.seen[id]; twice {
		return page{}, base.Corruptf(b.path, at, "page %d is referenced twice", id)
	}
	var head [headerSize]byte
	if err := b.read(head[:], at); err != nil {
		return page{}, err
	}
	le := binary.LittleEndian
	if got := le.Uint64(head[:]); got != id {
		return page{}, base.Corruptf(b.path, at, "page %d says it is page %d", id, got)
	}
	over := uint64(le.Uint32(head[12:]))
	if id+over >= b.pages || at+int64(over+1)*b.pageSize > b.size {
		return page{}, base.Corruptf(b.path, at+12, "page %d: overflow of %d pages leaves the file", id, over)
	}
	for i := uint64(0); i <= over; i++ {
		if _, twice := b.seen[id+i]; twice {
			return page{}, base.Corruptf(b.path, at, "page %d is referenced twice", id+i)
		}
		b.seen[id+i] = struct{}{}
	}
	buf := make([]byte, int64(over+1)*b.pageSize)
	if err := b.read(buf, at); err != nil {
		return page{}, err
	}
	return b.parse(buf, at)
}

func (b *File) parse(buf []byte, at int64) (page, error) {
	p := page{buf: buf, at: at}
	if len(buf) < headerSize {
		return p, base.Corruptf(b.path, at, "inline page of %d bytes", len(buf))
	}
	flags := binary.LittleEndian.Uint16(buf[8:])
	p.count, p.leaf = int(binary.LittleEndian.Uint16(buf[10:])), flags == flagLeaf
	if flags != flagLeaf && flags != flagBranch {
		return p, base.Corruptf(b.path, at+8, "flags %04X where a branch or leaf page belongs", flags)
	}
	if headerSize+p.count*elemSize > len(buf) {
		return p, base.Corruptf(b.path, at+10, "%d elements in a page of %d bytes", p.count, len(buf))
	}
	if !p.leaf && p.count == 0 {
		return p, base.Corruptf(b.path, at+10, "branch page without elements")
	}
	return p, nil
}

// span returns [pos, pos+n) of the page, pos counted from offset elem.
func (b *File) span(p page, elem int, pos, n uint64) ([]byte, error) {
	from := uint64(elem) + pos
	if end := from + n; end > uint64(len(p.buf)) || from < uint64(headerSize+p.count*elemSize) && n > 0 {
		return nil, base.Corruptf(b.path, p.at+int64(elem), "element points to %d bytes at %d of a page of %d", n, from, len(p.buf))
	}
	return p.buf[from:][:n:n], nil
}

// Visit gets the records of one bucket in key order. The slices are its to keep; at is the offset of the record's page.
type Visit func(bucket string, key, value []byte, at int64) error

// Each visits every record of every bucket, and with that every page in use. The first error ends it: ErrCorrupt for pages that do
// not hold together, ErrUnsupported for a bucket inside a bucket (etcd makes none), or fn's.
func (b *File) Each(fn Visit) error {
	b.seen = map[uint64]struct{}{}
	defer func() { b.seen = nil }()
	root := walker{b: b, visit: func(key, value []byte, bucket bool, at int64) error {
		if !bucket {
			return base.Corruptf(b.path, at, "%q at top level is no bucket", clip(key))
		}
		return b.bucket(string(key), value, at, fn)
	}}
	return root.tree(b.root)
}

func (b *File) bucket(name string, head []byte, at int64, fn Visit) error {
	if len(head) < bucketSize {
		return base.Corruptf(b.path, at, "bucket %q has a header of %d bytes", clip([]byte(name)), len(head))
	}
	w := walker{b: b, visit: func(key, value []byte, bucket bool, at int64) error {
		if bucket {
			return base.Unsupportedf(b.path, "bucket %q holds a bucket %q; etcd makes none", clip([]byte(name)), clip(key))
		}
		return fn(name, key, value, at)
	}}
	if root := binary.LittleEndian.Uint64(head); root != 0 {
		return w.tree(root)
	}
	p, err := b.parse(head[bucketSize:], at)
	if err == nil && !p.leaf {
		err = base.Corruptf(b.path, at, "inline page of bucket %q is no leaf", clip([]byte(name)))
	}
	if err != nil {
		return err
	}
	return w.walkPage(p, nil, nil, 0)
}

// walker goes through one tree in key order and checks that order.
type walker struct {
	b     *File
	visit func(key, value []byte, bucket bool, at int64) error
	last  []byte
	any   bool
}

func (w *walker) tree(root uint64) error { return w.walk(root, nil, nil, 0) }

// walk visits what is below page id; its keys are in [lo, hi), nil being no bound.
func (w *walker) walk(id uint64, lo, hi []byte, depth int) error {
	if depth > maxDepth {
		return base.Corruptf(w.b.path, int64(id)*w.b.pageSize, "page %d is %d levels deep", id, depth)
	}
	p, err := w.b.page(id)
	if err != nil {
		return err
	}
	return w.walkPage(p, lo, hi, depth)
}

func (w *walker) walkPage(p page, lo, hi []byte, depth int) error {
	if p.leaf {
		return w.leaf(p, lo, hi)
	}
	le := binary.LittleEndian
	type child struct {
		key []byte
		id  uint64
	}
	kids := make([]child, p.count)
	for i := range kids {
		off := headerSize + i*elemSize
		e := p.buf[off:]
		key, err := w.b.span(p, off, uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])))
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(kids[i-1].key, key) >= 0 || !within(key, lo, hi) {
			return base.Corruptf(w.b.path, p.at+int64(off), "branch keys out of order")
		}
		kids[i] = child{key, le.Uint64(e[8:])}
	}
	for i, k := range kids {
		upper := hi
		if i+1 < len(kids) {
			upper = kids[i+1].key
		}
		if err := w.walk(k.id, k.key, upper, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(p page, lo, hi []byte) error {
	le := binary.LittleEndian
	for i := range p.count {
		off := headerSize + i*elemSize
		e := p.buf[off:]
		pos, ksize, vsize := uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		both, err := w.b.span(p, off, pos, ksize+vsize)
		if err != nil {
			return err
		}
		flags := le.Uint32(e)
		if flags > leafBucket {
			return base.Corruptf(w.b.path, p.at+int64(off), "leaf element flags %08X", flags)
		}
		key, value := both[:ksize:ksize], both[ksize:]
		if w.any && bytes.Compare(w.last, key) >= 0 || !within(key, lo, hi) {
			return base.Corruptf(w.b.path, p.at+int64(off), "keys out of order")
		}
		w.last, w.any = key, true
		if err := w.visit(key, value, flags == leafBucket, p.at); err != nil {
			return err
		}
	}
	return nil
}

func within(key, lo, hi []byte) bool {
	return (lo == nil || bytes.Compare(key, lo) >= 0) && (hi == nil || bytes.Compare(key, hi) < 0)
}

// clip shortens a name of unknown length for a message.
func clip(b []byte) []byte { return b[:min(len(b), 32)] }
