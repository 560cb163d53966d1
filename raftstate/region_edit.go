package raftstate

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// WithState returns the record in another state; everything else stays byte for byte.
func (s RegionLocalState) WithState(state PeerState) (RegionLocalState, error) {
	raw, err := setFields("RegionLocalState", s.Raw, field{[]protowire.Number{1}, uint64(state)})
	if err != nil {
		return RegionLocalState{}, err
	}
	return ParseRegionLocalState(raw)
}

// WithPeers returns the record with another peer list and epoch. The region's other fields, unknown ones included, stay byte for byte;
// a peer that was listed before with the same id keeps fields of it that are not known here.
//
//	RegionLocalState: 2 region {4 region_epoch {1 conf_ver, 2 version}, 5 peers {1 id, 2 store_id, 3 role, 4 is_witness}}
//
// Source: pingcap/kvproto proto/metapb.proto, proto/raft_serverpb.proto.
func (s RegionLocalState) WithPeers(peers []Peer, epoch Epoch) (RegionLocalState, error) {
	const what = "RegionLocalState"
	var out []byte
	found := false
	err := fields(s.Raw, func(n protowire.Number, t protowire.Type, value []byte, _ uint64, raw []byte) error {
		if n != 2 || t != protowire.BytesType {
			out = append(out, raw...)
			return nil
		}
		if found {
			return fmt.Errorf("the region is there twice")
		}
		found = true
		region, err := replacePeers(value, peers)
		if err != nil {
			return err
		}
		_, _, tag := protowire.ConsumeTag(raw)
		out = protowire.AppendBytes(append(out, raw[:tag]...), region)
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("it has no region")
	}
	if err != nil {
		return RegionLocalState{}, &DecodeError{What: what, Err: err}
	}
	next, err := ParseRegionLocalState(out)
	if err != nil {
		return RegionLocalState{}, err
	}
	if out = next.WithEpoch(epoch.ConfVer, epoch.Version); out == nil {
		return RegionLocalState{}, corruptf(what, "the epoch cannot be set")
	}
	return ParseRegionLocalState(out)
}

// replacePeers puts the new list where the first old peer stood, or at the end.
func replacePeers(region []byte, peers []Peer) ([]byte, error) {
	old := map[uint64][]byte{}
	var out []byte
	at := -1
	err := fields(region, func(n protowire.Number, t protowire.Type, value []byte, _ uint64, raw []byte) error {
		if n != 5 || t != protowire.BytesType {
			out = append(out, raw...)
			return nil
		}
		if at < 0 {
			at = len(out)
		}
		return fields(value, func(n protowire.Number, t protowire.Type, _ []byte, num uint64, _ []byte) error {
			if n == 1 && t == protowire.VarintType {
				old[num] = value
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if at < 0 {
		at = len(out)
	}
	var list []byte
	for _, p := range peers {
		witness := uint64(0)
		if p.IsWitness {
			witness = 1
		}
		b, err := setFields("Peer", old[p.ID], field{[]protowire.Number{1}, p.ID}, field{[]protowire.Number{2}, p.StoreID},
			field{[]protowire.Number{3}, uint64(p.Role)}, field{[]protowire.Number{4}, witness})
		if err != nil {
			return nil, err
		}
		list = protowire.AppendBytes(protowire.AppendTag(list, 5, protowire.BytesType), b)
	}
	return append(out[:at:at], append(list, out[at:]...)...), nil
}
