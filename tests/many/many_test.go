package many_test

import (
	"context"
	"errors"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	"github.com/tikv-repair/tikv-repair/tests/many"
)

const (
	tables = 100_000
	// endBytes is what the end of a table may be: footer, metaindex and properties.
	endBytes = 8 << 10
	// together is how many ends are read at a time at least, and openEnds how many at most.
	together = 8
	openEnds = 64
	// openTables is what a rewind may hold open besides: the cache of tables, and what it writes. 1024 is what a shell allows as a rule.
	openTables = 320
)

// watchedFS writes down what is read of which file, and how many files are open.
type watchedFS struct {
	base.FS
	w *watch
}

type watch struct {
	mu      sync.Mutex
	reads   map[string][]span
	opens   map[string]int
	open    int
	maxOpen int

	// first is the number of the first linked table. Reads of such tables wait for one another until there are several.
	first   uint64
	waiting int
	met     chan struct{}
	once    sync.Once
	alone   bool
}

type span struct{ off, n int64 }

func newWatch(first uint64) *watch {
	return &watch{reads: map[string][]span{}, opens: map[string]int{}, first: first, met: make(chan struct{})}
}

func (fs watchedFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, o...)
	if err != nil {
		return nil, err
	}
	w := fs.w
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opens[name]++
	w.open++
	w.maxOpen = max(w.maxOpen, w.open)
	return &watchedFile{File: f, name: name, w: w}, nil
}

type watchedFile struct {
	vfs.File
	name string
	off  int64
	w    *watch
}

func (f *watchedFile) Close() error {
	f.w.mu.Lock()
	f.w.open--
	f.w.mu.Unlock()
	return f.File.Close()
}

func (f *watchedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.w.note(f.name, span{f.off, int64(n)})
	f.off += int64(n)
	return n, err
}

func (f *watchedFile) ReadAt(p []byte, off int64) (int, error) {
	f.w.note(f.name, span{off, int64(len(p))})
	f.w.meet(f.name)
	return f.File.ReadAt(p, off)
}

func (w *watch) note(name string, s span) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads[name] = append(w.reads[name], s)
}

// linked tells whether a file is one of the linked tables.
func (w *watch) linked(name string) bool {
	kind, n, ok := manifest.ParseFileName(path.Base(name))
	return ok && kind == manifest.FileTable && n >= w.first && n < w.first+tables && !strings.Contains(name, "tikv-repair")
}

// meet holds the reads of linked tables back until several are under way.
func (w *watch) meet(name string) {
	if !w.linked(name) {
		return
	}
	w.mu.Lock()
	if w.waiting++; w.waiting == together {
		w.once.Do(func() { close(w.met) })
	}
	w.mu.Unlock()
	select {
	case <-w.met:
	case <-time.After(10 * time.Second):
		w.once.Do(func() {
			w.alone = true
			close(w.met)
		})
	}
}

// check holds that of each linked table only the end has been read, so many times, and the MANIFEST once. With a sample the newest table
// is opened as well: new ones are written like it.
func (w *watch) check(t *testing.T, fs base.FS, times, open int, sample bool) {
	t.Helper()
	seen := 0
	for name, reads := range w.reads {
		st, err := fs.Stat(name)
		if errors.Is(err, os.ErrNotExist) && !w.linked(name) {
			continue // it was staged and has got its name
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case w.linked(name):
			if seen++; sample && path.Base(name) == manifest.TableName(w.first+tables-1) {
				continue
			}
			for _, r := range reads {
				if r.n > endBytes || r.off+r.n != st.Size() {
					t.Fatalf("%d bytes at %d of %s are read, which has %d", r.n, r.off, name, st.Size())
				}
			}
			if len(reads) > times || w.opens[name] > times {
				t.Fatalf("%s: %d reads, opened %d times; want %d", name, len(reads), w.opens[name], times)
			}
		case strings.HasPrefix(name, "/data/db/MANIFEST-"):
			var n int64
			for _, r := range reads {
				n += r.n
			}
			if n != st.Size() || w.opens[name] > 1 {
				t.Errorf("%d bytes of %s are read, which has %d; opened %d times", n, name, st.Size(), w.opens[name])
			}
		}
	}
	if seen != tables {
		t.Errorf("%d linked tables are read, of %d", seen, tables)
	}
	if w.alone {
		t.Error("the ends of tables are read one after the other")
	}
	if w.maxOpen > open {
		t.Errorf("%d files are open at a time", w.maxOpen)
	}
	t.Logf("at most %d files open", w.maxOpen)
}

// Opening a store of 100,000 tables reads its MANIFEST and the end of each table of the write column family, once, many at a time, and
// holds few files open; and so does a rewind, of which the verification looks once more.
func TestOnlyEndsAreRead(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 100,000 tables")
	}
	mem := base.NewMem(fixtures.Mem(t, "single-levels"))
	const dir = "/data"
	ts := mvcc.TS(fixtures.Facts(t, "single-levels").T3)
	if err := many.Link(mem, dir, ts, tables); err != nil {
		t.Fatal(err)
	}
	st, err := manifest.Load(mem, "/data/db")
	if err != nil {
		t.Fatal(err)
	}
	first := st.Number - tables // the MANIFEST has the number behind them

	w := newWatch(first)
	s, err := scan.Open(watchedFS{mem, w}, dir, scan.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if in := s.Inspect(); in.KV.CFs[2].Files < tables || in.Newest <= ts || len(in.Unreadable) > 0 {
		t.Errorf("%+v", in)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.check(t, mem, 1, openEnds, false)

	sp := mvcc.TS(1)
	o := repair.ResetOptions{RewindOptions: repair.RewindOptions{T: ts, SafePoint: &sp, Now: time.Unix(1_800_000_000, 0), Threads: 2}, Force: map[string]bool{}}
	for _, run := range []struct {
		state string
		times int
	}{{repair.StateDone, 2}, {repair.StateUnchanged, 1}} {
		w := newWatch(first)
		res, err := repair.Reset(context.Background(), watchedFS{mem, w}, dir, scan.Options{}, o)
		if err != nil {
			t.Fatal(err)
		}
		if res.State != run.state {
			t.Errorf("%s, want %s", res.State, run.state)
		}
		w.check(t, mem, run.times, openTables, true)
	}
}
