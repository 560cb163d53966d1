package etcd

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

// Open reads the member directory (<PD's data-dir>/member) of a stopped PD. It writes nothing. While it reads it holds shared locks,
// see Lock. Errors: ErrNotStore, ErrInUse with the process that holds the directory, ErrCorrupt when the backend is unreadable,
// ErrUnsupported, ErrIO. Damage of the WAL is no error, see State.Damage.
func Open(fs base.FS, memberDir string, opt Options) (*State, error) {
	if err := checkDir(fs, memberDir); err != nil {
		return nil, err
	}
	if !opt.Locked {
		locks, err := Lock(fs, memberDir, base.LockShared)
		if err != nil {
			return nil, err
		}
		defer locks.Close()
	}
	o := opener{fs: fs, State: &State{Dir: memberDir}}
	if err := o.open(); err != nil {
		return nil, err
	}
	return o.State, nil
}

// opener takes the steps of etcd's own start (etcd v3.5.15 server/etcdserver/server.go NewServer), read-only.
type opener struct {
	*State
	fs      base.FS
	log     *wal.Log
	snap    *snapshot
	keys    *backend
	members *membership
	// start is the index at which the member list starts.
	start uint64
}

func (o *opener) path(elem ...string) string {
	return o.fs.PathJoin(append([]string{o.Dir}, elem...)...)
}

func (o *opener) open() error {
	if err := o.readLog(); err != nil {
		return err
	}
	if err := o.readKeys(); err != nil {
		return err
	}
	if err := o.readMembers(); err != nil {
		return err
	}
	o.ConsistentIndex, o.ClusterVersion = o.keys.consistent, o.keys.version
	o.bounds()
	if o.keys.authOn {
		o.Notes = append(o.Notes, "authentication is on: that every user was allowed to make the changes in the log is taken for granted")
	}
	if k := o.keys; k.compactedAll < k.compacted {
		o.Notes = append(o.Notes, fmt.Sprintf("a compaction to revision %d was cut short: harmless, the next start finishes it", k.compacted))
	}
	o.roll(o.Commit)
	o.Certain = o.view()
	o.Possible = o.Certain
	if o.LastIndex > o.Certain.Index {
		o.keys.machine, o.members = o.keys.clone(), o.members.clone()
		o.roll(o.LastIndex)
		o.Possible = o.view()
	}
	return nil
}

// readLog finds the start snapshot and the entries after it.
func (o *opener) readLog() error {
	dir := o.path(walDir)
	log, err := wal.Read(o.fs, dir, wal.None)
	if err != nil {
		return err
	}
	var damage []error
	if o.snap, damage, err = loadSnapshot(o.fs, o.path(snapDir), log); err != nil {
		return err
	}
	after := uint64(0)
	if o.snap != nil {
		o.Snapshot, after = o.path(snapDir, o.snap.name), o.snap.index
	}
	if o.log, err = wal.Read(o.fs, dir, after); err != nil {
		return err
	}
	o.Damage = append(append(o.Damage, damage...), o.log.Damage...)
	if o.log.Torn != nil {
		o.Notes = append(o.Notes, fmt.Sprintf("the log ends in the middle of a write, as a power cut leaves it: %v", o.log.Torn))
	}
	if len(o.log.Segments) == 0 {
		o.Damage = append(o.Damage, base.Corruptf(dir, 0, "there is no WAL segment: changes that are not in the backend yet are lost"))
	}
	o.MemberID, o.ClusterID, o.HardState = o.log.NodeID, o.log.ClusterID, o.log.HardState
	return nil
}

// readKeys reads the backend that etcd would use: db, or the one that a leader sent when the start snapshot is newer than db.
func (o *opener) readKeys() error {
	db := o.path(snapDir, dbName)
	there, err := base.Exists(o.fs, db)
	if err != nil {
		return err
	}
	if there {
		if o.keys, err = readBackend(o.fs, db); err != nil {
			return err
		}
		o.Backend = db
	}
	switch {
	case there && (o.snap == nil || o.snap.index <= o.keys.consistent):
	case o.snap != nil:
		if err := o.readSent(db, there); err != nil {
			return err
		}
	case o.log.Last.Index == 0:
		return &base.Error{Class: base.ErrNotStore, Op: "open PD's etcd", Path: o.Dir, Offset: -1,
			Reason: "there is neither a database (snap/db) nor an entry in the WAL", Next: "name PD's data directory as it was when PD was stopped"}
	default:
		// etcd starts with an empty database then and applies its whole log.
		o.Notes = append(o.Notes, db+" is not there: everything is taken from the log")
		o.keys = &backend{machine: newMachine()}
	}
	o.Damage = append(o.Damage, o.keys.notes...)
	return nil
}

