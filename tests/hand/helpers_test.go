// Package hand_test holds the edits of single regions to what TiKV's start rules, real raft-engine and real RocksDB make of them.
package hand_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// now is the wall clock of every repair here, so that a run can be repeated byte for byte.
var now = time.Unix(1_800_000_000, 0)

const dataDir = "/data"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fs vfs.FS, dir string) *scan.Store {
	t.Helper()
	s, err := scan.Open(base.NewMem(fs), dir, scan.Options{})
	if err != nil {
		t.Fatalf("open %s: %v\nnext: %s", dir, err, base.Next(err))
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func forced(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, n := range names {
		out[n] = true
	}
	return out
}

// try runs an edit.
func try(fs vfs.FS, dir string, verb repair.HandVerb, args repair.HandArgs, force ...string) (*repair.HandResult, error) {
	return repair.Hand(context.Background(), base.NewMem(fs), dir, scan.Options{},
		repair.HandOptions{Verb: verb, Args: args, Force: forced(force...), Now: now, Threads: 2})
}

// do runs an edit and wants it done.
func do(t testing.TB, fs vfs.FS, dir string, verb repair.HandVerb, args repair.HandArgs, force ...string) *repair.HandResult {
	t.Helper()
	res, err := try(fs, dir, verb, args, force...)
	if err != nil {
		t.Fatalf("%s %s: %v\nnext: %s", verb, dir, err, base.Next(err))
	}
	if res.State != repair.StateDone {
		t.Fatalf("%s %s: %q", verb, dir, res.State)
	}
	return res
}

// nothingToDo wants an edit to find nothing, and to write nothing.
func nothingToDo(t testing.TB, fs vfs.FS, dir string, verb repair.HandVerb, args repair.HandArgs, force ...string) {
	t.Helper()
	before := tree(t, fs, dir)
	res, err := try(fs, dir, verb, args, force...)
	if err != nil || res.State != repair.StateUnchanged {
		t.Errorf("%s %s a second time: %+v, %v", verb, dir, res, err)
	}
	fixtures.SameTree(t, fmt.Sprintf("%s %s a second time", verb, dir), tree(t, fs, dir), before)
}

// refused wants an edit to be refused for one problem, and to write nothing.
func refused(t testing.TB, fs vfs.FS, dir, problem string, verb repair.HandVerb, args repair.HandArgs, force ...string) {
	t.Helper()
	before := tree(t, fs, dir)
	res, err := try(fs, dir, verb, args, force...)
	if !errors.Is(err, base.ErrProblems) || base.Next(err) == "" || res == nil || res.State != repair.StateRefused || !slices.Contains(problems(res), problem) {
		t.Errorf("%s %s %+v: %+v, %v; want %s", verb, dir, args, res, err, problem)
	}
	fixtures.SameTree(t, fmt.Sprintf("%s %s, refused", verb, dir), tree(t, fs, dir), before)
}

func problems(res *repair.HandResult) []string {
	var out []string
	for _, p := range res.Problems {
		out = append(out, p.Name)
	}
	return slices.Compact(out)
}

// undo takes the newest edit back and wants every file as it was.
func undo(t testing.TB, fs vfs.FS, dir string, want map[string]string) {
	t.Helper()
	b, err := repair.Undo(base.NewMem(fs), dir, repair.BackupOptions{})
	if err != nil {
		t.Fatalf("undo %s: %v\nnext: %s", dir, err, base.Next(err))
	}
	if b.State != string(edit.Undone) || b.Fenced {
		t.Errorf("undo %s: %+v", dir, b)
	}
	fixtures.SameTree(t, "undo "+dir, tree(t, fs, dir), want)
}

// tree is every path below a directory with a digest of its content, but our backups.
func tree(t testing.TB, fs vfs.FS, dir string) map[string]string {
	t.Helper()
	return fixtures.Tree(t, fs, dir, edit.BackupRoot)
}

// content is what a reader finds under each key of each column family.
type content map[string]map[string]string

func contentOf(t testing.TB, s *scan.Store) content {
	t.Helper()
	c := content{}
	for _, name := range s.DB.Names() {
		c[name] = map[string]string{}
		v, err := s.DB.CF(name).NewVisible(nil, nil, nil)
		must(t, err)
		for ok := v.First(); ok; ok = v.Next() {
			c[name][string(v.User())] = fmt.Sprintf("%s %s", v.Kind(), v.Value())
		}
		must(t, v.Err())
		v.Close()
	}
	return c
}

// sameContent compares, but for the keys in except, which are of the raft column family.
func sameContent(t testing.TB, what string, got, want content, except map[string]bool) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d column families, want %d", what, len(got), len(want))
	}
	for cf := range want {
		keys := maps.Clone(want[cf])
		maps.Copy(keys, got[cf])
		for k := range keys {
			g, inGot := got[cf][k]
			w, inWant := want[cf][k]
			if (g != w || inGot != inWant) && !(cf == scan.CFRaft && except[k]) {
				t.Errorf("%s: %s %X: %v %X, want %v %X", what, cf, k, inGot, g, inWant, w)
				return
			}
		}
	}
}

