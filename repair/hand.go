package repair

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// HandVerb is one of the edits of single regions.
type HandVerb string

// The verbs by hand.
const (
	ApplyTail HandVerb = "apply-tail"
	CutTail   HandVerb = "cut-tail"
	Tombstone HandVerb = "tombstone"
	SetPeers  HandVerb = "set-peers"
)

// HandArgs are what the operator asked for. A rerun after a crash must ask for the same.
type HandArgs struct {
	// Regions to change; empty means all with a tail, for the two tail verbs.
	Regions []uint64 `json:"regions,omitempty"`
	// Peers is the new list, for set-peers.
	Peers []raftstate.Peer `json:"peers,omitempty"`
	// KeepHistory keeps applied entries when a tail is cut.
	KeepHistory bool `json:"keep_history,omitempty"`
	// From are the directories of other stores whose logs may be used, and To the last index to apply (of one region), for apply-tail.
	From []string `json:"from,omitempty"`
	To   uint64   `json:"to_index,omitempty"`
}

// HandOptions of Hand.
type HandOptions struct {
	Verb    HandVerb
	Args    HandArgs
	Force   map[string]bool
	DryRun  bool
	Threads int
	Now     time.Time
	Version string
	Preview func(*HandResult)
	Confirm func() (bool, error)
	Say     func(format string, args ...any)
}

// HandLine is what happens to one region.
type HandLine struct {
	Region uint64       `json:"region_id"`
	Action string       `json:"action"`
	Before string       `json:"before"`
	After  string       `json:"after"`
	Tail   *TailApplied `json:"tail,omitempty"`
	// Lost counts the Puts and Deletes that go with a tail that is cut.
	Lost int64 `json:"versions_lost,omitempty"`
}

// HandResult is the preview and the last word of an edit by hand.
type HandResult struct {
	PlanID   string           `json:"plan_id"`
	Verb     HandVerb         `json:"verb"`
	State    string           `json:"state"`
	Lines    []HandLine       `json:"regions"`
	Raft     *raftlog.Summary `json:"raft_store,omitempty"`
	Saved    int              `json:"files_saved"`
	Written  int64            `json:"bytes_written"`
	Seconds  float64          `json:"seconds"`
	Problems []plan.Described `json:"problems"`
	Backup   string           `json:"backup"`
}

// handPlan is plan.json of an edit by hand. Its head has the names of ResetPlan, which undo and status read.
type handPlan struct {
	Format      int        `json:"format"`
	Verb        HandVerb   `json:"verb"`
	Tool        string     `json:"tool_version"`
	PlanID      string     `json:"plan_id"`
	ClusterID   uint64     `json:"cluster_id"`
	StoreID     uint64     `json:"store_id"`
	Args        HandArgs   `json:"args"`
	Force       []string   `json:"force,omitempty"`
	Fingerprint string     `json:"fingerprint"`
	Lines       []HandLine `json:"lines"`
	Broken      []uint64   `json:"broken_before,omitempty"`
	Written     time.Time  `json:"written"`
}

// hand is one edit by hand.
type hand struct {
	s     *scan.Store
	o     HandOptions
	start time.Time
	tx    *edit.Tx

	w        *Rewinder
	raftRun  *rocks.Run // new records of the raft column family
	batch    raftlog.Batch
	raftEdit raftlog.Edit
	sources  []EntrySource
	save     []string // tables that a start would purge
	broken   []uint64 // regions that TiKV would not start anyway
	problems []plan.Problem
	res      *HandResult
}

