package manifest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// A version edit that stock RocksDB accepted: CF 2, log 31, prev 0, next 40, last sequence 1000, file 30 at L0.
func TestEditVector(t *testing.T) {
	raw := unhex(t, `c80102 021f 0900 0328 04e807 67 00 1e d209 09 6101 05000000000000 09 7a00 09000000000000 05 09
		05 05 80e2cfaa06  06 05 80e2cfaa06  0d 01 07  07 00  08 07 556e6b6e6f776e  01`)
	framed := append(unhex(t, "174f1a94 4400 01"), raw...)
	if !bytes.Equal(frame(t, raw), framed) {
		t.Errorf("framed as %X", frame(t, raw))
	}
	want := &Edit{CF: 2, LogNumber: Ptr(uint64(31)), PrevLogNumber: Ptr(uint64(0)), NextFileNumber: Ptr(uint64(40)), LastSequence: Ptr(uint64(1000)),
		NewFiles: []NewFile{{Level: 0, File: &FileMeta{Number: 30, Size: 1234, Smallest: ikey.Key{User: []byte("a"), Seq: 5, Kind: ikey.KindPut},
			Largest: ikey.Key{User: []byte("z"), Seq: 9, Kind: ikey.KindDelete}, SmallestSeq: 5, LargestSeq: 9, OldestAncesterTime: 1700000000,
			FileCreationTime: 1700000000, Epoch: 7, ChecksumFunc: "Unknown"}}}}
	got, err := DecodeEdit(raw)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// The same bytes with the column family behind the file, which is RocksDB's own order.
	if canonical := append(bytes.Clone(raw[3:]), raw[:3]...); !bytes.Equal(want.Encode(), canonical) {
		t.Errorf("encoded %X, want %X", want.Encode(), canonical)
	}
}

