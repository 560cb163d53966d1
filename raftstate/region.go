package raftstate

import (
	"bytes"

	"github.com/pingcap/kvproto/pkg/metapb"
	"github.com/pingcap/kvproto/pkg/raft_serverpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// Initial index and term of a region's log: no entry is stored for it. tikv/tikv components/raftstore/src/store/peer_storage.rs.
const (
	InitLogIndex = 5
	InitLogTerm  = 5
)

// Epoch is metapb.RegionEpoch: Version guards the key range, ConfVer the peer list.
type Epoch struct {
	ConfVer uint64 `json:"conf_ver"`
	Version uint64 `json:"version"`
}

// Peer is metapb.Peer. ID is unique in the cluster and never used again.
type Peer struct {
	ID        uint64   `json:"id"`
	StoreID   uint64   `json:"store_id"`
	Role      PeerRole `json:"role"`
	IsWitness bool     `json:"is_witness,omitempty"`
}

// Region is metapb.Region. The keys are memcomparable-encoded, without the 'z' of data keys; an empty EndKey is +inf.
type Region struct {
	ID               uint64 `json:"id"`
	StartKey         Key    `json:"start_key"`
	EndKey           Key    `json:"end_key"`
	Epoch            Epoch  `json:"region_epoch"`
	Peers            []Peer `json:"peers"`
	IsInFlashback    bool   `json:"is_in_flashback,omitempty"`
	FlashbackStartTS uint64 `json:"flashback_start_ts,omitempty,string"`
}

// Initialized tells whether the region has a range: a peer created by a raft message alone has no peers yet.
func (r Region) Initialized() bool { return len(r.Peers) > 0 }

// IsJoint tells whether the region is between two configurations.
func (r Region) IsJoint() bool {
	for _, p := range r.Peers {
		if p.Role == IncomingVoter || p.Role == DemotingVoter {
			return true
		}
	}
	return false
}

// PeerOn finds the peer on a store.
func (r Region) PeerOn(store uint64) (Peer, bool) {
	for _, p := range r.Peers {
		if p.StoreID == store {
			return p, true
		}
	}
	return Peer{}, false
}

// MergeState is set while a region is Merging, and kept on the tombstone of a merged source.
type MergeState struct {
	MinIndex uint64  `json:"min_index"`
	Target   *Region `json:"target,omitempty"`
	Commit   uint64  `json:"commit"`
}

// MergedRecord is raftstore-v2's memory of a merged source region.
type MergedRecord struct {
	SourceRegionID       uint64 `json:"source_region_id"`
	SourceEpoch          Epoch  `json:"source_epoch"`
	SourcePeers          []Peer `json:"source_peers,omitempty"`
	SourceRemovedRecords []Peer `json:"source_removed_records,omitempty"`
	TargetRegionID       uint64 `json:"target_region_id"`
	TargetEpoch          Epoch  `json:"target_epoch"`
	TargetPeers          []Peer `json:"target_peers,omitempty"`
	Index                uint64 `json:"index"`
	SourceIndex          uint64 `json:"source_index"`
}

// RegionLocalState is the record of one region in a store: its state and its descriptor at the applied index.
//
//	1 state          enum PeerState
//	2 region         metapb.Region {1 id, 2 start_key, 3 end_key, 4 region_epoch {1 conf_ver, 2 version}, 5 peers, ...}
//	3 merge_state    {1 min_index, 2 target, 3 commit}
//	4 tablet_index, 5 removed_records, 6 merged_records    raftstore-v2
//
// Source: pingcap/kvproto proto/raft_serverpb.proto, proto/metapb.proto.
type RegionLocalState struct {
	State          PeerState
	Region         Region
	MergeState     *MergeState
	TabletIndex    uint64
	RemovedRecords []Peer
	MergedRecords  []MergedRecord
	Raw            []byte // the record's bytes; every rewrite starts from them
}

// ParseRegionLocalState decodes a RegionLocalState. Errors are of class ErrCorrupt. The result does not share b.
func ParseRegionLocalState(b []byte) (RegionLocalState, error) {
	var m raft_serverpb.RegionLocalState
	if err := m.Unmarshal(b); err != nil {
		return RegionLocalState{}, &DecodeError{What: "RegionLocalState", Err: err}
	}
	s := RegionLocalState{
		State:          PeerState(m.State),
		Region:         regionOf(m.Region),
		TabletIndex:    m.TabletIndex,
		RemovedRecords: peersOf(m.RemovedRecords),
		Raw:            bytes.Clone(b),
	}
	// A store of many regions holds all of them: the keys need no bytes of their own.
	s.Region.StartKey, s.Region.EndKey = within(s.Raw, s.Region.StartKey), within(s.Raw, s.Region.EndKey)
	if ms := m.MergeState; ms != nil {
		s.MergeState = &MergeState{MinIndex: ms.MinIndex, Commit: ms.Commit}
		if ms.Target != nil {
			t := regionOf(ms.Target)
			s.MergeState.Target = &t
		}
	}
	for _, r := range m.MergedRecords {
		s.MergedRecords = append(s.MergedRecords, MergedRecord{
			SourceRegionID: r.SourceRegionId, SourceEpoch: epochOf(r.SourceEpoch), SourcePeers: peersOf(r.SourcePeers),
			SourceRemovedRecords: peersOf(r.SourceRemovedRecords),
			TargetRegionID:       r.TargetRegionId, TargetEpoch: epochOf(r.TargetEpoch), TargetPeers: peersOf(r.TargetPeers),
			Index: r.Index, SourceIndex: r.SourceIndex,
		})
	}
	return s, nil
}

// within gives the part of b that holds the bytes of part, which b was decoded to.
func within(b, part []byte) []byte {
	i := bytes.Index(b, part)
	if i < 0 || len(part) == 0 {
		return part
	}
	return b[i : i+len(part) : i+len(part)]
}

// ParseRegion decodes a bare metapb.Region, the value of the bootstrap key.
func ParseRegion(b []byte) (Region, error) {
	var m metapb.Region
	if err := m.Unmarshal(b); err != nil {
		return Region{}, &DecodeError{What: "Region", Err: err}
	}
	return regionOf(&m), nil
}

// WithEpoch returns the record's bytes with only the epoch changed; everything else, unknown fields and their order
// included, stays byte for byte. s must come from ParseRegionLocalState: without its bytes, or with bytes that only a laxer
// decoder takes, the result is nil and must not be written.
func (s RegionLocalState) WithEpoch(confVer, version uint64) []byte {
	if len(s.Raw) == 0 {
		return nil
	}
	const region, epoch = 2, 4
	b, err := setVarint(s.Raw, []protowire.Number{region, epoch, 1}, confVer)
	if err != nil {
		return nil
	}
	if b, err = setVarint(b, []protowire.Number{region, epoch, 2}, version); err != nil {
		return nil
	}
	return b
}

func epochOf(e *metapb.RegionEpoch) Epoch {
	return Epoch{ConfVer: e.GetConfVer(), Version: e.GetVersion()}
}

func peersOf(ps []*metapb.Peer) []Peer {
	if len(ps) == 0 {
		return nil
	}
	out := make([]Peer, len(ps))
	for i, p := range ps {
		out[i] = Peer{ID: p.Id, StoreID: p.StoreId, Role: PeerRole(p.Role), IsWitness: p.IsWitness}
	}
	return out
}

func regionOf(r *metapb.Region) Region {
	if r == nil {
		return Region{}
	}
	return Region{
		ID: r.Id, StartKey: r.StartKey, EndKey: r.EndKey, Epoch: epochOf(r.RegionEpoch), Peers: peersOf(r.Peers),
		IsInFlashback: r.IsInFlashback, FlashbackStartTS: r.FlashbackStartTs,
	}
}
