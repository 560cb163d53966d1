package crash

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// errPower is what every file operation gives once the power is off.
var errPower = errors.New("the power is off")

// faults counts the file operations of one run and decides which of them fail. Reading and changing operations are numbered
// apart, from 1. What a single call of vfs.FS does in several steps on a real disk is several operations here: MkdirAll makes one
// directory at a time, RemoveAll takes one name away at a time.
type faults struct {
	// write and read are the numbers of the operations that fail; 0: none.
	write, read int
	// err is what the failing operation gives.
	err error
	// stuck: every operation of that kind from there on fails, as on a disk that stays full or broken.
	stuck bool
	// cut: the power goes off there. Nothing happens any more.
	cut bool
	// noLinks: the file system has no hard links.
	noLinks bool

	mu            sync.Mutex
	writes, reads int
	off           bool
	failed        string // the operation that failed first
	names         []string
}

func (f *faults) op(write bool, what, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return errPower
	}
	n, at := &f.reads, f.read
	if write {
		n, at = &f.writes, f.write
		f.names = append(f.names, what+" "+name)
	}
	*n++
	if at == 0 || *n < at || *n > at && !f.stuck {
		return nil
	}
	if f.failed == "" {
		f.failed = fmt.Sprintf("%s %s", what, name)
	}
	if f.cut {
		f.off = true
		return errPower
	}
	return f.err
}

// faultFS is a base.FS whose operations can fail. It holds no state of its own: the files are those of the FS below.
type faultFS struct {
	base.FS
	f *faults
}

func (s faultFS) file(f vfs.File, err error, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{File: f, f: s.f, name: name}, nil
}

func (s faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := s.f.op(true, "create", name); err != nil {
		return nil, err
	}
	f, err := s.FS.Create(name, c)
	return s.file(f, err, name)
}

func (s faultFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if err := s.f.op(false, "open", name); err != nil {
		return nil, err
	}
	f, err := s.FS.Open(name, o...)
	return s.file(f, err, name)
}

func (s faultFS) OpenDir(name string) (vfs.File, error) {
	if err := s.f.op(false, "open directory", name); err != nil {
		return nil, err
	}
	f, err := s.FS.OpenDir(name)
	return s.file(f, err, name)
}

// OpenReadWrite is for a tail that is written back; nothing else of a store may be changed in place.
func (s faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := s.f.op(true, "open for writing", name); err != nil {
		return nil, err
	}
	f, err := s.FS.OpenReadWrite(name, c, o...)
	return s.file(f, err, name)
}

func (s faultFS) ReuseForWrite(name, _ string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	panic("a file is written again in place: " + name)
}

func (s faultFS) Truncate(name string, size int64) error {
	if err := s.f.op(true, "truncate", name); err != nil {
		return base.IO("truncate", name, err)
	}
	return s.FS.Truncate(name, size)
}

func (s faultFS) Link(old, name string) error {
	if err := s.f.op(true, "link", name); err != nil {
		return err
	}
	if s.f.noLinks {
		// link(2) looks whether the new name exists before it asks whether the file system can do it.
		if _, err := s.FS.Stat(name); err == nil {
			return &os.LinkError{Op: "link", Old: old, New: name, Err: os.ErrExist}
		}
		return &os.LinkError{Op: "link", Old: old, New: name, Err: syscall.EXDEV}
	}
	return s.FS.Link(old, name)
}

func (s faultFS) Remove(name string) error {
	if err := s.f.op(true, "remove", name); err != nil {
		return err
	}
	return s.FS.Remove(name)
}

func (s faultFS) RemoveAll(name string) error {
	st, err := s.FS.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.IsDir() {
		names, err := s.List(name)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, n := range names {
			if err := s.RemoveAll(path.Join(name, n)); err != nil {
				return err
			}
		}
	}
	return s.Remove(name)
}

func (s faultFS) Rename(old, name string) error {
	if err := s.f.op(true, "rename", name); err != nil {
		return err
	}
	return s.FS.Rename(old, name)
}

func (s faultFS) MkdirAll(name string, perm os.FileMode) error {
	if _, err := s.FS.Stat(name); err == nil {
		return nil
	}
	if up := path.Dir(name); up != name {
		if err := s.MkdirAll(up, perm); err != nil {
			return err
		}
	}
	if err := s.f.op(true, "mkdir", name); err != nil {
		return err
	}
	return s.FS.MkdirAll(name, perm)
}

func (s faultFS) List(name string) ([]string, error) {
	if err := s.f.op(false, "list", name); err != nil {
		return nil, err
	}
	return s.FS.List(name)
}

func (s faultFS) Stat(name string) (vfs.FileInfo, error) {
	if err := s.f.op(false, "stat", name); err != nil {
		return nil, err
	}
	return s.FS.Stat(name)
}

func (s faultFS) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	if err := s.f.op(false, "free space of", name); err != nil {
		return vfs.DiskUsage{}, err
	}
	return s.FS.GetDiskUsage(name)
}

func (s faultFS) LockFile(name string, kind base.LockKind, mode base.LockMode) (io.Closer, error) {
	if err := s.f.op(false, "lock", name); err != nil {
		return nil, base.IO("lock", name, err)
	}
	return s.FS.LockFile(name, kind, mode)
}

func (s faultFS) CopyAttrs(name, like string) error {
	if err := s.f.op(true, "chmod", name); err != nil {
		return base.IO("chmod", name, err)
	}
	return s.FS.CopyAttrs(name, like)
}

type faultFile struct {
	vfs.File
	f       *faults
	name    string
	written bool
}

// Write writes half of what it was given when it fails: a full disk takes what fits.
func (f *faultFile) Write(p []byte) (int, error) {
	f.written = true
	if err := f.f.op(true, "write", f.name); err != nil {
		n, werr := f.File.Write(append([]byte(nil), p[:len(p)/2]...))
		return n, errors.Join(err, werr)
	}
	return f.File.Write(p)
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	f.written = true
	if err := f.f.op(true, "write", f.name); err != nil {
		n, werr := f.File.WriteAt(append([]byte(nil), p[:len(p)/2]...), off)
		return n, errors.Join(err, werr)
	}
	return f.File.WriteAt(p, off)
}

func (f *faultFile) Sync() error {
	if err := f.f.op(true, "sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) SyncData() error { return f.Sync() }

func (f *faultFile) SyncTo(int64) (bool, error) { return true, f.Sync() }

// Close can fail, but gives the descriptor back all the same.
func (f *faultFile) Close() error {
	return errors.Join(f.f.op(f.written, "close", f.name), f.File.Close())
}

func (f *faultFile) Read(p []byte) (int, error) {
	if err := f.f.op(false, "read", f.name); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.f.op(false, "read", f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *faultFile) Stat() (vfs.FileInfo, error) {
	if err := f.f.op(false, "stat", f.name); err != nil {
		return nil, err
	}
	return f.File.Stat()
}