// Hand changes single regions of one stopped store: plan, preview, backup, undo as with every verb that writes. The raft store is
// published before the key-value database: a server that starts in between finds no entry where the old apply state wants one, and
// stops; the other way round it would start and apply the tail.
func Hand(ctx context.Context, fs base.FS, dir string, so scan.Options, o HandOptions) (*HandResult, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	so.Mode = base.LockExclusive
	s, err := scan.Open(fs, dir, so)
	if err != nil {
		return nil, stopped(fs, dir, string(o.Verb), false, err)
	}
	defer s.Close()
	h := &hand{s: s, o: o, start: time.Now(), raftRun: &rocks.Run{}}
	h.res = &HandResult{Verb: o.Verb, Problems: []plan.Described{}}
	res, err := h.run(ctx)
	note(h.tx, err)
	if res != nil {
		res.Seconds = time.Since(h.start).Seconds()
	}
	return res, stopped(fs, dir, string(o.Verb), h.tx != nil, err)
}

func (h *hand) run(ctx context.Context) (*HandResult, error) {
	if done, err := h.resume(ctx); done != nil || err != nil {
		return done, err
	}
	if err := h.plan(); err != nil {
		return nil, err
	}
	h.res.State = StateUnchanged
	if len(h.res.Lines) > 0 {
		h.res.State = StateDryRun
	}
	if h.o.Preview != nil {
		h.o.Preview(h.res)
	}
	for _, p := range h.problems {
		if plan.Blocks(p, h.o.Force) {
			h.res.State = StateRefused
			return h.res, &base.Error{Class: base.ErrProblems, Op: string(h.o.Verb), Path: h.s.Layout.Dir, Offset: -1,
				Reason: p.Name() + ": " + p.What() + "; nothing was written", Next: p.Next()}
		}
	}
	if h.o.DryRun || len(h.res.Lines) == 0 {
		return h.res, nil
	}
	if h.tx == nil && h.o.Confirm != nil {
		ok, err := h.o.Confirm()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &base.Error{Class: base.ErrDeclined, Op: string(h.o.Verb), Path: h.s.Layout.Dir, Offset: -1, Reason: "nothing was written"}
		}
	}
	return h.apply(ctx)
}

// unfinished opens the repair whose fence is up; nil without one.
func unfinished(s *scan.Store) (*edit.Tx, error) {
	f, err := engine.ReadFence(s.FS, s.Layout.Dir)
	if err != nil || f == nil || !f.Ours {
		return nil, err
	}
	return edit.Open(s.FS, s.Layout.Dir, f.PlanID)
}

func (h *hand) resume(ctx context.Context) (*HandResult, error) {
	tx, err := unfinished(h.s)
	if err != nil || tx == nil {
		return nil, err
	}
	var p handPlan
	if err := tx.Plan(&p); err != nil {
		return nil, err
	}
	dir := h.s.Layout.Dir
	refuse := func(reason string) error {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "continue plan " + tx.J.PlanID, Path: dir, Offset: -1, Reason: reason, Next: "tikv-repair undo " + dir}
	}
	switch {
	case tx.J.State == edit.Undoing || tx.J.State == edit.Undone:
		return nil, refuse("an undo of this plan was interrupted")
	case p.Verb != h.o.Verb || !reflect.DeepEqual(p.Args, h.o.Args):
		return nil, refuse(fmt.Sprintf("the store is fenced by an unfinished %s with other arguments", p.Verb))
	case h.o.DryRun:
		return nil, refuse("this plan is half done; a preview of what is left makes no sense")
	}
	h.tx, h.o.Now, h.res.Lines, h.broken = tx, p.Written, p.Lines, p.Broken
	if h.o.Force == nil {
		h.o.Force = map[string]bool{}
	}
	for _, n := range p.Force {
		h.o.Force[n] = true
	}
	h.o.Say("continuing plan %s, interrupted in state %s", tx.J.PlanID, tx.J.State)
	switch tx.J.State {
	case edit.Begun:
		now, err := fingerprint(h.s)
		if err != nil {
			return nil, err
		}
		if now != p.Fingerprint {
			return nil, refuse("the store has changed since the plan was made")
		}
		h.res.Lines = nil
		return nil, tx.Restart()
	case edit.Staged:
		if err := tx.Publish(); err != nil {
			return nil, err
		}
		return h.finish(ctx)
	case edit.Published:
		return h.finish(ctx)
	}
	var res HandResult
	if err := tx.Result(&res); err != nil {
		return nil, err
	}
	if err := tx.RemoveFence(); err != nil {
		return nil, err
	}
	return &res, nil
}

