package rocks

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

const (
	// manyUnknown is from how many tables on their heads are read before the tables are opened.
	manyUnknown = 64
	headBatch   = 64
)

// Heads gives the properties that Options.HeadProps names, as far as a table has them, by file number: of all live files of the family,
// read in parallel, once. Which files have range tombstones is known afterwards. The result must not be changed.
func (cf *CF) Heads() (map[uint64]map[string]string, error) {
	cf.headsMu.Lock()
	defer cf.headsMu.Unlock()
	if cf.heads != nil {
		return cf.heads, nil
	}
	files := cf.Files()
	heads := make(map[uint64]map[string]string, len(files))
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(4 * runtime.GOMAXPROCS(0)) // the disk is waited for more than the processor
	for len(files) > 0 {
		part := files[:min(headBatch, len(files))]
		files = files[len(part):]
		g.Go(func() error {
			for _, f := range part {
				props, err := cf.head(f.FileMeta)
				if err != nil {
					return err
				}
				mu.Lock()
				heads[f.Number] = props
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	cf.heads = heads
	return heads, nil
}

func (cf *CF) head(f *manifest.FileMeta) (map[string]string, error) {
	db := cf.db
	o := sst.ReaderOptions{CF: cf.Meta.Name, Size: int64(f.Size), LargestSeq: f.LargestSeq}
	path := db.FS.PathJoin(db.Dir, manifest.TableName(f.Number))
	if db.staged {
		path = db.tables.path(f.Number)
	}
	h, err := sst.ReadHead(db.FS, path, o, db.headSet)
	if errors.Is(err, base.ErrIO) && errors.Is(err, os.ErrNotExist) {
		// Under its old name, or not there: the usual way finds out.
		h, err = sst.ReadHead(db.FS, db.tables.path(f.Number), o, db.headSet)
	}
	if err == nil && !h.RangeDels {
		cf.rangeDels.Store(f.Number, []ikey.RangeDel(nil))
	}
	return h.Props, err
}
