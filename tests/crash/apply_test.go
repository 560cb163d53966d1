package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// quorumLost is a cluster with a plan that does everything that a plan can do to one of its stores.
type quorumLost struct {
	name      string
	survivors []string
	failed    []uint64
	subject   string // the store that crashes
	tombstone uint64 // a region whose replica on the subject goes
	recreate  uint64 // a region that is replaced by an empty one
	stride    int
}

// linesOf hands the lines of a report to a plan's input.
type linesOf struct {
	t   *testing.T
	in  *plan.Input
	buf []byte
}

func (l *linesOf) Write(p []byte) (int, error) {
	l.buf = append(l.buf, p...)
	for {
		i := bytes.IndexByte(l.buf, '\n')
		if i < 0 {
			return len(p), nil
		}
		must(l.t, l.in.Add(l.buf[:i]))
		l.buf = l.buf[i+1:]
	}
}

// plan decides for all survivors, with a rewind into the middle of the load that was cut off.
func (q quorumLost) plan(t *testing.T) *plan.Plan {
	t.Helper()
	mem := fixtures.Mem(t, q.name)
	commits := fixtures.History(t, q.name)
	ts := mvcc.TS(commits[len(commits)-len(commits)/16].CommitTS)
	in := &plan.Input{}
	collect := func(o repair.CollectOptions) {
		o.ToTS, o.SafePoint, o.Now = ts, 1, now
		for _, d := range q.survivors {
			s, err := scan.Open(base.NewMem(mem), d, scan.Options{})
			must(t, err)
			must(t, repair.Collect(context.Background(), s, &linesOf{t: t, in: in}, o))
			must(t, s.Close())
		}
		must(t, in.Close())
	}
	s, err := scan.Open(base.NewMem(mem), q.subject, scan.Options{})
	must(t, err)
	store := s.Ident.StoreID
	must(t, s.Close())
	o := plan.Options{PlanID: "plan-crash", Made: "2026-09-21T00:00:00Z", FailedStores: q.failed, ToTS: ts, SafePoint: 1, Recreate: []uint64{q.recreate},
		Tombstones: []plan.RegionStore{{Region: q.tombstone, Store: store}}, Forced: []string{"empty-region", "certain-loss", "last-replica", "bad-override"}}
	collect(repair.CollectOptions{})
	p, err := repair.MakePlan(*in, o)
	must(t, err)
	if len(p.Questions) > 0 {
		collect(repair.CollectOptions{Questions: p.Questions, PlanID: p.PlanID})
		p, err = repair.MakePlan(*in, o)
		must(t, err)
	}
	if bad := p.Blocking(); len(bad) > 0 || !p.Final {
		t.Fatalf("final %v, %+v", p.Final, bad)
	}
	q.worthIt(t, p, store)
	return p
}

// worthIt wants the subject's part to hold everything.
func (q quorumLost) worthIt(t *testing.T, p *plan.Plan, store uint64) {
	t.Helper()
	part := p.Store(store)
	kinds := map[plan.ActionKind]int{}
	carried := 0
	for _, a := range part.Actions {
		kinds[a.Kind]++
		if a.Apply != nil && a.Apply.CarriedFrom != 0 {
			carried++
		}
	}
	t.Logf("%s%s: %v, %d regions take entries of another store, rewind %v", q.name, q.subject, kinds, carried, part.Rewind)
	if kinds[plan.ActionRewrite] == 0 || kinds[plan.ActionTombstone] == 0 || kinds[plan.ActionCreate] == 0 || carried == 0 || !part.Rewind || p.Busy() < 2 {
		t.Error("the plan does not do everything")
	}
}

// applying makes apply of a plan for several stores the command under test: it ends fenced.
func (q quorumLost) applying(t *testing.T, p *plan.Plan) option {
	before := storeOf(t, q.name, q.subject)
	return func(w *world) {
		w.before, w.stays = before, true
		w.edit = func(fs base.FS, at time.Time) (*repair.Result, error) {
			res, err := repair.Apply(context.Background(), fs, dataDir, scan.Options{}, repair.ApplyOptions{Plan: p, Threads: 1, Now: at})
			if res == nil {
				return nil, err
			}
			out := &repair.Result{State: res.State, PlanID: res.PlanID}
			if res.DoneBefore {
				out.State = repair.StateUnchanged
			}
			return out, err
		}
	}
}

