package hand_test

import (
	"bytes"
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
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// rewinding resets a store of one to T with a wish for its tails.
type rewinding struct {
	T    mvcc.TS
	tail repair.TailStrategy
	dry  bool
}

func (r rewinding) run(t *testing.T, fs base.FS, force ...string) (*repair.Result, error) {
	t.Helper()
	safe := mvcc.TS(1)
	return repair.Reset(t.Context(), fs, dataDir, scan.Options{}, repair.ResetOptions{Tail: r.tail, DryRun: r.dry, Force: forced(force...),
		RewindOptions: repair.RewindOptions{T: r.T, SafePoint: &safe, Now: now, Threads: 2}})
}

func dumpAt(t *testing.T, s *scan.Store, ts mvcc.TS) []byte {
	t.Helper()
	v, err := s.NewView(ts)
	must(t, err)
	var b bytes.Buffer
	_, err = v.Dump(t.Context(), &b, scan.DumpOptions{T: ts, Format: scan.TSV, Bad: func(err error) { t.Error(err) }})
	must(t, err)
	return b.Bytes()
}

// bringsBack names the first entry of a tail that a starting server would not pass over: it checks the epoch of writes and of most admin
// commands, and of the others CompactLog, TransferLeader and UpdateGcPeer change neither data nor peers.
func bringsBack(t *testing.T, s *scan.Store, id uint64) string {
	t.Helper()
	r := regionOf(t, s, id)
	e, d, out := r.State.Region.Epoch, derive(t, s, r), ""
	must(t, s.Raft.Entries(id, d.Applied+1, d.Last+1, func(x raftstate.Entry) error {
		c, err := raftstate.Decode(x)
		if err != nil {
			out = fmt.Sprintf("%d does not decode", x.Index)
			return nil
		}
		h := c.Header.Epoch
		switch {
		case c.Kind == raftstate.CommandEmpty:
		case c.Kind == raftstate.CommandWrite && h.Version != e.Version:
		case c.Admin != nil && slices.Contains([]raftstate.AdminType{raftstate.AdminCompactLog, raftstate.AdminTransferLeader, raftstate.AdminUpdateGcPeer}, c.Admin.Type):
		case c.Admin != nil && (c.Admin.Type.Checks().ConfVer && h.ConfVer != e.ConfVer || c.Admin.Type.Checks().Version && h.Version != e.Version):
		default:
			out = fmt.Sprintf("%d is a %s", x.Index, c.Kind)
		}
		return nil
	}))
	return out
}

// Each region's tail is dealt with in its own way: what can be applied is, what cannot matter stays, the rest is made harmless in the way
// that holds for it, and a wish that is not safe is refused.
func TestTailStrategies(t *testing.T) {
	admin := func(kind raft_cmdpb.AdminCmdType) *raft_cmdpb.AdminRequest {
		return &raft_cmdpb.AdminRequest{CmdType: kind}
	}
	split := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_BatchSplit, Splits: &raft_cmdpb.BatchSplitRequest{}}
	compact := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_CompactLog, CompactLog: &raft_cmdpb.CompactLogRequest{CompactIndex: 6, CompactTerm: 6}}
	merge := &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_CommitMerge, CommitMerge: &raft_cmdpb.CommitMergeRequest{Source: &metapb.Region{Id: 999}}}
	for _, name := range both {
		T := mvcc.TS(fixtures.Facts(t, name).T2)
		want := fixtures.ExpectAt(t, name, uint64(T))
		before := func(a *author, n int) { a.write(a.region.Epoch, version(user(n), "before T", T-2, T-1)...) }
		after := func(a *author, n int) { a.write(a.region.Epoch, version(user(n), "after T", T+1, T+2)...) }
		ingest := func(a *author) {
			e := a.region.Epoch
			a.write(e, &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_IngestSST, IngestSst: &raft_cmdpb.IngestSSTRequest{Sst: &import_sstpb.SSTMeta{CfName: "write",
				Uuid: []byte("0123456789abcdef"), RegionId: a.region.ID, RegionEpoch: &metapb.RegionEpoch{ConfVer: e.ConfVer, Version: e.Version}}}})
		}
		broken := func(a *author) {
			a.entry(eraftpb.EntryType_EntryNormal, nil)
			raw, err := (&eraftpb.Entry{Term: a.term, Index: a.next - 1, Data: []byte("\xFF\xFF\xFF")}).Marshal()
			must(a.t, err)
			a.list[len(a.list)-1], err = raftstate.ParseEntry(raw)
			must(a.t, err)
		}
		stale := func(a *author) {
			e := a.region.Epoch
			e.Version--
			a.write(e, version(user(9), "stale", T-2, T-1)...)
		}
		for _, c := range []struct {
			what    string
			wish    repair.TailStrategy
			compose func(a *author)
			is      repair.TailStrategy
			problem string // raft-tail is accepted, then it goes on
			applied int    // entries
			lost    int64
			kept    []int // rows that are there afterwards
		}{
			{"only a leader's empty entry", "", func(a *author) { a.entry(eraftpb.EntryType_EntryNormal, nil) }, repair.TailKeep, "", 0, 0, nil},
			{"stale writes and admin commands without effect", "", func(a *author) {
				stale(a)
				a.admin(compact)
				a.admin(admin(raft_cmdpb.AdminCmdType_TransferLeader))
			}, repair.TailKeep, "", 0, 0, nil},
			{"data", "", func(a *author) { before(a, 1); after(a, 2) }, repair.TailApply, "", 2, 0, []int{1}},
			{"a consistency check, which would compare data that has changed", "", func(a *author) {
				a.admin(admin(raft_cmdpb.AdminCmdType_ComputeHash))
				a.admin(&raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_VerifyHash, VerifyHash: &raft_cmdpb.VerifyHashRequest{Index: 7, Hash: []byte("h")}})
			}, repair.TailApply, "", 2, 0, nil},
			{"a conf change behind data", "", func(a *author) { before(a, 1); a.confChange() }, repair.TailNeutralise, "", 1, 0, []int{1}},
			{"a conf change before data", "", func(a *author) { a.confChange(); before(a, 1); after(a, 2) }, repair.TailNeutralise, "raft-tail", 0, 1, nil},
			{"a conf change before data above T", "", func(a *author) { a.confChange(); after(a, 1) }, repair.TailNeutralise, "", 0, 0, nil},
			{"data, a split, data", "", func(a *author) { before(a, 1); a.admin(split); before(a, 2) }, repair.TailNeutralise, "raft-tail", 1, 1, []int{1}},
			{"a split, then a command that is applied whatever its epoch", "", func(a *author) { before(a, 1); a.admin(split); a.admin(compact) }, repair.TailDrop, "", 1, 0, []int{1}},
			{"a split, then a consistency check", "", func(a *author) { a.admin(split); a.admin(admin(raft_cmdpb.AdminCmdType_ComputeHash)) }, repair.TailDrop, "", 0, 0, nil},
			{"an ingest whose file is not there", "", func(a *author) { before(a, 1); ingest(a); before(a, 2) }, repair.TailDrop, "raft-tail", 1, 1, []int{1}},
			{"a merge", "", func(a *author) { a.admin(merge) }, repair.TailDrop, "raft-tail", 0, 0, nil},
			{"an entry that does not decode", "", func(a *author) { before(a, 1); broken(a) }, repair.TailDrop, "raft-tail", 1, 0, []int{1}},

			{"wish: keep what does not matter", repair.TailKeep, stale, repair.TailKeep, "", 0, 0, nil},
			{"wish: keep data", repair.TailKeep, func(a *author) { before(a, 1) }, repair.TailKeep, "tail-strategy", 0, 0, nil},
			{"wish: apply", repair.TailApply, func(a *author) { before(a, 1) }, repair.TailApply, "", 1, 0, []int{1}},
			{"wish: apply a split", repair.TailApply, func(a *author) { before(a, 1); a.admin(split) }, repair.TailApply, "tail-strategy", 0, 0, nil},
			{"wish: neutralise data", repair.TailNeutralise, func(a *author) { before(a, 1); after(a, 2) }, repair.TailNeutralise, "raft-tail", 0, 1, nil},
			{"wish: neutralise data above T", repair.TailNeutralise, func(a *author) { after(a, 2) }, repair.TailNeutralise, "", 0, 0, nil},
			{"wish: neutralise what is applied whatever its epoch", repair.TailNeutralise, func(a *author) { a.admin(compact); after(a, 2) }, repair.TailNeutralise, "tail-strategy", 0, 0, nil},
			{"wish: drop data", repair.TailDrop, func(a *author) { before(a, 1); after(a, 2) }, repair.TailDrop, "raft-tail", 0, 1, nil},
			{"wish: drop what does not matter", repair.TailDrop, stale, repair.TailDrop, "", 0, 0, nil},
		} {
			t.Run(name+" "+c.what, func(t *testing.T) {
				mem := only(t, name, dataDir)
				a := appendTail(t, mem, dataDir, []byte(user(0)), nil, c.compose)
				untouched := tree(t, mem, dataDir)
				r := rewinding{T: T, tail: c.wish}
				dry := r
				dry.dry = true
				if res, err := dry.run(t, memFS(mem), "raft-tail"); c.problem != "tail-strategy" && (err != nil || res.State != repair.StateDryRun) {
					t.Errorf("dry run: %+v, %v", res, err)
				}
				res, err := r.run(t, memFS(mem))
				if c.problem != "" {
					if !errors.Is(err, base.ErrProblems) || res.State != repair.StateRefused || !strings.Contains(err.Error(), c.problem) || base.Next(err) == "" {
						t.Fatalf("%+v, %v", res, err)
					}
					fixtures.SameTree(t, "refused", tree(t, mem, dataDir), untouched)
					res, err = r.run(t, memFS(mem), c.problem)
				}
				if c.problem == "tail-strategy" {
					if !errors.Is(err, base.ErrProblems) {
						t.Errorf("accepted: %v", err)
					}
					return
				}
				must(t, err)
				at, last := a.list[0].Index-1, a.next-1
				l := res.Tails[0]
				if len(res.Tails) != 1 || l.Region != a.region.ID || l.Strategy != c.is || l.Reason == "" || l.Applied != at || l.Last != last ||
					l.TailEntries != uint64(len(a.list)) || l.Lost != c.lost || (l.Lost > 0) != (l.NewestLost == T-1 && len(l.LostKeys) > 0) {
					t.Errorf("%+v", res.Tails)
				}
				t.Logf("%s: %s", l.Strategy, l.Reason)
				at += uint64(c.applied)
				s := open(t, mem, dataDir)
				rows := want
				for _, n := range c.kept {
					row := fmt.Appendf(nil, "%X\t%X\n", user(n), "before T")
					rows = append(slices.Clone(rows), row...)
				}
				for _, ts := range []mvcc.TS{T, mvcc.MaxTS - 1} {
					if !slices.Equal(sortedLines(dumpAt(t, s, ts)), sortedLines(rows)) {
						t.Errorf("at %d: not the rows of T", ts)
					}
				}
				region := regionOf(t, s, a.region.ID)
				e, d := region.State.Region.Epoch, derive(t, s, region)
				raised := e.Version > a.region.Epoch.Version && e.ConfVer > a.region.Epoch.ConfVer
				if raised != (c.is == repair.TailNeutralise) || !raised && e != a.region.Epoch {
					t.Errorf("epoch %+v, was %+v", e, a.region.Epoch)
				}
				if c.is == repair.TailDrop {
					last = at
					if d.Truncated.Index != at || d.Commit != at {
						t.Errorf("%+v", d)
					}
				}
				if d.Applied != at || d.Last != last || len(d.Invariants()) > 0 && c.is == repair.TailDrop {
					t.Errorf("%+v, want applied %d, last %d", d, at, last)
				}
				if why := bringsBack(t, s, a.region.ID); why != "" {
					t.Errorf("a server would apply the tail: entry %s", why)
				}
				allStart(t, c.what, s, nil)
				findings, err := repair.Verify(t.Context(), s, repair.VerifyOptions{T: T, Full: true})
				must(t, err)
				for _, f := range findings {
					t.Errorf("verify: %s", f)
				}
				s.Close()
				if c.is == repair.TailDrop {
					dropped(t, mem)
				}
				if res, err := r.run(t, memFS(mem)); err != nil || res.State != repair.StateUnchanged {
					t.Errorf("again: %+v, %v", res, err)
				}
				undo(t, mem, dataDir, untouched)
			})
		}
	}
}

