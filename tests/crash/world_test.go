package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// now is the clock of the first run; reruns happen at later.
var now = time.Unix(1_790_000_000, 0)

var later = now.Add(time.Hour)

// world is one store with its two whole states, before and after a reset to T1, and what is known about every state in between.
type world struct {
	t                     *testing.T
	ts                    mvcc.TS
	before, after         *vfs.MemFS // after: with the backup
	beforeTree, afterTree map[string]string
	beforeSum, afterSum   string
	foreign               string // TiKV's own panic_mark_file, when the store has one
	marked                bool
	noLinks               bool
	result                *repair.Result
	// edit is the command under test; nil: reset. between is the digest of what it leaves between its two switches, if it has two.
	edit    func(fs base.FS, at time.Time) (*repair.Result, error)
	between string
	// stays: the command leaves the fence up, for release; releasing: release is among the commands under test.
	stays, releasing bool

	seen    sync.Map // hash of a tree -> *sync.Once
	sums    sync.Map // hash of a tree without backups -> digest
	told    sync.Map // what has been reported
	points  atomic.Int64
	states  atomic.Int64
	wrong   atomic.Int64
	mu      sync.Mutex
	samples []sample
}

// sample is a state that real RocksDB is to open.
type sample struct {
	label string
	fs    *vfs.MemFS
}

type option func(*world)

// purged makes the store one in which an engine that ignored the fence has deleted everything that the rewound store does not
// refer to: what is left of the old tables and logs is in the backup.
func (w *world) purged() *vfs.MemFS {
	w.t.Helper()
	mem := w.after.CrashClone(vfs.CrashCloneCfg{})
	ps, err := plans(mem)
	if err != nil || len(ps) != 1 {
		w.t.Fatal(len(ps), err)
	}
	for _, s := range ps[0].J.Saved {
		if s.Path != "db/CURRENT" && !slices.Contains(ps[0].J.Moved, s.Path) {
			must(w.t, mem.Remove(path.Join(dataDir, s.Path)))
			delete(w.afterTree, s.Path)
		}
	}
	syncDirs(w.t, mem, []string{dataDir + "/db"})
	return mem
}

// withForeignMark: TiKV found its data corrupted once and left its own panic_mark_file.
func withForeignMark(w *world) { w.marked, w.foreign = true, "" }

// withoutLinks: the file system has no hard links, so that the backup is copies.
func withoutLinks(w *world) { w.noLinks = true }

func newWorld(t *testing.T, opts ...option) *world {
	t.Helper()
	w := &world{t: t, ts: mvcc.TS(fixtures.Facts(t, fixture).T1)}
	for _, o := range opts {
		o(w)
	}
	if w.before == nil {
		w.before = derive(t)
	}
	if w.marked {
		must(t, base.WriteFileSync(base.NewMem(w.before), dataDir+"/"+engine.PanicMark, []byte(w.foreign), ""))
		must(t, base.SyncDir(base.NewMem(w.before), dataDir))
	}
	var err error
	w.beforeTree, w.beforeSum = w.whatIs(w.before)
	w.after = w.before.CrashClone(vfs.CrashCloneCfg{})
	if w.result, err = w.reset(w.fs(w.after, &faults{}), now); err != nil {
		t.Fatal(err)
	}
	w.afterTree, w.afterSum = w.whatIs(w.after)
	w.after = settle(t, w.after)
	if w.edit != nil {
		w.between = kvOf(w.beforeSum) + "/" + raftOf(w.afterSum)
	}
	return w
}

// whatIs reads the two ends of a repair.
func (w *world) whatIs(fs vfs.FS) (map[string]string, string) {
	w.t.Helper()
	t, err := tree(fs, dataDir)
	if err != nil {
		w.t.Fatal(err)
	}
	sum, err := digest(fs)
	if err != nil {
		w.t.Fatal(err)
	}
	return withoutBackups(t), sum
}

func (w *world) fs(mem *vfs.MemFS, f *faults) base.FS {
	f.noLinks = w.noLinks
	return faultFS{base.NewMem(mem), f}
}

