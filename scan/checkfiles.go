package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
)

// files looks at every table of the key-value database and of a raft RocksDB. Those of the data column families are read for the MVCC
// part at the same time; what cannot be judged on that way is read once more on its own.
func (c *checker) files(ctx context.Context) error {
	for _, db := range []*rocks.DB{c.s.DB, c.s.raftDB} {
		if db == nil {
			continue
		}
		c.rules(db)
		if c.o.Quick {
			continue
		}
		read := map[uint64]bool{}
		if db == c.s.DB && !c.o.apart {
			if err := c.tables(ctx, db, func(cf string, _ uint64) bool { return !isData(cf) }); err != nil {
				return err
			}
			var err error
			if read, err = c.join(ctx); err != nil {
				return err
			}
			c.res.readOnce = len(read)
		}
		err := c.tables(ctx, db, func(cf string, n uint64) bool { return (db != c.s.DB || c.o.apart || isData(cf)) && !read[n] })
		if err != nil {
			return err
		}
		c.badRanges(db)
	}
	return nil
}

// isData tells whether a column family of the key-value database holds data of regions.
func isData(cf string) bool { return cf == CFWrite || cf == CFDefault || cf == CFLock }

// rules tests the rules of a version.
func (c *checker) rules(db *rocks.DB) {
	for _, f := range db.SelfCheckWith(rocks.SelfCheckOptions{Threads: c.o.Threads}) {
		switch {
		case f.Err == nil:
			c.add(&plan.VersionRule{Store: c.store(), Rule: f.Rule, Path: f.Path, CF: f.CF, Reason: f.Reason})
		case f.Rule == 6: // a directory that cannot be listed
			c.fail("database directory", f.Err)
		case !c.known(f.Err):
			c.damaged(&plan.DamagedFile{Store: c.store(), Path: f.Path, CF: f.CF, Reason: reason(f.Err)})
		}
	}
	for _, name := range db.Names() {
		for _, f := range db.CF(name).Files() {
			c.res.Counts.Files++
			if !c.o.Quick {
				c.res.Counts.Bytes += int64(f.Size)
			}
		}
	}
}

// tables reads the chosen tables completely, in parallel.
func (c *checker) tables(ctx context.Context, db *rocks.DB, chosen func(cf string, number uint64) bool) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.o.Threads)
	type task struct {
		cf *rocks.CF
		f  rocks.LevelFile
	}
	var tasks []task
	for _, name := range db.Names() {
		cf := db.CF(name)
		for _, f := range cf.Files() {
			if chosen(name, f.Number) {
				tasks = append(tasks, task{cf, f})
				c.o.Meter.Total.Add(int64(f.Size))
			}
		}
	}
	for _, t := range tasks {
		g.Go(func() error {
			defer c.o.Meter.Done.Add(int64(t.f.Size))
			return c.table(ctx, t.cf, t.f)
		})
	}
	return g.Wait()
}

// table reads one table: every block's checksum, the order of records, the boundaries and sequences that the MANIFEST gives, the
// timestamps that the properties give.
func (c *checker) table(ctx context.Context, cf *rocks.CF, f rocks.LevelFile) error {
	r, done, err := cf.Table(f.FileMeta)
	if err != nil {
		if c.known(err) || c.knownPath(c.s.tablePath(cf, f)) {
			return interrupted(ctx)
		}
		c.damaged(&plan.DamagedFile{Store: c.store(), Path: c.s.tablePath(cf, f), CF: cf.Meta.Name, Reason: reason(err)})
		return nil
	}
	defer done()
	bad := func(err error) {
		c.damaged(&plan.DamagedFile{Store: c.store(), Path: r.Path(), CF: cf.Meta.Name, Reason: reason(err)})
	}
	// Those of the data blocks are verified by the walk, which reads every block whatever it finds.
	if err := r.VerifyMetaChecksums(); err != nil {
		bad(err)
		return nil
	}
	t := tableCheck{c: c, cf: cf.Meta.Name, f: f, path: r.Path()}
	err = t.walk(ctx, r)
	if isInterrupted(err) {
		return err
	}
	if err != nil {
		bad(err)
	}
	return nil
}

func (c *checker) knownPath(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paths[path] != nil
}

// tablePath is where a table of either database lies.
func (s *Store) tablePath(cf *rocks.CF, f rocks.LevelFile) string {
	for _, db := range []*rocks.DB{s.DB, s.raftDB} {
		if db != nil && db.CF(cf.Meta.Name) == cf {
			return db.TablePath(f.Number)
		}
	}
	return fmt.Sprintf("%06d.sst", f.Number)
}

// tableCheck compares the records of one table with what the MANIFEST and its properties say.
type tableCheck struct {
	c    *checker
	cf   string
	f    rocks.LevelFile
	path string

	min, max mvcc.TS // bounds of the properties; bounded: they hold for every record
	bounded  bool
	row      []byte // prefix of the last transactional key
}

func (t *tableCheck) rule(rule int, format string, args ...any) {
	t.c.add(&plan.VersionRule{Store: t.c.store(), Rule: rule, Path: t.path, CF: t.cf, Reason: fmt.Sprintf(format, args...)})
}

