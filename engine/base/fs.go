package base

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// LockMode says how a lock file is held.
type LockMode int

const (
	// LockShared lets other readers in and keeps a writer (TiKV) out.
	LockShared LockMode = iota
	// LockExclusive keeps everybody out.
	LockExclusive
)

// LockKind says which of the two unrelated kernel locks is taken: they do not see each other.
type LockKind int

const (
	// Flock is flock(2): <data-dir>/LOCK and raft-engine/LOCK.
	Flock LockKind = iota
	// Fcntl is a record lock over the whole file, taken as an open-file-description lock so that closing another
	// descriptor of the same file does not drop it: db/LOCK, raft/LOCK, titandb/LOCK.
	Fcntl
)

// DiskWriteCategory names our writes in pebble's seam.
const DiskWriteCategory vfs.DiskWriteCategory = "tikv-repair"

// FS is the one way to the disk: pebble's vfs.FS and what it lacks. Tests run it in memory, count its operations, make one
// of them fail, or cut the power.
type FS interface {
	vfs.FS
	// LockFile takes an advisory lock on an existing file. It never creates, truncates or touches the file: not one mtime
	// of a live store may change. A conflict is an *Error of class ErrInUse that names the holder's pid when /proc tells it.
	LockFile(name string, kind LockKind, mode LockMode) (io.Closer, error)
	// CopyAttrs gives name the owner, group and permission bits of like: TiKV must be able to open what we write.
	CopyAttrs(name, like string) error
	// Truncate cuts an existing file to its first size bytes, in place, and makes that durable: after a crash before it
	// returns the file has its old length or the new one. A size above the present one is an error of class ErrIO, and
	// nothing changes. Every hard link of the file is cut with it.
	Truncate(name string, size int64) error
}

// memFS adds the missing operations to a file system in memory.
type memFS struct{ vfs.FS }

// NewMem makes an FS of a pebble file system that has no kernel behind it: vfs.MemFS, or errorfs over one. Locks and
// attributes do not exist there.
func NewMem(fs vfs.FS) FS { return memFS{fs} }

type nopCloser struct{}

func (nopCloser) Close() error { return nil }

func (m memFS) LockFile(name string, _ LockKind, _ LockMode) (io.Closer, error) {
	if _, err := m.Stat(name); err != nil {
		return nil, IO("lock", name, err)
	}
	return nopCloser{}, nil
}

func (m memFS) CopyAttrs(name, like string) error {
	for _, n := range []string{name, like} {
		if _, err := m.Stat(n); err != nil {
			return IO("copy attributes to", name, err)
		}
	}
	return nil
}

// truncatingSuffix marks the shorter copy that takes the place of a file in memory.
const truncatingSuffix = ".truncating"

// Truncate has no counterpart in pebble's vfs: a synced copy of the first bytes takes the file's place. Other hard links keep
// the old content, unlike on a disk.
func (m memFS) Truncate(name string, size int64) error {
	b, err := ReadFile(m, name)
	if err != nil {
		return err
	}
	if err := checkTruncate(name, int64(len(b)), size); err != nil {
		return err
	}
	tmp := name + truncatingSuffix
	if err := WriteFileSync(m, tmp, b[:size], ""); err != nil {
		return err
	}
	if err := m.Rename(tmp, name); err != nil {
		return IO("truncate", name, err)
	}
	return SyncDir(m, m.PathDir(name))
}

func checkTruncate(name string, have, size int64) error {
	if size < 0 || size > have {
		return IO("truncate", name, fmt.Errorf("%d bytes cannot be cut to %d", have, size))
	}
	return nil
}

// ReadFile returns the whole content of name.
func ReadFile(fs FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, IO("open", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, IO("read", name, err)
	}
	return b, nil
}

// WriteFileSync writes name anew, with the attributes of like (none when empty), and makes the content durable. The
// directory entry is not: call SyncDir.
func WriteFileSync(fs FS, name string, content []byte, like string) error {
	f, err := fs.Create(name, DiskWriteCategory)
	if err != nil {
		return IO("create", name, err)
	}
	// vfs.File.Write may change the slice that it is given.
	if _, err := f.Write(append([]byte(nil), content...)); err != nil {
		f.Close()
		return IO("write", name, err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return IO("sync", name, err)
	}
	if err := f.Close(); err != nil {
		return IO("close", name, err)
	}
	if like == "" {
		return nil
	}
	return fs.CopyAttrs(name, like)
}

// SyncDir makes the entries of dir durable.
func SyncDir(fs FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return IO("open directory", dir, err)
	}
	if err := d.Sync(); err != nil {
		d.Close()
		return IO("sync directory", dir, err)
	}
	return IO("close directory", dir, d.Close())
}

// RenameSync gives a file another name in the same directory and makes that durable.
func RenameSync(fs FS, from, to string) error {
	if err := fs.Rename(from, to); err != nil {
		return IO("rename to", to, err)
	}
	return SyncDir(fs, fs.PathDir(to))
}

// ReplaceFile writes content beside name, as name+suffix, and renames it over name, durably: a reader finds the old content or the
// new, never a part. It gets the attributes of like (none when empty).
func ReplaceFile(fs FS, name, suffix string, content []byte, like string) error {
	if err := WriteFileSync(fs, name+suffix, content, like); err != nil {
		return err
	}
	return RenameSync(fs, name+suffix, name)
}

// ReadFullAt fills b from off. A file that ends before is an error: the caller knows its size, so it is being changed.
func ReadFullAt(f io.ReaderAt, name string, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return IO("read", name, err)
}

// Exists tells whether name is there; any error but "not there" is returned.
func Exists(fs FS, name string) (bool, error) {
	_, err := fs.Stat(name)
	if err == nil {
		return true, nil
	}
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return false, IO("stat", name, err)
}
