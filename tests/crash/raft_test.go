package crash

import (
	"context"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pingcap/kvproto/pkg/eraftpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// storeOf copies one store of an archive to the place where the crash tests look for it, durable.
func storeOf(t *testing.T, name, dir string) *vfs.MemFS {
	t.Helper()
	from, err := tree(fixtures.Mem(t, name), dir)
	must(t, err)
	mem := vfs.NewCrashableMem()
	fs := base.NewMem(mem)
	must(t, mem.MkdirAll(dataDir, 0o755))
	for _, p := range sorted(from) {
		if strings.HasSuffix(p, "/") {
			must(t, mem.MkdirAll(path.Join(dataDir, p), 0o755))
		}
	}
	for _, p := range sorted(from) {
		if !strings.HasSuffix(p, "/") {
			must(t, base.WriteFileSync(fs, path.Join(dataDir, p), []byte(from[p]), ""))
		}
	}
	return settle(t, mem)
}

// withTails writes empty entries of a next term, as a new leader would, behind the logs of all regions of a store that has no tails.
func withTails(t *testing.T, mem *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	fs := base.NewMem(mem)
	s, err := scan.Open(fs, dataDir, scan.Options{})
	must(t, err)
	defer s.Close()
	var b raftlog.Batch
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		st := stateOf(t, s, r.ID)
		raw, err := (&eraftpb.Entry{Term: st.HardState.Term + 1, Index: st.LastIndex + 1}).Marshal()
		must(t, err)
		e, err := raftstate.ParseEntry(raw)
		must(t, err)
		must(t, b.Entries(r.ID, []raftstate.Entry{e}))
		h := st.HardState
		h.Term, h.Vote = h.Term+1, 0
		next, err := st.With(h, st.LastIndex+1)
		must(t, err)
		must(t, b.PutState(r.ID, next))
	}
	p, err := raftlog.PlanEdit(s.Raft, &b, now)
	must(t, err)
	tx, err := edit.Begin(fs, dataDir, "tails", "test", "plan", p.Dirs(), now)
	must(t, err)
	must(t, p.Stage(tx))
	must(t, tx.Stage())
	must(t, tx.Publish())
	must(t, tx.Finish(nil))
	must(t, tx.Discard())
	return settle(t, mem)
}

func stateOf(t *testing.T, s *scan.Store, id uint64) *raftstate.RaftLocalState {
	t.Helper()
	raw, ok, err := s.Raft.RaftState(id)
	must(t, err)
	if !ok {
		t.Fatalf("region %d has no raft state", id)
	}
	st, err := raftstate.ParseRaftLocalState(raw)
	must(t, err)
	return &st
}

// withZeros leaves a short piece of the space that raft-engine preallocates behind its last file: an edit of the raft store cuts it off.
func withZeros(t *testing.T, mem *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	dir := dataDir + "/raft-engine"
	names, err := mem.List(dir)
	must(t, err)
	var last string
	for _, n := range names {
		if strings.HasSuffix(n, ".raftlog") {
			last = max(last, n)
		}
	}
	cutZeros(t, base.NewMem(mem), path.Join(dir, last))
	return settle(t, mem)
}

// byHand makes an edit of single regions the command under test.
func byHand(before *vfs.MemFS, v repair.HandVerb, args repair.HandArgs, force ...string) option {
	return func(w *world) {
		w.before = before
		w.edit = func(fs base.FS, at time.Time) (*repair.Result, error) {
			o := repair.HandOptions{Verb: v, Args: args, Now: at, Threads: 1, Force: map[string]bool{}}
			for _, f := range force {
				o.Force[f] = true
			}
			res, err := repair.Hand(context.Background(), fs, dataDir, scan.Options{}, o)
			if res == nil {
				return nil, err
			}
			return &repair.Result{State: res.State, PlanID: res.PlanID}, err
		}
	}
}

// cutting makes cut-tail of all regions the command under test.
func cutting(before *vfs.MemFS) option {
	return byHand(before, repair.CutTail, repair.HandArgs{}, "raft-tail", "multi-store")
}

// dropping makes a rewind that drops the tails the command under test: it writes tables and both switches.
func dropping(t *testing.T, name string) option {
	before := withTails(t, storeOf(t, name, "/data"))
	return func(w *world) {
		w.before = before
		w.edit = func(fs base.FS, at time.Time) (*repair.Result, error) {
			safe := mvcc.TS(1)
			return repair.Reset(context.Background(), fs, dataDir, scan.Options{}, repair.ResetOptions{Tail: repair.TailDrop,
				RewindOptions: repair.RewindOptions{T: mvcc.TS(fixtures.Facts(t, name).T2), SafePoint: &safe, Now: at, Threads: 1}})
		}
	}
}

// halfPublished gives the store in which the raft store is already new and the key-value database still old, as an interrupted edit leaves it.
func (w *world) halfPublished(v verb, last string) *vfs.MemFS {
	w.t.Helper()
	mem := w.interrupted(v, last)
	if sum, err := digest(mem); err != nil || sum != w.between {
		w.t.Fatalf("before %s: %v, %s", last, err, sum)
	}
	return mem
}

// failsToStart tells how many regions stop a server that starts on a store in spite of the fence, and how many it would start.
func failsToStart(t *testing.T, fs vfs.FS) (stops, starts int) {
	t.Helper()
	s, err := scan.Open(base.NewMem(fs), dataDir, scan.Options{})
	must(t, err)
	defer s.Close()
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		terms := &raftlog.Terms{Store: s.Raft, Region: r.ID}
		stop := false
		for _, v := range raftstate.StartCheck(raftstate.StartInput{StoreID: s.Ident.StoreID, Region: r.State, Raft: stateOf(t, s, r.ID), Apply: r.Apply, EntryTerm: terms.Term}) {
			stop = stop || v.Consequence == raftstate.StopsStart
		}
		must(t, terms.Err)
		if stop {
			stops++
		} else {
			starts++
		}
	}
	return stops, starts
}

