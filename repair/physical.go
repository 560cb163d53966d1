package repair

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/profile"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/scan"
)

// Sink takes the new files of an edit. The staging sink is an edit.Tx; a dry run has one that only counts.
type Sink interface {
	Create(final string) (vfs.File, error)
	// Add registers a complete, synced file that gets the owner and mode of like.
	Add(final, like string) error
	// Staged is where a file lies until it is published; "" when it lies nowhere.
	Staged(final string) string
}

// countingSink runs the same code into nothing.
type countingSink struct{}

func (countingSink) Create(string) (vfs.File, error) { return &nullFile{}, nil }
func (countingSink) Add(string, string) error        { return nil }
func (countingSink) Staged(string) string            { return "" }

// nullFile swallows what is written.
type nullFile struct{ vfs.File }

func (*nullFile) Write(p []byte) (int, error)       { return len(p), nil }
func (*nullFile) Fd() uintptr                       { return vfs.InvalidFd }
func (*nullFile) Sync() error                       { return nil }
func (*nullFile) SyncData() error                   { return nil }
func (*nullFile) Close() error                      { return nil }
func (*nullFile) Preallocate(int64, int64) error    { return nil }
func (*nullFile) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

// Draft is the new version that the physical pass has written into a sink.
type Draft struct {
	Change rocks.Change
	// Rewritten, Dropped and Kept count the live files of before by what became of them.
	Rewritten, Dropped, Kept int
	BytesRead, BytesWritten  int64
	// Outputs are the paths of the new tables, by number.
	Outputs map[uint64]string
	// Verifying is the time that reading the staged tables back took.
	Verifying time.Duration

	checked map[uint64]bool // outputs that have been read back
}

// physicalPass writes the new version: every table of the set that changes, on its level; and per column family one L0 table with
// what the logs held and the records that the effect adds on top. After the edit no log has to be replayed.
func (w *Rewinder) physicalPass(ctx context.Context, sink Sink, e *Effect, extra map[string]*rocks.Run) (*Draft, error) {
	db := w.store.DB
	next, err := db.FreeNumber()
	if err != nil {
		return nil, err
	}
	p := &physical{w: w, sink: sink, ctx: ctx, d: &Draft{Outputs: map[uint64]string{}, checked: map[uint64]bool{}}}
	p.number.Store(next)
	for _, name := range db.Names() {
		if err := p.tables(name); err != nil {
			return nil, err
		}
	}
	seq := db.LastSeq + 1
	for _, name := range db.Names() {
		spool := &rocks.Spool{}
		switch name {
		case scan.CFWrite:
			spool = e.write
		case scan.CFDefault:
			spool = e.deflt
		}
		run := &spool.Run
		if x := extra[name]; x != nil {
			run.Append(x)
		}
		seq = run.Number(seq)
		run.Sort()
		if err := p.fold(name, run); err != nil {
			return nil, err
		}
		if seq, err = p.foldFiles(name, spool.Files, seq); err != nil {
			return nil, err
		}
		if seq, err = p.foldFiles(name, e.locks.files(name), seq); err != nil {
			return nil, err
		}
	}
	if seq > ikey.MaxSeq {
		return nil, &base.Error{Class: base.ErrUnsupported, Op: "number new records", Path: db.Dir, Offset: -1, Reason: "the sequence numbers are used up"}
	}
	p.d.BytesRead = max(p.d.BytesRead, e.bytesRead) // what was read before is not counted twice
	p.d.Change.LastSeq = seq - 1
	p.d.Change.FoldLogs = true
	p.d.Change.NextNumber = p.number.Load()
	p.d.Change.Sort()
	return p.d, nil
}

type physical struct {
	w      *Rewinder
	sink   Sink
	ctx    context.Context
	number atomic.Uint64 // next free file number

	mu sync.Mutex
	d  *Draft
}

// tables rewrites the tables of one family that the rule changes.
func (p *physical) tables(name string) error {
	cf := p.w.store.DB.CF(name)
	ruled := p.w.rule(name) != nil
	set := p.w.set
	if name != scan.CFWrite {
		set = p.w.rawSet
	}
	g, ctx := errgroup.WithContext(p.ctx)
	g.SetLimit(p.w.writers())
	for _, f := range cf.Files() {
		if !ruled || !set[f.Number] {
			p.mu.Lock()
			p.d.Kept++
			p.mu.Unlock()
			continue
		}
		// Numbers are handed out here, not in the goroutine, so that two runs over the same store give the same files.
		number := p.number.Add(1) - 1
		g.Go(func() error { return p.rewrite(ctx, cf, f, number, p.w.rule(name)) })
	}
	return g.Wait()
}

