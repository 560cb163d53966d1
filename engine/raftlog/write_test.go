package raftlog

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	must(tb, err)
	return b
}

func rawEntry(tb testing.TB, raw []byte) raftstate.Entry {
	tb.Helper()
	e, err := raftstate.ParseEntry(raw)
	must(tb, err)
	return e
}

// logEntries are the entries that batchBuilder.log writes.
func logEntries(tb testing.TB, group, from, to, term uint64) []raftstate.Entry {
	tb.Helper()
	var list []raftstate.Entry
	for i := from; i <= to; i++ {
		list = append(list, rawEntry(tb, entryBytes(term, i, fmt.Sprintf("g%d-%d", group, i))))
	}
	return list
}

// script makes a batch of functions, for tables.
func script(tb testing.TB, steps ...func(b *Batch) error) *Batch {
	tb.Helper()
	b := &Batch{}
	for _, s := range steps {
		must(tb, s(b))
	}
	return b
}

func clean(region uint64) func(*Batch) error {
	return func(b *Batch) error { b.Clean(region); return nil }
}

func put(region uint64, key, value string) func(*Batch) error {
	return func(b *Batch) error { return b.Put(region, []byte(key), []byte(value)) }
}

func entries(tb testing.TB, region, from, to, term uint64) func(*Batch) error {
	return func(b *Batch) error { return b.Entries(region, logEntries(tb, region, from, to, term)) }
}

// The bytes were made by an independent encoder and read back by raft-engine 0.4.2; T11 is a whole file.
func TestEncodeVectors(t *testing.T) {
	const (
		e10   = "1006180a2203616263"
		e11   = "1006180b"
		rls10 = "0a0608061003180a100a"
	)
	raw := func(region uint64, list ...string) func(*Batch) error {
		return func(b *Batch) error {
			var es []raftstate.Entry
			for _, s := range list {
				es = append(es, rawEntry(t, unhex(t, s)))
			}
			return b.Entries(region, es)
		}
	}
	state := func(region uint64, s string) func(*Batch) error {
		return func(b *Batch) error { return b.Put(region, []byte("R"), unhex(t, s)) }
	}
	for _, c := range []struct {
		name         string
		version, seq uint64
		b            *Batch
		want         string
	}{
		{"T1", 1, 7, script(t), "524146542d4c4f472d46494c452d4845414445522d39393836414233453437463332304233393443384538343931364542304544350000000000000001"},
		{"T2", 2, 7, script(t), "524146542d4c4f472d46494c452d4845414445522d393938364142334534374633323042333934433845383439313645423045443500000000000000020000000000000000"},
		{"T3", 1, 7, script(t, state(2, rls10)), "T1 0000000000002500 0000000000000010 01 02 03 01 01 52 0a" + rls10 + "6e6fb408"},
		{"T3b", 2, 7, script(t, state(2, rls10)), "T2 0000000000002500 0000000000000010 01 02 03 01 01 52 0a" + rls10 + "696fb408"},
		{"T4", 2, 7, script(t, clean(300)), "T2 0000000000001900 0000000000000010 01 ac02 02 01 6dfe4aba"},
		{"T6", 2, 7, script(t, raw(2, e10, e11), state(2, "0a0608061003180a100b")), "T2 0000000000003c00 0000000000000021" + e10 + e11 +
			"58d3e382 02 02 01 02 0a 09 0d 02 03 01 01 52 0a 0a0608061003180a100b b50e2042"},
		{"T10, V1", 1, 100, script(t, clean(1)), "T1 0000000000001800 0000000000000010 01 01 02 01 5a800bdd"},
		{"T10", 2, 5<<32 + 100, script(t, clean(1)), "T2 0000000000001800 0000000000000010 01 01 02 01 3e800bdd"},
		{"T11", 2, 12, script(t, raw(2, e10), state(2, rls10), clean(300)), "T2 0000000000003b00 000000000000001d" + e10 +
			"cde5dd1a 03 02 01 01 0a 09 02 03 01 01 52 0a" + rls10 + "ac02 02 01 6dc92252"},
		{"T12", 2, 12, script(t, clean(2), raw(2, e10), state(2, rls10)), "T2 0000000000003a00 000000000000001d" + e10 +
			"cde5dd1a 03 02 02 01 02 01 01 0a 09 02 03 01 01 52 0a" + rls10 + "576d289c"},
	} {
		var got bytes.Buffer
		size, _, err := WriteLog(&got, c.version, c.seq, c.b)
		must(t, err)
		want := strings.NewReplacer("T1", hex.EncodeToString(fileHeader(1)), "T2", hex.EncodeToString(fileHeader(2))).Replace(c.want)
		if !bytes.Equal(got.Bytes(), unhex(t, want)) || size != int64(got.Len()) {
			t.Errorf("%s: got %x", c.name, got.Bytes())
		}
	}
}

