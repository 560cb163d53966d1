package repair

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// Preview is what a rewind would do, before anything is written.
type Preview struct {
	ToTS             mvcc.TS `json:"to_ts"`
	ToTime           string  `json:"to_time"`
	NewestCommitTS   mvcc.TS `json:"newest_commit_ts"`
	NewestCommitTime string  `json:"newest_commit_time"`
	// SafePoint is the GC safe point that was gone by; nil: unknown.
	SafePoint       *mvcc.TS `json:"safe_point,omitempty"`
	SafePointTime   string   `json:"safe_point_time,omitempty"`
	SafePointSource string   `json:"safe_point_source,omitempty"`
	// Unchanged: the store already is at T; nothing would be written.
	Unchanged bool `json:"unchanged"`

	VersionsRemoved int64        `json:"versions_removed"`
	RowsChanged     int64        `json:"rows_changed"`
	BytesRemoved    int64        `json:"bytes_removed"`
	DefaultRows     int64        `json:"default_rows_removed"`
	RawRemoved      int64        `json:"raw_entries_removed"`
	FencesCleared   int64        `json:"gc_fences_cleared"`
	OldestLostTS    mvcc.TS      `json:"oldest_lost_ts,omitempty"`
	OldestLostTime  string       `json:"oldest_lost_time,omitempty"`
	NewestLostTS    mvcc.TS      `json:"newest_lost_ts,omitempty"`
	NewestLostTime  string       `json:"newest_lost_time,omitempty"`
	Tables          []*TableLoss `json:"tables"`
	Histogram       []Bucket     `json:"histogram"`

	Locks          []LockLine `json:"locks"`
	LocksRemoved   int64      `json:"locks_removed"`
	LocksCommitted int64      `json:"locks_committed"`

	Regions       []RegionLine `json:"regions"`
	RegionsShared int64        `json:"regions_shared"` // with replicas on other stores; their records are left alone
	// RegionsNeutralised get a raised epoch.
	RegionsNeutralised int64 `json:"regions_neutralised"`

	FilesLive      int     `json:"files_live"`
	FilesToRewrite int     `json:"files_to_rewrite"`
	LogBytes       int64   `json:"log_bytes_to_fold"`
	SpaceNeeded    int64   `json:"space_needed"`
	SpaceFree      int64   `json:"space_free"` // -1: unknown
	SecondsNeeded  float64 `json:"seconds_expected"`

	// Limits is what limits T on this store as it will be before the rewind, log entries that are applied first included. Nil after a resume.
	Limits *plan.Limits `json:"-"`

	Problems []plan.Problem `json:"-"`
	// Listed are the problems in their JSON form.
	Listed []plan.Described `json:"problems"`
}

// LockLine sums up the locks that share one decision.
type LockLine struct {
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
	Locks    int64  `json:"locks"`
}

// RegionLine is what happens to one region's log tail. What is lost are versions at or below T in entries that are not applied.
type RegionLine struct {
	Region   uint64       `json:"region_id"`
	Applied  uint64       `json:"applied_index"`
	Last     uint64       `json:"last_index"`
	Strategy TailStrategy `json:"strategy"`
	Reason   string       `json:"reason"`
	// TailEntries wait; those up to AppliedFirst are applied before the rest is dealt with, which writes TailApplied records.
	TailEntries  uint64   `json:"tail_entries"`
	AppliedFirst uint64   `json:"applied_first,omitempty"`
	TailApplied  int64    `json:"tail_records_applied"`
	Lost         int64    `json:"versions_lost,omitempty"`
	Opaque       int64    `json:"opaque_entries,omitempty"`
	NewestLost   mvcc.TS  `json:"newest_lost_ts,omitempty"`
	NewestTime   string   `json:"newest_lost_time,omitempty"`
	LostKeys     []string `json:"lost_keys,omitempty"`
	OldEpoch     string   `json:"old_epoch"`
	NewEpoch     string   `json:"new_epoch"`
}

