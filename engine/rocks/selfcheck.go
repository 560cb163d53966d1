package rocks

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// Finding is one broken rule of SelfCheck.
type Finding struct {
	Rule   int // of rocksdb.md 6.4
	CF     string
	Path   string
	Reason string
	Err    error
}

func (f Finding) String() string {
	s := fmt.Sprintf("rule %d", f.Rule)
	if f.Path != "" {
		s += ", " + f.Path
	}
	if f.CF != "" {
		s += ", column family " + f.CF
	}
	if f.Reason != "" {
		s += ": " + f.Reason
	}
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	return s
}

// SelfCheck tests the seven rules that a version must keep and that TiKV's RocksDB does not check itself (it runs without
// force_consistency_checks). Files for which deep is true are read completely: every checksum, order, boundaries, sequences.
//
//	1 every live file exists with its exact size, its footer and properties are good, numbers are unique over all families
//	2 levels >= 1 are sorted and disjoint
//	3 boundaries cover every record, sequence bounds every record and tombstone
//	4 for no key does the order of L0 by epoch contradict the order by sequence
//	5 every sequence <= LastSequence < 2^56-1
//	6 NextFileNumber > every number in use
//	7 LogNumbers <= NextFileNumber
func (db *DB) SelfCheck(deep func(cf string, f LevelFile) bool) []Finding {
	return db.SelfCheckWith(SelfCheckOptions{Deep: deep})
}

// SelfCheckOptions of SelfCheckWith.
type SelfCheckOptions struct {
	// Deep chooses the files that are read completely.
	Deep func(cf string, f LevelFile) bool
	// Skip chooses files of which only presence and size are looked at; nil opens every file.
	Skip func(cf string, f LevelFile) bool
	// Seen is another view of the directory, or nil: what it has seen of the files that are skipped need not be looked at again.
	Seen *DB
	// Batch is shown every batch of the files that are read completely, from several goroutines, with the number of the batch in its
	// file; nil is fine. An error of it ends the walk over that file and becomes a finding.
	Batch func(cf string, f LevelFile, n int, b *sst.Batches) error
	// Threads bounds the files that are read at a time; 0 is 1.
	Threads int
}

// SelfCheckWith is SelfCheck with a say in what is read.
func (db *DB) SelfCheckWith(o SelfCheckOptions) []Finding {
	c := &selfCheck{db: db, o: o, seen: map[uint64]string{}}
	type task struct {
		cf *CF
		f  LevelFile
		c  *selfCheck
	}
	var tasks []task
	for _, m := range db.State.CFs {
		cf := db.cfs[m.Name]
		for _, f := range cf.Files() {
			c.known(cf, f)
			if o.Skip != nil && o.Skip(m.Name, f) && (cf.Seen(f) || o.Seen != nil && o.Seen.CF(m.Name).Seen(f)) {
				continue
			}
			tasks = append(tasks, task{cf, f, &selfCheck{db: db, o: o}})
		}
	}
	var g errgroup.Group
	g.SetLimit(max(1, o.Threads))
	for _, t := range tasks {
		g.Go(func() error {
			if o.Skip != nil && o.Skip(t.cf.Meta.Name, t.f) {
				t.c.present(t.cf, t.f)
				return nil
			}
			t.c.file(t.cf, t.f, o.Deep != nil && o.Deep(t.cf.Meta.Name, t.f))
			return nil
		})
	}
	_ = g.Wait() // what was found stands in out
	for _, t := range tasks {
		c.out = append(c.out, t.c.out...)
	}
	for _, m := range db.State.CFs {
		c.levels(m)
		if m.LogNumber > db.State.NextFile {
			c.add(7, m.Name, "", "log number %d is above the next file number %d", m.LogNumber, db.State.NextFile)
		}
	}
	if db.LastSeq >= ikey.MaxSeq {
		c.add(5, "", db.State.Path, "the last sequence is %d", db.LastSeq)
	}
	c.numbers()
	return c.out
}

type selfCheck struct {
	db   *DB
	o    SelfCheckOptions
	seen map[uint64]string
	out  []Finding
	// filter is that of the one table that is checked, nil when it has none or is not asked.
	filter *sst.Filter
}

func (c *selfCheck) add(rule int, cf, path, format string, args ...any) {
	c.out = append(c.out, Finding{Rule: rule, CF: cf, Path: path, Reason: fmt.Sprintf(format, args...)})
}

