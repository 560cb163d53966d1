package base

import (
	"errors"
	"io"
	"sync"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

const (
	directAlign  = 4096 // of memory, offsets and lengths; no block device of today asks for more
	directBuffer = 1 << 20
)

// directFile writes around the page cache: what a repair writes is read back once, and the memory is better used by what it reads. The
// end of the file, which is not aligned, goes through the cache.
type directFile struct {
	vfs.File
	buf    []byte // aligned, of directBuffer bytes
	n      int    // bytes in buf
	direct bool
}

var directBuffers = sync.Pool{New: func() any {
	b := make([]byte, directBuffer+directAlign)
	off := 0
	if rest := int(uintptr(unsafe.Pointer(&b[0])) % directAlign); rest != 0 {
		off = directAlign - rest
	}
	b = b[off : off+directBuffer : off+directBuffer]
	return &b
}}

// WriteDirect makes the writes of a new, empty file go to the disk directly, in large pieces, where the file system can do that; elsewhere
// it returns f. The file must be written in order, and Sync or Close ends the direct part.
func WriteDirect(f vfs.File) vfs.File {
	if f.Fd() == vfs.InvalidFd {
		return f
	}
	d := &directFile{File: f}
	if d.set(true) != nil {
		return f
	}
	d.buf = *directBuffers.Get().(*[]byte)
	return d
}

// set switches the descriptor.
func (d *directFile) set(on bool) error {
	flags, err := unix.FcntlInt(d.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if on {
		flags |= unix.O_DIRECT
	} else {
		flags &^= unix.O_DIRECT
	}
	if _, err = unix.FcntlInt(d.Fd(), unix.F_SETFL, flags); err == nil {
		d.direct = on
	}
	return err
}

func (d *directFile) Write(p []byte) (int, error) {
	if d.buf == nil {
		return d.File.Write(p)
	}
	done := 0
	for len(p) > 0 {
		n := copy(d.buf[d.n:], p)
		d.n, p, done = d.n+n, p[n:], done+n
		if d.n < len(d.buf) {
			break
		}
		if err := d.flush(); err != nil {
			return done, err
		}
	}
	return done, nil
}

// flush writes the full buffer. Some file systems take the flag and refuse the write.
func (d *directFile) flush() error {
	_, err := d.File.Write(d.buf[:d.n])
	if errors.Is(err, unix.EINVAL) && d.direct {
		if err = d.set(false); err == nil {
			_, err = d.File.Write(d.buf[:d.n])
		}
	}
	d.n = 0
	return err
}

// end writes what is left and goes on without the direct mode.
func (d *directFile) end() error {
	if d.buf == nil {
		return nil
	}
	var err error
	if whole := d.n &^ (directAlign - 1); whole > 0 && d.direct {
		rest := append([]byte(nil), d.buf[whole:d.n]...)
		d.n = whole
		err = d.flush()
		d.n = copy(d.buf, rest)
	}
	if d.direct && err == nil {
		err = d.set(false)
	}
	if d.n > 0 && err == nil {
		err = d.flush()
	}
	buf := d.buf
	d.buf = nil
	directBuffers.Put(&buf)
	return err
}

func (d *directFile) Sync() error {
	if err := d.end(); err != nil {
		return err
	}
	return d.File.Sync()
}

func (d *directFile) SyncData() error {
	if err := d.end(); err != nil {
		return err
	}
	return d.File.SyncData()
}

func (d *directFile) Close() error { return errors.Join(d.end(), d.File.Close()) }

// directReads opens files for one walk from front to back, around the page cache where the file system can do that.
type directReads struct{ FS }

// ReadDirect is fs for reading back what has just been written: from the disk, and without pushing out of memory what others read. A file
// of it is for one goroutine.
func ReadDirect(fs FS) FS { return directReads{fs} }

func (d directReads) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := d.FS.Open(name, opts...)
	if err != nil || f.Fd() == vfs.InvalidFd {
		return f, err
	}
	r := &directReader{File: f}
	w := directFile{File: f}
	if w.set(true) != nil {
		return f, nil
	}
	r.buf = *directBuffers.Get().(*[]byte)
	return r, nil
}

// directReader holds a window of the file.
type directReader struct {
	vfs.File
	buf []byte
	off int64
	n   int // bytes of the window, from off on
}

func (r *directReader) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if r.buf == nil {
			n, err := r.File.ReadAt(p[done:], at)
			return done + n, err
		}
		if at >= r.off && at < r.off+int64(r.n) {
			done += copy(p[done:], r.buf[at-r.off:r.n])
			continue
		}
		r.off = at &^ (directAlign - 1)
		n, err := r.File.ReadAt(r.buf, r.off)
		r.n = n
		if errors.Is(err, unix.EINVAL) {
			// The file system takes the flag and refuses the read.
			w := directFile{File: r.File}
			if err := w.set(false); err != nil {
				return done, err
			}
			r.release()
			continue
		}
		if at >= r.off+int64(n) {
			if err == nil {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
	}
	return done, nil
}

func (r *directReader) release() {
	if buf := r.buf; buf != nil {
		r.buf = nil
		directBuffers.Put(&buf)
	}
}

func (r *directReader) Close() error {
	r.release()
	return r.File.Close()
}
