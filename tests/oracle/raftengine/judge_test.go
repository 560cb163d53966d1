package raftjudge

import (
	"encoding/hex"
	"fmt"
	"math/rand"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// open reads a directory on disk with our reader.
func open(t *testing.T, dir string) *raftlog.Engine {
	t.Helper()
	e, _, err := raftlog.OpenEngine(base.NewOS(), dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// same demands that our reader and raft-engine hold the same after reading dir.
func same(t *testing.T, dir, what string) string {
	t.Helper()
	ours, err := Ours(open(t, dir))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if d := Diff(ours, Dump(t, dir)); d != "" {
		t.Fatalf("%s: %s", what, d)
	}
	return ours
}

// Every entry and every key of every raft-engine that TiKV left behind.
func TestFixturesReadTheSame(t *testing.T) {
	Available(t)
	regions, entries := 0, 0
	for _, archive := range fixtures.Names() {
		mem := base.NewMem(fixtures.Mem(t, archive))
		for _, store := range fixtures.Stores(t, archive) {
			dir := path.Join(store, "raft-engine")
			if there, err := base.Exists(mem, dir); err != nil || !there || archive == "single-encrypted" {
				continue
			}
			e, _, err := raftlog.OpenEngine(mem, dir, "")
			if err != nil {
				t.Fatalf("%s%s: %v", archive, store, err)
			}
			ours, err := Ours(e)
			if err != nil {
				t.Fatalf("%s%s: %v", archive, store, err)
			}
			judge, err := DumpFS(t, mem, dir)
			if err != nil {
				t.Fatalf("%s%s: %v", archive, store, err)
			}
			if d := Diff(ours, judge); d != "" {
				t.Errorf("%s%s: %s", archive, store, d)
			}
			regions += strings.Count("\n"+judge, "\nregion ")
			entries += strings.Count(judge, "\nentry ")
		}
	}
	t.Logf("%d regions, %d entries", regions, entries)
	if regions < 200 || entries < 5000 {
		t.Errorf("only %d regions and %d entries in all fixtures", regions, entries)
	}
}

// A script reaches the engine, what it writes outlives a reopening, and the source is never touched.
func TestScript(t *testing.T) {
	Available(t)
	tmp := t.TempDir()
	first, second := filepath.Join(tmp, "first"), filepath.Join(tmp, "second")
	out, err := Run(t, filepath.Join(tmp, "nothing"), first, "entries 2 1006180a2203616263 1006180b\nput 2 52 0a0608061003180a100a\nwrite\nput 3 6b -\nwrite\nreopen\ndump\n")
	const want = "region 2 first 10 last 11\nentry 10 term 6 len 9 crc 1ADDE5CD\nentry 11 term 6 len 4 crc 6019B5E0\nkey 52 0A0608061003180A100A\nregion 3 empty\nkey 6B -\n"
	if err != nil || out != want {
		t.Fatalf("%v, got\n%s", err, out)
	}
	r, err := Parse(out)
	if err != nil || r[2].First != 10 || r[2].Last != 11 || hex.EncodeToString(r[2].Keys["R"]) != "0a0608061003180a100a" || len(r[3].Keys) != 1 {
		t.Errorf("%+v %v", r, err)
	}
	before := fingerprint(t, first)
	out, err = Run(t, first, second, "clean 2\nwrite\nrewrite\npurge\nreopen\ndump\n")
	if err != nil || out != "region 3 empty\nkey 6B -\n" {
		t.Errorf("%v, got\n%s", err, out)
	}
	if got := fingerprint(t, first); got != before {
		t.Errorf("the source changed:\n%s\n%s", before, got)
	}
	same(t, second, "after the script")
	if _, err := Run(t, first, filepath.Join(tmp, "third"), "entries 2 1006181e\nwrite\n"); err == nil || !strings.Contains(err.Error(), "hole") {
		t.Errorf("a hole gives %v", err)
	}
}

func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range list {
		c, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %d %x\n", f.Name(), len(c), c)
	}
	return b.String()
}

// Directories that raft-engine itself made by random work, with small files, purges and rewrites, read the same.
func TestRandomEnginesReadTheSame(t *testing.T) {
	Available(t)
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for round := 0; round < 12; round++ {
		g := NewWriter(rng)
		dir := filepath.Join(t.TempDir(), "engine")
		if _, err := Run(t, "", dir, g.Script(20+rng.Intn(120)), SmallFiles(rng)...); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		same(t, dir, fmt.Sprintf("round %d", round))
	}
}
