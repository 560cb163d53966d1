package hand_test

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
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// graft publishes a change of the raft store alone and forgets that it did.
func graft(t testing.TB, mem vfs.FS, dir string, change func(s *scan.Store, b *raftlog.Batch)) {
	t.Helper()
	fs := base.NewMem(mem)
	s := open(t, mem, dir)
	defer s.Close()
	b := &raftlog.Batch{}
	change(s, b)
	p, err := raftlog.PlanEdit(s.Raft, b, now)
	must(t, err)
	tx, err := edit.Begin(fs, dir, "graft", "test", "plan", p.Dirs(), now)
	must(t, err)
	must(t, p.Stage(tx))
	must(t, tx.Stage())
	must(t, tx.Publish())
	must(t, tx.Finish(nil))
	must(t, tx.Discard())
}

// author writes the log tail of one region, as its leader would have.
type author struct {
	t      testing.TB
	region raftstate.Region
	peer   raftstate.Peer
	term   uint64
	next   uint64
	list   []raftstate.Entry
}

// write makes a command; its header names the epoch that the region has, or another one.
func (a *author) write(epoch raftstate.Epoch, reqs ...*raft_cmdpb.Request) uint64 {
	return a.entry(eraftpb.EntryType_EntryNormal, &raft_cmdpb.RaftCmdRequest{Header: a.header(epoch), Requests: reqs})
}

func (a *author) admin(req *raft_cmdpb.AdminRequest) uint64 {
	return a.entry(eraftpb.EntryType_EntryNormal, &raft_cmdpb.RaftCmdRequest{Header: a.header(a.region.Epoch), AdminRequest: req})
}

func (a *author) header(e raftstate.Epoch) *raft_cmdpb.RaftRequestHeader {
	return &raft_cmdpb.RaftRequestHeader{RegionId: a.region.ID, Peer: &metapb.Peer{Id: a.peer.ID, StoreId: a.peer.StoreID},
		RegionEpoch: &metapb.RegionEpoch{ConfVer: e.ConfVer, Version: e.Version}, Term: a.term}
}

func (a *author) entry(kind eraftpb.EntryType, cmd *raft_cmdpb.RaftCmdRequest) uint64 {
	a.t.Helper()
	e := eraftpb.Entry{EntryType: kind, Term: a.term, Index: a.next}
	if cmd != nil {
		data, err := cmd.Marshal()
		must(a.t, err)
		e.Data = data
		if kind != eraftpb.EntryType_EntryNormal {
			cc := eraftpb.ConfChange{ChangeType: eraftpb.ConfChangeType_AddLearnerNode, NodeId: 999, Context: data}
			e.Data, err = cc.Marshal()
			must(a.t, err)
		}
	}
	raw, err := e.Marshal()
	must(a.t, err)
	x, err := raftstate.ParseEntry(raw)
	must(a.t, err)
	a.list = append(a.list, x)
	a.next++
	return a.next - 1
}

func (a *author) confChange() uint64 {
	return a.entry(eraftpb.EntryType_EntryConfChange, &raft_cmdpb.RaftCmdRequest{Header: a.header(a.region.Epoch),
		AdminRequest: &raft_cmdpb.AdminRequest{CmdType: raft_cmdpb.AdminCmdType_ChangePeer, ChangePeer: &raft_cmdpb.ChangePeerRequest{
			ChangeType: eraftpb.ConfChangeType_AddLearnerNode, Peer: &metapb.Peer{Id: 999, StoreId: 998, Role: metapb.PeerRole_Learner}}}})
}

// appendTail lets a leader of one more term write behind the log of the region that holds key; nothing of it is applied, and commit
// says how much of it is known to be committed.
func appendTail(t testing.TB, fs vfs.FS, dir string, key []byte, commit func(first, last uint64) uint64, compose func(a *author)) *author {
	t.Helper()
	var a *author
	graft(t, fs, dir, func(s *scan.Store, b *raftlog.Batch) {
		r := holder(t, s, key)
		st := raftStateOf(t, s, r.ID)
		peer, _ := r.State.Region.PeerOn(s.Ident.StoreID)
		a = &author{t: t, region: r.State.Region, peer: peer, term: st.HardState.Term + 1, next: st.LastIndex + 1}
		compose(a)
		first, last := a.list[0].Index, a.next-1
		must(t, b.Entries(r.ID, a.list))
		h := raftstate.HardState{Term: a.term, Vote: peer.ID, Commit: st.HardState.Commit}
		if commit != nil {
			h.Commit = commit(first, last)
		}
		now, err := st.With(h, last)
		must(t, err)
		must(t, b.PutState(r.ID, now))
	})
	return a
}

// holder is the region of a user key; the first one of the store for nil.
func holder(t testing.TB, s *scan.Store, user []byte) scan.Region {
	t.Helper()
	if user == nil {
		for _, r := range s.Regions {
			if r.Live() {
				return r
			}
		}
	}
	id, err := s.RegionOfUser(user)
	must(t, err)
	return regionOf(t, s, id)
}

func put(cf string, key, value []byte) *raft_cmdpb.Request {
	return &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_Put, Put: &raft_cmdpb.PutRequest{Cf: cf, Key: key[1:], Value: value}}
}

func del(cf string, key []byte) *raft_cmdpb.Request {
	return &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_Delete, Delete: &raft_cmdpb.DeleteRequest{Cf: cf, Key: key[1:]}}
}

func delRange(cf string, from, to []byte) *raft_cmdpb.Request {
	return &raft_cmdpb.Request{CmdType: raft_cmdpb.CmdType_DeleteRange, DeleteRange: &raft_cmdpb.DeleteRangeRequest{Cf: cf, StartKey: from[1:], EndKey: to[1:]}}
}

// version are the two requests that commit a value of a key, in a single step as a one-phase commit does.
func version(user, value string, start, commit mvcc.TS) []*raft_cmdpb.Request {
	w := mvcc.Write{Type: mvcc.WritePut, StartTS: start, ShortValue: []byte(value), HasShortValue: true}
	if len(value) > 255 {
		w.ShortValue, w.HasShortValue = nil, false
		return []*raft_cmdpb.Request{put("", mvcc.DataKey([]byte(user), start), []byte(value)), put("write", mvcc.DataKey([]byte(user), commit), w.Append(nil))}
	}
	return []*raft_cmdpb.Request{put("write", mvcc.DataKey([]byte(user), commit), w.Append(nil))}
}

// rowAt is what a client reads of a key; "" for nothing.
func rowAt(t testing.TB, s *scan.Store, user string, ts mvcc.TS) string {
	t.Helper()
	prefix := mvcc.LockKey([]byte(user))
	v, err := s.DB.CF(scan.CFWrite).NewVisible(prefix, append(bytes.Clone(prefix), bytes.Repeat([]byte{0xFF}, 9)...), nil)
	must(t, err)
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		p, commit, ok := mvcc.SplitKey(v.User())
		if !ok || string(p) != string(prefix) || commit > ts {
			continue
		}
		w, err := mvcc.ParseWrite(v.Value())
		must(t, err)
		switch {
		case w.Type == mvcc.WriteDelete:
			return ""
		case w.Type != mvcc.WritePut:
			continue
		case w.HasShortValue:
			return string(w.ShortValue)
		}
		val, _, ok, err := s.DB.CF(scan.CFDefault).Get(mvcc.DataKey([]byte(user), w.StartTS))
		must(t, err)
		if !ok {
			t.Errorf("%q has no value", user)
		}
		return string(val)
	}
	must(t, v.Err())
	return ""
}
