package scan

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/plan"
)

// Verified is what a check of the checksums has read. Logs and MANIFESTs are no part of it: they were read when the store was opened,
// which verifies theirs.
type Verified struct {
	Files   int     `json:"files"` // tables and blob files
	Bytes   int64   `json:"bytes"` // of them, without those that could not be read to their end
	Seconds float64 `json:"seconds"`
}

// checksums verifies every block of every table (data, index, filter, properties, range tombstones, metaindex), every record of every blob
// file and every block of entries of raft-engine, in parallel, one large read behind the other. Each file ends with its first damage.
func (c *checker) checksums(ctx context.Context) error {
	began := time.Now()
	var read atomic.Int64
	step := func(n int) error {
		read.Add(int64(n))
		c.o.Meter.Done.Add(int64(n))
		return interrupted(ctx)
	}
	type task struct {
		size int64
		run  func() error
	}
	var tasks []task
	v := &Verified{}
	for _, db := range []*rocks.DB{c.s.DB, c.s.raftDB} {
		if db == nil {
			continue
		}
		for _, name := range db.Names() {
			cf := db.CF(name)
			for _, f := range cf.Files() {
				tasks = append(tasks, task{int64(f.Size), func() error { return c.tableChecksums(cf, f, step) }})
			}
		}
	}
	c.res.Counts.Files = len(tasks)
	if t := c.s.Titan; t != nil {
		for _, f := range t.Manifest().Sorted() {
			tasks = append(tasks, task{int64(f.Size), func() error { return c.blobChecksums(f.Number, step) }})
			c.res.Counts.BlobFiles++
		}
	}
	if e, ok := c.s.Raft.(*raftlog.Engine); ok {
		tasks = append(tasks, task{1 << 62, func() error { return c.entryChecksums(ctx, e) }})
	}
	for _, t := range tasks {
		if t.size < 1<<62 {
			c.o.Meter.Total.Add(t.size)
			v.Files++
		}
	}
	// The largest first: nothing long is left for the end.
	slices.SortStableFunc(tasks, func(a, b task) int { return cmp.Compare(b.size, a.size) })
	g := errgroup.Group{}
	g.SetLimit(c.o.Threads)
	for _, t := range tasks {
		g.Go(t.run)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	v.Bytes, v.Seconds = read.Load(), time.Since(began).Seconds()
	c.res.Counts.Bytes, c.res.Verified = v.Bytes, v
	c.skip("regions, order and meaning of the records, decoding of raft log entries, snapshots and uploaded tables: left out by a check of the checksums")
	return nil
}

func (c *checker) tableChecksums(cf *rocks.CF, f rocks.LevelFile, step func(n int) error) error {
	r, done, err := cf.Table(f.FileMeta)
	if err == nil {
		err = errors.Join(r.VerifySteps(step), done())
	}
	if err == nil || isInterrupted(err) {
		return err
	}
	c.damaged(&plan.DamagedFile{Store: c.store(), Path: c.s.tablePath(cf, f), CF: cf.Meta.Name, Reason: reason(err)})
	return nil
}

func (c *checker) blobChecksums(number uint64, step func(n int) error) error {
	err := c.s.Titan.Walk(number, func(_, size int64, _, _ []byte) error { return step(int(size)) })
	if err == nil || isInterrupted(err) {
		return err
	}
	if errors.Is(err, base.ErrUnsupported) {
		c.skip(c.s.Titan.Path(number) + ": " + reason(err))
		return nil
	}
	c.damaged(&plan.DamagedFile{Store: c.store(), Path: c.s.Titan.Path(number), Reason: reason(err)})
	return nil
}

func (c *checker) entryChecksums(ctx context.Context, e *raftlog.Engine) error {
	err := e.VerifyBlocks(nil, func(_ uint64, err error) error {
		c.raftDamage(err)
		return interrupted(ctx)
	})
	if err == nil || isInterrupted(err) {
		return err
	}
	c.fail("raft store", err)
	return nil
}