// plan decides for every region that was asked for.
func (h *hand) plan() error {
	ps, err := storeProblems(h.s, RewindOptions{T: mvcc.MaxTS, SafePoint: new(mvcc.TS)})
	if err != nil {
		return err
	}
	for _, p := range ps {
		// Raw data is no obstacle here: nothing is chosen by timestamp.
		if _, raw := p.(*plan.RawData); !raw {
			h.problems = append(h.problems, p)
		}
	}
	regions, err := h.chosen()
	if err != nil {
		return err
	}
	closeSources, err := h.openSources()
	defer closeSources() // what is taken from them is copied
	if err != nil {
		return err
	}
	ph := base.Begin(h.s.FS, "planning the edits").Items(len(regions), "regions")
	defer ph.End()
	for _, r := range regions {
		if err := ph.Did(1); err != nil {
			return err
		}
		// Each edit asks about the start rules of its outcome.
		rp, _, err := planRegion(h.s, r, mvcc.MaxTS)
		if err != nil {
			return err
		}
		line, err := h.region(&rp)
		if err != nil {
			return err
		}
		if line != nil {
			h.res.Lines = append(h.res.Lines, *line)
		}
	}
	if h.raftEdit, err = raftlog.PlanEdit(h.s.Raft, &h.batch, h.o.Now); err != nil {
		return err
	}
	if !h.raftEdit.Empty() {
		sum := h.raftEdit.Summary()
		h.res.Raft = &sum
	}
	if h.broken, err = wontStart(h.s); err != nil {
		return err
	}
	h.w = &Rewinder{store: h.s, o: RewindOptions{T: mvcc.MaxTS, Threads: h.o.Threads, Now: h.o.Now}, staleTS: true, titan: h.s.Titan != nil}
	plan.Sort(h.problems)
	h.res.Problems = plan.Describe(h.problems)
	return nil
}

// chosen are the regions to look at, in the order of ids.
func (h *hand) chosen() ([]scan.Region, error) {
	var out []scan.Region
	all := len(h.o.Args.Regions) == 0
	if all && h.o.Verb != ApplyTail && h.o.Verb != CutTail {
		return nil, &base.Error{Class: base.ErrUsage, Op: string(h.o.Verb), Path: h.s.Layout.Dir, Offset: -1, Reason: "no region is named", Next: "tikv-repair region " + h.s.Layout.Dir}
	}
	want := map[uint64]bool{}
	for _, id := range h.o.Args.Regions {
		want[id] = true
	}
	for _, r := range h.s.Regions {
		named := want[r.ID]
		delete(want, r.ID)
		switch {
		case all && r.Live(), named && r.Live():
			out = append(out, r)
		case named && h.o.Verb == Tombstone && r.State.State == raftstate.Tombstone:
			// Done before.
		case named:
			return nil, &base.Error{Class: base.ErrUsage, Op: string(h.o.Verb), Path: h.s.Layout.Dir, Offset: -1, Region: r.ID,
				Reason: "it is " + r.State.State.String() + " or has no range here", Next: "tikv-repair region " + h.s.Layout.Dir}
		}
	}
	for id := range want {
		return nil, &base.Error{Class: base.ErrUsage, Op: string(h.o.Verb), Path: h.s.Layout.Dir, Offset: -1, Region: id,
			Reason: "there is no such region on this store", Next: "tikv-repair region " + h.s.Layout.Dir}
	}
	return out, nil
}

// wontStart lists the regions that break a start rule now.
func wontStart(s *scan.Store) ([]uint64, error) {
	_, ps, err := planRegions(s, mvcc.MaxTS, TailAuto)
	return brokenRegions(ps), err
}

