package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// moving is a directory from which clean takes something away, and everything that has to hold of every state in between: nothing
// else is touched, what goes is in its place or whole in the backup, a rerun ends clean, undo ends as before.
type moving struct {
	t      *testing.T
	before *vfs.MemFS
	tree   map[string]string // before
	// goes tells which paths clean takes away.
	goes func(path string) bool
	// fenced: clean puts up a fence.
	fenced bool
	// restart plays a start of the server in the middle; nil: none.
	restart func(mem *vfs.MemFS)
	// also has been written by a start before the first state.
	also string

	seen           map[string]bool
	points, states int
}

// moveVerb is clean or undo from a state.
type moveVerb struct {
	name  string
	start *vfs.MemFS
	run   func(fs base.FS) error
}

func (w *moving) clean(fs base.FS, at time.Time) (string, error) {
	res, err := repair.Clean(fs, []string{dataDir}, repair.CleanOptions{Now: at})
	if err != nil {
		return "", err
	}
	return res.State, nil
}

func (w *moving) cleanVerb(start *vfs.MemFS) moveVerb {
	return moveVerb{"clean", start, func(fs base.FS) error { _, err := w.clean(fs, now); return err }}
}

func (w *moving) undoVerb(start *vfs.MemFS) moveVerb {
	return moveVerb{"undo", start, func(fs base.FS) error { _, err := repair.Undo(fs, dataDir, repair.BackupOptions{}); return err }}
}

func memFaults(mem *vfs.MemFS, f *faults) base.FS { return faultFS{base.NewMem(mem), f} }

func (w *moving) writes(v moveVerb) int {
	w.t.Helper()
	f := &faults{}
	if err := v.run(memFaults(v.start.CrashClone(vfs.CrashCloneCfg{}), f)); err != nil {
		w.t.Fatalf("%s: %v", v.name, err)
	}
	return f.writes
}

// everywhere makes every changing operation fail, and cuts the power there with every outcome.
func (w *moving) everywhere(v moveVerb) {
	n := w.writes(v)
	for k := 1; k <= n; k++ {
		for _, m := range []struct {
			err   error
			stuck bool
		}{{syscall.EIO, false}, {syscall.ENOSPC, true}} {
			mem, f := v.start.CrashClone(vfs.CrashCloneCfg{}), &faults{write: k, err: m.err, stuck: m.stuck}
			err := v.run(memFaults(mem, f))
			label := fmt.Sprintf("%s, %v at write %d (%s)", v.name, m.err, k, f.failed)
			w.points++
			w.examine(label, mem)
			switch fenced := w.isFenced(mem); {
			case err == nil && !strings.HasPrefix(f.failed, "link ") && !strings.HasPrefix(f.failed, "mkdir "): // a copy takes the place of a link
				w.t.Errorf("%s: success", label)
			case err == nil:
			case !errors.Is(err, m.err) || base.Next(err) == "":
				w.t.Errorf("%s: %v, next %q", label, err, base.Next(err))
			case w.fenced && errors.Is(err, base.ErrPartial) != fenced:
				w.t.Errorf("%s: fence up: %v, %v", label, fenced, err)
			}
		}
		mem := v.start.CrashClone(vfs.CrashCloneCfg{})
		f := &faults{write: k, cut: true}
		if err := v.run(memFaults(mem, f)); err == nil && f.off {
			w.t.Errorf("%s: success without power at write %d", v.name, k)
		}
		label := fmt.Sprintf("%s, power off at write %d (%s)", v.name, k, f.failed)
		for _, percent := range []int{0, 50, 100} {
			w.points++
			cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, uint64(k)))}
			w.examine(fmt.Sprintf("%s, %d%% of what was not synced", label, percent), mem.CrashClone(cfg))
		}
		w.points += 2
		w.examine(label+", process killed", mem)
		t, err := tree(mem, dataDir)
		must(w.t, err)
		dirs := []string{"/", dataDir}
		for p := range t {
			if strings.HasSuffix(p, "/") {
				dirs = append(dirs, path.Join(dataDir, p))
			}
		}
		syncDirs(w.t, mem, dirs)
		w.examine(label+", names without unsynced content", mem.CrashClone(vfs.CrashCloneCfg{}))
	}
	w.t.Logf("%s: %d changing operations", v.name, n)
}

func (w *moving) isFenced(mem *vfs.MemFS) bool {
	f, err := engine.ReadFence(base.NewMem(mem), dataDir)
	must(w.t, err)
	return f != nil && f.Ours
}

