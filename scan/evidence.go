package scan

import (
	"bytes"
	"errors"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// LockAt is one record of the lock column family.
type LockAt struct {
	User   []byte // raw user key
	Locks  []mvcc.Lock
	Shared bool
	Raw    []byte
}

// Locks reads the whole lock column family into memory. There can be millions: what can do with one after the other uses EachLock.
func (s *Store) Locks() ([]LockAt, error) {
	var out []LockAt
	err := s.EachLock(func(l LockAt) (err error) {
		l.Raw = bytes.Clone(l.Raw)
		l.Locks, l.Shared, err = mvcc.ParseLocks(l.Raw)
		out = append(out, l)
		return err
	})
	return out, err
}

// EachLock calls fn for the records of the lock column family, in key order. Raw, and what Locks refers to, are good until fn returns. Errors
// of fn are returned as they are.
func (s *Store) EachLock(fn func(LockAt) error) error {
	v, err := s.DB.CF(CFLock).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	ph := base.Begin(s.FS, "reading the locks").Items(0, "locks")
	defer ph.End()
	for ok := v.First(); ok; ok = v.Next() {
		if err := ph.Did(1); err != nil {
			return err
		}
		l, err := s.parseLock(v.User(), v.Value())
		if err != nil {
			return err
		}
		if err := fn(l); err != nil {
			return err
		}
	}
	return v.Err()
}

func (s *Store) parseLock(key, raw []byte) (LockAt, error) {
	user, err := mvcc.UserKey(key)
	l := LockAt{User: user, Raw: raw}
	if err == nil {
		l.Locks, l.Shared, err = mvcc.ParseLocks(raw)
	}
	if err != nil {
		return l, &base.Error{Class: base.ErrCorrupt, Op: "read lock", Path: s.Layout.KVDir, Offset: -1, CF: CFLock, Key: bytes.Clone(key), Err: err}
	}
	return l, nil
}

// Evidence answers the questions of the lock decisions from this store alone. It keeps one iterator open and is for one
// goroutine.
type Evidence struct {
	s      *Store
	write  *rocks.Visible
	finder RegionFinder
}

// Evidence opens the view; Close must be called.
func (s *Store) Evidence() (*Evidence, error) {
	w, err := s.DB.CF(CFWrite).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		return nil, err
	}
	return &Evidence{s: s, write: w, finder: s.RegionFinder()}, nil
}

// Close gives the view back.
func (e *Evidence) Close() error { return e.write.Close() }

// Here tells whether a live region of this store holds the key.
func (e *Evidence) Here(user []byte) bool {
	_, ok := e.Region(user)
	return ok
}

// Region is the live region of this store that holds the key.
func (e *Evidence) Region(user []byte) (Region, bool) { return e.finder.Find(mvcc.LockKey(user)) }

// WriteByStart finds the commit of a transaction at one key: records are looked at from the newest down to commit_ts = start.
func (e *Evidence) WriteByStart(user []byte, start mvcc.TS) (commit mvcc.TS, w mvcc.Write, found bool, err error) {
	prefix := mvcc.LockKey(user)
	for ok := e.write.SeekGE(prefix); ok; ok = e.write.Next() {
		p, ts, isTxn := mvcc.SplitKey(e.write.User())
		if !isTxn || !bytes.Equal(p, prefix) || ts < start {
			break
		}
		w, err := e.parse()
		if err != nil {
			return 0, w, false, err
		}
		if w.StartTS == start && w.Type != mvcc.WriteRollback {
			w.ShortValue = bytes.Clone(w.ShortValue)
			return ts, w, true, nil
		}
	}
	return 0, mvcc.Write{}, false, e.write.Err()
}

// RollbackAt tells whether the record at (key, start) says that the transaction was rolled back.
func (e *Evidence) RollbackAt(user []byte, start mvcc.TS) (bool, error) {
	key := mvcc.DataKey(user, start)
	if !e.write.SeekGE(key) || !bytes.Equal(e.write.User(), key) {
		return false, e.write.Err()
	}
	w, err := e.parse()
	return err == nil && (w.Type == mvcc.WriteRollback && w.StartTS == start || w.OverlappedRollback), err
}

// LockOf reads the lock record of a key.
func (e *Evidence) LockOf(user []byte) ([]mvcc.Lock, error) {
	key := mvcc.LockKey(user)
	v, _, ok, err := e.s.DB.CF(CFLock).Get(key)
	if err != nil || !ok {
		return nil, err
	}
	l, err := e.s.parseLock(key, v)
	return l.Locks, err
}

func (e *Evidence) parse() (mvcc.Write, error) {
	w, err := mvcc.ParseWrite(e.write.Value())
	if err != nil {
		return w, e.s.writeCorrupt(e.write.User(), err)
	}
	return w, nil
}

func (s *Store) writeCorrupt(key []byte, err error) error {
	return &base.Error{Class: base.ErrCorrupt, Op: "read write record", Path: s.Layout.KVDir, Offset: -1, CF: CFWrite, Key: bytes.Clone(key), Err: err}
}

// DecideLocks decides every lock of the store at t by its transaction, from this store alone, and gives fn the decisions in key order; a
// record that nobody holds any more, a shared one, comes as a removal. Slices of a lock are good until fn returns. The problems are known
// at the end.
func (s *Store) DecideLocks(t mvcc.TS, fn func(plan.LockDecision) error) ([]plan.Problem, error) {
	return s.decideLocks(fn, func(ev plan.Evidence) *plan.Decider { return plan.NewDecider(t, ev) })
}