// releaseVerb removes the fence, given that the other stores are done.
func (w *world) releaseVerb(p *plan.Plan, start *vfs.MemFS) verb {
	return verb{"release", start, func(fs base.FS) error {
		res, err := repair.Release(fs, dataDir, repair.ReleaseOptions{Plan: p, Results: othersDone(p)})
		if err == nil && res.State != repair.StateReleased && res.State != repair.StateUnchanged {
			return fmt.Errorf("release says %q", res.State)
		}
		return err
	}, func(s state) string {
		if s.sum != w.afterSum || s.fenced {
			return "release reports success, but the store is not the repaired one, or fenced"
		}
		return ""
	}}
}

// othersDone are results of all stores, as if they had been done elsewhere; the own one is read from the store.
func othersDone(p *plan.Plan) (out []*repair.ApplyResult) {
	for _, s := range p.Stores {
		if !s.Idle() {
			out = append(out, &repair.ApplyResult{PlanID: p.PlanID, PlanHash: p.Hash, ClusterID: p.ClusterID, StoreID: s.StoreID, State: repair.StateDone})
		}
	}
	return out
}

var lostQuorums = []quorumLost{
	{name: "multi4-dr-learner", survivors: []string{"/store0", "/store3"}, failed: []uint64{1, 8}, subject: "/store0", tombstone: 32, recreate: 3, stride: 3},
	{name: "multi5-lost3", survivors: []string{"/store3", "/store4"}, failed: []uint64{1, 4, 8}, subject: "/store4", tombstone: 61, recreate: 73, stride: 4},
}

// One store's part of a plan that rewrites, tombstones and creates regions, takes log entries of another store and rewinds, in both kinds of
// raft store: every changing operation fails, or the power goes off there. What is left is whole and fenced, or as before; a rerun finishes,
// and the fence stays until release; undo takes it back.
func TestCrashApplyPlan(t *testing.T) {
	for _, q := range lostQuorums {
		t.Run(q.name, func(t *testing.T) {
			p := q.plan(t)
			w := newWorld(t, q.applying(t, p))
			defer w.report(time.Now())
			apply, undo := w.resetVerb("apply", w.before), w.undoVerb("undo", w.after)
			// Both archives together come to every place; one more write of a table is not another place.
			w.failWrites(apply, q.stride+2)
			w.cutPower(apply, q.stride)
			w.failWrites(undo, q.stride+2)
			w.cutPower(undo, q.stride)
			w.releasing = true
			release := w.releaseVerb(p, w.after)
			w.failWrites(release, 1)
			w.cutPower(release, 1)
			w.refusesToRelease(p)
		})
	}
}

// refusesToRelease: a store whose part is not done stays fenced, whatever the others say; and so does one when another has not reported.
func (w *world) refusesToRelease(p *plan.Plan) {
	t := w.t
	half := w.interrupted(w.resetVerb("apply", w.before), "rename "+dataDir+"/db/CURRENT")
	for what, c := range map[string]struct {
		mem     *vfs.MemFS
		results []*repair.ApplyResult
	}{
		"half published":            {half, othersDone(p)},
		"another store is not done": {w.after.CrashClone(vfs.CrashCloneCfg{}), nil},
	} {
		before, err := tree(c.mem, dataDir)
		must(t, err)
		_, err = repair.Release(base.NewMem(c.mem), dataDir, repair.ReleaseOptions{Plan: p, Results: c.results})
		if !errors.Is(err, base.ErrPlanMismatch) || base.Next(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
		after, err := tree(c.mem, dataDir)
		must(t, err)
		if d := differ(after, before); d != "" {
			t.Errorf("%s: a refused release has written: %s", what, d)
		}
	}
}
