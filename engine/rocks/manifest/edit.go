package manifest

import (
	"encoding/binary"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// One MANIFEST record is one version edit: tags in any order, each with its payload. v32, v64 are LEB128 varints, lp(x) a
// v32 length and the bytes, ikey an internal key.
//
//	tag (v32)                     payload
//	   1  Comparator              lp(name)
//	   2  LogNumber               v64, per column family
//	   3  NextFileNumber          v64, whole directory, as are 4, 9, 10, 203
//	   4  LastSequence            v64
//	   5  CompactCursor           v32 level, lp(ikey)
//	   6  DeletedFile             v32 level, v64 number
//	   7  NewFile                 v32 level, v64 number, v64 size, lp(smallest ikey), lp(largest ikey)
//	   9  PrevLogNumber           v64
//	  10  MinLogNumberToKeep      v64
//	 100  NewFile2                as 7, v64 smallest sequence, v64 largest sequence
//	 102  NewFile3                as 100 with v32 path id after the number
//	 103  NewFile4                as 100, then { v32 custom tag, lp(value) }*, v32 1
//	 200  ColumnFamily            v32 id of the family of this edit; absent: 0
//	 201  ColumnFamilyAdd         lp(name)
//	 202  ColumnFamilyDrop        -
//	 203  MaxColumnFamily         v32
//	 300  InAtomicGroup           v32 edits of the group that follow
//	 400, 401                     native BlobDB, refused
//	8193  DbId                    lp
//	8196  WalAddition             WalAddition payload without a length
//	8197  WalDeletion             v64 without a length
//	8198  FullHistoryTsLow        lp, refused
//	8199  WalAddition2            lp(v64 number [v32 2, v64 synced size] v32 1)
//	8200  WalDeletion2            lp(v64 number)
//	8201  PersistUserTimestamps   lp(u8)
//	other with bit 13             lp, skipped; without bit 13: the engine does not open
//
// Source: tikv/rocksdb 6.4.tikv, 6.29.tikv, 8.10.tikv db/version_edit.h (Tag, NewFileCustomTag), db/version_edit.cc
// (EncodeTo, DecodeFrom), db/wal_edit.cc.
const (
	tagComparator        = 1
	tagLogNumber         = 2
	tagNextFileNumber    = 3
	tagLastSequence      = 4
	tagCompactCursor     = 5
	tagDeletedFile       = 6
	tagNewFile           = 7
	tagPrevLogNumber     = 9
	tagMinLogToKeep      = 10
	tagNewFile2          = 100
	tagNewFile3          = 102
	tagNewFile4          = 103
	tagColumnFamily      = 200
	tagColumnFamilyAdd   = 201
	tagColumnFamilyDrop  = 202
	tagMaxColumnFamily   = 203
	tagInAtomicGroup     = 300
	tagBlobFileAddition  = 400
	tagBlobFileGarbage   = 401
	tagSafeIgnoreMask    = 1 << 13
	tagDBID              = 8193
	tagWALAddition       = 8196
	tagWALDeletion       = 8197
	tagFullHistoryTsLow  = 8198
	tagWALAddition2      = 8199
	tagWALDeletion2      = 8200
	tagPersistTimestamps = 8201
)

// Custom fields of NewFile4.
const (
	customTerminate           = 1
	customNeedCompaction      = 2
	customMinLogToKeepHack    = 3 // u64 little endian; read as tag 10
	customOldestBlobFile      = 4
	customOldestAncesterTime  = 5
	customFileCreationTime    = 6
	customFileChecksum        = 7
	customFileChecksumFunc    = 8
	customTemperature         = 9
	customMinTimestamp        = 10
	customMaxTimestamp        = 11
	customUniqueID            = 12
	customEpochNumber         = 13
	customRangeDeletionSize   = 14
	customTailSize            = 15
	customTimestampsPersisted = 16
	customNonSafeIgnoreMask   = 64
	customPathID              = 65
)

const (
	walTerminate  = 1
	walSyncedSize = 2
)

// NumLevels is the number of levels of every column family of TiKV.
const NumLevels = 7

// Comparator is the only comparator that TiKV uses.
const Comparator = "leveldb.BytewiseComparator"

// ChecksumFuncNone is the file checksum function name of a store without file checksums, as TiKV's are.
const ChecksumFuncNone = "Unknown"

// FileMeta is what a MANIFEST says about one SST. Values are immutable once they are part of an Edit or a State: both share
// them by pointer. Invariant: SmallestSeq <= LargestSeq.
type FileMeta struct {
	Number uint64
	Size   uint64 // bytes
	// Smallest and Largest are internal keys that cover every record and range tombstone of the file. The end of a
	// tombstone that is the boundary has the trailer ikey.RangeDelSentinel and is exclusive. Compare with records by user
	// key and sequence only: Titan turns a Put into a BlobIndex below the flush that made the boundary.
	Smallest, Largest        ikey.Key
	SmallestSeq, LargestSeq  uint64
	Epoch                    uint64 // 0: absent
	OldestAncesterTime       uint64 // unix seconds, 0: unknown
	FileCreationTime         uint64 // unix seconds, 0: unknown
	Checksum                 string
	ChecksumFunc             string
	UniqueID                 []byte // 16 bytes or empty; leave empty in files that the engine did not write
	TailSize                 uint64 // bytes, 0: absent
	CompensatedRangeDeletion uint64 // bytes, 0: absent
	OldestBlobFile           uint64 // native BlobDB, 0: none
	Temperature              uint8
	NeedCompaction           bool
	// PathID is always 0: others are refused.
	PathID uint32
}

// DeletedFile takes a file off a level.
type DeletedFile struct {
	Level  int
	Number uint64
}

// NewFile puts a file on a level.
type NewFile struct {
	Level int
	File  *FileMeta
}

// CompactCursor is where round-robin compaction of a level goes on. TiKV does not use it.
type CompactCursor struct {
	Level int
	Key   ikey.Key
}

// WALAddition tells that a WAL exists, and how much of it was synced when it was closed.
type WALAddition struct {
	Number     uint64
	SyncedSize uint64 // bytes; wal.NoSyncedSize when only the creation is recorded
}

// Edit is one version edit. Nil and empty fields are absent.
//
// An edit that adds or drops a column family, or that carries a WAL addition or deletion, has no effect on files: RocksDB
// looks at the first of these only, and at the counters.
type Edit struct {
	DBID               *string
	Comparator         *string
	LogNumber          *uint64
	PrevLogNumber      *uint64
	NextFileNumber     *uint64
	LastSequence       *uint64
	MinLogNumberToKeep *uint64
	MaxColumnFamily    *uint32
	CompactCursors     []CompactCursor
	DeletedFiles       []DeletedFile
	NewFiles           []NewFile
	WALAdditions       []WALAddition
	WALDeletion        *uint64 // forget tracked WALs below this number
	CF                 uint32  // the column family of LogNumber, files and cursors
	AddCF              *string
	DropCF             bool
	AtomicRemaining    *uint32 // edits of the atomic group that follow
	PersistTimestamps  *bool
}

// Ptr returns a pointer to v, for the optional fields of an Edit.
func Ptr[T any](v T) *T { return &v }

// Encode gives the bytes of the edit in RocksDB's order of tags: file tags before the column family.
func (e *Edit) Encode() []byte {
	var w editWriter
	w.str(tagDBID, e.DBID)
	w.str(tagComparator, e.Comparator)
	w.num(tagLogNumber, e.LogNumber)
	w.num(tagPrevLogNumber, e.PrevLogNumber)
	w.num(tagNextFileNumber, e.NextFileNumber)
	if e.MaxColumnFamily != nil {
		w.v(tagMaxColumnFamily, uint64(*e.MaxColumnFamily))
	}
	w.num(tagMinLogToKeep, e.MinLogNumberToKeep)
	w.num(tagLastSequence, e.LastSequence)
	for _, c := range e.CompactCursors {
		w.v(tagCompactCursor, uint64(c.Level))
		w.lp(c.Key.Encode())
	}
	for _, d := range e.DeletedFiles {
		w.v(tagDeletedFile, uint64(d.Level), d.Number)
	}
	for _, n := range e.NewFiles {
		w.newFile(n)
	}
	for _, a := range e.WALAdditions {
		w.v(tagWALAddition2)
		w.lp(a.encode())
	}
	if e.WALDeletion != nil {
		w.v(tagWALDeletion2)
		w.lp(binary.AppendUvarint(nil, *e.WALDeletion))
	}
	if e.CF != 0 {
		w.v(tagColumnFamily, uint64(e.CF))
	}
	w.str(tagColumnFamilyAdd, e.AddCF)
	if e.DropCF {
		w.v(tagColumnFamilyDrop)
	}
	if e.AtomicRemaining != nil {
		w.v(tagInAtomicGroup, uint64(*e.AtomicRemaining))
	}
	if e.PersistTimestamps != nil {
		w.v(tagPersistTimestamps)
		w.lp([]byte{boolByte(*e.PersistTimestamps)})
	}
	return w.b
}

type editWriter struct{ b []byte }

func (w *editWriter) v(vs ...uint64) {
	for _, v := range vs {
		w.b = binary.AppendUvarint(w.b, v)
	}
}

func (w *editWriter) lp(b []byte) {
	w.v(uint64(len(b)))
	w.b = append(w.b, b...)
}

func (w *editWriter) num(tag uint64, v *uint64) {
	if v != nil {
		w.v(tag, *v)
	}
}

func (w *editWriter) str(tag uint64, s *string) {
	if s != nil {
		w.v(tag)
		w.lp([]byte(*s))
	}
}

func (w *editWriter) custom(tag uint64, value []byte) {
	w.v(tag)
	w.lp(value)
}

func (w *editWriter) customNum(tag, v uint64) { w.custom(tag, binary.AppendUvarint(nil, v)) }

func (w *editWriter) newFile(n NewFile) {
	f := n.File
	w.v(tagNewFile4, uint64(n.Level), f.Number, f.Size)
	w.lp(f.Smallest.Encode())
	w.lp(f.Largest.Encode())
	w.v(f.SmallestSeq, f.LargestSeq)
	w.customNum(customOldestAncesterTime, f.OldestAncesterTime)
	w.customNum(customFileCreationTime, f.FileCreationTime)
	if f.Epoch != 0 {
		w.customNum(customEpochNumber, f.Epoch)
	}
	name := f.ChecksumFunc
	if name == "" {
		name = ChecksumFuncNone
	}
	w.custom(customFileChecksum, []byte(f.Checksum))
	w.custom(customFileChecksumFunc, []byte(name))
	if f.Temperature != 0 {
		w.custom(customTemperature, []byte{f.Temperature})
	}
	if f.NeedCompaction {
		w.custom(customNeedCompaction, []byte{1})
	}
	if f.OldestBlobFile != 0 {
		w.customNum(customOldestBlobFile, f.OldestBlobFile)
	}
	if len(f.UniqueID) > 0 {
		w.custom(customUniqueID, f.UniqueID)
	}
	if f.CompensatedRangeDeletion != 0 {
		w.customNum(customRangeDeletionSize, f.CompensatedRangeDeletion)
	}
	if f.TailSize != 0 {
		w.customNum(customTailSize, f.TailSize)
	}
	w.v(customTerminate)
}

func (a WALAddition) encode() []byte {
	var w editWriter
	w.v(a.Number)
	if a.SyncedSize != noSyncedSize {
		w.v(walSyncedSize, a.SyncedSize)
	}
	w.v(walTerminate)
	return w.b
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
