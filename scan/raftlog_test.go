package scan_test

import (
	"context"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func raftLog(t *testing.T, s *scan.Store, o scan.RaftLogOptions) (*scan.RaftLogResult, []*scan.LogEntry) {
	t.Helper()
	res, err := s.RaftLogOf(o.Region)
	if err != nil {
		t.Fatal(err)
	}
	var out []*scan.LogEntry
	if err := s.RaftLog(context.Background(), res, o, func(e *scan.LogEntry) error { out = append(out, e); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(out) != res.Shown {
		t.Errorf("%d entries, %d shown", len(out), res.Shown)
	}
	return res, out
}

// Every entry of every log decodes, down to the records that it writes; what is applied is in the data, and the indexes are those
// of the region's state.
func TestRaftLogDecodesAndIsApplied(t *testing.T) {
	entries, applied, tails := 0, 0, 0
	for _, name := range fixtures.Names() {
		if unreadable[name] {
			continue
		}
		for _, dir := range fixtures.Stores(t, name) {
			s := open(t, name, dir)
			for _, r := range s.Regions {
				if !r.Live() {
					continue
				}
				res, log := raftLog(t, s, scan.RaftLogOptions{Region: r.ID, Full: true})
				d := res.Derived
				if len(res.Missing) > 0 || res.Bad > 0 || uint64(len(log)) != d.Last-d.Truncated.Index {
					t.Errorf("%s%s region %d: %+v", name, dir, r.ID, res)
				}
				entries += len(log)
				if d.Last > d.Applied {
					tails++
					if res.Tail.Entries() != int(d.Last-d.Applied) {
						t.Errorf("%s%s region %d: tail of %d entries, %+v", name, dir, r.ID, res.Tail.Entries(), d)
					}
				}
				for _, e := range log {
					for _, q := range e.Requests {
						if q.Error != "" || q.Op == raftstate.OpPut && q.ValueBytes == 0 {
							t.Fatalf("%s%s region %d entry %d: %+v", name, dir, r.ID, e.Index, q)
						}
						if name == "single-default" && e.Status == scan.EntryApplied && q.Op == raftstate.OpPut && q.CF == scan.CFWrite {
							applied++
							inData(t, s, q)
						}
					}
				}
			}
		}
	}
	t.Logf("%d entries, %d tails, %d write records compared", entries, tails, applied)
	if entries == 0 || applied == 0 || tails == 0 {
		t.Error("the fixtures have nothing to look at")
	}
}

// inData looks an applied write record up in the write column family.
func inData(t *testing.T, s *scan.Store, q scan.LogRequest) {
	t.Helper()
	user, err := hex.DecodeString(q.Key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Key(user)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range r.Writes {
		if w.CommitTS == q.CommitTS {
			if w.StartTS != q.Write.StartTS || w.Type != q.Write.Type && !w.OverlappedRollback {
				t.Errorf("key %s at %s: %+v in the log, %+v in the data", q.Key, q.CommitTS, q.Write, w)
			}
			return
		}
	}
	// A rollback that is not protected makes room for the next one of its key.
	if q.Write.Type != "rollback" {
		t.Errorf("key %s: no version at %s", q.Key, q.CommitTS)
	}
}

func TestRaftLogOptions(t *testing.T) {
	s := open(t, "single-default", "/data")
	_, log := raftLog(t, s, scan.RaftLogOptions{Region: 4, From: 370, To: 372})
	var got []uint64
	for _, e := range log {
		got = append(got, e.Index)
	}
	if d := cmp.Diff([]uint64{370, 371, 372}, got); d != "" {
		t.Error(d)
	}
	var res *scan.RaftLogResult
	cut := 0
	for _, e := range log {
		for _, q := range e.Requests {
			if q.Truncated {
				cut++
			}
			if q.Write != nil && q.Write.ShortValue != nil && len(*q.Write.ShortValue) > 64 {
				t.Errorf("value of %d bytes", len(*q.Write.ShortValue)/2)
			}
		}
	}
	if cut == 0 {
		t.Error("no value was cut")
	}
	// What was compacted away and still lies in the engine can be asked for, and is no part of the log; what lies nowhere is missing
	// only inside the log.
	if res, log = raftLog(t, s, scan.RaftLogOptions{Region: 4, From: 1, To: 210}); len(res.Missing) != 0 || len(log) != 4 {
		t.Errorf("%d entries, missing %v", len(log), res.Missing)
	}
	if res, log = raftLog(t, s, scan.RaftLogOptions{Region: 4, From: 370, To: 1 << 40}); len(res.Missing) != 0 || len(log) != 7 {
		t.Errorf("%d entries, missing %v", len(log), res.Missing)
	}
	if _, log = raftLog(t, s, scan.RaftLogOptions{Region: 4, Tail: true}); len(log) != 0 {
		t.Errorf("tail of %d entries", len(log))
	}
	if _, err := s.RaftLogOf(999); !errors.Is(err, base.ErrUsage) {
		t.Errorf("%v", err)
	}
}

// The summary of a tail: a region that was left with entries which are committed nowhere.
func TestRaftLogTail(t *testing.T) {
	s := open(t, "multi3-merging-late", "/store0")
	res, log := raftLog(t, s, scan.RaftLogOptions{Region: 93, Tail: true})
	if len(log) != 1 || log[0].Status != scan.EntryUncommitted || log[0].Index != res.Derived.Last || res.State != "Normal" {
		t.Fatalf("%+v %+v", res, log)
	}
	if res.Tail.Entries() != 1 || res.Tail.CommittedPart.Entries != 0 || res.Tail.EpochAfter == (raftstate.Epoch{}) {
		t.Errorf("%+v", res.Tail)
	}
	if res.Tail.MinCommitTS > res.Tail.MaxCommitTS || res.Tail.MinCommitTS != mvcc.TS(res.Tail.UncommittedPart.MinCommitTS) {
		t.Errorf("%+v", res.Tail)
	}
}

// A hole in a log is named, and only as far as it was asked for.
func TestRaftLogMissing(t *testing.T) {
	for _, d := range damages {
		if d.name != "a log entry is missing" {
			continue
		}
		p := admit(t, d.fixture)
		d.hurt(p)
		var lost *lostEntry
		for _, f := range check(t, p.base(), p.dir, false).Findings {
			lost = lostOf(f)
		}
		p.look(func(s *scan.Store) {
			res, _ := raftLog(t, s, scan.RaftLogOptions{Region: lost.region})
			if cmp.Diff([][2]uint64{{lost.index, lost.index}}, res.Missing) != "" {
				t.Errorf("%+v, missing %v", lost, res.Missing)
			}
			if res, _ = raftLog(t, s, scan.RaftLogOptions{Region: lost.region, From: lost.index + 1}); len(res.Missing) > 0 {
				t.Errorf("missing %v", res.Missing)
			}
			if res, _ = raftLog(t, s, scan.RaftLogOptions{Region: lost.region, From: lost.index, To: lost.index}); len(res.Missing) != 1 {
				t.Errorf("missing %v", res.Missing)
			}
		})
	}
}
