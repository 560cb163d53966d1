package raftstate

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Key is a byte string that is printed as upper-case hex, as in TiKV's logs and tools.
type Key []byte

// String gives upper-case hex.
func (k Key) String() string { return strings.ToUpper(hex.EncodeToString(k)) }

// MarshalText gives upper-case hex.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads hex of either case.
func (k *Key) UnmarshalText(b []byte) error {
	v, err := hex.DecodeString(string(b))
	if err != nil {
		return err
	}
	if len(v) == 0 {
		v = nil
	}
	*k = v
	return nil
}

// PeerState is raft_serverpb.PeerState.
type PeerState int32

// The states of a region in a store.
const (
	Normal      PeerState = 0 // serving
	Applying    PeerState = 1 // a snapshot is half applied; the range's data is undefined until it is finished
	Tombstone   PeerState = 2 // destroyed; the record remembers the epoch
	Merging     PeerState = 3 // PrepareMerge is applied
	Unavailable PeerState = 4 // a former witness that waits for data
)

// PeerRole is metapb.PeerRole.
type PeerRole int32

// The roles of a peer. IncomingVoter and DemotingVoter exist in a joint configuration only.
const (
	Voter         PeerRole = 0
	Learner       PeerRole = 1
	IncomingVoter PeerRole = 2
	DemotingVoter PeerRole = 3
)

var (
	peerStateNames = []string{"Normal", "Applying", "Tombstone", "Merging", "Unavailable"}
	peerRoleNames  = []string{"Voter", "Learner", "IncomingVoter", "DemotingVoter"}
)

func enumName(names []string, v int32) string {
	if v >= 0 && int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}

func enumValue(names []string, s string) (int32, error) {
	for i, n := range names {
		if n == s {
			return int32(i), nil
		}
	}
	v, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("unknown name %q", s)
	}
	return int32(v), nil
}

// String gives the protobuf name, or the number of a state that a newer TiKV may have added.
func (s PeerState) String() string { return enumName(peerStateNames, int32(s)) }

// MarshalText gives String.
func (s PeerState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *PeerState) UnmarshalText(b []byte) error {
	v, err := enumValue(peerStateNames, string(b))
	*s = PeerState(v)
	return err
}

// String gives the protobuf name, or the number of a role that a newer TiKV may have added.
func (r PeerRole) String() string { return enumName(peerRoleNames, int32(r)) }

// MarshalText gives String.
func (r PeerRole) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (r *PeerRole) UnmarshalText(b []byte) error {
	v, err := enumValue(peerRoleNames, string(b))
	*r = PeerRole(v)
	return err
}

// regionLocalStateJSON is the shape that "tikv-ctl raft region" prints: the state stands inside the region.
type regionLocalStateJSON struct {
	Region struct {
		ID    uint64    `json:"id"`
		State PeerState `json:"state"`
		regionTail
	} `json:"region"`
	MergeState     *MergeState    `json:"merge_state,omitempty"`
	TabletIndex    uint64         `json:"tablet_index,omitempty"`
	RemovedRecords []Peer         `json:"removed_records,omitempty"`
	MergedRecords  []MergedRecord `json:"merged_records,omitempty"`
}

// regionTail is Region without the id, so that the state can be printed second.
type regionTail struct {
	StartKey         Key    `json:"start_key"`
	EndKey           Key    `json:"end_key"`
	Epoch            Epoch  `json:"region_epoch"`
	Peers            []Peer `json:"peers"`
	IsInFlashback    bool   `json:"is_in_flashback,omitempty"`
	FlashbackStartTS uint64 `json:"flashback_start_ts,omitempty,string"`
}

// MarshalJSON gives the shape of "tikv-ctl raft region"; what that tool leaves out is added only where it is set.
func (s RegionLocalState) MarshalJSON() ([]byte, error) {
	var j regionLocalStateJSON
	r := s.Region
	j.Region.ID, j.Region.State = r.ID, s.State
	j.Region.regionTail = regionTail{r.StartKey, r.EndKey, r.Epoch, r.Peers, r.IsInFlashback, r.FlashbackStartTS}
	j.MergeState, j.TabletIndex = s.MergeState, s.TabletIndex
	j.RemovedRecords, j.MergedRecords = s.RemovedRecords, s.MergedRecords
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON and "tikv-ctl raft region" write. Raw stays empty: such a state cannot be rewritten.
func (s *RegionLocalState) UnmarshalJSON(b []byte) error {
	var j regionLocalStateJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	t := j.Region.regionTail
	*s = RegionLocalState{
		State:      j.Region.State,
		Region:     Region{j.Region.ID, t.StartKey, t.EndKey, t.Epoch, t.Peers, t.IsInFlashback, t.FlashbackStartTS},
		MergeState: j.MergeState, TabletIndex: j.TabletIndex,
		RemovedRecords: j.RemovedRecords, MergedRecords: j.MergedRecords,
	}
	return nil
}
