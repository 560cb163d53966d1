package base

import (
	"errors"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watched is an FS with a pulse. An operation that stop refuses is not begun: to the files that is the same as a run that was killed
// before it, a case that every edit is made for.
type watched struct {
	FS
	p *Pulse
}

// Watch puts the pulse on a file system: what goes through the result is counted, and refused once the run is to end.
func (p *Pulse) Watch(fs FS) FS { return watched{fs, p} }

// Unrefused is fs for taking away, at the end, what is of no use to anybody any more, and for nothing else.
func Unrefused(fs FS) FS {
	if w, ok := fs.(watched); ok {
		return w.FS
	}
	return fs
}

func (w watched) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, w.p}, nil
}

func (w watched) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.file(w.FS.Create(name, c))
}

func (w watched) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.file(w.FS.Open(name, o...))
}

func (w watched) OpenDir(name string) (vfs.File, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.file(w.FS.OpenDir(name))
}

func (w watched) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.file(w.FS.OpenReadWrite(name, c, o...))
}

func (w watched) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.file(w.FS.ReuseForWrite(old, name, c))
}

func (w watched) Link(old, name string) error {
	if err := w.p.ask(); err != nil {
		return err
	}
	return w.FS.Link(old, name)
}

func (w watched) Remove(name string) error {
	if err := w.p.ask(); err != nil {
		return err
	}
	return w.FS.Remove(name)
}

// RemoveAll takes away one name at a time: a directory can hold very many files. A name that goes by Remove goes so; a link to a directory
// is not followed, also when it cannot be removed: of what is not empty the system says that, of a link it never does.
func (w watched) RemoveAll(name string) error {
	err := w.Remove(name)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var no syscall.Errno
	if errors.As(err, &no) && no != syscall.ENOTEMPTY && no != syscall.EEXIST {
		return err
	}
	if st, serr := w.Stat(name); serr != nil || !st.IsDir() {
		return err
	}
	names, err := w.List(name)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := w.RemoveAll(w.PathJoin(name, n)); err != nil {
			return err
		}
	}
	return w.Remove(name)
}

func (w watched) Rename(old, name string) error {
	if err := w.p.ask(); err != nil {
		return err
	}
	return w.FS.Rename(old, name)
}

func (w watched) MkdirAll(name string, perm os.FileMode) error {
	if err := w.p.ask(); err != nil {
		return err
	}
	return w.FS.MkdirAll(name, perm)
}

func (w watched) Lock(name string) (io.Closer, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.FS.Lock(name)
}

func (w watched) List(name string) ([]string, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.FS.List(name)
}

func (w watched) Stat(name string) (vfs.FileInfo, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.FS.Stat(name)
}

func (w watched) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	if err := w.p.ask(); err != nil {
		return vfs.DiskUsage{}, err
	}
	return w.FS.GetDiskUsage(name)
}

func (w watched) LockFile(name string, kind LockKind, mode LockMode) (io.Closer, error) {
	if err := w.p.ask(); err != nil {
		return nil, err
	}
	return w.FS.LockFile(name, kind, mode)
}

func (w watched) CopyAttrs(name, like string) error {
	if err := w.p.ask(); err != nil {
		return err
	}
	return w.FS.CopyAttrs(name, like)
}

func (w watched) Truncate(name string, size int64) error {
	if err := w.p.ask(); err != nil {
		return err
	}
	return w.FS.Truncate(name, size)
}

// watchedFile counts bytes. Close is never refused: it gives back what was taken.
type watchedFile struct {
	vfs.File
	p *Pulse
}

func (f *watchedFile) Read(b []byte) (int, error) {
	if err := f.p.ask(); err != nil {
		return 0, err
	}
	n, err := f.File.Read(b)
	f.p.read.Add(int64(n))
	return n, err
}

func (f *watchedFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.p.ask(); err != nil {
		return 0, err
	}
	n, err := f.File.ReadAt(b, off)
	f.p.read.Add(int64(n))
	return n, err
}

func (f *watchedFile) Write(b []byte) (int, error) {
	if err := f.p.ask(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(b)
	f.p.written.Add(int64(n))
	return n, err
}

func (f *watchedFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.p.ask(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(b, off)
	f.p.written.Add(int64(n))
	return n, err
}

func (f *watchedFile) Stat() (vfs.FileInfo, error) {
	if err := f.p.ask(); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *watchedFile) Sync() error {
	if err := f.p.ask(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *watchedFile) SyncData() error {
	if err := f.p.ask(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *watchedFile) SyncTo(n int64) (bool, error) {
	if err := f.p.ask(); err != nil {
		return false, err
	}
	return f.File.SyncTo(n)
}