// What the encoder and the test's own builder of the same format make of the same operations is the same file.
func TestEncodeRoundTrip(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for round := 0; round < 200; round++ {
		version, seq := uint64(1+rng.Intn(2)), uint64(1+rng.Intn(1000))
		b, want := &Batch{}, nb()
		for i := 1 + rng.Intn(8); i > 0; i-- {
			id, from := uint64(1+rng.Intn(400)), uint64(1+rng.Intn(400))
			switch rng.Intn(3) {
			case 0:
				b.Clean(id)
				want.clean(id)
			case 1:
				v := strings.Repeat("v", rng.Intn(300))
				must(t, b.Put(id, []byte("R"), []byte(v)))
				want.put(id, "R", v)
			case 2:
				to := from + uint64(rng.Intn(10))
				must(t, b.Entries(id, logEntries(t, id, from, to, 7)))
				want.log(id, from, to, 7)
			}
		}
		var got bytes.Buffer
		_, n, err := WriteLog(&got, version, seq, b)
		must(t, err)
		if n != 1 || !bytes.Equal(got.Bytes(), batches(version, seq, want)) {
			t.Fatalf("round %d: %d batches, got %x", round, n, got.Bytes())
		}
	}
}

// A large batch becomes several, cut between entries, and reads as one.
func TestEncodeCutsLargeBatches(t *testing.T) {
	b := &Batch{}
	var list []raftstate.Entry
	for i := uint64(1); i <= 40; i++ {
		list = append(list, rawEntry(t, entryBytes(6, i, strings.Repeat("x", 100_000))))
	}
	list = append(list, rawEntry(t, entryBytes(6, 41, strings.Repeat("y", 3<<20))), rawEntry(t, entryBytes(6, 42, "")))
	must(t, b.Entries(2, list))
	for id := uint64(100); id < 9100; id++ {
		must(t, b.Put(id, []byte("R"), bytes.Repeat([]byte("r"), 50)))
	}
	var got bytes.Buffer
	size, n, err := WriteLog(&got, 2, 9, b)
	must(t, err)
	if n < 6 || n > 12 || b.Size() < size*9/10 || b.Size() > size*11/10 {
		t.Errorf("%d batches, %d bytes, the batch says %d", n, size, b.Size())
	}
	e, _, err := newDir().write(FileName(Append, 9), got.Bytes()).open()
	must(t, err)
	i := 0
	must(t, e.Entries(2, 0, 100, func(x raftstate.Entry) error {
		if !bytes.Equal(x.Raw, list[i].Raw) {
			t.Errorf("entry %d", x.Index)
		}
		i++
		return nil
	}))
	if ids, _ := e.Regions(); i != 42 || len(ids) != 9001 {
		t.Errorf("%d entries, %d regions", i, len(ids))
	}
}

func TestBatchRefuses(t *testing.T) {
	e := logEntries(t, 2, 5, 7, 6)
	wrong := slices.Clone(e)
	wrong[1].Index = 9
	for name, f := range map[string]func(b *Batch) error{
		"no entries":              func(b *Batch) error { return b.Entries(2, nil) },
		"a gap":                   func(b *Batch) error { return b.Entries(2, []raftstate.Entry{e[0], e[2]}) },
		"an index not in the raw": func(b *Batch) error { return b.Entries(2, wrong) },
		"no raw bytes":            func(b *Batch) error { return b.Entries(2, []raftstate.Entry{{Index: 5}}) },
		"bytes that do not parse": func(b *Batch) error { return b.Entries(2, []raftstate.Entry{{Index: 5, Raw: []byte{0xFF}}}) },
		"a hidden key":            put(2, "__x", "v"),
		"no key":                  put(2, "", "v"),
		"a state without bytes":   func(b *Batch) error { return b.PutState(2, raftstate.InitialRaftState()) },
	} {
		b := &Batch{}
		if err := f(b); err == nil || !b.Empty() {
			t.Errorf("%s: %v, empty %v", name, err, b.Empty())
		}
	}
}

