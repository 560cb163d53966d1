// Package titan reads Titan's blob store (titandb/), where the values of blob index records are. It never writes: deleting
// or rewriting such a record needs no change here (Titan's own garbage collection frees the space).
package titan

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// maxOpen is how many blob files are kept open.
const maxOpen = 64

// Store reads the live blob files of one titandb directory. Its methods may be called concurrently.
type Store struct {
	fs       base.FS
	dir      string
	manifest *Manifest

	mu   sync.Mutex
	open map[uint64]*handle
	lru  list.List // of *handle; least recently used at the back
}

// handle is an open blob file. It is closed when it left the cache and nobody reads from it.
type handle struct {
	number uint64
	path   string
	f      vfs.File
	header header
	meta   bool  // has meta blocks before the footer
	size   int64 // as the MANIFEST says
	refs   int
	elem   *list.Element // nil once evicted
}

// Open reads the MANIFEST of dir, normally <data-dir>/db/titandb. A directory without CURRENT has no blobs and opens.
func Open(fs base.FS, dir string) (*Store, error) {
	m, err := LoadManifest(fs, dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		m = &Manifest{Path: fs.PathJoin(dir, "MANIFEST"), Files: map[uint64]File{}}
	}
	return &Store{fs: fs, dir: dir, manifest: m, open: map[uint64]*handle{}}, nil
}

// Close closes the open blob files. No other method may run or follow.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for n, h := range s.open {
		errs = append(errs, base.IO("close", h.path, h.f.Close()))
		delete(s.open, n)
	}
	s.lru.Init()
	return errors.Join(errs...)
}

// Manifest is the state that was read at Open; do not change it.
func (s *Store) Manifest() *Manifest { return s.manifest }

// Path is where the blob file with that number is.
func (s *Store) Path(number uint64) string {
	return s.fs.PathJoin(s.dir, fmt.Sprintf("%06d.blob", number))
}

// Get gives the value that a blob index record of userKey points to. Every failure is a *base.Error with the blob file's
// path, the offset and the key: the value is lost, and nothing is made up in its place.
func (s *Store) Get(index, userKey []byte) ([]byte, error) {
	x, err := ParseIndex(index)
	if err != nil {
		return nil, withKey(base.Corruptf(s.manifest.Path, 0, "%v", err), userKey)
	}
	value, err := s.get(x, userKey)
	if err != nil {
		return nil, withKey(err, userKey)
	}
	return value, nil
}

func withKey(err error, key []byte) error {
	var e *base.Error
	if !errors.As(err, &e) || e.Key != nil {
		return err
	}
	with := *e
	with.Key = bytes.Clone(key)
	return &with
}

func (s *Store) get(x Index, userKey []byte) ([]byte, error) {
	h, err := s.acquire(x.File)
	if err != nil {
		return nil, err
	}
	defer s.release(h)
	end := uint64(h.size) - footerSize
	if x.Size < recordHeader || x.Offset < uint64(h.header.size) || x.Offset > end || x.Size > end-x.Offset {
		return nil, base.Corruptf(h.path, int64(min(x.Offset, uint64(h.size))),
			"blob index points to offset %d, size %d; records of the file are between %d and %d", x.Offset, x.Size, h.header.size, end)
	}
	off := int64(x.Offset)
	b := make([]byte, x.Size)
	if err := readAt(h.f, h.path, b, off); err != nil {
		return nil, err
	}
	key, value, err := decodeRecord(b)
	if err != nil {
		return nil, recordError(h.path, off, err)
	}
	if !bytes.Equal(key, userKey) {
		return nil, base.Corruptf(h.path, off, "record belongs to key %X", clip(key))
	}
	return value, nil
}

func recordError(path string, off int64, err error) error {
	if errors.Is(err, errCompression) {
		return base.Unsupportedf(path, "blob record at offset %d: %v", off, err)
	}
	return base.Corruptf(path, off, "%v", err)
}

// acquire gives an open blob file; release it after use.
func (s *Store) acquire(number uint64) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.open[number]; h != nil {
		h.refs++
		s.lru.MoveToFront(h.elem)
		return h, nil
	}
	file, live := s.manifest.Files[number]
	if !live {
		return nil, base.Corruptf(s.Path(number), 0, "blob file is not live in %s: the value is lost", s.manifest.Path)
	}
	h, err := s.load(file)
	if err != nil {
		return nil, err
	}
	h.refs, h.elem = 1, s.lru.PushFront(h)
	s.open[number] = h
	if s.lru.Len() > maxOpen {
		old := s.lru.Remove(s.lru.Back()).(*handle)
		old.elem = nil
		delete(s.open, old.number)
		if old.refs == 0 {
			old.f.Close()
		}
	}
	return h, nil
}

