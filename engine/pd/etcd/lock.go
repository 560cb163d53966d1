package etcd

import (
	"errors"
	"io"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Locks are the locks held on a member directory.
type Locks struct{ held []io.Closer }

// Lock takes every lock that a running etcd would hold, all or none: flock(2) on snap/db (bbolt), an open-file-description lock on
// each WAL segment and each preallocated one (etcd v3.5.15 client/pkg/fileutil/lock_linux.go). Nothing is created or touched. A
// shared lock needs read permission only. When a live process holds one, the error has class ErrInUse and names the process if the
// kernel tells.
//
// etcd started meanwhile waits for the lock on db; nothing of the directory changes under the reader.
func Lock(fs base.FS, memberDir string, mode base.LockMode) (*Locks, error) {
	l := &Locks{}
	take := func(path string, kind base.LockKind) error {
		c, err := fs.LockFile(path, kind, mode)
		if err != nil {
			var e *base.Error
			if errors.As(err, &e) && errors.Is(e, base.ErrInUse) {
				e.Next = "stop pd-server (and any etcd tool) on this directory, then run the command again"
			}
			return errors.Join(err, l.Close())
		}
		l.held = append(l.held, c)
		return nil
	}
	db := fs.PathJoin(memberDir, snapDir, dbName)
	there, err := base.Exists(fs, db)
	if err != nil {
		return nil, err
	}
	if there {
		if err := take(db, base.Flock); err != nil {
			return nil, err
		}
	}
	wal := fs.PathJoin(memberDir, walDir)
	names, err := list(fs, wal)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	for _, n := range names {
		if !strings.HasSuffix(n, ".wal") && !strings.HasSuffix(n, ".tmp") {
			continue
		}
		path := fs.PathJoin(wal, n)
		if st, err := fs.Stat(path); err != nil || st.IsDir() {
			if err != nil {
				return nil, errors.Join(base.IO("stat", path, err), l.Close())
			}
			continue
		}
		if err := take(path, base.Fcntl); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Close gives all locks back. It may be called again.
func (l *Locks) Close() error {
	var errs []error
	for _, c := range l.held {
		errs = append(errs, base.IO("unlock", "", c.Close()))
	}
	l.held = nil
	return errors.Join(errs...)
}
