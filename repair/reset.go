package repair

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// ResetOptions of Reset.
type ResetOptions struct {
	RewindOptions
	// Force names the problems that the operator accepts.
	Force map[string]bool
	// Tail is the wish for log entries that are not applied; empty is TailAuto.
	Tail TailStrategy
	// DryRun runs the same code into a sink that only counts.
	DryRun bool
	// Preview is shown what would be done, as soon as it is known and before anything is written; nil is fine.
	Preview func(*Preview)
	// Confirm is asked after that; false declines. Nil accepts.
	Confirm func(*Preview) (bool, error)
	// Say tells the operator which step begins; nil is silence.
	Say func(format string, args ...any)
	// Version of the tool, for the plan.
	Version string
	// PD is what PD knew; nil without its directory. SafePointSource says where SafePoint comes from. UsePD sets both.
	PD              *scan.PDEvidence
	SafePointSource string
}

// ResetPlan is what plan.json in the backup records of a rewind.
type ResetPlan struct {
	Format      int          `json:"format"`
	Verb        string       `json:"verb"`
	Tool        string       `json:"tool_version"`
	PlanID      string       `json:"plan_id"`
	ClusterID   uint64       `json:"cluster_id"`
	StoreID     uint64       `json:"store_id"`
	T           mvcc.TS      `json:"to_ts"`
	ToTime      string       `json:"to_time"`
	SafePoint   *mvcc.TS     `json:"safe_point,omitempty"`
	Force       []string     `json:"force,omitempty"`
	Tail        TailStrategy `json:"tail,omitempty"`
	Fingerprint string       `json:"fingerprint"`
	// Broken are regions that TiKV would not have started before, which the operator accepted: they do not keep the fence up.
	Broken  []uint64  `json:"broken_before,omitempty"`
	Preview *Preview  `json:"preview"`
	Written time.Time `json:"written"`
}

// Result is the last word of a reset, and what `reset --json` prints.
type Result struct {
	PlanID             string  `json:"plan_id"`
	State              string  `json:"state"` // done, unchanged, dry-run, refused
	ToTS               mvcc.TS `json:"to_ts"`
	ToTime             string  `json:"to_time"`
	NewestCommitTS     mvcc.TS `json:"newest_commit_ts"`
	NewestCommitTime   string  `json:"newest_commit_time"`
	VersionsRemoved    int64   `json:"versions_removed"`
	RowsChanged        int64   `json:"rows_changed"`
	DefaultRows        int64   `json:"default_rows_removed"`
	RawRemoved         int64   `json:"raw_entries_removed"`
	LocksRemoved       int64   `json:"locks_removed"`
	LocksCommitted     int64   `json:"locks_committed"`
	FencesCleared      int64   `json:"gc_fences_cleared"`
	RegionsNeutralised int64   `json:"regions_neutralised"`
	// Tails are the regions with log entries that are not applied.
	Tails            []RegionLine     `json:"tails"`
	FilesRewritten   int              `json:"files_rewritten"`
	FilesDropped     int              `json:"files_dropped"`
	FilesKept        int              `json:"files_kept"`
	BytesRead        int64            `json:"bytes_read"`
	BytesWritten     int64            `json:"bytes_written"`
	Seconds          float64          `json:"seconds"`
	SecondsVerifying float64          `json:"seconds_verifying"` // of Seconds: reading back, and proving the published version
	Problems         []plan.Described `json:"problems"`
	Limits           *plan.Limits     `json:"limits,omitempty"`
	Backup           string           `json:"backup"`
}

// The states of a Result.
const (
	StateDone      = "done"
	StateUnchanged = "unchanged"
	StateDryRun    = "dry-run"
	StateRefused   = "refused"
)

// Reset rewinds one stopped store to o.T: it plans, shows the preview, writes, publishes and verifies. After a crash the same call goes
// on where the last one stopped. The error classes are those of package base; ErrPartial means that the fence is up and a rerun or an
// undo is due.
func Reset(ctx context.Context, fs base.FS, dir string, so scan.Options, o ResetOptions) (*Result, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	so.Mode, so.Memory = base.LockExclusive, o.Memory
	so.Stop = func() error { return context.Cause(ctx) }
	s, err := scan.Open(fs, dir, so)
	if err != nil {
		return nil, stopped(fs, dir, "reset", false, err)
	}
	defer s.Close()
	for _, w := range s.Layout.Warnings {
		o.Say("warning: %s", w)
	}
	for _, n := range append(tableNotes(s.Layout, s.DB.Names()), droppedTails(s)...) {
		o.Say("note: %s", n)
	}
	if o.Tail == "" {
		o.Tail = TailAuto
	}
	r := &reset{s: s, o: o, start: time.Now()}
	res, err := r.run(ctx)
	note(r.tx, err)
	if res != nil {
		res.Seconds, res.SecondsVerifying = time.Since(r.start).Seconds(), r.verifying.Seconds()
	}
	return res, stopped(fs, dir, "reset", r.tx != nil, err)
}

