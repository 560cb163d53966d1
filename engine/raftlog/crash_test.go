package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
)

var errPower = errors.New("the power is off")

// run is one run of a command on a file system that fails at one of its changing operations.
type run struct {
	fs  base.FS
	mem *vfs.MemFS
	// at is the operation that fails, from 1; 0: none. cut: the power goes off there.
	at  int
	cut bool

	n    int
	off  bool
	what string
	link bool         // the operation that failed is part of making a hard link: a copy takes its place
	left []*vfs.MemFS // what a power cut leaves: what is durable, half of the rest too, all of it
}

func newRun(before *vfs.MemFS, at int, cut bool) *run {
	r := &run{mem: before.CrashClone(vfs.CrashCloneCfg{}), at: at, cut: cut}
	r.fs = base.NewMem(errorfs.Wrap(r.mem, errorfs.InjectorFunc(r.inject)))
	return r
}

func (r *run) inject(op errorfs.Op) error {
	if r.off {
		return errPower
	}
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpLink, errorfs.OpRemove, errorfs.OpRemoveAll, errorfs.OpRename, errorfs.OpMkdirAll,
		errorfs.OpFileWrite, errorfs.OpFileWriteAt, errorfs.OpFileSync:
	default:
		return nil
	}
	r.n++
	if r.n != r.at {
		return nil
	}
	r.link = op.Kind == errorfs.OpLink || op.Kind == errorfs.OpMkdirAll
	r.what = fmt.Sprintf("%d: %v %s", r.n, op.Kind, op.Path)
	if !r.cut {
		return syscall.ENOSPC
	}
	r.off = true
	for _, percent := range []int{0, 50, 100} {
		r.left = append(r.left, r.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(1, uint64(r.n)))}))
	}
	return errPower
}

// apply does what a verb does: a new edit, or what is left of an interrupted one.
func apply(fs base.FS, b *Batch) error {
	f, err := engine.ReadFence(fs, testData)
	if err != nil {
		return err
	}
	var tx *edit.Tx
	if f != nil {
		if tx, err = edit.Open(fs, testData, f.PlanID); err != nil {
			return err
		}
		if tx.J.State == edit.Begun {
			if err := tx.Restart(); err != nil {
				return err
			}
			e, _, err := OpenEngine(fs, testData+"/raft-engine", "")
			if err != nil {
				return err
			}
			p, err := PlanEdit(e, b, testTime)
			if err != nil {
				return err
			}
			if err := stage(tx, p); err != nil {
				return err
			}
		}
	} else if txs, err := edit.List(fs, testData); err != nil {
		return err
	} else if len(txs) == 1 && txs[0].J.State == edit.Done {
		return nil
	} else if tx, _, err = begin(fs, b); err != nil {
		return err
	}
	switch tx.J.State {
	case edit.Staged:
		if err := tx.Publish(); err != nil {
			return err
		}
		fallthrough
	case edit.Published:
		return tx.Finish("result")
	}
	return tx.RemoveFence()
}

// undo takes back whatever is there.
func undo(fs base.FS) error {
	txs, err := edit.List(fs, testData)
	if err != nil {
		return err
	}
	for _, tx := range txs {
		if tx.J.State == "" {
			continue // killed before the first journal: nothing has happened
		}
		if err := tx.Undo(nil); err != nil {
			return err
		}
	}
	return nil
}

// content is every file of the raft-engine directory; what a truncation in memory leaves beside it is no file of a disk.
func content(tb testing.TB, mem *vfs.MemFS) map[string]string {
	tb.Helper()
	fs := base.NewMem(mem)
	names, err := fs.List(testData + "/raft-engine")
	must(tb, err)
	out := map[string]string{}
	for _, n := range names {
		if strings.HasSuffix(n, ".truncating") {
			continue
		}
		b, err := base.ReadFile(fs, path.Join(testData, "raft-engine", n))
		must(tb, err)
		out[n] = string(b)
	}
	return out
}

func describe(files map[string]string) string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&b, "%s %d bytes; ", n, len(files[n]))
	}
	return b.String()
}

