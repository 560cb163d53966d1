package scan

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Maxima are the largest id and the largest timestamp that a store holds anywhere: a PD that gives out one of them again corrupts
// the cluster.
type Maxima struct {
	ID      uint64 // of stores, regions and peers
	IDWhere string
	TS      mvcc.TS // of commits, transactions, locks
	TSWhere string
}

func (m *Maxima) id(id uint64, format string, args ...any) {
	if id > m.ID {
		m.ID, m.IDWhere = id, fmt.Sprintf(format, args...)
	}
}

func (m *Maxima) ts(ts mvcc.TS, format string, args ...any) {
	if ts > m.TS && ts != mvcc.MaxTS {
		m.TS, m.TSWhere = ts, fmt.Sprintf(format, args...)
	}
}

// Maxima looks at the identity, all region records, tombstones included, the whole raft log of every region, the write-ahead log, the
// locks, and the tables of the write column family as far as their properties do not tell. A value in the default column family is
// older than its lock or write record. The store must have been opened with its raft store.
func (s *Store) Maxima() (*Maxima, error) {
	m := &Maxima{}
	m.id(s.Ident.StoreID, "the id of the store %s", s.Layout.Dir)
	for i := range s.Regions {
		r := &s.Regions[i].State
		m.region(&r.Region, "record of region %d in %s", s.Regions[i].ID, s.Layout.Dir)
		if r.MergeState != nil && r.MergeState.Target != nil {
			m.region(r.MergeState.Target, "merge target of region %d in %s", s.Regions[i].ID, s.Layout.Dir)
		}
	}
	newest, err := s.NewestCommit()
	if err != nil {
		return nil, err
	}
	m.ts(newest, "newest commit in %s", s.Layout.Dir)
	where := "lock in " + s.Layout.Dir
	if err := s.EachLock(func(at LockAt) error {
		for _, l := range at.Locks {
			m.lock(l, where)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	return m, s.logMaxima(m)
}

func (m *Maxima) region(r *raftstate.Region, format string, args ...any) {
	m.id(r.ID, format, args...)
	for _, p := range r.Peers {
		m.id(p.ID, "peer in "+format, args...)
		m.id(p.StoreID, "store of a peer in "+format, args...)
	}
}

func (m *Maxima) lock(l mvcc.Lock, where string) {
	m.ts(l.StartTS, "start of a %s", where)
	m.ts(l.ForUpdateTS, "for_update_ts of a %s", where)
	m.ts(l.MinCommitTS, "min_commit_ts of a %s", where)
}

// logMaxima reads every entry of the raft log: a split that is not applied has given out ids, a write that is not applied may have been
// acknowledged.
func (s *Store) logMaxima(m *Maxima) error {
	ids, err := s.Raft.Regions()
	if err != nil {
		return err
	}
	for _, id := range ids {
		m.id(id, "raft state of region %d in %s", id, s.Layout.RaftDir)
		err := s.Raft.Entries(id, 0, ^uint64(0), func(e raftstate.Entry) error {
			c, err := raftstate.Decode(e)
			if err != nil {
				return &base.Error{Class: base.ErrCorrupt, Op: "read log entry", Path: s.Layout.RaftDir, Offset: -1, Region: id,
					Reason: fmt.Sprintf("entry %d", e.Index), Err: err, Next: fmt.Sprintf("tikv-repair raft-log --region %d %s", id, s.Layout.Dir)}
			}
			m.command(&c, fmt.Sprintf("log entry %d of region %d in %s", e.Index, id, s.Layout.RaftDir))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Maxima) command(c *raftstate.Command, where string) {
	for i := range c.Requests {
		q := &c.Requests[i]
		if q.Op != raftstate.OpPut && q.Op != raftstate.OpDelete {
			continue
		}
		switch q.CF {
		case CFLock:
			if locks, _, err := mvcc.ParseLocks(q.Value); err == nil {
				for _, l := range locks {
					m.lock(l, "lock in "+where)
				}
			}
		case CFWrite:
			if _, ts, ok := mvcc.SplitKey(append([]byte{mvcc.DataPrefix}, q.Key...)); ok {
				m.ts(ts, "%s", where)
			}
		}
	}
	for _, n := range c.NodeChanges {
		m.id(n.NodeID, "%s", where)
	}
	a := c.Admin
	if a == nil {
		return
	}
	for _, x := range a.Splits {
		m.id(x.NewRegionID, "%s", where)
		for _, p := range x.NewPeerIDs {
			m.id(p, "%s", where)
		}
	}
	for _, x := range a.Changes {
		m.id(x.Peer.ID, "%s", where)
		m.id(x.Peer.StoreID, "%s", where)
	}
	for _, r := range []*raftstate.Region{a.Target, a.Source} {
		if r != nil {
			m.region(r, "%s", where)
		}
	}
	m.ts(mvcc.TS(a.FlashbackStartTS), "%s", where)
}
