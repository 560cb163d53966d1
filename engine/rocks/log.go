package rocks

import (
	"cmp"
	"errors"
	"fmt"
	"os"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
)

// Log is what the write-ahead logs hold for one family: some chunks, each newer than the one before. All but the last have been
// written to the spill directory, because the logs may be larger than the memory.
type Log struct {
	spilled []*LogChunk
	mem     *Run
}

// LogChunk is one part of a Log, as a flush would make a table of it.
type LogChunk struct {
	mem *Run
	// Without mem: a table in the spill directory.
	r       *sst.Reader
	path    string
	records int
	ranges  []ikey.RangeDel
}

// Log is what the write-ahead logs hold for this family.
func (cf *CF) Log() *Log { return &cf.log }

// Chunks lists the parts, the oldest first. There is always one.
func (l *Log) Chunks() []*LogChunk {
	return append(append([]*LogChunk(nil), l.spilled...), &LogChunk{mem: l.mem})
}

// Spilled tells whether some of it is in files.
func (l *Log) Spilled() bool { return len(l.spilled) > 0 }

// Empty tells whether there is nothing at all.
func (l *Log) Empty() bool { return len(l.spilled) == 0 && l.mem.Empty() }

// Len is the number of point records.
func (l *Log) Len() int {
	n := l.mem.Len()
	for _, c := range l.spilled {
		n += c.records
	}
	return n
}

// Bytes is about the size of the records.
func (l *Log) Bytes() int64 {
	n := l.mem.Bytes()
	for _, c := range l.spilled {
		n += c.Bytes()
	}
	return n
}

// RangeDels are the range tombstones.
func (l *Log) RangeDels() []ikey.RangeDel {
	if len(l.spilled) == 0 {
		return l.mem.ranges
	}
	var out []ikey.RangeDel
	for _, c := range l.Chunks() {
		out = append(out, c.RangeDels()...)
	}
	return out
}

// Iter walks the point records in key order.
func (l *Log) Iter() ikey.Iter {
	if len(l.spilled) == 0 {
		return l.mem.Iter()
	}
	var its []ikey.Iter
	for _, c := range l.Chunks() {
		its = append(its, c.Iter())
	}
	return Merge(its...)
}

// Iter walks the chunk's point records in key order.
func (c *LogChunk) Iter() ikey.Iter {
	if c.mem != nil {
		return c.mem.Iter()
	}
	return c.r.NewIter()
}

// RangeDels are the chunk's range tombstones.
func (c *LogChunk) RangeDels() []ikey.RangeDel {
	if c.mem != nil {
		return c.mem.ranges
	}
	return c.ranges
}

// Bytes is about the size of the chunk's records.
func (c *LogChunk) Bytes() int64 {
	if c.mem != nil {
		return c.mem.Bytes()
	}
	return c.r.Size()
}

// Spill is a place for what does not fit into memory. Its files are gone when the program ends, and worth nothing then.
type Spill struct {
	// Dir is made when it is needed first. Nothing else may lie in it: what an earlier run left is removed.
	Dir string
	// Temp is the directory for temporary files that Dir lies in, "" when it lies in none. It must be there, and nobody but this process
	// knows of Dir: as long as nothing is put away, it does not matter whether Temp can be used.
	Temp string
	// Limit is how many bytes of records one holder keeps in memory.
	Limit int64
}

// spill writes the run as a table into the spill directory and empties it. Records with the same internal key become one.
func (s Spill) spill(fs base.FS, name string, run *Run) (path string, err error) {
	if s.Temp != "" {
		defer func() { err = s.unusable(err) }()
		if ok, err := base.Exists(fs, s.Temp); err != nil || !ok {
			return "", cmp.Or(err, base.IO("find", s.Temp, os.ErrNotExist))
		}
	}
	if err := fs.MkdirAll(s.Dir, 0o700); err != nil {
		return "", base.IO("create directory", s.Dir, err)
	}
	path = fs.PathJoin(s.Dir, name)
	f, err := fs.Create(path, base.DiskWriteCategory)
	if err != nil {
		return "", base.IO("create", path, err)
	}
	f = base.WriteDirect(f)
	w := sst.NewWriter(f, sst.WriterOptions{BlockSize: 32 << 10})
	run.Sort()
	it := run.Iter()
	var last ikey.Key
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		k := it.Key()
		if last.User == nil || ikey.Compare(last, k) != 0 {
			err = w.Add(k, it.Value())
		}
		last = k
	}
	if err == nil {
		_, err = w.Finish()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", base.IO("write", path, err)
	}
	run.reset()
	return path, nil
}