// line describes a region before anything of it has been applied.
func (rp *regionPlan) line() RegionLine {
	old, d := rp.region.State.Region.Epoch, rp.derived
	l := RegionLine{Region: rp.region.ID, Applied: d.Applied, Last: d.Last, Strategy: rp.strategy, Reason: rp.reason, TailEntries: d.Last - min(d.Applied, d.Last),
		AppliedFirst: rp.first, OldEpoch: epochText(old.ConfVer, old.Version), NewEpoch: epochText(rp.epoch.ConfVer, rp.epoch.Version)}
	switch rp.strategy {
	case TailApply:
		l.AppliedFirst, l.TailApplied = d.Last, rp.dry.Records+rp.dry.Ranges
		return l
	case TailKeep:
		return l
	}
	if rp.first > 0 {
		l.TailApplied = rp.dry.Records + rp.dry.Ranges
	}
	l.Lost, l.Opaque, l.NewestLost, l.LostKeys = rp.rest.Lost, rp.rest.Opaque, rp.rest.MaxCommitTS, rp.rest.Keys
	if l.NewestLost != 0 {
		l.NewestTime = timeOf(l.NewestLost)
	}
	return l
}

const histogramBars = 12

func (r *reset) makePreview(ctx context.Context, ps []plan.Problem, took time.Duration) (*Preview, error) {
	e, s := r.effect, r.s
	p := &Preview{
		ToTS: r.o.T, ToTime: timeOf(r.o.T), VersionsRemoved: e.VersionsRemoved, RowsChanged: e.RowsChanged, BytesRemoved: e.BytesRemoved,
		DefaultRows: e.DefaultRows + e.locks.rows, RawRemoved: e.RawRemoved, FencesCleared: e.FencesCleared, Tables: e.TableLosses(),
		Histogram: e.Histogram.buckets(histogramBars), LocksRemoved: e.locks.removed, LocksCommitted: e.locks.committed, Locks: e.locks.lines,
		Problems: ps, Listed: plan.Describe(ps), SpaceFree: -1,
	}
	r.previewSafePoint(p)
	if e.Newest != 0 {
		p.OldestLostTS, p.OldestLostTime = e.Oldest, timeOf(e.Oldest)
		p.NewestLostTS, p.NewestLostTime = e.Newest, timeOf(e.Newest)
	}
	newest, err := s.NewestCommit()
	if err != nil {
		return nil, err
	}
	p.NewestCommitTS = max(newest, e.Newest)
	p.NewestCommitTime = timeOf(p.NewestCommitTS)
	pendingTail := false
	for _, rp := range r.regions {
		pendingTail = pendingTail || !rp.shared && rp.strategy != TailKeep
		switch rp.strategy {
		case TailLeft:
			p.RegionsShared++
		case TailNeutralise:
			p.RegionsNeutralised++
		}
	}
	p.Regions = r.lines
	touched, err := r.touchedFiles(ctx, p)
	if err != nil {
		return nil, err
	}
	logs, err := r.logsTouched()
	if err != nil {
		return nil, err
	}
	p.Unchanged = !touched && !logs && !pendingTail && len(e.locks.lines) == 0 && e.FencesCleared == 0 && e.RawRemoved == 0 && e.VersionsRemoved == 0 && len(r.waiting) == 0
	// What has been read once is read again and written; verification reads what was written.
	p.SecondsNeeded = 0.1 + 3*took.Seconds()
	if free, err := engine.FreeSpace(s.FS, s.Layout.KVDir); err == nil {
		p.SpaceFree = int64(free)
	}
	return p, nil
}

func epochText(confVer, version uint64) string {
	return fmt.Sprintf("conf_ver %d version %d", confVer, version)
}

// touchedFiles adds up what has to be rewritten and tells whether any table of the set really changes.
func (r *reset) touchedFiles(ctx context.Context, p *Preview) (bool, error) {
	touched := false
	var set int64
	ph := &physical{w: r.w}
	for _, name := range r.s.DB.Names() {
		cf := r.s.DB.CF(name)
		p.LogBytes += cf.Log().Bytes()
		rule := r.w.rule(name)
		for _, f := range cf.Files() {
			p.FilesLive++
			if rule == nil || !(name == scan.CFWrite && r.w.set[f.Number] || name == scan.CFDefault && r.w.rawSet[f.Number]) {
				continue
			}
			t, done, err := cf.Table(f.FileMeta)
			if err != nil {
				return false, err
			}
			changes, err := ph.mustChange(ctx, cf, f, t, rule)
			if err = errors.Join(err, done()); err != nil {
				return false, err
			}
			if changes {
				p.FilesToRewrite++
				set += int64(f.Size)
				touched = true
			}
		}
	}
	// New tables, the folded logs with their index and filter, and a MANIFEST like the old one. The backup is hard links.
	p.SpaceNeeded = set + p.LogBytes + p.LogBytes/8 + spoolBytes(r.effect.write) + spoolBytes(r.effect.deflt) + r.effect.locks.bytes() + 1<<20
	if r.raft != nil { // apply has an edit of its own, of which the rewind is a part
		p.SpaceNeeded += r.raft.Bytes()
	}
	return touched, nil
}