func (w *moving) examine(label string, live *vfs.MemFS) {
	t, err := tree(live, dataDir)
	must(w.t, err)
	if h := hashTree(t); w.seen[h] {
		return
	} else {
		w.seen[h] = true
	}
	w.states++
	mem := settle(w.t, live)
	w.whole(label, mem, w.also)
	w.finishes(label+", then clean", mem.CrashClone(vfs.CrashCloneCfg{}), w.also)
	w.takesBack(label+", then undo", mem.CrashClone(vfs.CrashCloneCfg{}), w.also)
	if w.restart == nil || !w.isFenced(mem) {
		return
	}
	// The operator, or systemd, starts the server in between.
	w.restart(mem)
	w.finishes(label+", a start, then clean", mem.CrashClone(vfs.CrashCloneCfg{}), restarted)
	w.takesBack(label+", a start, then undo", mem, restarted)
}

// restarted is what a start that the fence stops writes.
const restarted = "# written by a start that was stopped\n"

// whole: nothing but what goes has changed, and that is in one piece where it was or in the backup; so is what a start has written.
func (w *moving) whole(label string, mem *vfs.MemFS, also string) {
	all, err := tree(mem, dataDir)
	must(w.t, err)
	rest, kept := map[string]string{}, map[string]bool{}
	for p, b := range withoutHarmless(all) {
		switch {
		case strings.HasPrefix(p, "tikv-repair/") || w.goes(p):
			kept[path.Base(p)+b] = true
			if strings.Contains(p, "/again/") {
				kept[b] = true
			}
		case p != engine.PanicMark:
			rest[p] = b
		}
	}
	want := map[string]string{}
	for p, b := range w.tree {
		if !w.goes(p) {
			want[p] = b
		} else if !strings.HasSuffix(p, "/") && !kept[path.Base(p)+b] {
			w.t.Errorf("%s: the content of %s is lost", label, p)
		}
	}
	if also != "" && !kept[also] && !kept[engine.LastConfig+also] {
		w.t.Errorf("%s: what the start has written is lost", label)
	}
	if d := differ(rest, want); d != "" {
		w.t.Errorf("%s: %s", label, d)
	}
}

func (w *moving) isClean(label string, mem *vfs.MemFS) {
	all, err := tree(mem, dataDir)
	must(w.t, err)
	for p := range all {
		if w.goes(p) {
			w.t.Errorf("%s: %s is still there", label, p)
		}
	}
	if w.isFenced(mem) {
		w.t.Errorf("%s: the fence is up", label)
	}
}

// finishes: the same command ends clean, and a second one writes nothing.
func (w *moving) finishes(label string, mem *vfs.MemFS, also string) {
	if _, err := w.clean(base.NewMem(mem), later); err != nil {
		if !undoBegan(mem) || !errors.Is(err, base.ErrPlanMismatch) || !strings.Contains(base.Next(err), "undo") {
			w.t.Errorf("%s: %v", label, err)
			return
		}
		if _, err := repair.Undo(base.NewMem(mem), dataDir, repair.BackupOptions{}); err != nil {
			w.t.Errorf("%s: undo: %v", label, err)
			return
		}
		if _, err := w.clean(base.NewMem(mem), later); err != nil {
			w.t.Errorf("%s: after the undo: %v", label, err)
			return
		}
	}
	w.whole(label, mem, also)
	w.isClean(label, mem)
	was, err := tree(mem, dataDir)
	must(w.t, err)
	if state, err := w.clean(base.NewMem(mem), later.Add(time.Hour)); err != nil || state != repair.StateUnchanged {
		w.t.Errorf("%s: the second rerun says %q, %v", label, state, err)
	}
	if is, err := tree(mem, dataDir); err != nil || differ(is, was) != "" {
		w.t.Errorf("%s: the second rerun has written: %v %s", label, err, differ(is, was))
	}
	ps, err := plans(mem)
	must(w.t, err)
	for _, p := range ps {
		if !slices.Contains([]edit.State{edit.Done, edit.Undone, ""}, p.J.State) {
			w.t.Errorf("%s: plan %s is left in state %s", label, p.J.PlanID, p.J.State)
		}
	}
	if len(ps) == 0 || ps[len(ps)-1].J.State != edit.Done {
		return // undone from a state in which nothing was saved
	}
	w.takesBack(label+", then undo", mem, also)
}

// takesBack: undo ends with every file as it was.
func (w *moving) takesBack(label string, mem *vfs.MemFS, also string) {
	was, err := tree(mem, dataDir)
	must(w.t, err)
	_, err = repair.Undo(base.NewMem(mem), dataDir, repair.BackupOptions{})
	is, terr := tree(mem, dataDir)
	must(w.t, terr)
	if err != nil {
		ps, lerr := plans(mem)
		must(w.t, lerr)
		for _, p := range ps {
			if p.J.State != "" {
				w.t.Errorf("%s: in state %s: %v", label, p.J.State, err)
			}
		}
		if differ(is, was) != "" {
			w.t.Errorf("%s: a refused undo has written: %s", label, differ(is, was))
		}
		return
	}
	if d := differ(withoutHarmless(withoutBackups(is)), w.tree); d != "" {
		w.t.Errorf("%s: %s", label, d)
	}
	w.whole(label, mem, also)
	if _, err := repair.Undo(base.NewMem(mem), dataDir, repair.BackupOptions{}); err != nil {
		w.t.Errorf("%s: a second time: %v", label, err)
	}
	if again, err := tree(mem, dataDir); err != nil || differ(again, is) != "" {
		w.t.Errorf("%s: a second undo has written: %v %s", label, err, differ(again, is))
	}
}

