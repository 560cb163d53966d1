// Package pd reads the data directory of a stopped PD server: what it knows of the cluster, and how sure that is. It writes nothing.
//
// docs/formats/pd-data.md is the reference; sections in comments are its sections.
package pd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd"
	"github.com/tikv-repair/tikv-repair/engine/pd/regionmeta"
)

// Parts of a PD data directory (section 1).
const (
	memberDir   = "member"
	drStateFile = "DR_STATE"
	joinFile    = "join"
	lockFile    = "LOCK"
)

func isDir(fs base.FS, elem ...string) bool {
	st, err := fs.Stat(fs.PathJoin(elem...))
	return err == nil && st.IsDir()
}

// Is tells whether dir looks like a PD data directory.
func Is(fs base.FS, dir string) bool {
	return isDir(fs, dir, memberDir, "snap") || isDir(fs, dir, memberDir, "wal")
}

// Inside tells whether dir is a part of a PD data directory: member/, member/snap, region-meta.
func Inside(fs base.FS, dir string) bool {
	above := filepath.Dir(filepath.Clean(dir))
	return !isDir(fs, dir, "db") && (Is(fs, above) || Is(fs, filepath.Dir(above)))
}

// Check gives an error of class ErrNotStore with what dir is instead when it is no PD data directory.
func Check(fs base.FS, dir string) error {
	not := func(reason, next string) error {
		return &base.Error{Class: base.ErrNotStore, Op: "open PD directory", Path: dir, Offset: -1, Reason: reason, Next: next}
	}
	if Is(fs, dir) {
		return nil
	}
	st, err := fs.Stat(dir)
	above := filepath.Dir(filepath.Clean(dir))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return not("there is no such directory", "")
	case err != nil:
		return base.IO("open PD directory", dir, err)
	case !st.IsDir():
		return not("this is a file; name PD's data directory (data-dir)", "")
	case isDir(fs, dir, "db"):
		return not("this is a TiKV data directory, not PD's", "name PD's data directory (data-dir of pd-server), which has a directory member/ in it")
	case Is(fs, above):
		return not("this is a part of a PD data directory", "name "+above+" instead")
	case Is(fs, filepath.Dir(above)):
		return not("this is a part of a PD data directory", "name "+filepath.Dir(above)+" instead")
	}
	return not("there is no member/ with etcd's files in it", "name PD's data directory (data-dir of pd-server)")
}

// Locks are the locks on a PD directory.
type Locks struct{ held []io.Closer }

// Lock takes shared every lock that a running PD holds exclusively: etcd's, and goleveldb's flock(2) on region-meta/LOCK. Nothing is
// created. A live PD is an error of class ErrInUse that names the process when the kernel tells.
func Lock(fs base.FS, dir string) (*Locks, error) { return lock(fs, dir, base.LockShared) }

// LockExclusive is Lock for a writer: it keeps other readers out as well.
func LockExclusive(fs base.FS, dir string) (*Locks, error) { return lock(fs, dir, base.LockExclusive) }

func lock(fs base.FS, dir string, mode base.LockMode) (*Locks, error) {
	l := &Locks{}
	e, err := etcd.Lock(fs, fs.PathJoin(dir, memberDir), mode)
	if err != nil {
		return nil, err
	}
	l.held = append(l.held, e)
	path := fs.PathJoin(dir, regionmeta.Dir, lockFile)
	there, err := base.Exists(fs, path)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if there {
		c, err := fs.LockFile(path, base.Flock, mode)
		var in *base.Error
		if errors.As(err, &in) && errors.Is(in, base.ErrInUse) {
			in.Next = "stop pd-server on this directory, then run the command again"
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		l.held = append(l.held, c)
	}
	return l, nil
}

// Close gives all locks back. It may be called again.
func (l *Locks) Close() error {
	var errs []error
	for _, c := range l.held {
		errs = append(errs, c.Close())
	}
	l.held = nil
	return errors.Join(errs...)
}

// Certainty says how sure it is that a record is part of the cluster's state.
type Certainty string

// The certainties of a record.
const (
	// Certain: a majority of PD's members had it.
	Certain Certainty = "committed"
	// Possible: it is in this member's log, and may or may not have been on a majority.
	Possible Certainty = "possible"
	// Superseded: it was committed, and later replaced.
	Superseded Certainty = "superseded"
	// Copied: a copy in a file, written without fsync and best effort.
	Copied Certainty = "copy"
	// Absent: there is no such record, which means its default.
	Absent Certainty = "absent"
)

// Source says where a number comes from.
type Source struct {
	Dir       string    `json:"dir"`
	Key       string    `json:"key,omitempty"`
	File      string    `json:"file,omitempty"`
	Revision  int64     `json:"mod_revision,omitempty"`
	Certainty Certainty `json:"certainty"`
}

func (s Source) String() string {
	if s.File != "" {
		return fmt.Sprintf("file %s, a %s", s.File, s.Certainty)
	}
	if s.Certainty == Absent {
		return "no key " + s.Key
	}
	return fmt.Sprintf("%s, revision %d, %s", s.Key, s.Revision, s.Certainty)
}
