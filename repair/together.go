package repair

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// maxRounds bounds the rounds of questions and answers between a plan and the stores.
const maxRounds = 2

// TogetherOptions of Together.
type TogetherOptions struct {
	Verb    string // reset or drop-peers, for messages
	Plan    plan.Options
	PD      []*plan.PDReport
	DryRun  bool
	Threads int
	Memory  int64 // see RewindOptions
	Now     time.Time
	Version string
	// Preview is shown the plan, final or not, before anything is written.
	Preview func(*plan.Plan)
	// StorePreview is shown what happens to each store.
	StorePreview func(*ApplyResult)
	Confirm      func() (bool, error)
	Say          func(format string, args ...any)
	Watch        func(what string, m *scan.Meter) (stop func())
}

// TogetherResult is the last word of Together.
type TogetherResult struct {
	PlanID   string         `json:"plan_id"`
	State    string         `json:"state"` // done, unchanged, dry-run, refused
	Plan     *plan.Plan     `json:"plan"`
	Stores   []*ApplyResult `json:"stores"`
	Compared int            `json:"regions_compared"` // whose replicas were proven equal
	// DoneBefore: an earlier run of the same command had done everything.
	DoneBefore bool    `json:"done_before,omitempty"`
	Seconds    float64 `json:"seconds"`
}

// Together does for directories on one machine what collect, plan, apply, verify and release do for a fleet: one plan for all, each store's part
// of it, a proof on each, and only then the fences go. After a crash the same call goes on: the plan is in the backup of every store that has
// begun.
func Together(ctx context.Context, fs base.FS, dirs []string, so scan.Options, o TogetherOptions) (*TogetherResult, error) {
	if o.Say == nil {
		o.Say = func(string, ...any) {}
	}
	if o.Watch == nil {
		o.Watch = func(string, *scan.Meter) func() { return func() {} }
	}
	t := &together{fs: fs, dirs: dirs, so: so, o: o}
	began := time.Now()
	res, err := t.run(ctx)
	if res != nil {
		res.Seconds = time.Since(began).Seconds()
	}
	return res, t.interrupted(err)
}

// interrupted makes of an interruption that leaves stores fenced one that says so.
func (t *together) interrupted(err error) error {
	if cause := base.Refused(t.fs); cause != nil && err != nil {
		err = cause // whatever was made of it
	}
	if !errors.Is(err, context.Canceled) {
		return err
	}
	base.Unwind(t.fs)
	for _, dir := range t.dirs {
		if f, ferr := engine.ReadFence(t.fs, dir); ferr == nil && f != nil && f.Ours {
			return &base.Error{Class: base.ErrInterrupted, Op: t.o.Verb + " was interrupted; the stores that have begun are fenced off and nothing is lost", Offset: -1, Err: err,
				Next: "run the same command again to finish, or: tikv-repair undo DIR on each store"}
		}
	}
	return err
}

type together struct {
	fs   base.FS
	dirs []string
	so   scan.Options
	o    TogetherOptions
	plan *plan.Plan
	// byStore are the directories of the plan's stores.
	byStore map[uint64]string
}