func (w *moving) all() {
	began := time.Now()
	var err error
	w.seen = map[string]bool{}
	w.tree, err = tree(w.before, dataDir)
	must(w.t, err)
	after := w.before.CrashClone(vfs.CrashCloneCfg{})
	if state, err := w.clean(base.NewMem(after), now); err != nil || state != repair.StateDone {
		w.t.Fatal(state, err)
	}
	w.isClean("uninterrupted", after)
	for _, v := range []moveVerb{w.cleanVerb(w.before), w.undoVerb(settle(w.t, after))} {
		w.everywhere(v)
		w.interruptions(v)
	}
	if w.restart != nil {
		// Interrupted just before it moves anything, and started.
		half := w.before.CrashClone(vfs.CrashCloneCfg{})
		f := &faults{}
		must(w.t, w.cleanVerb(w.before).run(memFaults(w.before.CrashClone(vfs.CrashCloneCfg{}), f)))
		at := slices.Index(f.names, "remove "+dataDir+"/"+engine.LastConfig)
		if err := w.cleanVerb(half).run(memFaults(half, &faults{write: at + 1, cut: true})); at < 0 || err == nil {
			w.t.Fatalf("%d: %v in %v", at, err, f.names)
		}
		half = settle(w.t, half)
		w.restart(half)
		w.restart, w.also = nil, restarted
		w.everywhere(w.cleanVerb(half))
		w.everywhere(w.undoVerb(half))
	}
	w.t.Logf("%d points, %d different states, seed %d, %.1f s", w.points, w.states, seed, time.Since(began).Seconds())
}

