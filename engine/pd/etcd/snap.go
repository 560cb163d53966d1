package etcd

import (
	"encoding/json"
	"errors"
	"hash/crc32"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/internal/pb"
	"github.com/tikv-repair/tikv-repair/engine/pd/etcd/wal"
)

const (
	snapSuffix   = ".snap"
	snapDBSuffix = ".snap.db"
)

// snapshot is a raft snapshot file: the state of the member list at an index. It does not have the keys.
type snapshot struct {
	name        string
	index, term uint64
	store       v2Store
}

// A .snap file (etcd v3.5.15 server/etcdserver/api/snap/snappb/snap.proto, raft/raftpb/raft.proto) is one message:
//
//	snappb.Snapshot          1 crc u32 (Castagnoli, of data)   2 data bytes = raftpb.Snapshot
//	raftpb.Snapshot          1 data bytes = the v2 store as JSON   2 metadata
//	raftpb.SnapshotMetadata  1 conf_state   2 index u64   3 term u64
func decodeSnap(b []byte) (s snapshot, err error) {
	var crc uint64
	var data, content []byte
	err = pb.Decode("snappb.Snapshot", b, func(f pb.Field) {
		switch f.N {
		case 1:
			f.U64(&crc)
		case 2:
			f.Bytes(&data)
		}
	})
	switch {
	case err != nil:
		return s, err
	case len(data) == 0 || crc == 0:
		return s, errors.New("there is nothing in it")
	case crc > math.MaxUint32 || crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)) != uint32(crc):
		return s, errors.New("checksum does not fit")
	}
	err = pb.Decode("raftpb.Snapshot", data, func(f pb.Field) {
		switch f.N {
		case 1:
			f.Bytes(&content)
		case 2:
			f.Message(func(b []byte) error {
				return pb.Decode("SnapshotMetadata", b, func(f pb.Field) {
					switch f.N {
					case 2:
						f.U64(&s.index)
					case 3:
						f.U64(&s.term)
					}
				})
			})
		}
	})
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(content, &s.store)
	return s, err
}

// v2Store is etcd's old store, which holds the member list only (etcd v3.5.15 server/etcdserver/api/v2store/store.go).
type v2Store struct {
	Root v2Node
}

type v2Node struct {
	Value    string
	Children map[string]*v2Node
}

// at follows a path below the node; nil when there is nothing.
func (n *v2Node) at(p string) *v2Node {
	for _, name := range strings.Split(p, "/") {
		if n == nil {
			return nil
		}
		n = n.Children[name]
	}
	return n
}

// members reads /0/members/<hex id>/{raftAttributes,attributes} and /0/removed_members/<hex id>.
func (s *v2Store) members() (*membership, error) {
	m := newMembership()
	if list := s.Root.at("0/members"); list != nil {
		for name, n := range list.Children {
			id, err := strconv.ParseUint(name, 16, 64)
			if err != nil || n == nil {
				return nil, errors.New("member " + strconv.Quote(name) + " in the member list")
			}
			var one memberJSON
			raft := n.at("raftAttributes")
			if raft == nil {
				return nil, errors.New("member " + name + " has no raftAttributes")
			}
			if err := json.Unmarshal([]byte(raft.Value), &one); err != nil {
				return nil, err
			}
			if attr := n.at("attributes"); attr != nil {
				if err := json.Unmarshal([]byte(attr.Value), &one); err != nil {
					return nil, err
				}
			}
			one.ID = id
			m.live[id] = one.member()
		}
	}
	if gone := s.Root.at("0/removed_members"); gone != nil {
		for name := range gone.Children {
			id, err := strconv.ParseUint(name, 16, 64)
			if err != nil {
				return nil, errors.New("removed member " + strconv.Quote(name) + " in the member list")
			}
			m.removed[id] = true
		}
	}
	return m, nil
}

// loadSnapshot finds the snapshot that etcd would start from: the newest readable .snap whose index and term the WAL names at or below
// its commit index. Without any record in the WAL it is the newest readable one. Nil: none. Unreadable ones are reported.
func loadSnapshot(fs base.FS, dir string, log *wal.Log) (s *snapshot, damage []error, err error) {
	names, err := list(fs, dir)
	if err != nil {
		return nil, nil, err
	}
	slices.Reverse(names) // <term>-<index>, 16 hex digits each: newest first
	noWAL := log.ClusterID == 0 && log.Last.Index == 0
	for _, n := range names {
		if path.Ext(n) != snapSuffix {
			continue
		}
		p := fs.PathJoin(dir, n)
		b, err := base.ReadFile(fs, p)
		if err != nil {
			return nil, nil, err
		}
		one, err := decodeSnap(b)
		if err != nil {
			damage = append(damage, base.Corruptf(p, 0, "snapshot: %v", err))
			continue
		}
		known := slices.Contains(log.Snapshots, wal.Snapshot{Index: one.index, Term: one.term}) && one.index <= log.HardState.Commit
		if known || noWAL {
			one.name = n
			return &one, damage, nil
		}
	}
	return nil, damage, nil
}
