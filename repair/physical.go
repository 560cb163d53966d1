package repair

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
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
		run := &rocks.Run{}
		switch name {
		case scan.CFWrite:
			run = e.write
		case scan.CFDefault:
			run = e.deflt
		}
		if x := extra[name]; x != nil {
			run.Append(x)
		}
		seq = run.Number(seq)
		run.Sort()
		if err := p.fold(name, run); err != nil {
			return nil, err
		}
	}
	if seq > ikey.MaxSeq {
		return nil, &base.Error{Class: base.ErrUnsupported, Op: "number new records", Path: db.Dir, Offset: -1, Reason: "the sequence numbers are used up"}
	}
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
		p.w.expect(int64(f.Size))
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
	defer p.w.progress(r.Size())
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
		return nil
	}
	o := sst.OptionsLike(r)
	o.FileNumber = number
	o.FileCreationTime = uint64(p.w.o.Now.Unix())
	o.Collectors = p.w.collectors(cf.Meta.Name, collectorNames(r.Props().Collectors), r.Props().User)
	dels, err := r.RangeDels()
	if err != nil {
		return err
	}
	meta, err := p.table(number, o, func(out *tableOut) error { return out.filter(ctx, r, rule) }, dels, r.Path())
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

// readBack reads a staged table back from the disk, completely: while others are written, so that the disk is not waited for. It must
// keep the rules that a live file must keep, and hold nothing that the rule would change.
func (p *physical) readBack(cf string, f rocks.LevelFile) error {
	final := p.w.store.FS.PathJoin(p.w.store.DB.Dir, manifest.TableName(f.Number))
	path := p.sink.Staged(final)
	if path == "" {
		return nil
	}
	began := time.Now()
	left := &leftover{w: p.w}
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

// tableOut is a table that is made with its first record.
type tableOut struct {
	p     *physical
	o     sst.WriterOptions
	final string
	file  vfs.File
	*sst.Writer
}

func (t *tableOut) open() (err error) {
	if t.file, err = t.p.sink.Create(t.final); err == nil {
		t.file = base.WriteDirect(t.file)
		t.Writer = sst.NewWriter(t.file, t.o)
	}
	return err
}

// filter takes over the records of a table that the rule leaves.
func (t *tableOut) filter(ctx context.Context, r *sst.Reader, rule ruleFunc) error {
	in := r.NewBatches()
	defer in.Close()
	type fated struct {
		fate  fate
		value []byte
	}
	var fates []fated
	for in.Next() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fates = fates[:0]
		kept, changed := 0, 0
		for i := range in.Len() {
			f, v, err := rule(in.Key(i), in.Value(i))
			if err != nil {
				return err
			}
			switch f {
			case keep:
				kept++
			case change:
				changed++
			}
			fates = append(fates, fated{f, v})
		}
		if kept+changed == 0 {
			continue
		}
		if t.Writer == nil {
			if err := t.open(); err != nil {
				return err
			}
		}
		if kept == in.Len() && !t.p.w.o.NoBlockCopy {
			if done, err := t.CopyBlock(in); done || err != nil {
				if err != nil {
					return err
				}
				continue
			}
		}
		for i, f := range fates {
			v := f.value
			switch f.fate {
			case drop:
				continue
			case keep:
				v = in.Value(i)
			}
			if err := t.Add(in.Key(i), v); err != nil {
				return err
			}
		}
	}
	return in.Err()
}

// merge takes over all records of an iterator.
func (t *tableOut) merge(ctx context.Context, it ikey.Iter) error {
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if t.Writer == nil {
			if err := t.open(); err != nil {
				return err
			}
		}
		if err := t.Add(it.Key(), it.Value()); err != nil {
			return err
		}
		if n++; n&4095 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return it.Err()
}

