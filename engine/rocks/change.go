package rocks

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// Change is one edit of a database: which live files go, which new ones come, and whether the logs have been folded into them.
type Change struct {
	Delete []Deleted
	Add    []Added
	// FoldLogs says that everything the logs hold is in Add: after the edit no log has to be replayed.
	FoldLogs bool
	// LastSeq is the largest sequence number in use afterwards.
	LastSeq uint64
	// NextNumber is the first file number that nothing uses.
	NextNumber uint64
}

// Deleted is a live file that the edit takes off its level.
type Deleted struct {
	CF string
	LevelFile
}

// Added is a new table. L0 tables without an epoch get one above all others of their family, the first of Add the oldest.
type Added struct {
	CF    string
	Level int
	Meta  *manifest.FileMeta
}

// Sort makes the order of the change independent of the order in which its tables were finished.
func (c *Change) Sort() {
	sort.Slice(c.Delete, func(i, j int) bool { return c.Delete[i].Number < c.Delete[j].Number })
	sort.Slice(c.Add, func(i, j int) bool { return c.Add[i].Meta.Number < c.Add[j].Meta.Number })
}

// MetaOf describes a written table for the MANIFEST. A table that replaces old keeps its epoch and its oldest ancestor's time.
func MetaOf(number uint64, m sst.Meta, old *manifest.FileMeta, now time.Time) *manifest.FileMeta {
	f := &manifest.FileMeta{
		Number: number, Size: m.Size, Smallest: m.Smallest, Largest: m.Largest, SmallestSeq: m.SmallestSeq, LargestSeq: m.LargestSeq,
		OldestAncesterTime: uint64(now.Unix()), FileCreationTime: uint64(now.Unix()), ChecksumFunc: manifest.ChecksumFuncNone,
	}
	if old != nil {
		f.Epoch, f.OldestAncesterTime = old.Epoch, old.OldestAncesterTime
	}
	return f
}

// FreeNumber is a file number above everything that is or was in use: the counter, and every name in the database and log
// directories.
func (db *DB) FreeNumber() (uint64, error) {
	n := max(db.State.NextFile, db.State.Number)
	for _, cf := range db.State.CFs {
		n = max(n, cf.LogNumber)
	}
	for _, dir := range []string{db.Dir, db.WALDir} {
		names, err := db.FS.List(dir)
		if err != nil {
			return 0, base.IO("list", dir, err)
		}
		for _, name := range names {
			if _, no, ok := manifest.ParseFileName(name); ok {
				n = max(n, no)
			}
		}
	}
	return n + 1, nil
}

// Draft applies a change to a copy of the version: the state afterwards and the records of its MANIFEST, which gets the number
// manifestNumber. Rules: rocksdb.md 6.5; every family gets an edit when the logs are folded, in one atomic group, and the end of
// WAL tracking is a record of its own, because an edit with both a WAL and a file part loses the file part.
func (db *DB) Draft(c Change, manifestNumber uint64) (*manifest.State, [][]byte, error) {
	next := max(c.NextNumber, manifestNumber+1, db.State.NextFile)
	// No log is above maxLog; the engine's next one will be.
	logNumber := max(db.Log.MaxLog+1, db.State.MinLogToKeep)
	for _, cf := range db.State.CFs {
		logNumber = max(logNumber, cf.LogNumber)
	}
	next = max(next, logNumber)
	var edits []*manifest.Edit
	for _, m := range db.State.CFs {
		e := &manifest.Edit{CF: m.ID}
		for _, d := range c.Delete {
			if d.CF == m.Name {
				e.DeletedFiles = append(e.DeletedFiles, manifest.DeletedFile{Level: d.Level, Number: d.Number})
			}
		}
		newEpoch, withEpochs := epochs(m)
		for _, a := range c.Add {
			if a.CF != m.Name {
				continue
			}
			f := *a.Meta
			if f.Epoch == 0 && a.Level == 0 && withEpochs {
				newEpoch++
				f.Epoch = newEpoch
			}
			e.NewFiles = append(e.NewFiles, manifest.NewFile{Level: a.Level, File: &f})
		}
		if !c.FoldLogs && len(e.DeletedFiles)+len(e.NewFiles) == 0 {
			continue
		}
		if c.FoldLogs {
			e.LogNumber = manifest.Ptr(logNumber)
			if m.ID == 0 {
				e.MinLogNumberToKeep = manifest.Ptr(logNumber)
			}
		}
		e.PrevLogNumber = manifest.Ptr(uint64(0))
		e.NextFileNumber = manifest.Ptr(next)
		e.LastSequence = manifest.Ptr(max(c.LastSeq, db.LastSeq))
		edits = append(edits, e)
	}
	var walDeletion uint64
	if c.FoldLogs {
		walDeletion = logNumber
	}
	after := db.State.Clone()
	if err := after.Apply(edits...); err != nil {
		return nil, nil, err
	}
	records, err := manifest.BuildRecords(db.State, edits, walDeletion)
	if err != nil {
		return nil, nil, err
	}
	after.Number = manifestNumber
	return after, append(slices.Clone(db.State.Records), records...), nil
}

