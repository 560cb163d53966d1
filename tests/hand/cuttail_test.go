package hand_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	raftjudge "github.com/tikv-repair/tikv-repair/tests/oracle/raftengine"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// multis are the stores whose logs have tails: several replicas, killed under load.
var multis = []string{"multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi3-dr-autosync", "multi5-lost3", "multi4-dr-learner"}

// before is a store as TiKV left it.
type before struct {
	dir     string
	tree    map[string]string
	content content
	broken  map[uint64][]string
	derived map[uint64]raftstate.Derived
	terms   map[uint64]uint64 // of the applied index
	state   map[uint64]string // in the raft store
	entries map[uint64][]string
}

func look(t *testing.T, fs vfs.FS, dir string) *before {
	t.Helper()
	b := &before{dir: dir, tree: tree(t, fs, dir), derived: map[uint64]raftstate.Derived{}, terms: map[uint64]uint64{}, state: map[uint64]string{}, entries: map[uint64][]string{}}
	s := open(t, fs, dir)
	b.content, b.broken = contentOf(t, s), brokenRules(t, s)
	ids, err := s.Raft.Regions()
	must(t, err)
	for _, id := range ids {
		b.state[id], b.entries[id] = raftOf(t, s.Raft, id)
	}
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		d := derive(t, s, r)
		b.derived[r.ID] = d
		b.terms[r.ID], _ = d.TermOf(d.Applied, (&raftlog.Terms{Store: s.Raft, Region: r.ID}).Term)
	}
	must(t, s.Close())
	return b
}

// tails are the live regions whose log does not end at the applied index.
func (b *before) tails() []uint64 {
	var out []uint64
	for id, d := range b.derived {
		if d.Last != d.Applied {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Every tail of every replica is cut, in both forms and in both kinds of raft store.
func TestCutTail(t *testing.T) {
	regions, cut, over := 0, uint64(0), 0
	for _, name := range append([]string{"single-raftdb", "single-default"}, multis...) {
		for _, dir := range fixtures.Stores(t, name) {
			for _, keep := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s%s keep=%v", name, dir, keep), func(t *testing.T) {
					mem := only(t, name, dir)
					b := look(t, mem, dir)
					args := repair.HandArgs{KeepHistory: keep}
					ids := b.tails()
					if len(ids) == 0 {
						nothingToDo(t, mem, dir, repair.CutTail, args)
						return
					}
					res := do(t, mem, dir, repair.CutTail, args, "raft-tail", "multi-store")
					var got []uint64
					for _, l := range res.Lines {
						got = append(got, l.Region)
					}
					if !slices.Equal(got, ids) || res.Raft == nil || res.Raft.Regions != len(ids) {
						t.Errorf("%+v; want regions %v", res, ids)
					}
					b.isCut(t, mem, ids, keep)
					b.judged(t, mem)
					for _, id := range ids {
						d := b.derived[id]
						regions, cut = regions+1, cut+max(d.Last, d.Applied)-d.Applied
						if d.Applied > d.Last {
							over++
						}
					}
					nothingToDo(t, mem, dir, repair.CutTail, args)
					undo(t, mem, dir, b.tree)
				})
			}
		}
	}
	t.Logf("%d tails cut, %d entries; %d logs that ended before the applied index", regions, cut, over)
	if regions == 0 || over == 0 {
		t.Error("the fixtures should give more")
	}
}

// isCut wants the logs of ids to end at their applied index, and nothing else to have changed.
func (b *before) isCut(t *testing.T, fs vfs.FS, ids []uint64, keep bool) {
	t.Helper()
	s := open(t, fs, b.dir)
	defer s.Close()
	allStart(t, b.dir, s, b.broken)
	changed := map[string]bool{}
	for _, id := range ids {
		changed[string(raftstate.ApplyStateKey(id))] = true
		r := regionOf(t, s, id)
		was, d := b.derived[id], derive(t, s, r)
		a, term := was.Applied, b.terms[id]
		history := keep && a > was.Truncated.Index && a <= was.Last
		truncated := raftstate.TruncatedState{Index: a, Term: term}
		if history {
			truncated = was.Truncated
		}
		want := raftstate.Derived{Truncated: truncated, Applied: a, Commit: a, Committed: a, CommitTerm: term, Term: max(was.Term, term), Last: a}
		if d != want {
			t.Errorf("region %d: %+v, want %+v", id, d, want)
		}
		if bad := append(d.Invariants(), broken(t, s, r)...); len(bad) > 0 {
			t.Errorf("region %d: %v", id, bad)
		}
		// The log is empty, or what it was up to the applied index, dead entries at its beginning included.
		_, entries := raftOf(t, s.Raft, id)
		var left []string
		if history {
			left = slices.DeleteFunc(slices.Clone(b.entries[id]), func(e string) bool {
				var index uint64
				_, err := fmt.Sscanf(e, "%d/", &index)
				must(t, err)
				return index > a
			})
		}
		if !slices.Equal(entries, left) {
			t.Errorf("region %d: the log is %v, want %v", id, entries, left)
		}
	}
	sameContent(t, b.dir, contentOf(t, s), b.content, changed)
	now, err := s.Raft.Regions()
	must(t, err)
	for _, id := range now {
		if slices.Contains(ids, id) {
			continue
		}
		if state, entries := raftOf(t, s.Raft, id); state != b.state[id] || !slices.Equal(entries, b.entries[id]) {
			t.Errorf("region %d, which nobody named, has changed in the raft store", id)
		}
	}
	if len(now) != len(b.state) {
		t.Errorf("%d regions in the raft store, want %d", len(now), len(b.state))
	}
}

