package crash

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/repair"
)

// state is what a directory looks like from outside.
type state struct {
	all    map[string]string // every file
	store  map[string]string // without backups
	sum    string            // digest
	mark   bool              // a panic_mark_file is there: TiKV does not start
	fenced bool              // it is ours
	backup bool
}

// look reads a state. A TiKV that ignores the fence must find a whole store, before or after: anything else fails here.
func (w *world) look(label string, fs vfs.FS) (state, bool) {
	var s state
	var err error
	if s.all, err = tree(fs, dataDir); err != nil {
		w.fail(label, "%v", err)
		return s, false
	}
	s.store = withoutBackups(s.all)
	_, s.backup = s.all["tikv-repair/"]
	fence, err := engine.ReadFence(base.NewMem(fs), dataDir)
	if err != nil {
		w.fail(label, "%v", err)
		return s, false
	}
	s.mark, s.fenced = fence != nil, fence != nil && fence.Ours
	// The same files have the same sum.
	hash := hashTree(s.store)
	if sum, ok := w.sums.Load(hash); ok {
		s.sum = sum.(string)
	} else if s.sum, err = digest(fs); err != nil {
		w.fail(label, "the store cannot be read: %v", err)
		return s, false
	}
	w.sums.Store(hash, s.sum)
	if s.sum != w.beforeSum && s.sum != w.afterSum && (s.sum != w.between || !s.fenced) {
		w.fail(label, "the store is neither what it was nor rewound: key-value database old %v new %v, raft store old %v new %v, fence up %v",
			kvOf(s.sum) == kvOf(w.beforeSum), kvOf(s.sum) == kvOf(w.afterSum), raftOf(s.sum) == raftOf(w.beforeSum), raftOf(s.sum) == raftOf(w.afterSum), s.fenced)
		return s, false
	}
	return s, true
}

// examine proves everything that has to hold of a state; states that are the same file by file only once.
func (w *world) examine(label string, live *vfs.MemFS) {
	t, err := tree(live, dataDir)
	if err != nil {
		w.fail(label, "%v", err)
		return
	}
	once, _ := w.seen.LoadOrStore(hashTree(t), new(sync.Once))
	once.(*sync.Once).Do(func() {
		w.states.Add(1)
		mem := settle(w.t, live)
		if w.states.Load()%samplesEvery == 1 {
			w.mu.Lock()
			w.samples = append(w.samples, sample{label, mem.CrashClone(vfs.CrashCloneCfg{})})
			w.mu.Unlock()
		}
		s, ok := w.look(label, mem)
		if !ok {
			return
		}
		if !s.fenced {
			w.whole(label, s)
		}
		w.rerun(label+", then reset", mem.CrashClone(vfs.CrashCloneCfg{}), s)
		w.takeBack(label+", then undo", mem.CrashClone(vfs.CrashCloneCfg{}), s)
		w.drop(label+", then discard", mem.CrashClone(vfs.CrashCloneCfg{}), s)
	})
}

// samplesEvery says how many states are skipped between two that real RocksDB opens.
const samplesEvery = 50

// withoutHarmless leaves out names that a crash may leave behind: neither TiKV nor RocksDB ever reads them, and the next repair
// replaces them. The last one is there only because a rename is no single step for pebble's CrashClone: the new name can be kept
// and the old one come back.
func withoutHarmless(t map[string]string) map[string]string {
	out := maps.Clone(t)
	for _, h := range []string{"panic_mark_file.tikv-repair.tmp", "panic_mark_file.tmp", "db/CURRENT.tikv-repair", "raft/CURRENT.tikv-repair"} {
		delete(out, h)
	}
	return out
}

// whole: without our fence the store is, file by file, the one of before or the one of after.
func (w *world) whole(label string, s state) {
	want := w.beforeTree
	if s.sum == w.afterSum {
		want = w.afterTree
	}
	if s.sum == w.afterSum && w.stays && !s.fenced {
		if !w.releasing {
			w.fail(label, "the store is done, and the fence that has to stay is gone")
		}
		want = maps.Clone(want)
		delete(want, engine.PanicMark)
	}
	if d := differ(withoutHarmless(s.store), want); d != "" {
		w.fail(label, "there is no fence, and %s", d)
	}
}

// plans loads the states of the plans in a directory.
func plans(fs *vfs.MemFS) ([]*edit.Tx, error) { return edit.List(base.NewMem(fs), dataDir) }

// undoBegan tells whether an undo is under way.
func undoBegan(fs *vfs.MemFS) bool {
	ps, err := plans(fs)
	if err != nil {
		return false
	}
	for _, p := range ps {
		if p.J.State == edit.Undoing || p.J.State == edit.Undone {
			return true
		}
	}
	return false
}

