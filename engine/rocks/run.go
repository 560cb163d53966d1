package rocks

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"sort"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// Run is a set of records of one column family in memory, sorted like a flushed table: what the write-ahead logs hold, or what a
// repair adds. Keys and values live in an arena, so that a record costs 32 bytes beside its own.
type Run struct {
	arena  arena
	recs   []memRec
	ranges []ikey.RangeDel
	sorted bool
}

type memRec struct {
	at         place // of the user key; the value follows it
	klen, vlen uint32
	seq        uint64
	kind       ikey.Kind
}

// Add takes a copy of one record; for a range tombstone k.User is the start and value the end (exclusive).
func (m *Run) Add(k ikey.Key, value []byte) {
	if k.Kind == ikey.KindRangeDelete {
		m.ranges = append(m.ranges, ikey.RangeDel{Start: bytes.Clone(k.User), End: bytes.Clone(value), Seq: k.Seq})
		return
	}
	at := m.arena.add(k.User, value)
	m.recs = append(m.recs, memRec{at: at, klen: uint32(len(k.User)), vlen: uint32(len(value)), seq: k.Seq, kind: k.Kind})
	m.sorted = false
}

// Empty tells whether there is nothing at all.
func (m *Run) Empty() bool { return m == nil || len(m.recs) == 0 && len(m.ranges) == 0 }

func (m *Run) user(i int) []byte {
	r := &m.recs[i]
	return m.arena.get(r.at, 0, uint64(r.klen))
}

func (m *Run) key(i int) ikey.Key {
	r := &m.recs[i]
	return ikey.Key{User: m.user(i), Seq: r.seq, Kind: r.kind}
}

func (m *Run) value(i int) []byte {
	r := &m.recs[i]
	return m.arena.get(r.at, uint64(r.klen), uint64(r.vlen))
}

// Sort must be called between the last Add and the first Iter.
func (m *Run) Sort() {
	if m.sorted {
		return
	}
	if len(m.recs) > 1 {
		m.sort()
	}
	m.sorted = true
}

// sort compares what follows the prefix that all keys share, sixteen bytes of it as numbers: keys of one table begin alike, and from the
// table's id to the last byte of an encoded handle are twelve.
func (m *Run) sort() {
	first := m.user(0)
	shared := len(first)
	for i := range m.recs {
		k := m.user(i)
		shared = min(shared, len(k))
		if !bytes.Equal(k[:shared], first[:shared]) {
			for shared = 0; k[shared] == first[shared]; shared++ {
			}
		}
	}
	type ranked struct {
		head, next uint64 // big-endian, filled up with zeros
		at         int
	}
	order := make([]ranked, len(m.recs))
	for i := range order {
		var head [16]byte
		copy(head[:], m.user(i)[shared:])
		order[i] = ranked{binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint64(head[8:]), i}
	}
	slices.SortFunc(order, func(a, b ranked) int {
		if a.head != b.head {
			return cmp.Compare(a.head, b.head)
		}
		if a.next != b.next {
			return cmp.Compare(a.next, b.next)
		}
		return ikey.Compare(m.key(a.at), m.key(b.at))
	})
	for i := range order { // each cycle of the permutation in turn
		if order[i].at < 0 {
			continue
		}
		moved, to := m.recs[i], i
		for from := order[to].at; from != i; from = order[to].at {
			m.recs[to], order[to].at = m.recs[from], -1
			to = from
		}
		m.recs[to], order[to].at = moved, -1
	}
}

// Len is the number of point records.
func (m *Run) Len() int { return len(m.recs) }

// RangeDels are the range tombstones.
func (m *Run) RangeDels() []ikey.RangeDel { return m.ranges }

// Used is the memory that the records take.
func (m *Run) Used() int64 { return m.arena.used + int64(32*len(m.recs)) }

// reset forgets the point records and keeps the memory.
func (m *Run) reset() {
	m.arena.reset()
	m.recs = m.recs[:0]
}

// Bytes is about the size of the records.
func (m *Run) Bytes() int64 { return m.Used() }

// Iter walks the point records in key order.
func (m *Run) Iter() ikey.Iter { return &memIter{m: m} }

// memIter walks a sorted run.
type memIter struct {
	m *Run
	i int
}

func (it *memIter) First() bool { it.i = 0; return it.valid() }

func (it *memIter) SeekGE(user []byte) bool {
	it.i = sort.Search(len(it.m.recs), func(i int) bool { return bytes.Compare(it.m.user(i), user) >= 0 })
	return it.valid()
}

func (it *memIter) Next() bool    { it.i++; return it.valid() }
func (it *memIter) valid() bool   { return it.i < len(it.m.recs) }
func (it *memIter) Key() ikey.Key { return it.m.key(it.i) }
func (it *memIter) Value() []byte { return it.m.value(it.i) }
func (it *memIter) Err() error    { return nil }
func (it *memIter) Close() error  { return nil }

// Append takes all records of o behind those of m.
func (m *Run) Append(o *Run) {
	m.recs = slices.Grow(m.recs, len(o.recs))
	for _, r := range o.recs {
		r.at = m.arena.add(o.arena.get(r.at, 0, uint64(r.klen)+uint64(r.vlen)), nil)
		m.recs = append(m.recs, r)
	}
	m.ranges = append(m.ranges, o.ranges...)
	m.sorted = false
}

// Number gives the records sequences first, first+1, ... in their present order and returns the next free one.
func (m *Run) Number(first uint64) uint64 {
	for i := range m.recs {
		m.recs[i].seq = first
		first++
	}
	return first
}