type reset struct {
	s       *scan.Store
	o       ResetOptions
	start   time.Time
	tx      *edit.Tx
	w       *Rewinder
	effect  *Effect
	regions []regionPlan
	lines   []RegionLine
	batch   raftlog.Batch
	raft    raftlog.Edit // of the raft store; nil in a run that found everything staged
	preview *Preview
	waiting []string // files of snap/ and import/ that are set aside
	broken  []uint64 // regions that TiKV would not start before the rewind either

	verifying time.Duration // so far
}

func (r *reset) run(ctx context.Context) (*Result, error) {
	done, err := r.resume(ctx)
	if done != nil || err != nil {
		return done, err
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	if r.o.Preview != nil {
		r.o.Preview(r.preview)
	}
	if fatal(r.preview.Problems) {
		return r.result(StateRefused, &Draft{}), r.blocked()
	}
	if r.preview.Unchanged && r.tx == nil {
		res := r.result(StateUnchanged, &Draft{Kept: r.preview.FilesLive})
		return res, r.blocked()
	}
	if r.o.DryRun {
		d, err := r.write(ctx, countingSink{})
		if err != nil {
			return nil, err
		}
		return r.result(StateDryRun, d), r.blocked()
	}
	if err := r.blocked(); err != nil {
		return r.result(StateRefused, &Draft{Kept: r.preview.FilesLive}), err
	}
	if r.tx == nil && r.o.Confirm != nil {
		ok, err := r.o.Confirm(r.preview)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &base.Error{Class: base.ErrDeclined, Op: "reset", Path: r.s.Layout.Dir, Offset: -1, Reason: "nothing was written"}
		}
	}
	return r.apply(ctx)
}

// resume looks for an interrupted run of ours. It returns a result when that run only had to be finished.
func (r *reset) resume(ctx context.Context) (*Result, error) {
	f, err := engine.ReadFence(r.s.FS, r.s.Layout.Dir)
	if err != nil || f == nil || !f.Ours {
		return nil, err
	}
	tx, err := edit.Open(r.s.FS, r.s.Layout.Dir, f.PlanID)
	if err != nil {
		return nil, err
	}
	var p ResetPlan
	if err := tx.Plan(&p); err != nil {
		return nil, err
	}
	refuse := func(reason, next string) error {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "continue plan " + f.PlanID, Path: r.s.Layout.Dir, Offset: -1, Reason: reason, Next: next}
	}
	dir := r.s.Layout.Dir
	switch {
	case tx.J.State == edit.Undoing || tx.J.State == edit.Undone:
		return nil, refuse("an undo of this plan was interrupted", "tikv-repair undo "+dir)
	case p.Verb != "reset":
		return nil, refuse(fmt.Sprintf("the store is fenced by an unfinished %s, plan %s", p.Verb, f.PlanID), "tikv-repair status "+dir)
	case p.T != r.o.T:
		return nil, refuse(fmt.Sprintf("the store is fenced by an unfinished %s to %s (%s)", p.Verb, p.T, p.T.Time().Format(time.RFC3339)),
			fmt.Sprintf("tikv-repair reset --to-ts %s %s   (finish it), or: tikv-repair undo %s", p.T, dir, dir))
	case r.o.DryRun:
		return nil, refuse("this plan is half done; a preview of what is left makes no sense",
			fmt.Sprintf("tikv-repair reset --to-ts %s %s   (finish it), or: tikv-repair undo %s", p.T, dir, dir))
	}
	r.tx = tx
	for _, n := range p.Force {
		r.force(n)
	}
	// A rerun must give the same files, and must not ask again for what was stated.
	r.o.SafePoint, r.o.Now, r.preview, r.broken, r.o.Tail = p.SafePoint, p.Written, p.Preview, p.Broken, p.Tail
	r.o.Say("continuing plan %s, interrupted in state %s", f.PlanID, tx.J.State)
	switch tx.J.State {
	case edit.Begun:
		if now, err := fingerprint(r.s); err != nil {
			return nil, err
		} else if now != p.Fingerprint {
			return nil, refuse("the store has changed since the plan was made", "tikv-repair undo "+dir)
		}
		return nil, tx.Restart()
	case edit.Staged:
		if err := tx.Publish(); err != nil {
			return nil, err
		}
		return r.finish(ctx, nil)
	case edit.Published:
		return r.finish(ctx, nil)
	}
	var res Result
	if err := tx.Result(&res); err != nil {
		return nil, err
	}
	if err := tx.RemoveFence(); err != nil {
		return nil, err
	}
	return &res, nil
}

