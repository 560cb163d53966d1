package quorum

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/pingcap/kvproto/pkg/eraftpb"
	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_cmdpb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// written lets the leader of a region write one command behind its log on one store, committed there and not applied.
func written(t *testing.T, mem *vfs.MemFS, dir string, user []byte, reqs ...*raft_cmdpb.Request) {
	t.Helper()
	fs := base.NewMem(mem)
	s := open(t, mem, dir)
	defer s.Close()
	r, ok := s.RegionFinder().Find(mvcc.LockKey(user))
	if !ok {
		t.Fatalf("%s has no region for %X", dir, user)
	}
	st, err := s.RaftStateOf(r.ID)
	must(t, err)
	own, _ := r.State.Region.PeerOn(s.Ident.StoreID)
	h := raftstate.HardState{Term: st.HardState.Term + 1, Vote: own.ID, Commit: st.LastIndex + 1}
	cmd := &raft_cmdpb.RaftCmdRequest{Requests: reqs, Header: &raft_cmdpb.RaftRequestHeader{RegionId: r.ID, Peer: &metapb.Peer{Id: own.ID, StoreId: own.StoreID}, Term: h.Term,
		RegionEpoch: &metapb.RegionEpoch{ConfVer: r.State.Region.Epoch.ConfVer, Version: r.State.Region.Epoch.Version}}}
	data, err := cmd.Marshal()
	must(t, err)
	raw, err := (&eraftpb.Entry{Term: h.Term, Index: st.LastIndex + 1, Data: data}).Marshal()
	must(t, err)
	e, err := raftstate.ParseEntry(raw)
	must(t, err)
	var b raftlog.Batch
	must(t, b.Entries(r.ID, []raftstate.Entry{e}))
	next, err := st.With(h, st.LastIndex+1)
	must(t, err)
	must(t, b.PutState(r.ID, next))
	p, err := raftlog.PlanEdit(s.Raft, &b, now)
	must(t, err)
	tx, err := edit.Begin(fs, dir, "written", "test", "plan", p.Dirs(), now)
	must(t, err)
	must(t, p.Stage(tx))
	must(t, tx.Stage())
	must(t, tx.Publish())
	must(t, tx.Finish(nil))
	must(t, tx.Discard())
}

func put(cf string, dbKey, value []byte) *raft_cmdpb.Request {
	return &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_Put, Put: &raft_cmdpb.PutRequest{Cf: cf, Key: dbKey[1:], Value: value}}
}

// A transaction writes two keys in two regions. Of one region only one store keeps a replica, of the other another store: the lock at the
// secondary key is decided by what the other store knows of the primary.
func TestLockWhosePrimaryIsOnAnotherStore(t *testing.T) {
	a := load(t, "multi4-dr-learner")
	const here, there = "/store0", "/store3" // where the secondary key stays, where the primary does
	var primary, secondary []byte
	for _, l := range a.facts.Locks {
		if len(l.Keys) == 3 { // it wrote into three regions
			primary, secondary = append(l.Keys[0][:len(l.Keys[0]):len(l.Keys[0])], 1), append(l.Keys[1][:len(l.Keys[1]):len(l.Keys[1])], 1)
		}
	}
	start := mvcc.TS(a.facts.END) + 1<<18
	commit := start + 5
	lock := mvcc.Lock{Type: mvcc.LockPut, Primary: primary, StartTS: start, TTL: 3000, TxnSize: 2, MinCommitTS: start + 1, ShortValue: []byte("second"), HasShortValue: true}
	record := mvcc.Write{Type: mvcc.WritePut, StartTS: start, ShortValue: []byte("first"), HasShortValue: true}
	rollback := mvcc.Write{Type: mvcc.WriteRollback, StartTS: start}
	for _, c := range []struct {
		name    string
		primary []*raft_cmdpb.Request
		ts      mvcc.TS
		want    string // of the secondary key; "" is no row
	}{
		{"committed at T", []*raft_cmdpb.Request{put("write", mvcc.DataKey(primary, commit), record.Append(nil))}, commit, "second"},
		{"committed after T", []*raft_cmdpb.Request{put("write", mvcc.DataKey(primary, commit), record.Append(nil))}, commit - 1, ""},
		{"rolled back", []*raft_cmdpb.Request{put("write", mvcc.DataKey(primary, start), rollback.Append(nil))}, commit, ""},
		{"nothing known of it", nil, commit, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := a.survivors(here, there)
			mem := s.copyOf(t)
			written(t, mem, here, secondary, put("lock", mvcc.LockKey(secondary), lock.Append(nil)))
			if c.primary != nil {
				written(t, mem, there, primary, c.primary...)
			}
			o := s.options(c.ts)
			one := open(t, mem, here)
			// The leader that wrote behind one store's log overwrites what other stores have there.
			o.Forced = append(o.Forced, "certain-loss")
			o.Keep, o.Winners = plan.KeepWinner, map[uint64]uint64{one.RegionFinder().ID(mvcc.LockKey(secondary)): s.ids[here], one.RegionFinder().ID(mvcc.LockKey(primary)): s.ids[there]}
			must(t, one.Close())
			if len(o.Winners) != 2 {
				t.Fatal("both keys are in one region")
			}
			before := s.trees(t, mem, false)
			f := &fleet{t, s, mem, o}
			p, asked := f.decide()
			if asked == 0 {
				t.Error("nobody was asked about the primary key")
			}
			f.repairAll(p)
			for _, row := range []struct {
				dir  string
				key  []byte
				want string
			}{{here, secondary, c.want}, {there, primary, map[bool]string{true: "first"}[c.want != ""]}} {
				st := open(t, mem, row.dir)
				if got := rowAt(t, st, row.key); got != row.want {
					t.Errorf("%s reads %q, want %q", row.dir, got, row.want)
				}
				locks, err := st.Locks()
				must(t, err)
				for _, l := range locks {
					t.Errorf("%s has a lock at %X", row.dir, l.User)
				}
			}
			for _, d := range s.survive {
				_, err := repair.Undo(base.NewMem(mem), d, repair.BackupOptions{})
				must(t, err)
			}
			same(t, "after undo", s.trees(t, mem, false), before)
		})
	}
}

// rowAt is what a client reads of a key now; "" for nothing.
func rowAt(t *testing.T, s *scan.Store, user []byte) string {
	t.Helper()
	v, err := s.NewPlainView(mvcc.MaxTS)
	must(t, err)
	rows, err := v.Rows(user, append(bytes.Clone(user), 0))
	must(t, err)
	defer rows.Close()
	out := ""
	for rows.Next() {
		value, err := rows.Value()
		must(t, err)
		out = string(value)
	}
	must(t, rows.Err())
	return out
}