func (t *together) run(ctx context.Context) (*TogetherResult, error) {
	resumed, err := t.resume()
	if err != nil {
		return nil, err
	}
	if !resumed {
		// A rewind is never found to be done by planning anew: whether anything is above T only the data say, and log entries are made
		// harmless once more.
		if done, err := t.doneBefore(); err != nil {
			return nil, err
		} else if done {
			return &TogetherResult{PlanID: t.plan.PlanID, Plan: t.plan, State: StateUnchanged, DoneBefore: true, Stores: []*ApplyResult{}}, nil
		}
		if err := t.decide(ctx); err != nil {
			return nil, err
		}
	}
	res := &TogetherResult{PlanID: t.plan.PlanID, Plan: t.plan, State: StateDone, Stores: []*ApplyResult{}}
	if t.o.Preview != nil {
		t.o.Preview(t.plan)
	}
	if bad := t.plan.Blocking(); len(bad) > 0 && !resumed {
		res.State = StateRefused
		return res, &base.Error{Class: base.ErrProblems, Op: t.o.Verb, Offset: -1, Reason: bad[0].Name + ": " + bad[0].What + "; nothing was written", Next: bad[0].Next}
	}
	if t.plan.Busy() == 0 {
		res.State = StateUnchanged
		return res, nil
	}
	if t.o.DryRun {
		res.State = StateDryRun
	} else if !resumed && t.o.Confirm != nil {
		ok, err := t.o.Confirm()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &base.Error{Class: base.ErrDeclined, Op: t.o.Verb, Offset: -1, Reason: "nothing was written"}
		}
	}
	for _, part := range t.plan.Stores {
		if part.Idle() {
			continue
		}
		dir := t.byStore[part.StoreID]
		t.o.Say("store %d, %s", part.StoreID, dir)
		m := new(scan.Meter)
		stop := t.o.Watch(t.o.Verb, m)
		one, err := Apply(ctx, t.fs, dir, t.so, ApplyOptions{Plan: t.plan, DryRun: t.o.DryRun, Threads: t.o.Threads, Memory: t.o.Memory, Now: t.o.Now, Version: t.o.Version, Meter: m,
			Preview: t.o.StorePreview, Say: t.o.Say})
		stop()
		if one != nil {
			res.Stores = append(res.Stores, one)
		}
		if err != nil {
			res.State = StateRefused
			return res, t.partWay(err, res)
		}
	}
	if t.o.DryRun {
		return res, nil
	}
	// Once one fence has gone, all stores had been proven, and that store may have been started since: what is left is to release the others.
	if !slices.ContainsFunc(res.Stores, func(r *ApplyResult) bool { return r.DoneBefore && !r.Fenced }) {
		if err := t.prove(ctx, res); err != nil {
			return res, err
		}
	}
	return res, t.release(res)
}

// partWay tells that other stores stand behind their fences already.
func (t *together) partWay(err error, res *TogetherResult) error {
	done := slices.ContainsFunc(res.Stores, func(r *ApplyResult) bool { return r.State == StateDone })
	if !done || t.o.DryRun {
		return err
	}
	return &base.Error{Class: base.ErrPartial, Op: t.o.Verb, Offset: -1, Reason: "stores that are done wait behind their fences", Err: err,
		Next: "mend the reason and run the same command again; or tikv-repair undo DIR on each store"}
}

// resume looks for the plan of an interrupted run in the backups of fenced stores.
func (t *together) resume() (bool, error) {
	for _, dir := range t.dirs {
		f, err := engine.ReadFence(t.fs, dir)
		if err != nil {
			return false, err
		}
		if f == nil || !f.Ours {
			continue
		}
		tx, err := edit.Open(t.fs, dir, f.PlanID)
		if err != nil {
			return false, err
		}
		var p applyPlan
		if err := tx.Plan(&p); err != nil {
			return false, err
		}
		refuse := func(reason string) error {
			return &base.Error{Class: base.ErrPlanMismatch, Op: t.o.Verb, Path: dir, Offset: -1, Reason: reason, Next: "tikv-repair status " + dir}
		}
		if p.Verb != VerbApply {
			return false, refuse(fmt.Sprintf("it is fenced by an unfinished %s, plan %s", p.Verb, f.PlanID))
		}
		if t.plan, err = p.cluster(); err != nil {
			return false, refuse("the plan in its backup does not read: " + err.Error())
		}
		if !t.sameOptions(t.plan) {
			return false, refuse(fmt.Sprintf("it is fenced by plan %s, which was made with other arguments", f.PlanID))
		}
		if t.o.DryRun {
			return false, refuse(fmt.Sprintf("plan %s is half done; a preview of what is left makes no sense", f.PlanID))
		}
		t.o.Say("continuing plan %s, found in %s", f.PlanID, dir)
		return true, t.locate()
	}
	return false, nil
}

// sameOptions tells whether a plan was made with the arguments of this run.
func (t *together) sameOptions(p *plan.Plan) bool {
	o := t.o.Plan
	return p.ToTS == o.ToTS && slices.Equal(p.FailedStores, slices.Compact(slices.Sorted(slices.Values(o.FailedStores)))) &&
		p.Keep == cmp.Or(o.Keep, plan.KeepAll) && p.HoleFill == cmp.Or(o.HoleFill, plan.HoleEmpty) && slices.Equal(p.ByHand, o.ByHand())
}

