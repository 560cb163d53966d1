package scan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// RegionInfo is what a store holds about one region. The first four fields have exactly the shape of
// "tikv-ctl raft region"; the others are added.
type RegionInfo struct {
	RegionID uint64                      `json:"region_id"`
	Local    *raftstate.RegionLocalState `json:"region_local_state"`
	Raft     *raftstate.RaftLocalState   `json:"raft_local_state"`
	Apply    *raftstate.RaftApplyState   `json:"raft_apply_state"`

	// Start and End are the decoded boundaries; nil: the end of the key space, or a key that does not decode.
	Start   *mvcc.KeyInfo      `json:"start_key_decoded,omitempty"`
	End     *mvcc.KeyInfo      `json:"end_key_decoded,omitempty"`
	OwnPeer *raftstate.Peer    `json:"own_peer,omitempty"`
	Derived *raftstate.Derived `json:"derived,omitempty"` // of a live region
	// SnapshotRaft is the raft state of the snapshot that a region in state Applying takes in.
	SnapshotRaft *raftstate.RaftLocalState `json:"snapshot_raft_state,omitempty"`
	Flags        []string                  `json:"flags"`
	Verdict      StartVerdict              `json:"verdict"`
}

// Answers of a StartVerdict.
const (
	StartsYes       = "yes"
	StartsNo        = "no"
	StartsTombstone = "tombstone" // nothing to start
	StartsUnknown   = "unknown"   // the raft store cannot be read
)

// StartVerdict says whether a starting TiKV takes a region. One that it does not take stops the whole store.
type StartVerdict struct {
	Starts     string                `json:"starts"` // yes, no, tombstone, unknown
	Text       string                `json:"text"`
	Violations []raftstate.Violation `json:"violations,omitempty"`
}

// RegionInfos prints as the object by region id that tikv-ctl gives, in the order of ids.
type RegionInfos []*RegionInfo

