package hand_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/import_sstpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// A region of which one store holds more than another, with what a test writes into both.
type pairCase struct {
	mem        *vfs.MemFS
	id         uint64
	mine, them *author
}

// diverge lets two leaders write behind the logs of one region on two stores: mine with the next term, theirs with the one after it.
func diverge(t *testing.T, lagging, other string, compose func(mine, theirs *author)) pairCase {
	t.Helper()
	mem := fixtures.Mem(t, "multi3-lost2")
	// Both stand at the same entry first.
	for _, p := range [][2]string{{lagging, other}, {other, lagging}} {
		_, err := try(mem, p[0], repair.ApplyTail, repair.HandArgs{From: []string{p[1]}})
		must(t, err)
	}
	for _, d := range []string{lagging, other} {
		_, err := try(mem, d, repair.CutTail, repair.HandArgs{KeepHistory: true}, "raft-tail", "multi-store")
		must(t, err)
	}
	// The way back of a test is not that of its preparation.
	forget(t, mem, lagging)
	forget(t, mem, other)
	c := pairCase{mem: mem}
	draft := func(dir string) *author {
		s := open(t, mem, dir)
		defer s.Close()
		r := holder(t, s, []byte(user(0)))
		st := raftStateOf(t, s, r.ID)
		peer, _ := r.State.Region.PeerOn(s.Ident.StoreID)
		c.id = r.ID
		return &author{t: t, region: r.State.Region, peer: peer, term: st.HardState.Term + 1, next: st.LastIndex + 1}
	}
	c.mine, c.them = draft(lagging), draft(other)
	if c.mine.next != c.them.next {
		t.Fatalf("logs end before %d and %d", c.mine.next, c.them.next)
	}
	c.them.term = c.mine.term + 1
	compose(c.mine, c.them)
	for dir, a := range map[string]*author{lagging: c.mine, other: c.them} {
		if len(a.list) == 0 {
			continue
		}
		graft(t, mem, dir, func(s *scan.Store, b *raftlog.Batch) {
			st := raftStateOf(t, s, c.id)
			must(t, b.Entries(c.id, a.list))
			h := raftstate.HardState{Term: a.term, Vote: a.peer.ID, Commit: st.HardState.Commit}
			if a == c.them {
				h.Commit = a.next - 1
			}
			now, err := st.With(h, a.next-1)
			must(t, err)
			must(t, b.PutState(c.id, now))
		})
	}
	return c
}

// forget drops the backups of a store.
func forget(t *testing.T, mem vfs.FS, dir string) {
	t.Helper()
	list, err := edit.List(memFS(mem), dir)
	must(t, err)
	for _, tx := range list {
		must(t, tx.Discard())
	}
}

const lags, leads = "/store0", "/store1"

// Entries of a leader that lost its place give way to those that were committed, as in a follower.
func TestOwnEntriesGiveWay(t *testing.T) {
	c := diverge(t, lags, leads, func(mine, theirs *author) {
		mine.write(mine.region.Epoch, version(user(1), "never committed", 10, 11)...)
		mine.write(mine.region.Epoch, version(user(2), "never committed", 10, 11)...)
		mine.write(mine.region.Epoch, version(user(3), "never committed", 10, 11)...)
		theirs.write(theirs.region.Epoch, version(user(1), "committed", 12, 13)...)
		theirs.write(theirs.region.Epoch, version(user(4), "committed", 12, 13)...)
	})
	b := look(t, c.mem, lags)
	args := repair.HandArgs{From: []string{leads}, Regions: []uint64{c.id}}
	res := do(t, c.mem, lags, repair.ApplyTail, args)
	if l := res.Lines[0]; len(res.Problems) != 0 || l.Tail.Appended != 2 || l.Tail.Replaced != 3 || l.Tail.Source != leads || res.Raft == nil {
		t.Errorf("%+v %+v", res, res.Lines[0].Tail)
	}
	s := open(t, c.mem, lags)
	for n, want := range map[int]string{1: "committed", 2: "", 3: "", 4: "committed"} {
		if got := rowAt(t, s, user(n), 1000); got != want {
			t.Errorf("row %d is %q, want %q", n, got, want)
		}
	}
	st := raftStateOf(t, s, c.id)
	if d := derive(t, s, regionOf(t, s, c.id)); d.Applied != c.them.next-1 || d.Last != d.Applied || d.Commit != d.Applied || st.HardState.Term != c.them.term || st.HardState.Vote != 0 {
		t.Errorf("%+v %+v", d, st)
	}
	_, entries := raftOf(t, s.Raft, c.id)
	o := open(t, c.mem, leads)
	_, theirs := raftOf(t, o.Raft, c.id)
	o.Close()
	if !slices.Equal(entries[len(entries)-2:], theirs[len(theirs)-2:]) {
		t.Errorf("the log ends with %v, theirs with %v", entries[len(entries)-2:], theirs[len(theirs)-2:])
	}
	allStart(t, "after", s, nil)
	s.Close()
	b.judged(t, c.mem)
	nothingToDo(t, c.mem, lags, repair.ApplyTail, args)
	undo(t, c.mem, lags, b.tree)
}

