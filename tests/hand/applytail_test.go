package hand_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// A replica that lags learns from the one that is ahead what is committed, and applies it: then both hold the same data.
func TestApplyTailEqualsTheReplicaThatIsAhead(t *testing.T) {
	regions, records := 0, int64(0)
	for _, name := range multis {
		dirs := fixtures.Stores(t, name)
		for _, lagging := range dirs {
			for _, ahead := range dirs {
				if lagging == ahead {
					continue
				}
				mem := fixtures.Mem(t, name)
				goals := map[uint64]uint64{}
				other := open(t, mem, ahead)
				commonGoals(t, mem, lagging, other, goals)
				if len(goals) == 0 {
					other.Close()
					continue
				}
				graft(t, mem, lagging, func(s *scan.Store, b *raftlog.Batch) {
					for id, goal := range goals {
						st, err := raftStateOf(t, s, id).WithCommit(goal)
						must(t, err)
						must(t, b.PutState(id, st))
					}
				})
				what := fmt.Sprintf("%s%s after %s", name, lagging, ahead)
				b := look(t, mem, lagging)
				res := do(t, mem, lagging, repair.ApplyTail, repair.HandArgs{})
				s := open(t, mem, lagging)
				allStart(t, what, s, b.broken)
				want := contentOf(t, other)
				got := contentOf(t, s)
				changed := map[string]bool{}
				if len(res.Lines) != len(goals) || len(res.Problems) != 0 || res.Raft != nil {
					t.Errorf("%s: %+v; want %v", what, res, goals)
				}
				for _, l := range res.Lines {
					changed[string(raftstate.ApplyStateKey(l.Region))] = true
					r := regionOf(t, s, l.Region)
					d, goal := derive(t, s, r), goals[l.Region]
					if d.Applied != goal || d.Commit != goal || d.Last != b.derived[l.Region].Last || len(d.Invariants()) > 0 || l.Tail.To != goal {
						t.Errorf("%s, region %d: %+v, want applied %d", what, l.Region, d, goal)
					}
					lower, upper := r.Bounds()
					for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
						if g, w := within(got[cf], lower, upper), within(want[cf], lower, upper); !slices.Equal(g, w) {
							t.Errorf("%s, region %d, %s: %d records, want %d", what, l.Region, cf, len(g), len(w))
						}
					}
					regions, records = regions+1, records+l.Tail.Records+l.Tail.Ranges
				}
				// Everything outside these regions is what it was.
				for _, r := range s.Regions {
					if goals[r.ID] != 0 {
						lower, upper := r.Bounds()
						for _, c := range []content{got, b.content} {
							for _, cf := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
								drop(c[cf], lower, upper)
							}
						}
					}
				}
				sameContent(t, what, got, b.content, changed)
				s.Close()
				other.Close()
				nothingToDo(t, mem, lagging, repair.ApplyTail, repair.HandArgs{})
				undo(t, mem, lagging, b.tree)
			}
		}
	}
	t.Logf("%d replicas caught up by %d records", regions, records)
	if regions < 20 || records == 0 {
		t.Error("the fixtures should give more")
	}
}

// commonGoals finds the regions of which the log of one replica holds all that another has applied.
func commonGoals(t *testing.T, fs vfs.FS, lagging string, other *scan.Store, goals map[uint64]uint64) {
	t.Helper()
	s := open(t, fs, lagging)
	defer s.Close()
	for _, o := range other.Regions {
		for _, r := range s.Regions {
			if r.ID != o.ID || !r.Live() || !o.Live() || r.State.State != raftstate.Normal || r.Apply == nil || o.Apply == nil ||
				r.State.Region.Epoch != o.State.Region.Epoch {
				continue
			}
			if d := derive(t, s, r); o.Apply.AppliedIndex > d.Applied && o.Apply.AppliedIndex <= d.Last {
				goals[r.ID] = o.Apply.AppliedIndex
			}
		}
	}
}

func within(m map[string]string, lower, upper []byte) []string {
	var out []string
	for k, v := range m {
		if k >= string(lower) && k < string(upper) {
			out = append(out, k+" "+v)
		}
	}
	slices.Sort(out)
	return out
}

func drop(m map[string]string, lower, upper []byte) {
	for k := range m {
		if k >= string(lower) && k < string(upper) {
			delete(m, k)
		}
	}
}

// both are stores with one peer for each region, in the two kinds of raft store.
var both = []string{"single-default", "single-raftdb"}

// user is a row of a table that the fixtures do not have, in a region that they do.
func user(n int) string {
	return fmt.Sprintf("t\x80\x00\x00\x00\x00\x00\x00\x46_r\x80\x00\x00\x00\x00\x00\xF0%c", n)
}

