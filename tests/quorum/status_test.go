package quorum

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// stuck is a disk on which one file cannot be replaced.
type stuck struct {
	base.FS
	file string
}

func (s stuck) Rename(from, to string) error {
	if strings.HasSuffix(to, s.file) {
		return &os.PathError{Op: "rename", Path: to, Err: syscall.EIO}
	}
	return s.FS.Rename(from, to)
}

// status tells how far each operation of a plan has come on a store, why it stopped, and what to type.
func TestStatusOfAPlan(t *testing.T) {
	a := load(t, "multi4-dr-learner")
	s := a.survivors("/store0", "/store3")
	f := &fleet{t, s, s.copyOf(t), s.options(a.moments(t)[0])}
	f.o.PlanID = "plan-test"
	p, _ := f.decide()
	const dir = "/store0"
	check := func(when, state, next, wrong string, fenced bool) {
		t.Helper()
		bs, err := repair.Status(base.NewMem(f.fs), dir)
		must(t, err)
		if len(bs) != 1 {
			t.Fatalf("%s: %d repairs", when, len(bs))
		}
		b := bs[0]
		if b.State != state || b.Fenced != fenced || b.StoreID != s.ids[dir] || b.Started == "" || !strings.Contains(b.Next, next) || !strings.Contains(b.Error, wrong) || (b.Error == "") != (wrong == "") {
			t.Errorf("%s: %+v", when, b)
		}
		// One for each region, and the rewind of the whole store.
		if len(b.Operations) != len(p.Store(s.ids[dir]).Actions)+1 {
			t.Errorf("%s: %d operations", when, len(b.Operations))
		}
		for i, o := range b.Operations {
			last := i == len(b.Operations)-1
			if o.ID != i+1 || o.State != state || o.Store != b.StoreID || o.Error != b.Error || (o.Region == 0) != last || (o.Kind == "rewind") != last || (o.Ended != "") != (b.Result != nil) {
				t.Errorf("%s: %+v", when, o)
			}
		}
		res, ok := b.Result.(*repair.ApplyResult)
		if (b.Result != nil) != ok || ok && (res.PlanHash != p.Hash || res.State != repair.StateDone) {
			t.Errorf("%s: result %+v", when, b.Result)
		}
	}
	broken := stuck{base.NewMem(f.fs), "/db/CURRENT"}
	_, err := repair.Apply(t.Context(), broken, dir, scan.Options{}, repair.ApplyOptions{Plan: p, Threads: 2, Now: now})
	if !errors.Is(err, base.ErrPartial) || !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	check("stopped", "staged", "tikv-repair apply --plan PLAN /store0", "rename", true)
	_, err = f.apply(p, dir)
	must(t, err)
	check("done", "done", "tikv-repair release --plan PLAN /store0 RESULT", "", true)
	_, err = f.apply(p, "/store3")
	must(t, err)
	_, err = f.release(p, dir, s.survive...)
	must(t, err)
	check("released", "done", "start TiKV; or tikv-repair undo /store0", "", false)
	_, err = repair.Undo(base.NewMem(f.fs), dir, repair.BackupOptions{})
	must(t, err)
	check("undone", "undone", "tikv-repair discard --plan-id plan-test /store0", "", false)
}

// A directory that is mounted elsewhere is the same store: a report, a plan and an undo fit it.
func TestAnotherPathIsTheSameStore(t *testing.T) {
	a := load(t, "multi3-lost2")
	s := a.survivors("/store2")
	f := &fleet{t, s, s.copyOf(t), s.options(0)}
	p, _ := f.decide()
	const elsewhere = "/mnt/volume7/tikv"
	moved := vfs.NewMem()
	if ok, err := vfs.Clone(f.fs, moved, "/store2", elsewhere); err != nil || !ok {
		t.Fatal(ok, err)
	}
	before := tree(t, moved, elsewhere, false)
	if res, err := repair.Apply(t.Context(), base.NewMem(moved), elsewhere, scan.Options{}, repair.ApplyOptions{Plan: p, Threads: 2, Now: now}); err != nil || res.State != repair.StateDone {
		t.Fatal(res, err)
	}
	// And once more elsewhere, for the way back.
	const third = "/srv/tikv"
	back := vfs.NewMem()
	if ok, err := vfs.Clone(moved, back, elsewhere, third); err != nil || !ok {
		t.Fatal(ok, err)
	}
	_, err := repair.Undo(base.NewMem(back), third, repair.BackupOptions{})
	must(t, err)
	after := map[string]string{}
	for path, what := range tree(t, back, third, false) {
		after[strings.Replace(path, third, elsewhere, 1)] = what
	}
	same(t, "after undo", after, before)
}
