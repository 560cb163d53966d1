package raftlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// windowSize is what one read fetches. Entries blocks larger than it are skipped without being read.
const windowSize = 256 << 10

// window reads a file through one buffer.
type window struct {
	f    vfs.File
	path string
	size int64
	buf  []byte
	at   int64 // file offset of buf[0]
	n    int   // valid bytes of buf
}

func newWindow(f vfs.File, path string, size int64) *window {
	return &window{f: f, path: path, size: size}
}

// get returns n ≤ windowSize bytes at off, valid until the next call. The caller has checked off + n ≤ size.
func (w *window) get(off int64, n int) ([]byte, error) {
	if off < w.at || off+int64(n) > w.at+int64(w.n) {
		if w.buf == nil {
			w.buf = make([]byte, min(windowSize, w.size))
		}
		want := int(min(int64(len(w.buf)), w.size-off))
		w.n = 0
		if err := base.ReadFullAt(w.f, w.path, w.buf[:want], off); err != nil {
			return nil, err
		}
		w.at, w.n = off, want
	}
	i := int(off - w.at)
	return w.buf[i : i+n], nil
}

// checksum computes the CRC of [off, off+n) without holding it in memory.
func (w *window) checksum(off, n int64) (uint32, error) {
	h := crc32.NewIEEE()
	for n > 0 {
		b, err := w.get(off, int(min(n, windowSize)))
		if err != nil {
			return 0, err
		}
		h.Write(b)
		off += int64(len(b))
		n -= int64(len(b))
	}
	return h.Sum32(), nil
}

// batch is one decoded log batch.
type batch struct {
	off     int64 // of the batch in the file
	hdr     batchHeader
	section []byte // item section without its checksum
	items   []item // slices of section
}

func (b *batch) end() int64       { return b.off + b.hdr.total }
func (b *batch) hasEntries() bool { return b.hdr.itemOff > batchHeaderLen }

// blockRef says where the entries block of a batch is.
func (b *batch) blockRef(file uint32) block {
	return block{off: b.off + batchHeaderLen, len: b.hdr.itemOff - batchHeaderLen, file: file, compression: b.hdr.compression}
}

// badBatch is a batch that does not decode; the bytes are read, but they are no batch of this file.
type badBatch struct{ reason error }

func (e *badBatch) Error() string { return e.reason.Error() }

// readBatch decodes the batch at off into b. A *badBatch error means a bad batch, any other an I/O error.
func readBatch(w *window, off int64, sig uint32, b *batch) error {
	left := w.size - off
	if left < batchHeaderLen {
		return &badBatch{fmt.Errorf("batch: %d bytes are left in the file", left)}
	}
	head, err := w.get(off, batchHeaderLen)
	if err != nil {
		return err
	}
	hdr, err := decodeBatchHeader(head, left)
	if err != nil {
		return &badHeader{badBatch{err}}
	}
	b.off, b.hdr = off, hdr
	start, n := off+hdr.itemOff, hdr.total-hdr.itemOff-4
	// The checksum comes first: only then is the length to be believed and memory spent on it.
	got, err := w.checksum(start, n)
	if err != nil {
		return err
	}
	tail, err := w.get(start+n, 4)
	if err != nil {
		return err
	}
	if want := binary.LittleEndian.Uint32(tail) ^ sig; want != got {
		return &badBatch{fmt.Errorf("batch: item checksum %08X, expected %08X", got, want)}
	}
	if int64(cap(b.section)) < n {
		b.section = make([]byte, n)
	}
	b.section = b.section[:n]
	if n <= windowSize {
		v, err := w.get(start, int(n))
		if err != nil {
			return err
		}
		copy(b.section, v)
	} else if err := base.ReadFullAt(w.f, w.path, b.section, start); err != nil {
		return err
	}
	if b.items, err = decodeItems(b.items, b.section); err != nil {
		return &badBatch{err}
	}
	return nil
}

// badHeader is a bad batch whose header already fails: only that may be alignment padding.
type badHeader struct{ badBatch }

// fileScan is the outcome of reading one file.
type fileScan struct {
	header  Header
	badHead error // the file header does not decode
	valid   int64 // offset after the last good batch; 0 with a bad header
	batches int
	bad     error // what stands at valid, nil at a clean end of the file
	// torn is set when the final batch was dropped because its entries block is broken.
	torn bool
}

