package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// openRaftDB reads the raft RocksDB of a fixture in memory.
func openRaftDB(tb testing.TB, fs base.FS) *dbStore {
	tb.Helper()
	db, err := rocks.Open(fs, testData+"/raft", rocks.Options{})
	must(tb, err)
	tb.Cleanup(func() { db.Close() })
	s, err := OpenDB(db)
	must(tb, err)
	return s.(*dbStore)
}

// rows are all visible keys and values.
func rows(tb testing.TB, kv KV) map[string]string {
	tb.Helper()
	out := map[string]string{}
	must(tb, kv.Scan(nil, []byte{0xFF}, func(k, v []byte) error {
		out[string(k)] = string(v)
		return nil
	}))
	return out
}

// A batch for every region of a real raft database: each intent in turn. want is the content afterwards, from the rows themselves.
func rocksBatch(t *testing.T, s Store, was map[string]string) (b *Batch, want map[string]string) {
	t.Helper()
	ids, err := s.Regions()
	must(t, err)
	b, want = &Batch{}, map[string]string{}
	for k, v := range was {
		want[k] = v
	}
	without := func(id, from uint64) {
		for k := range want {
			if kind, r, i, _ := raftstate.ParseLocalKey([]byte(k)); r == id && kind == raftstate.KeyRaftLog && i >= from {
				delete(want, k)
			}
		}
	}
	logs := 0
	for n, id := range ids {
		first, last, ok, err := s.Bounds(id)
		must(t, err)
		raw, _, err := s.RaftState(id)
		must(t, err)
		state, err := raftstate.ParseRaftLocalState(raw)
		must(t, err)
		if !ok {
			continue
		}
		logs++
		at := first + (last-first)/2
		state, err = state.With(raftstate.HardState{Term: state.HardState.Term, Vote: state.HardState.Vote, Commit: at}, at)
		must(t, err)
		switch n % 4 {
		case 0: // empty
			b.Clean(id)
			without(id, 0)
		case 1: // keep history
			must(t, s.Entries(id, at, at+1, func(e raftstate.Entry) error { return b.Entries(id, []raftstate.Entry{e}) }))
			without(id, at+1)
		case 2: // another log
			b.Clean(id)
			list := logEntries(t, id, 1000, 1004, 9)
			must(t, b.Entries(id, list))
			without(id, 0)
			for _, e := range list {
				want[string(raftstate.RaftLogKey(id, e.Index))] = string(e.Raw)
			}
		case 3: // gone
			b.Clean(id)
			without(id, 0)
			delete(want, string(raftstate.RaftStateKey(id)))
			continue
		}
		must(t, b.PutState(id, state))
		want[string(raftstate.RaftStateKey(id))] = string(state.Raw)
	}
	if logs < 5 {
		t.Fatalf("only %d regions have a log", logs)
	}
	return b, want
}

func TestRocksEdit(t *testing.T) {
	mem := fixtures.CrashMem(t, "single-raftdb")
	fs := base.NewMem(mem)
	s := openRaftDB(t, fs)
	was := rows(t, s.kv)
	before := tree(t, fs, testData+"/raft")
	b, want := rocksBatch(t, s, was)
	p, err := PlanEdit(s, b, testTime)
	must(t, err)
	sum := p.Summary()
	if sum.Regions == 0 || sum.Deleted == 0 || sum.Entries == 0 || p.Bytes() == 0 || p.Empty() {
		t.Errorf("%+v", sum)
	}
	tx, err := edit.Begin(fs, testData, "p1", "test", "plan", p.Dirs(), testTime)
	must(t, err)
	if _, err := p.Staged(edit.StagedSuffix); err == nil {
		t.Error("read back before it was staged")
	}
	must(t, stage(tx, p))
	if got := rows(t, openRaftDB(t, fs).kv); fmt.Sprint(got) != fmt.Sprint(was) {
		t.Error("staging changed the database")
	}
	must(t, tx.Publish())
	after, err := p.Published()
	must(t, err)
	got := rows(t, after.(*dbStore).kv)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
	must(t, after.Close())
	must(t, tx.Finish(nil))
	t.Logf("%d rows before, %d after; %+v", len(was), len(got), sum)

	t.Run("RocksDB", func(t *testing.T) {
		for _, o := range []oracle.Options{{}, {ReadWrite: true, Opens: 2, Compact: []string{"default"}}} {
			r, err := oracle.ReadFS(t, oracle.V8_10, fs, testData+"/raft", o)
			must(t, err)
			seen := map[string]string{}
			for _, kv := range r.Rows["default"] {
				seen[string(kv.Key)] = string(kv.Value)
			}
			if fmt.Sprint(seen) != fmt.Sprint(want) {
				t.Errorf("RocksDB reads %d rows, want %d", len(seen), len(want))
			}
		}
	})

	must(t, tx.Undo(nil))
	if now := tree(t, fs, testData+"/raft"); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("undone: %d files, had %d", len(now), len(before))
	}
}

