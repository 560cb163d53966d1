package manifest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// CF is one column family of a State.
type CF struct {
	ID         uint32
	Name       string
	Comparator string // empty when the MANIFEST never names it
	// LogNumber: WALs with this number and above may hold records of this family that are in no SST.
	LogNumber uint64
	// Levels: L0 newest first (SortL0 over the whole family), the others by smallest key.
	Levels [NumLevels][]*FileMeta

	files map[uint64]placed
	// added has the files in the order in which they came, nil for those that have gone: about the order of Levels, which is cheap to
	// sort then.
	added []*FileMeta
}

type placed struct {
	level int
	file  *FileMeta
	at    int // in added
}

// State is what a MANIFEST adds up to.
//
// Invariants: a file number is on one level of one column family; family ids are unique and ascending in CFs; MaxCF is at
// least the highest id.
type State struct {
	Path   string // the MANIFEST
	Number uint64 // of the MANIFEST
	CFs    []*CF  // by id; 0, default, is always there
	// NextFile is the NextFileNumber of the last edit: every number up to and including it may be in use, the engine goes
	// on at NextFile+1 and deletes SSTs from there on at open.
	NextFile uint64
	// LastSeq is the last edit's LastSequence. WALs go beyond it.
	LastSeq uint64
	PrevLog uint64
	// MinLogToKeep: WALs below it are not read; 0 when the MANIFEST has none.
	MinLogToKeep uint64
	MaxCF        uint32
	// WALs are the tracked WALs: number to synced bytes, wal.NoSyncedSize when only the creation is recorded.
	WALs map[uint64]uint64
	// Records are the raw edits that make the state, without a torn tail and an unfinished atomic group at the end: to be
	// written again in front of new ones. Apply does not add to it.
	Records [][]byte
	// TornTail: the file ends in the middle of a record or of an atomic group, which the engine drops.
	TornTail bool
	DBID     string

	minWAL                   uint64 // WAL additions below it are forgotten
	sawLog, sawNext, sawLast bool
}

// NewState is the state before the first edit: the column family default, empty.
func NewState() *State {
	return &State{CFs: []*CF{newCF(0, "default")}, WALs: map[uint64]uint64{}}
}

func newCF(id uint32, name string) *CF {
	return &CF{ID: id, Name: name, files: map[uint64]placed{}}
}

// CF finds a column family by name, nil when there is none.
func (s *State) CF(name string) *CF {
	for _, cf := range s.CFs {
		if cf.Name == name {
			return cf
		}
	}
	return nil
}

// CFByID finds a column family by id, nil when there is none.
func (s *State) CFByID(id uint32) *CF {
	i, ok := slices.BinarySearchFunc(s.CFs, id, func(cf *CF, id uint32) int { return cmp.Compare(cf.ID, id) })
	if !ok {
		return nil
	}
	return s.CFs[i]
}

// File finds an SST by number.
func (s *State) File(number uint64) (cf *CF, level int, file *FileMeta, ok bool) {
	for _, cf := range s.CFs {
		if p, ok := cf.files[number]; ok {
			return cf, p.level, p.file, true
		}
	}
	return nil, 0, nil, false
}

// MinLogs is the log number of every column family, as wal.ReplayInput wants it.
func (s *State) MinLogs() map[uint32]uint64 {
	m := make(map[uint32]uint64, len(s.CFs))
	for _, cf := range s.CFs {
		m[cf.ID] = cf.LogNumber
	}
	return m
}

// HasSST tells whether a column family has live SST bytes.
func (s *State) HasSST(cf uint32) bool {
	c := s.CFByID(cf)
	if c == nil {
		return false
	}
	for _, p := range c.files {
		if p.file.Size > 0 {
			return true
		}
	}
	return false
}