// MarshalJSON gives {"2": {...}, "10": {...}}.
func (rs RegionInfos) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, r := range rs {
		if i > 0 {
			b.WriteByte(',')
		}
		one, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:", fmt.Sprint(r.RegionID))
		b.Write(one)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// RegionQuery chooses regions. Without ids and keys all are meant.
type RegionQuery struct {
	IDs           []uint64
	Key           []byte // raw user key: the live region that holds it
	DBKey         []byte // the same by a key of the database: 'z', then what region boundaries look like
	SkipTombstone bool
}

// RegionInfos describes the chosen regions, by id. A region that the store does not know is left out.
func (s *Store) RegionInfos(q RegionQuery) (RegionInfos, error) {
	ids := slices.Clone(q.IDs)
	if q.Key != nil {
		id, err := s.RegionOfUser(q.Key)
		if err != nil {
			return nil, err
		}
		if id != 0 {
			ids = append(ids, id)
		}
	}
	if q.DBKey != nil {
		if id := s.regionOf(q.DBKey); id != 0 {
			ids = append(ids, id)
		}
	}
	all := len(q.IDs) == 0 && q.Key == nil && q.DBKey == nil
	out := RegionInfos{}
	for _, r := range s.Regions {
		if !all && !slices.Contains(ids, r.ID) || q.SkipTombstone && r.State.State == raftstate.Tombstone {
			continue
		}
		info, err := s.regionInfo(r)
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// RegionOfUser names the live region that holds a raw user key; 0 without one.
func (s *Store) RegionOfUser(user []byte) (uint64, error) {
	mode, err := s.RawMode()
	if err != nil {
		return 0, err
	}
	if mode == RawV1 || mode == RawV1TTL {
		return s.regionOf(append([]byte{mvcc.DataPrefix}, user...)), nil
	}
	return s.regionOf(mvcc.LockKey(user)), nil
}

func (s *Store) regionInfo(r Region) (*RegionInfo, error) {
	local := r.State
	if local.Region.Peers == nil {
		local.Region.Peers = []raftstate.Peer{}
	}
	in := &RegionInfo{RegionID: r.ID, Local: &local, Apply: r.Apply, Flags: []string{}}
	in.Start, in.End = boundary(r.State.Region.StartKey), boundary(r.State.Region.EndKey)
	if p, ok := r.State.Region.PeerOn(s.Ident.StoreID); ok {
		in.OwnPeer = &p
	}
	var err error
	if s.Raft != nil {
		if in.Raft, err = s.RaftStateOf(r.ID); err != nil {
			return nil, err
		}
	}
	switch {
	case r.State.State == raftstate.Tombstone:
		in.Verdict = StartVerdict{Starts: StartsTombstone, Text: "nothing to start: the region is a tombstone on this store"}
	case s.Raft == nil:
		in.Verdict = StartVerdict{Starts: StartsUnknown, Text: "TiKV will start this region: unknown, because the raft store was not read"}
	default:
		vs, err := s.StartCheck(r, in.Raft)
		if err != nil && !errors.Is(err, base.ErrCorrupt) {
			return nil, err
		}
		in.Verdict = verdictOf(vs, err)
		if r.State.State == raftstate.Applying {
			if in.SnapshotRaft, err = s.snapshotState(r.ID); err != nil && !errors.Is(err, base.ErrCorrupt) {
				return nil, err
			}
			if reason, err := s.snapshotIncomplete(r); err != nil {
				return nil, err
			} else if reason != "" && in.Verdict.Starts == StartsYes {
				in.Verdict.Text += "; it panics later (the snapshot that the region applies is not complete: " + reason + ")"
			}
		}
		d := raftstate.Derive(in.Raft, r.Apply)
		in.Derived = &d
	}
	in.flags()
	return in, nil
}

// RaftStateOf reads a region's raft state; nil when there is none.
func (s *Store) RaftStateOf(region uint64) (*raftstate.RaftLocalState, error) {
	raw, ok, err := s.Raft.RaftState(region)
	if err != nil || !ok {
		return nil, err
	}
	st, err := raftstate.ParseRaftLocalState(raw)
	if err != nil {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "read raft state", Path: s.Layout.RaftDir, Offset: -1, Region: region, Err: err}
	}
	return &st, nil
}

// StartCheck tests what a starting server tests. An error of class base.ErrCorrupt beside the violations says that a log entry
// could not be read, which a server takes for one that does not exist.
func (s *Store) StartCheck(r Region, raft *raftstate.RaftLocalState) ([]raftstate.Violation, error) {
	terms := &raftlog.Terms{Store: s.Raft, Region: r.ID}
	in := raftstate.StartInput{StoreID: s.Ident.StoreID, Region: r.State, Raft: raft, Apply: r.Apply, EntryTerm: terms.Term}
	if r.State.State == raftstate.Applying {
		var err error
		if in.Snapshot, err = s.snapshotState(r.ID); err != nil {
			return nil, err
		}
	}
	vs := raftstate.StartCheck(in)
	return vs, terms.Err
}

// snapshotState reads the raft state beside a region in state Applying; nil when there is none.
func (s *Store) snapshotState(region uint64) (*raftstate.RaftLocalState, error) {
	b, _, ok, err := s.DB.CF(CFRaft).Get(raftstate.SnapshotRaftStateKey(region))
	if err != nil || !ok {
		return nil, err
	}
	st, err := raftstate.ParseRaftLocalState(b)
	if err != nil {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "read snapshot raft state", Path: s.Layout.KVDir, Offset: -1, CF: CFRaft, Region: region, Err: err}
	}
	return &st, nil
}

// verdictOf sums violations up. Rules 6 and 11 are broken by a store of 8.2 or later that applied entries before they were
// persisted: such a release starts the region, releases up to 8.0 do not.
func verdictOf(vs []raftstate.Violation, unreadable error) StartVerdict {
	v := StartVerdict{Starts: StartsYes, Violations: vs}
	var no, old, later []string
	for _, x := range vs {
		switch x.Consequence {
		case raftstate.StopsStart:
			no = append(no, x.Message)
		case raftstate.StopsOldLines:
			old = append(old, fmt.Sprintf("TiKV %s would not (rule %d: %s)", x.Lines, x.Rule, x.Message))
		default:
			later = append(later, "it panics later ("+x.Message+")")
		}
	}
	const question = "TiKV will start this region: "
	switch {
	case len(no) > 0:
		v.Starts, v.Text = StartsNo, question+"no, because "+strings.Join(no, "; and ")
	default:
		v.Text = question + strings.Join(append(append([]string{"yes"}, old...), later...), "; ")
	}
	if unreadable != nil {
		v.Text += "; a log entry cannot be read: " + unreadable.Error()
	}
	return v
}

// boundary decodes a region boundary: a user key in memcomparable form.
func boundary(k raftstate.Key) *mvcc.KeyInfo {
	if len(k) == 0 {
		return nil
	}
	user, rest, err := mvcc.DecodeBytes(k)
	if err != nil || len(rest) > 0 {
		return nil
	}
	info := mvcc.DescribeUserKey(user)
	return &info
}

// flags names what is out of the ordinary.
func (in *RegionInfo) flags() {
	r := in.Local.Region
	add := func(name string, is bool) {
		if is {
			in.Flags = append(in.Flags, name)
		}
	}
	switch in.Local.State {
	case raftstate.Normal:
	default:
		add(strings.ToLower(in.Local.State.String()), true)
	}
	if in.Local.State == raftstate.Tombstone {
		return
	}
	add("uninitialized", !r.Initialized())
	add("no-peer-here", in.OwnPeer == nil && r.Initialized())
	add("joint", r.IsJoint())
	add("learner-only", r.Initialized() && !slices.ContainsFunc(r.Peers, func(p raftstate.Peer) bool { return p.Role != raftstate.Learner }))
	add("learner", in.OwnPeer != nil && in.OwnPeer.Role == raftstate.Learner)
	add("witness", in.OwnPeer != nil && in.OwnPeer.IsWitness)
	add("flashback", r.IsInFlashback)
	add("single-peer", len(r.Peers) == 1)
	if d := in.Derived; d != nil {
		add("unpersisted", d.Unpersisted > 0)
		add("unapplied", d.Unapplied > 0)
		add("uncommitted", d.Uncommitted > 0)
	}
}

// BoundText is a region boundary in the shortest readable form; end tells which end of the key space an empty one is.
func BoundText(k raftstate.Key, decoded *mvcc.KeyInfo, end bool) string {
	switch {
	case len(k) == 0 && end:
		return "+inf"
	case len(k) == 0:
		return "-inf"
	case decoded == nil:
		return "hex " + k.String()
	}
	return decoded.String()
}

// PeersText lists peers as id@store, the own one marked with a star, other roles than voter named.
func (in *RegionInfo) PeersText() string {
	var out []string
	for _, p := range in.Local.Region.Peers {
		t := fmt.Sprintf("%d@%d", p.ID, p.StoreID)
		if in.OwnPeer != nil && p == *in.OwnPeer {
			t += "*"
		}
		if p.Role != raftstate.Voter {
			t += "(" + p.Role.String() + ")"
		}
		if p.IsWitness {
			t += "(witness)"
		}
		out = append(out, t)
	}
	return strings.Join(out, " ")
}
