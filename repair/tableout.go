package repair

import (
	"context"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

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
func (t *tableOut) filter(ctx context.Context, r *sst.Reader, rule batchRule) error {
	in := r.NewBatches()
	defer in.Close()
	var f fates
	var told int64
	for in.Next() {
		t.p.w.progress(in.Loaded() - told)
		told = in.Loaded()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		f.reset(in.Len())
		if err := rule(&in.Batch, &f); err != nil {
			return err
		}
		if f.dropped == in.Len() {
			continue
		}
		if t.Writer == nil {
			if err := t.open(); err != nil {
				return err
			}
		}
		if f.dropped+len(f.changed) == 0 && !t.p.w.o.NoBlockCopy {
			if done, err := t.CopyBlock(in); err != nil {
				return err
			} else if done {
				continue
			}
		}
		changed := f.changed
		for i, drop := range f.drop {
			if drop {
				continue
			}
			v := in.Value(i)
			if len(changed) > 0 && changed[0].i == i {
				v, changed = changed[0].value, changed[1:]
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
