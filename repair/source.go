package repair

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// EntryID names one entry in the history of a region: two logs that hold entries with the same id hold the same entries up to it
// (log matching, the Raft paper, 5.3).
type EntryID struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// SourceLog is what a source holds of one region's log: the entries in (Before.Index, Last].
//
// Invariant: Before.Index ≤ Last.
type SourceLog struct {
	Before EntryID // the entry before the first one that is there; its term is known although it is gone
	Last   uint64
	// Committed are entries that the source knows to be committed, and with each all before it. They need not be in the log.
	Committed []EntryID
}

// EntrySource gives log entries that another replica holds: another store, or what was taken from one.
type EntrySource interface {
	// Name is what messages call the source.
	Name() string
	// Log describes the log of a region. A source that has none says why.
	Log(region uint64) (log SourceLog, absent string, err error)
	// Entries calls fn for the entries of region that exist in [from, to), in index order. The entry is valid during the call only.
	Entries(region, from, to uint64, fn func(raftstate.Entry) error) error
	// ImportFile finds the file that an ingest command names by its uuid; a source that does not have it says so.
	ImportFile(uuid []byte) (fs base.FS, path, absent string)
}

// storeSource is the log of another store, which the caller keeps open.
type storeSource struct {
	s       *scan.Store
	regions map[uint64]scan.Region
}

// StoreSource takes entries from another store of the same cluster, opened by the caller.
func StoreSource(s *scan.Store) EntrySource {
	o := storeSource{s, make(map[uint64]scan.Region, len(s.Regions))}
	for _, r := range s.Regions {
		o.regions[r.ID] = r
	}
	return o
}

func (o storeSource) Name() string { return o.s.Layout.Dir }

func (o storeSource) Log(region uint64) (SourceLog, string, error) {
	r, ok := o.regions[region]
	if !ok {
		return SourceLog{}, "there is no replica of it there", nil
	}
	if st := r.State.State; !r.Live() || st != raftstate.Normal && st != raftstate.Merging {
		return SourceLog{}, "its replica there is " + st.String(), nil
	}
	raft, err := o.s.RaftStateOf(region)
	if err != nil || raft == nil {
		return SourceLog{}, "its replica there has no raft state", err
	}
	d := raftstate.Derive(raft, r.Apply)
	points, err := committedPoints(o.s.Raft, region, raft, r.Apply)
	return SourceLog{Before: EntryID(d.Truncated), Last: max(d.Last, d.Truncated.Index), Committed: points}, "", err
}

func (o storeSource) Entries(region, from, to uint64, fn func(raftstate.Entry) error) error {
	return o.s.Raft.Entries(region, from, to, fn)
}

func (o storeSource) ImportFile(uuid []byte) (base.FS, string, string) {
	path, absent := importFile(o.s, uuid)
	return o.s.FS, path, absent
}

// committedPoints are the entries that the records of one replica prove to be committed: what it has applied, its hard state's commit,
// and the commit that its apply state recorded with its term.
func committedPoints(log raftlog.Store, region uint64, raft *raftstate.RaftLocalState, apply *raftstate.RaftApplyState) ([]EntryID, error) {
	d := raftstate.Derive(raft, apply)
	terms := &raftlog.Terms{Store: log, Region: region}
	var out []EntryID
	add := func(index uint64) {
		if term, ok := d.TermOf(index, terms.Term); ok && term != 0 {
			out = append(out, EntryID{index, term})
		}
	}
	add(d.Applied)
	if raft != nil {
		add(raft.HardState.Commit)
	}
	if apply != nil && apply.CommitTerm != 0 {
		out = append(out, EntryID{apply.CommitIndex, apply.CommitTerm})
	}
	return out, terms.Err
}

// ListSource is a piece of one region's log that lies in memory, as a file between two machines carries it.
type ListSource struct {
	From   string // what messages call it
	Region uint64
	// Before is the entry before the first of List, Committed what is known to be committed.
	Before    EntryID
	List      []raftstate.Entry
	Committed []EntryID
}

// Name gives From.
func (l *ListSource) Name() string { return l.From }

// Log describes the piece. The error is of class ErrCorrupt: indexes do not follow each other, or terms go back.
func (l *ListSource) Log(region uint64) (SourceLog, string, error) {
	if region != l.Region {
		return SourceLog{}, "there is no replica of it there", nil
	}
	last := l.Before
	for _, e := range l.List {
		if e.Index != last.Index+1 || e.Term < last.Term {
			return SourceLog{}, "", base.Corruptf(l.From, -1, "entry %d of term %d follows entry %d of term %d", e.Index, e.Term, last.Index, last.Term)
		}
		last = EntryID{e.Index, e.Term}
	}
	return SourceLog{Before: l.Before, Last: last.Index, Committed: l.Committed}, "", nil
}

// Entries walks the list.
func (l *ListSource) Entries(region, from, to uint64, fn func(raftstate.Entry) error) error {
	if region != l.Region {
		return nil
	}
	for _, e := range l.List {
		if e.Index < from || e.Index >= to {
			continue
		}
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// ImportFile has none: a list carries no files.
func (l *ListSource) ImportFile([]byte) (base.FS, string, string) {
	return nil, "", fmt.Sprintf("%s carries no files", l.From)
}