// testData is a data directory with a raft-engine in it, in memory.
const testData = "/data"

func dataDir(d testDir) *vfs.MemFS {
	fs := vfs.NewCrashableMem()
	mfs := base.NewMem(fs)
	if err := fs.MkdirAll(testData+"/raft-engine", 0o755); err != nil {
		panic(err)
	}
	names, err := d.fs.List("/re")
	if err != nil {
		panic(err)
	}
	for _, n := range names {
		b, err := base.ReadFile(base.NewMem(d.fs), "/re/"+n)
		if err == nil {
			err = base.WriteFileSync(mfs, testData+"/raft-engine/"+n, b, "")
		}
		if err != nil {
			panic(err)
		}
	}
	for _, p := range []string{testData + "/raft-engine", testData, "/"} {
		if err := base.SyncDir(mfs, p); err != nil {
			panic(err)
		}
	}
	return fs
}

func openData(tb testing.TB, fs base.FS) *Engine {
	tb.Helper()
	e, _, err := OpenEngine(fs, testData+"/raft-engine", "")
	must(tb, err)
	return e
}

var testTime = time.Date(2026, 9, 21, 12, 0, 0, 0, time.UTC)

// begin plans and stages a batch.
func begin(fs base.FS, b *Batch) (*edit.Tx, Edit, error) {
	e, _, err := OpenEngine(fs, testData+"/raft-engine", "")
	if err != nil {
		return nil, nil, err
	}
	p, err := PlanEdit(e, b, testTime)
	if err != nil {
		return nil, nil, err
	}
	tx, err := edit.Begin(fs, testData, "p1", "test", "plan", p.Dirs(), testTime)
	if err != nil {
		return nil, nil, err
	}
	return tx, p, stage(tx, p)
}

func stage(tx *edit.Tx, p Edit) error {
	if err := p.Stage(tx); err != nil {
		return err
	}
	s, err := p.Staged(edit.StagedSuffix)
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	return tx.Stage()
}

// tails are what may stand at the end of the last append file; each holds the same: region 2 with 5..20 and R, region 3.
func tails() map[string]testDir {
	one := func() *batchBuilder { return nb().log(2, 5, 14, 6).put(2, "R", "r2").put(3, "R", "r3") }
	two := func() *batchBuilder { return nb().log(2, 15, 20, 6) }
	whole := batches(2, 8, two())
	file := func(tail ...[]byte) testDir {
		return newDir().rewrite(1, nb().log(3, 7, 9, 6)).log(7, one()).write(FileName(Append, 8), append(slices.Clone(whole), slices.Concat(tail...)...))
	}
	torn := nb().log(2, 21, 22, 7).bytes(8)
	torn[20] ^= 1 // in the entries block: the items are good
	recycled := nb().log(2, 1, 4, 5).bytes(3)
	return map[string]testDir{
		"clean":         file(),
		"zero tail":     file(make([]byte, 5000)),
		"half a batch":  file(nb().log(2, 21, 30, 7).bytes(8)[:40]),
		"torn entries":  file(torn),
		"recycled tail": file(recycled, recycled, make([]byte, 100)),
		"no header": newDir().rewrite(1, nb().log(3, 7, 9, 6)).log(7, one()).log(8, two()).
			write(FileName(Append, 9), nil),
		"bad header": newDir().rewrite(1, nb().log(3, 7, 9, 6)).log(7, one()).log(8, two()).
			write(FileName(Append, 9), append([]byte("RAFT-LOG-FILE-HEAD"), make([]byte, 3000)...)),
		"header only": newDir().rewrite(1, nb().log(3, 7, 9, 6)).log(7, one()).log(8, two()).log(9),
		"version 1": newDir().rewrite(1, nb().log(3, 7, 9, 6)).write(FileName(Append, 7), batches(1, 7, one())).
			write(FileName(Append, 8), append(batches(1, 8, two()), make([]byte, 100)...)),
	}
}

