package rewind_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// before is a store as TiKV left it, looked at once for all timestamps.
type before struct {
	mem     *vfs.MemFS
	h       history
	content content
	tree    map[string]string
	files   []place
	rows    func(ts mvcc.TS) []byte // as our own reader dumps them
	close   func()
}

func lookBefore(t *testing.T, name string, mem *vfs.MemFS) *before {
	s := open(t, base.NewMem(mem), dataDir)
	b := &before{mem: mem, h: historyOf(t, name), content: contentOf(t, s), tree: tree(t, mem, dataDir), files: placesOf(s)}
	b.rows = func(ts mvcc.TS) []byte { return dump(t, s, ts) }
	b.close = func() { closing(t, s) }
	return b
}

// At every named moment, and at and around commits that nobody chose, a rewind gives exactly the store of that moment: what
// clients read then, nothing above it, every version below it as it was. A second one changes nothing, undo brings back every byte.
func TestResetGivesEveryMomentBack(t *testing.T) {
	for _, name := range singles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			b := lookBefore(t, name, fixtures.Mem(t, name))
			defer b.close()
			moments := append(named(t, name), b.h.around(rng, 15)...)
			slices.Sort(moments)
			for _, ts := range slices.Compact(moments) {
				t.Run(ts.String(), func(t *testing.T) { b.oneMoment(t, ts) })
			}
		})
	}
}

// The same holds for stores that have lived longer than the fixtures: many files on several levels, hidden copies of records, fences
// that newer copies have replaced, deleted records above T, range tombstones, files without properties, no epoch numbers.
func TestResetInAnyShape(t *testing.T) {
	for _, name := range []string{"single-levels", "single-lz4-ranges", "single-titan", "single-default"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			for range 5 {
				sh := randomShape(rng)
				b := lookBefore(t, name, shapedMem(t, name, sh))
				moments := append(b.h.around(rng, 3), named(t, name)[rng.IntN(4)])
				for _, ts := range moments {
					t.Run(fmt.Sprintf("%v/%v", sh, ts), func(t *testing.T) { b.oneMoment(t, ts) })
				}
				b.close()
			}
		})
	}
}