// doneBefore looks for a plan with the same arguments that was done and released on every store, on which nothing has been started since.
func (t *together) doneBefore() (bool, error) {
	left := map[uint64]bool{}
	for _, dir := range t.dirs {
		p, err := t.doneOn(dir)
		switch {
		case err != nil:
			return false, err
		case p == nil:
			continue // a store that the plan left alone; if not, its part is missing below
		case t.plan == nil:
			t.plan = p
			for _, part := range p.Stores {
				left[part.StoreID] = !part.Idle()
			}
		case p.Hash != t.plan.Hash:
			return false, nil
		}
	}
	if t.plan == nil || len(t.plan.Stores) != len(t.dirs) {
		return false, nil
	}
	for _, dir := range t.dirs {
		ok, err := t.stands(dir, left)
		if err != nil || !ok {
			return false, err
		}
	}
	for _, open := range left {
		if open {
			return false, nil
		}
	}
	return true, nil
}

// doneOn is the plan of the newest repair of a directory, when that is done and was made with the same arguments.
func (t *together) doneOn(dir string) (*plan.Plan, error) {
	txs, err := edit.List(t.fs, dir)
	if err != nil {
		return nil, err
	}
	txs = slices.DeleteFunc(txs, func(tx *edit.Tx) bool { return tx.J.State != edit.Done || tx.J.Verb != VerbApply })
	var own applyPlan
	if len(txs) == 0 || txs[len(txs)-1].Plan(&own) != nil {
		return nil, nil
	}
	p, err := own.cluster()
	if err != nil || !t.sameOptions(p) {
		return nil, nil
	}
	return p, nil
}

// stands tells whether a store is as its part of the plan has left it, and takes it off the list.
func (t *together) stands(dir string, left map[uint64]bool) (bool, error) {
	so := t.so
	so.Mode = base.LockShared
	s, err := scan.Open(t.fs, dir, so)
	if err != nil {
		return false, err
	}
	defer s.Close()
	part := t.plan.Store(s.Ident.StoreID)
	now, err := storeFingerprint(s)
	if err != nil || part == nil || s.Ident.ClusterID != t.plan.ClusterID {
		return false, err
	}
	if part.Idle() {
		return now == part.Fingerprint, nil
	}
	res, err := ReadResult(t.fs, dir, t.plan)
	if err != nil || res == nil || res.State != StateDone || res.PlanHash != t.plan.Hash {
		return false, err
	}
	left[part.StoreID] = false
	return now == res.After, nil
}

// locate finds the directory of each store of the plan.
func (t *together) locate() error {
	t.byStore = map[uint64]string{}
	var unread error
	for _, dir := range t.dirs {
		so := t.so
		so.Mode, so.NoRaft = base.LockShared, true
		s, err := scan.Open(t.fs, dir, so)
		if errors.Is(err, base.ErrNotStore) && unread == nil {
			unread = err
			continue
		}
		if err != nil {
			return err
		}
		t.byStore[s.Ident.StoreID] = dir
		if err := s.Close(); err != nil {
			return err
		}
	}
	for _, p := range t.plan.Stores {
		if t.byStore[p.StoreID] == "" {
			return &base.Error{Class: base.ErrPlanMismatch, Op: t.o.Verb, Offset: -1, Reason: fmt.Sprintf("plan %s has a part for store %d, whose directory was not given", t.plan.PlanID, p.StoreID),
				Err: unread, Next: "give the directories of all stores in one command; or take it back: tikv-repair undo DIR, on each store that is fenced"}
		}
	}
	return unread
}

// decide collects from all stores and plans; what the plan asks is answered, and it is made again.
func (t *together) decide(ctx context.Context) error {
	var in plan.Input
	if err := t.collect(ctx, &in, CollectOptions{}); err != nil {
		return err
	}
	in.PD = append(in.PD, t.o.PD...)
	for round := 0; ; round++ {
		p, err := MakePlan(in, t.o.Plan)
		if err != nil {
			return err
		}
		t.plan = p
		if len(p.Questions) == 0 || round == maxRounds {
			break
		}
		t.o.Say("%d questions to the stores", len(p.Questions))
		if err := t.collect(ctx, &in, CollectOptions{Questions: p.Questions, PlanID: p.PlanID}); err != nil {
			return err
		}
	}
	return t.locate()
}