// spoolBytes is about what the new records take on disk, in the spill directory and as tables.
func spoolBytes(s *rocks.Spool) int64 {
	n := s.Bytes()
	for _, f := range s.Files {
		n += 2 * 64 * int64(f.Records)
	}
	return n
}

// logsTouched tells whether the rule changes anything in the logs.
func (r *reset) logsTouched() (bool, error) {
	for _, name := range r.s.DB.Names() {
		if name == scan.CFWrite {
			if r.effect.logChanged { // the logical pass has seen every record
				return true, nil
			}
			continue
		}
		rule := r.w.rule(name)
		if rule == nil {
			continue
		}
		it := r.s.DB.CF(name).Log().Iter()
		for ok := it.First(); ok; ok = it.Next() {
			f, _, err := rule(it.Key(), it.Value())
			if err != nil {
				return false, err
			}
			if f != keep {
				return true, nil
			}
		}
	}
	return false, nil
}

// checkSpace refuses before anything is staged.
func (r *reset) checkSpace() error {
	free, err := engine.FreeSpace(r.s.FS, r.s.Layout.KVDir)
	if err != nil {
		return nil // not every file system tells; a full one shows up as an I/O error that a rerun survives
	}
	if need := uint64(r.preview.SpaceNeeded); free < need {
		return &base.Error{Class: base.ErrIO, Op: "reserve space", Path: r.s.Layout.KVDir, Offset: -1,
			Reason: fmt.Sprintf("needed are %d bytes, free are %d; nothing was written", need, free),
			Next:   "free some space; " + r.s.Layout.Dir + "/space_placeholder_file is TiKV's own reserve for this"}
	}
	return nil
}

func (r *reset) result(state string, d *Draft) *Result {
	p := r.preview
	res := &Result{
		State: state, ToTS: r.o.T, ToTime: timeOf(r.o.T), NewestCommitTS: p.NewestCommitTS, NewestCommitTime: p.NewestCommitTime,
		VersionsRemoved: p.VersionsRemoved, RowsChanged: p.RowsChanged, DefaultRows: p.DefaultRows, RawRemoved: p.RawRemoved,
		LocksRemoved: p.LocksRemoved, LocksCommitted: p.LocksCommitted, FencesCleared: p.FencesCleared,
		FilesRewritten: d.Rewritten, FilesDropped: d.Dropped, FilesKept: d.Kept, BytesRead: d.BytesRead, BytesWritten: d.BytesWritten,
		Tails: []RegionLine{}, Problems: plan.Describe(p.Problems), Limits: p.Limits,
	}
	if len(p.Problems) == 0 && len(p.Listed) > 0 {
		res.Problems = p.Listed // after a resume
	}
	if state == StateDone || state == StateDryRun {
		res.RegionsNeutralised = p.RegionsNeutralised
	}
	for _, l := range p.Regions {
		if l.TailEntries > 0 {
			res.Tails = append(res.Tails, l)
		}
	}
	if r.tx != nil {
		res.PlanID, res.Backup = r.tx.J.PlanID, r.tx.Backup()
	}
	return res
}

// rawPass counts the API V2 raw entries above T.
func (w *Rewinder) rawPass(ctx context.Context, e *Effect) error {
	if !w.rawV2 {
		return nil
	}
	v, err := w.store.DB.CF(scan.CFDefault).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	n := 0
	for ok := v.First(); ok; ok = v.Next() {
		if n++; n&4095 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		ts, raw := rawTS(v.User())
		if !raw || ts <= w.o.T {
			continue
		}
		e.RawRemoved++
		size := int64(len(v.User()))
		if v.Kind() == ikey.KindPut {
			size += int64(len(v.Value()))
		}
		e.lose(ts, size, e.table("raw entries"))
		e.VersionsRemoved-- // they are counted apart
	}
	return v.Err()
}