// Clone copies the state; FileMeta values and raw records are shared.
func (s *State) Clone() *State {
	c := *s
	c.CFs = make([]*CF, len(s.CFs))
	for i, cf := range s.CFs {
		n := *cf
		n.files = maps.Clone(cf.files)
		n.added = slices.Clone(cf.added)
		for l := range n.Levels {
			n.Levels[l] = slices.Clone(cf.Levels[l])
		}
		c.CFs[i] = &n
	}
	c.WALs = make(map[uint64]uint64, len(s.WALs))
	for k, v := range s.WALs {
		c.WALs[k] = v
	}
	c.Records = slices.Clone(s.Records)
	return &c
}

// Apply adds edits to the state by the rules of reading: an edit deletes its files first and then adds; to delete a file
// that is not on that level, or to add a number that is there, is an error of class ErrCorrupt, and the state is then of
// no use: Apply to a Clone. Atomic group marks are not looked at.
func (s *State) Apply(edits ...*Edit) error {
	touched := map[uint32]bool{}
	for _, e := range edits {
		if err := s.apply(e); err != nil {
			return err
		}
		touched[e.CF] = true
	}
	for id := range touched {
		if cf := s.CFByID(id); cf != nil {
			cf.arrange()
		}
	}
	return nil
}

func (s *State) corrupt(format string, args ...any) error {
	return base.Corruptf(s.Path, -1, "version edit: "+format, args...)
}

// apply is VersionEditHandler::ApplyVersionEdit; levels are left unsorted.
func (s *State) apply(e *Edit) error {
	cf := s.CFByID(e.CF)
	switch {
	case e.AddCF != nil:
		var err error
		if cf, err = s.addCF(e.CF, *e.AddCF); err != nil {
			return err
		}
	case e.DropCF:
		if cf == nil || cf.ID == 0 {
			return s.corrupt("drops column family %d, which is not there or must be", e.CF)
		}
		s.CFs = slices.DeleteFunc(s.CFs, func(c *CF) bool { return c == cf })
		cf = nil
	case len(e.WALAdditions) > 0:
		cf = nil
		if err := s.addWALs(e.WALAdditions); err != nil {
			return err
		}
	case e.WALDeletion != nil && *e.WALDeletion != 0:
		cf = nil
		s.deleteWALs(*e.WALDeletion)
	default:
		if cf == nil {
			return s.corrupt("for column family %d, which is not there", e.CF)
		}
		if err := s.applyFiles(cf, e); err != nil {
			return err
		}
	}
	return s.counters(cf, e)
}

func (s *State) addCF(id uint32, name string) (*CF, error) {
	if s.CFByID(id) != nil || s.CF(name) != nil {
		return nil, s.corrupt("adds column family %q with id %d twice", name, id)
	}
	cf := newCF(id, name)
	i, _ := slices.BinarySearchFunc(s.CFs, id, func(c *CF, id uint32) int { return cmp.Compare(c.ID, id) })
	s.CFs = slices.Insert(s.CFs, i, cf)
	s.MaxCF = max(s.MaxCF, id)
	return cf, nil
}

func (s *State) addWALs(additions []WALAddition) error {
	for _, a := range additions {
		if a.Number < s.minWAL {
			continue
		}
		old, there := s.WALs[a.Number]
		switch {
		case there && a.SyncedSize == noSyncedSize:
			return s.corrupt("WAL %d is created twice", a.Number)
		case there && old != noSyncedSize && a.SyncedSize < old:
			return s.corrupt("WAL %d shrinks from %d to %d synced bytes", a.Number, old, a.SyncedSize)
		}
		s.WALs[a.Number] = a.SyncedSize
	}
	return nil
}

func (s *State) deleteWALs(below uint64) {
	s.minWAL = max(s.minWAL, below)
	for n := range s.WALs {
		if n < s.minWAL {
			delete(s.WALs, n)
		}
	}
}

