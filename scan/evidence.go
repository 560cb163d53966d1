package scan

import (
	"bytes"

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

// Locks reads the whole lock column family.
func (s *Store) Locks() ([]LockAt, error) {
	v, err := s.DB.CF(CFLock).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	var out []LockAt
	for ok := v.First(); ok; ok = v.Next() {
		l, err := s.parseLock(v.User(), bytes.Clone(v.Value()))
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, v.Err()
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

// DecideLocks decides every lock of the store at t by its transaction, from this store alone.
func (s *Store) DecideLocks(t mvcc.TS) ([]plan.LockDecision, []plan.Problem, error) {
	return s.decideLocks(t, plan.DecideLocks)
}

// DecideLocksBy decides every lock of the store at t by verdicts that were made from the evidence of all stores.
func (s *Store) DecideLocksBy(t mvcc.TS, verdicts []plan.TxnVerdict) ([]plan.LockDecision, []plan.Problem, error) {
	return s.decideLocks(t, func(t mvcc.TS, locks []plan.LockAt, ev plan.Evidence) ([]plan.LockDecision, []plan.Problem, error) {
		return plan.DecideByVerdicts(t, locks, verdicts, ev)
	})
}

func (s *Store) decideLocks(t mvcc.TS, decide func(mvcc.TS, []plan.LockAt, plan.Evidence) ([]plan.LockDecision, []plan.Problem, error)) ([]plan.LockDecision, []plan.Problem, error) {
	locks, err := s.Locks()
	if err != nil || len(locks) == 0 {
		return nil, nil, err
	}
	ev, err := s.Evidence()
	if err != nil {
		return nil, nil, err
	}
	defer ev.Close()
	in := make([]plan.LockAt, 0, len(locks))
	for _, l := range locks {
		for _, one := range l.Locks {
			in = append(in, plan.LockAt{UserKey: l.User, Lock: one, Shared: l.Shared})
		}
	}
	return decide(t, in, ev)
}

// NewestCommit is the largest timestamp of any write record, rollback marks included, and of any API V2 raw entry: from the tables'
// properties, and from the logs. A table without trustworthy properties is read.
func (s *Store) NewestCommit() (mvcc.TS, error) {
	newest, err := s.newestIn(CFWrite, 0, func([]byte) bool { return true })
	if err != nil || s.Ident.APIVersion != raftstate.APIV2 {
		return newest, err
	}
	return s.newestIn(CFDefault, newest, func(key []byte) bool { return len(key) > 1 && key[1] == 'r' })
}

// newestIn raises newest to the largest timestamp of the keys that count. Properties speak of all keys of a table, so for a
// family in which not all count they only tell that a table cannot raise it.
func (s *Store) newestIn(name string, newest mvcc.TS, counts func(key []byte) bool) (mvcc.TS, error) {
	cf := s.DB.CF(name)
	note := func(key []byte) {
		if _, ts, ok := mvcc.SplitKey(key); ok && counts(key) {
			newest = max(newest, ts)
		}
	}
	it := cf.Log().Iter()
	for ok := it.First(); ok; ok = it.Next() {
		note(it.Key().User)
	}
	bounds, err := s.TimeBounds(name)
	if err != nil {
		return 0, err
	}
	for _, f := range cf.Files() {
		if b := bounds.Of(f.Number); b.Trust && (name == CFWrite || b.Max <= newest) {
			newest = max(newest, b.Max)
			continue
		}
		if err := noteTable(cf, f, note); err != nil {
			return 0, err
		}
	}
	return newest, nil
}
