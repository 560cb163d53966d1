package raftjudge

import (
	"fmt"
	"hash/crc32"
	"math/rand"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

var editTime = time.Date(2026, 9, 21, 12, 0, 0, 0, time.UTC)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// applied is one edit of a data directory on disk, taken step by step.
type applied struct {
	t    *testing.T
	data string
	tx   *edit.Tx
	p    raftlog.Edit
}

func begin(t *testing.T, data, plan string, b *raftlog.Batch) *applied {
	t.Helper()
	fs := base.NewOS()
	p, err := raftlog.PlanEdit(open(t, filepath.Join(data, "raft-engine")), b, editTime)
	must(t, err)
	tx, err := edit.Begin(fs, data, plan, "test", "plan", p.Dirs(), editTime)
	must(t, err)
	must(t, p.Stage(tx))
	s, err := p.Staged(edit.StagedSuffix)
	must(t, err)
	must(t, s.Close())
	must(t, tx.Stage())
	return &applied{t, data, tx, p}
}

func (a *applied) publish() {
	a.t.Helper()
	must(a.t, a.tx.Publish())
	s, err := a.p.Published()
	must(a.t, err)
	must(a.t, s.Close())
	must(a.t, a.tx.Finish(nil))
}

// randomBatch makes legal operations on the regions of an engine, and what they make of them.
func randomBatch(t *testing.T, rng *rand.Rand, e *raftlog.Engine) *raftlog.Batch {
	t.Helper()
	type bounds struct{ first, last uint64 }
	logs := map[uint64]bounds{}
	at := func(id uint64) bounds {
		b, ok := logs[id]
		if !ok {
			b.first, b.last, _, _ = e.Bounds(id)
			logs[id] = b
		}
		return b
	}
	ids, err := e.Regions()
	must(t, err)
	ids = append(ids, uint64(1+rng.Intn(9)))
	b := &raftlog.Batch{}
	for i := 1 + rng.Intn(5); i > 0; i-- {
		id := ids[rng.Intn(len(ids))]
		l := at(id)
		switch rng.Intn(5) {
		case 0:
			b.Clean(id)
			l = bounds{}
			logs[id] = l
			if rng.Intn(2) == 0 {
				must(t, b.Put(id, []byte("R"), StateBytes(9, 7, 7)))
			}
		case 1:
			must(t, b.Put(id, []byte("R"), StateBytes(uint64(6+rng.Intn(5)), 5, l.last)))
		case 2: // keep history: the single existing entry
			first, last, ok, err := e.Bounds(id)
			must(t, err)
			if !ok || first != l.first || last != l.last {
				continue // changed in this batch already
			}
			m := l.first + uint64(rng.Intn(int(l.last-l.first)+1))
			must(t, e.Entries(id, m, m+1, func(x raftstate.Entry) error { return b.Entries(id, []raftstate.Entry{x}) }))
			must(t, b.Put(id, []byte("R"), StateBytes(9, m, m)))
			logs[id] = bounds{l.first, m}
		default:
			from := uint64(6 + rng.Intn(60))
			if l.last != 0 {
				from = l.first + uint64(rng.Intn(int(l.last-l.first)+2))
			}
			var list []raftstate.Entry
			for j := uint64(0); j <= uint64(rng.Intn(4)); j++ {
				x, err := raftstate.ParseEntry(EntryBytes(50, from+j, []byte(strings.Repeat("e", rng.Intn(200)))))
				must(t, err)
				list = append(list, x)
			}
			must(t, b.Entries(id, list))
			if l.last == 0 || from < l.first {
				l.first = from
			}
			logs[id] = bounds{l.first, list[len(list)-1].Index}
		}
	}
	if b.Empty() {
		must(t, b.Put(ids[0], []byte("R"), StateBytes(9, 5, 5)))
	}
	return b
}

// spoil gives the last append file a tail, or takes its header.
func spoil(t *testing.T, rng *rand.Rand, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.raftlog"))
	must(t, err)
	slices.Sort(names)
	last := names[len(names)-1]
	b, err := os.ReadFile(last)
	must(t, err)
	kind := []string{"nothing", "zeros", "half a batch", "another file's batches", "torn entries", "no header", "half a header", "header only"}[rng.Intn(8)]
	next := func(content []byte) {
		var seq uint64
		_, err := fmt.Sscanf(filepath.Base(last), "%016d.raftlog", &seq)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, raftlog.FileName(raftlog.Append, seq+1)), content, 0o600))
	}
	switch kind {
	case "zeros":
		b = append(b, make([]byte, 1+rng.Intn(9000))...)
	case "half a batch", "torn entries":
		var seq uint64
		_, err := fmt.Sscanf(filepath.Base(last), "%016d.raftlog", &seq)
		must(t, err)
		var one raftlog.Batch
		x, err := raftstate.ParseEntry(EntryBytes(60, 6, []byte("torn")))
		must(t, err)
		must(t, one.Entries(99, []raftstate.Entry{x}))
		var f strings.Builder
		h, err := raftlog.DecodeHeader(b)
		must(t, err)
		_, _, err = raftlog.WriteLog(&f, h.Version, seq, &one)
		must(t, err)
		batch := []byte(f.String())[h.Len:]
		if kind == "torn entries" {
			batch[18] ^= 0x40
		} else {
			batch = batch[:1+rng.Intn(len(batch)-1)]
		}
		b = append(b, batch...)
	case "another file's batches":
		var f strings.Builder
		var one raftlog.Batch
		one.Clean(2)
		_, _, err = raftlog.WriteLog(&f, 2, 777777, &one)
		must(t, err)
		b = append(b, f.String()[69:]...)
	case "no header":
		next(nil)
	case "half a header":
		next([]byte("RAFT-LOG-FILE-HEA"))
	case "header only":
		next(raftlog.AppendHeader(nil, 2))
	}
	must(t, os.WriteFile(last, b, 0o600))
	return kind
}

