// Package rocks reads a stopped RocksDB directory as TiKV uses it, without RocksDB: MANIFEST, write-ahead logs and SSTs
// become one merged view per column family, with RocksDB's own visibility rules.
package rocks

import (
	"bytes"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// Options of Open.
type Options struct {
	// WALDir is where the *.log files are; empty means the database directory.
	WALDir string
	// MaxIdleTables bounds the SST readers kept open without a user; 0 means 256.
	MaxIdleTables int
	// State replaces what CURRENT and the MANIFEST say: an edited version that is staged and not yet published.
	State *manifest.State
	// Spill takes what the logs hold above its limit; without a directory all of it is kept in memory.
	Spill Spill
	// Stop is asked now and then while the logs are replayed; its error ends that. Nil goes on.
	Stop func() error
	// HeadProps are the properties that Heads looks at, Bound what it makes of their values: as stored, in the order of the names, nil for
	// what a table does not have, valid during the call. It is called from several goroutines.
	HeadProps []string
	Bound     func(values [][]byte) Bound
	// TablePath replaces the path of a table, for staged ones; nil or "" means the usual name.
	TablePath func(number uint64) string
}

// DB is a read view of a stopped database. Methods of different column families, and iterators, may be used from different
// goroutines.
//
// Invariant: every sequence in the view <= LastSeq <= ikey.MaxSeq.
type DB struct {
	FS          base.FS
	Dir, WALDir string
	State       *manifest.State
	// Log says what the replay of the write-ahead logs met.
	Log *wal.Report
	// LastSeq is the largest sequence number in use, logs included.
	LastSeq uint64

	spill     Spill
	headProps []string
	bound     func([][]byte) Bound
	staged    func(number uint64) string // paths of tables that are not where their number says; nil: all are
	cfs       map[string]*CF
	tables    *tableCache
	overlaid  uint64
}

// CF is one column family of a DB.
type CF struct {
	db   *DB
	Meta *manifest.CF
	log  Log

	rangeDels sync.Map // file number to its []ikey.RangeDel, of files that have been opened for them

	headsMu sync.Mutex
	heads   atomic.Pointer[Heads]
}

// Open rebuilds the version from CURRENT and the MANIFEST and replays the logs into memory, as DB::Open with point-in-time
// recovery would; it writes nothing. Errors are of class ErrCorrupt, ErrUnsupported or ErrIO. Damaged logs are no error: see
// DB.Log; a caller that writes must refuse them.
func Open(fs base.FS, dir string, o Options) (*DB, error) {
	st := o.State
	if st == nil {
		var err error
		if st, err = manifest.Load(fs, dir); err != nil {
			return nil, err
		}
	}
	db := &DB{FS: fs, Dir: dir, WALDir: o.WALDir, State: st, spill: o.Spill, headProps: o.HeadProps, bound: o.Bound, staged: o.TablePath, cfs: map[string]*CF{}}
	if db.WALDir == "" {
		db.WALDir = dir
	}
	if o.MaxIdleTables == 0 {
		o.MaxIdleTables = 256
	}
	db.tables = newTableCache(fs, o.MaxIdleTables, func(n uint64) string {
		if db.staged != nil {
			if p := db.staged(n); p != "" {
				return p
			}
		}
		return db.TablePath(n)
	})
	byID := map[uint32]*CF{}
	for _, m := range st.CFs {
		cf := &CF{db: db, Meta: m, log: Log{mem: &Run{}}}
		byID[m.ID], db.cfs[m.Name] = cf, cf
	}
	if err := db.spill.clear(fs); err != nil {
		return nil, err
	}
	records := 0
	rep, err := wal.Replay(fs, db.replayInput(), func(r wal.Record) error {
		if records++; records&4095 == 0 && o.Stop != nil {
			if err := o.Stop(); err != nil {
				return err
			}
		}
		cf := byID[r.CF]
		if cf == nil {
			return nil
		}
		cf.log.mem.Add(r.Key, r.Value)
		if db.spill.Dir != "" && cf.log.mem.Used() > db.spill.Limit/2 {
			return db.spillLog(cf)
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	db.Log, db.LastSeq = rep, max(st.LastSeq, rep.LastSequence)
	for _, cf := range byID {
		cf.log.mem.Sort()
	}
	return db, nil
}

// usualPath is where a table is, unless it has an old name.
func (db *DB) usualPath(n uint64) string {
	if db.staged != nil {
		if p := db.staged(n); p != "" {
			return p
		}
	}
	return db.FS.PathJoin(db.Dir, manifest.TableName(n))
}

// TablePath is where the engine looks for SST number n: the .sst name, or the legacy .ldb one when only that exists.
func (db *DB) TablePath(n uint64) string {
	p := db.FS.PathJoin(db.Dir, manifest.TableName(n))
	if ok, err := base.Exists(db.FS, p); err == nil && !ok {
		if old := db.FS.PathJoin(db.Dir, legacyTableName(n)); mustExist(db.FS, old) {
			return old
		}
	}
	return p
}

// legacyTableName is LevelDB's name of a table, which RocksDB still reads.
func legacyTableName(n uint64) string { return fmt.Sprintf("%06d.ldb", n) }

func mustExist(fs base.FS, p string) bool { ok, err := base.Exists(fs, p); return err == nil && ok }

// Close releases the open tables and removes what has been spilled.
func (db *DB) Close() error {
	err := db.tables.close()
	for _, cf := range db.cfs {
		for _, c := range cf.log.spilled {
			err = errors.Join(err, c.r.Close())
		}
		cf.log.spilled = nil
	}
	return errors.Join(err, db.spill.clear(base.Unrefused(db.FS)))
}

// BytesRead counts the stored bytes of the blocks that passes over records have read.
func (db *DB) BytesRead() int64 { return db.tables.read.Load() }

// CF gives a column family by name, nil when the store has none of that name.
func (db *DB) CF(name string) *CF { return db.cfs[name] }

// Names lists the column families by id.
func (db *DB) Names() []string {
	var out []string
	for _, m := range db.State.CFs {
		out = append(out, m.Name)
	}
	return out
}

// Files lists the live files of the family, level by level, as manifest.CF.Levels orders them.
func (cf *CF) Files() []LevelFile {
	var out []LevelFile
	for l, fs := range cf.Meta.Levels {
		for _, f := range fs {
			out = append(out, LevelFile{Level: l, FileMeta: f})
		}
	}
	return out
}

// LevelFile is a live file and its level.
type LevelFile struct {
	Level int
	*manifest.FileMeta
}

// Table opens a live file; done must be called when the reader is no longer used.
func (cf *CF) Table(f *manifest.FileMeta) (r *sst.Reader, done func() error, err error) {
	t, err := cf.db.tables.acquire(cf.Meta.Name, f)
	if err != nil {
		return nil, nil, err
	}
	return t.r, func() error { return cf.db.tables.release(t) }, nil
}

func (cf *CF) openTable(f *manifest.FileMeta) (*tableIter, error) {
	t, err := cf.db.tables.acquire(cf.Meta.Name, f)
	if err != nil {
		return nil, err
	}
	return &tableIter{Iter: t.r.NewIter(), c: cf.db.tables, t: t}, nil
}

// overlaps tells whether a file may hold user keys of [lower, upper); nil bounds are open. A boundary that is the exclusive
// end of a range tombstone counts as inside, which only costs a look.
func overlaps(f *manifest.FileMeta, lower, upper []byte) bool {
	return (upper == nil || bytes.Compare(f.Smallest.User, upper) < 0) && (lower == nil || bytes.Compare(f.Largest.User, lower) >= 0)
}

// Source tells where a record of a merged iterator lies: a file, or (nil) the logs.
type Source struct {
	Level int
	File  *manifest.FileMeta
}

// Select chooses the live files that an iterator reads; nil means all. The logs are always read.
type Select func(f LevelFile) bool

// Iter merges the logs and the chosen files over the user keys of [lower, upper): every record, nothing hidden.
type Iter struct {
	*mergeIter
	lower, upper []byte
	level0       []LevelFile // source i+1 is level0[i]; behind them one source a level
	deeper       []*levelIter
	levels       []int
}

// NewIter opens the merged iterator of a family.
func (cf *CF) NewIter(lower, upper []byte, sel Select) (*Iter, error) {
	it := &Iter{lower: lower, upper: upper}
	sources := []ikey.Iter{&memIter{m: cf.log.mem}}
	fail := func(err error) (*Iter, error) {
		for _, s := range sources {
			s.Close()
		}
		return nil, err
	}
	for l, files := range cf.Meta.Levels {
		var chosen []*manifest.FileMeta
		for _, f := range files {
			lf := LevelFile{Level: l, FileMeta: f}
			if !overlaps(f, lower, upper) || sel != nil && !sel(lf) {
				continue
			}
			if l > 0 {
				chosen = append(chosen, f)
				continue
			}
			t, err := cf.openTable(f)
			if err != nil {
				return fail(err)
			}
			sources = append(sources, t)
			it.level0 = append(it.level0, lf)
		}
		if len(chosen) > 0 {
			li := &levelIter{cf: cf, files: chosen}
			sources = append(sources, li)
			it.deeper = append(it.deeper, li)
			it.levels = append(it.levels, l)
		}
	}
	for _, c := range cf.log.spilled {
		sources = append(sources, c.Iter())
	}
	it.mergeIter = newMergeIter(sources)
	return it, nil
}

// First goes to the first record at or above the lower bound.
func (it *Iter) First() bool {
	if it.lower != nil {
		return it.SeekGE(it.lower)
	}
	return it.mergeIter.First() && it.inside()
}

// SeekGE goes to the newest record of the first user key >= user within the bounds.
func (it *Iter) SeekGE(user []byte) bool {
	if it.lower != nil && bytes.Compare(user, it.lower) < 0 {
		user = it.lower
	}
	return it.mergeIter.SeekGE(user) && it.inside()
}

// Next goes to the next record within the bounds.
func (it *Iter) Next() bool { return it.mergeIter.Next() && it.inside() }

func (it *Iter) inside() bool {
	return it.upper == nil || bytes.Compare(it.Key().User, it.upper) < 0
}

// Source tells where the current record lies.
func (it *Iter) Source() Source {
	s := it.source()
	switch {
	case s == 0:
		return Source{}
	case s <= len(it.level0):
		return Source{Level: 0, File: it.level0[s-1].FileMeta}
	}
	d := s - 1 - len(it.level0)
	if d >= len(it.deeper) {
		return Source{} // a spilled part of the logs
	}
	return Source{Level: it.levels[d], File: it.deeper[d].files[it.deeper[d].i]}
}

// RangeDels collects the range tombstones of the logs and of all live files that may touch [lower, upper).
func (cf *CF) RangeDels(lower, upper []byte) ([]ikey.RangeDel, error) {
	out := append([]ikey.RangeDel(nil), cf.log.RangeDels()...)
	files, err := cf.withRangeDels(lower, upper)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		ds, err := cf.fileRangeDels(f)
		if err != nil {
			return nil, err
		}
		out = append(out, ds...)
	}
	sort.Slice(out, func(i, j int) bool { return bytes.Compare(out[i].Start, out[j].Start) < 0 })
	return out, nil
}

// withRangeDels lists the live files that may touch [lower, upper) and have range tombstones, or may have some.
func (cf *CF) withRangeDels(lower, upper []byte) ([]*manifest.FileMeta, error) {
	var files []*manifest.FileMeta
	heads := cf.heads.Load()
	if heads == nil {
		unknown := 0
		for _, level := range cf.Meta.Levels {
			for _, f := range level {
				if !overlaps(f, lower, upper) {
					continue
				}
				files = append(files, f)
				if _, ok := cf.rangeDels.Load(f.Number); !ok {
					unknown++
				}
			}
		}
		if unknown <= manyUnknown {
			return files, nil
		}
		// Cheaper than to open them one after the other; almost none has any.
		var err error
		if heads, err = cf.Heads(); err != nil {
			return nil, err
		}
		files = files[:0]
	}
	for _, f := range heads.dels {
		if overlaps(f, lower, upper) {
			files = append(files, f)
		}
	}
	return files, nil
}

// fileRangeDels remembers what it has read: almost every file has none, and every view asks again.
func (cf *CF) fileRangeDels(f *manifest.FileMeta) ([]ikey.RangeDel, error) {
	if ds, ok := cf.rangeDels.Load(f.Number); ok {
		return ds.([]ikey.RangeDel), nil
	}
	r, done, err := cf.Table(f)
	if err != nil {
		return nil, err
	}
	ds, err := TableRangeDels(r, f)
	if err = errors.Join(err, done()); err != nil {
		return nil, err
	}
	cf.rangeDels.Store(f.Number, ds)
	return ds, nil
}

// TableRangeDels gives the range tombstones of a live file, cut to the file's boundaries: a compaction writes a tombstone whole into
// every output that it touches, and readers apply only the part inside the MANIFEST's boundaries. The rest must not be believed:
// at the bottom level RocksDB sets sequences to zero, so that a neighbour's live record can look older than a tombstone that it
// has outlived. The result shares no memory with the table.
// Source: tikv/rocksdb 8.10.tikv db/range_del_aggregator.cc (TruncatedRangeDelIterator), db/compaction/compaction_outputs.cc (AddRangeDels).
func TableRangeDels(r *sst.Reader, f *manifest.FileMeta) ([]ikey.RangeDel, error) {
	ds, err := r.RangeDels()
	if err != nil {
		return nil, err
	}
	end := f.Largest.User
	if f.Largest.Seq != ikey.MaxSeq || f.Largest.Kind != ikey.KindRangeDelete {
		// The largest key is a record of this file, which the tombstone may hide; the end of a tombstone is exclusive.
		end = append(bytes.Clone(end), 0)
	}
	out := ds[:0]
	for _, d := range ds {
		if bytes.Compare(d.Start, f.Smallest.User) < 0 {
			d.Start = bytes.Clone(f.Smallest.User)
		}
		if bytes.Compare(d.End, end) > 0 {
			d.End = bytes.Clone(end)
		}
		if bytes.Compare(d.Start, d.End) < 0 {
			out = append(out, d)
		}
	}
	return out, nil
}
