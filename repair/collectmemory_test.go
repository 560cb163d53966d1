package repair

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// manyRegions gives a store n more regions, of three peers each, with a few entries in their logs.
func manyRegions(t testing.TB, fs base.FS, dir string, n, entries int) {
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := scan.Open(fs, dir, scan.Options{Mode: base.LockExclusive})
	ok(err)
	defer s.Close()
	run, batch := &rocks.Run{}, raftlog.Batch{}
	key := func(i int) raftstate.Key {
		return mvcc.EncodeBytes(nil, fmt.Appendf(nil, "y%032d", i)) // behind everything that is there
	}
	for i := range n {
		id := uint64(1_000_000 + i)
		r := raftstate.Region{ID: id, StartKey: key(i), EndKey: key(i + 1), Epoch: raftstate.Epoch{ConfVer: 5, Version: 300},
			Peers: []raftstate.Peer{{ID: 10_000_000 + 3*id, StoreID: s.Ident.StoreID}, {ID: 10_000_001 + 3*id, StoreID: 900}, {ID: 10_000_002 + 3*id, StoreID: 901}}}
		state, err := (raftstate.RegionLocalState{}).Rewrite(raftstate.Normal, r, false)
		ok(err)
		run.Add(ikey.Key{User: raftstate.RegionStateKey(id), Kind: ikey.KindPut}, state.Raw)
		last := uint64(raftstate.InitLogIndex + entries)
		apply, err := raftstate.ParseRaftApplyState(raftstate.InitialApplyState().WithApplied(last-1, last-1, 6))
		ok(err)
		apply, err = apply.WithTruncated(raftstate.TruncatedState{Index: raftstate.InitLogIndex, Term: raftstate.InitLogTerm})
		ok(err)
		run.Add(ikey.Key{User: raftstate.ApplyStateKey(id), Kind: ikey.KindPut}, apply.Raw)
		cmd, err := (&raft_cmdpb.RaftCmdRequest{Header: &raft_cmdpb.RaftRequestHeader{RegionId: id, Peer: &metapb.Peer{Id: r.Peers[0].ID, StoreId: s.Ident.StoreID},
			RegionEpoch: &metapb.RegionEpoch{ConfVer: 5, Version: 300}, Term: 6},
			Requests: []*raft_cmdpb.Request{{CmdType: raft_cmdpb.CmdType_Put, Put: &raft_cmdpb.PutRequest{Cf: "lock", Key: key(i), Value: []byte("x")}}}}).Marshal()
		ok(err)
		var list []raftstate.Entry
		for x := uint64(raftstate.InitLogIndex + 1); x <= last; x++ {
			raw, err := (&eraftpb.Entry{Term: 6, Index: x, Data: cmd}).Marshal()
			ok(err)
			e, err := raftstate.ParseEntry(raw)
			ok(err)
			list = append(list, e)
		}
		ok(batch.Entries(id, list))
		st, err := raftstate.InitialRaftState().With(raftstate.HardState{Term: 6, Vote: r.Peers[0].ID, Commit: last}, last)
		ok(err)
		ok(batch.PutState(id, st))
	}
	now := time.Unix(1_790_000_000, 0)
	e, err := raftlog.PlanEdit(s.Raft, &batch, now)
	ok(err)
	tx, err := edit.Begin(fs, dir, "many", "test", "plan", append([]string{s.Layout.KVDir}, e.Dirs()...), now)
	ok(err)
	ok(e.Stage(tx))
	w := &Rewinder{store: s, o: RewindOptions{T: mvcc.MaxTS, Now: now, Threads: 1}, staleTS: true}
	d, err := w.physicalPass(context.Background(), tx, newEffect(), map[string]*rocks.Run{scan.CFRaft: run})
	ok(err)
	ok(stageVersion(context.Background(), w, tx, d))
	ok(tx.Stage())
	ok(tx.Publish())
	ok(tx.Finish(nil))
	ok(tx.Discard())
}

// heap measures what lives, now and then.
type heap struct{ base, peak int64 }

func live() int64 {
	runtime.GC()
	runtime.GC() // pools let go at the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (h *heap) look() { h.peak = max(h.peak, live()-h.base) }

// lines counts, and looks at the heap every now and then.
type lines struct {
	n     int
	every int
	h     *heap
}

func (l *lines) Write(p []byte) (int, error) {
	before := l.n / l.every
	l.n += bytes.Count(p, []byte("\n"))
	if l.n/l.every > before {
		l.h.look()
	}
	return len(p), nil
}

// A report is written while the store is read: of a region only its range and id are held, and, in raft-engine, the index of its log, here with
// ten entries each. 100,000 peers fit into 50 MiB.
func TestCollectMemory(t *testing.T) {
	const n = 20_000
	const limit = 50 << 20
	for _, name := range []string{"single-default", "single-raftdb"} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() {
				t.Skip("makes a store of many regions: not in a short run")
			}
			mem := fixtures.Mem(t, name)
			fs := base.NewMem(mem)
			growth := func() (opened, collecting int64) {
				h := &heap{base: live()}
				s, err := scan.Open(fs, "/data", scan.Options{NoRegions: true})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				h.look()
				opened = h.peak
				out, regions := &lines{every: 2000, h: h}, uint64(0)
				if err := Collect(t.Context(), s, out, CollectOptions{ToTS: mvcc.MaxTS, Now: time.Unix(0, 0), Regions: &regions}); err != nil {
					t.Fatal(err)
				}
				h.look()
				if uint64(out.n) < regions || regions == 0 {
					t.Errorf("%d lines for %d regions", out.n, regions)
				}
				return opened, h.peak - opened
			}
			few, fewMore := growth()
			manyRegions(t, fs, "/data", n, 10)
			many, manyMore := growth()
			per100k := func(x int64) int64 { return x * 100_000 / n }
			open, more := per100k(many-few), per100k(manyMore-fewMore)
			t.Logf("100,000 peers: %.1f MiB for the open store, %.1f MiB more while it is collected", float64(open)/(1<<20), float64(more)/(1<<20))
			if open+more > limit {
				t.Errorf("the limit is %d MiB for both", limit>>20)
			}
			runtime.KeepAlive(mem)
		})
	}
}