// Our edits and raft-engine's own work take turns on one directory: whatever either did, both read the same, and what an edit put
// there outlives rewrites, purges and restarts. Each edit is also looked at while it is staged, and some are undone.
func TestEditsAndEngineTakeTurns(t *testing.T) {
	Available(t)
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	kinds := map[string]int{}
	for round := 0; round < 4; round++ {
		options := SmallFiles(rng)
		if rng.Intn(4) == 0 {
			options = append(options, "version=1", "recycle=false")
		}
		w := NewWriter(rng)
		src := ""
		for turn := 0; turn < 6; turn++ {
			what := fmt.Sprintf("round %d turn %d", round, turn)
			data := t.TempDir()
			dir := filepath.Join(data, "raft-engine")
			_, err := Run(t, src, dir, w.Script(10+rng.Intn(40)), options...)
			must(t, err)
			kind := spoil(t, rng, dir)
			kinds[kind]++
			before := same(t, dir, what+", "+kind)
			files := fingerprintLogs(t, dir)
			b := randomBatch(t, rng, open(t, dir))
			if _, err := raftlog.PlanEdit(open(t, dir), b, editTime); err != nil && strings.Contains(err.Error(), "6.1.0") {
				b = &raftlog.Batch{}
				must(t, b.Put(1, []byte("R"), StateBytes(9, 5, 5)))
			}
			a := begin(t, data, "p1", b)
			if now := same(t, dir, what+", staged"); now != before {
				t.Fatalf("%s: staging changed what is read: %s", what, Diff(now, before))
			}
			if rng.Intn(3) == 0 {
				must(t, a.tx.Publish())
				must(t, a.tx.Undo(nil))
				if now := fingerprintLogs(t, dir); now != files {
					t.Fatalf("%s: undo gave back other files", what)
				}
				same(t, dir, what+", undone")
				a = begin(t, data, "p2", b)
			}
			a.publish()
			after := same(t, dir, what+", published")
			everyMode(t, dir, what, after)
			judged, err := Parse(after)
			must(t, err)
			w.Adopt(judged)
			// Rewritten, purged and opened again it must be the same, up to compacted entries that come back.
			dest := filepath.Join(t.TempDir(), "again")
			_, err = Run(t, dir, dest, "rewrite\nreopen\nrewrite rewrite\npurge\nreopen\n", options...)
			must(t, err)
			if d := Diff(withoutPrefix(same(t, dest, what+", rewritten"), judged), after); d != "" {
				t.Fatalf("%s: after a rewrite: %s", what, d)
			}
			src = dir
			if rng.Intn(2) == 0 {
				src = dest
			}
		}
	}
	t.Logf("tails: %v", kinds)
}