// known checks what the MANIFEST alone says about a file.
func (c *selfCheck) known(cf *CF, f LevelFile) {
	name := cf.Meta.Name
	if other, dup := c.seen[f.Number]; dup {
		c.add(1, name, c.db.tables.path(f.Number), "the number is also in column family %s", other)
	}
	c.seen[f.Number] = name
	if f.LargestSeq > c.db.LastSeq {
		c.add(5, name, c.db.tables.path(f.Number), "largest sequence %d is above the last sequence %d", f.LargestSeq, c.db.LastSeq)
	}
}

// CheckTable reads one table at path completely, as SelfCheckWith does with a live file: checksums, order, boundaries, sequences. In
// addition it asks the filter for every key: it is for tables of our own, and what a filter denies is lost for TiKV.
func CheckTable(fs base.FS, path, cf string, f LevelFile, batch func(cf string, f LevelFile, n int, b *sst.Batches) error) []Finding {
	c := &selfCheck{o: SelfCheckOptions{Batch: batch}}
	r, err := sst.Open(base.ReadDirect(fs), path, sst.ReaderOptions{CF: cf, Size: int64(f.Size), LargestSeq: f.LargestSeq})
	if err == nil {
		if err = r.VerifyMetaChecksums(); err == nil {
			c.filter, err = r.Filter()
		}
		if err == nil {
			c.bounds(cf, path, f, r)
		}
		err = errors.Join(err, r.Close())
	}
	if err != nil {
		return []Finding{{Rule: 1, CF: cf, Path: path, Err: err}}
	}
	return c.out
}

// present checks that a file is there in its size.
func (c *selfCheck) present(cf *CF, f LevelFile) {
	name, path := cf.Meta.Name, c.db.usualPath(f.Number)
	st, err := c.db.FS.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		path = c.db.tables.path(f.Number)
		st, err = c.db.FS.Stat(path)
	}
	switch {
	case err != nil:
		c.out = append(c.out, Finding{Rule: 1, CF: name, Path: path, Err: base.IO("stat", path, err)})
	case f.Size != 0 && uint64(st.Size()) != f.Size:
		c.add(1, name, path, "file has %d bytes, the MANIFEST says %d", st.Size(), f.Size)
	}
}

func (c *selfCheck) file(cf *CF, f LevelFile, deep bool) {
	name, path := cf.Meta.Name, c.db.tables.path(f.Number)
	r, done, err := cf.Table(f.FileMeta)
	if err != nil {
		c.out = append(c.out, Finding{Rule: 1, CF: name, Path: path, Err: err})
		return
	}
	defer done()
	if !deep {
		return
	}
	// The checksums of the data blocks are verified on the way.
	if err := r.VerifyMetaChecksums(); err != nil {
		c.out = append(c.out, Finding{Rule: 1, CF: name, Path: path, Err: err})
		return
	}
	c.bounds(name, path, f, r)
}

func (c *selfCheck) bounds(name, path string, f LevelFile, r *sst.Reader) {
	in := r.NewBatches()
	defer in.Close()
	var last ikey.Key // of the batch before
	lowest, highest := f.SmallestSeq, f.LargestSeq
	n := 0
	for ; in.Next(); n++ {
		if n == 0 && before(in.Key(0), f.Smallest) {
			c.add(3, name, path, "first record %s is below the boundary %s", in.Key(0), f.Smallest)
		}
		for i := range in.Len() {
			if seq := in.Trailer(i) >> 8; seq < lowest || seq > highest {
				c.add(3, name, path, "sequence of %s is outside [%d, %d]", in.Key(i), f.SmallestSeq, f.LargestSeq)
				return
			}
		}
		if c.filter != nil {
			if key := c.filter.Denied(&in.Batch); key != nil {
				c.add(3, name, path, "the filter denies the key %X, which is there", key)
				return
			}
		}
		if c.o.Batch != nil {
			if err := c.o.Batch(name, f, n, in); err != nil {
				c.out = append(c.out, Finding{Rule: 3, CF: name, Path: path, Err: err})
				return
			}
		}
		k := in.Key(in.Len() - 1)
		last = ikey.Key{User: append(last.User[:0], k.User...), Seq: k.Seq, Kind: k.Kind}
	}
	if err := in.Err(); err != nil {
		rule := 3
		if errors.Is(err, base.ErrIO) {
			rule = 1
		}
		c.out = append(c.out, Finding{Rule: rule, CF: name, Path: path, Err: err})
		return
	}
	if n > 0 && before(f.Largest, last) {
		c.add(3, name, path, "last record %s is above the boundary %s", last, f.Largest)
	}
	dels, err := r.RangeDels()
	if err != nil {
		c.out = append(c.out, Finding{Rule: 3, CF: name, Path: path, Err: err})
		return
	}
	// A tombstone may reach beyond the boundaries, see TableRangeDels.
	for _, d := range dels {
		if d.Seq < f.SmallestSeq || d.Seq > f.LargestSeq {
			c.add(3, name, path, "range tombstone sequence %d is outside [%d, %d]", d.Seq, f.SmallestSeq, f.LargestSeq)
		}
	}
}

