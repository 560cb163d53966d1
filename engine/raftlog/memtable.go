package raftlog

import (
	"bytes"
	"fmt"
	"slices"
)

// block is where the entries block of one batch is, checksum included.
type block struct {
	off, len    int64
	file        uint32 // index into Engine.files
	compression byte
}

// pos is where one entry is: 12 bytes for each, so that a store with tens of millions of entries can be held.
type pos struct {
	block uint32 // index into Engine.blocks
	span
}

// group is what the engine knows of one raft group.
//
// Invariant: entries[i] is the entry first+i; there are no holes.
type group struct {
	first   uint64
	entries []pos
	kv      pairs
}

// pairs are the key-value pairs of a group: TiKV has one in each region's, which a map of its own would make ten times as large.
type pairs []pair

type pair struct {
	key   string
	value []byte
}

func (p pairs) find(key string) int {
	return slices.IndexFunc(p, func(x pair) bool { return x.key == key })
}

func (p pairs) get(key string) ([]byte, bool) {
	if i := p.find(key); i >= 0 {
		return p[i].value, true
	}
	return nil, false
}

func (p *pairs) put(key string, value []byte) {
	if i := p.find(key); i >= 0 {
		(*p)[i].value = value
		return
	}
	*p = append(*p, pair{key, value})
}

func (p *pairs) drop(key string) {
	if i := p.find(key); i >= 0 {
		*p = slices.Delete(*p, i, i+1)
	}
}

func (g *group) last() uint64 { return g.first + uint64(len(g.entries)) - 1 }

// table is the result of replaying one queue; the rules are those of tikv/raft-engine 0.4.2 src/memtable.rs.
type table map[uint64]*group

func (t table) at(id uint64) *group {
	g := t[id]
	if g == nil {
		g = &group{}
		t[id] = g
	}
	return g
}

// prepareAppend makes room for entries that begin at index i (MemTable::prepare_append). An overwrite of history is always
// allowed on recovery; a hole only where compaction records may have been lost.
func (g *group) prepareAppend(i uint64, allowHole bool) error {
	switch {
	case len(g.entries) == 0 || i < g.first:
		g.entries, g.first = nil, i
	case i <= g.last():
		g.entries = g.entries[:i-g.first]
		if len(g.entries) == 0 {
			g.first = i
		}
	case i == g.last()+1:
	case allowHole:
		g.entries, g.first = nil, i
	default:
		return fmt.Errorf("memtable has a hole: entry %d after %d", i, g.last())
	}
	return nil
}

// append adds entries that the caller has made room for.
func (g *group) append(block uint32, spans []span) {
	if len(g.entries) == 0 {
		g.entries = slices.Grow(g.entries, len(spans)) // what a purge has written together stays as it is
	}
	for _, s := range spans {
		g.entries = append(g.entries, pos{block, s})
	}
}

// compact drops entries below i.
func (g *group) compact(i uint64) {
	if len(g.entries) == 0 || i <= g.first {
		return
	}
	if i > g.last() {
		g.entries = nil
		return
	}
	g.entries, g.first = g.entries[i-g.first:], i
}

// apply replays one item. block is the index of the batch's entries block.
func (t table) apply(it *item, block uint32, allowHole bool) error {
	switch it.op {
	case opEntries:
		g := t.at(it.group)
		if len(it.spans) == 0 {
			return nil
		}
		if err := g.prepareAppend(it.index, allowHole); err != nil {
			return fmt.Errorf("group %d: %w", it.group, err)
		}
		g.append(block, it.spans)
	case opPut:
		if bytes.Equal(it.key, atomicKey) {
			return nil // the engine's own marker
		}
		t.at(it.group).kv.put(string(it.key), bytes.Clone(it.value))
	default:
		t.bury(it)
	}
	return nil
}

// bury applies what takes away: clean, compact, delete. The append queue's are applied to the rewrite queue's table as well,
// because what they speak of may have been moved there. As in the engine, a group that is only spoken of is there, and empty.
func (t table) bury(it *item) {
	switch it.op {
	case opClean:
		delete(t, it.group)
	case opCompact:
		t.at(it.group).compact(it.index)
	case opDelete:
		if !bytes.Equal(it.key, atomicKey) {
			t.at(it.group).kv.drop(string(it.key))
		}
	}
}

// overlay puts the append queue's groups on top of those of the rewrite queue.
func (t table) overlay(newer table) {
	for id, n := range newer {
		g := t.at(id)
		if len(n.entries) > 0 {
			_ = g.prepareAppend(n.first, true) // with holes allowed it cannot fail
			if len(g.entries) == 0 {
				g.entries = n.entries
			} else {
				g.entries = append(g.entries, n.entries...)
			}
		}
		if g.kv == nil {
			g.kv = n.kv
			continue
		}
		for _, x := range n.kv {
			g.kv.put(x.key, x.value)
		}
	}
}

// pendingBatch is a batch of an atomic group that has not ended yet.
type pendingBatch struct {
	section []byte
	block   uint32
}

// atomicGroups collects the batches between Begin and End of each marker id. Ids start again with every process: Begin resets.
type atomicGroups map[uint64][]pendingBatch

// accept takes a marked batch and returns those to apply now. A batch whose group was never begun is dropped.
func (a atomicGroups) accept(id uint64, m atomicMark, b pendingBatch) []pendingBatch {
	if m == markBegin {
		a[id] = []pendingBatch{b}
		return nil
	}
	list, begun := a[id]
	if !begun {
		return nil
	}
	list = append(list, b)
	if m == markMiddle {
		a[id] = list
		return nil
	}
	delete(a, id)
	return list
}