// What keeps a replica from catching up is named, and nothing is written then.
func TestCatchingUpIsKept(t *testing.T) {
	split := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_BatchSplit, Splits: &raft_cmdpb.BatchSplitRequest{}}
	for _, k := range []struct {
		name, problem string
		compose       func(mine, theirs *author)
		prepare       func(c pairCase)
		args          repair.HandArgs
		force         []string
		refused       bool
	}{
		{name: "the other log begins behind the end of this one", problem: "needs-snapshot", compose: func(_, theirs *author) {
			theirs.write(theirs.region.Epoch, version(user(1), "one", 10, 11)...)
			theirs.write(theirs.region.Epoch, version(user(2), "two", 10, 11)...)
		}, prepare: func(c pairCase) {
			do(t, c.mem, leads, repair.ApplyTail, repair.HandArgs{Regions: []uint64{c.id}})
			// Without history the log is empty, and begins behind the applied index.
			appendTail(t, c.mem, leads, []byte(user(0)), func(_, last uint64) uint64 { return last }, func(a *author) { a.write(a.region.Epoch, version(user(3), "three", 10, 11)...) })
			do(t, c.mem, leads, repair.ApplyTail, repair.HandArgs{Regions: []uint64{c.id}})
			appendTail(t, c.mem, leads, []byte(user(0)), nil, func(a *author) { a.entry(eraftpb.EntryType_EntryNormal, nil) })
			do(t, c.mem, leads, repair.CutTail, repair.HandArgs{Regions: []uint64{c.id}}, "raft-tail", "multi-store")
		}},
		{name: "the first command splits the region", problem: "tail-stops", compose: func(_, theirs *author) {
			theirs.admin(split)
			theirs.write(theirs.region.Epoch, version(user(1), "behind", 10, 11)...)
		}},
		{name: "both have committed another entry", problem: "log-conflict", refused: true, compose: func(mine, theirs *author) {
			mine.write(mine.region.Epoch, version(user(1), "one", 10, 11)...)
			theirs.write(theirs.region.Epoch, version(user(1), "another", 10, 11)...)
		}, prepare: func(c pairCase) {
			graft(t, c.mem, lags, func(s *scan.Store, b *raftlog.Batch) {
				st, err := raftStateOf(t, s, c.id).WithCommit(c.mine.next - 1)
				must(t, err)
				must(t, b.PutState(c.id, st))
			})
		}},
		{name: "one term, one index, another command", problem: "log-conflict", refused: true, compose: func(mine, theirs *author) {
			theirs.term = mine.term
			mine.write(mine.region.Epoch, version(user(1), "one", 10, 11)...)
			theirs.write(theirs.region.Epoch, version(user(1), "another", 10, 11)...)
		}},
		{name: "nobody knows of a commit", problem: "not-committed", refused: true, compose: func(mine, _ *author) {
			mine.write(mine.region.Epoch, version(user(1), "one", 10, 11)...)
		}, prepare: func(pairCase) {}, args: repair.HandArgs{To: 1}},
	} {
		c := diverge(t, lags, leads, k.compose)
		if k.prepare != nil {
			k.prepare(c)
		}
		args := k.args
		args.From, args.Regions = []string{leads}, []uint64{c.id}
		if args.To != 0 {
			args.To = c.mine.next - 1
		}
		before := tree(t, c.mem, lags)
		res, err := try(c.mem, lags, repair.ApplyTail, args)
		if res == nil || !slices.Equal(problems(res), []string{k.problem}) || k.refused != errors.Is(err, base.ErrProblems) || !k.refused && (err != nil || res.State != repair.StateUnchanged) {
			t.Errorf("%s: %+v, %v", k.name, res, err)
		}
		fixtures.SameTree(t, k.name, tree(t, c.mem, lags), before)
		if k.problem == "not-committed" {
			do(t, c.mem, lags, repair.ApplyTail, args, "not-committed")
			s := open(t, c.mem, lags)
			if got := rowAt(t, s, user(1), 1000); got != "one" {
				t.Errorf("%s, accepted: %q", k.name, got)
			}
			allStart(t, k.name, s, nil)
		}
	}
}

