package quorum

import (
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	raftjudge "github.com/tikv-repair/tikv-repair/tests/oracle/raftengine"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// judged are repairs whose results real engines read: with and without a rewind, on both kinds of raft store, with entries carried from store to
// store, with holes.
var judged = []struct {
	name   string
	dirs   []string
	rewind bool
}{
	{"multi3-lost2", []string{"/store2"}, true},
	{"multi3-merging-late", []string{"/store1"}, false},
	{"multi4-dr-learner", []string{"/store0", "/store3"}, false},
	{"multi4-dr-learner", []string{"/store2", "/store3"}, true},
	{"multi5-lost3", []string{"/store0", "/store2"}, false},
	{"multi5-lost3", []string{"/store0", "/store3"}, true},
}

// Real raft-engine reads every log of a repaired store as we do.
func TestRaftEngineReadsTheResults(t *testing.T) {
	raftjudge.Available(t)
	n := 0
	eachJudged(t, func(t *testing.T, r *repaired, s *scan.Store) {
		e, ok := s.Raft.(*raftlog.Engine)
		if !ok {
			return
		}
		ours, err := raftjudge.Ours(e)
		must(t, err)
		theirs, err := raftjudge.DumpFS(t, r.fs, s.Layout.RaftDir)
		must(t, err)
		if d := raftjudge.Diff(ours, theirs); d != "" {
			t.Errorf("raft-engine reads something else: %s", d)
		}
		n++
	})
	if n < 4 {
		t.Errorf("raft-engine was asked %d times", n)
	}
}

// Real RocksDB, of each of the three lines in turn, reads every key of every column family as we do, and every log entry where the raft store is a RocksDB.
func TestRocksDBReadsTheResults(t *testing.T) {
	oracle.Available(t, oracle.Versions()...)
	logs, next, versions := 0, 0, oracle.Versions()
	eachJudged(t, func(t *testing.T, r *repaired, s *scan.Store) {
		v := versions[next%len(versions)]
		next++
		got, err := oracle.ReadFS(t, v, r.fs, s.Layout.KVDir, oracle.Options{ReadWrite: true, Opens: 2})
		must(t, err)
		for _, cf := range s.DB.Names() {
			sameRows(t, s, cf, got.Rows[cf])
		}
		if _, ok := s.Raft.(*raftlog.Engine); ok {
			return
		}
		got, err = oracle.ReadFS(t, oracle.V8_10, r.fs, s.Layout.RaftDir, oracle.Options{ReadWrite: true})
		must(t, err)
		logs += sameLogs(t, s, got.Rows["default"])
	})
	if logs == 0 {
		t.Error("no log entry was compared")
	}
}

func eachJudged(t *testing.T, check func(*testing.T, *repaired, *scan.Store)) {
	for _, c := range judged {
		a := load(t, c.name)
		s := a.survivors(c.dirs...)
		ts := mvcc.TS(0)
		if c.rewind {
			ts = a.moments(t)[1]
		}
		t.Run(c.name+"/"+s.String(), func(t *testing.T) {
			mem := s.copyOf(t)
			res, err := together(t, base.NewMem(mem), s, s.options(ts))
			must(t, err)
			r := s.look(t, mem, res.Plan)
			defer r.close(t)
			for _, st := range r.stores {
				check(t, r, st)
			}
		})
	}
}

func sameRows(t *testing.T, s *scan.Store, cf string, theirs []oracle.KV) {
	t.Helper()
	v, err := s.DB.CF(cf).NewVisible(nil, nil, nil)
	must(t, err)
	defer v.Close()
	n := 0
	for ok := v.First(); ok; ok = v.Next() {
		if n >= len(theirs) || string(theirs[n].Key) != string(v.User()) || string(theirs[n].Value) != string(v.Value()) {
			t.Errorf("%s: RocksDB reads another row than ours, %X", cf, v.User())
			return
		}
		n++
	}
	must(t, v.Err())
	if n != len(theirs) {
		t.Errorf("%s: RocksDB reads %d rows, we %d", cf, len(theirs), n)
	}
}

func sameLogs(t *testing.T, s *scan.Store, rows []oracle.KV) (n int) {
	t.Helper()
	theirs := map[string]string{}
	for _, kv := range rows {
		theirs[string(kv.Key)] = string(kv.Value)
	}
	ids, err := s.Raft.Regions()
	must(t, err)
	for _, id := range ids {
		raw, ok, err := s.Raft.RaftState(id)
		must(t, err)
		if ok && theirs[string(raftstate.RaftStateKey(id))] != string(raw) {
			t.Errorf("RocksDB reads another raft state of region %d", id)
		}
		must(t, s.Raft.Entries(id, 0, ^uint64(0), func(e raftstate.Entry) error {
			n++
			if theirs[string(raftstate.RaftLogKey(id, e.Index))] != string(e.Raw) {
				t.Errorf("RocksDB reads another entry %d of region %d", e.Index, id)
			}
			return nil
		}))
	}
	return n
}