// The power goes off, or an operation fails, at each changing operation of an edit and of its undo. What is left always opens, with the
// state of before or that of after; the same command finishes it; undo gives every byte back.
func TestCrashEveryWriteOfAnEdit(t *testing.T) {
	b := func() *Batch {
		return script(t, entries(t, 2, 10, 10, 6), put(2, "R", "new"), clean(3), put(3, "R", "x"))
	}
	const want = "2: 5..10 term 6 from 5 R=new\n3: R=x\n"
	for name, d := range tails() {
		if name == "version 1" {
			continue // region 3 alone lies below its append files; the same steps
		}
		t.Run(name, func(t *testing.T) {
			before := dataDir(d)
			files := content(t, before)
			done := newRun(before, 0, false)
			must(t, apply(done.fs, b()))
			if got := dump(t, openData(t, done.fs)); got != want {
				t.Fatalf("after: %s", got)
			}
			after := content(t, done.mem)
			taken := newRun(done.mem, 0, false)
			must(t, undo(taken.fs))
			if got := content(t, taken.mem); !maps.Equal(got, files) {
				t.Fatalf("undone: %s", describe(got))
			}
			for step := 1; step <= done.n; step++ {
				for _, cut := range []bool{true, false} {
					r := newRun(before, step, cut)
					if err := apply(r.fs, b()); err == nil && (cut || !r.link) {
						t.Fatalf("%s: no error", r.what)
					}
					// The last one is what a process leaves that is killed, or that ends with the error.
					for _, mem := range append(r.left, r.mem) {
						examine(t, "edit, "+r.what, mem, files, after, b)
					}
				}
			}
			for step := 1; step <= taken.n; step++ {
				for _, cut := range []bool{true, false} {
					r := newRun(done.mem, step, cut)
					if err := undo(r.fs); err == nil && (cut || !r.link) {
						t.Fatalf("undo, %s: no error", r.what)
					}
					for _, mem := range append(r.left, r.mem) {
						opens(t, "undo, "+r.what, mem, want)
						again := base.NewMem(mem)
						if err := undo(again); err != nil {
							t.Fatalf("undo, %s: again: %v", r.what, err)
						}
						if got := content(t, mem); !maps.Equal(got, files) {
							t.Fatalf("undo, %s: %s", r.what, describe(got))
						}
					}
				}
			}
			t.Logf("%d operations of the edit, %d of the undo", done.n, taken.n)
		})
	}
}

// opens demands the state of before or of after: no fence keeps a reader from looking.
func opens(t *testing.T, what string, mem *vfs.MemFS, want string) {
	t.Helper()
	e, _, err := OpenEngine(base.NewMem(mem), testData+"/raft-engine", "")
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got := dump(t, e); got != tailsHold && got != want {
		t.Fatalf("%s: %s", what, got)
	}
}

func examine(t *testing.T, what string, mem *vfs.MemFS, files, after map[string]string, b func() *Batch) {
	t.Helper()
	opens(t, what, mem, "2: 5..10 term 6 from 5 R=new\n3: R=x\n")
	back := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	if err := undo(base.NewMem(back)); err != nil {
		t.Fatalf("%s: undo: %v", what, err)
	}
	if got := content(t, back); !maps.Equal(got, files) {
		t.Fatalf("%s: undone: %s", what, describe(got))
	}
	fs := base.NewMem(mem)
	for range 2 {
		if err := apply(fs, b()); err != nil {
			t.Fatalf("%s: again: %v", what, err)
		}
		if got := content(t, mem); !maps.Equal(got, after) {
			t.Fatalf("%s: again: %s, want %s", what, describe(got), describe(after))
		}
	}
}

