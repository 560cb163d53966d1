package etcd

import (
	"bytes"
	"maps"
	"slices"
	"sort"
)

// machine is etcd's state machine for keys: what requests change. Invariants: keys is sorted and has exactly the keys of live;
// 0 < Create <= Mod <= revision for every live key; byLease has exactly the keys whose lease is known.
type machine struct {
	revision  int64 // of the last transaction that changed a key
	compacted int64 // revisions below this one cannot be read any more
	leases    map[int64]Lease
	alarms    map[alarm]bool

	live    map[string]KV
	keys    []string
	byLease map[int64]map[string]bool
}

// newMachine is the state of an etcd that was never written to: its revision is 1.
func newMachine() *machine {
	return &machine{revision: 1, leases: map[int64]Lease{}, alarms: map[alarm]bool{}, live: map[string]KV{}, byLease: map[int64]map[string]bool{}}
}

// fill takes over the keys of a backend whose leases are there already.
func (m *machine) fill(live map[string]KV) {
	for k, kv := range live {
		m.live[k] = kv
		m.attach(k, kv.Lease)
	}
	m.keys = slices.Sorted(maps.Keys(m.live))
}

// clone is a machine that shares nothing that changes.
func (m *machine) clone() *machine {
	c := &machine{revision: m.revision, compacted: m.compacted, leases: maps.Clone(m.leases), alarms: maps.Clone(m.alarms),
		live: maps.Clone(m.live), keys: slices.Clone(m.keys), byLease: map[int64]map[string]bool{}}
	for id, set := range m.byLease {
		c.byLease[id] = maps.Clone(set)
	}
	return c
}

// attach binds a key to its lease, as etcd does when it starts and when a key is put: only to leases that exist.
func (m *machine) attach(key string, lease int64) {
	if _, known := m.leases[lease]; lease == 0 || !known {
		return
	}
	if m.byLease[lease] == nil {
		m.byLease[lease] = map[string]bool{}
	}
	m.byLease[lease][key] = true
}

func (m *machine) detach(key string, lease int64) {
	delete(m.byLease[lease], key)
	if len(m.byLease[lease]) == 0 {
		delete(m.byLease, lease)
	}
}

// put writes key at revision rev.
func (m *machine) put(rev int64, key, value []byte, lease int64) {
	k := string(key)
	old, was := m.live[k]
	kv := KV{Key: []byte(k), Value: bytes.Clone(value), Create: rev, Mod: rev, Version: 1, Lease: lease}
	if was {
		kv.Create, kv.Version = old.Create, old.Version+1
		m.detach(k, old.Lease)
	} else {
		at := sort.SearchStrings(m.keys, k)
		m.keys = slices.Insert(m.keys, at, k)
	}
	m.live[k] = kv
	m.attach(k, lease)
}

// span returns the positions [from, to) in keys of a range as requests give it: an empty end is the one key, "\0" no upper bound.
func (m *machine) span(key, end []byte) (from, to int) {
	from = sort.SearchStrings(m.keys, string(key))
	switch {
	case len(end) == 0:
		to = from
		if from < len(m.keys) && m.keys[from] == string(key) {
			to++
		}
	case len(end) == 1 && end[0] == 0:
		to = len(m.keys)
	default:
		to = max(from, sort.SearchStrings(m.keys, string(end)))
	}
	return from, to
}

// remove deletes a range and tells how many keys it had.
func (m *machine) remove(key, end []byte) int {
	from, to := m.span(key, end)
	for _, k := range m.keys[from:to] {
		m.detach(k, m.live[k].Lease)
		delete(m.live, k)
	}
	m.keys = slices.Delete(m.keys, from, to)
	return to - from
}

// view copies the state out.
func (m *machine) view(index uint64) *View {
	v := &View{Index: index, Revision: m.revision, Compacted: m.compacted, Keys: make([]KV, 0, len(m.keys)), Leases: maps.Clone(m.leases)}
	for _, k := range m.keys {
		v.Keys = append(v.Keys, m.live[k])
	}
	return v
}