func (w *world) reset(fs base.FS, at time.Time) (*repair.Result, error) {
	if w.edit != nil {
		return w.edit(fs, at)
	}
	safe := mvcc.TS(1)
	o := repair.ResetOptions{RewindOptions: repair.RewindOptions{T: w.ts, SafePoint: &safe, Now: at, Threads: 1}}
	if w.marked {
		o.Force = map[string]bool{"panic-mark": true}
	}
	return repair.Reset(context.Background(), fs, dataDir, scan.Options{}, o)
}

// verb is a command under test.
type verb struct {
	name  string
	start *vfs.MemFS
	run   func(base.FS) error
	// done checks what a run that reports success leaves.
	done func(state) string
}

func (w *world) resetVerb(name string, start *vfs.MemFS) verb {
	return verb{name, start, func(fs base.FS) error {
		res, err := w.reset(fs, now)
		if err == nil && res.State != repair.StateDone && res.State != repair.StateUnchanged {
			return fmt.Errorf("reset says %q", res.State)
		}
		return err
	}, func(s state) string {
		if s.sum != w.afterSum || s.fenced != w.stays {
			return "reset reports success, but the store is not (only) rewound"
		}
		return ""
	}}
}

func (w *world) undoVerb(name string, start *vfs.MemFS) verb {
	return verb{name, start, func(fs base.FS) error {
		_, err := repair.Undo(fs, dataDir, repair.BackupOptions{})
		return err
	}, func(s state) string {
		if s.sum != w.beforeSum || s.fenced {
			return "undo reports success, but the store is not what it was"
		}
		return ""
	}}
}

func (w *world) discardVerb(name string, start *vfs.MemFS) verb {
	return verb{name, start, func(fs base.FS) error {
		_, err := repair.Discard(fs, dataDir, repair.BackupOptions{})
		return err
	}, func(s state) string {
		if s.backup {
			return "discard reports success, but there is a backup"
		}
		return ""
	}}
}

// counted runs a verb without faults and returns the numbers and names of its operations.
func (w *world) counted(v verb) *faults {
	w.t.Helper()
	f := &faults{}
	if err := v.run(w.fs(v.start.CrashClone(vfs.CrashCloneCfg{}), f)); err != nil {
		w.t.Fatalf("%s: %v", v.name, err)
	}
	return f
}

// interrupted is the state in which a verb was killed just before the first operation whose name contains what.
func (w *world) interrupted(v verb, what string) *vfs.MemFS {
	w.t.Helper()
	for i, n := range w.counted(v).names {
		if strings.Contains(n, what) {
			mem := v.start.CrashClone(vfs.CrashCloneCfg{})
			if err := v.run(w.fs(mem, &faults{write: i + 1, cut: true})); err == nil {
				w.t.Fatalf("%s survives a power cut at %s", v.name, n)
			}
			return settle(w.t, mem)
		}
	}
	w.t.Fatalf("%s has no operation %q", v.name, what)
	return nil
}

// sparser leaves most points out of a short run.
func sparser(stride int) int {
	if testing.Short() {
		return stride * 16
	}
	return stride
}

// each runs fn for 1..n, every stride-th, on all cores.
func each(n, stride int, fn func(k int)) {
	var wg sync.WaitGroup
	next := atomic.Int64{}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				k := int(next.Add(1)-1)*stride + 1
				if k > n {
					return
				}
				fn(k)
			}
		})
	}
	wg.Wait()
}

var digits = regexp.MustCompile(`[0-9]+`)

// fail reports what is wrong at a point; of failures that differ in numbers only the first is enough.
func (w *world) fail(label, format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	w.wrong.Add(1)
	if _, again := w.told.LoadOrStore(digits.ReplaceAllString(label+msg, "#"), true); again {
		w.t.Fail()
		return
	}
	w.t.Errorf("%s: %s", label, msg)
}

// failWrites makes every changing operation of a verb fail with EIO, with ENOSPC, and with ENOSPC from there on.
func (w *world) failWrites(v verb, stride int) {
	n, stride := w.counted(v).writes, sparser(stride)
	each(n, stride, func(k int) {
		for _, m := range []struct {
			name  string
			err   error
			stuck bool
		}{
			{"EIO", syscall.EIO, false},
			{"ENOSPC", syscall.ENOSPC, false},
			{"ENOSPC from there on", syscall.ENOSPC, true},
		} {
			w.failed(v, &faults{write: k, err: m.err, stuck: m.stuck}, fmt.Sprintf("%s, %s at write %d", v.name, m.name, k))
		}
	})
	w.t.Logf("%s: %d changing operations, every %d. failed 3 times", v.name, n, stride)
}

