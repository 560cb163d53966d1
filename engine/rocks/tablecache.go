package rocks

import (
	"container/list"
	"sync"
	"sync/atomic"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// tableCache keeps a bounded number of idle SST readers open: an open reader holds a descriptor and its index block, and a
// store can have 100,000 files.
type tableCache struct {
	fs   base.FS
	path func(number uint64) string

	mu    sync.Mutex
	open  map[uint64]*cachedTable
	idle  *list.List // of *cachedTable without users, the longest idle first
	limit int

	read atomic.Int64
}

type cachedTable struct {
	number uint64
	r      *sst.Reader
	users  int
	elem   *list.Element // in idle
	ready  chan struct{} // closed once r or err is there
	err    error
}

func newTableCache(fs base.FS, limit int, path func(uint64) string) *tableCache {
	return &tableCache{fs: fs, path: path, open: map[uint64]*cachedTable{}, idle: list.New(), limit: limit}
}

// acquire opens a table or shares it; every acquire needs a release.
func (c *tableCache) acquire(cf string, f *manifest.FileMeta) (*cachedTable, error) {
	c.mu.Lock()
	t := c.open[f.Number]
	if t != nil {
		if t.users == 0 {
			c.idle.Remove(t.elem)
		}
		t.users++
		c.mu.Unlock()
		<-t.ready
		if t.err != nil {
			return nil, t.err // whoever opened it has taken it out
		}
		return t, nil
	}
	t = &cachedTable{number: f.Number, users: 1, ready: make(chan struct{})}
	c.open[f.Number] = t
	c.mu.Unlock()
	// Without the lock: others open other tables meanwhile.
	t.r, t.err = sst.Open(c.fs, c.path(f.Number), sst.ReaderOptions{CF: cf, Size: int64(f.Size), LargestSeq: f.LargestSeq, Read: &c.read})
	if t.err != nil {
		c.mu.Lock()
		delete(c.open, f.Number)
		c.mu.Unlock()
	}
	close(t.ready)
	if t.err != nil {
		return nil, t.err
	}
	return t, nil
}

func (c *tableCache) release(t *cachedTable) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.users--
	if t.users > 0 {
		return nil
	}
	t.elem = c.idle.PushBack(t)
	if c.idle.Len() <= c.limit {
		return nil
	}
	old := c.idle.Remove(c.idle.Front()).(*cachedTable)
	delete(c.open, old.number)
	return old.r.Close()
}

func (c *tableCache) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var first error
	for n, t := range c.open {
		if err := t.r.Close(); err != nil && first == nil {
			first = err
		}
		delete(c.open, n)
	}
	c.idle.Init()
	return first
}

// tableIter gives its table back when it is closed.
type tableIter struct {
	ikey.Iter
	c *tableCache
	t *cachedTable
}

func (it *tableIter) Close() error {
	err := it.Iter.Close()
	if it.t != nil {
		if e := it.c.release(it.t); err == nil {
			err = e
		}
		it.t = nil
	}
	return err
}