func (s *State) applyFiles(cf *CF, e *Edit) error {
	for _, d := range e.DeletedFiles {
		p, there := cf.files[d.Number]
		switch {
		case !there:
			return s.corrupt("deletes file %d from level %d of column family %s, where it is not", d.Number, d.Level, cf.Name)
		case p.level != d.Level:
			return s.corrupt("deletes file %d from level %d of column family %s, it is on level %d", d.Number, d.Level, cf.Name, p.level)
		}
		delete(cf.files, d.Number)
		cf.added[p.at] = nil
	}
	if len(cf.files) == 0 {
		cf.files = make(map[uint64]placed, len(e.NewFiles))
	}
	for _, n := range e.NewFiles {
		if other, level, _, there := s.File(n.File.Number); there {
			return s.corrupt("adds file %d, which is on level %d of column family %s", n.File.Number, level, other.Name)
		}
		cf.files[n.File.Number] = placed{n.Level, n.File, len(cf.added)}
		cf.added = append(cf.added, n.File)
	}
	return nil
}

// counters is VersionEditHandler::ExtractInfoFromVersionEdit. cf is nil when the edit is not about a family.
func (s *State) counters(cf *CF, e *Edit) error {
	if cf != nil {
		if e.LogNumber != nil {
			cf.LogNumber = max(cf.LogNumber, *e.LogNumber)
			s.sawLog = true
		}
		if e.Comparator != nil {
			if *e.Comparator != Comparator {
				return base.Unsupportedf(s.Path, "comparator %q of column family %s; TiKV uses %s", *e.Comparator, cf.Name, Comparator)
			}
			cf.Comparator = *e.Comparator
		}
	}
	if e.DBID != nil {
		s.DBID = *e.DBID
	}
	if e.PrevLogNumber != nil {
		s.PrevLog = *e.PrevLogNumber
	}
	if e.NextFileNumber != nil {
		s.NextFile, s.sawNext = *e.NextFileNumber, true
	}
	if e.LastSequence != nil {
		if *e.LastSequence > ikey.MaxSeq {
			return s.corrupt("last sequence %d is above the largest sequence", *e.LastSequence)
		}
		s.LastSeq, s.sawLast = *e.LastSequence, true
	}
	if e.MinLogNumberToKeep != nil {
		s.MinLogToKeep = max(s.MinLogToKeep, *e.MinLogNumberToKeep)
	}
	if e.MaxColumnFamily != nil {
		s.MaxCF = max(*e.MaxColumnFamily, s.CFs[len(s.CFs)-1].ID)
	}
	return nil
}

// complete checks what must have been seen at the end of a MANIFEST.
func (s *State) complete() error {
	switch {
	case !s.sawNext:
		return base.Corruptf(s.Path, -1, "MANIFEST without a next file number")
	case !s.sawLog:
		return base.Corruptf(s.Path, -1, "MANIFEST without a log number")
	case !s.sawLast:
		return base.Corruptf(s.Path, -1, "MANIFEST without a last sequence")
	}
	return nil
}

// arrange rebuilds Levels from files.
func (cf *CF) arrange() {
	cf.Levels = [NumLevels][]*FileMeta{}
	for _, f := range cf.added {
		if f != nil {
			level := cf.files[f.Number].level
			cf.Levels[level] = append(cf.Levels[level], f)
		}
	}
	sortL0(cf.Levels[0], cf.EpochsComplete())
	for _, files := range cf.Levels[1:] {
		slices.SortFunc(files, func(a, b *FileMeta) int {
			return cmp.Or(ikey.Compare(a.Smallest, b.Smallest), cmp.Compare(a.Number, b.Number))
		})
	}
}

// EpochsComplete tells whether every file of the family, on whatever level, has an epoch number. If not, 8.10 derives all of
// them anew from the sequence numbers at open.
func (cf *CF) EpochsComplete() bool {
	for _, p := range cf.files {
		if p.file.Epoch == 0 {
			return false
		}
	}
	return true
}

