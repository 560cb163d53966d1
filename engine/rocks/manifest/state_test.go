package manifest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

func group(remaining uint32, e Edit) *Edit { e.AtomicRemaining = &remaining; return &e }

// The rebuild rules, one story each.
func TestLoad(t *testing.T) {
	add := func(level int, n uint64) *Edit {
		return &Edit{NewFiles: []NewFile{{level, table(n, "a", "c", n, n)}}}
	}
	del := func(level int, n uint64) *Edit { return &Edit{DeletedFiles: []DeletedFile{{level, n}}} }
	move := func(from, to int, n uint64) *Edit {
		return &Edit{DeletedFiles: []DeletedFile{{from, n}}, NewFiles: []NewFile{{to, table(n, "a", "c", n, n)}}}
	}
	base0 := counters(10, 100)
	const tail = "next=10 last=100 prev=0 min=0 maxcf=0 wals=map[] torn=false"
	for _, tc := range []struct {
		name             string
		edits            []*Edit
		want             string
		corrupt, refused string
	}{
		{name: "nothing but counters", edits: []*Edit{base0}, want: "0:default log=3\n" + tail},
		{name: "L0 newest first, deeper by key", edits: []*Edit{base0, add(0, 5), add(0, 7), add(0, 6), {NewFiles: []NewFile{{3, table(8, "m", "n", 1, 1)}, {3, table(9, "b", "c", 2, 2)}}}},
			want: "0:default log=3 L0/7[a..c] L0/6[a..c] L0/5[a..c] L3/9[b..c] L3/8[m..n]\n" + tail},
		{name: "a trivial move deletes first and adds then", edits: []*Edit{base0, add(0, 5), move(0, 6, 5)}, want: "0:default log=3 L6/5[a..c]\n" + tail},
		{name: "deleting from the wrong level", edits: []*Edit{base0, add(0, 5), del(1, 5)}, corrupt: "deletes file 5 from level 1 of column family default, it is on level 0"},
		{name: "deleting what is not there", edits: []*Edit{base0, del(0, 5)}, corrupt: "deletes file 5"},
		{name: "adding twice", edits: []*Edit{base0, add(0, 5), add(1, 5)}, corrupt: "adds file 5"},
		{name: "families", edits: []*Edit{base0, {CF: 2, AddCF: Ptr("write"), LogNumber: Ptr(uint64(4)), Comparator: Ptr(Comparator)}, {CF: 1, AddCF: Ptr("lock")}, {CF: 2, NewFiles: add(0, 5).NewFiles}},
			want: "0:default log=3\n1:lock log=0\n2:write log=4 L0/5[a..c]\nnext=10 last=100 prev=0 min=0 maxcf=2 wals=map[] torn=false"},
		{name: "one file number in two families", edits: []*Edit{base0, {CF: 1, AddCF: Ptr("lock")}, add(0, 5), {CF: 1, NewFiles: add(0, 5).NewFiles}}, corrupt: "adds file 5, which is on level 0 of column family default"},
		{name: "a dropped family takes its files along; its id may come back", edits: []*Edit{base0, {CF: 1, AddCF: Ptr("lock")}, {CF: 1, NewFiles: add(0, 5).NewFiles}, {CF: 1, DropCF: true}, {CF: 1, AddCF: Ptr("lock")}, add(0, 5)},
			want: "0:default log=3 L0/5[a..c]\n1:lock log=0\nnext=10 last=100 prev=0 min=0 maxcf=1 wals=map[] torn=false"},
		{name: "family added twice", edits: []*Edit{base0, {CF: 1, AddCF: Ptr("lock")}, {CF: 1, AddCF: Ptr("other")}}, corrupt: "twice"},
		{name: "default is there without being added", edits: []*Edit{base0, {CF: 0, AddCF: Ptr("default")}}, corrupt: "twice"},
		{name: "edit of a missing family", edits: []*Edit{base0, {CF: 7, LogNumber: Ptr(uint64(9))}}, corrupt: "column family 7"},
		{name: "dropping a missing family", edits: []*Edit{base0, {CF: 7, DropCF: true}}, corrupt: "drops column family 7"},
		{name: "log number never goes back, the other counters do", edits: []*Edit{base0, {LogNumber: Ptr(uint64(8)), MinLogNumberToKeep: Ptr(uint64(8)), MaxColumnFamily: Ptr(uint32(5))},
			{LogNumber: Ptr(uint64(2)), MinLogNumberToKeep: Ptr(uint64(2)), NextFileNumber: Ptr(uint64(7)), LastSequence: Ptr(uint64(50)), MaxColumnFamily: Ptr(uint32(4))}},
			want: "0:default log=8\nnext=7 last=50 prev=0 min=8 maxcf=4 wals=map[] torn=false"},
		{name: "file changes of a WAL edit are lost, its counters are not", edits: []*Edit{base0, {NewFiles: add(0, 5).NewFiles, WALAdditions: []WALAddition{{4, 77}}, NextFileNumber: Ptr(uint64(11))}},
			want: "0:default log=3\nnext=11 last=100 prev=0 min=0 maxcf=0 wals=map[4:77] torn=false"},
		{name: "WAL deletion forgets the lower ones, also when they come later", edits: []*Edit{base0, {WALAdditions: []WALAddition{{4, 77}, {6, wal.NoSyncedSize}}}, {WALDeletion: Ptr(uint64(6))}, {WALAdditions: []WALAddition{{5, 1}, {6, 9}}}},
			want: "0:default log=3\nnext=10 last=100 prev=0 min=0 maxcf=0 wals=map[6:9] torn=false"},
		{name: "WAL created twice", edits: []*Edit{base0, {WALAdditions: []WALAddition{{4, wal.NoSyncedSize}, {4, wal.NoSyncedSize}}}}, corrupt: "created twice"},
		{name: "WAL deletion of 0 and an empty record change nothing", edits: []*Edit{base0, {WALDeletion: Ptr(uint64(0))}, {}}, want: "0:default log=3\n" + tail},
		{name: "atomic group", edits: []*Edit{base0, {CF: 1, AddCF: Ptr("lock")}, group(1, Edit{NewFiles: add(0, 5).NewFiles}), group(0, Edit{CF: 1, NewFiles: add(0, 6).NewFiles})},
			want: "0:default log=3 L0/5[a..c]\n1:lock log=0 L0/6[a..c]\nnext=10 last=100 prev=0 min=0 maxcf=1 wals=map[] torn=false"},
		{name: "unfinished group at the end is dropped", edits: []*Edit{base0, group(1, Edit{NewFiles: add(0, 5).NewFiles})},
			want: "0:default log=3\nnext=10 last=100 prev=0 min=0 maxcf=0 wals=map[] torn=true"},
		{name: "group interrupted", edits: []*Edit{base0, group(1, Edit{}), {}}, corrupt: "atomic group"},
		{name: "group that does not count down", edits: []*Edit{base0, group(2, Edit{}), group(0, Edit{})}, corrupt: "atomic group"},
		{name: "no next file number", edits: []*Edit{{LogNumber: Ptr(uint64(1)), LastSequence: Ptr(uint64(1))}}, corrupt: "without a next file number"},
		{name: "no log number", edits: []*Edit{{NextFileNumber: Ptr(uint64(1)), LastSequence: Ptr(uint64(1))}}, corrupt: "without a log number"},
		{name: "no last sequence", edits: []*Edit{{NextFileNumber: Ptr(uint64(1)), LogNumber: Ptr(uint64(1))}}, corrupt: "without a last sequence"},
		{name: "sequence above the largest", edits: []*Edit{base0, {LastSequence: Ptr(ikey.MaxSeq + 1)}}, corrupt: "above the largest"},
		{name: "foreign comparator", edits: []*Edit{base0, {Comparator: Ptr("rocksdb.ReverseBytewiseComparator")}}, refused: "comparator"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := Load(store(t, encode(tc.edits...)...), "/db")
			if (tc.corrupt != "") != errors.Is(err, base.ErrCorrupt) || (tc.refused != "") != errors.Is(err, base.ErrUnsupported) ||
				err != nil && (!strings.Contains(err.Error(), tc.corrupt+tc.refused) || !strings.Contains(err.Error(), "/db/MANIFEST-000005")) {
				t.Fatalf("error %v, want %q with the path", err, tc.corrupt+tc.refused)
			}
			if err != nil {
				return
			}
			if got := describe(s); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
			again, err := Load(store(t, s.Records...), "/db")
			if err != nil {
				t.Fatal(err)
			}
			if equal, why := s.Equal(again); !equal || again.TornTail {
				t.Errorf("records written again differ in %s", why)
			}
		})
	}
}