// before compares by user key and sequence only: Titan turns a Put into a blob index below the flush that made the boundary.
func before(a, b ikey.Key) bool {
	a.Kind, b.Kind = 0, 0
	return ikey.Compare(a, b) < 0
}

func (c *selfCheck) levels(m *manifest.CF) {
	for l, files := range m.Levels {
		for i := 1; l > 0 && i < len(files); i++ {
			a, b := files[i-1], files[i]
			if ikey.Compare(a.Largest, b.Smallest) >= 0 {
				c.add(2, m.Name, "", "level %d: file %d ends at %s, file %d starts at %s", l, a.Number, a.Largest, b.Number, b.Smallest)
			}
		}
		if l > 0 {
			continue
		}
		// Newest first. A flush of records that are older than a file which was ingested meanwhile counts as newer than that
		// file, although their ranges may meet: only a key in both tells whether the order matters.
		for i, a := range files {
			for _, b := range files[i+1:] {
				if touch(a, b) && b.LargestSeq > a.SmallestSeq {
					c.order(m.Name, a, b)
				}
			}
		}
	}
}

// order looks for a user key that readers would see differently by level order and by sequence: a is newer by order, and b has a
// newer record of a's key, or a tombstone over it.
func (c *selfCheck) order(name string, a, b *manifest.FileMeta) {
	cf := c.db.cfs[name]
	key, bad, err := contradiction(cf, a, b)
	if err != nil {
		c.out = append(c.out, Finding{Rule: 4, CF: name, Path: c.db.tables.path(a.Number), Err: err})
	} else if bad {
		c.add(4, name, "", "L0: file %d (epoch %d, up to sequence %d) counts as newer than file %d (epoch %d, up to sequence %d), which has something newer for %s",
			a.Number, a.Epoch, a.LargestSeq, b.Number, b.Epoch, b.LargestSeq, key)
	}
}

func contradiction(cf *CF, a, b *manifest.FileMeta) (key ikey.Key, bad bool, err error) {
	rb, done, err := cf.Table(b)
	if err != nil {
		return key, false, err
	}
	defer done()
	ds, err := TableRangeDels(rb, b)
	if err != nil {
		return key, false, err
	}
	dels := newTombstones(ds)
	ia, err := cf.openTable(a)
	if err != nil {
		return key, false, err
	}
	defer ia.Close()
	ib := rb.NewIter()
	defer ib.Close()
	more := ib.First()
	for ok := ia.First(); ok; ok = ia.Next() {
		k := ia.Key()
		if bytes.Equal(k.User, key.User) && k.Seq < key.Seq {
			continue // readers stop at the key's newest record
		}
		key = ikey.Key{User: append(key.User[:0], k.User...), Seq: k.Seq, Kind: k.Kind}
		for more && bytes.Compare(ib.Key().User, k.User) < 0 {
			more = ib.Next()
		}
		if dels.covers(k.User, k.Seq) || more && bytes.Equal(ib.Key().User, k.User) && ib.Key().Seq > k.Seq {
			return key, true, nil
		}
	}
	if err := ia.Err(); err != nil {
		return key, false, err
	}
	return key, false, ib.Err()
}

func touch(a, b *manifest.FileMeta) bool {
	return strings.Compare(string(a.Smallest.User), string(b.Largest.User)) <= 0 && strings.Compare(string(b.Smallest.User), string(a.Largest.User)) <= 0
}

func (c *selfCheck) numbers() {
	next := c.db.State.NextFile
	for _, dir := range []string{c.db.Dir, c.db.WALDir} {
		names, err := c.db.FS.List(dir)
		if err != nil {
			c.out = append(c.out, Finding{Rule: 6, Path: dir, Err: base.IO("list", dir, err)})
			continue
		}
		for _, n := range names {
			kind, no, ok := manifest.ParseFileName(n)
			// A log above the counter is legal: the engine takes note of it at replay. What nobody refers to does no harm either.
			if !ok || no <= next || kind == manifest.FileLog {
				continue
			}
			if _, live := c.seen[no]; live || kind == manifest.FileManifest && no == c.db.State.Number {
				c.add(6, "", c.db.FS.PathJoin(dir, n), "number %d is above the next file number %d: the engine would delete it", no, next)
			}
		}
	}
	for no, cf := range c.seen {
		if no > next {
			c.add(6, cf, c.db.tables.path(no), "number %d is above the next file number %d", no, next)
		}
	}
}
