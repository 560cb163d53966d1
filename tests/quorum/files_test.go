package quorum

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// fleet does what an operator does on many machines: one verb at a time, with files in between.
type fleet struct {
	t  *testing.T
	s  subset
	fs *vfs.MemFS
	o  plan.Options
}

// collect writes the report of each store, or its answers to a plan.
func (f *fleet) collect(suffix string, o repair.CollectOptions) (files []string) {
	f.t.Helper()
	o.Now, o.Tool, o.ToTS, o.SafePoint = now, "test", f.o.ToTS, f.o.SafePoint
	for _, d := range f.s.survive {
		s := open(f.t, f.fs, d)
		file := d + suffix
		must(f.t, repair.WriteReport(base.NewMem(f.fs), file, func(w io.Writer) error { return repair.Collect(f.t.Context(), s, w, o) }))
		must(f.t, s.Close())
		files = append(files, file)
	}
	return files
}

func (f *fleet) plan(files []string) *plan.Plan {
	f.t.Helper()
	fs := base.NewMem(f.fs)
	var in plan.Input
	for _, file := range files {
		must(f.t, repair.ReadReport(fs, file, &in))
	}
	p, err := repair.MakePlan(in, f.o)
	must(f.t, err)
	for _, v := range plan.Check(in, p) {
		f.t.Error(v)
	}
	must(f.t, repair.WritePlan(fs, "/plan.json", p))
	p, err = repair.ReadPlan(fs, "/plan.json")
	must(f.t, err)
	return p
}

// decide is at most one round of questions and answers. It returns how many questions there were.
func (f *fleet) decide() (*plan.Plan, int) {
	f.t.Helper()
	files := f.collect(".report", repair.CollectOptions{})
	p := f.plan(files)
	asked := len(p.Questions)
	if asked == 0 {
		return p, 0
	}
	if p.Final {
		f.t.Error("a plan with questions is final")
	}
	if _, err := f.apply(p, f.s.survive[0]); !errors.Is(err, base.ErrPlanMismatch) || !strings.Contains(base.Next(err), "--answer") {
		f.t.Errorf("apply of a plan with questions: %v; next %q", err, base.Next(err))
	}
	answers := f.collect(".answers", repair.CollectOptions{Questions: p.Questions, PlanID: p.PlanID})
	p = f.plan(append(files, answers...))
	if len(p.Questions) > 0 || !p.Final {
		f.t.Fatalf("there are %d questions after the answers", len(p.Questions))
	}
	return p, asked
}

func (f *fleet) apply(p *plan.Plan, dir string) (*repair.ApplyResult, error) {
	return repair.Apply(f.t.Context(), base.NewMem(f.fs), dir, scan.Options{}, repair.ApplyOptions{Plan: p, Threads: 2, Now: now, Version: "test"})
}

func (f *fleet) release(p *plan.Plan, dir string, results ...string) (*repair.Released, error) {
	f.t.Helper()
	o := repair.ReleaseOptions{Plan: p}
	for _, r := range results {
		res, err := repair.ReadResult(base.NewMem(f.fs), r, p)
		must(f.t, err)
		if res != nil {
			o.Results = append(o.Results, res)
		}
	}
	return repair.Release(base.NewMem(f.fs), dir, o)
}