// unusable says of a failed file operation that it is the directory for temporary files that failed, not the store.
func (s Spill) unusable(err error) error {
	if !errors.Is(err, base.ErrIO) {
		return err
	}
	return &base.Error{Class: base.ErrIO, Op: "put away what does not fit into --memory", Path: s.Temp, Offset: -1, Err: err,
		Next: "set TMPDIR to a directory with room, or give more with --memory"}
}

// spillLog moves what the memory holds of a family's log into a file.
func (db *DB) spillLog(cf *CF) error {
	c := &LogChunk{records: cf.log.mem.Len(), ranges: cf.log.mem.ranges}
	cf.log.mem.ranges = nil
	if c.records == 0 {
		cf.log.mem.ranges = c.ranges
		return nil
	}
	name := fmt.Sprintf("log-%d-%06d", cf.Meta.ID, len(cf.log.spilled))
	var err error
	if c.path, err = db.spill.spill(db.FS, name, cf.log.mem); err != nil {
		return err
	}
	if c.r, err = sst.Open(db.FS, c.path, sst.ReaderOptions{CF: cf.Meta.Name, LargestSeq: ikey.MaxSeq}); err != nil {
		return err
	}
	cf.log.spilled = append(cf.log.spilled, c)
	return nil
}

// Spool collects new records of one family in key order: what does not fit into memory goes into files of ascending ranges.
type Spool struct {
	Run
	fs    base.FS
	s     Spill
	name  string
	Files []SpoolFile // with what is not in Run, in ascending key order
}

// SpoolFile is one file of a spool.
type SpoolFile struct {
	Path    string
	Records int
}

// NewSpool makes a spool whose files have names that begin with name. A Spill without directory keeps everything in memory.
func NewSpool(fs base.FS, s Spill, name string) *Spool {
	return &Spool{fs: fs, s: s, name: name}
}

// Join takes the records of o, which are above those of s.
func (s *Spool) Join(o *Spool) {
	s.Append(&o.Run)
	s.Files = append(s.Files, o.Files...)
}

// Flush writes what is in memory into a file; the records added later must be above it.
func (s *Spool) Flush() error {
	if s.s.Dir == "" || s.Len() == 0 {
		return nil
	}
	n := s.Len()
	path, err := s.s.spill(s.fs, fmt.Sprintf("%s-%06d", s.name, len(s.Files)), &s.Run)
	if err == nil {
		s.Files = append(s.Files, SpoolFile{path, n})
	}
	return err
}

// numbered gives all records of an iterator one sequence number.
type numbered struct {
	ikey.Iter
	seq uint64
}

func (n numbered) Key() ikey.Key {
	k := n.Iter.Key()
	k.Seq = n.seq
	return k
}

// SpoolIter walks a file of a spool, with one sequence number for all its records. Close closes the file.
func SpoolIter(fs base.FS, path string, seq uint64) (ikey.Iter, error) {
	r, err := sst.Open(fs, path, sst.ReaderOptions{LargestSeq: ikey.MaxSeq})
	if err != nil {
		return nil, err
	}
	return closing{numbered{r.NewIter(), seq}, r}, nil
}

type closing struct {
	ikey.Iter
	r *sst.Reader
}

func (c closing) Close() error { return errors.Join(c.Iter.Close(), c.r.Close()) }

// clear removes what an earlier run has left.
func (s Spill) clear(fs base.FS) error {
	if s.Dir == "" {
		return nil
	}
	if ok, err := base.Exists(fs, s.Dir); !ok || err != nil {
		if s.Temp != "" {
			return nil // what cannot be looked at was not made
		}
		return err
	}
	return base.IO("remove", s.Dir, fs.RemoveAll(s.Dir))
}
