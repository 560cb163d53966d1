package hand_test

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/pingcap/kvproto/pkg/eraftpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// failing gives every writing operation from the n-th on an error, counted from 1; 0 counts only.
func failing(fs vfs.FS, n int64, count *atomic.Int64) base.FS {
	return base.NewMem(errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		if k := count.Add(1); n == 0 || k < n {
			return nil
		}
		return syscall.EIO
	})))
}

// Each edit is broken off at each of its writes. The same command, an hour later and without the forces, goes on to the same files as
// without the interruption; one with other arguments is refused; undo gives the old files back.
func TestInterruptedEditGoesOn(t *testing.T) {
	const name, dir = "multi5-lost3", "/store0"
	start := only(t, name, dir)
	a := appendTail(t, start, dir, nil, func(_, last uint64) uint64 { return last }, func(a *author) {
		a.entry(eraftpb.EntryType_EntryNormal, nil)
	})
	s := open(t, start, dir)
	own, _ := a.region.PeerOn(s.Ident.StoreID)
	s.Close()
	before := tree(t, start, dir)
	regions := []uint64{a.region.ID}
	learner := raftstate.Peer{ID: 9001, StoreID: 9000, Role: raftstate.Learner}
	for _, c := range []struct {
		verb        repair.HandVerb
		args, other repair.HandArgs
		force       []string
	}{
		{repair.ApplyTail, repair.HandArgs{}, repair.HandArgs{Regions: []uint64{1}}, nil},
		{repair.CutTail, repair.HandArgs{Regions: regions, KeepHistory: true}, repair.HandArgs{Regions: regions}, []string{"multi-store", "raft-tail"}},
		{repair.Tombstone, repair.HandArgs{Regions: regions}, repair.HandArgs{}, nil},
		{repair.SetPeers, repair.HandArgs{Regions: regions, Peers: []raftstate.Peer{own, learner}},
			repair.HandArgs{Regions: regions, Peers: []raftstate.Peer{own}}, []string{"multi-store"}},
	} {
		run := func(fs base.FS, args repair.HandArgs, at time.Time, force ...string) (*repair.HandResult, error) {
			return repair.Hand(context.Background(), fs, dir, scan.Options{}, repair.HandOptions{Verb: c.verb, Args: args, Force: forced(force...), Now: at, Threads: 1})
		}
		var writes atomic.Int64
		whole := cloneOf(t, start, dir)
		if _, err := run(failing(whole, 0, &writes), c.args, now, c.force...); err != nil {
			t.Fatalf("%s: %v", c.verb, err)
		}
		want := tree(t, whole, dir)
		fenced := 0
		for n := int64(1); n <= writes.Load(); n++ {
			mem := cloneOf(t, start, dir)
			if _, err := run(failing(mem, n, new(atomic.Int64)), c.args, now, c.force...); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s, EIO from write %d on: %v", c.verb, n, err)
				continue
			}
			s := open(t, mem, dir)
			fence := s.Fenced()
			s.Close()
			if fence {
				fenced++
				broken := tree(t, mem, dir)
				if _, err := run(memFS(mem), c.other, now); !errors.Is(err, base.ErrPlanMismatch) {
					t.Errorf("%s, EIO from write %d on, then with other arguments: %v", c.verb, n, err)
				}
				if _, err := run(memFS(mem), c.args, now); err != nil { // forces are in the plan
					t.Errorf("%s, EIO from write %d on, then again: %v", c.verb, n, err)
					fixtures.SameTree(t, "refused", tree(t, mem, dir), broken)
				}
			} else {
				if _, err := run(memFS(mem), c.args, now, c.force...); err != nil {
					t.Errorf("%s, EIO from write %d on, then again: %v", c.verb, n, err)
				}
			}
			got := tree(t, mem, dir)
			delete(got, dir+"/panic_mark_file.tmp")
			delete(got, dir+"/panic_mark_file.tikv-repair.tmp")
			fixtures.SameTree(t, string(c.verb)+" after an interruption", got, want)
			if t.Failed() {
				return
			}
		}
		if fenced == 0 {
			t.Errorf("%s: the fence was never up", c.verb)
		}
		t.Logf("%s: %d writes, %d with the fence up", c.verb, writes.Load(), fenced)
		undo(t, whole, dir, before)
	}
}

// cloneOf copies a store.
func cloneOf(t *testing.T, from *vfs.MemFS, dir string) *vfs.MemFS {
	t.Helper()
	to := vfs.NewMem()
	if ok, err := vfs.Clone(from, to, dir, dir); err != nil || !ok {
		t.Fatal(ok, err)
	}
	return to
}