// Once an engine has gone on behind the repair, or has changed what was to be cut, nothing is taken back and nothing published.
func TestUndoRefusesAfterAStart(t *testing.T) {
	appendTo := func(fs base.FS, name string, p []byte) {
		name = testData + "/raft-engine/" + name
		b, err := base.ReadFile(fs, name)
		if err != nil {
			b = nil
		}
		must(t, base.WriteFileSync(fs, name, append(b, p...), ""))
	}
	b := script(t, put(2, "R", "new"))
	more := nb().put(2, "R", "later").bytes(9)
	for _, c := range []struct {
		name, tail string
		published  bool
		spoil      func(fs base.FS)
		refused    bool
	}{
		{"nothing happened", "zero tail", true, func(base.FS) {}, false},
		{"the engine appended", "zero tail", true, func(fs base.FS) { appendTo(fs, FileName(Append, 9), more) }, true},
		{"the engine began the next file", "zero tail", true, func(fs base.FS) { appendTo(fs, FileName(Append, 10), fileHeader(2)) }, true},
		{"the new file is gone", "zero tail", true, func(fs base.FS) { must(t, fs.Remove(testData+"/raft-engine/"+FileName(Append, 9))) }, true},
		{"the file before is gone", "zero tail", true, func(fs base.FS) { must(t, fs.Remove(testData+"/raft-engine/"+FileName(Append, 8))) }, true},
		{"the file before grew", "zero tail", true, func(fs base.FS) { appendTo(fs, FileName(Append, 8), []byte{1}) }, true},
		{"the engine appended to a new last file", "bad header", true, func(fs base.FS) { appendTo(fs, FileName(Append, 9), more) }, true},
		{"the engine wrote before publishing", "zero tail", false, func(fs base.FS) {
			name := testData + "/raft-engine/" + FileName(Append, 8)
			old, err := base.ReadFile(fs, name)
			must(t, err)
			at := bytes.LastIndexFunc(old, func(r rune) bool { return r != 0 }) + 100
			old[at] = 7
			must(t, base.WriteFileSync(fs, name, old, ""))
		}, true},
		{"the engine cut its tail before publishing", "zero tail", false, func(fs base.FS) {
			e := openData(t, fs)
			f := e.report.Files[len(e.report.Files)-1]
			must(t, fs.Truncate(f.Path, f.Valid))
		}, false},
		{"the engine began the file before publishing", "clean", false, func(fs base.FS) { appendTo(fs, FileName(Append, 9), fileHeader(2)) }, true},
		{"the engine made the header anew before publishing", "no header", false, func(fs base.FS) { appendTo(fs, FileName(Append, 9), fileHeader(1)) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := dataDir(tails()[c.tail])
			fs := base.NewMem(mem)
			tx, _, err := begin(fs, b)
			must(t, err)
			if c.published {
				must(t, tx.Publish())
				must(t, tx.Finish(nil))
			}
			c.spoil(fs)
			must(t, base.SyncDir(fs, testData+"/raft-engine"))
			before := content(t, mem)
			acts := map[string]func(tx *edit.Tx) error{"undo": func(tx *edit.Tx) error { return tx.Undo(nil) }}
			if !c.published {
				acts["publish"] = (*edit.Tx).Publish
			}
			for what, act := range acts {
				clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
				tx, err := edit.Open(base.NewMem(clone), testData, "p1")
				must(t, err)
				err = act(tx)
				if (err != nil) != c.refused || err != nil && !errors.Is(err, base.ErrPlanMismatch) {
					t.Errorf("%s: %v", what, err)
				}
				if got := content(t, clone); c.refused && !maps.Equal(got, before) {
					t.Errorf("%s refused and changed: %s", what, describe(got))
				}
			}
		})
	}
}

// A hard link of a file that is cut would lose the same bytes: no file can be both.
func TestSavedFilesAreNotCut(t *testing.T) {
	fs := base.NewMem(dataDir(tails()["zero tail"]))
	tx, err := edit.Begin(fs, testData, "p1", "test", "plan", []string{testData + "/raft-engine"}, testTime)
	must(t, err)
	a, b := testData+"/raft-engine/"+FileName(Append, 7), testData+"/raft-engine/"+FileName(Append, 8)
	must(t, tx.Save(a))
	must(t, tx.Cut(b, 100))
	if tx.Cut(a, 100) == nil || tx.Save(b) == nil || tx.Cut(b, 50) == nil || tx.Log(b, a) == nil {
		t.Error("a file is both saved and cut")
	}
	if got := tx.Bytes(); got == 0 {
		t.Error("the tail counts for nothing")
	}
	must(t, tx.Undo(nil))
	must(t, tx.Discard())
	if left, err := edit.List(fs, testData); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
}
