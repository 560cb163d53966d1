// Package crash proves that a repair can be killed at any file operation: each one is made to fail, or the power goes off there, and
// what is left must be whole, finish when the command is run again, and go back when it is undone.
package crash

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

const seed = 20260921

func (w *world) report(began time.Time) {
	w.t.Logf("%d points, %d different states examined, %d wrong, %.1f s", w.points.Load(), w.states.Load(), w.wrong.Load(), time.Since(began).Seconds())
}

// The store that the crash tests use is worth it: it holds exactly what TiKV wrote; a rewind rewrites tables of two levels and
// folds logs.
func TestCrashStoreIsWorthIt(t *testing.T) {
	w := newWorld(t)
	if want, err := digest(fixtures.Mem(t, fixture)); err != nil || w.beforeSum != want {
		t.Errorf("the derived store does not hold what the fixture holds: %v", err)
	}
	r := w.result
	if r.State != repair.StateDone || r.FilesRewritten < 3 || r.VersionsRemoved == 0 || r.FencesCleared == 0 || r.LocksRemoved == 0 {
		t.Errorf("%+v", r)
	}
	b, a := openDB(t, w.before), openDB(t, w.after)
	if b.Log.Emitted == 0 || a.Log.Emitted != 0 {
		t.Errorf("the logs had %d records, and have %d", b.Log.Emitted, a.Log.Emitted)
	}
	levels := map[int]int{}
	live := map[uint64]bool{}
	for _, f := range a.CF(scan.CFWrite).Files() {
		live[f.Number] = true
	}
	for _, f := range b.CF(scan.CFWrite).Files() {
		if !live[f.Number] {
			levels[f.Level]++
		}
	}
	if len(levels) < 2 {
		t.Errorf("tables rewritten by level: %v", levels)
	}
	for _, db := range []*rocks.DB{b, a} {
		for _, f := range db.SelfCheck(func(string, rocks.LevelFile) bool { return true }) {
			t.Error(f)
		}
	}
	t.Logf("%d tables rewritten, by level %v; %d log records folded; %d versions removed", r.FilesRewritten, levels, b.Log.Emitted, r.VersionsRemoved)
}

func openDB(t *testing.T, fs vfs.FS) *rocks.DB {
	t.Helper()
	db, err := rocks.Open(base.NewMem(fs), dataDir+"/db", rocks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Every changing operation of each verb fails, or the power goes off there.
func TestCrashEveryWrite(t *testing.T) {
	w := newWorld(t)
	defer w.report(time.Now())
	reset := w.resetVerb("reset", w.before)
	undo := w.undoVerb("undo", w.after)
	undone := w.after.CrashClone(vfs.CrashCloneCfg{})
	if err := undo.run(base.NewMem(undone)); err != nil {
		t.Fatal(err)
	}
	for _, v := range []verb{reset, undo, w.discardVerb("discard", w.after), w.discardVerb("discard after undo", undone)} {
		w.failWrites(v, 1)
		w.cutPower(v, 1)
	}
	t.Run("RocksDB", w.askRocksDB)
}

// A repair that was interrupted once is interrupted again: a rerun of reset, and an undo, from each state that a plan goes through.
func TestCrashTwice(t *testing.T) {
	w := newWorld(t)
	defer w.report(time.Now())
	reset := w.resetVerb("reset", w.before)
	for _, c := range []struct{ name, at string }{
		{"half staged", "create " + dataDir + "/db/000181.sst"},
		{"half published", "rename " + dataDir + "/db/000181.sst"},
		{"published", "create " + dataDir + "/tikv-repair/" + w.result.PlanID + "/result.json"},
	} {
		start := w.interrupted(reset, c.at)
		w.cutPower(w.resetVerb("reset "+c.name, start), 2)
		w.cutPower(w.undoVerb("undo "+c.name, start), 1)
	}
	// A leftover of a repair that never began does not stand in the way of the next one.
	begun := w.interrupted(reset, "create "+dataDir+"/panic_mark_file")
	w.cutPower(w.undoVerb("undo just begun", begun), 1)
	nothing := w.interrupted(reset, "create "+dataDir+"/tikv-repair/"+w.result.PlanID+"/journal.json")
	w.cutPower(w.discardVerb("discard never begun", nothing), 1)
}

// TiKV's own panic_mark_file gives its place to the fence and comes back with undo, byte by byte: at no moment could TiKV start.
func TestCrashForeignPanicMark(t *testing.T) {
	w := newWorld(t, withForeignMark)
	defer w.report(time.Now())
	if _, there := w.afterTree["panic_mark_file"]; there {
		t.Error("the accepted mark is still there after the reset")
	}
	w.cutPower(w.resetVerb("reset", w.before), 3)
	w.failWrites(w.undoVerb("undo", w.after), 1)
	w.cutPower(w.undoVerb("undo", w.after), 1)
	w.cutPower(w.discardVerb("discard", w.after), 5)
}

// A file system without hard links: the backup is copies, which can be cut off in the middle. The original is gone when an engine
// that ignored the fence has purged it: then the copy is all there is.
func TestCrashWithoutLinks(t *testing.T) {
	w := newWorld(t, withoutLinks)
	defer w.report(time.Now())
	w.cutPower(w.resetVerb("reset", w.before), 3)
	undo := w.undoVerb("undo after a purge", w.purged())
	w.failWrites(undo, 2)
	w.cutPower(undo, 1)
}

// The same with links.
func TestCrashAfterPurge(t *testing.T) {
	w := newWorld(t)
	defer w.report(time.Now())
	undo := w.undoVerb("undo after a purge", w.purged())
	w.failWrites(undo, 2)
	w.cutPower(undo, 1)
}

// Reading operations fail: nothing is lost, and the error says so.
func TestCrashEveryRead(t *testing.T) {
	w := newWorld(t)
	defer w.report(time.Now())
	w.failReads(w.resetVerb("reset", w.before), 5)
	w.failReads(w.undoVerb("undo", w.after), 5)
	w.failReads(w.discardVerb("discard", w.after), 1)
}

// askRocksDB lets real RocksDB, which knows nothing of the fence, open every fiftieth state.
func (w *world) askRocksDB(t *testing.T) {
	oracle.Available(t, oracle.V8_10)
	want := map[string]string{}
	read := func(label string, fs vfs.FS) map[string]string {
		r, err := oracle.ReadFS(t, oracle.V8_10, fs, dataDir+"/db", oracle.Options{})
		if err != nil {
			t.Errorf("%s: %v", label, err)
			return nil
		}
		return r.SHA256
	}
	for sum, fs := range map[string]vfs.FS{w.beforeSum: w.before, w.afterSum: w.after} {
		want[sum] = join(read("whole state", fs))
	}
	if want[w.beforeSum] == want[w.afterSum] {
		t.Fatal("RocksDB sees no difference between before and after")
	}
	for _, s := range w.samples {
		sum, err := digest(s.fs)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := join(read(s.label, s.fs)); got != want[sum] {
			t.Errorf("%s: RocksDB reads %s, want %s", s.label, got, want[sum])
		}
	}
	t.Logf("RocksDB %s opened %d states", oracle.V8_10, len(w.samples)+2)
}

func join(m map[string]string) string {
	var out string
	for _, k := range sorted(m) {
		out += k + "=" + m[k] + " "
	}
	return out
}