func (r *reset) force(name string) {
	if r.o.Force == nil {
		r.o.Force = map[string]bool{}
	}
	r.o.Force[name] = true
}

// plan finds out everything that the edit will do.
func (r *reset) plan(ctx context.Context) error {
	ps, err := storeProblems(r.s, r.o.RewindOptions)
	if err != nil {
		return err
	}
	known, err := pdProblems(r.s, r.o)
	if err != nil {
		return err
	}
	ps = append(ps, known...)
	if fatal(ps) {
		// What follows would decode data that cannot be rewound.
		r.preview = &Preview{ToTS: r.o.T, ToTime: timeOf(r.o.T), Problems: ps}
		r.previewSafePoint(r.preview)
		plan.Sort(r.preview.Problems)
		r.w, r.effect = &Rewinder{store: r.s, o: r.o.RewindOptions}, newEffect()
		return nil
	}
	var regionProblems []plan.Problem
	if r.regions, regionProblems, err = planRegions(r.s, r.o.T, r.o.Tail); err != nil {
		return err
	}
	r.broken = brokenRegions(regionProblems)
	for i := range r.regions {
		r.lines = append(r.lines, r.regions[i].line())
	}
	// Before anything is read: what the tails hold counts like what the logs hold.
	if err := applyTails(r.s, r.regions); err != nil {
		return err
	}
	if err := dropTails(r.s, &r.batch, r.regions); err != nil {
		return err
	}
	if r.raft, err = raftlog.PlanEdit(r.s.Raft, &r.batch, r.o.Now); err != nil {
		return err
	}
	if r.w, err = NewRewinder(ctx, r.s, r.o.RewindOptions); err != nil {
		return err
	}
	began := time.Now()
	r.o.Say("reading what is above %s", r.o.T)
	end := r.w.phase("reading what is above T")
	defer func() { end() }()
	// Both only read, and each waits for the memory rather than for the other.
	var limits *plan.Limits
	var limitsErr error
	var beside sync.WaitGroup
	beside.Go(func() { limits, limitsErr = r.limits(ctx) })
	r.effect, err = r.w.logicalPass(ctx)
	if err == nil {
		err = r.w.rawPass(ctx, r.effect)
	}
	beside.Wait()
	if err = cmp.Or(err, limitsErr); err != nil { // what the pass says comes first
		return err
	}
	end()
	end = r.w.phase("planning the new version")
	if r.effect.RawRemoved > 0 {
		ps = append(ps, &plan.RawData{Store: r.s.Ident.StoreID, APIVersion: r.s.Ident.APIVersion.String(), Keys: uint64(r.effect.RawRemoved)})
	}
	r.effect.locks = newLockEdit(r.s)
	lockProblems, err := r.s.DecideLocks(r.o.T, r.effect.locks.add)
	if err != nil {
		return err
	}
	var waitingProblems []plan.Problem
	if r.waiting, waitingProblems, err = waitingFiles(r.s, r.o.T); err != nil {
		return err
	}
	ps = append(append(append(ps, lockProblems...), regionProblems...), waitingProblems...)
	plan.Sort(ps)
	if r.preview, err = r.makePreview(ctx, ps, time.Since(began)); err != nil {
		return err
	}
	r.preview.Limits = limits
	return nil
}

func fatal(ps []plan.Problem) bool {
	for _, p := range ps {
		if p.Severity() == plan.Fatal {
			return true
		}
	}
	return false
}

// blocked refuses when a problem is there that the operator has not accepted.
func (r *reset) blocked() error {
	for _, p := range r.preview.Problems {
		if plan.Blocks(p, r.o.Force) {
			return &base.Error{Class: base.ErrProblems, Op: "reset", Path: r.s.Layout.Dir, Offset: -1,
				Reason: p.Name() + ": " + p.What() + "; nothing was written", Next: p.Next()}
		}
	}
	return nil
}

// extra are the new records of the lock and raft column families, and those that the lock decisions add to the others.
func (r *reset) extra() (map[string]*rocks.Run, error) {
	x := r.effect.locks.runs()
	var err error
	x[scan.CFRaft], err = raftRecords(r.s, r.regions)
	return x, err
}