func (w *world) everyWrite(name string, tail bool) {
	t := w.t
	defer w.report(time.Now())
	for what, fs := range map[string]*vfs.MemFS{"before": w.before, "after": w.after} {
		if stops, starts := failsToStart(t, fs); stops > 0 || starts == 0 {
			t.Errorf("%s: %d regions do not start, %d do", what, stops, starts)
		}
	}
	cut, undo := w.resetVerb(name, w.before), w.undoVerb("undo", w.after)
	// Between the two stores no server starts: the tail cannot be applied to an apply state that no longer fits it.
	half := w.halfPublished(cut, "rename "+dataDir+"/db/CURRENT")
	if stops, starts := failsToStart(t, half); stops == 0 {
		t.Errorf("between the stores all %d regions start", starts)
	}
	if edits := strings.Join(append(w.counted(cut).names, w.counted(undo).names...), "\n"); tail !=
		(strings.Contains(edits, "truncate ") && strings.Contains(edits, "open for writing ")) {
		t.Errorf("the tail of the last log file is not cut and written back:\n%s", edits)
	}
	for _, v := range []verb{cut, undo} {
		w.failWrites(v, 1)
		w.cutPower(v, 1)
	}
	w.cutPower(w.undoVerb("undo half published", half), 1)
}

// cut-tail on a raft-engine: at every changing operation the raft store is ahead of the key-value database, never behind.
func TestCrashCutTailRaftEngine(t *testing.T) {
	w := newWorld(t, cutting(withZeros(t, withTails(t, withZeros(t, storeOf(t, "multi5-lost3", "/store0"))))))
	w.everyWrite("cut-tail", true)
}

// The same on a raft RocksDB, where two CURRENT files are switched.
func TestCrashCutTailRaftRocksDB(t *testing.T) {
	w := newWorld(t, cutting(storeOf(t, "multi4-dr-learner", "/store0")))
	w.everyWrite("cut-tail", false)
}

// A rewind that drops tails, in both kinds of raft store.
func TestCrashResetDropsTails(t *testing.T) {
	for _, name := range []string{"single-default", "single-raftdb"} {
		t.Run(name, func(t *testing.T) { newWorld(t, dropping(t, name)).everyWrite("reset", false) })
	}
}

// The other edits by hand, on both raft stores: one region each. Those that change the key-value database alone have one switch.
func TestCrashByHand(t *testing.T) {
	for _, store := range []struct {
		name   string
		mem    func(t *testing.T) *vfs.MemFS
		stride int // of the edits of the key-value database alone, which are the same on both
	}{
		{"raft-engine", func(t *testing.T) *vfs.MemFS { return withTails(t, storeOf(t, "multi5-lost3", "/store0")) }, 1},
		{"raft RocksDB", func(t *testing.T) *vfs.MemFS { return storeOf(t, "multi4-dr-learner", "/store0") }, 4},
	} {
		before := store.mem(t)
		id, own := tailed(t, before)
		regions := []uint64{id}
		for _, c := range []struct {
			verb  repair.HandVerb
			args  repair.HandArgs
			force []string
			raft  bool // what changes is in the raft store, otherwise in the key-value database
		}{
			{repair.CutTail, repair.HandArgs{Regions: regions, KeepHistory: true}, []string{"raft-tail", "multi-store"}, true},
			{repair.Tombstone, repair.HandArgs{Regions: regions}, nil, false},
			{repair.SetPeers, repair.HandArgs{Regions: regions, Peers: []raftstate.Peer{own, {ID: 9001, StoreID: 9000, Role: raftstate.Learner}}}, []string{"multi-store"}, false},
		} {
			t.Run(store.name+"/"+string(c.verb), func(t *testing.T) {
				w := newWorld(t, byHand(before.CrashClone(vfs.CrashCloneCfg{}), c.verb, c.args, c.force...))
				defer w.report(time.Now())
				stride := store.stride
				if c.raft {
					stride = 1
				}
				if (kvOf(w.beforeSum) == kvOf(w.afterSum)) != c.raft || (raftOf(w.beforeSum) != raftOf(w.afterSum)) != c.raft {
					t.Errorf("the key-value database changes: %v, the raft store: %v", kvOf(w.beforeSum) != kvOf(w.afterSum), raftOf(w.beforeSum) != raftOf(w.afterSum))
				}
				for _, v := range []verb{w.resetVerb(string(c.verb), w.before), w.undoVerb("undo", w.after)} {
					w.failWrites(v, stride)
					w.cutPower(v, stride)
				}
			})
		}
	}
}

// tailed is the first region of a store with entries that are not applied, and its own peer.
func tailed(t *testing.T, mem *vfs.MemFS) (uint64, raftstate.Peer) {
	t.Helper()
	s, err := scan.Open(base.NewMem(mem), dataDir, scan.Options{})
	must(t, err)
	defer s.Close()
	for _, r := range s.Regions {
		if r.Live() && stateOf(t, s, r.ID).LastIndex > r.Apply.AppliedIndex {
			if own, ok := r.State.Region.PeerOn(s.Ident.StoreID); ok {
				return r.ID, own
			}
		}
	}
	t.Fatal("no region has a tail")
	return 0, raftstate.Peer{}
}
