package rewind_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// rawRows is what a RawKV client of the default keyspace reads.
func rawRows(t testing.TB, s *scan.Store, ts mvcc.TS) []byte {
	t.Helper()
	v, err := s.NewView(ts)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var keyspace uint32
	if _, err := v.Dump(context.Background(), &b, scan.DumpOptions{T: ts, Format: scan.TSV, Keyspace: &keyspace}); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

// Raw data of API V2 has timestamps and can be rewound; that has to be said, because a raw T follows other rules.
func TestRawV2(t *testing.T) {
	mem := fixtures.Mem(t, "raw-v2")
	was := tree(t, mem, dataDir)
	for i, ts := range named(t, "raw-v2") {
		want := fixtures.ExpectAt(t, "raw-v2", uint64(ts))
		mem := cloneMem(t, mem)
		fs := base.NewMem(mem)
		o := to(ts)
		// The last moment has nothing above it.
		if i < 2 {
			refused(t, mem, dataDir, o, "raw-data")
		}
		res := reset(t, fs, dataDir, forced(o, "raw-data"))
		s := open(t, fs, dataDir)
		same(t, "raw rows at T", rawRows(t, s, ts), want)
		same(t, "raw rows at the end of time", rawRows(t, s, mvcc.MaxTS), want)
		left := 0
		it, err := s.DB.CF(scan.CFDefault).NewIter([]byte{mvcc.DataPrefix}, []byte{mvcc.DataPrefix + 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			prefix, at, ok := mvcc.SplitKey(it.Key().User)
			if left++; !ok || mvcc.IsRawV2Prefix(prefix) && at > ts {
				t.Errorf("at %s: entry %v is left", ts, it.Key())
			}
		}
		if err := it.Err(); err != nil || left == 0 {
			t.Errorf("%v, %d entries", err, left)
		}
		closing(t, it)
		findings, err := repair.Verify(context.Background(), s, repair.VerifyOptions{T: ts, Full: true})
		if err != nil || len(findings) > 0 {
			t.Errorf("%v %v", err, findings)
		}
		closing(t, s)
		if i == 2 {
			if res.State != repair.StateUnchanged {
				t.Errorf("%+v", res)
			}
			continue
		}
		if res.RawRemoved == 0 || res.VersionsRemoved != 0 {
			t.Errorf("%+v", res)
		}
		var tried []string
		again, err := tryReset(readOnly(mem, &tried), dataDir, o)
		if err != nil || again.State != repair.StateUnchanged || len(tried) > 0 {
			t.Errorf("second reset: %v %+v, wrote %v", err, again, tried)
		}
		if _, err := repair.Undo(fs, dataDir, repair.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		fixtures.SameTree(t, "after undo", tree(t, mem, dataDir), was)
	}
}

// refused wants the reset refused for exactly one reason, and no write tried.
func refused(t testing.TB, mem vfs.FS, dir string, o repair.ResetOptions, problem string) {
	t.Helper()
	var tried []string
	res, err := tryReset(readOnly(mem, &tried), dir, o)
	if !errors.Is(err, base.ErrProblems) || base.Next(err) == "" {
		t.Errorf("want refused for %s, got %+v, %v", problem, res, err)
		return
	}
	if res == nil || res.State != repair.StateRefused || !slices.Contains(problemNames(res.Problems), problem) {
		t.Errorf("want refused for %s, got %+v", problem, res)
	}
	if len(tried) > 0 {
		t.Errorf("refused for %s, yet wrote %v", problem, tried)
	}
}

func TestRefusals(t *testing.T) {
	t1 := func(name string) mvcc.TS { return named(t, name)[0] }
	later := func(ts mvcc.TS) repair.ResetOptions {
		o := to(ts)
		sp := ts + 1
		o.SafePoint = &sp
		return o
	}
	unknown := to(t1("single-levels"))
	unknown.SafePoint = nil
	facts := fixtures.Facts(t, "multi3-lost2")
	for _, c := range []struct {
		what, name, dir string
		o               repair.ResetOptions
		problem         string
	}{
		{"raw data without versions", "raw-v1", dataDir, to(mvcc.TS(fixtures.Facts(t, "raw-v1").T3)), "raw-data"},
		{"and no force helps", "raw-v1", dataDir, forced(to(mvcc.TS(fixtures.Facts(t, "raw-v1").T3)), "raw-data"), "raw-data"},
		{"the same with an expiry", "raw-v1ttl", dataDir, to(mvcc.TS(fixtures.Facts(t, "raw-v1ttl").T3)), "raw-data"},
		{"and no force helps", "raw-v1ttl", dataDir, forced(to(mvcc.TS(fixtures.Facts(t, "raw-v1ttl").T3)), "raw-data"), "raw-data"},
		{"versions at T may be collected", "single-levels", dataDir, later(t1("single-levels")), "safe-point-above-t"},
		{"and no force helps", "single-levels", dataDir, forced(later(t1("single-levels")), "safe-point-above-t"), "safe-point-above-t"},
		{"nobody said where the safe point is", "single-levels", dataDir, unknown, "unknown-safe-point"},
		{"a force of something else is none", "single-levels", dataDir, forced(unknown, "panic-mark", "raw-data"), "unknown-safe-point"},
		{"the other replicas still hold what is above T", "multi3-lost2", "/store0", to(mvcc.TS(facts.END)), "multi-store"},
	} {
		t.Run(c.name+", "+c.what, func(t *testing.T) { refused(t, fixtures.Mem(t, c.name), c.dir, c.o, c.problem) })
	}
}

// The mark that TiKV leaves when it finds its data corrupted stops the rewind; accepted, it survives in the backup and undo puts it back.
func TestForeignPanicMark(t *testing.T) {
	ts := named(t, "single-levels")[1]
	mem := fixtures.Mem(t, "single-levels")
	fs := base.NewMem(mem)
	mark := fs.PathJoin(dataDir, engine.PanicMark)
	for _, text := range []string{"", "written by TiKV\n", "tikv-repair plan: ../../etc\n"} {
		if err := base.WriteFileSync(fs, mark, []byte(text), ""); err != nil {
			t.Fatal(err)
		}
		was := tree(t, mem, dataDir)
		refused(t, mem, dataDir, to(ts), "panic-mark")
		o := forced(to(ts), "panic-mark")
		o.Now = now
		res := reset(t, fs, dataDir, o)
		if ok, err := base.Exists(fs, mark); ok || err != nil {
			t.Errorf("mark %q: after the reset there is still a mark: %v", text, err)
		}
		if kept, err := base.ReadFile(fs, fs.PathJoin(res.Backup, engine.PanicMark)); err != nil || string(kept) != text {
			t.Errorf("mark %q: in the backup: %q, %v", text, kept, err)
		}
		s := open(t, fs, dataDir)
		same(t, "rows", dump(t, s, mvcc.MaxTS), fixtures.ExpectAt(t, "single-levels", uint64(ts)))
		closing(t, s)
		if _, err := repair.Undo(fs, dataDir, repair.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		fixtures.SameTree(t, "after undo, mark "+strconv.Quote(text), tree(t, mem, dataDir), was)
		if _, err := repair.Discard(fs, dataDir, repair.BackupOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// After two rewinds undo goes back one step at a time, and the first cannot be taken back over the second.
func TestUndoOneByOne(t *testing.T) {
	for _, name := range singles {
		ts := named(t, name)
		mem := fixtures.Mem(t, name)
		fs := base.NewMem(mem)
		first := tree(t, mem, dataDir)
		res1 := reset(t, fs, dataDir, to(ts[2]))
		second := tree(t, mem, dataDir)
		res2 := reset(t, fs, dataDir, to(ts[0]))
		s := open(t, fs, dataDir)
		same(t, name+": rows after two rewinds", dump(t, s, mvcc.MaxTS), fixtures.ExpectAt(t, name, uint64(ts[0])))
		closing(t, s)
		if res1.PlanID == res2.PlanID {
			t.Fatalf("%s: both plans are %s", name, res1.PlanID)
		}
		third := tree(t, mem, dataDir)
		if _, err := repair.Undo(fs, dataDir, repair.BackupOptions{PlanID: res1.PlanID}); !errors.Is(err, base.ErrPlanMismatch) {
			t.Errorf("%s: undo of the older plan: %v", name, err)
		}
		fixtures.SameTree(t, name+": after the refused undo", tree(t, mem, dataDir), third)
		for _, step := range []struct {
			plan string
			want map[string]string
		}{{res2.PlanID, second}, {res1.PlanID, first}} {
			if _, err := repair.Undo(fs, dataDir, repair.BackupOptions{PlanID: step.plan}); err != nil {
				t.Fatalf("%s: undo of %s: %v", name, step.plan, err)
			}
			fixtures.SameTree(t, name+": after undo", tree(t, mem, dataDir), step.want)
		}
	}
}
