package engine

import (
	"errors"
	"io"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// lockName is the name of every lock file: TiKV's, RocksDB's, Titan's and raft-engine's.
const lockName = "LOCK"

// Locks are the locks held on a store. They keep TiKV out (and, when shared, other readers in).
type Locks struct {
	// Missing are lock files that an engine would have made and that are not there: a copy made without them. Nothing is
	// locked in their place.
	Missing []string

	held []io.Closer
}

// lockFile is one lock file with the kinds of lock to take on it.
type lockFile struct {
	path  string
	kinds []base.LockKind
}

// lockFiles lists the lock files of the store, the one that TiKV takes first at its head.
//
//	<data-dir>/LOCK, raft-engine/LOCK, spill-dir/LOCK   fs2: flock(2) upstream; TiKV pins a fork that may use fcntl(2),
//	                                                    and the two do not see each other: both
//	db/LOCK, raft/LOCK, titandb/LOCK                    fcntl(2) record lock over the whole file
func (l *Layout) lockFiles(fs base.FS) []lockFile {
	both, fcntl := []base.LockKind{base.Flock, base.Fcntl}, []base.LockKind{base.Fcntl}
	out := []lockFile{{l.Dir, both}, {l.KVDir, fcntl}}
	if l.TitanDir != "" {
		out = append(out, lockFile{l.TitanDir, fcntl})
	}
	kinds := fcntl
	if l.Raft == RaftEngine {
		kinds = both
	}
	out = append(out, lockFile{l.RaftDir, kinds})
	if l.SpillDir != "" {
		out = append(out, lockFile{l.SpillDir, both})
	}
	for i := range out {
		out[i].path = fs.PathJoin(out[i].path, lockName)
	}
	return out
}

// Lock takes every lock file that exists, all or none. Nothing is created, truncated or touched. When a live process
// holds one, the error has class ErrInUse and names the process if the kernel tells. A shared lock needs read permission
// only, so a read-only mount can be read; an exclusive one needs write permission.
func (l *Layout) Lock(fs base.FS, mode base.LockMode) (*Locks, error) {
	locks := &Locks{}
	for _, lf := range l.lockFiles(fs) {
		there, err := base.Exists(fs, lf.path)
		if err != nil {
			return nil, errors.Join(err, locks.Close())
		}
		if !there {
			locks.Missing = append(locks.Missing, lf.path)
			continue
		}
		for _, kind := range lf.kinds {
			c, err := fs.LockFile(lf.path, kind, mode)
			if err != nil {
				return nil, errors.Join(err, locks.Close())
			}
			locks.held = append(locks.held, c)
		}
	}
	return locks, nil
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
