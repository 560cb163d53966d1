package raftstate

import (
	"fmt"
	"strconv"

	"github.com/pingcap/kvproto/pkg/raft_cmdpb"
)

// AdminType is raft_cmdpb.AdminCmdType.
type AdminType int32

// The admin commands.
const (
	AdminInvalid            AdminType = 0
	AdminChangePeer         AdminType = 1
	AdminSplit              AdminType = 2
	AdminCompactLog         AdminType = 3
	AdminTransferLeader     AdminType = 4
	AdminComputeHash        AdminType = 5
	AdminVerifyHash         AdminType = 6
	AdminPrepareMerge       AdminType = 7
	AdminCommitMerge        AdminType = 8
	AdminRollbackMerge      AdminType = 9
	AdminBatchSplit         AdminType = 10
	AdminChangePeerV2       AdminType = 11
	AdminPrepareFlashback   AdminType = 12
	AdminFinishFlashback    AdminType = 13
	AdminBatchSwitchWitness AdminType = 14
	AdminUpdateGcPeer       AdminType = 15
)

// String gives the protobuf name.
func (t AdminType) String() string {
	if s, ok := raft_cmdpb.AdminCmdType_name[int32(t)]; ok {
		return s
	}
	return strconv.Itoa(int(t))
}

// MarshalText gives String.
func (t AdminType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (t *AdminType) UnmarshalText(b []byte) error {
	if v, ok := raft_cmdpb.AdminCmdType_value[string(b)]; ok {
		*t = AdminType(v)
		return nil
	}
	v, err := strconv.ParseInt(string(b), 10, 32)
	if err != nil {
		return fmt.Errorf("unknown admin command %q", b)
	}
	*t = AdminType(v)
	return nil
}

// EpochCheck says which part of the region epoch an entry's header must equal when it is applied; otherwise the entry
// becomes a no-op.
type EpochCheck struct{ ConfVer, Version bool }

// Checks tells what applying a command of this type compares. Source: tikv/tikv components/raftstore/src/store/util.rs
// (admin_cmd_epoch_lookup). TransferLeader checked both in 5.3 to 6.1 only; it changes nothing when applied.
func (t AdminType) Checks() EpochCheck {
	switch t {
	case AdminChangePeer, AdminChangePeerV2, AdminBatchSwitchWitness:
		return EpochCheck{ConfVer: true}
	case AdminSplit, AdminBatchSplit, AdminPrepareMerge, AdminCommitMerge, AdminRollbackMerge, AdminPrepareFlashback,
		AdminFinishFlashback:
		return EpochCheck{ConfVer: true, Version: true}
	}
	return EpochCheck{}
}

// PeerChange is one change of ChangePeer or ChangePeerV2.
type PeerChange struct {
	Type string `json:"change_type"` // AddNode, RemoveNode, AddLearnerNode
	Peer Peer   `json:"peer"`
}

// Split is one new region of a split. NewPeerIDs pair with the old region's peers by position.
type Split struct {
	Key         Key      `json:"split_key"`
	NewRegionID uint64   `json:"new_region_id"`
	NewPeerIDs  []uint64 `json:"new_peer_ids"`
}

// Admin is an admin command. Only the fields of its type are set.
type Admin struct {
	Type AdminType `json:"cmd_type"`

	Changes []PeerChange `json:"changes,omitempty"` // ChangePeer, ChangePeerV2; empty in V2: leave the joint state

	Splits      []Split `json:"splits,omitempty"` // Split, BatchSplit
	RightDerive bool    `json:"right_derive,omitempty"`

	CompactIndex uint64 `json:"compact_index,omitempty"` // CompactLog
	CompactTerm  uint64 `json:"compact_term,omitempty"`

	MinIndex uint64  `json:"min_index,omitempty"` // PrepareMerge
	Target   *Region `json:"target,omitempty"`

	Source        *Region `json:"source,omitempty"` // CommitMerge
	Commit        uint64  `json:"commit,omitempty"` // CommitMerge, RollbackMerge
	SourceEntries int     `json:"source_entries,omitempty"`

	TransferTo *Peer `json:"transfer_to,omitempty"` // TransferLeader

	HashIndex uint64 `json:"hash_index,omitempty"` // VerifyHash

	FlashbackStartTS uint64 `json:"flashback_start_ts,omitempty,string"` // PrepareFlashback

	Witnesses []WitnessSwitch `json:"switch_witnesses,omitempty"` // BatchSwitchWitness

	GCPeerIDs []uint64 `json:"gc_peer_ids,omitempty"` // UpdateGcPeer

	// Unknown is set when the message holds fields that this tool does not know.
	Unknown bool `json:"unknown_fields,omitempty"`
}

// WitnessSwitch makes a peer a witness or turns it back.
type WitnessSwitch struct {
	PeerID    uint64 `json:"peer_id"`
	IsWitness bool   `json:"is_witness"`
}

// adminOf reads the details by command type. The numbers of the fields are not the numbers of the types:
//
//	1 cmd_type, 2 change_peer, 3 split, 4 compact_log, 5 transfer_leader, 6 verify_hash, 7 prepare_merge, 8 commit_merge,
//	9 rollback_merge, 10 splits, 11 change_peer_v2, 12 compute_hash, 13 prepare_flashback, 14 finish_flashback,
//	15 switch_witnesses, 16 update_gc_peers
//
// Source: pingcap/kvproto proto/raft_cmdpb.proto.
func adminOf(m *raft_cmdpb.AdminRequest) (Admin, error) {
	a := Admin{Type: AdminType(m.CmdType), Unknown: len(m.XXX_unrecognized) > 0}
	switch a.Type {
	case AdminChangePeer:
		a.Changes = []PeerChange{peerChangeOf(m.GetChangePeer())}
	case AdminChangePeerV2:
		for _, c := range m.GetChangePeerV2().GetChanges() {
			a.Changes = append(a.Changes, peerChangeOf(c))
		}
	case AdminSplit:
		//lint:ignore SA1019 obsolete, but old logs hold it
		s := m.GetSplit()
		//lint:ignore SA1019 as above
		a.Splits, a.RightDerive = []Split{splitOf(s)}, s.GetRightDerive()
	case AdminBatchSplit:
		for _, s := range m.GetSplits().GetRequests() {
			a.Splits = append(a.Splits, splitOf(s))
		}
		a.RightDerive = m.GetSplits().GetRightDerive()
	case AdminCompactLog:
		a.CompactIndex, a.CompactTerm = m.GetCompactLog().GetCompactIndex(), m.GetCompactLog().GetCompactTerm()
	case AdminTransferLeader:
		p := m.GetTransferLeader().GetPeer()
		a.TransferTo = &Peer{ID: p.GetId(), StoreID: p.GetStoreId(), Role: PeerRole(p.GetRole()), IsWitness: p.GetIsWitness()}
	case AdminVerifyHash:
		a.HashIndex = m.GetVerifyHash().GetIndex()
	case AdminPrepareMerge:
		t := regionOf(m.GetPrepareMerge().GetTarget())
		a.MinIndex, a.Target = m.GetPrepareMerge().GetMinIndex(), &t
	case AdminCommitMerge:
		cm := m.GetCommitMerge()
		src := cm.GetSource()
		if src == nil { // raftstore-v2 carries the whole state instead
			src = cm.GetSourceState().GetRegion()
		}
		s := regionOf(src)
		a.Source, a.Commit, a.SourceEntries = &s, cm.GetCommit(), len(cm.GetEntries())
	case AdminRollbackMerge:
		a.Commit = m.GetRollbackMerge().GetCommit()
	case AdminPrepareFlashback:
		a.FlashbackStartTS = m.GetPrepareFlashback().GetStartTs()
	case AdminBatchSwitchWitness:
		for _, w := range m.GetSwitchWitnesses().GetSwitchWitnesses() {
			a.Witnesses = append(a.Witnesses, WitnessSwitch{w.GetPeerId(), w.GetIsWitness()})
		}
	case AdminUpdateGcPeer:
		a.GCPeerIDs = m.GetUpdateGcPeers().GetPeerId()
	case AdminInvalid:
		return Admin{}, corruptf("AdminRequest", "cmd_type is missing")
	}
	return a, nil
}

func peerChangeOf(c *raft_cmdpb.ChangePeerRequest) PeerChange {
	p := c.GetPeer()
	return PeerChange{Type: c.GetChangeType().String(),
		Peer: Peer{ID: p.GetId(), StoreID: p.GetStoreId(), Role: PeerRole(p.GetRole()), IsWitness: p.GetIsWitness()}}
}

func splitOf(s *raft_cmdpb.SplitRequest) Split {
	return Split{Key: s.GetSplitKey(), NewRegionID: s.GetNewRegionId(), NewPeerIDs: s.GetNewPeerIds()}
}