const tailsHold = "2: 5..20 term 6 from 5 R=r2\n3: 7..9 term 6 from 7 R=r3\n"

// Every kind of tail, with the batches of every intent. After publishing, the last file but one is whole and the store holds what
// was asked for.
func TestEngineEdit(t *testing.T) {
	for name, d := range tails() {
		for _, c := range []struct {
			name string
			b    *Batch
			want string
		}{
			{"raft state only", script(t, put(2, "R", "new")), "2: 5..20 term 6 from 5 R=new\n3: 7..9 term 6 from 7 R=r3\n"},
			{"lower the end", script(t, entries(t, 2, 10, 10, 6), put(2, "R", "new")), "2: 5..10 term 6 from 5 R=new\n3: 7..9 term 6 from 7 R=r3\n"},
			{"lower the end in the rewrite queue", script(t, entries(t, 3, 8, 8, 7)), "2: 5..20 term 6 from 5 R=r2\n3: 7..8 term 6 from 7 term 7 from 8 R=r3\n"},
			{"empty the log", script(t, clean(2), put(2, "R", "new")), "2: R=new\n3: 7..9 term 6 from 7 R=r3\n"},
			{"jump forward", script(t, clean(3), put(3, "R", "new"), entries(t, 3, 90, 91, 8)), "2: 5..20 term 6 from 5 R=r2\n3: 90..91 term 8 from 90 R=new\n"},
			{"append", script(t, entries(t, 2, 21, 25, 7), put(2, "R", "new")), "2: 5..25 term 6 from 5 term 7 from 21 R=new\n3: 7..9 term 6 from 7 R=r3\n"},
			{"overwrite a suffix", script(t, entries(t, 2, 18, 19, 7)), "2: 5..19 term 6 from 5 term 7 from 18 R=r2\n3: 7..9 term 6 from 7 R=r3\n"},
			{"delete a region", script(t, clean(2)), "3: 7..9 term 6 from 7 R=r3\n"},
			{"all regions and a new one", script(t, clean(2), clean(3), put(4, "R", "r4"), put(2, "R", "x")), "2: R=x\n4: R=r4\n"},
			{"one after the other", script(t, entries(t, 2, 12, 16, 7), entries(t, 2, 14, 14, 8), entries(t, 2, 15, 16, 9)),
				"2: 5..16 term 6 from 5 term 7 from 12 term 8 from 14 term 9 from 15 R=r2\n3: 7..9 term 6 from 7 R=r3\n"},
		} {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				mem := dataDir(d)
				fs := base.NewMem(mem)
				if got := dump(t, openData(t, fs)); got != tailsHold {
					t.Fatalf("before: %s", got)
				}
				tx, p, err := begin(fs, c.b)
				must(t, err)
				if got := dump(t, openData(t, fs)); got != tailsHold {
					t.Errorf("staged: %s", got)
				}
				must(t, tx.Publish())
				s, err := p.Published()
				must(t, err)
				if got := dump(t, s.(*Engine)); got != c.want {
					t.Errorf("got  %swant %s", got, c.want)
				}
				for _, f := range s.(*Engine).report.Files {
					if f.Stop != "" || f.Tail != TailNone {
						t.Errorf("%+v", f)
					}
				}
				want := map[string]uint64{"version 1": 1}[name]
				if want == 0 {
					want = 2
				}
				if f := s.(*Engine).report.Files; f[len(f)-1].Version != want || f[len(f)-1].Path != p.Summary().File {
					t.Errorf("new file %+v, summary %+v", f[len(f)-1], p.Summary())
				}
				must(t, tx.Finish(nil))
			})
		}
	}
}