// everyMode opens a published directory in the modes that are not the default. Our edit leaves the append queue without any tail, so that
// absolute-consistency opens it as soon as the rewrite queue has none either.
func everyMode(t *testing.T, dir, what, want string) {
	t.Helper()
	for _, m := range []raftlog.Mode{raftlog.TolerateAny, raftlog.Absolute} {
		judge, err := TryDump(t, dir, "recovery-mode="+string(m))
		e, _, ourErr := raftlog.OpenEngineMode(base.NewOS(), dir, "", m)
		if (err == nil) != (ourErr == nil) || err != nil && m == raftlog.TolerateAny {
			t.Fatalf("%s, %s: ours %v, raft-engine %v", what, m, ourErr, err)
		}
		if err != nil {
			if !strings.Contains(ourErr.Error(), ".rewrite") {
				t.Fatalf("%s, %s: the published append queue has a tail: %v", what, m, ourErr)
			}
			continue
		}
		ours, err := Ours(e)
		must(t, err)
		if judge != want || ours != want {
			t.Fatalf("%s, %s: ours %s; raft-engine %s", what, m, Diff(ours, want), Diff(want, judge))
		}
	}
}

// withoutPrefix leaves out of a dump the entries that a region did not have in the earlier one because they had been compacted:
// raft-engine forgets that when it purges the file with the record.
func withoutPrefix(dump string, earlier map[uint64]Region) string {
	var out strings.Builder
	var was Region
	for line := range strings.Lines(dump) {
		var id, first, last, index uint64
		if n, _ := fmt.Sscanf(line, "region %d first %d last %d", &id, &first, &last); n >= 1 {
			was = earlier[id]
			if n == 3 && first < was.First && last >= was.First {
				line = fmt.Sprintf("region %d first %d last %d\n", id, was.First, last)
			}
		} else if n, _ := fmt.Sscanf(line, "entry %d", &index); n == 1 && index < was.First {
			continue
		}
		out.WriteString(line)
	}
	return out.String()
}

// fingerprintLogs is the content of the log files.
func fingerprintLogs(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	var b strings.Builder
	for _, f := range list {
		if f.Name() == "LOCK" {
			continue
		}
		c, err := os.ReadFile(filepath.Join(dir, f.Name()))
		must(t, err)
		fmt.Fprintf(&b, "%s %d %08x\n", f.Name(), len(c), crc32.ChecksumIEEE(c))
	}
	return b.String()
}