// OrdersAgree tells whether L0 is in the same order for every RocksDB line: by epoch (8.10) and by sequence (6.4, 6.29).
func (cf *CF) OrdersAgree() bool {
	bySeq := slices.Clone(cf.Levels[0])
	sortL0(bySeq, false)
	return slices.Equal(bySeq, cf.Levels[0])
}

// SortL0 orders L0 files newest first as 8.10 does: by epoch, then by sequence; by sequence alone when a file has no
// epoch, as 6.4 and 6.29 always do. 8.10 decides on all levels of the family: in a State the order is in CF.Levels.
// Source: tikv/rocksdb 8.10.tikv db/version_builder.cc (NewestFirstByEpochNumber), 6.29.tikv (NewestFirstBySeqNo).
func SortL0(files []*FileMeta) {
	sortL0(files, !slices.ContainsFunc(files, func(f *FileMeta) bool { return f.Epoch == 0 }))
}

func sortL0(files []*FileMeta, byEpoch bool) {
	slices.SortFunc(files, func(a, b *FileMeta) int {
		epoch := 0
		if byEpoch {
			epoch = cmp.Compare(b.Epoch, a.Epoch)
		}
		return cmp.Or(epoch, cmp.Compare(b.LargestSeq, a.LargestSeq), cmp.Compare(b.SmallestSeq, a.SmallestSeq), cmp.Compare(b.Number, a.Number))
	})
}

// Equal tells whether two states mean the same: families, files with all their attributes, counters, tracked WALs. Path,
// Number, Records and TornTail do not count. The reason names the first difference.
func (s *State) Equal(o *State) (equal bool, reason string) {
	switch {
	case s.NextFile != o.NextFile || s.LastSeq != o.LastSeq || s.PrevLog != o.PrevLog || s.MinLogToKeep != o.MinLogToKeep ||
		s.MaxCF != o.MaxCF || s.DBID != o.DBID:
		return false, "counters"
	case len(s.WALs) != len(o.WALs) || len(s.CFs) != len(o.CFs):
		return false, "count of WALs or column families"
	}
	for n, size := range s.WALs {
		if got, there := o.WALs[n]; !there || got != size {
			return false, fmt.Sprintf("WAL %d", n)
		}
	}
	for i, a := range s.CFs {
		b := o.CFs[i]
		if a.ID != b.ID || a.Name != b.Name || a.Comparator != b.Comparator || a.LogNumber != b.LogNumber || len(a.files) != len(b.files) {
			return false, "column family " + a.Name
		}
		for n, p := range a.files {
			if q, there := b.files[n]; !there || q.level != p.level || !p.file.equal(q.file) {
				return false, fmt.Sprintf("file %d of column family %s", n, a.Name)
			}
		}
	}
	return true, ""
}

func (f *FileMeta) equal(o *FileMeta) bool {
	a, b := *f, *o
	same := ikey.Compare(a.Smallest, b.Smallest) == 0 && ikey.Compare(a.Largest, b.Largest) == 0 && bytes.Equal(a.UniqueID, b.UniqueID)
	a.Smallest, a.Largest, a.UniqueID = ikey.Key{}, ikey.Key{}, nil
	b.Smallest, b.Largest, b.UniqueID = ikey.Key{}, ikey.Key{}, nil
	return same && a.Number == b.Number && a.Size == b.Size && a.SmallestSeq == b.SmallestSeq && a.LargestSeq == b.LargestSeq &&
		a.Epoch == b.Epoch && a.OldestAncesterTime == b.OldestAncesterTime && a.FileCreationTime == b.FileCreationTime &&
		a.Checksum == b.Checksum && a.ChecksumFunc == b.ChecksumFunc && a.TailSize == b.TailSize &&
		a.CompensatedRangeDeletion == b.CompensatedRangeDeletion && a.OldestBlobFile == b.OldestBlobFile &&
		a.Temperature == b.Temperature && a.NeedCompaction == b.NeedCompaction && a.PathID == b.PathID
}
