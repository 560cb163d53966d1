package crash

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// ctrlC is a file system on which Ctrl-C comes at the k-th time that a run asks whether it has been: before every file operation, and in
// loops that touch none; 0: never.
func ctrlC(fs base.FS, k int64) (watched base.FS, asked *atomic.Int64, p *base.Pulse) {
	asked = new(atomic.Int64)
	p = base.NewPulse(func() time.Time { return now }, func() error {
		if n := asked.Add(1); k == 0 || n < k {
			return nil
		}
		return &base.Error{Class: base.ErrInterrupted, Op: "interrupted", Offset: -1, Err: context.Canceled}
	})
	return p.Watch(fs), asked, p
}

// interruptions lets Ctrl-C come everywhere in a verb. The error says so and nothing else, with what to type next as long as the fence is
// up; what is left is a state that a rerun finishes and undo takes back.
func (w *world) interruptions(v verb, stride int) {
	fs, asked, _ := ctrlC(base.NewMem(v.start.CrashClone(vfs.CrashCloneCfg{})), 0)
	if err := v.run(fs); err != nil {
		w.t.Fatalf("%s: %v", v.name, err)
	}
	n, stride := int(asked.Load()), sparser(stride)
	each(n, stride, func(k int) {
		w.points.Add(1)
		label := fmt.Sprintf("%s, Ctrl-C at question %d", v.name, k)
		mem := v.start.CrashClone(vfs.CrashCloneCfg{})
		fs, asked, p := ctrlC(base.NewMem(mem), int64(k))
		err := v.run(fs)
		s, ok := w.look(label, mem)
		if !ok {
			return
		}
		w.examine(label, mem)
		if err == nil && !p.Refused() {
			if bad := v.done(s); bad != "" {
				w.fail(label, "%s", bad)
			}
			return
		}
		if asked.Load() < int64(k) {
			w.fail(label, "an error before it: %v", err)
		}
		if bad := interruptedError(err, s.fenced); bad != "" {
			w.fail(label, "%s: %v", bad, err)
		}
	})
	w.t.Logf("%s: Ctrl-C at every %d. of %d questions", v.name, stride, n)
}

func interruptedError(err error, fenced bool) string {
	var e *base.Error
	switch {
	case err == nil:
		return "" // what was refused came after the end; the command line says 130 all the same
	case !errors.As(err, &e) || !errors.Is(e.Class, base.ErrInterrupted) || !errors.Is(err, context.Canceled):
		return "another error than that it was interrupted"
	case fenced && base.Next(err) == "":
		return "the fence is up, and no word about what to do next"
	}
	return ""
}

// A rewind that changes tables and the raft store, its undo, a second undo of an interrupted one, and discard.
func TestCrashCtrlCReset(t *testing.T) {
	w := newWorld(t)
	defer w.report(time.Now())
	reset, undo := w.resetVerb("reset", w.before), w.undoVerb("undo", w.after)
	w.interruptions(reset, 1)
	w.interruptions(undo, 1)
	w.interruptions(w.resetVerb("reset again", w.interrupted(reset, "rename "+dataDir+"/db/CURRENT")), 1)
	w.interruptions(w.undoVerb("undo half published", w.interrupted(reset, "rename "+dataDir+"/db/CURRENT")), 1)
	w.interruptions(w.discardVerb("discard", w.after), 1)
}

// Edits by hand, on both raft stores.
func TestCrashCtrlCByHand(t *testing.T) {
	for name, mem := range map[string]*vfs.MemFS{
		"raft-engine": withZeros(t, withTails(t, withZeros(t, storeOf(t, "multi5-lost3", "/store0")))), "raft RocksDB": storeOf(t, "multi4-dr-learner", "/store0"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, cutting(mem))
			defer w.report(time.Now())
			w.interruptions(w.resetVerb("cut-tail", w.before), 1)
			w.interruptions(w.undoVerb("undo", w.after), 1)
		})
	}
}