type ruleFunc func(ikey.Key, []byte) (fate, []byte, error)

func (p *physical) rewrite(ctx context.Context, cf *rocks.CF, f rocks.LevelFile, number uint64, rule ruleFunc) error {
	r, done, err := cf.Table(f.FileMeta)
	if err != nil {
		return err
	}
	defer done()
	changed, err := p.mustChange(ctx, cf, f, r, rule)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.d.BytesRead += r.Size()
	if !changed {
		p.d.Kept++
	}
	p.mu.Unlock()
	if !changed {
		if cf.Meta.Name != scan.CFWrite || p.w.changed == nil {
			p.w.progress(int64(f.Size)) // setBytes could not know
		}
		return nil
	}
	// The blocks are counted as they are read; index, filter and the rest go with them.
	defer p.w.progress(int64(f.Size) - dataSize(r))
	o := p.w.tableOptions(cf, profile.Place{Level: f.Level, Old: f.FileMeta}, r)
	o.FileNumber = number
	o.FileCreationTime = uint64(p.w.o.Now.Unix())
	o.Collectors = p.w.collectors(cf.Meta.Name, collectorNames(r.Props().Collectors), r.Props().User)
	dels, err := r.RangeDels()
	if err != nil {
		return err
	}
	meta, err := p.table(number, o, func(out *tableOut) error { return out.filter(ctx, r, p.w.batchRule(cf.Meta.Name, f, rule)) }, dels, r.Path())
	if err != nil {
		return err
	}
	if meta != nil && len(dels) > 0 {
		// The old boundaries cut the tombstones (rocks.TableRangeDels), between two versions of one user key even: no tombstone
		// can be written that ends there.
		meta.Smallest, meta.Largest = f.Smallest, f.Largest
	}
	var now *manifest.FileMeta
	if meta != nil {
		now = rocks.MetaOf(number, *meta, f.FileMeta, p.w.o.Now)
		if err := p.readBack(cf.Meta.Name, rocks.LevelFile{Level: f.Level, FileMeta: now}); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.d.Change.Delete = append(p.d.Change.Delete, rocks.Deleted{CF: cf.Meta.Name, LevelFile: f})
	if meta == nil {
		p.d.Dropped++
		return nil
	}
	p.d.Rewritten++
	p.d.Change.Add = append(p.d.Change.Add, rocks.Added{CF: cf.Meta.Name, Level: f.Level, Meta: now})
	return nil
}

// dataSize is what a walk over the records of a table reads.
func dataSize(r *sst.Reader) int64 {
	var n uint64
	for _, b := range r.BlockBounds() {
		n += b.Size
	}
	return int64(n)
}

// readBack reads a staged table back from the disk, completely: while others are written, so that the disk is not waited for. It must
// keep the rules that a live file must keep, and hold nothing that the rule would change.
func (p *physical) readBack(cf string, f rocks.LevelFile) error {
	final := p.w.store.FS.PathJoin(p.w.store.DB.Dir, manifest.TableName(f.Number))
	path := p.sink.Staged(final)
	if path == "" {
		return nil
	}
	began := time.Now()
	left := &leftover{w: p.w, ctx: p.ctx}
	p.w.expect(int64(f.Size))
	defer p.w.progress(int64(f.Size))
	found := rocks.CheckTable(p.w.store.FS, path, cf, f, left.look)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.d.Verifying += time.Since(began) / time.Duration(p.w.writers())
	p.d.checked[f.Number] = true
	return p.w.stagedError(found)
}

// mustChange tells whether a file of the set has to be rewritten. The logical pass knows it of the write column family.
func (p *physical) mustChange(ctx context.Context, cf *rocks.CF, f rocks.LevelFile, r *sst.Reader, rule ruleFunc) (bool, error) {
	if cf.Meta.Name == scan.CFWrite && p.w.changed != nil {
		return p.w.changed[f.Number], nil
	}
	return p.changes(ctx, r, rule)
}

// changes tells whether the rule changes any record of a table. A table that only lacks trustworthy properties may need nothing.
func (p *physical) changes(ctx context.Context, r *sst.Reader, rule ruleFunc) (bool, error) {
	it := r.NewIter()
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		f, _, err := rule(it.Key(), it.Value())
		if err != nil || f != keep {
			return f != keep, err
		}
		if n++; n&4095 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
	return false, it.Err()
}
