package titan

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// File is one live blob file as titandb's MANIFEST describes it.
type File struct {
	Number uint64
	CF     uint32 // column family id of the kv database
	Size   uint64 // bytes, footer included
	// Entries, Level, BlockSize, Smallest and Largest are zero for a file that an old Titan added (tag 11).
	Entries   uint64
	Level     uint32
	BlockSize uint64 // alignment of records, 0: none
	Smallest  []byte // user keys, both inclusive
	Largest   []byte
	HasMeta   bool // false for tag 11: the fields above are unknown, not zero
}

// Manifest is the state that titandb's MANIFEST adds up to.
type Manifest struct {
	Path       string
	NextNumber uint64          // next file number
	CFs        []uint32        // every column family named, ascending
	Files      map[uint64]File // live files by number
	Torn       int64           // bytes of an incomplete last record, ignored as Titan does
}

// Sorted lists the live files by number.
func (m *Manifest) Sorted() []File {
	return slices.SortedFunc(maps.Values(m.Files), func(a, b File) int { return cmp.Compare(a.Number, b.Number) })
}

// LoadManifest reads the MANIFEST that <dir>/CURRENT names. Without CURRENT the result is nil: Titan was never on.
func LoadManifest(fs base.FS, dir string) (*Manifest, error) {
	current := fs.PathJoin(dir, "CURRENT")
	if ok, err := base.Exists(fs, current); err != nil || !ok {
		return nil, err
	}
	b, err := base.ReadFile(fs, current)
	if err != nil {
		return nil, err
	}
	name, ok := strings.CutSuffix(string(b), "\n")
	digits, isManifest := strings.CutPrefix(name, "MANIFEST-")
	if !ok || !isManifest || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return nil, base.Corruptf(current, 0, "does not name a MANIFEST")
	}
	path := fs.PathJoin(dir, name)
	if b, err = base.ReadFile(fs, path); err != nil {
		return nil, err
	}
	return ParseManifest(path, b)
}

// ParseManifest decodes a whole MANIFEST of titandb; path is for errors only.
func ParseManifest(path string, b []byte) (*Manifest, error) {
	m := &Manifest{Path: path, Files: map[uint64]File{}}
	torn, err := eachRecord(path, b, func(off int64, record []byte) error {
		if err := m.apply(record); err != nil {
			return base.Corruptf(path, off, "%v", err)
		}
		return nil
	})
	m.Torn = torn
	if err != nil {
		return nil, err
	}
	return m, nil
}

// eachRecord calls fn with every record and its offset. A record cut off by the end of the file is dropped, as the engine
// does at open, and its length returned. Any other damage is an error: a lost edit would turn a live blob file into a
// missing one.
func eachRecord(path string, b []byte, fn func(off int64, record []byte) error) (torn int64, err error) {
	r := wal.NewReader(bytes.NewReader(b), path, 0)
	for {
		record, off, err := r.Next()
		var damage *wal.Damage
		switch {
		case err == nil:
			if err := fn(off, record); err != nil {
				return 0, err
			}
		case errors.Is(err, io.EOF):
			return torn, nil
		case errors.As(err, &damage) && damage.Kind.Torn():
			torn = int64(len(b)) - damage.Offset
		case errors.As(err, &damage):
			return 0, base.Corruptf(path, damage.Offset, "%s", damage.Reason)
		default:
			return 0, err
		}
	}
}

// Edit of titandb's MANIFEST: fields in any order, each a varint32 tag and its payload (tikv/titan master
// src/version_edit.cc, src/blob_format.cc BlobFileMeta). lp is a varint32 length and that many bytes.
//
//	+--------------------+---------------------------------------------------------------------------+
//	|  1 NextFileNumber  | varint64, must not decrease                                               |
//	| 10 ColumnFamilyID  | varint32, of all files of this edit; absent: 0                            |
//	| 11 AddedBlobFile   | varint64 number | varint64 size                                           |
//	| 12 DeletedBlobFile | varint64 number                                                           |
//	| 13 AddedBlobFileV2 | varint64 number, size, entries | varint32 level | lp smallest, largest    |
//	| 14 AddedBlobFileV3 | varint64 number, size, entries | varint32 level | varint64 block_size | lp |
//	|                    | smallest, largest                                                         |
//	+--------------------+---------------------------------------------------------------------------+
const (
	tagNextFileNumber = 1
	tagColumnFamily   = 10
	tagAddedV1        = 11
	tagDeleted        = 12
	tagAddedV2        = 13
	tagAddedV3        = 14
)

// apply adds one edit. The column family applies to the whole edit wherever its tag stands.
func (m *Manifest) apply(record []byte) error {
	d := decoder{b: record}
	var cf uint32
	var added []File
	var deleted []uint64
	for len(d.b) > 0 && d.err == nil {
		switch tag := d.u32(); tag {
		case tagNextFileNumber:
			n := d.u64()
			if d.err == nil && n < m.NextNumber {
				return fmt.Errorf("next file number goes back from %d to %d", m.NextNumber, n)
			}
			m.NextNumber = n
		case tagColumnFamily:
			cf = d.u32()
		case tagAddedV1:
			added = append(added, File{Number: d.u64(), Size: d.u64()})
		case tagDeleted:
			deleted = append(deleted, d.u64())
		case tagAddedV2, tagAddedV3:
			f := File{Number: d.u64(), Size: d.u64(), Entries: d.u64(), Level: d.u32(), HasMeta: true}
			if tag == tagAddedV3 {
				f.BlockSize = d.u64()
			}
			f.Smallest, f.Largest = d.bytes(), d.bytes()
			added = append(added, f)
		default:
			if d.err == nil {
				return fmt.Errorf("edit has unknown tag %d", tag)
			}
		}
	}
	if d.err != nil {
		return d.err
	}
	if i, found := slices.BinarySearch(m.CFs, cf); !found {
		m.CFs = slices.Insert(m.CFs, i, cf)
	}
	for _, f := range added {
		if _, dup := m.Files[f.Number]; dup {
			return fmt.Errorf("blob file %d is added twice", f.Number)
		}
		f.CF = cf
		m.Files[f.Number] = f
	}
	for _, n := range deleted {
		f, ok := m.Files[n]
		if !ok || f.CF != cf {
			return fmt.Errorf("blob file %d of column family %d is deleted but not there", n, cf)
		}
		delete(m.Files, n)
	}
	return nil
}

var errShort = errors.New("edit ends inside a field")

// decoder reads varints and strings off the front of b; the first failure sticks.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) u64() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err, d.b = errShort, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) u32() uint32 {
	v := d.u64()
	if v > 1<<32-1 {
		d.err, d.b = fmt.Errorf("%d does not fit 32 bits", v), nil
		return 0
	}
	return uint32(v)
}

func (d *decoder) bytes() []byte {
	n := d.u32()
	if d.err == nil && uint64(n) > uint64(len(d.b)) {
		d.err, d.b = errShort, nil
	}
	if d.err != nil {
		return nil
	}
	s := slices.Clone(d.b[:n])
	d.b = d.b[n:]
	return s
}