// cleanStore is a store of which only the files are there that say what it is: clean opens no database.
func cleanStore(t *testing.T) *vfs.MemFS {
	t.Helper()
	from, err := tree(fixtures.Mem(t, "single-raftdb"), "/data")
	must(t, err)
	mem := vfs.NewCrashableMem()
	dirs := map[string]bool{"/": true, dataDir: true}
	for p, b := range from {
		name := path.Base(p)
		if strings.HasSuffix(p, "/") || !strings.HasPrefix(name, "OPTIONS-") && name != "CURRENT" && name != "LOCK" && name != engine.LastConfig {
			continue
		}
		full := path.Join(dataDir, p)
		must(t, mem.MkdirAll(path.Dir(full), 0o755))
		must(t, base.WriteFileSync(base.NewMem(mem), full, []byte(b), ""))
		for d := path.Dir(full); d != "/"; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	var all []string
	for d := range dirs {
		all = append(all, d)
	}
	syncDirs(t, mem, all)
	return mem
}

// clean and its undo on a store, at every changing operation; and a start that the fence stops, which writes last_tikv.toml, in every
// state in which the fence is up.
func TestCrashCleanStore(t *testing.T) {
	w := &moving{t: t, before: cleanStore(t), fenced: true, goes: func(p string) bool { return p == engine.LastConfig }}
	w.restart = func(mem *vfs.MemFS) {
		fs := base.NewMem(mem)
		must(t, base.WriteFileSync(fs, dataDir+"/tmp_tikv.toml", []byte(restarted), ""))
		must(t, fs.Rename(dataDir+"/tmp_tikv.toml", dataDir+"/"+engine.LastConfig))
		must(t, base.SyncDir(fs, dataDir))
	}
	w.all()
}

// TiKV's own panic_mark_file has nothing to do with last_tikv.toml: it is there after clean and after undo, byte by byte.
func TestCleanKeepsPanicMark(t *testing.T) {
	mem := cleanStore(t)
	const text = "found by TiKV"
	must(t, base.WriteFileSync(base.NewMem(mem), dataDir+"/"+engine.PanicMark, []byte(text), ""))
	check := func(after string) {
		if b, err := content(mem, dataDir+"/"+engine.PanicMark); err != nil || string(b) != text {
			t.Errorf("after %s: %q, %v", after, b, err)
		}
	}
	for range 2 {
		_, err := repair.Clean(base.NewMem(mem), []string{dataDir}, repair.CleanOptions{Now: now})
		must(t, err)
		check("clean")
	}
	for range 2 {
		_, err := repair.Undo(base.NewMem(mem), dataDir, repair.BackupOptions{})
		must(t, err)
		check("undo")
	}
}

// A store that another repair has fenced is not cleaned: that one has to end first.
func TestCleanOfFencedStore(t *testing.T) {
	mem := cleanStore(t)
	fs := base.NewMem(mem)
	_, err := edit.Begin(fs, dataDir, "reset-1", "reset", struct{}{}, nil, now)
	must(t, err)
	was, err := tree(mem, dataDir)
	must(t, err)
	for _, dry := range []bool{true, false} {
		_, err := repair.Clean(fs, []string{dataDir}, repair.CleanOptions{Now: now, DryRun: dry})
		if !errors.Is(err, base.ErrPlanMismatch) || !strings.Contains(err.Error(), "fenced by reset") || !strings.Contains(base.Next(err), "status") {
			t.Errorf("%v, next %q", err, base.Next(err))
		}
	}
	if is, err := tree(mem, dataDir); err != nil || differ(is, was) != "" {
		t.Errorf("%v %s", err, differ(is, was))
	}
}

// cleanPD is a PD directory without the preallocated log of its etcd: clean says that it cannot be read, and goes on.
func cleanPD(t *testing.T) *vfs.MemFS {
	t.Helper()
	from, err := tree(fixtures.Mem(t, "multi3-lost2", fixtures.WithPD()), "/pd")
	must(t, err)
	mem := vfs.NewCrashableMem()
	dirs := []string{"/"}
	for _, d := range []string{dataDir, dataDir + "/member", dataDir + "/member/snap", dataDir + "/member/wal", dataDir + "/region-meta"} {
		must(t, mem.MkdirAll(d, 0o755))
		dirs = append(dirs, d)
	}
	for p, b := range from {
		if strings.HasPrefix(p, "region-meta/") && !strings.HasSuffix(p, "/") || p == "member/snap/db" {
			must(t, base.WriteFileSync(base.NewMem(mem), path.Join(dataDir, p), []byte(b[:min(len(b), 4096)]), ""))
		}
	}
	syncDirs(t, mem, dirs)
	return mem
}

// The same on a PD directory, where there is no fence and the step that counts is one rename.
func TestCrashCleanPD(t *testing.T) {
	w := &moving{t: t, before: cleanPD(t), goes: func(p string) bool { return strings.HasPrefix(p, "region-meta/") }}
	w.all()
}

// PD was started between an interrupted clean and its rerun: its new region-meta goes, too, and the old one is still there. A clean that is
// done is not taken back after that.
func TestCleanPDStartedInBetween(t *testing.T) {
	began := func(mem *vfs.MemFS) {
		must(t, mem.MkdirAll(dataDir+"/region-meta", 0o755))
		must(t, base.WriteFileSync(base.NewMem(mem), dataDir+"/region-meta/CURRENT", []byte("MANIFEST-000000\n"), ""))
	}
	before := cleanPD(t)
	old, err := content(before, dataDir+"/region-meta/CURRENT")
	must(t, err)
	clean := func(fs base.FS) (*repair.CleanResult, error) {
		return repair.Clean(fs, []string{dataDir}, repair.CleanOptions{Now: now})
	}
	half := before.CrashClone(vfs.CrashCloneCfg{})
	f := &faults{}
	_, err = clean(memFaults(before.CrashClone(vfs.CrashCloneCfg{}), f))
	must(t, err)
	at := slices.IndexFunc(f.names, func(n string) bool { return strings.HasPrefix(n, "rename ") && strings.HasSuffix(n, "/region-meta") })
	if _, err := clean(memFaults(half, &faults{write: at + 2, cut: true})); at < 0 || err == nil {
		t.Fatalf("%d: %v", at, err)
	}
	half = settle(t, half)
	began(half)
	if _, err := repair.Undo(base.NewMem(half), dataDir, repair.BackupOptions{}); !errors.Is(err, base.ErrPlanMismatch) {
		t.Errorf("undo after PD was started: %v", err)
	}
	res, err := clean(base.NewMem(half))
	if err != nil || res.State != repair.StateDone || len(res.Dirs[0].WrittenAgain) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	if got, err := content(half, res.Dirs[0].Backup+"/files/region-meta/CURRENT"); err != nil || string(got) != string(old) {
		t.Errorf("the old CURRENT is %q, %v", got, err)
	}
	began(half)
	is, err := tree(half, dataDir)
	must(t, err)
	if _, err := repair.Undo(base.NewMem(half), dataDir, repair.BackupOptions{}); !errors.Is(err, base.ErrPlanMismatch) || base.Next(err) == "" {
		t.Errorf("undo after PD was started: %v", err)
	}
	if after, err := tree(half, dataDir); err != nil || differ(after, is) != "" {
		t.Errorf("a refused undo has written: %v %s", err, differ(after, is))
	}
}
