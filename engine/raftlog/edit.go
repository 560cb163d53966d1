package raftlog

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Sink takes the new files of an edit and notes what has to happen to old ones. An edit.Tx is one; a dry run has one that only
// counts.
type Sink interface {
	// Create opens a new file under its staged name.
	Create(final string) (vfs.File, error)
	// Add registers a complete, synced file that gets the owner and mode of like.
	Add(final, like string) error
	// Save gives a file that the edit stops referring to a second name.
	Save(path string) error
	// Replace stages new content for a small file that is switched after all new files are in place.
	Replace(path string, content []byte) error
	// Cut registers a file that loses what is behind its first size bytes, before any new file is in place.
	Cut(path string, size int64) error
	// Log registers an added file as one that an engine appends to; next is the one that it would begin after it.
	Log(final, next string) error
}

// Edit is a batch that has been fitted to one raft store and can be staged. Whoever uses it need not know which kind of store
// that is.
//
//	plan (reads) → Stage (writes under staged names) → Staged (reads back) → the sink publishes → Published (reads back)
type Edit interface {
	// Empty tells that nothing has to be written; then the other methods do nothing, and Staged gives the store as it is.
	Empty() bool
	// Dirs are the directories that get staged files.
	Dirs() []string
	// Bytes is what staging writes, the copy of a cut tail included; an estimate where files are compressed.
	Bytes() int64
	// Summary says what will happen to the files.
	Summary() Summary
	// Stage writes the new files into the sink.
	Stage(sink Sink) error
	// Staged opens the store as it will be when the staged files, whose names end with suffix, have been published, and proves
	// that it holds what the batch asks for, and for all other regions what it held before. The caller closes it.
	Staged(suffix string) (Store, error)
	// Published opens the store anew and proves the same. The caller closes it.
	Published() (Store, error)
}

// Summary describes an edit for a preview.
type Summary struct {
	File      string `json:"file"`                 // new log file or table
	Regions   int    `json:"regions"`              // changed
	Entries   int    `json:"entries"`              // written
	Deleted   int    `json:"deleted,omitempty"`    // records deleted one by one; raft RocksDB only
	Cut       string `json:"cut,omitempty"`        // log file that loses its unreadable tail
	CutBytes  int64  `json:"cut_bytes,omitempty"`  // how much it loses
	Replaced  bool   `json:"replaced,omitempty"`   // File was there, without a readable header
	FoldedLog int    `json:"folded_log,omitempty"` // records moved out of the write-ahead log; raft RocksDB only
}

// OpenDB reads a raft RocksDB, as OpenRocks does; PlanEdit can change what it returns. The caller keeps db open and closes it.
func OpenDB(db *rocks.DB) (Store, error) {
	cf := db.CF(defaultCF)
	if cf == nil {
		return nil, base.Corruptf(db.State.Path, -1, "a raft database without the column family %q", defaultCF)
	}
	return &dbStore{rocksStore: rocksStore{dbKV{cf}}, db: db}, nil
}

// PlanEdit fits a batch to a store: nothing is written yet. s comes from OpenEngine or OpenDB and stays open as long as the edit
// is used. The error is of class ErrUnsupported for what must not be done to this store, ErrCorrupt when the store is damaged
// in a way that an edit would make worse.
func PlanEdit(s Store, b *Batch, now time.Time) (Edit, error) {
	out, err := b.outcomes(s)
	if err != nil {
		return nil, err
	}
	switch s := s.(type) {
	case *Engine:
		return planEngine(s, b, out)
	case *dbStore:
		return planRocks(s, b, out, now)
	}
	return nil, &base.Error{Class: base.ErrUnsupported, Op: "plan raft edit", Offset: -1,
		Reason: fmt.Sprintf("a %T can only be read", s), Next: "open the raft database with OpenDB"}
}

// readBack is the error of a store that does not hold what it should.
func readBack(region uint64, format string, args ...any) error {
	return &base.Error{Class: base.ErrCorrupt, Op: "read the edited raft log back", Offset: -1, Region: region, Reason: fmt.Sprintf(format, args...)}
}

// verify compares a store after an edit with the one before: changed regions have their outcome, all others their state and
// their bounds.
func verify(before, after Store, out []*outcome) error {
	was, err := before.Regions()
	if err != nil {
		return err
	}
	is, err := after.Regions()
	if err != nil {
		return err
	}
	changed := map[uint64]*outcome{}
	for _, o := range out {
		changed[o.region] = o
	}
	for _, id := range slices.Compact(slices.Sorted(slices.Values(append(was, is...)))) {
		if changed[id] != nil {
			continue
		}
		if err := sameRegion(before, after, id); err != nil {
			return err
		}
	}
	for _, o := range out {
		if err := o.verify(before, after); err != nil {
			return err
		}
	}
	return nil
}

func sameRegion(before, after Store, id uint64) error {
	a, aok, err := before.RaftState(id)
	if err != nil {
		return err
	}
	b, bok, err := after.RaftState(id)
	if err != nil {
		return err
	}
	if aok != bok || !bytes.Equal(a, b) {
		return readBack(id, "its raft state changed from %X to %X", a, b)
	}
	f1, l1, ok1, err := before.Bounds(id)
	if err != nil {
		return err
	}
	f2, l2, ok2, err := after.Bounds(id)
	if err != nil {
		return err
	}
	if f1 != f2 || l1 != l2 || ok1 != ok2 {
		return readBack(id, "its entries changed from %d..%d to %d..%d", f1, l1, f2, l2)
	}
	return nil
}

func (o *outcome) verify(before, after Store) error {
	want, have := o.put[stateKey]
	if !have && !o.cleaned {
		var err error
		if want, have, err = before.RaftState(o.region); err != nil {
			return err
		}
	}
	got, ok, err := after.RaftState(o.region)
	if err != nil {
		return err
	}
	if ok != have || !bytes.Equal(got, want) {
		return readBack(o.region, "its raft state is %X, want %X", got, want)
	}
	first, last, ok := o.bounds()
	f, l, k, err := after.Bounds(o.region)
	if err != nil {
		return err
	}
	if f != first || l != last || k != ok {
		return readBack(o.region, "its entries are %d..%d, want %d..%d", f, l, first, last)
	}
	if len(o.added) == 0 {
		return nil
	}
	i := 0
	err = after.Entries(o.region, o.added[0].Index, last+1, func(e raftstate.Entry) error {
		if i >= len(o.added) || e.Index != o.added[i].Index || !bytes.Equal(e.Raw, o.added[i].Raw) {
			return readBack(o.region, "entry %d is not the one that was written", e.Index)
		}
		i++
		return nil
	})
	if err == nil && i != len(o.added) {
		err = readBack(o.region, "%d of %d new entries are there", i, len(o.added))
	}
	return err
}