// judged asks real raft-engine, or real RocksDB, what it reads of the raft store: in a test of its own, so that without a judge only that
// one is skipped.
func (b *before) judged(t *testing.T, fs vfs.FS) {
	t.Helper()
	if testing.Short() {
		return
	}
	t.Run("judge", func(t *testing.T) { b.judge(t, fs) })
}

func (b *before) judge(t *testing.T, fs vfs.FS) {
	t.Helper()
	s := open(t, fs, b.dir)
	defer s.Close()
	if e, ok := s.Raft.(*raftlog.Engine); ok {
		ours, err := raftjudge.Ours(e)
		must(t, err)
		theirs, err := raftjudge.DumpFS(t, fs, s.Layout.RaftDir)
		must(t, err)
		if d := raftjudge.Diff(ours, theirs); d != "" {
			t.Errorf("raft-engine reads something else: %s", d)
		}
		return
	}
	r, err := oracle.ReadFS(t, oracle.V8_10, fs, s.Layout.RaftDir, oracle.Options{})
	must(t, err)
	theirs := map[string]string{}
	for _, kv := range r.Rows["default"] {
		theirs[string(kv.Key)] = string(kv.Value)
	}
	ids, err := s.Raft.Regions()
	must(t, err)
	n := 0
	for _, id := range ids {
		raw, ok, err := s.Raft.RaftState(id)
		must(t, err)
		if ok {
			n++
			if theirs[string(raftstate.RaftStateKey(id))] != string(raw) {
				t.Errorf("RocksDB reads another raft state of region %d", id)
			}
		}
		must(t, s.Raft.Entries(id, 0, ^uint64(0), func(e raftstate.Entry) error {
			n++
			if theirs[string(raftstate.RaftLogKey(id, e.Index))] != string(e.Raw) {
				t.Errorf("RocksDB reads another entry %d of region %d", e.Index, id)
			}
			return nil
		}))
	}
	for k := range theirs {
		if kind, _, _, ok := raftstate.ParseLocalKey([]byte(k)); ok && (kind == raftstate.KeyRaftLog || kind == raftstate.KeyRaftState) {
			n--
		}
	}
	if n != 0 {
		t.Errorf("RocksDB reads %d records less than we do", n)
	}
}

// One region of a store: the others keep their tails.
func TestCutTailOfOneRegion(t *testing.T) {
	for _, c := range []struct{ name, dir string }{{"multi5-lost3", "/store1"}, {"multi4-dr-learner", "/store3"}} {
		mem := only(t, c.name, c.dir)
		b := look(t, mem, c.dir)
		ids := b.tails()
		if len(ids) < 1 {
			t.Fatalf("%s%s has no tails", c.name, c.dir)
		}
		args := repair.HandArgs{Regions: ids[:1]}
		do(t, mem, c.dir, repair.CutTail, args, "raft-tail", "multi-store")
		b.isCut(t, mem, ids[:1], false)
		nothingToDo(t, mem, c.dir, repair.CutTail, args)
		undo(t, mem, c.dir, b.tree)
	}
}

// A replica whose log held an entry may have been one of the majority that committed it, whatever it knows of that: to cut it needs
// the operator's word, and so does committed data among it.
func TestCutTailIsRefused(t *testing.T) {
	asked := map[string]int{}
	for _, name := range multis {
		for _, dir := range fixtures.Stores(t, name) {
			mem := only(t, name, dir)
			b := look(t, mem, dir)
			for _, id := range b.tails() {
				res, err := repairDry(t, mem, dir, repair.CutTail, repair.HandArgs{Regions: []uint64{id}})
				if err == nil || !slices.Contains(problems(res), "multi-store") {
					t.Errorf("%s%s region %d, %+v: %v, %v", name, dir, id, b.derived[id], problems(res), err)
				}
				for _, p := range problems(res) {
					asked[p]++
				}
				if l := res.Lines[0]; (l.Lost > 0) && !slices.Contains(problems(res), "raft-tail") {
					t.Errorf("%s%s region %d: %+v", name, dir, id, l)
				}
			}
			fixtures.SameTree(t, name+dir, tree(t, mem, dir), b.tree)
		}
	}
	t.Logf("problems: %v", asked)
	if asked["raft-tail"] == 0 {
		t.Error("no tail with data")
	}
	mem := only(t, "single-default", dataDir)
	_, err := try(mem, dataDir, repair.CutTail, repair.HandArgs{Regions: []uint64{999999}})
	if err == nil || !strings.Contains(err.Error(), "no such region") {
		t.Error(err)
	}
}

func repairDry(t *testing.T, fs vfs.FS, dir string, verb repair.HandVerb, args repair.HandArgs) (*repair.HandResult, error) {
	t.Helper()
	res, err := repair.Hand(t.Context(), memFS(fs), dir, scan.Options{}, repair.HandOptions{Verb: verb, Args: args, Now: now, Threads: 1, DryRun: true})
	if res == nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return res, err
}
