package rocks

import (
	"errors"
	"os"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

const (
	// manyUnknown is from how many tables on their heads are read before the tables are opened.
	manyUnknown = 64
	headBatch   = 64
	// headReaders is how many heads are read at a time, and how many descriptors that takes: the disk is waited for more than the processor.
	headReaders = 32
)

// Bound is what Options.Bound makes of the properties of a table.
type Bound struct {
	Min, Max uint64
	Trust    bool
}

// Heads is what the ends of all live tables of a family say.
type Heads struct {
	bounds map[uint64]Bound
	// dels are the files with range tombstones.
	dels []*manifest.FileMeta
}

// Of gives the bound of a file, by number; that of a file that is not live is zero.
func (h *Heads) Of(number uint64) Bound { return h.bounds[number] }

// Seen tells whether Heads has read the end of this file, so that it is there and has the size that the MANIFEST says.
func (cf *CF) Seen(f LevelFile) bool {
	if cf == nil {
		return false
	}
	h := cf.heads.Load()
	if h == nil {
		return false
	}
	_, ok := h.bounds[f.Number]
	return ok
}

// Heads reads the ends of all live tables of the family, in parallel, once.
func (cf *CF) Heads() (*Heads, error) {
	cf.headsMu.Lock()
	defer cf.headsMu.Unlock()
	if h := cf.heads.Load(); h != nil {
		return h, nil
	}
	files := cf.Files()
	bounds := make([]Bound, len(files))
	dels := make([]bool, len(files))
	ph := base.Begin(cf.db.FS, "reading the properties of family "+cf.Meta.Name).Items(len(files), "tables")
	defer ph.End()
	var next atomic.Int64
	var g errgroup.Group
	for range min(headReaders, (len(files)+headBatch-1)/headBatch) {
		g.Go(func() error {
			in := newHeads(cf)
			for {
				end := next.Add(headBatch)
				for i := int(end - headBatch); i < min(int(end), len(files)); i++ {
					head, err := in.read(files[i].FileMeta)
					if err == nil {
						err = ph.Did(1)
					}
					if err != nil {
						next.Store(int64(len(files))) // the others need not go on
						return err
					}
					dels[i] = head.RangeDels
					if cf.db.bound != nil {
						bounds[i] = cf.db.bound(head.Values)
					}
				}
				if int(end) >= len(files) {
					return nil
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	h := &Heads{bounds: make(map[uint64]Bound, len(files))}
	for i, f := range files {
		h.bounds[f.Number] = bounds[i]
		if dels[i] {
			h.dels = append(h.dels, f.FileMeta)
		}
	}
	cf.heads.Store(h)
	return h, nil
}

// headsReader reads heads one after the other.
type headsReader struct {
	cf  *CF
	in  *sst.HeadReader
	dir string // with the separator
}

func newHeads(cf *CF) *headsReader {
	db := cf.db
	dir, _ := strings.CutSuffix(db.FS.PathJoin(db.Dir, "x"), "x")
	return &headsReader{cf: cf, in: sst.NewHeadReader(db.FS, db.headProps), dir: dir}
}

func (r *headsReader) read(f *manifest.FileMeta) (*sst.Head, error) {
	db := r.cf.db
	o := sst.ReaderOptions{CF: r.cf.Meta.Name, Size: int64(f.Size), LargestSeq: f.LargestSeq}
	path := r.dir + manifest.TableName(f.Number)
	if db.staged != nil {
		path = db.usualPath(f.Number)
	}
	h, err := r.in.Read(path, o)
	if errors.Is(err, base.ErrIO) && errors.Is(err, os.ErrNotExist) {
		// Under its old name, or not there: the usual way finds out.
		h, err = r.in.Read(db.tables.path(f.Number), o)
	}
	return h, err
}