// epochs gives the largest epoch of a family and whether its files have one: when a single file lacks it, RocksDB 8.10 derives all
// anew from the sequences, and a new file must not claim one either.
func epochs(m *manifest.CF) (largest uint64, all bool) {
	all = true
	for _, l := range m.Levels {
		for _, f := range l {
			largest = max(largest, f.Epoch)
			all = all && f.Epoch != 0
		}
	}
	return largest, all
}

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
	c := &selfCheck{db: db, seen: map[uint64]string{}}
	for _, m := range db.State.CFs {
		cf := db.cfs[m.Name]
		for _, f := range cf.Files() {
			c.file(cf, f, deep != nil && deep(m.Name, f))
		}
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
	seen map[uint64]string
	out  []Finding
}

func (c *selfCheck) add(rule int, cf, path, format string, args ...any) {
	c.out = append(c.out, Finding{Rule: rule, CF: cf, Path: path, Reason: fmt.Sprintf(format, args...)})
}

func (c *selfCheck) file(cf *CF, f LevelFile, deep bool) {
	name, path := cf.Meta.Name, c.db.tables.path(f.Number)
	if other, dup := c.seen[f.Number]; dup {
		c.add(1, name, path, "the number is also in column family %s", other)
	}
	c.seen[f.Number] = name
	if f.LargestSeq > c.db.LastSeq {
		c.add(5, name, path, "largest sequence %d is above the last sequence %d", f.LargestSeq, c.db.LastSeq)
	}
	r, done, err := cf.Table(f.FileMeta)
	if err != nil {
		c.out = append(c.out, Finding{Rule: 1, CF: name, Path: path, Err: err})
		return
	}
	defer done()
	if !deep {
		return
	}
	if err := r.VerifyChecksums(); err != nil {
		c.out = append(c.out, Finding{Rule: 1, CF: name, Path: path, Err: err})
		return
	}
	c.bounds(name, path, f, r)
}

func (c *selfCheck) bounds(name, path string, f LevelFile, r *sst.Reader) {
	it := r.NewIter()
	defer it.Close()
	var last ikey.Key
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if n > 0 && ikey.Compare(last, k) >= 0 {
			c.add(3, name, path, "record %s is not above %s", k, last)
			return
		}
		if n == 0 && before(k, f.Smallest) {
			c.add(3, name, path, "first record %s is below the boundary %s", k, f.Smallest)
		}
		if k.Seq < f.SmallestSeq || k.Seq > f.LargestSeq {
			c.add(3, name, path, "sequence of %s is outside [%d, %d]", k, f.SmallestSeq, f.LargestSeq)
			return
		}
		last = ikey.Key{User: append(last.User[:0], k.User...), Seq: k.Seq, Kind: k.Kind}
		n++
	}
	if err := it.Err(); err != nil {
		c.out = append(c.out, Finding{Rule: 3, CF: name, Path: path, Err: err})
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

// replayInput is what the replay has to know of the version.
func (db *DB) replayInput() wal.ReplayInput {
	return wal.ReplayInput{Dir: db.WALDir, MinLog: db.State.MinLogs(), MinLogToKeep: db.State.MinLogToKeep,
		LastSequence: db.State.LastSeq, Tracked: db.State.WALs, HasSST: db.State.HasSST}
}
