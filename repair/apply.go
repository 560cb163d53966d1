package repair

import (
	"context"
	"fmt"
	"slices"
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

// VerbApply is the name of Apply in journals.
const VerbApply = "apply"

// applier is one store's part of a plan on its way.
type applier struct {
	s     *scan.Store
	o     ApplyOptions
	p     *plan.Plan
	part  *plan.StorePlan
	start time.Time
	clock time.Time // at the start of this run; o.Now is that of the first one
	tx    *edit.Tx

	rw       *reset // the rewind, or a stand-in that rewinds nothing
	raftRun  *rocks.Run
	batch    raftlog.Batch
	raftEdit raftlog.Edit
	save     []string // tables that a start would purge
	broken   []uint64 // regions that TiKV would not start anyway, and that the plan leaves alone
	problems []plan.Problem
	res      *ApplyResult
}

// Apply does one store's part of a plan: log entries are applied, regions rewritten, tombstoned and created, and the data rewound, in one edit
// with preview, backup and undo. The raft store is published before the key-value database (see Hand). A plan of several stores leaves the
// store fenced: Release takes the fence away when all stores are done. After a crash the same call goes on where the last one stopped.
func Apply(ctx context.Context, fs base.FS, dir string, so scan.Options, o ApplyOptions) (*ApplyResult, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	so.Mode, so.Memory = base.LockExclusive, o.Memory
	s, err := scan.Open(fs, dir, so)
	if err != nil {
		return nil, stopped(fs, dir, VerbApply, false, err)
	}
	defer s.Close()
	a := &applier{s: s, o: o, p: o.Plan, start: time.Now(), clock: o.Now, raftRun: &rocks.Run{}}
	res, err := a.run(ctx)
	note(a.tx, err)
	if res != nil && res.Seconds == 0 {
		res.Seconds = time.Since(a.start).Seconds()
	}
	return res, stopped(fs, dir, VerbApply, a.tx != nil && a.tx.J.State != edit.Done, err)
}

func (a *applier) run(ctx context.Context) (*ApplyResult, error) {
	if err := a.fits(); err != nil {
		return nil, err
	}
	if done, err := a.resume(ctx); done != nil || err != nil {
		return done, err
	}
	if err := a.unchanged(); err != nil {
		return nil, err
	}
	if a.part.Idle() {
		// All its regions keep their quorum, and no other store changes them: it needs neither a fence nor a result.
		return &ApplyResult{PlanID: a.p.PlanID, PlanHash: a.p.Hash, ClusterID: a.p.ClusterID, StoreID: a.part.StoreID, State: StateUnchanged,
			Before: a.part.Fingerprint, After: a.part.Fingerprint, Lines: []ApplyLine{}, Problems: []plan.Described{}}, nil
	}
	if err := a.prepare(ctx); err != nil {
		return nil, err
	}
	if a.o.Preview != nil {
		a.o.Preview(a.res)
	}
	for _, p := range a.problems {
		if plan.Blocks(p, a.forced()) {
			a.res.State = StateRefused
			return a.res, &base.Error{Class: base.ErrProblems, Op: VerbApply, Path: a.s.Layout.Dir, Offset: -1,
				Reason: p.Name() + ": " + p.What() + "; nothing was written", Next: p.Next()}
		}
	}
	if a.o.DryRun {
		a.res.State = StateDryRun
		d, err := a.write(ctx, countingSink{})
		if err == nil {
			a.count(d)
		}
		return a.res, err
	}
	if a.tx == nil && a.o.Confirm != nil {
		ok, err := a.o.Confirm()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &base.Error{Class: base.ErrDeclined, Op: VerbApply, Path: a.s.Layout.Dir, Offset: -1, Reason: "nothing was written"}
		}
	}
	return a.apply(ctx)
}

func (a *applier) mismatch(reason, next string) error {
	return &base.Error{Class: base.ErrPlanMismatch, Op: "apply plan " + a.p.PlanID, Path: a.s.Layout.Dir, Offset: -1, Reason: reason, Next: next}
}

// fits refuses a plan that is not for this store.
func (a *applier) fits() error {
	id := a.s.Ident
	again := "tikv-repair collect " + a.s.Layout.Dir + " -o FILE, then plan again with all reports"
	switch {
	case !a.p.Final:
		return a.mismatch(fmt.Sprintf("it has %d open questions", len(a.p.Questions)), "tikv-repair collect --answer PLAN "+a.s.Layout.Dir+" -o FILE, on each store that it asks; then plan again")
	case a.p.ClusterID != id.ClusterID:
		return a.mismatch(fmt.Sprintf("it is for cluster %d, this store belongs to cluster %d", a.p.ClusterID, id.ClusterID), "give the plan of this cluster")
	case slices.Contains(a.p.FailedStores, id.StoreID):
		return a.mismatch(fmt.Sprintf("it counts store %d as failed for good: the others go on without it, and its data must never come back", id.StoreID),
			"if the store is to live, plan again with its report and without it in --failed-stores, before the other stores are started")
	}
	if bad := a.p.Blocking(); len(bad) > 0 {
		return a.mismatch(bad[0].Name+" refuses it: "+bad[0].What, bad[0].Next)
	}
	if a.part = a.p.Store(id.StoreID); a.part == nil {
		return a.mismatch(fmt.Sprintf("it does not know store %d", id.StoreID), again)
	}
	return nil
}