// write runs the physical pass.
func (r *reset) write(ctx context.Context, sink Sink) (*Draft, error) {
	x, err := r.extra()
	if err != nil {
		return nil, err
	}
	defer r.w.phase("writing new tables")()
	r.w.expect(r.w.setBytes())
	d, err := r.w.physicalPass(ctx, sink, r.effect, x)
	if err == nil {
		d.BytesWritten += r.raft.Bytes()
	}
	return d, err
}

func (r *reset) apply(ctx context.Context) (*Result, error) {
	s := r.s
	if err := r.checkSpace(); err != nil {
		return nil, err
	}
	if r.tx == nil {
		print, err := fingerprint(s)
		if err != nil {
			return nil, err
		}
		id := planID("reset", print, r.o.T.String(), r.o.Now)
		p := &ResetPlan{Format: planFormat, Verb: "reset", Tool: r.o.Version, PlanID: id, ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID,
			T: r.o.T, ToTime: timeOf(r.o.T), SafePoint: r.o.SafePoint, Fingerprint: print, Tail: r.o.Tail, Broken: r.broken, Preview: r.preview, Written: r.o.Now}
		for n := range r.o.Force {
			p.Force = append(p.Force, n)
		}
		r.o.Say("fence up, backup in %s", edit.BackupDir(s.FS, s.Layout.Dir, id))
		if r.tx, err = edit.Begin(s.FS, s.Layout.Dir, id, "reset", p, append([]string{s.Layout.KVDir}, r.raft.Dirs()...), r.o.Now); err != nil {
			return nil, err
		}
	}
	d, err := r.stage(ctx)
	if err != nil {
		return nil, err
	}
	r.o.Say("publishing")
	if err := r.tx.Publish(); err != nil {
		return nil, err
	}
	return r.finish(ctx, d)
}

// stage writes the new version under names that no engine reads, reads it back, and saves what it replaces.
func (r *reset) stage(ctx context.Context) (*Draft, error) {
	r.o.Say("writing new tables")
	// The raft store comes first: see hand.apply.
	if err := r.raft.Stage(r.tx); err != nil {
		return nil, err
	}
	d, err := r.write(ctx, r.tx)
	if err != nil {
		return nil, err
	}
	r.o.Say("reading them back")
	if r.tx.J.Proof, err = stagedDigest(r.s, r.raft); err != nil {
		return nil, err
	}
	if err := stageVersion(ctx, r.w, r.tx, d); err != nil {
		return nil, err
	}
	r.verifying += d.Verifying
	ph := base.Begin(r.s.FS, "saving what is moved away").Items(len(r.waiting), "files")
	defer ph.End()
	for _, p := range r.waiting {
		if err := ph.Did(1); err != nil {
			return nil, err
		}
		if err := r.tx.MoveAway(p); err != nil {
			return nil, err
		}
	}
	if err := r.tx.Stage(); err != nil {
		return nil, err
	}
	return d, nil
}

// finish proves the published version and takes the fence away. d is nil after a resume: the numbers are then those of the preview.
func (r *reset) finish(ctx context.Context, d *Draft) (*Result, error) {
	r.o.Say("verifying")
	defer base.Begin(r.s.FS, "verifying").End()
	began := time.Now()
	if err := provePublished(r.s, r.tx, r.raft); err != nil {
		return nil, err
	}
	findings, err := Verify(ctx, r.s, VerifyOptions{T: r.o.T, Threads: r.o.Threads, Quick: true})
	if err != nil {
		return nil, err
	}
	r.verifying += time.Since(began)
	findings = slices.DeleteFunc(findings, func(f Finding) bool {
		return (f.Truth == truthStarts || f.Truth == truthTails) && slices.Contains(r.broken, f.Region)
	})
	if len(findings) > 0 {
		return nil, &base.Error{Class: base.ErrPartial, Op: "verify", Path: r.s.Layout.Dir, Offset: -1,
			Reason: fmt.Sprintf("%s (%d findings); the fence stays", findings[0], len(findings)), Next: "tikv-repair undo " + r.s.Layout.Dir}
	}
	if d == nil {
		d = &Draft{Rewritten: r.preview.FilesToRewrite, Kept: r.preview.FilesLive - r.preview.FilesToRewrite}
	}
	res := r.result(StateDone, d)
	res.Seconds, res.SecondsVerifying = time.Since(r.start).Seconds(), r.verifying.Seconds()
	record := *res
	record.Limits = nil // evidence for the one who chose T; as long as the store has regions
	if err := r.tx.Finish(&record); err != nil {
		return nil, err
	}
	return res, nil
}
