package scan

import (
	"bytes"
	"context"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// RawScanOptions of RawScan.
type RawScanOptions struct {
	CF           string
	Lower, Upper []byte // database keys, nil: open
	Region       uint64 // only this region's range; 0: all
	Limit        int64  // records; 0: all
	// Physical shows every record that a file or log holds, hidden ones and tombstones included.
	Physical bool
}

// RawRecord is one record of a column family.
type RawRecord struct {
	CF         string        `json:"cf"`
	DBKey      string        `json:"db_key"`               // upper-case hex
	EndKey     string        `json:"end_db_key,omitempty"` // of a range tombstone
	Key        string        `json:"key,omitempty"`        // user key, upper-case hex
	KeyDecoded *mvcc.KeyInfo `json:"key_decoded,omitempty"`
	Local      string        `json:"local_key,omitempty"` // what a local key addresses
	Region     uint64        `json:"region_id,omitempty"`

	Write *WriteView `json:"write,omitempty"`
	Locks []LockView `json:"locks,omitempty"`
	Value *ValueView `json:"value,omitempty"`
	State any        `json:"state,omitempty"` // of the raft column family
	Error string     `json:"error,omitempty"`

	Physical *PhysicalView `json:"physical,omitempty"`
}

// PhysicalView tells where a record lies.
type PhysicalView struct {
	Seq    uint64 `json:"sequence"`
	Kind   string `json:"kind"`
	Hidden bool   `json:"hidden"`         // a newer record or a tombstone hides it, or it is one
	File   uint64 `json:"file,omitempty"` // SST number; absent: the write-ahead log
	Level  *int   `json:"level,omitempty"`
}

// RawScan calls fn for each record of a column family, in key order; an error of fn ends it.
func (s *Store) RawScan(ctx context.Context, o RawScanOptions, fn func(*RawRecord) error) error {
	cf := s.DB.CF(o.CF)
	if cf == nil {
		return &base.Error{Class: base.ErrUsage, Op: "scan", Path: s.Layout.KVDir, Offset: -1, Reason: "there is no column family " + o.CF}
	}
	lower, upper, err := s.scanBounds(o)
	if err != nil {
		return err
	}
	mode, err := s.RawMode()
	if err != nil {
		return err
	}
	c := rawScan{s: s, o: o, mode: mode, fn: fn, ctx: ctx}
	if o.Physical {
		return c.physical(cf, lower, upper)
	}
	v, err := cf.NewVisible(lower, upper, nil)
	if err != nil {
		return err
	}
	defer v.Close()
	for ok := v.First(); ok && !c.full(); ok = v.Next() {
		if err := c.give(v.User(), v.Kind(), v.Value(), nil); err != nil {
			return err
		}
	}
	return v.Err()
}

// maxKey is above every key of a TiKV store: data keys begin with 'z', local ones with 0x01.
var maxKey = []byte{0xFF}

func (s *Store) scanBounds(o RawScanOptions) (lower, upper []byte, err error) {
	lower, upper = o.Lower, o.Upper
	if upper == nil {
		upper = maxKey
	}
	// The records of one region lie in two places of the raft column family, which is small: they are picked out on the way.
	if o.Region == 0 || o.CF == CFRaft {
		return lower, upper, nil
	}
	for _, r := range s.Regions {
		if r.ID != o.Region {
			continue
		}
		lo, hi := r.Bounds()
		return most(lower, lo), least(upper, hi), nil
	}
	return nil, nil, &base.Error{Class: base.ErrUsage, Op: "scan", Path: s.Layout.Dir, Offset: -1, Region: o.Region, Reason: "the store does not know this region",
		Next: "tikv-repair inspect " + s.Layout.Dir}
}

type rawScan struct {
	s    *Store
	o    RawScanOptions
	mode RawMode
	fn   func(*RawRecord) error
	ctx  context.Context
	n    int64
}

func (c *rawScan) full() bool { return c.o.Limit > 0 && c.n >= c.o.Limit }

// physical walks all records and, beside them, what a reader sees: a record that the reader does not stand on is hidden.
func (c *rawScan) physical(cf *rocks.CF, lower, upper []byte) error {
	dels, err := cf.RangeDels(lower, upper)
	if err != nil {
		return err
	}
	for _, d := range dels {
		if c.full() {
			return nil
		}
		c.n++
		rec := &RawRecord{CF: c.o.CF, DBKey: upperHex(d.Start), EndKey: upperHex(d.End),
			Physical: &PhysicalView{Seq: d.Seq, Kind: ikey.KindRangeDelete.String(), Hidden: true}}
		if err := c.fn(rec); err != nil {
			return err
		}
	}
	it, err := cf.NewIter(lower, upper, nil)
	if err != nil {
		return err
	}
	defer it.Close()
	seen, err := cf.NewVisible(lower, upper, nil)
	if err != nil {
		return err
	}
	defer seen.Close()
	stands := seen.First()
	for ok := it.First(); ok && !c.full(); ok = it.Next() {
		k := it.Key()
		for stands && bytes.Compare(seen.User(), k.User) < 0 {
			stands = seen.Next()
		}
		p := &PhysicalView{Seq: k.Seq, Kind: k.Kind.String(), Hidden: true}
		if stands && bytes.Equal(seen.User(), k.User) && seen.Seq() == k.Seq && seen.Kind() == k.Kind {
			p.Hidden = false
		}
		if src := it.Source(); src.File != nil {
			level := src.Level
			p.File, p.Level = src.File.Number, &level
		}
		if err := c.give(k.User, k.Kind, it.Value(), p); err != nil {
			return err
		}
	}
	if err := seen.Err(); err != nil {
		return err
	}
	return it.Err()
}

// give decodes one record and passes it on.
func (c *rawScan) give(key []byte, kind ikey.Kind, value []byte, p *PhysicalView) error {
	if c.n%256 == 0 {
		if err := interrupted(c.ctx); err != nil {
			return err
		}
	}
	if c.o.CF == CFRaft && c.o.Region != 0 {
		if _, region, _, ok := raftstate.ParseLocalKey(key); !ok || region != c.o.Region {
			return nil
		}
	}
	c.n++
	r := &RawRecord{CF: c.o.CF, DBKey: upperHex(key), Physical: p}
	hasValue := kind == ikey.KindPut || kind == ikey.KindBlobIndex
	if len(key) > 0 && key[0] != mvcc.DataPrefix {
		c.local(r, key, value, hasValue)
		return c.fn(r)
	}
	var ts mvcc.TS
	user, err := c.userKey(key, &ts)
	if err != nil {
		r.Error = err.Error()
		if hasValue {
			r.Value = &ValueView{Bytes: len(value), Value: upperHex(value)}
		}
		return c.fn(r)
	}
	info := mvcc.DescribeUserKey(user)
	r.Key, r.KeyDecoded = upperHex(user), &info
	c.data(r, user, key, ts, kind, value, hasValue)
	return c.fn(r)
}

func (c *rawScan) userKey(key []byte, ts *mvcc.TS) ([]byte, error) {
	switch {
	case c.o.CF == CFDefault && (c.mode == RawV1 || c.mode == RawV1TTL):
		return key[1:], nil
	case c.o.CF == CFLock:
		return mvcc.UserKey(key)
	}
	prefix, t, ok := mvcc.SplitKey(key)
	if !ok {
		return nil, &base.Error{Class: base.ErrCorrupt, Op: "the key is not a transactional one", Offset: -1}
	}
	*ts = t
	return mvcc.UserKey(prefix)
}

func (c *rawScan) data(r *RawRecord, user, key []byte, ts mvcc.TS, kind ikey.Kind, value []byte, hasValue bool) {
	if c.o.CF != CFDefault {
		if !hasValue {
			if c.o.CF == CFWrite {
				r.Write = &WriteView{CommitTS: ts, CommitTime: Time(ts)}
			}
			return
		}
		v, err := c.s.Value(c.o.CF, kind, key, value)
		if err != nil {
			r.Error = err.Error()
			return
		}
		if c.o.CF == CFLock {
			r.Locks = viewLocks(user, v)
		} else {
			w := viewWrite(ts, v)
			r.Write = &w
		}
		return
	}
	var v ValueView
	if hasValue {
		v = c.s.viewValue(key, kind, value, c.mode == RawV2 && mvcc.IsRawV2Key(user))
	}
	if c.mode == RawV1TTL && hasValue && v.Error == "" {
		if full, err := c.s.Value(CFDefault, kind, key, value); err == nil {
			if val, expire, err := mvcc.ParseRawV1TTL(full); err != nil {
				v.Error = err.Error()
			} else {
				v.Bytes, v.Value, v.ExpireUnix = len(val), upperHex(val), expire
			}
		}
	}
	if c.mode != RawV1 && c.mode != RawV1TTL {
		v.StartTS, v.StartTime = &ts, Time(ts)
	}
	r.Value = &v
}

// local decodes what stands at a local key.
func (c *rawScan) local(r *RawRecord, key, value []byte, hasValue bool) {
	kind, region, _, ok := raftstate.ParseLocalKey(key)
	if !ok {
		r.Error = "this is no local key that TiKV writes"
		if hasValue {
			r.Value = &ValueView{Bytes: len(value), Value: upperHex(value)}
		}
		return
	}
	r.Local, r.Region = kind.String(), region
	if !hasValue {
		return
	}
	var err error
	switch kind {
	case raftstate.KeyStoreIdent:
		r.State, err = raftstate.ParseStoreIdent(value)
	case raftstate.KeyRegionState:
		r.State, err = raftstate.ParseRegionLocalState(value)
	case raftstate.KeyApplyState:
		r.State, err = raftstate.ParseRaftApplyState(value)
	case raftstate.KeySnapshotRaftState, raftstate.KeyRaftState:
		r.State, err = raftstate.ParseRaftLocalState(value)
	case raftstate.KeyBootstrapRegion:
		r.State, err = raftstate.ParseRegion(value)
	default:
		r.Value = &ValueView{Bytes: len(value), Value: upperHex(value)}
	}
	if err != nil {
		r.State, r.Error = nil, err.Error()
		r.Value = &ValueView{Bytes: len(value), Value: upperHex(value)}
	}
}
