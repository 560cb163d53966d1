// Package raftlog reads the raft store of a stopped TiKV, and changes it: raft-engine files, or a raft RocksDB. Both look the same
// through Store, and take the same Batch through PlanEdit. A file that an engine reads is never written to: an edit stages new
// files, and whoever publishes them cuts tails and renames.
package raftlog

import (
	"errors"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Store is the read view of one raft store. Implementations keep positions in memory, not entries, and may be used by
// several goroutines.
type Store interface {
	// Regions lists the ids of all regions that have a raft state or entries, ascending.
	Regions() ([]uint64, error)
	// RaftState returns the bytes of a region's RaftLocalState; ok is false when there is none.
	RaftState(region uint64) (raw []byte, ok bool, err error)
	// Entries calls fn for the entries of region that exist in [from, to), in index order. The entry and its slices are valid
	// during the call only. An error of fn ends the walk and is returned as it is.
	Entries(region, from, to uint64, fn func(e raftstate.Entry) error) error
	// Bounds returns the first and the last index of the entries that the engine holds for region; ok is false when it holds
	// none. Entries at or below the truncated index, or above last_index, are dead but are counted here.
	Bounds(region uint64) (first, last uint64, ok bool, err error)
	// Close releases what the store holds open.
	Close() error
}

// Terms looks up the term of entries for raftstate.StartInput, and remembers the first error: an entry that cannot be read
// is one that does not exist as far as a server's start is concerned, but the reason must not get lost.
type Terms struct {
	Store  Store
	Region uint64
	Err    error
}

// Term returns the term of the entry at index; ok is false when it does not exist or cannot be read.
func (t *Terms) Term(index uint64) (term uint64, ok bool) {
	if index == ^uint64(0) {
		return 0, false
	}
	err := t.Store.Entries(t.Region, index, index+1, func(e raftstate.Entry) error {
		term, ok = e.Term, true
		return nil
	})
	if err != nil && t.Err == nil {
		t.Err = err
	}
	return term, ok && err == nil
}

// withRegion names the region in an error that lacks it.
func withRegion(err error, region uint64) error {
	if e, ok := err.(*base.Error); ok && e.Region == 0 {
		e.Region = region
	}
	return err
}

func isCorrupt(err error) bool { return errors.Is(err, base.ErrCorrupt) }