// A tail as a leader writes it is applied up to the first entry that changes the region.
func TestApplyTailStory(t *testing.T) {
	for _, name := range both {
		mem := only(t, name, dataDir)
		long := strings.Repeat("long ", 100)
		var stop, noOp uint64
		a := appendTail(t, mem, dataDir, []byte(user(0)), nil, func(a *author) {
			stale, newer := a.region.Epoch, a.region.Epoch
			stale.Version--
			newer.Version++
			conf := a.region.Epoch
			conf.ConfVer += 7 // writes are not checked for it
			a.entry(eraftpb.EntryType_EntryNormal, nil)
			a.write(a.region.Epoch, version(user(1), "one", 10, 11)...)
			noOp = a.write(stale, version(user(2), "stale", 20, 21)...)
			a.write(newer, version(user(2), "newer", 22, 23)...)
			a.write(conf, version(user(3), long, 30, 31)...)
			a.write(a.region.Epoch, put("lock", mvcc.LockKey([]byte(user(4))), mvcc.Lock{Type: mvcc.LockPut, Primary: []byte(user(4)), StartTS: 40, ShortValue: []byte("four"), HasShortValue: true}.Append(nil)))
			a.write(a.region.Epoch, append(version(user(4), "four", 40, 41), del("lock", mvcc.LockKey([]byte(user(4)))))...)
			a.write(a.region.Epoch, version(user(5), "gone", 50, 51)...)
			a.write(a.region.Epoch, delRange("write", mvcc.LockKey([]byte(user(5))), mvcc.LockKey([]byte(user(6)))))
			a.admin(&raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_CompactLog, CompactLog: &raft_cmdpb.CompactLogRequest{CompactIndex: a.next - 3, CompactTerm: a.term}})
			stop = a.admin(&raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_BatchSplit, Splits: &raft_cmdpb.BatchSplitRequest{}})
			a.write(a.region.Epoch, version(user(7), "behind the split", 70, 71)...)
		})
		b := look(t, mem, dataDir)
		res := do(t, mem, dataDir, repair.ApplyTail, repair.HandArgs{})
		l := res.Lines[0]
		if len(res.Lines) != 1 || l.Region != a.region.ID || l.Tail.To != stop-1 || l.Tail.Limit != stop+1 || l.Tail.Stopped == nil || l.Tail.Stopped.Index != stop ||
			l.Tail.NoOps != 4 || l.Tail.Records != 7 || l.Tail.Ranges != 1 || !slices.Equal(problems(res), []string{"tail-stops"}) {
			t.Errorf("%s: %+v, tail %+v; no-op %d, stop %d", name, res, l.Tail, noOp, stop)
		}
		s := open(t, mem, dataDir)
		for n, want := range map[int]string{1: "one", 2: "", 3: long, 4: "four", 5: "", 7: ""} {
			if got := rowAt(t, s, user(n), 1000); got != want {
				t.Errorf("%s: row %d is %q, want %q", name, n, got, want)
			}
		}
		r := regionOf(t, s, a.region.ID)
		if d := derive(t, s, r); d.Applied != stop-1 || d.CommitTerm != a.term || d.Last != stop+1 || d.Truncated != b.derived[r.ID].Truncated {
			t.Errorf("%s: %+v", name, d)
		}
		allStart(t, name, s, nil)
		if locks := within(contentOf(t, s)[scan.CFLock], mvcc.LockKey([]byte(user(4))), mvcc.LockKey([]byte(user(5)))); len(locks) != 0 {
			t.Errorf("%s: locks left: %q", name, locks)
		}
		s.Close()
		nothingToDo(t, mem, dataDir, repair.ApplyTail, repair.HandArgs{})
		undo(t, mem, dataDir, b.tree)
	}
}

// What cannot be applied offline stops a tail at once; nothing is written then.
func TestApplyTailStops(t *testing.T) {
	for what, compose := range map[string]func(a *author){
		"changes the peers": func(a *author) { a.confChange() },
		"BatchSplit": func(a *author) {
			a.admin(&raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_BatchSplit, Splits: &raft_cmdpb.BatchSplitRequest{}})
		},
		"PrepareMerge": func(a *author) {
			a.admin(&raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_PrepareMerge, PrepareMerge: &raft_cmdpb.PrepareMergeRequest{}})
		},
		"ingests a file": func(a *author) {
			a.write(a.region.Epoch, &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_IngestSST, IngestSst: &raft_cmdpb.IngestSSTRequest{Sst: &import_sstpb.SSTMeta{CfName: "write"}}})
		},
		"outside the region": func(a *author) {
			a.write(a.region.Epoch, put("write", []byte("z\xFFfar away"), nil))
		},
		"column family": func(a *author) {
			a.write(a.region.Epoch, put("raft", mvcc.LockKey([]byte(user(1))), nil))
		},
		"does not decode": func(a *author) {
			a.entry(eraftpb.EntryType_EntryNormal, nil)
			raw, err := (&eraftpb.Entry{Term: a.term, Index: a.next - 1, Data: []byte("\xFF\xFF\xFF")}).Marshal()
			must(a.t, err)
			a.list[len(a.list)-1], err = raftstate.ParseEntry(raw)
			must(a.t, err)
		},
	} {
		mem := only(t, "single-default", dataDir)
		appendTail(t, mem, dataDir, []byte(user(0)), nil, func(a *author) {
			compose(a)
			a.write(a.region.Epoch, version(user(1), "behind", 10, 11)...)
		})
		before := tree(t, mem, dataDir)
		res, err := try(mem, dataDir, repair.ApplyTail, repair.HandArgs{})
		if err != nil || res.State != repair.StateUnchanged || !slices.Equal(problems(res), []string{"tail-stops"}) || !strings.Contains(res.Problems[0].What, what) {
			t.Errorf("%s: %+v, %v", what, res, err)
		}
		fixtures.SameTree(t, what, tree(t, mem, dataDir), before)
	}
}

