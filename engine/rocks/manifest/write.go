package manifest

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/record"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// BuildRecords makes the records that carry edits, one per touched column family, in a form that 6.4, 6.29 and 8.10
// accept: with more than one edit an atomic group, and behind it, in a record of its own because RocksDB ignores the files
// of an edit that speaks of WALs, the deletion of tracked WALs below walDeletion (0: none; left out when no WAL is
// tracked). It returns an error when the result would not read, would move a counter backwards, or would leave a number in
// use above the next file number. s and the edits are not changed.
func BuildRecords(s *State, edits []*Edit, walDeletion uint64) ([][]byte, error) {
	next := s.Clone()
	var records [][]byte
	seen := map[uint32]bool{}
	for i, e := range edits {
		if err := checkNew(s, e); err != nil {
			return nil, err
		}
		if seen[e.CF] {
			return nil, fmt.Errorf("two edits for column family %d in one group", e.CF)
		}
		seen[e.CF] = true
		if err := next.Apply(e); err != nil {
			return nil, err
		}
		grouped := *e
		grouped.AtomicRemaining = nil
		if len(edits) > 1 {
			grouped.AtomicRemaining = Ptr(uint32(len(edits) - 1 - i))
		}
		records = append(records, grouped.Encode())
	}
	if walDeletion != 0 && len(s.WALs) > 0 {
		e := &Edit{WALDeletion: &walDeletion}
		if err := next.Apply(e); err != nil {
			return nil, err
		}
		records = append(records, e.Encode())
	}
	return records, checkCounters(s, next)
}

// checkNew refuses what an edit of ours must not carry.
func checkNew(s *State, e *Edit) error {
	switch {
	case e.AddCF != nil || e.DropCF || e.Comparator != nil || e.DBID != nil || e.MaxColumnFamily != nil || len(e.CompactCursors) > 0:
		return fmt.Errorf("edit for column family %d changes more than files and counters", e.CF)
	case len(e.WALAdditions) > 0 || e.WALDeletion != nil:
		return fmt.Errorf("edit for column family %d speaks of WALs: its files would be ignored", e.CF)
	}
	for _, n := range e.NewFiles {
		f := n.File
		switch {
		case n.Level < 0 || n.Level >= NumLevels:
			return fmt.Errorf("file %d on level %d", f.Number, n.Level)
		case f.PathID != 0 || len(f.UniqueID) != 0 && len(f.UniqueID) != uniqueIDSize:
			return fmt.Errorf("file %d with a path id or a malformed unique id", f.Number)
		case f.SmallestSeq > f.LargestSeq:
			return fmt.Errorf("file %d with sequences %d..%d", f.Number, f.SmallestSeq, f.LargestSeq)
		}
	}
	return nil
}

func checkCounters(old, s *State) error {
	if s.NextFile < old.NextFile || s.LastSeq < old.LastSeq {
		return fmt.Errorf("next file number or last sequence would go back: %d to %d, %d to %d", old.NextFile, s.NextFile, old.LastSeq, s.LastSeq)
	}
	if s.MinLogToKeep > s.NextFile {
		return fmt.Errorf("min log number to keep %d is above the next file number %d", s.MinLogToKeep, s.NextFile)
	}
	for _, cf := range s.CFs {
		if cf.LogNumber > s.NextFile {
			return fmt.Errorf("log number %d of column family %s is above the next file number %d", cf.LogNumber, cf.Name, s.NextFile)
		}
		for n, p := range cf.files {
			if n > s.NextFile {
				return fmt.Errorf("file %d of column family %s is above the next file number %d: the engine would delete it", n, cf.Name, s.NextFile)
			}
			if p.file.LargestSeq > s.LastSeq {
				return fmt.Errorf("file %d of column family %s has sequence %d above the last sequence %d", n, cf.Name, p.file.LargestSeq, s.LastSeq)
			}
		}
	}
	return nil
}

// Write makes path a MANIFEST of records, durable, with the attributes of like (none when empty). The framing depends on
// the offset, so records are framed anew, in the legacy form that every RocksDB reads: pebble's record.Writer writes
// nothing else. The directory entry is not durable: call base.SyncDir.
func Write(fs base.FS, path string, records [][]byte, like string) (err error) {
	f, err := fs.Create(path, base.DiskWriteCategory)
	if err != nil {
		return base.IO("create", path, err)
	}
	defer func() {
		if f != nil {
			f.Close()
		}
	}()
	w := record.NewWriter(f)
	for _, r := range records {
		rec, err := w.Next()
		if err != nil {
			return base.IO("write", path, err)
		}
		if _, err := rec.Write(r); err != nil {
			return base.IO("write", path, err)
		}
	}
	if err := w.Close(); err != nil {
		return base.IO("write", path, err)
	}
	if err := f.Sync(); err != nil {
		return base.IO("sync", path, err)
	}
	err, f = f.Close(), nil
	if err != nil {
		return base.IO("close", path, err)
	}
	if like == "" {
		return nil
	}
	return fs.CopyAttrs(path, like)
}