func TestLoadCurrent(t *testing.T) {
	for _, tc := range []struct{ current, want string }{
		{"", "newline"}, {"MANIFEST-000005", "newline"}, {"MANIFEST-000006\n", "missing"}, {"MANIFEST-\n", "no MANIFEST"},
		{"MANIFEST-000005\n\n", "no MANIFEST"}, {"OPTIONS-000005\n", "no MANIFEST"}, {"../MANIFEST-000005\n", "no MANIFEST"},
	} {
		fs := store(t, counters(10, 1).Encode())
		if err := base.WriteFileSync(fs, "/db/CURRENT", []byte(tc.current), ""); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(fs, "/db"); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("CURRENT %q: %v, want %q", tc.current, err, tc.want)
		}
	}
	fs := store(t, counters(10, 1).Encode())
	if err := fs.Remove("/db/CURRENT"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(fs, "/db"); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("without CURRENT: %v", err)
	}
}

func TestSortL0(t *testing.T) {
	file := func(n, lo, hi, epoch uint64) *FileMeta {
		f := table(n, "a", "z", lo, hi)
		f.Epoch = epoch
		return f
	}
	order := func(files []*FileMeta) (n []uint64) {
		for _, f := range files {
			n = append(n, f.Number)
		}
		return n
	}
	withEpochs := []*FileMeta{file(1, 1, 50, 1), file(2, 2, 20, 3), file(3, 30, 40, 2)}
	SortL0(withEpochs)
	if got := order(withEpochs); !slices.Equal(got, []uint64{2, 3, 1}) {
		t.Errorf("by epoch: %d", got)
	}
	missing := []*FileMeta{file(1, 1, 50, 1), file(2, 2, 20, 3), file(3, 30, 40, 0), file(4, 35, 40, 9), file(5, 35, 40, 9)}
	SortL0(missing)
	if got := order(missing); !slices.Equal(got, []uint64{1, 5, 4, 3, 2}) {
		t.Errorf("by sequence: %d", got)
	}

	// One file without an epoch on any level of the family decides for L0.
	s := NewState()
	if err := s.Apply(&Edit{NewFiles: []NewFile{{0, file(1, 1, 50, 1)}, {0, file(2, 2, 20, 3)}, {0, file(3, 30, 40, 2)}}}); err != nil {
		t.Fatal(err)
	}
	cf := s.CF("default")
	if got := order(cf.Levels[0]); !slices.Equal(got, []uint64{2, 3, 1}) || cf.OrdersAgree() || !cf.EpochsComplete() {
		t.Errorf("complete epochs: %d, orders agree: %v", got, cf.OrdersAgree())
	}
	if err := s.Apply(&Edit{NewFiles: []NewFile{{6, file(9, 0, 0, 0)}}}); err != nil {
		t.Fatal(err)
	}
	if got := order(cf.Levels[0]); !slices.Equal(got, []uint64{1, 3, 2}) || !cf.OrdersAgree() || cf.EpochsComplete() {
		t.Errorf("one epoch missing on L6: %d", got)
	}
}

