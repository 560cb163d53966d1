// Package etcd reads the data directory of a stopped etcd member, as PD embeds it, without etcd and without writing: the bbolt
// backend, the write-ahead log, the raft snapshots. It tells what is certainly committed from what is only in this member's log.
//
// Read from the source of etcd v3.5.15 (PD 8.4 and later); the formats of 3.4 (older PD) are the same where it matters.
package etcd

import (
	"bytes"
	"slices"
	"sort"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

// KV is one live key.
type KV struct {
	Key, Value []byte
	// Create and Mod are the revisions of the key's creation and last change; Version counts its changes since creation, from 1.
	Create, Mod, Version int64
	Lease                int64 // 0: none
}

// View is the content of the cluster as of one raft index.
type View struct {
	Index     uint64 // raft index of the last entry in it
	Revision  int64  // etcd's revision counter
	Compacted int64  // revisions below this one are gone; 0 when nothing was ever compacted
	Keys      []KV   // ascending
	Leases    map[int64]Lease
	Members   []Member // ascending by id
}

// Get returns one key.
func (v *View) Get(key string) (KV, bool) {
	i := sort.Search(len(v.Keys), func(i int) bool { return string(v.Keys[i].Key) >= key })
	if i < len(v.Keys) && string(v.Keys[i].Key) == key {
		return v.Keys[i], true
	}
	return KV{}, false
}

// Prefix returns the keys that start with prefix, ascending; a part of Keys.
func (v *View) Prefix(prefix string) []KV {
	from := sort.Search(len(v.Keys), func(i int) bool { return string(v.Keys[i].Key) >= prefix })
	to := from + sort.Search(len(v.Keys)-from, func(i int) bool { return !bytes.HasPrefix(v.Keys[from+i].Key, []byte(prefix)) })
	return slices.Clip(v.Keys[from:to])
}

// Member is one member of the etcd cluster.
type Member struct {
	ID         uint64
	Name       string // empty: never started
	PeerURLs   []string
	ClientURLs []string
	Learner    bool
}

// String is the name, or the id when there is none.
func (m Member) String() string {
	if m.Name == "" {
		return memberHex(m.ID)
	}
	return m.Name
}

// State is one member's directory. ConsistentIndex <= Commit <= LastIndex.
type State struct {
	Dir      string // member directory
	Backend  string // the bbolt file that was read: db, or the snapshot from a leader that was to replace it; empty: there was none
	Snapshot string // the .snap file that the WAL starts from; empty: none

	MemberID, ClusterID uint64 // etcd's, not PD's; 0 when no WAL tells

	// Certain is what is committed for sure: everything up to Commit. Possible has the rest of this member's log as well: in a
	// cluster of several members the last acknowledged write is normally only there. Without such a rest the two are the same.
	Certain, Possible *View

	ClusterVersion  string // as etcd's servers agreed: "3.5.0"; empty: unknown
	ConsistentIndex uint64 // last entry that is in Backend
	Commit          uint64 // the larger one of HardState.Commit and ConsistentIndex
	LastIndex       uint64 // last entry of the log
	LastTerm        uint64 // its term
	HardState       wal.HardState

	// Damage lists what could not be read and did not keep the rest from being used; each is of class base.ErrCorrupt. With a
	// damaged WAL, newer changes may be missing in Certain and in Possible: then Certain.Index < Commit, or Possible.Index <
	// LastIndex, or the damage hides even that.
	Damage []error
	// Notes are for people: what is unusual and harmless, or was decided.
	Notes []string
}

// Options say how to read.
type Options struct {
	// Locked: the caller holds the locks of Lock (also exclusively); Open takes none.
	Locked bool
}

// Paths below a member directory.
const (
	snapDir = "snap"
	walDir  = "wal"
	dbName  = "db"
)

// checkDir tells a member directory from everything else.
func checkDir(fs base.FS, dir string) error {
	refuse := func(reason, next string) error {
		return &base.Error{Class: base.ErrNotStore, Op: "open PD's etcd", Path: dir, Offset: -1, Reason: reason, Next: next}
	}
	for _, sub := range []string{snapDir, walDir} {
		there, err := base.Exists(fs, fs.PathJoin(dir, sub))
		if err != nil {
			return err
		}
		if there {
			continue
		}
		if in, err := base.Exists(fs, fs.PathJoin(dir, "member", sub)); err == nil && in {
			return refuse("the etcd member directory is member/ below it", "name "+fs.PathJoin(dir, "member")+" instead")
		}
		return refuse("there is no "+sub+"/ in it", "name PD's data directory (data-dir) as it was when PD was stopped")
	}
	return nil
}

// list returns the sorted names in dir.
func list(fs base.FS, dir string) ([]string, error) {
	names, err := fs.List(dir)
	if err != nil {
		return nil, base.IO("list", dir, err)
	}
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, "/")
	}
	slices.Sort(names)
	return names, nil
}
