package rocks

import (
	"bytes"
	"sort"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
)

// mergeIter merges sources into one stream in internal-key order: every record of every source, nothing hidden.
type mergeIter struct {
	all  []ikey.Iter
	heap []int // indexes into all, a binary min-heap on their current keys
	err  error
}

func newMergeIter(sources []ikey.Iter) *mergeIter { return &mergeIter{all: sources} }

// start builds the heap after move has positioned each source.
func (m *mergeIter) start(move func(ikey.Iter) bool) bool {
	m.heap, m.err = m.heap[:0], nil
	for i, it := range m.all {
		if move(it) {
			m.heap = append(m.heap, i)
		} else if err := it.Err(); err != nil {
			m.err = err
			m.heap = m.heap[:0]
			return false
		}
	}
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i)
	}
	return len(m.heap) > 0
}

func (m *mergeIter) First() bool { return m.start(ikey.Iter.First) }
func (m *mergeIter) SeekGE(user []byte) bool {
	return m.start(func(it ikey.Iter) bool { return it.SeekGE(user) })
}

func (m *mergeIter) Next() bool {
	if len(m.heap) == 0 {
		return false
	}
	top := m.all[m.heap[0]]
	if !top.Next() {
		if err := top.Err(); err != nil {
			m.err = err
			m.heap = m.heap[:0]
			return false
		}
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
	}
	m.down(0)
	return len(m.heap) > 0
}

func (m *mergeIter) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(m.heap) {
			return
		}
		if c+1 < len(m.heap) && m.before(m.heap[c+1], m.heap[c]) {
			c++
		}
		if !m.before(m.heap[c], m.heap[i]) {
			return
		}
		m.heap[i], m.heap[c] = m.heap[c], m.heap[i]
		i = c
	}
}

func (m *mergeIter) before(a, b int) bool { return ikey.Compare(m.all[a].Key(), m.all[b].Key()) < 0 }

func (m *mergeIter) Key() ikey.Key { return m.all[m.heap[0]].Key() }
func (m *mergeIter) Value() []byte { return m.all[m.heap[0]].Value() }
func (m *mergeIter) Err() error    { return m.err }

// source is the index, in the slice given to newMergeIter, of the source of the current record.
func (m *mergeIter) source() int { return m.heap[0] }

func (m *mergeIter) Close() error {
	var first error
	for _, it := range m.all {
		if err := it.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// levelIter concatenates the disjoint files of one level >= 1 and holds at most one of them open.
type levelIter struct {
	cf    *CF
	files []*manifest.FileMeta
	i     int
	cur   *tableIter
	err   error
}

func (l *levelIter) open(i int) bool {
	l.close()
	if l.i = i; i >= len(l.files) {
		return false
	}
	l.cur, l.err = l.cf.openTable(l.files[i])
	return l.err == nil
}

func (l *levelIter) close() {
	if l.cur != nil {
		if err := l.cur.Close(); err != nil && l.err == nil {
			l.err = err
		}
		l.cur = nil
	}
}

// settle moves on to the next file while the current one is exhausted.
func (l *levelIter) settle(ok bool) bool {
	for !ok {
		if l.err != nil {
			return false
		}
		if l.err = l.cur.Err(); l.err != nil {
			return false
		}
		if !l.open(l.i + 1) {
			return false
		}
		ok = l.cur.First()
	}
	return true
}

func (l *levelIter) First() bool {
	l.err = nil
	return l.open(0) && l.settle(l.cur.First())
}

func (l *levelIter) SeekGE(user []byte) bool {
	l.err = nil
	i := sort.Search(len(l.files), func(i int) bool { return bytes.Compare(l.files[i].Largest.User, user) >= 0 })
	if l.cur == nil || l.i != i {
		if !l.open(i) {
			return false
		}
	}
	return l.settle(l.cur.SeekGE(user))
}

func (l *levelIter) Next() bool    { return l.settle(l.cur.Next()) }
func (l *levelIter) Key() ikey.Key { return l.cur.Key() }
func (l *levelIter) Value() []byte { return l.cur.Value() }
func (l *levelIter) Err() error    { return l.err }
func (l *levelIter) Close() error  { l.close(); return l.err }

// Merge merges iterators into one stream in internal-key order.
func Merge(its ...ikey.Iter) ikey.Iter { return newMergeIter(its) }
