package manifest

import (
	"encoding/binary"
	"math"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

const noSyncedSize = wal.NoSyncedSize

// uniqueIDSize is the only length of a unique id.
const uniqueIDSize = 16

// DecodeEdit decodes one MANIFEST record; the result does not alias b. An error is a *base.Error of class ErrCorrupt with
// Offset in b, or of class ErrUnsupported for what TiKV never writes; Path is empty. An empty record is an edit without
// any change.
func DecodeEdit(b []byte) (*Edit, error) { return decodeEdit(append([]byte(nil), b...)) }

// decodeEdit is DecodeEdit with a result that aliases b: the keys of a store with 100,000 files are in memory once.
func decodeEdit(b []byte) (*Edit, error) {
	d := &decoder{b: b, size: len(b)}
	e := &Edit{}
	for len(d.b) > 0 && d.err == nil {
		tag := d.v32("tag")
		if d.err == nil {
			d.field(e, tag)
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	return e, nil
}

// decoder reads primitives; after the first error it returns zero values.
type decoder struct {
	b     []byte
	size  int
	err   error
	files []FileMeta // memory for the next ones
	made  int
}

// file gives memory for one more file: a piece at a time, the larger the more files the edit has had.
func (d *decoder) file() *FileMeta {
	if len(d.files) == 0 {
		d.files = make([]FileMeta, min(d.made+1, 512))
		d.made += len(d.files)
	}
	f := &d.files[0]
	d.files = d.files[1:]
	return f
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = base.Corruptf("", int64(d.size-len(d.b)), format, args...)
		d.b = nil
	}
}

func (d *decoder) refuse(format string, args ...any) {
	if d.err == nil {
		d.err = base.Unsupportedf("", format, args...)
		d.b = nil
	}
}

func (d *decoder) v64(what string) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail("version edit: bad %s", what)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) v32(what string) uint32 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || n > binary.MaxVarintLen32 || v > math.MaxUint32 {
		d.fail("version edit: bad %s", what)
		return 0
	}
	d.b = d.b[n:]
	return uint32(v)
}

func (d *decoder) lp(what string) []byte {
	n := d.v32(what)
	if d.err != nil || uint64(n) > uint64(len(d.b)) {
		d.fail("version edit: bad %s", what)
		return nil
	}
	s := d.b[:n:n]
	d.b = d.b[n:]
	return s
}

func (d *decoder) str(what string) *string { return Ptr(string(d.lp(what))) }

func (d *decoder) level() int {
	l := d.v32("level")
	if l >= NumLevels {
		d.refuse("version edit: level %d, TiKV has %d", l, NumLevels)
	}
	return int(l)
}

// key reads a boundary. RocksDB checks its type byte as well.
func (d *decoder) key(what string) ikey.Key {
	k, ok := ikey.Decode(d.lp(what))
	switch {
	case d.err != nil:
	case !ok:
		d.fail("version edit: %s is shorter than a trailer", what)
	default:
		switch k.Kind {
		case ikey.KindDelete, ikey.KindPut, ikey.KindSingleDelete, ikey.KindRangeDelete, ikey.KindBlobIndex:
		case ikey.KindMerge:
			d.refuse("version edit: %s is a merge record", what)
		default:
			d.fail("version edit: %s has the unknown type 0x%02X", what, uint8(k.Kind))
		}
	}
	k.User = k.User[:len(k.User):len(k.User)] // what follows is the trailer
	return k
}

func (d *decoder) field(e *Edit, tag uint32) {
	switch tag {
	case tagComparator:
		e.Comparator = d.str("comparator")
	case tagLogNumber:
		e.LogNumber = Ptr(d.v64("log number"))
	case tagNextFileNumber:
		e.NextFileNumber = Ptr(d.v64("next file number"))
	case tagLastSequence:
		e.LastSequence = Ptr(d.v64("last sequence"))
	case tagCompactCursor:
		e.CompactCursors = append(e.CompactCursors, CompactCursor{Level: d.level(), Key: d.key("compact cursor")})
	case tagDeletedFile:
		e.DeletedFiles = append(e.DeletedFiles, DeletedFile{Level: d.level(), Number: d.v64("deleted file")})
	case tagNewFile, tagNewFile2, tagNewFile3, tagNewFile4:
		d.newFile(e, tag)
	case tagPrevLogNumber:
		e.PrevLogNumber = Ptr(d.v64("previous log number"))
	case tagMinLogToKeep:
		e.MinLogNumberToKeep = Ptr(d.v64("min log number to keep"))
	case tagColumnFamily:
		e.CF = d.v32("column family id")
	case tagColumnFamilyAdd:
		e.AddCF = d.str("column family name")
	case tagColumnFamilyDrop:
		e.DropCF = true
	case tagMaxColumnFamily:
		e.MaxColumnFamily = Ptr(d.v32("max column family"))
	case tagInAtomicGroup:
		e.AtomicRemaining = Ptr(d.v32("atomic group"))
	case tagBlobFileAddition, tagBlobFileGarbage:
		d.refuse("version edit: native blob file (tag %d)", tag)
	case tagDBID:
		e.DBID = d.str("db id")
	case tagWALAddition:
		e.WALAdditions = append(e.WALAdditions, d.walAddition())
	case tagWALAddition2:
		sub := d.nested("WAL addition")
		e.WALAdditions = append(e.WALAdditions, sub.walAddition())
		d.join(sub)
	case tagWALDeletion:
		e.WALDeletion = Ptr(d.v64("WAL deletion"))
	case tagWALDeletion2:
		sub := d.nested("WAL deletion")
		e.WALDeletion = Ptr(sub.v64("WAL deletion"))
		d.join(sub)
	case tagFullHistoryTsLow:
		d.refuse("version edit: user-defined timestamps (full_history_ts_low)")
	case tagPersistTimestamps:
		v := d.lp("persist user timestamps")
		if d.err == nil && len(v) != 1 {
			d.fail("version edit: persist user timestamps of %d bytes", len(v))
			return
		}
		if d.err == nil {
			e.PersistTimestamps = Ptr(v[0] == 1)
		}
	default:
		if tag&tagSafeIgnoreMask == 0 {
			d.fail("version edit: unknown tag %d", tag)
			return
		}
		d.lp("ignorable field")
	}
}