// forced are the problems that the operator accepted, when planning or now.
func (a *applier) forced() map[string]bool {
	out := map[string]bool{}
	for n, ok := range a.o.Force {
		out[n] = ok
	}
	for _, n := range a.p.Forced {
		out[n] = true
	}
	return out
}

// resume looks for a run of the same plan. It returns a result when nothing is left to be done.
func (a *applier) resume(ctx context.Context) (*ApplyResult, error) {
	dir := a.s.Layout.Dir
	f, err := engine.ReadFence(a.s.FS, dir)
	if err != nil {
		return nil, err
	}
	if f != nil && f.Ours && f.PlanID != a.p.PlanID {
		return nil, a.mismatch("the store is fenced by the unfinished plan "+f.PlanID, "finish that one first, or take it back: tikv-repair undo "+dir)
	}
	all, err := edit.List(a.s.FS, dir)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(t *edit.Tx) bool { return t.J.PlanID == a.p.PlanID && t.J.State != "" })
	if i < 0 {
		return nil, nil
	}
	tx := all[i]
	var p applyPlan
	if err := tx.Plan(&p); err != nil {
		return nil, err
	}
	switch {
	case p.Verb != VerbApply || p.PlanHash != a.p.Hash:
		return nil, a.mismatch("another plan with the same id was applied here", "tikv-repair undo "+dir)
	case tx.J.State == edit.Undoing || tx.J.State == edit.Undone && f != nil && f.Ours:
		return nil, a.mismatch("an undo of this plan was interrupted", "tikv-repair undo "+dir)
	case tx.J.State == edit.Undone || tx.J.State == edit.Discarding:
		return nil, a.mismatch("this plan was taken back here", "tikv-repair discard --plan-id "+a.p.PlanID+" "+dir+", then apply again; or make a new plan")
	case a.o.DryRun:
		return nil, a.mismatch("this plan is half done or done; a preview of what is left makes no sense", "tikv-repair status "+dir)
	}
	a.tx, a.res, a.broken, a.o.Now = tx, p.Preview, p.Broken, p.Written
	for _, n := range p.Force {
		if a.o.Force == nil {
			a.o.Force = map[string]bool{}
		}
		a.o.Force[n] = true
	}
	if tx.J.State != edit.Done {
		a.o.Say("continuing plan %s, interrupted in state %s", tx.J.PlanID, tx.J.State)
		// The plan's id finds the journal also when the crash came before the fence.
		if err := tx.Fence(); err != nil {
			return nil, err
		}
	}
	switch tx.J.State {
	case edit.Begun:
		now, err := fingerprint(a.s)
		if err != nil {
			return nil, err
		}
		if now != p.Fingerprint {
			return nil, a.mismatch("the store has changed since the plan was made", "tikv-repair undo "+dir)
		}
		return nil, tx.Restart()
	case edit.Staged:
		if err := tx.Publish(); err != nil {
			return nil, err
		}
		return a.finish(ctx, nil)
	case edit.Published:
		return a.finish(ctx, nil)
	}
	res := new(ApplyResult)
	if err := tx.Result(res); err != nil {
		return nil, err
	}
	res.DoneBefore, res.Fenced = true, f != nil && f.Ours
	if res.Fenced && !a.several() {
		res.Fenced, err = false, tx.RemoveFence()
	}
	return res, err
}

// several tells whether other stores have parts in the plan: then the fence stays.
func (a *applier) several() bool { return a.p.Busy() > 1 }

// unchanged compares the store, and each region that is to change, with the reports that the plan was made from.
func (a *applier) unchanged() error {
	again := "tikv-repair collect " + a.s.Layout.Dir + " -o FILE, then plan again with all reports"
	for _, act := range a.part.Actions {
		now, err := a.peerNow(act.RegionID)
		if err != nil {
			return err
		}
		if now != act.Old {
			return a.mismatch(fmt.Sprintf("region %d is not what it was when the plan was made", act.RegionID), again)
		}
	}
	now, err := storeFingerprint(a.s)
	if err != nil {
		return err
	}
	if now != a.part.Fingerprint {
		return a.mismatch("the store has changed since its report: TiKV was started on it, or another repair was done", again)
	}
	return nil
}