// DecideLocksBy is DecideLocks by verdicts that were made from the evidence of all stores.
func (s *Store) DecideLocksBy(t mvcc.TS, verdicts []plan.TxnVerdict, fn func(plan.LockDecision) error) ([]plan.Problem, error) {
	return s.decideLocks(fn, func(ev plan.Evidence) *plan.Decider { return plan.NewVerdictDecider(t, verdicts, ev) })
}

func (s *Store) decideLocks(fn func(plan.LockDecision) error, by func(plan.Evidence) *plan.Decider) ([]plan.Problem, error) {
	ev, err := s.Evidence()
	if err != nil {
		return nil, err
	}
	defer ev.Close()
	d := by(ev)
	total, err := s.noteLocks(d)
	if err != nil || total == 0 {
		return nil, err
	}
	ph := base.Begin(s.FS, "deciding the locks").Items(total, "locks")
	defer ph.End()
	lower, upper := []byte{'z'}, []byte{'z' + 1}
	err = s.decideIn(d, lower, upper, ph, fn)
	return d.Problems(), err
}

// noteLocks shows a decider all locks, and counts their records.
func (s *Store) noteLocks(d *plan.Decider) (n int, err error) {
	err = s.EachLock(func(l LockAt) error {
		n++
		for _, one := range l.Locks {
			d.Note(plan.LockAt{UserKey: l.User, Lock: one, Shared: l.Shared})
		}
		return nil
	})
	return n, err
}

// decideIn decides the locks of a range of database keys.
func (s *Store) decideIn(d *plan.Decider, lower, upper []byte, ph *base.Phase, fn func(plan.LockDecision) error) error {
	v, err := s.DB.CF(CFLock).NewVisible(lower, upper, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		if err := ph.Did(1); err != nil {
			return err
		}
		l, err := s.parseLock(v.User(), v.Value())
		if err != nil {
			return err
		}
		if len(l.Locks) == 0 {
			if err := fn(plan.LockDecision{UserKey: l.User, Shared: l.Shared, Act: plan.Remove, Reason: "a shared lock that nobody holds any more"}); err != nil {
				return err
			}
		}
		for _, one := range l.Locks {
			x, err := d.Decide(plan.LockAt{UserKey: l.User, Lock: one, Shared: l.Shared})
			if err == nil {
				err = fn(x)
			}
			if err != nil {
				return err
			}
		}
	}
	return v.Err()
}

// NewestCommit is the largest timestamp of any write record, rollback marks included, and of any API V2 raw entry: from the tables'
// properties, and from the logs. A table without trustworthy properties is read.
func (s *Store) NewestCommit() (mvcc.TS, error) {
	newest, err := s.newestIn(CFWrite, 0)
	if err != nil || s.Ident.APIVersion != raftstate.APIV2 {
		return newest, err
	}
	return s.newestIn(CFDefault, newest)
}

// commitOf takes a key of a family apart that tells of commits: of the default column family, those of raw entries.
func commitOf(name string, key []byte) (prefix []byte, ts mvcc.TS, ok bool) {
	if name != CFWrite && (len(key) < 2 || key[1] != 'r') {
		return nil, 0, false
	}
	return mvcc.SplitKey(key)
}

// newestLogged is the largest timestamp in the logs of a family, as they were with that many records on top.
type newestLogged struct {
	overlaid uint64
	ts       mvcc.TS
}

// newestInLog is the largest timestamp in the logs of a family. each, when it is not nil, is shown every key that counts.
func (s *Store) newestInLog(name string, each func(prefix []byte, ts mvcc.TS)) (newest mvcc.TS, err error) {
	s.boundsMu.Lock()
	known, ok := s.logged[name]
	s.boundsMu.Unlock()
	if ok && known.overlaid == s.DB.Overlaid() && each == nil {
		return known.ts, nil
	}
	it := s.DB.CF(name).Log().Iter()
	for ok := it.First(); ok; ok = it.Next() {
		prefix, ts, ok := commitOf(name, it.Key().User)
		if !ok {
			continue
		}
		newest = max(newest, ts)
		if each != nil {
			each(prefix, ts)
		}
	}
	if err := errors.Join(it.Err(), it.Close()); err != nil {
		return 0, err
	}
	s.boundsMu.Lock()
	defer s.boundsMu.Unlock()
	if s.logged == nil {
		s.logged = map[string]newestLogged{}
	}
	s.logged[name] = newestLogged{s.DB.Overlaid(), newest}
	return newest, nil
}

// newestIn raises newest to the largest timestamp of the keys that count. Properties speak of all keys of a table, so for a
// family in which not all count they only tell that a table cannot raise it.
func (s *Store) newestIn(name string, newest mvcc.TS) (mvcc.TS, error) {
	cf := s.DB.CF(name)
	inLog, err := s.newestInLog(name, nil)
	if err != nil {
		return 0, err
	}
	newest = max(newest, inLog)
	bounds, err := s.TimeBounds(name)
	if err != nil {
		return 0, err
	}
	files := cf.Files()
	ph := base.Begin(s.FS, "looking for the newest commit").Items(len(files), "tables")
	defer ph.End()
	for _, f := range files {
		if err := ph.Did(1); err != nil {
			return 0, err
		}
		if b := bounds.Of(f.Number); b.Trust && (name == CFWrite || b.Max <= newest) {
			newest = max(newest, b.Max)
			continue
		}
		err := noteTable(s.FS, cf, f, func(_ []byte, ts mvcc.TS) { newest = max(newest, ts) })
		if err != nil {
			return 0, err
		}
	}
	return newest, nil
}