func sortedLines(b []byte) []string {
	l := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	slices.Sort(l)
	return l
}

// Verify knows a tail that was left as it is.
func TestVerifySeesATail(t *testing.T) {
	for _, name := range both {
		mem := only(t, name, dataDir)
		T := mvcc.TS(fixtures.Facts(t, name).T2)
		if _, err := (rewinding{T: T}).run(t, memFS(mem)); err != nil {
			t.Fatal(err)
		}
		a := appendTail(t, mem, dataDir, []byte(user(0)), nil, func(a *author) { a.write(a.region.Epoch, version(user(1), "back", T+1, T+2)...) })
		s := open(t, mem, dataDir)
		findings, err := repair.Verify(t.Context(), s, repair.VerifyOptions{T: T})
		must(t, err)
		if len(findings) != 1 || findings[0].Truth != "tail-is-neutral" || findings[0].Region != a.region.ID {
			t.Errorf("%s: %v", name, findings)
		}
		s.Close()
	}
}

// A rewind that applies one part of a tail and drops the rest writes to both stores. Broken off at any write, the same command goes on to
// the same files, and undo gives the old ones back.
func TestInterruptedRewindWithDroppedTail(t *testing.T) {
	for _, name := range both {
		start := only(t, name, dataDir)
		T := mvcc.TS(fixtures.Facts(t, name).T2)
		appendTail(t, start, dataDir, []byte(user(0)), nil, func(a *author) {
			a.write(a.region.Epoch, version(user(1), "before T", T-2, T-1)...)
			a.confChange()
			a.admin(&raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_ComputeHash})
		})
		untouched := tree(t, start, dataDir)
		r := rewinding{T: T}
		var writes atomic.Int64
		whole := cloneOf(t, start, dataDir)
		_, err := r.run(t, failing(whole, 0, &writes))
		must(t, err)
		want := tree(t, whole, dataDir)
		step := int64(1)
		if testing.Short() {
			step = 7
		}
		for n := int64(1); n <= writes.Load() && !t.Failed(); n += step {
			mem := cloneOf(t, start, dataDir)
			if _, err := r.run(t, failing(mem, n, new(atomic.Int64))); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s, EIO from write %d on: %v", name, n, err)
			}
			back := cloneOf(t, mem, dataDir)
			s := open(t, back, dataDir)
			fenced := s.Fenced()
			s.Close()
			if fenced {
				if _, err := repair.Undo(memFS(back), dataDir, repair.BackupOptions{}); err != nil {
					t.Errorf("%s, EIO from write %d on, then undo: %v", name, n, err)
				}
				fixtures.SameTree(t, fmt.Sprintf("%s, EIO from write %d on, then undo", name, n), withoutTemporary(tree(t, back, dataDir)), untouched)
			}
			_, err := r.run(t, memFS(mem))
			must(t, err)
			fixtures.SameTree(t, fmt.Sprintf("%s, EIO from write %d on, then again", name, n), withoutTemporary(tree(t, mem, dataDir)), want)
		}
		t.Logf("%s: %d writes", name, writes.Load())
	}
}

func withoutTemporary(m map[string]string) map[string]string {
	for k := range m {
		if strings.HasSuffix(k, ".tmp") {
			delete(m, k)
		}
	}
	return m
}

// dropped asks real raft-engine, or real RocksDB, what it reads of the raft store.
func dropped(t *testing.T, mem vfs.FS) {
	t.Helper()
	(&before{dir: dataDir}).judged(t, mem)
}