// scanFile reads all batches of a file and calls fn for each, in order. The engine's rule for the final batch holds: if its
// entries block is broken the batch counts as not written (raft-engine 0.4.0 and later; src/file_pipe_log/reader.rs). err is an
// I/O error or one of fn; bad content is in the result.
func scanFile(fs base.FS, lf *logFile, fn func(b *batch) error) (fileScan, error) {
	var s fileScan
	f, err := fs.Open(lf.path)
	if err != nil {
		return s, base.IO("open", lf.path, err)
	}
	defer f.Close()
	w := newWindow(f, lf.path, lf.size)
	head, err := w.get(0, int(min(int64(headerLenV2), lf.size)))
	if err != nil {
		return s, err
	}
	if s.header, s.badHead = DecodeHeader(head); s.badHead != nil {
		return s, nil
	}
	sig := signature(s.header.Version, lf.seq)
	cur, next := new(batch), new(batch)
	s.valid = int64(s.header.Len)
	have := false // cur holds a batch that is not delivered yet
	for {
		off, err := nextBatch(w, &s, sig, next)
		if err != nil {
			return s, err
		}
		found := off >= 0
		if have {
			if !found && cur.hasEntries() {
				ok, err := blockGood(w, cur)
				if err != nil {
					return s, err
				}
				if !ok {
					s.valid, s.torn = cur.off, true
					s.bad = fmt.Errorf("entries block of the final batch is broken")
					return s, nil
				}
			}
			if err := fn(cur); err != nil {
				return s, err
			}
			s.batches++
		}
		if !found {
			return s, nil
		}
		s.valid = next.end()
		cur, next, have = next, cur, true
	}
}

// nextBatch decodes what stands at s.valid and returns its offset, or -1 at the end or at bad content (then s.bad is set).
func nextBatch(w *window, s *fileScan, sig uint32, b *batch) (int64, error) {
	off := s.valid
	for off < w.size {
		err := readBatch(w, off, sig, b)
		if err == nil {
			return off, nil
		}
		switch e := err.(type) {
		case *badBatch:
			s.bad = e.reason
			return -1, nil
		case *badHeader:
			next, ok, perr := skipPadding(w, off, s.header.Alignment)
			if perr != nil {
				return -1, perr
			}
			if !ok {
				s.bad = e.reason
				return -1, nil
			}
			off = next
		default:
			return -1, err
		}
	}
	return -1, nil
}

// skipPadding jumps to the next multiple of the alignment when what lies between begins and ends with zero. No writer outside
// of tests makes such files.
func skipPadding(w *window, off int64, alignment uint64) (int64, bool, error) {
	if alignment == 0 || alignment > uint64(w.size) || uint64(off)%alignment == 0 {
		return 0, false, nil
	}
	next := (off/int64(alignment) + 1) * int64(alignment)
	if next > w.size {
		return 0, false, nil
	}
	for _, at := range []int64{off, next - 1} {
		b, err := w.get(at, 1)
		if err != nil {
			return 0, false, err
		}
		if b[0] != 0 {
			return 0, false, nil
		}
	}
	return next, true, nil
}

// blockGood tells whether the entries block of b has its checksum and decompresses.
func blockGood(w *window, b *batch) (bool, error) {
	ref := b.blockRef(0)
	raw, err := readBlock(w, ref)
	if err != nil {
		if _, bad := err.(*badBatch); bad {
			return false, nil
		}
		return false, err
	}
	_, err = DecodeBlock(raw, ref.compression)
	return err == nil, nil
}

// readBlock returns the bytes of an entries block. A large one is checked before memory is spent on it: its length comes from a
// header without a checksum. A *badBatch error means bad content.
func readBlock(w *window, ref block) ([]byte, error) {
	if ref.off+ref.len > w.size {
		return nil, &badBatch{fmt.Errorf("entries block: ends at %d of %d", ref.off+ref.len, w.size)}
	}
	if ref.len < 4 {
		return nil, &badBatch{fmt.Errorf("entries block: %d bytes", ref.len)}
	}
	if ref.len > windowSize {
		got, err := w.checksum(ref.off, ref.len-4)
		if err != nil {
			return nil, err
		}
		tail, err := w.get(ref.off+ref.len-4, 4)
		if err != nil {
			return nil, err
		}
		if want := binary.LittleEndian.Uint32(tail); want != got {
			return nil, &badBatch{fmt.Errorf("entries block: checksum %08X, expected %08X", got, want)}
		}
	}
	raw := make([]byte, ref.len)
	return raw, base.ReadFullAt(w.f, w.path, raw, ref.off)
}