func (s *Store) release(h *handle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.refs--; h.refs == 0 && h.elem == nil {
		h.f.Close()
	}
}

// load opens a blob file and checks its header, footer and size.
func (s *Store) load(file File) (_ *handle, err error) {
	path := s.Path(file.Number)
	f, err := s.fs.Open(path, vfs.RandomReadsOption)
	if errors.Is(err, os.ErrNotExist) {
		e := base.Corruptf(path, 0, "blob file is live in %s but not on disk: its values are lost", s.manifest.Path)
		e.Err = err
		return nil, e
	}
	if err != nil {
		return nil, base.IO("open", path, err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	st, err := f.Stat()
	if err != nil {
		return nil, base.IO("stat", path, err)
	}
	size := st.Size()
	if uint64(size) != file.Size {
		return nil, base.Corruptf(path, 0, "blob file has %d bytes, %s says %d", size, s.manifest.Path, file.Size)
	}
	head := make([]byte, min(20, size))
	if err := readAt(f, path, head, 0); err != nil {
		return nil, err
	}
	h := &handle{number: file.Number, path: path, f: f, size: size}
	if h.header, err = parseHeader(path, head); err != nil {
		return nil, err
	}
	if size < int64(h.header.size)+footerSize {
		return nil, base.Corruptf(path, 0, "blob file of %d bytes has no room for header and footer", size)
	}
	foot := make([]byte, footerSize)
	if err := readAt(f, path, foot, size-footerSize); err != nil {
		return nil, err
	}
	h.meta, err = parseFooter(path, size-footerSize, foot)
	return h, err
}

// Walk calls fn with every record of a live blob file, in file order, checking each checksum; size is what a blob index
// to the record says. key and value are valid during the call only.
func (s *Store) Walk(number uint64, fn func(off, size int64, key, value []byte) error) error {
	h, err := s.acquire(number)
	if err != nil {
		return err
	}
	defer s.release(h)
	if h.meta {
		return base.Unsupportedf(h.path, "blob file has meta blocks")
	}
	in := window{h: h}
	end, count := h.size-footerSize, uint64(0)
	for off := h.firstRecord(); off < end; {
		if end-off < recordHeader {
			return base.Corruptf(h.path, off, "%d stray bytes before the footer", end-off)
		}
		head, err := in.at(off, recordHeader)
		if err != nil {
			return err
		}
		if h.header.blockSize > 0 && allZero(head) {
			// Titan frees garbage records of an aligned file by punching holes: zeros up to a block border.
			off = h.align(off + 1)
			continue
		}
		n := recordHeader + int64(binary.LittleEndian.Uint32(head[4:]))
		if n > end-off {
			return base.Corruptf(h.path, off, "record of %d bytes runs into the footer", n)
		}
		buf, err := in.at(off, n)
		if err != nil {
			return err
		}
		key, value, err := decodeRecord(buf)
		if err != nil {
			return recordError(h.path, off, err)
		}
		if err := fn(off, n, key, value); err != nil {
			return err
		}
		off = h.align(off + n)
		count++
	}
	if f := s.manifest.Files[number]; f.HasMeta && h.header.blockSize == 0 && count != f.Entries {
		return base.Corruptf(h.path, 0, "blob file has %d records, %s says %d", count, s.manifest.Path, f.Entries)
	}
	return nil
}

// window reads ahead in a blob file that is walked: a little at first, because many a walk ends with the first record.
type window struct {
	h   *handle
	b   []byte
	off int64 // of b
}

const (
	firstWindow   = 16 << 10
	largestWindow = 512 << 10
)

// at gives n bytes in front of the footer, valid until the next call.
func (w *window) at(off, n int64) ([]byte, error) {
	if off < w.off || off+n > w.off+int64(len(w.b)) {
		size := min(max(n, firstWindow, min(2*int64(len(w.b)), largestWindow)), w.h.size-footerSize-off)
		if int64(cap(w.b)) < size {
			w.b = make([]byte, size)
		}
		w.b, w.off = w.b[:size], off
		if err := readAt(w.h.f, w.h.path, w.b, off); err != nil {
			w.b = w.b[:0]
			return nil, err
		}
	}
	return w.b[off-w.off:][:n], nil
}

// firstRecord is where the records start: padding to block_size follows the header as well.
func (h *handle) firstRecord() int64 { return h.align(int64(h.header.size)) }

func (h *handle) align(off int64) int64 {
	if bs := int64(h.header.blockSize); bs > 0 {
		return (off + bs - 1) / bs * bs
	}
	return off
}