// peerNow is the fingerprint of a region on this store; zero without a record.
func (a *applier) peerNow(id uint64) (plan.Fingerprint, error) {
	r, ok := a.region(id)
	if !ok {
		return plan.Fingerprint{}, nil
	}
	raw, have, err := a.s.Raft.RaftState(id)
	if err != nil {
		return plan.Fingerprint{}, err
	}
	if !have {
		raw = nil
	}
	first, last, _, err := a.s.Raft.Bounds(id)
	return peerFingerprint(r, raw, first, last), err
}

func (a *applier) region(id uint64) (scan.Region, bool) {
	i, ok := slices.BinarySearchFunc(a.s.Regions, id, func(r scan.Region, id uint64) int {
		switch {
		case r.ID < id:
			return -1
		case r.ID > id:
			return 1
		}
		return 0
	})
	if !ok {
		return scan.Region{}, false
	}
	return a.s.Regions[i], true
}

// prepare finds out everything that the edit will do.
func (a *applier) prepare(ctx context.Context) error {
	a.res = &ApplyResult{PlanID: a.p.PlanID, PlanHash: a.p.Hash, ClusterID: a.p.ClusterID, StoreID: a.part.StoreID, Dir: a.s.Layout.Dir, Before: a.part.Fingerprint,
		Fenced: a.several(), Lines: []ApplyLine{}, Problems: []plan.Described{}}
	ro := RewindOptions{T: mvcc.MaxTS, SafePoint: new(mvcc.TS), Threads: a.o.Threads, Memory: a.o.Memory, Now: a.o.Now, Meter: a.o.Meter}
	if a.part.Rewind {
		ro.T, ro.SafePoint = a.p.ToTS, nil
		if a.p.SafePoint != 0 || a.p.GCNeverRan {
			ro.SafePoint = &a.p.SafePoint
		}
	}
	ps, err := storeProblems(a.s, ro)
	if err != nil {
		return err
	}
	for _, p := range ps {
		// Raw data is no obstacle where nothing is chosen by timestamp.
		if _, raw := p.(*plan.RawData); !raw || a.part.Rewind {
			a.problems = append(a.problems, p)
		}
	}
	broken, err := wontStart(a.s)
	if err != nil {
		return err
	}
	for _, id := range broken {
		if !slices.ContainsFunc(a.part.Actions, func(act plan.Action) bool { return act.RegionID == id }) {
			a.broken = append(a.broken, id)
		}
	}
	for _, act := range a.part.Actions {
		line, err := a.act(&act)
		if err != nil {
			return err
		}
		a.res.Lines = append(a.res.Lines, *line)
	}
	if a.raftEdit, err = raftlog.PlanEdit(a.s.Raft, &a.batch, a.o.Now); err != nil {
		return err
	}
	if !a.raftEdit.Empty() {
		sum := a.raftEdit.Summary()
		a.res.Raft = &sum
	}
	if err := a.rewind(ctx, ro); err != nil {
		return err
	}
	plan.Sort(a.problems)
	a.res.Problems = plan.Describe(a.problems)
	return nil
}

// rewind plans the rewind of the data, as they are after the log entries of all regions.
func (a *applier) rewind(ctx context.Context, ro RewindOptions) error {
	r := &reset{s: a.s, o: ResetOptions{RewindOptions: ro}, raft: a.raftEdit}
	a.rw = r
	if !a.part.Rewind {
		r.w, r.effect = &Rewinder{store: a.s, o: ro, staleTS: true, titan: a.s.Titan != nil}, newEffect()
		return nil
	}
	var err error
	if r.w, err = NewRewinder(ctx, a.s, ro); err != nil {
		return err
	}
	began := time.Now()
	for _, n := range tableNotes(a.s.Layout, a.s.DB.Names()) {
		a.o.Say("note: %s", n)
	}
	a.o.Say("reading what is above %s", ro.T)
	end := r.w.phase("reading what is above T")
	defer func() { end() }()
	if r.effect, err = r.w.logicalPass(ctx); err != nil {
		return err
	}
	if err := r.w.rawPass(ctx, r.effect); err != nil {
		return err
	}
	end()
	end = r.w.phase("planning the new version")
	r.effect.locks = newLockEdit(a.s)
	ps, err := a.s.DecideLocksBy(ro.T, a.p.Txns, r.effect.locks.add)
	if err != nil {
		return err
	}
	var waiting []plan.Problem
	if r.waiting, waiting, err = waitingFiles(a.s, ro.T); err != nil {
		return err
	}
	a.problems = append(append(a.problems, ps...), waiting...)
	if r.preview, err = r.makePreview(ctx, nil, time.Since(began)); err != nil {
		return err
	}
	a.res.preview = r.preview
	a.res.Rewind = r.result(StateDryRun, &Draft{Kept: r.preview.FilesLive})
	return nil
}

