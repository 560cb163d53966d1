package raftlog

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
)

type modelGroup struct {
	entries map[uint64]uint64 // index → term
	kv      map[string]string
}

func newGroup() *modelGroup { return &modelGroup{map[uint64]uint64{}, map[string]string{}} }

func (g *modelGroup) bounds() (first, last uint64) {
	if len(g.entries) == 0 {
		return 0, 0
	}
	idx := slices.Sorted(maps.Keys(g.entries))
	return idx[0], idx[len(idx)-1]
}

// put writes entries [from, to]: whatever was at or above from is gone, and all of it if from does not touch it.
func (g *modelGroup) put(from, to, term uint64) {
	first, last := g.bounds()
	if from < first || from > last+1 {
		clear(g.entries)
	}
	maps.DeleteFunc(g.entries, func(i, _ uint64) bool { return i >= from })
	for i := from; i <= to; i++ {
		g.entries[i] = term
	}
}

type model struct {
	queues [2]map[uint64]*modelGroup
	bury   []func(map[uint64]*modelGroup)
}

func newModel() *model {
	return &model{queues: [2]map[uint64]*modelGroup{{}, {}}}
}

func (m *model) at(q Queue, id uint64) *modelGroup {
	return groupOf(m.queues[q], id)
}

// groupOf makes the group that something speaks of.
func groupOf(t map[uint64]*modelGroup, id uint64) *modelGroup {
	if t[id] == nil {
		t[id] = newGroup()
	}
	return t[id]
}

// random adds one legal item to a batch and to the model.
func (m *model) random(rng *rand.Rand, q Queue, b *batchBuilder) {
	id := uint64(1 + rng.Intn(3))
	var bury func(map[uint64]*modelGroup)
	switch rng.Intn(8) {
	case 0:
		b.clean(id)
		bury = func(t map[uint64]*modelGroup) { delete(t, id) }
	case 1:
		i := uint64(rng.Intn(40))
		b.compact(id, i)
		bury = func(t map[uint64]*modelGroup) {
			maps.DeleteFunc(groupOf(t, id).entries, func(at, _ uint64) bool { return at < i })
		}
	case 2:
		b.del(id, "k")
		bury = func(t map[uint64]*modelGroup) { delete(groupOf(t, id).kv, "k") }
	case 3:
		v := fmt.Sprint(rng.Intn(100))
		b.put(id, "k", v)
		m.at(q, id).kv["k"] = v
	default:
		_, last := m.at(q, id).bounds()
		from := uint64(1 + rng.Intn(40))
		if q == Append && last != 0 {
			from = min(from, last+1) // a hole there is an error
		}
		to, term := from+uint64(rng.Intn(6)), uint64(5+rng.Intn(4))
		b.log(id, from, to, term)
		m.at(q, id).put(from, to, term)
	}
	if bury != nil {
		bury(m.queues[q])
		if q == Append {
			m.bury = append(m.bury, bury)
		}
	}
}

// String merges the queues and prints them as dump does.
func (m *model) String() string {
	for _, f := range m.bury {
		f(m.queues[Rewrite])
	}
	out := m.queues[Rewrite]
	for id, a := range m.queues[Append] {
		g := groupOf(out, id)
		if first, last := a.bounds(); last != 0 {
			g.put(first, last, 0)
			maps.Copy(g.entries, a.entries)
		}
		maps.Copy(g.kv, a.kv)
	}
	var b strings.Builder
	for _, id := range slices.Sorted(maps.Keys(out)) {
		g := out[id]
		fmt.Fprintf(&b, "%d:", id)
		if first, last := g.bounds(); last != 0 {
			fmt.Fprintf(&b, " %d..%d", first, last)
			term := uint64(0)
			for i := first; i <= last; i++ {
				if g.entries[i] != term {
					term = g.entries[i]
					fmt.Fprintf(&b, " term %d from %d", term, i)
				}
			}
		}
		for _, k := range slices.Sorted(maps.Keys(g.kv)) {
			fmt.Fprintf(&b, " %s=%s", k, g.kv[k])
		}
		b.WriteString("\n")
	}
	return b.String()
}