// Up to a named index, and on through an ingest whose file only the other store has.
func TestCatchingUpToAnIndex(t *testing.T) {
	uuid := []byte("0123456789abcdef")
	var ingest uint64
	var meta *import_sstpb.SSTMeta
	c := diverge(t, lags, leads, func(_, theirs *author) {
		theirs.write(theirs.region.Epoch, version(user(1), "one", 10, 11)...)
		e := theirs.region.Epoch
		meta = &import_sstpb.SSTMeta{CfName: "write", Uuid: uuid, RegionId: theirs.region.ID, RegionEpoch: &metapb.RegionEpoch{ConfVer: e.ConfVer, Version: e.Version}}
		meta.Length = importFile(t, nil, "")
		ingest = theirs.write(e, &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_IngestSST, IngestSst: &raft_cmdpb.IngestSSTRequest{Sst: meta}})
		theirs.write(e, version(user(3), "three", 10, 11)...)
	})
	before := tree(t, c.mem, lags)
	rows := func(want ...string) {
		t.Helper()
		s := open(t, c.mem, lags)
		defer s.Close()
		for i, w := range want {
			if got := rowAt(t, s, user(i+1), 1000); got != w {
				t.Errorf("row %d is %q, want %q", i+1, got, w)
			}
		}
		allStart(t, "row", s, nil)
	}
	args := repair.HandArgs{From: []string{leads}, Regions: []uint64{c.id}}
	upTo := args
	upTo.To = ingest - 1
	do(t, c.mem, lags, repair.ApplyTail, upTo)
	rows("one", "", "")
	nothingToDo(t, c.mem, lags, repair.ApplyTail, upTo)
	// The file is nowhere.
	if res, err := try(c.mem, lags, repair.ApplyTail, args); err != nil || !slices.Equal(problems(res), []string{"tail-stops"}) || res.State != repair.StateUnchanged {
		t.Errorf("%+v, %v", res, err)
	}
	undo(t, c.mem, lags, before)
	forget(t, c.mem, lags)
	must(t, c.mem.MkdirAll(leads+"/import", 0o755))
	importFile(t, c.mem, leads+"/import/30313233-3435-3637-3839-616263646566_1_1_1_write.sst")
	do(t, c.mem, lags, repair.ApplyTail, args)
	rows("one", "ingested", "three")
	undo(t, c.mem, lags, before)
}

// importFile writes a table with one version of row 2, or only measures it.
func importFile(t *testing.T, mem vfs.FS, path string) uint64 {
	t.Helper()
	if mem == nil {
		mem, path = vfs.NewMem(), "x"
	}
	f, err := base.NewMem(mem).Create(path, base.DiskWriteCategory)
	must(t, err)
	w := sst.NewWriter(f, sst.WriterOptions{CFID: 2, CFName: scan.CFWrite})
	rec := mvcc.Write{Type: mvcc.WritePut, StartTS: 10, ShortValue: []byte("ingested"), HasShortValue: true}
	must(t, w.Add(ikey.Key{User: mvcc.DataKey([]byte(user(2)), 11), Kind: ikey.KindPut}, rec.Append(nil)))
	m, err := w.Finish()
	must(t, err)
	must(t, f.Close())
	return m.Size
}

// An equalisation is broken off at each of its writes; the same command goes on to the same files, and undo gives the old ones back.
func TestInterruptedCatchingUpGoesOn(t *testing.T) {
	c := diverge(t, lags, leads, func(mine, theirs *author) {
		mine.write(mine.region.Epoch, version(user(1), "never committed", 10, 11)...)
		theirs.write(theirs.region.Epoch, version(user(1), "committed", 12, 13)...)
	})
	before := tree(t, c.mem, lags)
	args := repair.HandArgs{From: []string{leads}, Regions: []uint64{c.id}}
	clone := func() *vfs.MemFS {
		to := cloneOf(t, c.mem, lags)
		if ok, err := vfs.Clone(c.mem, to, leads, leads); err != nil || !ok {
			t.Fatal(ok, err)
		}
		return to
	}
	run := func(fs base.FS) error {
		_, err := repair.Hand(t.Context(), fs, lags, scan.Options{}, repair.HandOptions{Verb: repair.ApplyTail, Args: args, Now: now, Threads: 1})
		return err
	}
	var writes atomic.Int64
	whole := clone()
	must(t, run(failing(whole, 0, &writes)))
	want := tree(t, whole, lags)
	for n := int64(1); n <= writes.Load(); n++ {
		mem := clone()
		if err := run(failing(mem, n, new(atomic.Int64))); !errors.Is(err, syscall.EIO) {
			t.Errorf("EIO from write %d on: %v", n, err)
		}
		// Whatever has been published: a server would find a follower that has received entries, or one that has applied them.
		half := open(t, mem, lags)
		allStart(t, fmt.Sprintf("EIO from write %d on", n), half, nil)
		half.Close()
		if n%3 == 0 {
			s := open(t, mem, lags)
			fenced := s.Fenced()
			s.Close()
			if _, err := repair.Undo(memFS(mem), lags, repair.BackupOptions{}); err != nil && fenced {
				t.Errorf("EIO from write %d on, then undo: %v", n, err)
			}
			got := tree(t, mem, lags)
			for k := range got {
				if strings.HasSuffix(k, ".tmp") {
					delete(got, k)
				}
			}
			fixtures.SameTree(t, fmt.Sprintf("EIO from write %d on, then undo", n), got, before)
			continue
		}
		must(t, run(memFS(mem)))
		got := tree(t, mem, lags)
		delete(got, lags+"/panic_mark_file.tmp")
		delete(got, lags+"/panic_mark_file.tikv-repair.tmp")
		fixtures.SameTree(t, fmt.Sprintf("EIO from write %d on, then again", n), got, want)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d writes", writes.Load())
	undo(t, whole, lags, before)
}