// undoneDoesNotCount: a store whose part was taken back has its result still, and keeps the others fenced.
func (f *fleet) undoneDoesNotCount(p *plan.Plan, busy []string) {
	t := f.t
	t.Helper()
	other := *f
	other.fs = vfs.NewMem()
	for _, d := range f.s.survive {
		if ok, err := vfs.Clone(f.fs, other.fs, d, d); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	_, err := repair.Undo(base.NewMem(other.fs), busy[1], repair.BackupOptions{})
	must(t, err)
	if _, err := other.release(p, busy[0], f.s.survive...); !errors.Is(err, base.ErrPlanMismatch) || !open(t, other.fs, busy[0]).Fenced() {
		t.Errorf("release of %s after the undo of %s: %v", busy[0], busy[1], err)
	}
}

// repairAll applies on each store, proves all, and releases.
func (f *fleet) repairAll(p *plan.Plan) {
	t := f.t
	t.Helper()
	var busy []string
	for _, d := range f.s.survive {
		if !p.Store(f.s.ids[d]).Idle() {
			busy = append(busy, d)
		}
	}
	for i, d := range f.s.survive {
		before := tree(t, f.fs, d, true)
		res, err := f.apply(p, d)
		if err != nil {
			t.Fatalf("apply %s: %v\nnext: %s", d, err, base.Next(err))
		}
		if !slices.Contains(busy, d) {
			if res.State != repair.StateUnchanged {
				t.Errorf("%s has nothing to do: %q", d, res.State)
			}
			same(t, "apply on a store without a part", tree(t, f.fs, d, true), before)
			continue
		}
		several := len(busy) > 1
		if res.State != repair.StateDone || res.Fenced != several || open(t, f.fs, d).Fenced() != several {
			t.Errorf("apply %s: %q, fenced %v", d, res.State, res.Fenced)
		}
		// A second time: nothing.
		before = tree(t, f.fs, d, true)
		if res, err := f.apply(p, d); err != nil || res.State != repair.StateDone || !res.DoneBefore || res.Fenced != several {
			t.Errorf("apply %s again: %+v, %v", d, res, err)
		}
		same(t, "a second apply", tree(t, f.fs, d, true), before)
		if several && i < len(f.s.survive)-1 && d != busy[len(busy)-1] {
			if _, err := f.release(p, d, f.s.survive...); !errors.Is(err, base.ErrPlanMismatch) {
				t.Errorf("release of %s while others are not done: %v", d, err)
			}
		}
	}
	if len(busy) < 2 {
		return
	}
	f.prove(p)
	f.undoneDoesNotCount(p, busy)
	for _, d := range busy {
		if _, err := f.release(p, d); !errors.Is(err, base.ErrPlanMismatch) || !strings.Contains(err.Error(), "no result") {
			t.Errorf("release of %s without the others' results: %v", d, err)
		}
		for again, want := range []string{repair.StateReleased, repair.StateUnchanged} {
			if res, err := f.release(p, d, f.s.survive...); err != nil || res.State != want {
				t.Errorf("release of %s, time %d: %+v, %v", d, again, res, err)
			}
		}
		if res, err := f.apply(p, d); err != nil || res.Fenced || !res.DoneBefore {
			t.Errorf("apply after the release of %s: %+v, %v", d, res, err)
		}
	}
}

// prove compares the stores by the files that verify writes.
func (f *fleet) prove(p *plan.Plan) {
	t := f.t
	t.Helper()
	fs := base.NewMem(f.fs)
	var proofs []*repair.Proof
	for _, d := range f.s.survive {
		s := open(t, f.fs, d)
		proof, err := repair.Prove(t.Context(), s, repair.ProveOptions{Plan: p, Hash: true, Threads: 2})
		must(t, err)
		must(t, repair.WriteProof(fs, d+".proof", proof))
		if proof, err = repair.ReadProof(fs, d+".proof"); err != nil || len(proof.Findings) > 0 {
			t.Fatalf("%s: %v %v", d, err, proof)
		}
		proofs = append(proofs, proof)
	}
	if differ, _, missing := repair.Compare(p, proofs); len(differ) > 0 || missing > 0 {
		t.Errorf("%d regions not compared, %v", missing, differ)
	}
}

// The verbs one by one, with files in between, give the same stores as one command does, byte for byte; also where log entries travel from one
// store to another in the plan.
func TestFilesAndOneCommandAgree(t *testing.T) {
	carried, asked := 0, 0
	for _, c := range []struct {
		name   string
		dirs   []string
		rewind bool
	}{
		{"multi3-lost2", []string{"/store2"}, false},
		{"multi4-dr-learner", []string{"/store0", "/store3"}, false},
		{"multi4-dr-learner", []string{"/store2", "/store3"}, true},
		{"multi5-lost3", []string{"/store0", "/store2", "/store3"}, false},
		{"multi5-lost3", []string{"/store0", "/store2", "/store1"}, true},
		{"multi3-merging-early", []string{"/store0", "/store2"}, true},
		{"multi3-merging-late", []string{"/store1", "/store2"}, true},
	} {
		a := load(t, c.name)
		s := a.survivors(c.dirs...)
		ts := mvcc.TS(0)
		if c.rewind {
			ts = a.moments(t)[1]
		}
		t.Run(c.name+"/"+s.String(), func(t *testing.T) {
			f := &fleet{t, s, s.copyOf(t), s.options(ts)}
			p, n := f.decide()
			asked += n
			for _, r := range p.Carried {
				carried += len(r.Entries)
			}
			f.repairAll(p)
			mem := s.copyOf(t)
			res, err := together(t, base.NewMem(mem), s, s.options(ts))
			must(t, err)
			if res.PlanID != p.PlanID || res.Plan.Summary.Rewritten != p.Summary.Rewritten {
				t.Errorf("two plans: %+v, %+v", res.Plan.Summary, p.Summary)
			}
			same(t, "the verbs one by one, and one command", s.trees(t, f.fs, false), s.trees(t, mem, false))
			s.undo(t, f.fs, p)
		})
	}
	if carried == 0 || asked == 0 {
		t.Errorf("%d questions, %d entries carried", asked, carried)
	}
	t.Logf("%d questions, %d entries carried", asked, carried)
}
