package raftjudge

import (
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
)

var modes = []raftlog.Mode{raftlog.Absolute, raftlog.TolerateTail, raftlog.TolerateAny}

// logFiles reads the log files of a directory.
func logFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	list, err := os.ReadDir(dir)
	must(t, err)
	files := map[string][]byte{}
	for _, f := range list {
		if strings.HasSuffix(f.Name(), ".raftlog") || strings.HasSuffix(f.Name(), ".rewrite") {
			files[f.Name()], err = os.ReadFile(filepath.Join(dir, f.Name()))
			must(t, err)
		}
	}
	return files
}

// oursAfter is our reader's outcome of a trial.
func oursAfter(t *testing.T, files map[string][]byte, try Trial) Outcome {
	t.Helper()
	mem := vfs.NewMem()
	must(t, mem.MkdirAll("/re", 0o755))
	fs := base.NewMem(mem)
	for name, b := range files {
		if name == try.Damage.File {
			b = try.Damage.Apply(b)
		}
		must(t, base.WriteFileSync(fs, "/re/"+name, b, ""))
	}
	e, _, err := raftlog.OpenEngineMode(fs, "/re", "", try.Mode)
	if err != nil {
		if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
			t.Fatalf("%s: error of another class: %v", try, err)
		}
		return Outcome{Verdict: Refused, Why: err.Error()}
	}
	text, err := Ours(e)
	if err != nil {
		return Outcome{Unreadable, err.Error(), text}
	}
	return Outcome{Reads, "", text}
}

// smallEngine lets raft-engine make a directory with several files in both queues, small enough for a trial at every few bytes.
func smallEngine(t *testing.T, rng *rand.Rand) (dir string, files map[string][]byte) {
	t.Helper()
	for {
		dir = filepath.Join(t.TempDir(), "engine")
		options := []string{"target-file-size=256", "purge-threshold=1024", "recycle=false",
			fmt.Sprintf("compression-threshold=%d", []int{0, 64}[rng.Intn(2)]), "recovery-threads=1"}
		w := NewWriter(rng)
		script := w.Script(5+rng.Intn(8)) + "rewrite\n" + w.Script(4+rng.Intn(8))
		_, err := Run(t, "", dir, script, options...)
		must(t, err)
		files = logFiles(t, dir)
		size, logs := 0, 0
		for name, b := range files {
			size += len(b)
			if strings.HasSuffix(name, ".raftlog") {
				logs++
			}
		}
		if logs >= 3 && size > 1200 && size < 5000 {
			return dir, files
		}
	}
}

// Damage at every few bytes of every file, in each recovery mode: our reader and raft-engine agree on whether the directory opens, and
// on all regions, entries and states that are then held. A panic of the engine counts as refusal.
func TestRecoveryModesAgree(t *testing.T) {
	Available(t)
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	const trials = 2500
	counts := map[string]int{}
	for round := 0; round < 3; round++ {
		dir, files := smallEngine(t, rng)
		size := 0
		for _, b := range files {
			size += len(b)
		}
		var list []Trial
		for _, m := range modes {
			list = append(list, Trial{Mode: m})
		}
		stride := 1 + size*2*len(modes)/trials
		for _, name := range slices.Sorted(maps.Keys(files)) {
			for i := rng.Intn(stride); i < len(files[name]); i += stride {
				flip, cut := Damage{name, i, byte(1 + rng.Intn(255))}, Damage{File: name, Offset: i}
				for _, m := range modes {
					list = append(list, Trial{m, flip}, Trial{m, cut})
				}
			}
		}
		threads := []int{1, 4, 2}[round]
		for i, got := range Trials(t, dir, list, fmt.Sprintf("recovery-threads=%d", threads)) {
			ours := oursAfter(t, files, list[i])
			if threads > 1 && list[i].Mode == raftlog.TolerateAny && got.Verdict == Reads && strings.Contains(ours.Why, "memtable has a hole") {
				// Each thread replays some files on their own: a Clean or Compact in later ones hides from the engine what is a panic
				// to one that reads in order, as we do.
				counts["hole not noticed"]++
				continue
			}
			if ours.Verdict != got.Verdict {
				t.Fatalf("round %d, %s: ours %s (%s), raft-engine %s (%s)", round, list[i], ours.Verdict, ours.Why, got.Verdict, got.Why)
			}
			if d := Diff(ours.Dump, got.Dump); got.Verdict == Reads && d != "" {
				t.Fatalf("round %d, %s: %s", round, list[i], d)
			}
			counts[string(list[i].Mode)+" "+string(got.Verdict)]++
		}
	}
	t.Logf("%v", counts)
	for _, m := range modes {
		for _, v := range []Verdict{Reads, Refused} {
			if counts[string(m)+" "+string(v)] == 0 && (m != raftlog.TolerateAny || v == Reads) {
				t.Errorf("%s: nothing is %q: %v", m, v, counts)
			}
		}
	}
	if counts["tolerate-any-corruption ok"] <= counts["tolerate-tail-corruption ok"] || counts["tolerate-tail-corruption ok"] <= counts["absolute-consistency ok"] {
		t.Errorf("no mode is more tolerant than the one before: %v", counts)
	}
}

