package rewind_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// spilling is a bound that nothing fits into: logs and new records go through files.
const spilling = 32 << 10

// However a rewind is run, with as many threads as you like, little memory or much, blocks copied or made anew, in one go or
// interrupted anywhere and continued: the same data come out, and every table below L0 has the same properties.
func TestMetamorphic(t *testing.T) {
	rng := seeded(t)
	spilled := 0
	names := []string{"single-default", "single-levels", "raw-v2"}
	if testing.Short() {
		names = names[:1]
	}
	for _, name := range names {
		stamps := named(t, name)
		ts := stamps[rng.IntN(len(stamps)/2+1)] // there must be something to do
		sh := randomShape(rand.New(rand.NewPCG(rng.Uint64(), 1)))
		mem := shapedMem(t, name, sh)
		if name == "raw-v2" {
			mem = fixtures.Mem(t, name)
		}
		if name == "single-default" {
			mem = fixtures.Mem(t, name) // with its logs
		}
		var wantRows content
		var wantTables, wantTop map[string]string
		var first string
		for _, threads := range []int{1, 2, 16} {
			for _, memory := range []int64{64 << 20, 512 << 20, spilling} {
				for _, noCopy := range []bool{false, true} {
					for _, interrupted := range []bool{false, true} {
						what := fmt.Sprintf("%s at %s (%v), %d threads, %d KiB, copy %v, interrupted %v", name, ts, sh, threads, memory>>10, !noCopy, interrupted)
						fs := base.NewMem(errorfs.Wrap(cloneMem(t, mem), errorfs.InjectorFunc(func(op errorfs.Op) error {
							if op.Kind == errorfs.OpCreate && strings.Contains(op.Path, scan.SpillDirName) {
								spilled++
							}
							return nil
						})))
						o := to(ts)
						o.Threads, o.Memory, o.NoBlockCopy = threads, memory, noCopy
						if name == "raw-v2" {
							o = forced(o, "raw-data")
						}
						if interrupted {
							interrupt(t, fs, o, rng)
						}
						res := reset(t, fs, dataDir, o)
						// The failure may have come after everything was done.
						if res.State != repair.StateDone && (!interrupted || res.State != repair.StateUnchanged) {
							t.Fatalf("%s: %+v", what, res)
						}
						if ok, err := base.Exists(fs, fs.PathJoin(dataDir, scan.SpillDirName)); ok || err != nil {
							t.Errorf("%s: the spill directory is left: %v", what, err)
						}
						s := open(t, fs, dataDir)
						rows := contentOf(t, s).withoutSeqs()
						delete(rows, scan.CFRaft) // an interrupted run raises epochs from what it finds
						tables, top := tableProps(t, s)
						for _, f := range s.DB.SelfCheck(func(string, rocks.LevelFile) bool { return true }) {
							t.Errorf("%s: %v", what, f)
						}
						closing(t, s)
						if first == "" {
							first, wantRows, wantTables, wantTop = what, rows, tables, top
							continue
						}
						if d := differ(rows, wantRows); d != "" {
							t.Errorf("%s: other data than %s:\n%s", what, first, d)
						}
						if d := gocmp.Diff(wantTables, tables); d != "" {
							t.Errorf("%s: other properties than %s:\n%.2000s", what, first, d)
						}
						if d := gocmp.Diff(wantTop, top); memory != spilling && d != "" {
							t.Errorf("%s: other L0 than %s:\n%.2000s", what, first, d)
						}
					}
				}
			}
		}
	}
	if spilled == 0 {
		t.Error("nothing was spilled: the test shows less than it should")
	}
}

// interrupt runs a reset that fails at some file operation.
func interrupt(t *testing.T, fs base.FS, o repair.ResetOptions, rng *rand.Rand) {
	t.Helper()
	stop := errors.New("stop")
	at := 1 + rng.IntN(120)
	n := 0
	broken := base.NewMem(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		if n++; n >= at {
			return stop
		}
		return nil
	})))
	o.Threads = 1
	if res, err := tryReset(broken, dataDir, o); err == nil && n >= at {
		t.Errorf("stopped at write %d: %+v", at, res)
	}
}

// tableProps describes every table by what does not depend on how its blocks are cut: those below L0 and those of it.
func tableProps(t *testing.T, s *scan.Store) (deep, top map[string]string) {
	t.Helper()
	deep, top = map[string]string{}, map[string]string{}
	for _, name := range s.DB.Names() {
		cf := s.DB.CF(name)
		for _, f := range cf.Files() {
			r, done, err := cf.Table(f.FileMeta)
			if err != nil {
				t.Fatal(err)
			}
			p := r.Props()
			user := maps.Clone(p.User)
			text := fmt.Sprintf("seq %d to %d, epoch %d, largest %s, entries %d, deletions %d, ranges %d, keys %d, values %d, filter %d, %s", f.SmallestSeq, f.LargestSeq, f.Epoch,
				f.Largest, p.NumEntries, p.NumDeletions, p.NumRangeDels, p.RawKeySize, p.RawValueSize, p.FilterSize, p.Compression)
			for _, k := range slices.Sorted(maps.Keys(user)) {
				text += fmt.Sprintf("\n%s %X", k, user[k])
			}
			into := deep
			if f.Level == 0 {
				into = top
			}
			into[fmt.Sprintf("%s level %d from %s", name, f.Level, f.Smallest)] = text
			if err := done(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return deep, top
}
