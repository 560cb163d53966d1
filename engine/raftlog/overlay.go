package raftlog

import (
	"errors"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// overlay shows a directory as it will be after publishing: staged files under their final names, files with a tail to lose
// without it. It is for reading only.
type overlay struct {
	base.FS
	staged map[string]string // final path → staged path
	size   map[string]int64  // path → bytes that stay
}

func (o overlay) real(name string) string {
	if s, ok := o.staged[name]; ok {
		return s
	}
	return name
}

func (o overlay) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return o.FS.Open(o.real(name), opts...)
}

func (o overlay) List(dir string) ([]string, error) {
	names, err := o.FS.List(dir)
	if err != nil {
		return nil, err
	}
	for final := range o.staged {
		if o.PathDir(final) == o.PathJoin(dir) && !slices.Contains(names, o.PathBase(final)) {
			names = append(names, o.PathBase(final))
		}
	}
	return names, nil
}

func (o overlay) Stat(name string) (vfs.FileInfo, error) {
	st, err := o.FS.Stat(o.real(name))
	if n, ok := o.size[name]; ok && err == nil {
		return cutInfo{st, n}, nil
	}
	return st, err
}

var errReadOnly = errors.New("a view of what is not published yet cannot be written")

func (o overlay) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, &os.PathError{Op: "create", Path: name, Err: errReadOnly}
}

func (o overlay) Truncate(name string, _ int64) error { return base.IO("truncate", name, errReadOnly) }

func (o overlay) Rename(_, name string) error {
	return &os.PathError{Op: "rename", Path: name, Err: errReadOnly}
}

func (o overlay) Remove(name string) error {
	return &os.PathError{Op: "remove", Path: name, Err: errReadOnly}
}

// cutInfo is the state of a file that will be shorter.
type cutInfo struct {
	vfs.FileInfo
	size int64
}

func (c cutInfo) Size() int64 { return c.size }