// write runs the physical pass.
func (a *applier) write(ctx context.Context, sink Sink) (*Draft, error) {
	extra := a.rw.effect.locks.runs()
	extra[scan.CFRaft] = a.raftRun
	defer a.rw.w.phase("writing new tables")()
	a.rw.w.expect(a.rw.w.setBytes())
	return a.rw.w.physicalPass(ctx, sink, a.rw.effect, extra)
}

// count takes the numbers of a draft into the result.
func (a *applier) count(d *Draft) {
	a.res.Written = d.BytesWritten + a.raftEdit.Bytes()
	if a.res.Rewind != nil {
		state := a.res.State
		a.res.Rewind = a.rw.result(state, d)
		a.res.Rewind.Problems = nil // they stand with the store's
	}
}

func (a *applier) apply(ctx context.Context) (*ApplyResult, error) {
	s := a.s
	if a.rw.preview != nil {
		if err := a.rw.checkSpace(); err != nil {
			return nil, err
		}
	}
	if a.tx == nil {
		print, err := fingerprint(s)
		if err != nil {
			return nil, err
		}
		p := &applyPlan{Format: planFormat, Verb: VerbApply, Tool: a.o.Version, PlanID: a.p.PlanID, ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID,
			T: a.p.ToTS, ToTime: scan.Time(a.p.ToTS), Fingerprint: print, Broken: a.broken, PlanHash: a.p.Hash, Preview: a.res, Written: a.o.Now}
		if p.Cluster, err = a.p.Encode(); err != nil {
			return nil, err
		}
		for n := range a.forced() {
			p.Force = append(p.Force, n)
		}
		slices.Sort(p.Force)
		dirs := append([]string{s.Layout.KVDir}, a.raftEdit.Dirs()...)
		a.o.Say("fence up, backup in %s", edit.BackupDir(s.FS, s.Layout.Dir, p.PlanID))
		if a.tx, err = edit.Begin(s.FS, s.Layout.Dir, p.PlanID, VerbApply, p, dirs, a.o.Now); err != nil {
			return nil, err
		}
	}
	a.o.Say("writing")
	// The raft store comes first: switches happen in the order in which they are staged, and a raft-engine file counts once it has its name.
	if err := a.raftEdit.Stage(a.tx); err != nil {
		return nil, err
	}
	d, err := a.write(ctx, a.tx)
	if err != nil {
		return nil, err
	}
	a.o.Say("reading back")
	if a.tx.J.Proof, err = stagedDigest(s, a.raftEdit); err != nil {
		return nil, err
	}
	if err := stageVersion(ctx, a.rw.w, a.tx, d); err != nil {
		return nil, err
	}
	for _, p := range a.save {
		if err := a.tx.Save(p); err != nil {
			return nil, err
		}
	}
	for _, p := range a.rw.waiting {
		if err := a.tx.MoveAway(p); err != nil {
			return nil, err
		}
	}
	if err := a.tx.Stage(); err != nil {
		return nil, err
	}
	a.o.Say("publishing")
	if err := a.tx.Publish(); err != nil {
		return nil, err
	}
	return a.finish(ctx, d)
}

// finish proves the published state and records the result. d is nil after a resume: the numbers are then those of the preview.
func (a *applier) finish(ctx context.Context, d *Draft) (*ApplyResult, error) {
	a.o.Say("verifying")
	defer base.Begin(a.s.FS, "verifying").End()
	if err := provePublished(a.s, a.tx, a.raftEdit); err != nil {
		return nil, err
	}
	found, err := verifyPart(ctx, a.s, a.p, a.part, a.broken, a.o.Threads)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return nil, unproven(a.s, fmt.Sprintf("%s (%d findings)", found[0], len(found)))
	}
	if a.res.After, err = storeFingerprint(a.s); err != nil {
		return nil, err
	}
	a.res.State = StateDone
	if d != nil {
		a.count(d)
	}
	if a.res.Rewind != nil {
		a.res.Rewind.State = StateDone
	}
	a.res.Backup, a.res.Saved = a.tx.Backup(), len(a.tx.J.Saved)
	a.res.Started, a.res.Ended = toSecond(a.tx.J.Started), a.clock.Add(time.Since(a.start)).UTC().Format(time.RFC3339)
	a.res.Seconds = time.Since(a.start).Seconds()
	if a.several() {
		err = a.tx.FinishFenced(a.res)
	} else {
		err = a.tx.Finish(a.res)
	}
	if err != nil {
		return nil, err
	}
	return a.res, nil
}