// The spill directory is read after the main one: a number that both have counts once, with the spill directory's file, and what lies
// below it is cut off.
func TestSpillDirAgrees(t *testing.T) {
	Available(t)
	tmp := t.TempDir()
	src := filepath.Join(tmp, "src")
	var script strings.Builder
	for i := uint64(6); i < 26; i++ {
		fmt.Fprintf(&script, "entries 2 %x\nput 2 52 %x\nwrite\n", EntryBytes(6, i, []byte(strings.Repeat("d", 60))), StateBytes(6, i, i))
	}
	_, err := Run(t, "", src, script.String(), "target-file-size=300", "purge-threshold=1000000", "recycle=false")
	must(t, err)
	files := logFiles(t, src)
	logs := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(n string) bool { return !strings.HasSuffix(n, ".raftlog") })
	if len(logs) < 5 {
		t.Fatalf("%d files", len(logs))
	}
	for _, c := range []struct {
		name        string
		main, spill []int // which append files
		read        int   // how many of them count, from the end
	}{
		{"the newest spilled", []int{0, 1, 2}, []int{3, 4}, 5},
		{"one in the middle spilled", []int{0, 1, 3, 4}, []int{2}, 5},
		{"one is missing", []int{0, 1, 3}, []int{4}, 2},
		{"one is in both", []int{0, 1, 2, 3}, []int{2, 4}, 3},
		{"all are in both", []int{0, 1, 2, 3, 4}, []int{0, 1, 2, 3, 4}, 1},
	} {
		place := filepath.Join(tmp, strings.ReplaceAll(c.name, " ", "-"))
		dir, spill := filepath.Join(place, "main"), filepath.Join(place, "spill")
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.MkdirAll(spill, 0o755))
		for _, i := range c.main {
			must(t, os.WriteFile(filepath.Join(dir, logs[i]), files[logs[i]], 0o600))
		}
		for _, i := range c.spill {
			must(t, os.WriteFile(filepath.Join(spill, logs[i]), files[logs[i]], 0o600))
		}
		e, rep, err := raftlog.OpenEngine(base.NewOS(), dir, spill)
		must(t, err)
		ours, err := Ours(e)
		must(t, err)
		if len(rep.Files) != c.read {
			t.Errorf("%s: %d files count, want %d", c.name, len(rep.Files), c.read)
		}
		judge, err := TryDump(t, dir, "spill-dir="+spill)
		must(t, err)
		if d := Diff(ours, judge); d != "" || judge == "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

// A region that does not fit into one batch is rewritten as an atomic group: real markers, which our reader follows. Whatever is cut off
// the file in the middle of a group drops all of that group, in both readers.
func TestAtomicGroupsAgree(t *testing.T) {
	Available(t)
	rng := rand.New(rand.NewSource(1))
	var script strings.Builder
	for _, id := range []uint64{2, 3} {
		for i := uint64(6); i < 16; i++ {
			data := make([]byte, 50<<10)
			rng.Read(data)
			fmt.Fprintf(&script, "entries %d %x\nput %d 52 %x\nwrite\n", id, EntryBytes(6, i, data), id, StateBytes(6, i, i))
		}
	}
	script.WriteString("rewrite\nrewrite rewrite\n")
	dir := filepath.Join(t.TempDir(), "engine")
	_, err := Run(t, "", dir, script.String(), "recycle=false")
	must(t, err)
	whole := same(t, dir, "atomic groups")
	files := logFiles(t, dir)
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(files)), func(n string) bool { return !strings.HasSuffix(n, ".rewrite") })
	last := names[len(names)-1]
	// The marker's key: what the engine writes is put with a key of three bytes and a value of one.
	for mark, what := range []string{"begin", "middle", "end"} {
		if n := strings.Count(string(files[last]), "\x03\x01\x03__\x01\x01"+string(rune(mark))); n < 2 {
			t.Fatalf("%s holds %d markers %q", last, n, what)
		}
	}
	var list []Trial
	for i := 69; i < len(files[last]); i += 20011 {
		list = append(list, Trial{raftlog.TolerateTail, Damage{File: last, Offset: i}})
	}
	seen := map[string]bool{}
	for i, got := range Trials(t, dir, list) {
		ours := oursAfter(t, files, list[i])
		if d := Diff(ours.Dump, got.Dump); d != "" || ours.Verdict != Reads || got.Verdict != Reads {
			t.Fatalf("%s: ours %s, raft-engine %s (%s): %s", list[i], ours.Verdict, got.Verdict, got.Why, d)
		}
		seen[got.Dump] = true
	}
	if len(seen) != 2 || seen[whole] {
		t.Errorf("%d different contents after %d cuts, want two: no region, and the first", len(seen), len(list))
	}
}