// raftOf is one region in the raft store: its raw state, and one line for each entry.
func raftOf(t testing.TB, s raftlog.Store, id uint64) (state string, entries []string) {
	t.Helper()
	raw, ok, err := s.RaftState(id)
	must(t, err)
	must(t, s.Entries(id, 0, ^uint64(0), func(e raftstate.Entry) error {
		entries = append(entries, fmt.Sprintf("%d/%d %d %08X", e.Index, e.Term, len(e.Raw), crc32.ChecksumIEEE(e.Raw)))
		return nil
	}))
	return fmt.Sprintf("%v %X", ok, raw), entries
}

func raftStateOf(t testing.TB, s *scan.Store, id uint64) *raftstate.RaftLocalState {
	t.Helper()
	raw, ok, err := s.Raft.RaftState(id)
	must(t, err)
	if !ok {
		return nil
	}
	st, err := raftstate.ParseRaftLocalState(raw)
	must(t, err)
	return &st
}

func derive(t testing.TB, s *scan.Store, r scan.Region) raftstate.Derived {
	t.Helper()
	return raftstate.Derive(raftStateOf(t, s, r.ID), r.Apply)
}

// broken are the start rules that a region breaks.
func broken(t testing.TB, s *scan.Store, r scan.Region) []string {
	t.Helper()
	terms := &raftlog.Terms{Store: s.Raft, Region: r.ID}
	var out []string
	for _, v := range raftstate.StartCheck(raftstate.StartInput{StoreID: s.Ident.StoreID, Region: r.State, Raft: raftStateOf(t, s, r.ID), Apply: r.Apply, EntryTerm: terms.Term}) {
		out = append(out, v.Error())
	}
	must(t, terms.Err)
	return out
}

// allStart wants every region to start, but for rules that were broken before.
func allStart(t testing.TB, what string, s *scan.Store, before map[uint64][]string) {
	t.Helper()
	for _, r := range s.Regions {
		for _, b := range broken(t, s, r) {
			if !slices.Contains(before[r.ID], b) {
				t.Errorf("%s: %s", what, b)
			}
		}
	}
}

func brokenRules(t testing.TB, s *scan.Store) map[uint64][]string {
	t.Helper()
	out := map[uint64][]string{}
	for _, r := range s.Regions {
		if b := broken(t, s, r); len(b) > 0 {
			out[r.ID] = b
		}
	}
	return out
}

func regionOf(t testing.TB, s *scan.Store, id uint64) scan.Region {
	t.Helper()
	for _, r := range s.Regions {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("no region %d", id)
	return scan.Region{}
}

// only makes a file system that holds nothing but one store directory of a fixture.
func only(t testing.TB, name, dir string) *vfs.MemFS {
	t.Helper()
	mem := fixtures.Mem(t, name)
	for _, d := range fixtures.Stores(t, name) {
		if d != dir && !strings.HasPrefix(dir, d+"/") {
			must(t, mem.RemoveAll(d))
		}
	}
	return mem
}

func memFS(fs vfs.FS) base.FS { return base.NewMem(fs) }
