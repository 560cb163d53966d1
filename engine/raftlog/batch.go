package raftlog

import (
	"bytes"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Batch is a list of changes to a raft store, in order. It means the same to both kinds of store, and takes effect as a whole.
//
// There is no way to compact: raft-engine forgets that it has compacted when the file with the record is purged, and what
// seemed gone comes back. A log jumps forward, or becomes empty, by Clean alone.
type Batch struct {
	ops  []batchOp
	size int64
}

type batchOp struct {
	kind    opKind // opClean, opPut or opEntries
	region  uint64
	key     []byte            // opPut
	value   []byte            // opPut
	entries []raftstate.Entry // opEntries: indexes ascending by one
}

// internalPrefix begins the keys that some lines of raft-engine keep to themselves (src/lib.rs, is_internal_key).
const internalPrefix = "__"

// Empty tells whether there is nothing to do.
func (b *Batch) Empty() bool { return len(b.ops) == 0 }

// Size is about the number of bytes that the batch takes on disk.
func (b *Batch) Size() int64 { return b.size }

// Clean takes away everything of a region: all entries and all keys.
func (b *Batch) Clean(region uint64) {
	b.ops = append(b.ops, batchOp{kind: opClean, region: region})
	b.size += 16
}

// Put sets a key of a region. A raft RocksDB has one only, that of the raft state.
func (b *Batch) Put(region uint64, key, value []byte) error {
	if len(key) == 0 || bytes.HasPrefix(key, []byte(internalPrefix)) {
		return fmt.Errorf("region %d: key %X is not for raft-engine's users", region, key)
	}
	b.ops = append(b.ops, batchOp{kind: opPut, region: region, key: bytes.Clone(key), value: bytes.Clone(value)})
	b.size += int64(len(key) + len(value) + 24)
	return nil
}

// PutState sets the raft state of a region.
func (b *Batch) PutState(region uint64, s raftstate.RaftLocalState) error {
	if len(s.Raw) == 0 {
		return fmt.Errorf("region %d: a raft state without bytes", region)
	}
	return b.Put(region, []byte(stateKey), s.Raw)
}

// Entries writes entries of a region, whose indexes follow each other. Those that the region has at or above the first of them
// are gone afterwards: the log ends with the last of list. It must not begin beyond the end of the log, unless the log is
// empty. The bytes of each entry are taken from Raw and copied.
func (b *Batch) Entries(region uint64, list []raftstate.Entry) error {
	if len(list) == 0 {
		return fmt.Errorf("region %d: no entries", region)
	}
	op := batchOp{kind: opEntries, region: region, entries: make([]raftstate.Entry, 0, len(list))}
	for i, e := range list {
		c, err := raftstate.ParseEntry(bytes.Clone(e.Raw))
		if err != nil {
			return fmt.Errorf("region %d: %w", region, err)
		}
		if c.Index != e.Index || c.Index != list[0].Index+uint64(i) || c.Index == ^uint64(0) || len(c.Raw) > maxDecodedBlock {
			return fmt.Errorf("region %d: entry %d of a list that begins at %d has index %d in its %d bytes", region, e.Index, list[0].Index, c.Index, len(c.Raw))
		}
		op.entries = append(op.entries, c)
		b.size += int64(len(c.Raw) + 10)
	}
	b.ops = append(b.ops, op)
	b.size += 24
	return nil
}

// outcome is what a batch makes of one region.
//
// Invariant: the log afterwards is the old entries below keepBelow, then added; the two touch.
type outcome struct {
	region    uint64
	cleaned   bool
	keepBelow uint64 // with cleaned or an empty log 0
	first     uint64 // of the old entries, if keepBelow > 0
	added     []raftstate.Entry
	put       map[string][]byte
}

// bounds of the log afterwards.
func (o *outcome) bounds() (first, last uint64, ok bool) {
	if n := len(o.added); n > 0 {
		first, last, ok = o.added[0].Index, o.added[n-1].Index, true
	}
	if o.keepBelow > o.first {
		if first = o.first; !ok {
			last, ok = o.keepBelow-1, true
		}
	}
	return first, last, ok
}

func (o *outcome) take(list []raftstate.Entry) error {
	i := list[0].Index
	if first, last, ok := o.bounds(); ok && i > last+1 {
		return &base.Error{Class: base.ErrUnsupported, Op: "plan raft edit", Offset: -1, Region: o.region,
			Reason: fmt.Sprintf("entry %d after a log of %d..%d leaves a hole: the engine would panic", i, first, last)}
	}
	if n := len(o.added); n > 0 && i > o.added[0].Index {
		o.added = o.added[:i-o.added[0].Index]
	} else {
		o.added = nil
		if o.keepBelow = min(o.keepBelow, i); o.keepBelow <= o.first {
			o.keepBelow = 0
		}
	}
	o.added = append(o.added[:len(o.added):len(o.added)], list...)
	return nil
}

// outcomes applies the batch to what a store holds, region by region in the order in which they appear.
func (b *Batch) outcomes(s Store) ([]*outcome, error) {
	var list []*outcome
	byRegion := map[uint64]*outcome{}
	for i := range b.ops {
		op := &b.ops[i]
		o := byRegion[op.region]
		if o == nil {
			o = &outcome{region: op.region, put: map[string][]byte{}}
			first, last, ok, err := s.Bounds(op.region)
			if err != nil {
				return nil, err
			}
			if ok {
				o.first, o.keepBelow = first, last+1
			}
			byRegion[op.region] = o
			list = append(list, o)
		}
		switch op.kind {
		case opClean:
			*o = outcome{region: op.region, cleaned: true, put: map[string][]byte{}}
		case opPut:
			o.put[string(op.key)] = op.value
		case opEntries:
			if err := o.take(op.entries); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}