// rerun: the same command finishes the job, whatever happened before, and a second one finds nothing to do.
func (w *world) rerun(label string, mem *vfs.MemFS, s state) {
	done, released := isDone(mem), s.sum == w.afterSum && !s.fenced
	res, err := w.reset(w.fs(mem, &faults{}), later)
	if err != nil {
		if !s.fenced && !w.stays || !undoBegan(mem) || !errors.Is(err, base.ErrPlanMismatch) || s.fenced != strings.Contains(base.Next(err), "undo") {
			w.fail(label, "%v", err)
			return
		}
		// An undo that began must end first.
		if t, err := tree(mem, dataDir); err != nil || differ(t, s.all) != "" {
			w.fail(label, "a refused reset has written: %v %s", err, differ(t, s.all))
		}
		if _, err := repair.Undo(w.fs(mem, &faults{}), dataDir, repair.BackupOptions{}); err != nil {
			w.fail(label, "undo: %v", err)
			return
		}
		if w.stays {
			// A plan that was taken back is not done by accident: its backup goes first.
			if _, err := repair.Discard(w.fs(mem, &faults{}), dataDir, repair.BackupOptions{}); err != nil {
				w.fail(label, "discard: %v", err)
				return
			}
		}
		done, released = false, false
		if res, err = w.reset(w.fs(mem, &faults{}), later); err != nil {
			w.fail(label, "after the undo: %v", err)
			return
		}
		s.fenced, s.sum = false, w.beforeSum
	}
	if want := s.sum == w.afterSum && !s.fenced || w.stays && done; (res.State == repair.StateUnchanged) != want {
		w.fail(label, "reset says %q", res.State)
	}
	n, ok := w.look(label, mem)
	if !ok {
		return
	}
	if n.sum != w.afterSum || n.fenced != (w.stays && !released) {
		w.fail(label, "rewound: %v, fence up: %v", n.sum == w.afterSum, n.fenced)
	}
	if s.fenced {
		// The plan was made at the time of the first run, so that the files are the same as without the crash.
		w.whole(label, n)
	}
	if res, err = w.reset(w.fs(mem, &faults{}), later.Add(time.Hour)); err != nil || res.State != repair.StateUnchanged {
		w.fail(label, "the second rerun says %+v, %v", res, err)
	}
	if t, err := tree(mem, dataDir); err != nil || differ(t, n.all) != "" {
		w.fail(label, "the second rerun has written: %v %s", err, differ(t, n.all))
	}
}

// takeBack: undo restores the store file by file, TiKV's own mark included, wherever the repair stands.
func (w *world) takeBack(label string, mem *vfs.MemFS, s state) {
	_, err := repair.Undo(w.fs(mem, &faults{}), dataDir, repair.BackupOptions{})
	n, ok := w.look(label, mem)
	if !ok {
		return
	}
	if err != nil {
		// Without a backup (not yet made, or dropped) there is nothing to take back, and nothing may happen.
		ps, lerr := plans(mem)
		whole := lerr == nil
		for _, p := range ps {
			whole = whole && (p.J.State == "" || p.J.State == edit.Discarding)
		}
		if !whole || s.fenced || !errors.Is(err, base.ErrPlanMismatch) {
			w.fail(label, "%v", err)
		}
		if d := differ(n.all, s.all); d != "" {
			w.fail(label, "a refused undo has written: %s", d)
		}
		return
	}
	if n.sum != w.beforeSum || n.fenced {
		w.fail(label, "as before: %v, fence up: %v", n.sum == w.beforeSum, n.fenced)
	}
	if d := differ(withoutHarmless(n.store), w.beforeTree); d != "" {
		w.fail(label, "%s", d)
	}
	if _, err := repair.Undo(w.fs(mem, &faults{}), dataDir, repair.BackupOptions{}); err != nil {
		w.fail(label, "a second time: %v", err)
	}
	if t, err := tree(mem, dataDir); err != nil || differ(t, n.all) != "" {
		w.fail(label, "a second undo has written: %v %s", err, differ(t, n.all))
	}
}

// isDone tells whether the newest plan has ended well.
func isDone(fs *vfs.MemFS) bool {
	ps, err := plans(fs)
	return err == nil && len(ps) > 0 && ps[len(ps)-1].J.State == edit.Done
}

// needed tells whether there is no backup, or one of a repair that is not finished.
func needed(fs *vfs.MemFS) bool {
	ps, err := plans(fs)
	if err != nil {
		return false
	}
	for _, p := range ps {
		switch p.J.State {
		case edit.Begun, edit.Staged, edit.Published, edit.Undoing:
			return true
		}
	}
	return len(ps) == 0
}

// drop: discard frees the backup of a finished repair and refuses, without a touch, while anybody could need it.
func (w *world) drop(label string, mem *vfs.MemFS, s state) {
	_, err := repair.Discard(w.fs(mem, &faults{}), dataDir, repair.BackupOptions{})
	n, ok := w.look(label, mem)
	if !ok {
		return
	}
	if err != nil {
		if !s.fenced && !needed(mem) || !errors.Is(err, base.ErrPlanMismatch) || base.Next(err) == "" {
			w.fail(label, "%v", err)
		}
		if d := differ(n.all, s.all); d != "" {
			w.fail(label, "a refused discard has written: %s", d)
		}
		return
	}
	if s.fenced {
		w.fail(label, "the backup of a fenced store is gone")
	}
	if n.backup || n.sum != s.sum {
		w.fail(label, "backup there: %v, store changed: %v", n.backup, n.sum != s.sum)
	}
	if d := differ(n.store, s.store); d != "" {
		w.fail(label, "%s", d)
	}
}
