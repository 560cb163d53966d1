package repair

import (
	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/profile"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// fold writes the L0 tables of one family: the contents of the logs after the rule, and the run of new records on top. Logs that do not
// fit into memory become several, as flushes would have made them.
func (p *physical) fold(name string, run *rocks.Run) error {
	cf := p.w.store.DB.CF(name)
	if cf.Log().Empty() && run.Empty() {
		return nil
	}
	p.w.expect(cf.Log().Bytes() + run.Bytes())
	defer p.w.progress(cf.Log().Bytes() + run.Bytes())
	chunks := cf.Log().Chunks()
	for i, c := range chunks {
		// Dropped log records must not shadow anything, so the rule comes before the choice of the newest.
		var it ikey.Iter = &ruled{Iter: c.Iter(), rule: p.w.rule(name)}
		if i == len(chunks)-1 {
			it = rocks.Merge(run.Iter(), it)
		}
		if err := p.level0(cf, rocks.Newest(it), c.RangeDels()); err != nil {
			return err
		}
	}
	return nil
}

// level0 writes one L0 table and closes the iterator.
func (p *physical) level0(cf *rocks.CF, it ikey.Iter, dels []ikey.RangeDel) error {
	defer it.Close()
	name, number := cf.Meta.Name, p.number.Add(1)-1
	meta, err := p.table(number, p.w.foldOptions(cf, number), func(out *tableOut) error { return out.merge(p.ctx, it) }, dels, "")
	if err != nil || meta == nil {
		return err
	}
	now := rocks.MetaOf(number, *meta, nil, p.w.o.Now)
	p.d.Change.Add = append(p.d.Change.Add, rocks.Added{CF: name, Level: 0, Meta: now})
	return p.readBack(name, rocks.LevelFile{FileMeta: now})
}

// foldFiles makes L0 tables of the new records that did not fit into memory. The records of a table share one sequence number: each is
// the only new one of its key. Returned is the next free sequence number.
func (p *physical) foldFiles(name string, files []rocks.SpoolFile, seq uint64) (uint64, error) {
	cf := p.w.store.DB.CF(name)
	// A table's filter is made of some bytes a key that are held until its end: half of what is not the reader's.
	o := p.w.tableOptions(p.w.store.DB.CF(name), profile.Place{}, nil)
	limit := int(max(p.w.spill.Limit/int64(2*max(o.FilterBytesPerKey(), 4)), 1<<18))
	for len(files) > 0 {
		n, records := 0, 0
		for n < len(files) && (n == 0 || records+files[n].Records <= limit) {
			records += files[n].Records
			n++
		}
		if err := p.level0(cf, &concat{fs: p.w.store.FS, files: files[:n], seq: seq}, nil); err != nil {
			return 0, err
		}
		files = files[n:]
		seq++
	}
	return seq, nil
}

// concat walks files of a spool one after the other.
type concat struct {
	ikey.Iter
	fs    base.FS
	files []rocks.SpoolFile
	seq   uint64
	err   error
}

func (c *concat) First() bool { return c.settle(false) }
func (c *concat) Next() bool  { return c.settle(c.Iter.Next()) }

// settle opens the next file that has a record.
func (c *concat) settle(ok bool) bool {
	for !ok {
		if c.err = c.Close(); c.err != nil || len(c.files) == 0 {
			return false
		}
		if c.Iter, c.err = rocks.SpoolIter(c.fs, c.files[0].Path, c.seq); c.err != nil {
			c.Iter = nil
			return false
		}
		c.files = c.files[1:]
		ok = c.Iter.First()
	}
	return true
}

func (c *concat) Err() error { return c.err }

func (c *concat) Close() error {
	if c.Iter == nil {
		return nil
	}
	err := c.Iter.Err()
	if e := c.Iter.Close(); err == nil {
		err = e
	}
	c.Iter = nil
	return err
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

// foldOptions are those of an L0 table as TiKV flushes it.
func (w *Rewinder) foldOptions(cf *rocks.CF, number uint64) sst.WriterOptions {
	now := uint64(w.o.Now.Unix())
	o := w.tableOptions(cf, profile.Place{}, nil)
	o.FileNumber, o.CreationTime, o.OldestKeyTime, o.FileCreationTime = number, now, now, now
	o.Collectors = w.collectors(cf.Meta.Name, w.collectorsOf(cf), nil)
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