// The point between the cut and the rename, on disk: raft-engine opens the directory with the old content.
func TestEngineBetweenCutAndRename(t *testing.T) {
	Available(t)
	data := t.TempDir()
	dir := filepath.Join(data, "raft-engine")
	_, err := Run(t, "", dir, fmt.Sprintf("entries 2 %x\nput 2 52 %x\nwrite\n", EntryBytes(6, 6, nil), StateBytes(6, 6, 6)))
	must(t, err)
	file := filepath.Join(dir, raftlog.FileName(raftlog.Append, 1))
	b, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(b, make([]byte, 1000)...), 0o640))
	must(t, os.Chmod(file, 0o640))
	before := same(t, dir, "before")
	var batch raftlog.Batch
	batch.Clean(2)
	a := begin(t, data, "p1", &batch)
	must(t, base.NewOS().Truncate(file, int64(len(b))))
	if got := same(t, dir, "between"); got != before {
		t.Errorf("between: %s", got)
	}
	a.publish()
	if got := same(t, dir, "after"); got != "" {
		t.Errorf("after: %s", got)
	}
	st, err := os.Stat(filepath.Join(dir, raftlog.FileName(raftlog.Append, 2)))
	if err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode of the new file: %v %v", st, err)
	}
	must(t, a.tx.Undo(nil))
	if got := same(t, dir, "undone"); got != before {
		t.Errorf("undone: %s", got)
	}
	// Without the cut the engine would not open: the reason for the order.
	must(t, os.WriteFile(filepath.Join(dir, raftlog.FileName(raftlog.Append, 2)), raftlog.AppendHeader(nil, 2), 0o640))
	if out, err := TryDump(t, dir); err == nil {
		t.Errorf("a tail before another file is accepted: %s", out)
	}
}

// Every region of every directory that TiKV left behind loses its tail, in both forms; raft-engine reads what we say that it holds.
func TestDropTailOnFixtures(t *testing.T) {
	Available(t)
	dropped := map[bool]int{}
	for _, archive := range fixtures.Names() {
		if archive == "single-encrypted" || archive == "tablets-v2" {
			continue
		}
		for i, store := range fixtures.Stores(t, archive) {
			mem := fixtures.Mem(t, archive)
			dir := path.Join(store, "raft-engine")
			if there, err := base.Exists(base.NewMem(mem), dir); err != nil || !there {
				continue
			}
			for _, keep := range []bool{false, true} {
				what := fmt.Sprintf("%s%s, keep %v", archive, store, keep)
				data := t.TempDir()
				fixtures.CopyToDisk(t, mem, dir, filepath.Join(data, "raft-engine"))
				e := open(t, filepath.Join(data, "raft-engine"))
				b, want := dropAll(t, e, keep, i)
				a := begin(t, data, "p1", b)
				a.publish()
				regions, err := Parse(same(t, filepath.Join(data, "raft-engine"), what))
				must(t, err)
				for id, d := range want {
					r := regions[id]
					if string(r.Keys["R"]) != string(d.Raft.Raw) || d.History != (r.Last == d.Index && r.Last != 0) || !d.History && r.Last != 0 {
						t.Errorf("%s, region %d: %+v, want %+v", what, id, r, d)
					}
					dropped[d.History]++
				}
			}
		}
	}
	t.Logf("regions: %d universal, %d with their history", dropped[false], dropped[true])
	if dropped[false] < 100 || dropped[true] < 100 {
		t.Error("too few")
	}
}

// dropAll cuts every log; where the region's apply state is not at hand, an index inside of the log stands for the applied one.
func dropAll(t *testing.T, e *raftlog.Engine, keep bool, salt int) (*raftlog.Batch, map[uint64]raftlog.Dropped) {
	t.Helper()
	ids, err := e.Regions()
	must(t, err)
	b, want := &raftlog.Batch{}, map[uint64]raftlog.Dropped{}
	for n, id := range ids {
		raw, ok, err := e.RaftState(id)
		must(t, err)
		first, last, has, err := e.Bounds(id)
		must(t, err)
		if !ok || !has {
			continue
		}
		raft, err := raftstate.ParseRaftLocalState(raw)
		must(t, err)
		applied := first + (last-first)*uint64((n+salt)%4)/3
		term := uint64(0)
		must(t, e.Entries(id, first, first+1, func(x raftstate.Entry) error { term = x.Term; return nil }))
		apply, err := raftstate.RaftApplyState{AppliedIndex: applied}.WithTruncated(raftstate.TruncatedState{Index: first - 1, Term: term})
		must(t, err)
		if want[id], err = raftlog.DropTail(b, e, raftlog.Drop{Region: id, Raft: &raft, Apply: &apply, KeepHistory: keep}); err != nil {
			t.Fatalf("region %d: %v", id, err)
		}
	}
	return b, want
}