// brokenRegions are those that a start rule stands against.
func brokenRegions(ps []plan.Problem) []uint64 {
	var out []uint64
	for _, p := range ps {
		if p, ok := p.(*plan.RegionStart); ok && !slices.Contains(out, p.Region) {
			out = append(out, p.Region)
		}
	}
	return out
}

func (h *hand) apply(ctx context.Context) (*HandResult, error) {
	s := h.s
	if h.tx == nil {
		print, err := fingerprint(s)
		if err != nil {
			return nil, err
		}
		p := &handPlan{Format: planFormat, Verb: h.o.Verb, Tool: h.o.Version, ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID, Args: h.o.Args,
			Fingerprint: print, Lines: h.res.Lines, Broken: h.broken, Written: h.o.Now}
		p.PlanID = planID(string(h.o.Verb), print, fmt.Sprint(h.o.Args), h.o.Now)
		for n := range h.o.Force {
			p.Force = append(p.Force, n)
		}
		dirs := append([]string{s.Layout.KVDir}, h.raftEdit.Dirs()...)
		h.o.Say("fence up, backup in %s", edit.BackupDir(s.FS, s.Layout.Dir, p.PlanID))
		if h.tx, err = edit.Begin(s.FS, s.Layout.Dir, p.PlanID, string(h.o.Verb), p, dirs, h.o.Now); err != nil {
			return nil, err
		}
	}
	h.o.Say("writing")
	// The raft store comes first: switches happen in the order in which they are staged, and a raft-engine file counts once it has its name.
	if err := h.raftEdit.Stage(h.tx); err != nil {
		return nil, err
	}
	end := h.w.phase("writing new tables")
	d, err := h.w.physicalPass(ctx, h.tx, newEffect(), map[string]*rocks.Run{scan.CFRaft: h.raftRun})
	end()
	if err != nil {
		return nil, err
	}
	h.o.Say("reading back")
	if h.tx.J.Proof, err = stagedDigest(h.s, h.raftEdit); err != nil {
		return nil, err
	}
	if err := stageVersion(ctx, h.w, h.tx, d); err != nil {
		return nil, err
	}
	for _, p := range h.save {
		if err := h.tx.Save(p); err != nil {
			return nil, err
		}
	}
	h.res.Written = d.BytesWritten + h.raftEdit.Bytes()
	if err := h.tx.Stage(); err != nil {
		return nil, err
	}
	h.o.Say("publishing")
	if err := h.tx.Publish(); err != nil {
		return nil, err
	}
	return h.finish(ctx)
}

// finish proves the published state and takes the fence away: every file is as the journal says, the raft store holds what was staged,
// the version is sound, and no region breaks a start rule that did not before.
func (h *hand) finish(context.Context) (*HandResult, error) {
	h.o.Say("verifying")
	defer base.Begin(h.s.FS, "verifying").End()
	if err := provePublished(h.s, h.tx, h.raftEdit); err != nil {
		return nil, err
	}
	for _, f := range h.s.DB.SelfCheck(func(_ string, f rocks.LevelFile) bool { return f.Level == 0 }) {
		return nil, unproven(h.s, f.String())
	}
	broken, err := wontStart(h.s)
	if err != nil {
		return nil, err
	}
	for _, id := range broken {
		if !slices.Contains(h.broken, id) {
			return nil, unproven(h.s, fmt.Sprintf("TiKV would not start region %d", id))
		}
	}
	h.res.State, h.res.PlanID, h.res.Backup, h.res.Saved = StateDone, h.tx.J.PlanID, h.tx.Backup(), len(h.tx.J.Saved)
	h.res.Seconds = time.Since(h.start).Seconds()
	if err := h.tx.Finish(h.res); err != nil {
		return nil, err
	}
	return h.res, nil
}