// tree is the content of a directory.
func tree(tb testing.TB, fs base.FS, dir string) map[string]string {
	tb.Helper()
	names, err := fs.List(dir)
	must(tb, err)
	out := map[string]string{}
	for _, n := range names {
		p := fs.PathJoin(dir, n)
		if st, err := fs.Stat(p); err != nil || st.IsDir() {
			continue
		}
		b, err := base.ReadFile(fs, p)
		must(tb, err)
		out[n] = string(b)
	}
	return out
}

// Random batches, one after the other: the database always holds what a map would.
func TestRocksEditRandom(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	mem := vfs.NewMem()
	src := fixtures.Mem(t, "single-raftdb")
	must(t, mem.MkdirAll(testData, 0o755))
	if ok, err := vfs.Clone(src, mem, testData+"/raft", testData+"/raft"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	fs := base.NewMem(mem)
	for round := 0; round < 12; round++ {
		s := openRaftDB(t, fs)
		want := rows(t, s.kv)
		ids, err := s.Regions()
		must(t, err)
		ids = append(ids, 7000, 7001)
		b := &Batch{}
		for i := 1 + rng.Intn(8); i > 0; i-- {
			id := ids[rng.Intn(len(ids))]
			randomStep(t, rng, b, want, id)
		}
		p, err := PlanEdit(s, b, testTime)
		must(t, err)
		id := fmt.Sprintf("p%d", round)
		tx, err := edit.Begin(fs, testData, id, "test", "plan", p.Dirs(), testTime)
		must(t, err)
		must(t, stage(tx, p))
		must(t, tx.Publish())
		must(t, tx.Finish(nil))
		if got := rows(t, openRaftDB(t, fs).kv); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("round %d: %d rows, want %d", round, len(got), len(want))
		}
	}
}

// randomStep adds one legal operation to a batch and does the same to a map of rows.
func randomStep(t *testing.T, rng *rand.Rand, b *Batch, want map[string]string, id uint64) {
	t.Helper()
	indexes := func() (first, last uint64) {
		for k := range want {
			if kind, r, i, _ := raftstate.ParseLocalKey([]byte(k)); r == id && kind == raftstate.KeyRaftLog {
				if first == 0 || i < first {
					first = i
				}
				last = max(last, i)
			}
		}
		return first, last
	}
	drop := func(from uint64) {
		for k := range want {
			if kind, r, i, _ := raftstate.ParseLocalKey([]byte(k)); r == id && kind == raftstate.KeyRaftLog && i >= from {
				delete(want, k)
			}
		}
	}
	switch rng.Intn(4) {
	case 0:
		b.Clean(id)
		drop(0)
		delete(want, string(raftstate.RaftStateKey(id)))
	case 1:
		s := raftState(t, 1+uint64(rng.Intn(9)), 0, 5, 5+uint64(rng.Intn(9)))
		must(t, b.PutState(id, *s))
		want[string(raftstate.RaftStateKey(id))] = string(s.Raw)
	default:
		first, last := indexes()
		from := 1 + uint64(rng.Intn(50))
		if last != 0 {
			from = first + uint64(rng.Intn(int(last-first)+2))
		}
		list := logEntries(t, id, from, from+uint64(rng.Intn(5)), 8)
		must(t, b.Entries(id, list))
		drop(from)
		for _, e := range list {
			want[string(raftstate.RaftLogKey(id, e.Index))] = string(bytes.Clone(e.Raw))
		}
	}
}

func TestRocksEditRefuses(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "single-raftdb"))
	s := openRaftDB(t, fs)
	ids, err := s.Regions()
	must(t, err)
	if _, err := PlanEdit(s, script(t, put(ids[0], "x", "y")), testTime); !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), "no place for the key") {
		t.Errorf("another key: %v", err)
	}
	_, last, _, err := s.Bounds(ids[1])
	must(t, err)
	if _, err := PlanEdit(s, script(t, entries(t, ids[1], last+2, last+2, 9)), testTime); !errors.Is(err, base.ErrUnsupported) {
		t.Errorf("a hole: %v", err)
	}
	p, err := PlanEdit(s, &Batch{}, testTime)
	if err != nil || !p.Empty() || p.Stage(nil) != nil || len(p.Dirs()) != 0 || p.Bytes() != 0 {
		t.Errorf("an empty batch: %v", err)
	}
}
