package raftstate

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// The fields of metapb.Region and raft_serverpb.RegionLocalState that Rewrite sets.
const (
	fieldRegion           = 2 // of RegionLocalState
	fieldMergeState       = 3
	fieldID               = 1 // of Region
	fieldStartKey         = 2
	fieldEndKey           = 3
	fieldInFlashback      = 7
	fieldFlashbackStartTS = 8
)

// Rewrite returns the record with another state and another descriptor. Unknown fields, and fields of the region and its peers that are not
// part of Region, stay byte for byte. merge_state goes unless keepMerge. A record without Raw is written anew: it must not exist yet.
//
//	RegionLocalState: 1 state, 2 region {1 id, 2 start_key, 3 end_key, 4 region_epoch, 5 peers, 7 is_in_flashback, 8 flashback_start_ts},
//	                  3 merge_state
//
// Source: pingcap/kvproto proto/metapb.proto, proto/raft_serverpb.proto. Errors are of class ErrCorrupt.
func (s RegionLocalState) Rewrite(state PeerState, want Region, keepMerge bool) (RegionLocalState, error) {
	const what = "RegionLocalState"
	if len(s.Raw) == 0 {
		id := protowire.AppendVarint(protowire.AppendTag(nil, fieldID, protowire.VarintType), want.ID)
		s.Raw = protowire.AppendBytes(protowire.AppendTag(nil, fieldRegion, protowire.BytesType), id)
	} else if s.Region.ID != want.ID {
		return RegionLocalState{}, corruptf(what, "it is of region %d, not %d", s.Region.ID, want.ID)
	}
	var out []byte
	err := fields(s.Raw, func(n protowire.Number, t protowire.Type, value []byte, _ uint64, raw []byte) error {
		switch {
		case n == fieldMergeState && !keepMerge:
		case n == fieldRegion && t == protowire.BytesType:
			region, err := setBytes(value, map[protowire.Number][]byte{fieldStartKey: want.StartKey, fieldEndKey: want.EndKey})
			if err != nil {
				return err
			}
			out = protowire.AppendBytes(protowire.AppendTag(out, fieldRegion, protowire.BytesType), region)
		default:
			out = append(out, raw...)
		}
		return nil
	})
	if err != nil {
		return RegionLocalState{}, &DecodeError{What: what, Err: err}
	}
	flashback := uint64(0)
	if want.IsInFlashback {
		flashback = 1
	}
	out, err = setFields(what, out, field{[]protowire.Number{1}, uint64(state)}, field{[]protowire.Number{fieldRegion, fieldInFlashback}, flashback},
		field{[]protowire.Number{fieldRegion, fieldFlashbackStartTS}, want.FlashbackStartTS})
	if err != nil {
		return RegionLocalState{}, err
	}
	next, err := ParseRegionLocalState(out)
	if err == nil {
		next, err = next.WithPeers(want.Peers, want.Epoch)
	}
	if err != nil {
		return RegionLocalState{}, err
	}
	if next.State != state || !next.Region.Equal(want) || !keepMerge && next.MergeState != nil {
		return RegionLocalState{}, corruptf(what, "written %s %+v, read %s %+v", state, want, next.State, next.Region)
	}
	return next, nil
}

// Equal compares two descriptors; an absent key or list is an empty one.
func (r Region) Equal(o Region) bool {
	return r.ID == o.ID && bytes.Equal(r.StartKey, o.StartKey) && bytes.Equal(r.EndKey, o.EndKey) && r.Epoch == o.Epoch && slices.Equal(r.Peers, o.Peers) &&
		r.IsInFlashback == o.IsInFlashback && r.FlashbackStartTS == o.FlashbackStartTS
}

// setBytes returns msg with length-delimited fields set, in the place of the first one of their number, or in the order of numbers; an empty
// value removes the field, as proto3 writes it.
func setBytes(msg []byte, set map[protowire.Number][]byte) ([]byte, error) {
	var out []byte
	done := map[protowire.Number]bool{}
	emit := func(n protowire.Number) {
		if v := set[n]; len(v) > 0 && !done[n] {
			out = protowire.AppendBytes(protowire.AppendTag(out, n, protowire.BytesType), v)
		}
		done[n] = true
	}
	numbers := make([]protowire.Number, 0, len(set))
	for n := range set {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	err := fields(msg, func(n protowire.Number, t protowire.Type, _ []byte, _ uint64, raw []byte) error {
		for _, k := range numbers {
			if k < n {
				emit(k)
			}
		}
		if _, ours := set[n]; ours {
			if t != protowire.BytesType {
				return fmt.Errorf("field %d has wire type %d", n, t)
			}
			emit(n)
			return nil
		}
		out = append(out, raw...)
		return nil
	})
	for _, k := range numbers {
		emit(k)
	}
	return out, err
}