// table writes one table, which fill makes, and gives nil when nothing is left for it.
func (p *physical) table(number uint64, o sst.WriterOptions, fill func(*tableOut) error, dels []ikey.RangeDel, like string) (_ *sst.Meta, err error) {
	out := &tableOut{p: p, o: o, final: p.w.store.FS.PathJoin(p.w.store.DB.Dir, manifest.TableName(number))}
	defer func() {
		if out.file != nil && err != nil {
			out.file.Close()
		}
	}()
	if err := fill(out); err != nil {
		return nil, err
	}
	if out.Writer == nil && len(dels) == 0 {
		return nil, nil
	}
	if out.Writer == nil {
		if err := out.open(); err != nil {
			return nil, err
		}
	}
	for _, d := range dels {
		if err := out.AddRangeDel(d); err != nil {
			return nil, err
		}
	}
	meta, err := out.Finish()
	if err != nil {
		return nil, err
	}
	if err = out.file.Sync(); err != nil {
		return nil, base.IO("sync", out.final, err)
	}
	err = out.file.Close()
	out.file = nil
	if err != nil {
		return nil, base.IO("close", out.final, err)
	}
	if like == "" {
		like = p.w.store.FS.PathJoin(p.w.store.DB.Dir, "CURRENT")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.sink.Add(out.final, like); err != nil {
		return nil, err
	}
	p.d.BytesWritten += int64(meta.Size)
	p.d.Outputs[number] = out.final
	return &meta, nil
}

// fold writes the L0 table of one family: the contents of the logs after the rule, and the run of new records on top.
func (p *physical) fold(name string, run *rocks.Run) error {
	cf := p.w.store.DB.CF(name)
	if cf.Log().Empty() && run.Empty() {
		return nil
	}
	p.w.expect(cf.Log().Bytes() + run.Bytes())
	defer p.w.progress(cf.Log().Bytes() + run.Bytes())
	// Dropped log records must not shadow anything, so the rule comes before the choice of the newest.
	var it ikey.Iter = rocks.Merge(run.Iter(), &ruled{Iter: cf.Log().Iter(), rule: p.w.rule(name)})
	it = rocks.Newest(it)
	number := p.number.Add(1) - 1
	defer it.Close()
	meta, err := p.table(number, p.w.foldOptions(cf, number), func(out *tableOut) error { return out.merge(p.ctx, it) }, cf.Log().RangeDels(), "")
	if err != nil || meta == nil {
		return err
	}
	now := rocks.MetaOf(number, *meta, nil, p.w.o.Now)
	p.d.Change.Add = append(p.d.Change.Add, rocks.Added{CF: name, Level: 0, Meta: now})
	return p.readBack(name, rocks.LevelFile{FileMeta: now})
}

// ruled is an iterator under a rule.
type ruled struct {
	ikey.Iter
	rule    ruleFunc
	value   []byte
	changed bool
	err     error
}

func (r *ruled) First() bool             { return r.settle(r.Iter.First()) }
func (r *ruled) SeekGE(user []byte) bool { return r.settle(r.Iter.SeekGE(user)) }
func (r *ruled) Next() bool              { return r.settle(r.Iter.Next()) }

func (r *ruled) settle(ok bool) bool {
	for ; ok && r.rule != nil; ok = r.Iter.Next() {
		f, v, err := r.rule(r.Iter.Key(), r.Iter.Value())
		if err != nil {
			r.err = err
			return false
		}
		if r.changed, r.value = f == change, v; f != drop {
			return true
		}
	}
	return ok
}

func (r *ruled) Value() []byte {
	if r.changed {
		return r.value
	}
	return r.Iter.Value()
}

func (r *ruled) Err() error {
	if r.err != nil {
		return r.err
	}
	return r.Iter.Err()
}

// foldOptions is the profile of an L0 table as TiKV flushes it: not compressed, with the family's filter.
func (w *Rewinder) foldOptions(cf *rocks.CF, number uint64) sst.WriterOptions {
	name := cf.Meta.Name
	now := uint64(w.o.Now.Unix())
	o := sst.WriterOptions{
		CFID: cf.Meta.ID, CFName: name, FileNumber: number, Filter: sst.FilterWholeKey,
		CreationTime: now, OldestKeyTime: now, FileCreationTime: now,
		BlockSize: 32 << 10,
	}
	switch name {
	case scan.CFWrite:
		// tikv/tikv src/config/mod.rs WriteCfConfig: whole_key_filtering off, prefix = key without its timestamp.
		o.Filter, o.PrefixExtractor = sst.FilterPrefix, "FixedSuffixSliceTransform"
	case scan.CFLock, scan.CFRaft:
		o.BlockSize, o.PrefixExtractor = 16<<10, "NoopSliceTransform"
	}
	o.Collectors = w.collectors(name, w.collectorsOf(cf), nil)
	return o
}

// collectorsOf names the collectors of a family: those of its newest table, or what TiKV configures (src/config/mod.rs).
func (w *Rewinder) collectorsOf(cf *rocks.CF) []string {
	var newest *manifest.FileMeta
	for _, f := range cf.Files() {
		if newest == nil || f.Number > newest.Number {
			newest = f.FileMeta
		}
	}
	if newest != nil {
		if r, done, err := cf.Table(newest); err == nil {
			names := collectorNames(r.Props().Collectors)
			done()
			return names
		}
	}
	var names []string
	switch cf.Meta.Name {
	case scan.CFWrite:
		names = []string{mvcc.MVCCCollectorName, mvcc.RangeCollectorName}
	case scan.CFDefault:
		names = []string{mvcc.RangeCollectorName}
		if w.rawV2 {
			names = append(names, mvcc.RawMVCCCollectorName)
		}
	case scan.CFLock:
		names = []string{mvcc.RangeCollectorName}
	}
	if w.titan {
		names = append(names, sst.NewBlobCollector().Name())
	}
	return names
}

// collectors makes the collectors of the given names, so that a table that we write carries what TiKV would have put there. Names that
// are not known are left out: TiKV takes a missing property as "not known", a wrong one as truth.
func (w *Rewinder) collectors(cf string, names []string, old map[string]string) []sst.Collector {
	c := engine.CFConfig{PropSizeIndexDistance: engine.DefaultPropSizeIndexDistance, PropKeysIndexDistance: engine.DefaultPropKeysIndexDistance}
	if cfg := w.store.Layout.Config; cfg != nil {
		if have, ok := cfg.KV.CFs[cf]; ok {
			c = have
		}
	}
	stale := w.staleTS
	if old != nil {
		_, stale = old["tikv.newest_stale_version_ts"]
	}
	var out []sst.Collector
	for _, n := range names {
		switch n {
		case mvcc.MVCCCollectorName:
			out = append(out, mvcc.NewMVCCCollector(mvcc.MVCCOptions{StaleTS: stale}))
		case mvcc.RangeCollectorName:
			out = append(out, mvcc.NewRangeCollector(mvcc.RangeOptions{SizeDistance: c.PropSizeIndexDistance, KeysDistance: c.PropKeysIndexDistance}))
		case mvcc.RawMVCCCollectorName:
			out = append(out, mvcc.NewRawMVCCCollector(mvcc.RawMVCCOptions{MVCCOptions: mvcc.MVCCOptions{StaleTS: stale}, Now: uint64(w.o.Now.Unix())}))
		case mvcc.TTLCollectorName:
			out = append(out, mvcc.NewTTLCollector())
		case sst.NewBlobCollector().Name():
			out = append(out, sst.NewBlobCollector())
		}
	}
	return out
}