// walk reads all blocks. The first broken rule is enough: one finding a file.
func (t *tableCheck) walk(ctx context.Context, r *sst.Reader) error {
	if t.cf == CFWrite {
		t.min, t.max, t.bounded = mvcc.PropTS(r.Props().All, r.Props().NumRangeDels)
	}
	dels, err := r.RangeDels()
	if err != nil {
		return err
	}
	for _, d := range dels {
		if d.Seq < t.f.SmallestSeq || d.Seq > t.f.LargestSeq {
			t.rule(3, "range tombstone sequence %d is outside [%d, %d]", d.Seq, t.f.SmallestSeq, t.f.LargestSeq)
			return nil
		}
	}
	in := r.NewBatches()
	defer in.Close()
	var last ikey.Key // of the batch before
	n, good := uint64(0), true
	for in.Next() {
		if err := interrupted(ctx); err != nil {
			return err
		}
		if good && n == 0 && keyBefore(in.Key(0), t.f.Smallest) {
			t.rule(3, "first record %s is below the boundary %s", in.Key(0), t.f.Smallest)
			good = false
		}
		for i := 0; good && i < in.Len(); i++ {
			good = t.record(in.Key(i))
		}
		k := in.Key(in.Len() - 1)
		last = ikey.Key{User: append(last.User[:0], k.User...), Seq: k.Seq, Kind: k.Kind}
		n += uint64(in.Len())
	}
	if err := in.Err(); err != nil || !good {
		return err
	}
	if n > 0 && keyBefore(t.f.Largest, last) {
		t.rule(3, "last record %s is above the boundary %s", last, t.f.Largest)
	}
	if want := r.Props().NumEntries; want != 0 && want != n+uint64(len(dels)) {
		t.rule(3, "it holds %d records, its properties say %d", n+uint64(len(dels)), want)
	}
	return nil
}

// record looks at one record; false: a finding was made.
func (t *tableCheck) record(k ikey.Key) bool {
	if k.Seq < t.f.SmallestSeq || k.Seq > t.f.LargestSeq {
		t.rule(3, "sequence of %s is outside [%d, %d]", k, t.f.SmallestSeq, t.f.LargestSeq)
		return false
	}
	if !t.bounded {
		return true
	}
	if n := len(k.User) - 8; n <= 0 || n != len(t.row) || !bytes.Equal(k.User[:n], t.row) {
		prefix, _, ok := mvcc.SplitKey(k.User)
		if !ok {
			return true
		}
		t.row = append(t.row[:0], prefix...)
	}
	if ts := mvcc.KeyTS(k.User); ts < t.min || ts > t.max {
		t.c.add(&plan.WrongProperties{Store: t.c.store(), Path: t.path, MinTS: t.min, MaxTS: t.max, Key: upperHex(k.User), Commit: ts})
		t.bounded = false // the rest of the file is still of interest
	}
	return true
}

// keyBefore compares by user key and sequence only: Titan turns a Put into a blob index below the flush that made the boundary.
func keyBefore(a, b ikey.Key) bool {
	a.Kind, b.Kind = 0, 0
	return ikey.Compare(a, b) < 0
}

// badRanges remembers which keys of the data column families lie in damaged tables: what is missing there is no finding of its
// own, and what depends on it cannot be judged. The findings get the regions that are concerned.
func (c *checker) badRanges(db *rocks.DB) {
	if db != c.s.DB {
		return
	}
	for _, name := range []string{CFWrite, CFLock, CFDefault} {
		cf := db.CF(name)
		for _, f := range cf.Files() {
			if c.paths[db.TablePath(f.Number)] != nil {
				c.bad = append(c.bad, span{keyPrefix(f.Smallest.User), pastVersions(f.Largest.User)})
			}
		}
	}
}

// keyPrefix is the first database key of any column family that belongs to the user key of a database key.
func keyPrefix(key []byte) []byte {
	if p, _, ok := mvcc.SplitKey(key); ok {
		return bytes.Clone(p)
	}
	return bytes.Clone(key)
}

// pastVersions is above every version of the user key of a database key, and not above any other user key.
func pastVersions(key []byte) []byte {
	if p, _, ok := mvcc.SplitKey(key); ok {
		key = p
	}
	return append(bytes.Clone(key), 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0)
}

// namedRegions is how many regions the finding of a damaged table names.
const namedRegions = 8

// nameRegions adds the live regions that have data in damaged tables to their findings.
func (c *checker) nameRegions() {
	db := c.s.DB
	for _, name := range []string{CFWrite, CFLock, CFDefault} {
		for _, f := range db.CF(name).Files() {
			p := c.paths[db.TablePath(f.Number)]
			if p == nil {
				continue
			}
			for _, r := range c.s.Regions {
				if !r.Live() {
					continue
				}
				if lower, upper := r.Bounds(); bytes.Compare(f.Smallest.User, upper) < 0 && bytes.Compare(f.Largest.User, lower) >= 0 {
					if len(p.Regions) < namedRegions {
						p.Regions = append(p.Regions, r.ID)
					} else {
						p.More++
					}
				}
			}
		}
	}
}

var errSeen = errors.New("seen")

// blobFiles opens every live blob file of Titan: header, footer, size. Their records are looked at where a visible record points
// to them; what no record points to is garbage.
func (c *checker) blobFiles(ctx context.Context) error {
	if c.s.Titan == nil {
		return nil
	}
	for _, f := range c.s.Titan.Manifest().Sorted() {
		if err := interrupted(ctx); err != nil {
			return err
		}
		c.res.Counts.BlobFiles++
		err := c.s.Titan.Walk(f.Number, func(_, _ int64, _, _ []byte) error { return errSeen })
		if err == nil || errors.Is(err, errSeen) || errors.Is(err, base.ErrUnsupported) || inRecord(err, f.Size) {
			continue
		}
		c.damaged(&plan.DamagedFile{Store: c.store(), Path: c.s.Titan.Path(f.Number), Reason: reason(err)})
	}
	return nil
}

// inRecord tells whether an error of walking a blob file is about its first record, and not about header, footer or the file.
func inRecord(err error, size uint64) bool {
	const longestHeader, footer = 20, 32
	var e *base.Error
	return errors.As(err, &e) && errors.Is(err, base.ErrCorrupt) && e.Offset >= longestHeader && e.Offset+footer < int64(size)
}