func (b *before) oneMoment(t *testing.T, ts mvcc.TS) {
	mem := cloneMem(t, b.mem)
	fs := base.NewMem(mem)
	res := reset(t, fs, dataDir, to(ts))
	if res.State != repair.StateDone || len(res.Problems) > 0 {
		t.Errorf("state %s, problems %v", res.State, problemNames(res.Problems))
	}

	s := open(t, fs, dataDir)
	rows := b.rows(ts)
	same(t, "the dump before the reset, against the history", rows, b.h.rowsAt(ts))
	same(t, "rows at T", dump(t, s, ts), rows)
	same(t, "rows at the end of time", dump(t, s, mvcc.MaxTS), rows)
	findings, err := repair.Verify(context.Background(), s, repair.VerifyOptions{T: ts, Full: true})
	if err != nil {
		t.Error(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
	nothingAbove(t, s, ts)
	checkPlaces(t, b.files, s)
	after := contentOf(t, s)
	want, removed := b.model(t, ts)
	// No log has a tail: the region records are in the model as they were.
	if d := differ(after.withoutSeqs(), want.withoutSeqs()); d != "" {
		t.Errorf("logical content differs from the model:\n%s", d)
	}
	if res.VersionsRemoved != removed {
		t.Errorf("%d versions removed, reported %d", removed, res.VersionsRemoved)
	}
	b.checkLocks(t, after, ts)
	closing(t, s)

	// The shortcut that a known safe point allows must not show in the result.
	other := base.NewMem(cloneMem(t, b.mem))
	o := forced(to(ts), (&plan.UnknownSafePoint{}).Name())
	o.SafePoint = nil
	res2 := reset(t, other, dataDir, o)
	if res2.VersionsRemoved != res.VersionsRemoved || res2.FencesCleared != res.FencesCleared || res2.DefaultRows != res.DefaultRows {
		t.Errorf("known safe point: %+v\nunknown: %+v", res, res2)
	}
	s = open(t, other, dataDir)
	if d := differ(contentOf(t, s), after); d != "" {
		t.Errorf("with an unknown safe point the content is another one:\n%s", d)
	}
	closing(t, s)

	var tried []string
	again, err := tryReset(readOnly(mem, &tried), dataDir, to(ts))
	if err != nil || again.State != repair.StateUnchanged || len(tried) > 0 {
		t.Errorf("second reset: %v %+v, wrote %v", err, again, tried)
	}

	if _, err := repair.Undo(fs, dataDir, repair.BackupOptions{}); err != nil {
		t.Fatalf("undo: %v", err)
	}
	fixtures.SameTree(t, "files after undo", tree(t, mem, dataDir), b.tree)
	s = open(t, fs, dataDir)
	if d := differ(contentOf(t, s), b.content); d != "" {
		t.Errorf("content after undo:\n%s", d)
	}
	closing(t, s)
}

// nothingAbove looks at every physical entry of the write column family.
func nothingAbove(t testing.TB, s *scan.Store, ts mvcc.TS) {
	t.Helper()
	cf := s.DB.CF(scan.CFWrite)
	if !cf.Log().Empty() {
		t.Error("a log would be replayed")
	}
	it, err := cf.NewIter(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, it)
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
		_, at, ok := mvcc.SplitKey(it.Key().User)
		if !ok || at > ts {
			t.Errorf("entry %v in %+v", it.Key(), it.Source())
		}
	}
	if err := it.Err(); err != nil {
		t.Error(err)
	}
	// Each file for itself, so that not even a record which the merge leaves out escapes.
	m := 0
	for _, f := range cf.Files() {
		r, done, err := cf.Table(f.FileMeta)
		if err != nil {
			t.Fatal(err)
		}
		ti := r.NewIter()
		for ok := ti.First(); ok; ok = ti.Next() {
			m++
			if _, at, ok := mvcc.SplitKey(ti.Key().User); !ok || at > ts {
				t.Errorf("%s: entry %v", r.Path(), ti.Key())
			}
		}
		closing(t, ti)
		if err := done(); err != nil {
			t.Error(err)
		}
	}
	if n != m {
		t.Errorf("%d entries merged, %d in the files", n, m)
	}
}

// model computes from the content before, with nothing but the record decoders and facts.json, what has to be there after:
// records above T gone with their default rows, fences above T cleared, locks decided, epochs raised, and not a byte else.
func (b *before) model(t testing.TB, ts mvcc.TS) (want content, removed int64) {
	want = b.content.clone()
	w, d := want[scan.CFWrite], want[scan.CFDefault]
	for k, r := range b.content[scan.CFWrite] {
		prefix, at, ok := split(k)
		p, err := mvcc.ParseWrite([]byte(r.value))
		if !ok || err != nil {
			t.Fatalf("write record %X: %v", k, err)
		}
		switch {
		case at > ts:
			removed++
			delete(w, k)
			if p.Type == mvcc.WritePut && !p.HasShortValue {
				row := string(mvcc.AppendTS([]byte(prefix), p.StartTS))
				if _, ok := d[row]; !ok {
					t.Errorf("before the reset the value of %X was missing", k)
				}
				delete(d, row)
			}
		case p.GCFence > ts:
			p.GCFence = 0
			r.value = string(p.Append(nil))
			w[k] = r
		}
	}
	for k, r := range b.content[scan.CFLock] {
		delete(want[scan.CFLock], k)
		user, err := mvcc.UserKey([]byte(k))
		if err != nil {
			t.Fatal(err)
		}
		locks, _, err := mvcc.ParseLocks([]byte(r.value))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range locks {
			commit := b.fateOf(t, l)
			switch {
			case commit != 0 && commit <= ts:
				w[string(mvcc.DataKey(user, commit))] = rec{kind: 1, value: string(l.CommitRecord(commit).Append(nil))}
			case l.Type == mvcc.LockPut && !l.HasShortValue:
				delete(d, string(mvcc.DataKey(user, l.StartTS)))
			}
		}
	}
	return want, removed
}

// fateOf looks a lock up in facts.json. Locks that the facts do not name belong to transactions that were under way.
func (b *before) fateOf(t testing.TB, l mvcc.Lock) mvcc.TS {
	for _, f := range b.h.facts.Locks {
		if mvcc.TS(f.StartTS) == l.StartTS {
			return lockFate(f)
		}
	}
	t.Errorf("lock with start_ts %s is not in facts.json", l.StartTS)
	return 0
}

// checkLocks holds each lock of facts.json to its transaction's fate: committed at or before T, all its keys have the version;
// otherwise none has a trace.
func (b *before) checkLocks(t testing.TB, after content, ts mvcc.TS) {
	t.Helper()
	if len(after[scan.CFLock]) > 0 {
		t.Errorf("%d locks left", len(after[scan.CFLock]))
	}
	for i, l := range b.h.facts.Locks {
		commit := lockFate(l)
		for _, user := range l.Keys {
			prefix := string(mvcc.LockKey(user))
			var at []mvcc.TS
			for k, r := range after[scan.CFWrite] {
				p, c, ok := split(k)
				if !ok || p != prefix {
					continue
				}
				w, err := mvcc.ParseWrite([]byte(r.value))
				if err != nil {
					t.Fatal(err)
				}
				if uint64(w.StartTS) == l.StartTS && w.Type != mvcc.WriteRollback {
					at = append(at, c)
				}
			}
			var want []mvcc.TS
			if commit != 0 && commit <= ts {
				want = append(want, commit)
			}
			if !slices.Equal(at, want) {
				t.Errorf("lock %d of facts.json, key %X: committed at %v, want %v", i, user, at, want)
			}
			row := mvcc.DataKey(user, mvcc.TS(l.StartTS))
			if _, ok := after[scan.CFDefault][string(row)]; ok && len(want) == 0 {
				t.Errorf("lock %d of facts.json, key %X: the value of a removed lock is left", i, user)
			}
		}
	}
}

// A dry run says the numbers of the real one and writes nothing; so does the preview that the operator confirms.
func TestDryRunTellsTheTruth(t *testing.T) {
	for _, name := range singles {
		for _, ts := range named(t, name) {
			mem := fixtures.Mem(t, name)
			var tried []string
			o := to(ts)
			o.DryRun = true
			dry, err := tryReset(readOnly(mem, &tried), dataDir, o)
			if err != nil || dry.State != repair.StateDryRun || len(tried) > 0 {
				t.Fatalf("%s at %s: %v %+v, wrote %v", name, ts, err, dry, tried)
			}
			o = to(ts)
			var shown *repair.Preview
			o.Confirm = func(p *repair.Preview) (bool, error) { shown = p; return true, nil }
			real := reset(t, base.NewMem(mem), dataDir, o)
			dry.State, dry.Seconds, dry.PlanID, dry.Backup = real.State, real.Seconds, real.PlanID, real.Backup
			if dry.Problems, real.Problems = nil, nil; *noSlices(dry) != *noSlices(real) {
				t.Errorf("%s at %s: dry run %+v\nreal %+v", name, ts, dry, real)
			}
			if shown.VersionsRemoved != real.VersionsRemoved || shown.LocksCommitted != real.LocksCommitted || shown.FilesToRewrite != real.FilesRewritten+real.FilesDropped {
				t.Errorf("%s at %s: preview %+v\nresult %+v", name, ts, shown, real)
			}
		}
	}
}

// counts are the fields of a result that can be compared.
type counts struct {
	versions, rows, deflt, raw, locksRemoved, locksCommitted, fences, regions int64
	rewritten, dropped, kept                                                  int
	read, written                                                             int64
}

func noSlices(r *repair.Result) *counts {
	return &counts{r.VersionsRemoved, r.RowsChanged, r.DefaultRows, r.RawRemoved, r.LocksRemoved, r.LocksCommitted, r.FencesCleared,
		r.RegionsNeutralised, r.FilesRewritten, r.FilesDropped, r.FilesKept, r.BytesRead, r.BytesWritten}
}

// place is where a live file stands.
type place struct {
	cf string
	rocks.LevelFile
}

func placesOf(s *scan.Store) []place {
	var out []place
	for _, name := range s.DB.Names() {
		for _, f := range s.DB.CF(name).Files() {
			out = append(out, place{name, f})
		}
	}
	return out
}

// checkPlaces wants each new table in the place of one old one: its level, its epoch, inside its range of keys and of sequences. One
// table of each family at level 0 may be new: what the logs held and what the rewind adds, newer than everything else.
func checkPlaces(t testing.TB, old []place, s *scan.Store) {
	t.Helper()
	gone := map[uint64]place{}
	for _, f := range old {
		gone[f.Number] = f
	}
	var made []place
	for _, f := range placesOf(s) {
		if _, kept := gone[f.Number]; kept {
			delete(gone, f.Number)
			continue
		}
		made = append(made, f)
	}
	folded := map[string]bool{}
	for _, f := range made {
		found := false
		for n, o := range gone {
			if o.cf == f.cf && o.Level == f.Level && o.Epoch == f.Epoch && o.SmallestSeq <= f.SmallestSeq && f.LargestSeq <= o.LargestSeq &&
				bytes.Compare(o.Smallest.User, f.Smallest.User) <= 0 && bytes.Compare(f.Largest.User, append(bytes.Clone(o.Largest.User), 0)) <= 0 {
				delete(gone, n)
				found = true
				break
			}
		}
		if found {
			continue
		}
		newest := f.Level == 0 && !folded[f.cf]
		for _, o := range placesOf(s) {
			newest = newest && (o.cf != f.cf || o.Number == f.Number || o.Level > 0 || o.Epoch < f.Epoch || f.Epoch == 0 && o.LargestSeq < f.LargestSeq)
		}
		if folded[f.cf] = true; !newest {
			t.Errorf("%s: new file %+v at level %d has no predecessor and is not the newest", f.cf, f.FileMeta, f.Level)
		}
	}
	for _, o := range gone {
		if o.cf != scan.CFWrite {
			t.Errorf("%s: file %d at level %d is gone", o.cf, o.Number, o.Level)
		}
	}
}
