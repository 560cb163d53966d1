package rocks

import (
	"slices"
	"sort"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/base"
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

// replayInput is what the replay has to know of the version.
func (db *DB) replayInput() wal.ReplayInput {
	return wal.ReplayInput{Dir: db.WALDir, MinLog: db.State.MinLogs(), MinLogToKeep: db.State.MinLogToKeep,
		LastSequence: db.State.LastSeq, Tracked: db.State.WALs, HasSST: db.State.HasSST}
}