// readSent reads the database that belongs to the start snapshot.
func (o *opener) readSent(db string, there bool) error {
	sent := o.path(snapDir, fmt.Sprintf("%016x%s", o.snap.index, snapDBSuffix))
	ok, err := base.Exists(o.fs, sent)
	switch {
	case err != nil:
		return err
	case ok:
		if o.keys, err = readBackend(o.fs, sent); err != nil {
			return err
		}
		o.Backend = sent
		o.Notes = append(o.Notes, fmt.Sprintf("%s is the database: a leader sent it, and it was to replace %s at the next start", sent, db))
		return nil
	case !there:
		return base.Corruptf(db, 0, "the database is not there, and neither is %s, which belongs to the snapshot %s", sent, o.Snapshot)
	}
	o.Damage = append(o.Damage, base.Corruptf(sent, 0, "the database of snapshot %s is not there, and %s ends at entry %d, before it: etcd does not start on this", o.Snapshot, db, o.keys.consistent))
	return nil
}

// readMembers finds the member list to start from.
func (o *opener) readMembers() error {
	var err error
	switch {
	case o.snap != nil:
		o.start = o.snap.index
		o.members, err = o.snap.store.members()
	case len(o.log.Entries) > 0 && o.log.Entries[0].Index == 1:
		o.members = newMembership()
	default:
		// Entries are missing: the backend's own list, which is as of its index, is all there is.
		o.start = o.keys.consistent
		o.Notes = append(o.Notes, "neither a snapshot nor the log's beginning is there: the member list is the backend's, which may be stale")
		o.members, err = fromBucket(o.keys.bucket)
	}
	if err != nil {
		return base.Corruptf(o.Snapshot, 0, "member list: %v", err)
	}
	return nil
}

// bounds sets LastIndex, LastTerm and Commit.
func (o *opener) bounds() {
	ci := o.ConsistentIndex
	o.LastIndex, o.LastTerm = o.log.Last.Index, o.log.Last.Term
	if o.snap != nil && o.snap.index > o.LastIndex {
		o.LastIndex, o.LastTerm = o.snap.index, o.snap.term
	}
	o.Commit = max(o.HardState.Commit, ci)
	if o.Commit > o.LastIndex {
		if len(o.log.Segments) > 0 {
			o.Damage = append(o.Damage, base.Corruptf(o.path(walDir), 0, "the log ends at entry %d, but entry %d was committed", o.LastIndex, o.Commit))
		}
		// What is in the backend is there, whatever became of the log.
		if o.Commit = max(o.LastIndex, ci); ci > o.LastIndex {
			o.LastIndex, o.LastTerm = ci, max(o.keys.term, o.LastTerm)
		}
	}
	if o.HardState.Commit < ci {
		o.Notes = append(o.Notes, fmt.Sprintf("the WAL says that entry %d is committed, the database has applied %d: the usual state after a kill, see --force-new-cluster", o.HardState.Commit, ci))
	}
}

// roll applies the entries up to index to that are not applied yet, to the keys and to the member list.
func (o *opener) roll(to uint64) {
	o.keys.consistent = o.follow("changes", o.keys.consistent, to, func(e wal.Entry) error {
		if e.Type != entryNormal {
			return nil
		}
		return o.keys.apply(e.Data)
	})
	o.start = o.follow("members", o.start, to, func(e wal.Entry) error { return o.members.entry(e.Type, e.Data) })
}

// follow calls fn for the entries in (from, to] and returns the last one it came to: it stops at a gap, and at an entry that does not
// decode.
func (o *opener) follow(what string, from, to uint64, fn func(wal.Entry) error) uint64 {
	if len(o.log.Segments) == 0 {
		return from
	}
	for _, e := range o.log.Entries {
		if e.Index <= from || e.Index > to {
			continue
		}
		if e.Index != from+1 {
			break
		}
		if err := fn(e); err != nil {
			o.Damage = append(o.Damage, base.Corruptf(o.path(walDir), 0, "entry %d: %v; %s from it to entry %d are not known", e.Index, err, what, to))
			return from
		}
		from = e.Index
	}
	if from < to {
		o.Damage = append(o.Damage, base.Corruptf(o.path(walDir), 0, "entry %d is missing in the log: %s from it to entry %d are not known", from+1, what, to))
	}
	return from
}

func (o *opener) view() *View {
	v := o.keys.view(o.keys.consistent)
	v.Members = o.members.list()
	return v
}
