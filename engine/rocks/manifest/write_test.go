package manifest

import (
	"bytes"
	"errors"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/wal"
)

// storeOf loads a state with two families, file 5 on L0 of default, file 6 on L6 of write, and a tracked WAL.
func storeOf(t testing.TB) *State {
	t.Helper()
	s, err := Load(store(t, encode(
		&Edit{Comparator: Ptr(Comparator)}, counters(10, 100),
		&Edit{CF: 2, AddCF: Ptr("write"), LogNumber: Ptr(uint64(3)), Comparator: Ptr(Comparator)},
		&Edit{NewFiles: []NewFile{{0, table(5, "a", "m", 10, 20)}}},
		&Edit{CF: 2, NewFiles: []NewFile{{6, table(6, "b", "n", 1, 9)}}},
		&Edit{WALAdditions: []WALAddition{{4, 77}}})...), "/db")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fold(cf uint32, files ...NewFile) *Edit {
	return &Edit{CF: cf, LogNumber: Ptr(uint64(12)), PrevLogNumber: Ptr(uint64(0)), NextFileNumber: Ptr(uint64(20)), LastSequence: Ptr(uint64(200)), NewFiles: files}
}

// WALs are folded in and a file is replaced: the records, behind the old ones in a new MANIFEST, read as the state that
// Apply makes.
func TestPublish(t *testing.T) {
	s := storeOf(t)
	before := describe(s)
	write := fold(2, NewFile{6, table(15, "b", "n", 1, 9)})
	write.DeletedFiles = []DeletedFile{{6, 6}}
	def := fold(0, NewFile{0, table(14, "a", "z", 101, 200)})
	def.MinLogNumberToKeep = Ptr(uint64(12))
	records, err := BuildRecords(s, []*Edit{def, write}, 12)
	if err != nil {
		t.Fatal(err)
	}
	if describe(s) != before || def.AtomicRemaining != nil {
		t.Error("BuildRecords changed its input")
	}
	if len(records) != 3 {
		t.Fatalf("%d records, want a group of 2 and a WAL deletion", len(records))
	}
	for i, want := range []string{"1", "0", "none"} {
		e, err := DecodeEdit(records[i])
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if e.AtomicRemaining != nil {
			got = string(rune('0' + *e.AtomicRemaining))
		}
		if got != want || (i == 2) != (e.WALDeletion != nil) {
			t.Errorf("record %d: group mark %s, want %s", i, got, want)
		}
	}

	fs := store(t, s.Records...)
	if err := Write(fs, "/db/MANIFEST-000019", append(slices.Clone(s.Records), records...), "/db/CURRENT"); err != nil {
		t.Fatal(err)
	}
	got, err := LoadFile(fs, "/db/MANIFEST-000019", 19)
	if err != nil {
		t.Fatal(err)
	}
	want := s.Clone()
	if err := want.Apply(def, write, &Edit{WALDeletion: Ptr(uint64(12))}); err != nil {
		t.Fatal(err)
	}
	if equal, why := want.Equal(got); !equal {
		t.Errorf("differs in %s:\n%s\n%s", why, describe(want), describe(got))
	}
	if want := "0:default log=12 L0/14[a..z] L0/5[a..m]\n2:write log=12 L6/15[b..n]\nnext=20 last=200 prev=0 min=12 maxcf=2 wals=map[] torn=false"; describe(got) != want {
		t.Errorf("got\n%s\nwant\n%s", describe(got), want)
	}
	if describe(s) != before {
		t.Error("Apply to a clone changed the original")
	}
	if cf, level, f, ok := got.File(15); !ok || cf.Name != "write" || level != 6 || f.Number != 15 {
		t.Error("File(15)")
	}

	single, err := BuildRecords(s, []*Edit{def}, 0)
	if err != nil || len(single) != 1 || !bytes.Equal(single[0], def.Encode()) {
		t.Errorf("one edit needs no group: %X, %v", single, err)
	}
	s.WALs = nil
	if single, err = BuildRecords(s, []*Edit{def}, 12); err != nil || len(single) != 1 {
		t.Errorf("nothing tracked, nothing to forget: %d records, %v", len(single), err)
	}
}

func TestBuildRecordsRefuses(t *testing.T) {
	for _, tc := range []struct {
		want string
		edit func(e *Edit)
	}{
		{"more than files", func(e *Edit) { e.Comparator = Ptr(Comparator) }},
		{"more than files", func(e *Edit) { e.DropCF = true }},
		{"speaks of WALs", func(e *Edit) { e.WALDeletion = Ptr(uint64(4)) }},
		{"would go back", func(e *Edit) { e.LastSequence = Ptr(uint64(99)) }},
		{"would go back", func(e *Edit) { e.NextFileNumber = Ptr(uint64(9)) }},
		{"log number 21", func(e *Edit) { e.LogNumber = Ptr(uint64(21)) }},
		{"min log number", func(e *Edit) { e.MinLogNumberToKeep = Ptr(uint64(21)) }},
		{"would delete it", func(e *Edit) { e.NewFiles = []NewFile{{0, table(21, "a", "b", 1, 1)}} }},
		{"above the last sequence", func(e *Edit) { e.NewFiles = []NewFile{{0, table(18, "a", "b", 1, 201)}} }},
		{"sequences 3..2", func(e *Edit) { e.NewFiles = []NewFile{{0, table(18, "a", "b", 3, 2)}} }},
		{"level 7", func(e *Edit) { e.NewFiles = []NewFile{{7, table(18, "a", "b", 1, 1)}} }},
		{"which is on level", func(e *Edit) { e.NewFiles = []NewFile{{0, table(5, "a", "b", 1, 1)}} }},
		{"where it is not", func(e *Edit) { e.DeletedFiles = []DeletedFile{{0, 6}} }},
		{"not there", func(e *Edit) { e.CF = 7 }},
	} {
		e := fold(0)
		tc.edit(e)
		if _, err := BuildRecords(storeOf(t), []*Edit{e}, 0); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
	if _, err := BuildRecords(storeOf(t), []*Edit{fold(0), fold(0)}, 0); err == nil || !strings.Contains(err.Error(), "two edits") {
		t.Errorf("two edits of one family: %v", err)
	}
}

// The framing is legacy: only types 1 to 4, across block borders and for empty records too.
func TestWriteFraming(t *testing.T) {
	fs := base.NewMem(vfs.NewMem())
	records := [][]byte{nil, bytes.Repeat([]byte{1}, 32768-2*7-7), nil, bytes.Repeat([]byte{2}, 100000), {3}}
	if err := Write(fs, "/m", records, ""); err != nil {
		t.Fatal(err)
	}
	b, err := base.ReadFile(fs, "/m")
	if err != nil {
		t.Fatal(err)
	}
	var types []byte
	for off := 0; off+7 <= len(b); {
		if left := wal.BlockSize - off%wal.BlockSize; left < 7 {
			off += left
			continue
		}
		types = append(types, b[off+6])
		off += 7 + int(b[off+4]) + int(b[off+5])<<8
	}
	if want := []byte{1, 1, 1, 2, 3, 3, 4, 1}; !bytes.Equal(types, want) {
		t.Errorf("types %d, want %d", types, want)
	}
	rd := wal.NewReader(bytes.NewReader(b), "/m", 0)
	for i, want := range records {
		if got, _, err := rd.Next(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// Each failing file operation of Write is an error of class ErrIO.
func TestWriteErrors(t *testing.T) {
	for n := int32(0); ; n++ {
		mem := vfs.NewMem()
		like := base.NewMem(mem)
		if err := base.WriteFileSync(like, "/like", nil, ""); err != nil {
			t.Fatal(err)
		}
		inj := errorfs.OnIndex(n)
		fs := base.NewMem(errorfs.Wrap(mem, errorfs.ErrInjected.If(inj)))
		err := Write(fs, "/m", [][]byte{bytes.Repeat([]byte{1}, 70000)}, "/like")
		if inj.Index.Load() >= 0 {
			if n < 5 {
				t.Errorf("only %d operations", n)
			}
			return
		}
		if !errors.Is(err, base.ErrIO) || !strings.Contains(err.Error(), "injected") {
			t.Errorf("operation %d: %v", n, err)
		}
	}
}

// Whatever byte of a MANIFEST or of CURRENT changes and wherever it is cut: no panic, and either a typed error or the
// state after a prefix of the records, marked as torn.
func TestEveryByte(t *testing.T) {
	s := storeOf(t)
	file := frame(t, s.Records...)
	prefixes := map[string]bool{}
	for n := range s.Records {
		if p, err := Load(store(t, s.Records[:n+1]...), "/db"); err == nil {
			p.TornTail = true
			prefixes[describe(p)] = true
		}
	}
	check := func(what string, at int, b []byte) {
		got, err := Load(storeBytes(t, b), "/db")
		switch {
		case err != nil:
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
				t.Errorf("%s %d: class of %v", what, at, err)
			}
		case !got.TornTail && what == "flip", !prefixes[strings.Replace(describe(got), "torn=false", "torn=true", 1)]:
			t.Errorf("%s %d:\n%s", what, at, describe(got))
		}
	}
	for n := range file {
		check("cut", n, file[:n])
	}
	for i := range file {
		for bit := range 8 {
			b := slices.Clone(file)
			b[i] ^= 1 << bit
			check("flip", i, b)
		}
	}
	current := "MANIFEST-000005\n"
	for i := range current {
		for bit := range 8 {
			b := []byte(current)
			b[i] ^= 1 << bit
			fs := store(t, s.Records...)
			if err := base.WriteFileSync(fs, "/db/CURRENT", b, ""); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(fs, "/db"); !errors.Is(err, base.ErrCorrupt) {
				t.Errorf("CURRENT %q: %v", b, err)
			}
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(frame(f, storeOf(f).Records...), int64(0))
	f.Add(frame(f, encode(counters(9, 9), group(1, Edit{}), group(0, Edit{CF: 0, NewFiles: []NewFile{{1, table(4, "a", "b", 1, 2)}}}))...), int64(1))
	f.Fuzz(func(t *testing.T, file []byte, seed int64) {
		// Damage in a payload hardly ever passes the checksum: with a seed the file is the concatenated payloads, cut anew.
		if seed != 0 {
			rnd := rand.New(rand.NewSource(seed))
			var records [][]byte
			for rest := file; len(rest) > 0; {
				n := 1 + rnd.Intn(len(rest))
				records, rest = append(records, rest[:n]), rest[n:]
			}
			file = frame(t, records...)
		}
		s, err := read(bytes.NewReader(file), "m", 1)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
				t.Fatalf("class of %v", err)
			}
			return
		}
		again, err := read(bytes.NewReader(frame(t, s.Records...)), "m", 1)
		if err != nil {
			t.Fatal(err)
		}
		if equal, why := s.Equal(again); !equal || again.TornTail {
			t.Fatalf("records written again differ in %s", why)
		}
	})
}
