package scan

import (
	"bytes"
	"context"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// RaftLogOptions of RaftLog.
type RaftLogOptions struct {
	Region   uint64
	From, To uint64 // indexes, inclusive; 0: open
	Tail     bool   // only what is not applied
	Full     bool   // values whole
}

// Where an entry stands.
const (
	EntryDead        = "dead" // compacted away, or above last_index
	EntryApplied     = "applied"
	EntryCommitted   = "committed" // and not applied
	EntryUncommitted = "uncommitted"
)

// LogEntry is a raft log entry as it is printed.
type LogEntry struct {
	Index   uint64                `json:"index"`
	Term    uint64                `json:"term"`
	Status  string                `json:"status"` // dead, applied, committed, uncommitted
	Type    raftstate.EntryType   `json:"entry_type"`
	Kind    raftstate.CommandKind `json:"kind"`
	Bytes   int                   `json:"bytes"`
	Context raftstate.Key         `json:"context,omitempty"`
	Header  *raftstate.Header     `json:"header,omitempty"`

	Requests    []LogRequest           `json:"requests,omitempty"`
	Admin       *raftstate.Admin       `json:"admin,omitempty"`
	NodeChanges []raftstate.NodeChange `json:"node_changes,omitempty"`
	Unknown     bool                   `json:"unknown_fields,omitempty"`
	// NoOp says why applying the entry changes nothing; only for entries that are not applied.
	NoOp  string `json:"no_op,omitempty"`
	Raw   string `json:"raw,omitempty"` // of an entry that does not decode, upper-case hex
	Error string `json:"error,omitempty"`
}

// LogRequest is one request of a write entry, decoded down to the record that it puts.
type LogRequest struct {
	Op         raftstate.Op   `json:"op"`
	CF         string         `json:"cf"`
	DBKey      string         `json:"db_key,omitempty"`     // as in the database, with 'z', upper-case hex
	EndKey     string         `json:"end_db_key,omitempty"` // of delete_range
	Key        string         `json:"key,omitempty"`        // user key, upper-case hex
	KeyDecoded *mvcc.KeyInfo  `json:"key_decoded,omitempty"`
	CommitTS   mvcc.TS        `json:"commit_ts,omitempty"` // of the write column family
	CommitTime string         `json:"commit_time,omitempty"`
	StartTS    mvcc.TS        `json:"start_ts,omitempty"` // of the default column family
	StartTime  string         `json:"start_time,omitempty"`
	Write      *WriteView     `json:"write,omitempty"`
	Locks      []LockView     `json:"locks,omitempty"`
	Value      *string        `json:"value,omitempty"` // of the default column family, upper-case hex
	ValueBytes int            `json:"value_bytes,omitempty"`
	Truncated  bool           `json:"value_truncated,omitempty"`
	NotifyOnly bool           `json:"notify_only,omitempty"`
	SST        *raftstate.SST `json:"sst,omitempty"`
	Name       string         `json:"name,omitempty"`
	Error      string         `json:"error,omitempty"`
}

// shownValue is how many bytes of a value are printed unless all are wanted.
const shownValue = 32

// NoOpEntry is an entry of the tail that changes nothing when it is applied.
type NoOpEntry struct {
	Index  uint64 `json:"index"`
	Reason string `json:"reason"`
}

// TailReport sums up what is not applied.
type TailReport struct {
	raftlog.TailSummary
	MinCommitTS   mvcc.TS     `json:"min_commit_ts,omitempty"` // over all puts into the write column family; 0: none
	MinCommitTime string      `json:"min_commit_time,omitempty"`
	MaxCommitTS   mvcc.TS     `json:"max_commit_ts,omitempty"`
	MaxCommitTime string      `json:"max_commit_time,omitempty"`
	Ingests       int         `json:"ingests"`
	NoOps         []NoOpEntry `json:"no_ops"` // by region epoch
	// EpochAfter is the region epoch once the whole tail is applied.
	EpochAfter raftstate.Epoch `json:"region_epoch_after"`
}

// Entries is how many entries of the tail are there.
func (t *TailReport) Entries() int { return t.CommittedPart.Entries + t.UncommittedPart.Entries }

// RaftLogResult is what a walk over a region's log found beside the entries.
type RaftLogResult struct {
	RegionID uint64            `json:"region_id"`
	Known    bool              `json:"known_to_kv_db"` // the key-value database has the region's state
	State    string            `json:"state,omitempty"`
	Epoch    raftstate.Epoch   `json:"region_epoch"`
	Derived  raftstate.Derived `json:"derived"`
	First    uint64            `json:"first_stored_index"` // 0: no entry is stored
	Last     uint64            `json:"last_stored_index"`
	Shown    int               `json:"entries_shown"`
	Bad      int               `json:"entries_undecodable"`
	Missing  [][2]uint64       `json:"missing,omitempty"` // live indexes that are not stored, closed ranges, of those asked for
	Tail     TailReport        `json:"tail"`
	region   Region            // zero without a record
	raft     *raftstate.RaftLocalState
}

// RaftLogOf finds out what there is of a region's log, before entries are printed. The error has class base.ErrUsage when neither
// database knows the region.
func (s *Store) RaftLogOf(region uint64) (*RaftLogResult, error) {
	res := &RaftLogResult{RegionID: region}
	for _, r := range s.Regions {
		if r.ID == region {
			res.region, res.Known, res.State, res.Epoch = r, true, r.State.State.String(), r.State.Region.Epoch
		}
	}
	var err error
	if res.raft, err = s.RaftStateOf(region); err != nil {
		return nil, err
	}
	first, last, ok, err := s.Raft.Bounds(region)
	if err != nil {
		return nil, err
	}
	if !res.Known && res.raft == nil && !ok {
		return nil, &base.Error{Class: base.ErrUsage, Op: "raft-log", Path: s.Layout.Dir, Offset: -1, Region: region,
			Reason: "the store does not know this region", Next: "tikv-repair region " + s.Layout.Dir}
	}
	if ok {
		res.First, res.Last = first, last
	}
	res.Derived = raftstate.Derive(res.raft, res.region.Apply)
	if res.raft == nil && !ok {
		// Nothing was ever logged, or a tombstone's log is gone: the initial values that stand in for the records are no log.
		res.Derived.Last = res.Derived.Applied
	}
	return res, nil
}

// RaftLog walks the log of res.RegionID and calls fn for each entry that o chooses, in index order; the summary in res is about
// the whole tail, whatever was chosen. An error of fn ends the walk.
func (s *Store) RaftLog(ctx context.Context, res *RaftLogResult, o RaftLogOptions, fn func(*LogEntry) error) error {
	d := res.Derived
	tail, err := raftlog.SummarizeTail(s.Raft, res.RegionID, d.Applied, d.Committed, d.Last)
	if err != nil {
		return err
	}
	res.Tail = TailReport{TailSummary: tail, NoOps: []NoOpEntry{}}
	res.Tail.bounds()
	sim := newEpochSim(res.region.State)
	why := map[uint64]string{}
	if d.Applied < d.Last {
		if err := s.Raft.Entries(res.RegionID, d.Applied+1, next(d.Last), func(e raftstate.Entry) error {
			if reason := sim.apply(e); reason != "" {
				why[e.Index] = reason
				res.Tail.NoOps = append(res.Tail.NoOps, NoOpEntry{e.Index, reason})
			}
			return nil
		}); err != nil {
			return err
		}
	}
	res.Tail.EpochAfter = sim.epoch
	from, to := o.From, o.To
	if from == 0 {
		from = d.Truncated.Index + 1
	}
	if to == 0 {
		to = d.Last
	}
	if o.Tail {
		from, to = max(from, d.Applied+1), min(to, d.Last)
	}
	expected := max(from, d.Truncated.Index+1)
	if from > to {
		return nil
	}
	missing := func(up uint64) { // everything below up that should have come
		if up = min(up, d.Last+1); expected < up {
			res.Missing = append(res.Missing, [2]uint64{expected, up - 1})
		}
	}
	err = s.Raft.Entries(res.RegionID, from, next(to), func(e raftstate.Entry) error {
		if res.Shown%64 == 0 {
			if err := interrupted(ctx); err != nil {
				return err
			}
		}
		missing(e.Index)
		expected = max(expected, e.Index+1)
		l := viewEntry(e, o.Full)
		l.Status, l.NoOp = entryStatus(d, e.Index), why[e.Index]
		res.Shown++
		if l.Error != "" {
			res.Bad++
		}
		return fn(l)
	})
	if err == nil && to >= expected {
		missing(next(to))
	}
	return err
}

// next is the exclusive bound behind an index.
func next(index uint64) uint64 {
	if index == ^uint64(0) {
		return index
	}
	return index + 1
}

func (t *TailReport) bounds() {
	for _, p := range []raftlog.PartSummary{t.CommittedPart, t.UncommittedPart} {
		t.Ingests += p.Ingests
		if p.WriteCommits == 0 {
			continue
		}
		if lo := mvcc.TS(p.MinCommitTS); t.MinCommitTS == 0 || lo < t.MinCommitTS {
			t.MinCommitTS = lo
		}
		t.MaxCommitTS = max(t.MaxCommitTS, mvcc.TS(p.MaxCommitTS))
	}
	t.MinCommitTime, t.MaxCommitTime = Time(t.MinCommitTS), Time(t.MaxCommitTS)
}

func viewEntry(e raftstate.Entry, full bool) *LogEntry {
	l := &LogEntry{Index: e.Index, Term: e.Term, Type: e.Type, Bytes: len(e.Raw), Context: bytes.Clone(e.Context)}
	c, err := raftstate.Decode(e)
	if err != nil {
		l.Kind, l.Error = raftstate.CommandOther, err.Error()
		raw := e.Raw
		if !full && len(raw) > 4*shownValue {
			raw = raw[:4*shownValue]
		}
		l.Raw = upperHex(raw)
		return l
	}
	l.Kind, l.Admin, l.NodeChanges, l.Unknown = c.Kind, c.Admin, c.NodeChanges, c.Unknown
	if c.HasHeader {
		h := c.Header
		l.Header = &h
	}
	for i := range c.Requests {
		l.Requests = append(l.Requests, viewRequest(&c.Requests[i], full))
	}
	return l
}

// viewRequest decodes a request. Its key lacks the 'z' that it will have in the database.
func viewRequest(q *raftstate.Request, full bool) LogRequest {
	r := LogRequest{Op: q.Op, CF: q.CF, NotifyOnly: q.NotifyOnly, SST: q.SST, Name: q.Name}
	if q.Op == raftstate.OpOther || q.Op == raftstate.OpIngest {
		return r
	}
	key := append([]byte{mvcc.DataPrefix}, q.Key...)
	r.DBKey = upperHex(key)
	if q.Op == raftstate.OpDeleteRange {
		r.EndKey = upperHex(append([]byte{mvcc.DataPrefix}, q.EndKey...))
		return r
	}
	prefix, ts, txn := key, mvcc.TS(0), true
	if q.CF != CFLock {
		prefix, ts, txn = mvcc.SplitKey(key)
	}
	var user []byte
	var err error
	if txn {
		user, err = mvcc.UserKey(prefix)
	}
	switch {
	case err != nil || !txn && q.CF != CFDefault:
		r.Error = "the key is not that of a transactional record"
	case !txn:
		user = key[1:] // raw data of API V1
		fallthrough
	default:
		info := mvcc.DescribeUserKey(user)
		r.Key, r.KeyDecoded = upperHex(user), &info
	}
	switch q.CF {
	case CFWrite:
		r.CommitTS, r.CommitTime = ts, Time(ts)
	case CFDefault:
		r.StartTS, r.StartTime = ts, Time(ts)
	}
	if q.Op != raftstate.OpPut {
		return r
	}
	r.ValueBytes = len(q.Value)
	switch q.CF {
	case CFWrite:
		w := viewWrite(ts, q.Value)
		r.Write = &w
		if w.Error != "" {
			r.Error = w.Error
		}
	case CFLock:
		r.Locks = viewLocks(user, q.Value)
		if len(r.Locks) == 1 && r.Locks[0].Error != "" {
			r.Error = r.Locks[0].Error
		}
	default:
		v := upperHex(q.Value)
		r.Value = &v
	}
	if !full {
		r.shorten()
	}
	return r
}

func (r *LogRequest) shorten() {
	cut := func(hex **string) {
		if *hex != nil && len(**hex) > 2*shownValue {
			short := (**hex)[:2*shownValue]
			*hex, r.Truncated = &short, true
		}
	}
	cut(&r.Value)
	if r.Write != nil {
		cut(&r.Write.ShortValue)
	}
	for i := range r.Locks {
		cut(&r.Locks[i].ShortValue)
	}
}