// An empty append queue, files of unknown version, and a spill directory.
func TestEngineEditPlacesTheFile(t *testing.T) {
	for _, c := range []struct {
		name string
		dir  testDir
		want string // name of the file and version, or the error
	}{
		{"no append file", newDir().rewrite(3, nb().put(2, "R", "x")), "0000000000000001.raftlog 2"},
		{"the only file has no header", newDir().write(FileName(Append, 5), nil), "0000000000000005.raftlog 1"},
		{"version 1 before a broken one", newDir().write(FileName(Append, 5), batches(1, 5, nb().put(2, "R", "x"))).
			write(FileName(Append, 6), []byte("x")), "0000000000000006.raftlog 1"},
		{"a hole below", newDir().log(3, nb().put(2, "R", "x")).log(7, nb().put(2, "R", "x")), "0000000000000008.raftlog 2"},
		{"reserved files", newDir().log(3, nb().put(2, "R", "x")).write("0000000000000004.raftlog.reserved", nil), "0000000000000004.raftlog 2"},
		{"an odd name", newDir().write("0000000000000005.old.raftlog", batches(2, 5, nb().put(2, "R", "x"))), "0000000000000006.raftlog 2"},
		{"the largest number", newDir().write("9999999999999999.raftlog", batches(2, 9999999999999999, nb().put(2, "R", "x"))), "leaves no room"},
	} {
		e, _, err := c.dir.open()
		must(t, err)
		p, err := PlanEdit(e, script(t, put(2, "R", "y")), testTime)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || !errors.Is(err, base.ErrUnsupported) {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		x := p.(*engineEdit)
		if got := fmt.Sprintf("%s %d", e.fs.PathBase(x.final), x.version); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}

	d := newDir().log(3, nb().put(2, "R", "x"))
	must(t, d.fs.MkdirAll("/spill", 0o755))
	must(t, base.WriteFileSync(base.NewMem(d.fs), "/spill/"+FileName(Append, 4), append(batches(2, 4, nb().put(2, "R", "y")), 0, 0), ""))
	e, _, err := OpenEngine(base.NewMem(d.fs), "/re", "/spill")
	must(t, err)
	p, err := PlanEdit(e, script(t, put(2, "R", "z")), testTime)
	must(t, err)
	if s := p.Summary(); s.File != "/re/0000000000000005.raftlog" || s.Cut != "/spill/0000000000000004.raftlog" || s.CutBytes != 2 {
		t.Errorf("%+v", s)
	}
}

func TestEngineEditRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		dir  testDir
		b    *Batch
		want string
	}{
		{"a hole", newDir().log(1, nb().log(2, 5, 20, 6)), script(t, entries(t, 2, 22, 22, 7)), "leaves a hole"},
		{"a hole in the batch", newDir().log(1, nb().log(2, 5, 20, 6)), script(t, entries(t, 2, 10, 11, 7), entries(t, 2, 13, 13, 7)), "leaves a hole"},
		{"version 1, below the append files", newDir().rewrite(1, nb().log(2, 5, 14, 6)).write(FileName(Append, 1), batches(1, 1, nb().log(2, 15, 20, 6))),
			script(t, entries(t, 2, 10, 10, 6)), "6.1.0"},
		{"keys of raftstore-v2", newDir().log(1, nb().log(2, 5, 20, 6).put(2, "R", "x").put(2, "\x03\x00", "y")), script(t, clean(2), put(2, "R", "z")), "raftstore-v2"},
		{"the next name is taken", newDir().log(1, nb().log(2, 5, 20, 6)).write(FileName(Append, 3), nil), nil, ""},
	} {
		e, _, err := c.dir.open()
		must(t, err)
		if c.b == nil { // file 3 makes file 1 ignored, and is the last: it is replaced
			p, err := PlanEdit(e, script(t, put(9, "R", "x")), testTime)
			if err != nil || !p.Summary().Replaced {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if p, err := PlanEdit(e, c.b, testTime); !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v %v", c.name, p, err)
		}
	}
	// The same on version 2 and, after a clean, on version 1 is fine.
	e, _, err := newDir().rewrite(1, nb().log(2, 5, 14, 6)).write(FileName(Append, 1), batches(1, 1, nb().log(2, 15, 20, 6))).open()
	must(t, err)
	if _, err := PlanEdit(e, script(t, clean(2), entries(t, 2, 10, 10, 6)), testTime); err != nil {
		t.Error(err)
	}
	s, _ := OpenRocks(&memKV{})
	if _, err := PlanEdit(s, script(t, clean(2)), testTime); !errors.Is(err, base.ErrUnsupported) {
		t.Errorf("a store that cannot be changed: %v", err)
	}
	p, err := PlanEdit(e, &Batch{}, testTime)
	if err != nil || !p.Empty() || p.Stage(nil) != nil || len(p.Dirs()) != 0 || p.Bytes() != 0 {
		t.Errorf("an empty batch: %v", err)
	}
}