// Entries of two other stores are taken in and applied.
func TestCrashCtrlCApplyTail(t *testing.T) {
	const name = "multi5-lost3"
	mem := storeOf(t, name, "/store1")
	var sources []string // in the directory that the states of this suite consist of
	for _, d := range []string{"/store3", "/store4"} {
		files, err := tree(fixtures.Mem(t, name), d)
		must(t, err)
		to := dataDir + "/from" + d
		sources = append(sources, to)
		must(t, mem.MkdirAll(to, 0o755))
		dirs := []string{dataDir, dataDir + "/from", to}
		for _, p := range sorted(files) {
			if strings.HasSuffix(p, "/") {
				must(t, mem.MkdirAll(path.Join(to, p), 0o755))
				dirs = append(dirs, path.Join(to, p))
			}
		}
		for _, p := range sorted(files) {
			if !strings.HasSuffix(p, "/") {
				must(t, base.WriteFileSync(base.NewMem(mem), path.Join(to, p), []byte(files[p]), ""))
			}
		}
		syncDirs(t, mem, dirs)
	}
	w := newWorld(t, byHand(mem, repair.ApplyTail, repair.HandArgs{From: sources}))
	defer w.report(time.Now())
	if kvOf(w.beforeSum) == kvOf(w.afterSum) {
		t.Error("nothing is applied")
	}
	w.interruptions(w.resetVerb("apply-tail", w.before), 3)
	w.interruptions(w.undoVerb("undo", w.after), 3)
}

// One store's part of a plan, its undo, and the release.
func TestCrashCtrlCApply(t *testing.T) {
	q := lostQuorums[0]
	p := q.plan(t)
	w := newWorld(t, q.applying(t, p))
	defer w.report(time.Now())
	w.interruptions(w.resetVerb("apply", w.before), 3)
	w.interruptions(w.undoVerb("undo", w.after), 3)
	w.releasing = true
	w.interruptions(w.releaseVerb(p, w.after), 1)
}

// One command for all stores: no store can be started before all are repaired, and the same command goes on.
func TestCrashCtrlCTogether(t *testing.T) {
	m := newMachine(t, "multi4-dr-learner", []string{"/store0", "/store3"}, []uint64{1, 8}, 0)
	fs, asked, _ := ctrlC(base.NewMem(m.before.CrashClone(vfs.CrashCloneCfg{})), 0)
	if _, err := m.run(fs, now, m.dirs); err != nil {
		t.Fatal(err)
	}
	n, stride, points := asked.Load(), int64(sparser(48)), 0
	seen := map[[2]int]int{}
	for k := int64(1); k <= n; k += stride {
		mem := m.before.CrashClone(vfs.CrashCloneCfg{})
		fs, _, _ := ctrlC(base.NewMem(mem), k)
		_, err := m.run(fs, now, m.dirs)
		label := fmt.Sprintf("Ctrl-C at question %d", k)
		begun, released := m.examine(t, label, mem)
		if bad := interruptedError(err, begun > 0); bad != "" {
			t.Errorf("%s: %s: %v", label, bad, err)
		}
		seen[[2]int{begun, released}]++
		points++
	}
	t.Logf("Ctrl-C at %d of %d questions; fenced and released stores: %v", points, n, seen)
	if seen[[2]int{0, 0}] == 0 || seen[[2]int{2, 0}] == 0 {
		t.Error("Ctrl-C never came before the first fence, or never with all of them up")
	}
}

// interruptions lets Ctrl-C come everywhere in clean, or in its undo.
func (w *moving) interruptions(v moveVerb) {
	fs, asked, _ := ctrlC(base.NewMem(v.start.CrashClone(vfs.CrashCloneCfg{})), 0)
	must(w.t, v.run(fs))
	n := asked.Load()
	for k := int64(1); k <= n; k++ {
		mem := v.start.CrashClone(vfs.CrashCloneCfg{})
		fs, _, p := ctrlC(base.NewMem(mem), k)
		err := v.run(fs)
		label := fmt.Sprintf("%s, Ctrl-C at question %d", v.name, k)
		w.points++
		w.examine(label, mem)
		if err == nil && !p.Refused() {
			continue
		}
		if bad := interruptedError(err, w.isFenced(mem)); bad != "" {
			w.t.Errorf("%s: %s: %v", label, bad, err)
		}
	}
	w.t.Logf("%s: Ctrl-C at every one of %d questions", v.name, n)
}