// nested opens a length-prefixed payload; join takes its error over. What is left in it is for later versions.
func (d *decoder) nested(what string) *decoder {
	b := d.lp(what)
	return &decoder{b: b, size: d.size - len(d.b), err: d.err}
}

func (d *decoder) join(sub *decoder) {
	if d.err == nil && sub.err != nil {
		d.err, d.b = sub.err, nil
	}
}

func (d *decoder) walAddition() WALAddition {
	a := WALAddition{Number: d.v64("WAL number"), SyncedSize: noSyncedSize}
	for d.err == nil {
		switch tag := d.v32("WAL addition tag"); {
		case d.err != nil:
		case tag == walTerminate:
			return a
		case tag == walSyncedSize:
			a.SyncedSize = d.v64("WAL synced size")
		default:
			d.fail("version edit: unknown WAL addition tag %d", tag)
		}
	}
	return a
}

func (d *decoder) newFile(e *Edit, tag uint32) {
	f := d.file()
	f.ChecksumFunc = ChecksumFuncNone
	level := d.level()
	f.Number = d.v64("file number")
	if tag == tagNewFile3 {
		d.pathID(uint64(d.v32("path id")))
	}
	f.Size = d.v64("file size")
	f.Smallest, f.Largest = d.key("smallest key"), d.key("largest key")
	if tag != tagNewFile {
		f.SmallestSeq, f.LargestSeq = d.v64("smallest sequence"), d.v64("largest sequence")
	}
	for tag == tagNewFile4 && d.err == nil {
		custom := d.v32("custom tag")
		if custom == customTerminate {
			break
		}
		d.custom(e, f, custom)
	}
	e.NewFiles = append(e.NewFiles, NewFile{Level: level, File: f})
}

func (d *decoder) pathID(id uint64) {
	if d.err == nil && id != 0 {
		d.refuse("version edit: path id %d; TiKV has one data path", id)
	}
}

func (d *decoder) custom(e *Edit, f *FileMeta, tag uint32) {
	value := d.lp("custom field")
	if d.err != nil {
		return
	}
	sub := &decoder{b: value, size: d.size - len(d.b)}
	defer d.join(sub)
	switch tag {
	case customNeedCompaction:
		f.NeedCompaction = sub.u8("need compaction") == 1
	case customMinLogToKeepHack:
		if len(value) != 8 {
			sub.fail("version edit: min log number to keep of %d bytes", len(value))
			return
		}
		e.MinLogNumberToKeep = Ptr(binary.LittleEndian.Uint64(value))
	case customOldestBlobFile:
		f.OldestBlobFile = sub.v64("oldest blob file")
	case customOldestAncesterTime:
		f.OldestAncesterTime = sub.v64("oldest ancester time")
	case customFileCreationTime:
		f.FileCreationTime = sub.v64("file creation time")
	case customFileChecksum:
		f.Checksum = string(value)
	case customFileChecksumFunc:
		if f.ChecksumFunc = ChecksumFuncNone; string(value) != ChecksumFuncNone {
			f.ChecksumFunc = string(value)
		}
	case customTemperature:
		f.Temperature = sub.u8("temperature")
	case customMinTimestamp, customMaxTimestamp:
		if len(value) > 0 {
			sub.refuse("version edit: user-defined timestamps (custom field %d)", tag)
		}
	case customUniqueID:
		if len(value) != uniqueIDSize {
			sub.fail("version edit: unique id of %d bytes", len(value))
			return
		}
		f.UniqueID = value
	case customEpochNumber:
		f.Epoch = sub.v64("epoch number")
	case customRangeDeletionSize:
		f.CompensatedRangeDeletion = sub.v64("range deletion size")
	case customTailSize:
		f.TailSize = sub.v64("tail size")
	case customTimestampsPersisted:
		if sub.u8("timestamps persisted") != 1 {
			sub.refuse("version edit: user-defined timestamps that are not persisted")
		}
	case customPathID:
		id := sub.u8("path id")
		if id > 3 {
			sub.fail("version edit: path id %d", id)
		}
		sub.pathID(uint64(id))
	default:
		if tag&customNonSafeIgnoreMask != 0 {
			sub.fail("version edit: unknown custom field %d, which must not be skipped", tag)
		}
	}
}

// u8 reads a field of exactly one byte.
func (d *decoder) u8(what string) uint8 {
	if len(d.b) != 1 {
		d.fail("version edit: %s of %d bytes", what, len(d.b))
		return 0
	}
	v := d.b[0]
	d.b = nil
	return v
}
