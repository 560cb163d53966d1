package repair

import (
	"bytes"

	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// lockEdit is what the decisions about a store's locks come to. The records lie in spools: there can be millions of locks.
type lockEdit struct {
	removed, committed, rows int64 // rows of the default column family go with the removed ones
	lines                    []LockLine
	at                       map[LockLine]int
	spools                   map[string]*rocks.Spool
	spill                    rocks.Spill
	last                     []byte // the key of the lock column family added last
}

// maxLockLines is how many reasons a preview tells apart.
const maxLockLines = 1000

func newLockEdit(s *scan.Store) *lockEdit {
	e := &lockEdit{at: map[LockLine]int{}, spools: map[string]*rocks.Spool{}, spill: s.Spill()}
	for _, cf := range []string{scan.CFLock, scan.CFWrite, scan.CFDefault} {
		e.spools[cf] = rocks.NewSpool(s.FS, e.spill, "locks-"+cf)
	}
	return e
}

// add takes the next decision in key order: every lock goes (undecided ones only get here when the operator forced them), a committed one
// leaves its write record, a removed Put takes its default-CF row along. Inner locks of a shared lock are all removed or have no data, so
// that the key's record goes as a whole.
func (e *lockEdit) add(d plan.LockDecision) error {
	e.count(d)
	if key := mvcc.LockKey(d.UserKey); !bytes.Equal(key, e.last) {
		e.last = key
		if err := e.record(scan.CFLock, ikey.Key{User: key, Kind: ikey.KindDelete}, nil); err != nil {
			return err
		}
	}
	switch {
	case d.Act == plan.Commit:
		e.committed++
		return e.record(scan.CFWrite, ikey.Key{User: mvcc.DataKey(d.UserKey, d.CommitTS), Kind: ikey.KindPut}, d.Record().Append(nil))
	case ownsDefaultRow(d):
		e.rows++
		e.removed++
		return e.record(scan.CFDefault, ikey.Key{User: mvcc.DataKey(d.UserKey, d.Lock.StartTS), Kind: ikey.KindDelete}, nil)
	}
	e.removed++
	return nil
}

func (e *lockEdit) record(cf string, k ikey.Key, value []byte) error {
	s := e.spools[cf]
	s.Add(k, value)
	if e.spill.Dir != "" && s.Used() > e.spill.Limit/4 {
		return s.Flush()
	}
	return nil
}

// count tells reasons apart as long as they are few.
func (e *lockEdit) count(d plan.LockDecision) {
	k := LockLine{Decision: d.Act.String(), Reason: d.Reason}
	i, ok := e.at[k]
	if !ok && len(e.lines) >= maxLockLines {
		k.Reason = "other reasons"
		i, ok = e.at[k]
	}
	if !ok {
		i = len(e.lines)
		e.at[k] = i
		e.lines = append(e.lines, k)
	}
	e.lines[i].Locks++
}

// runs are the records that are in memory; files has the others.
func (e *lockEdit) runs() map[string]*rocks.Run {
	out := map[string]*rocks.Run{}
	for cf, s := range e.spools {
		out[cf] = &s.Run
	}
	return out
}

// files are the records of a family that did not fit into memory.
func (e *lockEdit) files(cf string) []rocks.SpoolFile {
	if s := e.spools[cf]; s != nil {
		return s.Files
	}
	return nil
}

// bytes is about what the records take on disk.
func (e *lockEdit) bytes() (n int64) {
	for _, s := range e.spools {
		n += s.Used()
		for _, f := range s.Files {
			n += 2 * 64 * int64(f.Records)
		}
	}
	return n
}

// ownsDefaultRow tells whether a lock's default-CF row goes with it. The decision knows when the row belongs to a committed version
// of the same transaction; of a lock that is removed undecided, by force, nothing else can own it.
func ownsDefaultRow(d plan.LockDecision) bool {
	return d.DefaultRow || d.Act == plan.Undecided && d.Lock.NeedsDefault() && !d.Shared
}