// failReads makes reading operations fail, every stride-th, once and from there on.
func (w *world) failReads(v verb, stride int) {
	n, stride := w.counted(v).reads, sparser(stride)
	each(n, stride, func(k int) {
		for _, stuck := range []bool{false, true} {
			w.failed(v, &faults{read: k, err: syscall.EIO, stuck: stuck}, fmt.Sprintf("%s, EIO at read %d, stuck %v", v.name, k, stuck))
		}
	})
	w.t.Logf("%s: %d reading operations, every %d. failed twice", v.name, n, stride)
}

func (w *world) failed(v verb, f *faults, label string) {
	w.points.Add(1)
	mem := v.start.CrashClone(vfs.CrashCloneCfg{})
	err := v.run(w.fs(mem, f))
	if f.failed == "" {
		return // reads are not in the same order every time: this one did not come
	}
	label += " (" + f.failed + ")"
	s, ok := w.look(label, mem)
	if !ok {
		return
	}
	w.examine(label, mem)
	if err == nil {
		if bad := v.done(s); bad != "" {
			w.fail(label, "%s", bad)
		}
		return
	}
	w.checkError(label, err, f, s)
}

// checkError: an error is of a class, keeps its cause, says what to type next, and says "part way" if and only if our fence is up.
func (w *world) checkError(label string, err error, f *faults, s state) {
	var e *base.Error
	switch {
	case !errors.As(err, &e) || e.Class == nil:
		w.fail(label, "error without a class: %v", err)
	case f.read > 0 && slices.Contains([]string{"stat " + dataDir + "/db", "stat " + dataDir + "/raft-engine/0000000000000001.raftlog"}, f.failed):
		// Discovery takes a name that it cannot look at for one that is not there, and refuses for that reason.
		if !errors.Is(err, base.ErrNotStore) && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, f.err) {
			w.fail(label, "%v", err)
		}
	case !errors.Is(err, f.err):
		w.fail(label, "the error does not name its cause: %v", err)
	case base.Next(err) == "":
		w.fail(label, "no word about what to do next: %v", err)
	case f.stuck && f.read > 0:
		// Nobody can tell what is on a disk that cannot be read: the verb says "part way" when it has begun to write.
	case errors.Is(e.Class, base.ErrPartial) != s.fenced:
		w.fail(label, "fence up: %v, error of class %q: %v", s.fenced, e.Class, err)
	}
}

// cutPower lets the power go off at every changing operation of a verb. Five things can be left then:
//
//	nothing but what was synced, half of the rest, all of the rest (pebble's CrashClone; names that were removed stay where the
//	directory was not synced); everything as it was (a killed process); all names, and only the synced content (a journal that
//	is ahead of the data).
func (w *world) cutPower(v verb, stride int) {
	n, stride := w.counted(v).writes, sparser(stride)
	each(n, stride, func(k int) {
		label := fmt.Sprintf("%s, power off at write %d", v.name, k)
		mem := v.start.CrashClone(vfs.CrashCloneCfg{})
		f := &faults{write: k, cut: true}
		if err := v.run(w.fs(mem, f)); err == nil {
			if f.off {
				w.fail(label, "success without power")
			}
			return
		}
		label += " (" + f.failed + ")"
		for _, percent := range []int{0, 50, 100} {
			w.points.Add(1)
			cfg := vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, uint64(k)))}
			w.examine(fmt.Sprintf("%s, %d%% of what was not synced", label, percent), mem.CrashClone(cfg))
		}
		w.points.Add(2)
		w.examine(label+", process killed", mem)
		t, err := tree(mem, dataDir)
		if err != nil {
			w.fail(label, "%v", err)
			return
		}
		dirs := []string{"/", dataDir}
		for p := range t {
			if strings.HasSuffix(p, "/") {
				dirs = append(dirs, path.Join(dataDir, p))
			}
		}
		syncDirs(w.t, mem, dirs)
		w.examine(label+", names without unsynced content", mem.CrashClone(vfs.CrashCloneCfg{}))
	})
	w.t.Logf("%s: %d changing operations, the power off at every %d., 5 outcomes, seed %d", v.name, n, stride, seed)
}