func TestParseFileName(t *testing.T) {
	for _, tc := range []struct {
		name   string
		kind   FileKind
		number uint64
		ok     bool
	}{
		{"CURRENT", FileCurrent, 0, true}, {"LOCK", FileLock, 0, true}, {"IDENTITY", FileIdentity, 0, true}, {"LOG", FileInfoLog, 0, true},
		{"LOG.old.1700", FileInfoLog, 0, true}, {"MANIFEST-000005", FileManifest, 5, true}, {"MANIFEST-1234567", FileManifest, 1234567, true},
		{"OPTIONS-000008", FileOptions, 8, true}, {"OPTIONS-000008.dbtmp", FileTemp, 8, true}, {"000004.log", FileLog, 4, true},
		{"000004.sst", FileTable, 4, true}, {"7.ldb", FileTable, 7, true}, {"000004.blob", FileBlob, 4, true}, {"000009.dbtmp", FileTemp, 9, true},
		{"18446744073709551615.sst", FileTable, 1<<64 - 1, true},
		{name: "18446744073709551616.sst"}, {name: "000009.dbtmp.plain"}, {name: "MANIFEST-"}, {name: "MANIFEST-5x"}, {name: "-5.log"}, {name: "+5.log"},
		{name: ".log"}, {name: "5"}, {name: "5.sst.trash"}, {name: ""}, {name: "titandb"}, {name: "OPTIONS-.dbtmp"},
	} {
		kind, n, ok := ParseFileName(tc.name)
		if ok != tc.ok || ok && (kind != tc.kind || n != tc.number) {
			t.Errorf("%q: %d, %d, %v", tc.name, kind, n, ok)
		}
	}
	if ManifestName(5) != "MANIFEST-000005" || TableName(1234567) != "1234567.sst" {
		t.Error("names")
	}
}