// MakePlan plans, and proves the plan against the invariants that every plan must keep: a violation is a bug of the planner, and such a plan
// must never be applied. Problems that do not allow any plan are an error.
func MakePlan(in plan.Input, o plan.Options) (*plan.Plan, error) {
	p, problems := plan.Make(in, o)
	if p == nil {
		e := &base.Error{Class: base.ErrProblems, Op: "plan", Offset: -1, Reason: "there is no plan for these reports"}
		if len(problems) > 0 {
			p := problems[0]
			e.Reason, e.Next = fmt.Sprintf("%s, %s: %s", p.Name(), p.Where(), p.What()), p.Next()
		}
		return nil, e
	}
	if v := plan.Check(in, p); len(v) > 0 {
		return nil, fmt.Errorf("the plan breaks its own invariants (%d times): %w", len(v), v[0])
	}
	return p, nil
}

// collect reads the report, or the answers, of every store.
func (t *together) collect(ctx context.Context, in *plan.Input, o CollectOptions) error {
	o.ToTS, o.SafePoint, o.Now, o.Tool = t.o.Plan.ToTS, t.o.Plan.SafePoint, t.o.Now, t.o.Version
	for _, dir := range t.dirs {
		so := t.so
		so.Mode, so.NoRegions = base.LockShared, o.PlanID == ""
		s, err := scan.Open(t.fs, dir, so)
		if err != nil {
			return err
		}
		w := lineWriter{add: in.Add}
		err = Collect(ctx, s, &w, o)
		if e := s.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
	}
	return in.Close()
}

// lineWriter hands whole lines on.
type lineWriter struct {
	add func([]byte) error
	buf []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	for {
		i := bytes.IndexByte(w.buf, '\n')
		if i < 0 {
			return len(p), nil
		}
		if err := w.add(w.buf[:i]); err != nil {
			return 0, err
		}
		w.buf = w.buf[i+1:]
	}
}

// prove looks at every store once more and compares the replicas that stay.
func (t *together) prove(ctx context.Context, res *TogetherResult) error {
	t.o.Say("proving all stores")
	hash := slices.ContainsFunc(t.plan.Regions, func(r plan.RegionPlan) bool { return len(r.KeptStores) > 1 })
	var proofs []*Proof
	for _, part := range t.plan.Stores {
		dir := t.byStore[part.StoreID]
		so := t.so
		so.Mode = base.LockShared
		s, err := scan.Open(t.fs, dir, so)
		if err != nil {
			return err
		}
		m := new(scan.Meter)
		stop := t.o.Watch("verify", m)
		p, err := Prove(ctx, s, ProveOptions{Plan: t.plan, Hash: hash, Threads: t.o.Threads, Meter: m})
		stop()
		if e := s.Close(); err == nil {
			err = e
		}
		if err != nil {
			return err
		}
		if len(p.Findings) > 0 {
			return t.unproven(dir, p.Findings)
		}
		proofs = append(proofs, p)
	}
	if !hash {
		return nil
	}
	differ, compared, _ := Compare(t.plan, proofs)
	if len(differ) > 0 {
		return t.unproven("", differ)
	}
	res.Compared = compared
	return nil
}

func (t *together) unproven(dir string, fs []Finding) error {
	return &base.Error{Class: base.ErrPartial, Op: "verify", Path: dir, Offset: -1, Reason: fmt.Sprintf("%s (%d findings); the fences stay", fs[0], len(fs)),
		Next: "tikv-repair undo DIR, on each store"}
}

func (t *together) release(res *TogetherResult) error {
	for _, part := range t.plan.Stores {
		if part.Idle() {
			continue
		}
		dir := t.byStore[part.StoreID]
		if _, err := Release(t.fs, dir, ReleaseOptions{Plan: t.plan, Results: res.Stores, Overrides: t.so.Overrides, Memory: t.o.Memory}); err != nil {
			return err
		}
	}
	for _, r := range res.Stores {
		r.Fenced = false
	}
	return nil
}