// Of a region with peers elsewhere only what is known to be committed is applied.
func TestApplyTailStopsAtCommit(t *testing.T) {
	const name, dir = "multi3-lost2", "/store0"
	mem := only(t, name, dir)
	a := appendTail(t, mem, dir, []byte(user(0)), func(first, _ uint64) uint64 { return first }, func(a *author) {
		a.write(a.region.Epoch, version(user(1), "committed", 10, 11)...)
		a.write(a.region.Epoch, version(user(2), "maybe", 10, 11)...)
	})
	if len(a.region.Peers) < 2 {
		t.Fatalf("%+v", a.region)
	}
	res := do(t, mem, dir, repair.ApplyTail, repair.HandArgs{Regions: []uint64{a.region.ID}})
	if len(res.Lines) != 1 || res.Lines[0].Tail.To != a.list[0].Index || len(res.Problems) != 0 {
		t.Errorf("%+v", res)
	}
	s := open(t, mem, dir)
	if one, two := rowAt(t, s, user(1), 1000), rowAt(t, s, user(2), 1000); one != "committed" || two != "" {
		t.Errorf("%q %q", one, two)
	}
	allStart(t, name, s, nil)
}

// The rewind of a store with a tail that can be applied.
func TestResetWithTail(t *testing.T) {
	for _, name := range both {
		T := mvcc.TS(fixtures.Facts(t, name).T2)
		reset := func(mem *vfs.MemFS, force ...string) (*repair.Result, error) {
			safe := mvcc.TS(1)
			return repair.Reset(t.Context(), memFS(mem), dataDir, scan.Options{},
				repair.ResetOptions{RewindOptions: repair.RewindOptions{T: T, SafePoint: &safe, Now: now, Threads: 2}, Force: forced(force...)})
		}
		want := fixtures.ExpectAt(t, name, uint64(T))
		dump := func(s *scan.Store, ts mvcc.TS) []byte {
			v, err := s.NewView(ts)
			must(t, err)
			var b bytes.Buffer
			_, err = v.Dump(t.Context(), &b, scan.DumpOptions{T: ts, Format: scan.TSV, Bad: func(err error) { t.Error(err) }})
			must(t, err)
			return b.Bytes()
		}
		row := func(n int, value string) []byte { return fmt.Appendf(nil, "%X\t%X\n", user(n), value) }
		data := func(a *author) {
			a.write(a.region.Epoch, version(user(1), "before T", T-2, T-1)...)
			a.write(a.region.Epoch, version(user(2), "at T", T-3, T)...)
			a.write(a.region.Epoch, version(user(3), "after T", T+1, T+2)...)
			a.write(a.region.Epoch, version(user(4), "across T", T-4, T+3)...)
		}

		// Every entry can be applied: that comes first.
		mem := only(t, name, dataDir)
		a := appendTail(t, mem, dataDir, []byte(user(0)), nil, data)
		before := tree(t, mem, dataDir)
		res, err := reset(mem)
		must(t, err)
		s := open(t, mem, dataDir)
		for _, ts := range []mvcc.TS{T, mvcc.MaxTS - 1} {
			got := dump(s, ts)
			for n, value := range map[int]string{1: "before T", 2: "at T"} {
				if !bytes.Contains(got, row(n, value)) {
					t.Errorf("%s at %d: %q is lost", name, ts, value)
				}
				got = bytes.Replace(got, row(n, value), nil, 1)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s at %d: the other rows are not those of T", name, ts)
			}
		}
		if rowAt(t, s, user(3), mvcc.MaxTS) != "" || rowAt(t, s, user(4), mvcc.MaxTS) != "" {
			t.Errorf("%s: versions above T are left", name)
		}
		r := regionOf(t, s, a.region.ID)
		if d := derive(t, s, r); d.Applied != d.Last || d.Applied != a.next-1 {
			t.Errorf("%s: %+v", name, d)
		}
		allStart(t, name, s, nil)
		s.Close()
		t.Logf("%s: %+v", name, res.Problems)
		if res, err = reset(mem); err != nil || res.State != repair.StateUnchanged {
			t.Errorf("%s, again: %+v, %v", name, res, err)
		}
		undo(t, mem, dataDir, before)
	}
}