func TestEditRoundTrip(t *testing.T) {
	full := table(7, "a", "b", 3, 9)
	full.Epoch, full.UniqueID, full.TailSize, full.CompensatedRangeDeletion = 4, bytes.Repeat([]byte{7}, 16), 300, 20
	full.OldestBlobFile, full.Temperature, full.NeedCompaction, full.Checksum, full.ChecksumFunc = 5, 2, true, "sum", "crc"
	full.Largest = ikey.Key{User: []byte("b"), Seq: ikey.MaxSeq, Kind: ikey.KindRangeDelete}
	for _, e := range []*Edit{
		{},
		{DBID: Ptr("id"), Comparator: Ptr(Comparator), AddCF: Ptr("write"), CF: 300, LogNumber: Ptr(uint64(1) << 40), PersistTimestamps: Ptr(true)},
		{DropCF: true, CF: 4, MaxColumnFamily: Ptr(uint32(9)), MinLogNumberToKeep: Ptr(uint64(8))},
		{WALAdditions: []WALAddition{{4, wal.NoSyncedSize}, {5, 0}, {6, 1 << 33}}},
		{WALDeletion: Ptr(uint64(12)), AtomicRemaining: Ptr(uint32(3))},
		{NewFiles: []NewFile{{6, full}, {0, table(8, "", "", 0, 0)}}, DeletedFiles: []DeletedFile{{0, 7}, {5, 1 << 30}}, CompactCursors: []CompactCursor{{2, full.Smallest}}},
	} {
		got, err := DecodeEdit(e.Encode())
		if err != nil {
			t.Errorf("%+v: %v", e, err)
			continue
		}
		if d := cmp.Diff(e, got, cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
	}
}

func TestDecodeEdit(t *testing.T) {
	const (
		key  = " 09 61 01 05000000000000 "
		file = "67 00 1e d209" + key + key + "05 05 "
	)
	for _, tc := range []struct {
		name, hex        string
		corrupt, refused string
		want             *Edit // checked when neither is set
	}{
		{name: "empty record", want: &Edit{}},
		{name: "unknown tag with bit 13 is skipped", hex: "8a 40 7f" + strings.Repeat("00", 127) + "0405", want: nil},
		{name: "deprecated blob tags are skipped", hex: "8240 02 0102 8340 00 0407", want: &Edit{LastSequence: Ptr(uint64(7))}},
		{name: "unknown tag without bit 13", hex: "0b 00", corrupt: "unknown tag 11"},
		{name: "WAL tags without length", hex: "8440 04 02 0a 01 8540 03", want: &Edit{WALAdditions: []WALAddition{{4, 10}}, WALDeletion: Ptr(uint64(3))}},
		{name: "WAL tags with length", hex: "8740 04 04 02 0a 01 8840 01 03", want: &Edit{WALAdditions: []WALAddition{{4, 10}}, WALDeletion: Ptr(uint64(3))}},
		{name: "min log number hidden in a file", hex: file + "03 08 2a00000000000000 01", want: nil},
		{name: "tag cut", hex: "c8", corrupt: "bad tag"},
		{name: "number cut", hex: "02 80", corrupt: "bad log number"},
		{name: "name past the end", hex: "01 7f 61", corrupt: "bad comparator"},
		{name: "file without terminator", hex: file, corrupt: "bad custom tag"},
		{name: "boundary below a trailer", hex: "67 00 1e d209 03 616101", corrupt: "shorter than a trailer"},
		{name: "boundary of unknown type", hex: "67 00 1e d209 09 61 55 05000000000000", corrupt: "unknown type 0x55"},
		{name: "boundary of a merge", hex: "67 00 1e d209 09 61 02 05000000000000", refused: "merge"},
		{name: "level 7", hex: "06 07 01", refused: "level 7"},
		{name: "custom field with bit 6", hex: file + "42 00 01", corrupt: "unknown custom field 66"},
		{name: "custom field without bit 6", hex: file + "11 01 61 01", want: nil},
		{name: "unique id of 8 bytes", hex: file + "0c 08 0000000000000000 01", corrupt: "unique id of 8 bytes"},
		{name: "path id 1", hex: file + "41 01 01 01", refused: "path id 1"},
		{name: "path id 4", hex: file + "41 01 04 01", corrupt: "path id 4"},
		{name: "path id in the old form", hex: "66 00 1e 01 d209", refused: "path id 1"},
		{name: "min timestamp", hex: file + "0a 01 61 01", refused: "timestamps"},
		{name: "empty min timestamp", hex: file + "0a 00 01", want: nil},
		{name: "timestamps not persisted", hex: file + "10 01 00 01", refused: "not persisted"},
		{name: "full history", hex: "8640 01 61", refused: "full_history_ts_low"},
		{name: "native blob file", hex: "9003 01", refused: "tag 400"},
		{name: "native blob garbage", hex: "9103 01", refused: "tag 401"},
		{name: "unknown WAL addition tag", hex: "8740 02 04 09", corrupt: "WAL addition tag 9"},
		{name: "WAL addition cut", hex: "8740 01 04", corrupt: "WAL addition tag"},
		{name: "old file forms", hex: "07 01 1e d209" + key + key + "64 02 1f d209" + key + key + "0507 66 03 20 00 d209" + key + key + "0507", want: nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e, err := DecodeEdit(unhex(t, tc.hex))
			if (tc.corrupt != "") != errors.Is(err, base.ErrCorrupt) || (tc.refused != "") != errors.Is(err, base.ErrUnsupported) ||
				err != nil && !strings.Contains(err.Error(), tc.corrupt+tc.refused) {
				t.Fatalf("error %v, want %q", err, tc.corrupt+tc.refused)
			}
			if err == nil && tc.want != nil {
				if d := cmp.Diff(tc.want, e); d != "" {
					t.Error(d)
				}
			}
		})
	}
	e, err := DecodeEdit(unhex(t, file+"03 08 2a00000000000000 01"))
	if err != nil || *e.MinLogNumberToKeep != 42 {
		t.Errorf("min log number %v, %v", e, err)
	}
	if e, err = DecodeEdit(unhex(t, "8a407f"+strings.Repeat("00", 127)+"0405")); err != nil || *e.LastSequence != 5 {
		t.Errorf("tag behind a skipped one: %v, %v", e, err)
	}
	if e, err = DecodeEdit(unhex(t, "07 01 1e d209"+key+key+"64 02 1f d209"+key+key+"0507 66 03 20 00 d209"+key+key+"0507")); err != nil || len(e.NewFiles) != 3 ||
		e.NewFiles[0].File.LargestSeq != 0 || e.NewFiles[1].File.LargestSeq != 7 || e.NewFiles[2].File.Number != 32 {
		t.Errorf("old file forms: %v, %v", e, err)
	}
}

func FuzzDecodeEdit(f *testing.F) {
	f.Add(encode(&Edit{CF: 3, NewFiles: []NewFile{{2, table(9, "k", "l", 1, 4)}}, DeletedFiles: []DeletedFile{{0, 1}}})[0])
	f.Add(counters(5, 6).Encode())
	f.Add(encode(&Edit{WALAdditions: []WALAddition{{4, 10}}, WALDeletion: Ptr(uint64(3)), AtomicRemaining: Ptr(uint32(1))})[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEdit(b)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		again, err := DecodeEdit(e.Encode())
		if err != nil {
			t.Fatalf("own encoding: %v", err)
		}
		if d := cmp.Diff(e, again, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}
