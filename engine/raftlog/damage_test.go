package raftlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// What TiKV's default recovery mode does with each kind of damage, in the last file of a queue and in another one.
func TestRecoveryMode(t *testing.T) {
	one := func() *batchBuilder { return nb().log(2, 5, 6, 6) }
	two := func() *batchBuilder { return nb().log(2, 7, 8, 6) }
	good := batches(2, 1, one(), two())
	firstEnd := int64(len(batches(2, 1, one())))
	blockBroken := func(b []byte, batchOff int64) []byte {
		b = slices.Clone(b)
		b[batchOff+16] ^= 1
		return b
	}
	for _, c := range []struct {
		name  string
		first []byte
		last  string // dump when it is the last file
		valid int64
		not   string // error when it is not; empty: it opens
	}{
		{"clean", good, "2: 5..8 term 6 from 5\n", int64(len(good)), ""},
		{"header only", fileHeader(2), "", 69, ""},
		{"empty", nil, "", 0, "file header: 0 bytes"},
		{"torn header", fileHeader(2)[:65], "", 0, "file header: 65 bytes"},
		{"header of zeros", make([]byte, 69), "", 0, "wrong magic"},
		{"zero tail", append(slices.Clone(good), make([]byte, 100)...), "2: 5..8 term 6 from 5\n", int64(len(good)), "item offset 0"},
		{"recycled tail", append(slices.Clone(good), batches(2, 9, nb().log(3, 1, 1, 5))[69:]...), "2: 5..8 term 6 from 5\n",
			int64(len(good)), "item checksum"},
		{"torn batch", good[:len(good)-1], "2: 5..6 term 6 from 5\n", firstEnd, "left in the file"},
		{"entries of the final batch", blockBroken(good, firstEnd), "2: 5..6 term 6 from 5\n", firstEnd, "final batch is broken"},
		{"entries of an inner batch", blockBroken(good, 69), "2: 5..8 read /re/0000000000000001.raftlog at offset 85, region 2: " +
			"entries block: checksum", int64(len(good)), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := newDir().write(FileName(Append, 1), c.first).log(2).open()
			if c.not == "" {
				if err != nil {
					t.Errorf("not last: %v", err)
				}
			} else if !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), c.not) || base.Next(err) == "" {
				t.Errorf("not last: %v", err)
			}
			e, rep, err := newDir().write(FileName(Append, 1), c.first).rewrite(1).open()
			if err != nil {
				t.Fatal(err)
			}
			f := rep.Files[1]
			if got := dump(t, e); !strings.HasPrefix(got, c.last) || c.last == "" && got != "" || f.Valid != c.valid {
				t.Errorf("last: %q, valid to %d, expected %q and %d", got, f.Valid, c.last, c.valid)
			}
			if f.Torn != strings.Contains(c.name, "final") {
				t.Errorf("last: %+v", f)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		class nameClass
		seq   uint64
	}{
		{"0000000000000011.raftlog", nameAppend, 11},
		{"0000000000000011.rewrite", nameRewrite, 11},
		{"0000000000000011.raftlog.reserved", nameReserved, 11},
		{"0000000000000011.tmp.raftlog", nameAppend, 11},
		{"0000000000000011.raftlog.bak", nameOther, 0},
		{"000000000000011.raftlog", nameOther, 0}, // the 16th character is the dot
		{"repair-1234567890.raftlog", nameOther, 0},
		{"LOCK", nameOther, 0},
		{"0000000000000011", nameOther, 0},
	} {
		if class, seq := classify(c.name); class != c.class || seq != c.seq {
			t.Errorf("%s: %d %d", c.name, class, seq)
		}
	}
	if FileName(Append, 12) != "0000000000000012.raftlog" || FileName(Rewrite, 1) != "0000000000000001.rewrite" {
		t.Error("FileName")
	}
}

// What counts as a log file on a real disk: regular files and symbolic links to them, by name alone.
func TestWhatIsALogFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, content []byte) { must(t, os.WriteFile(filepath.Join(dir, name), content, 0o600)) }
	write("0000000000000003.raftlog", batches(2, 3, nb().put(3, "R", "x")))
	write("elsewhere", batches(2, 4, nb().put(4, "R", "x")))
	must(t, os.Symlink("elsewhere", filepath.Join(dir, "0000000000000004.raftlog")))
	write("0000000000000005.copy.raftlog", batches(2, 5, nb().put(5, "R", "x")))
	must(t, os.Symlink("nowhere", filepath.Join(dir, "0000000000000006.raftlog")))
	must(t, os.Mkdir(filepath.Join(dir, "0000000000000007.raftlog"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "swap"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "directory\xff"), 0o755))
	write("0000000000000006.raftlog.reserved", batches(2, 6, nb().put(6, "R", "x")))
	write("0000000000000006.raftlog.tikv-repair", batches(2, 6, nb().put(6, "R", "x")))
	write("LOCK", nil)
	e, rep, err := OpenEngine(base.NewOS(), dir, "")
	must(t, err)
	if got := dump(t, e); got != "3: R=x\n4: R=x\n5: R=x\n" || len(rep.Reserved) != 1 || len(rep.Ignored)+len(rep.Odd) != 0 {
		t.Errorf("%q %+v", got, rep)
	}
	write("\xff", nil)
	if _, rep, err = OpenEngine(base.NewOS(), dir, ""); err != nil || len(rep.Odd) != 1 {
		t.Errorf("%v %+v", err, rep)
	}
}

// The spill directory's files belong to the same sequence; of a number that both have, the spill copy counts, and what is
// below it is cut off.
func TestSpillDir(t *testing.T) {
	d := newDir().log(1, nb().log(2, 5, 6, 6)).log(3, nb().log(2, 9, 9, 6))
	if err := d.fs.MkdirAll("/spill", 0o755); err != nil {
		t.Fatal(err)
	}
	fs := base.NewMem(d.fs)
	if err := base.WriteFileSync(fs, "/spill/"+FileName(Append, 2), batches(2, 2, nb().log(2, 7, 8, 6)), ""); err != nil {
		t.Fatal(err)
	}
	e, _, err := OpenEngine(fs, "/re", "/spill")
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(t, e); got != "2: 5..9 term 6 from 5\n" {
		t.Errorf("with spill: %q", got)
	}
	if e, _, err = OpenEngine(fs, "/re", ""); err != nil || dump(t, e) != "2: 9..9 term 6 from 9\n" {
		t.Errorf("without spill: %v", err)
	}
	if err := base.WriteFileSync(fs, "/spill/"+FileName(Append, 3), batches(2, 3, nb().log(4, 1, 2, 6)), ""); err != nil {
		t.Fatal(err)
	}
	e, rep, err := OpenEngine(fs, "/re", "/spill")
	if err != nil || dump(t, e) != "4: 1..2 term 6 from 1\n" || len(rep.Ignored) != 3 {
		t.Errorf("duplicate number: %v %+v", err, rep)
	}
}

func TestNoStore(t *testing.T) {
	if _, _, err := newDir().write("LOCK", nil).open(); !errors.Is(err, base.ErrNotStore) {
		t.Errorf("empty directory: %v", err)
	}
	if _, _, err := OpenEngine(base.NewMem(newDir().fs), "/missing", ""); !errors.Is(err, base.ErrIO) {
		t.Errorf("missing directory: %v", err)
	}
}

// A V2 file with an alignment: batches begin at multiples, the padding is zero.
func TestAlignment(t *testing.T) {
	b := fileHeader(2)
	binary.BigEndian.PutUint64(b[61:], 128)
	pad := func() {
		for len(b)%128 != 0 {
			b = append(b, 0)
		}
	}
	pad()
	b = append(b, nb().log(2, 5, 6, 6).bytes(1)...)
	pad()
	b = append(b, nb().log(2, 7, 8, 6).bytes(1)...)
	e, rep, err := newDir().write(FileName(Append, 1), b).open()
	if err != nil || dump(t, e) != "2: 5..8 term 6 from 5\n" || rep.Files[0].Valid != int64(len(b)) {
		t.Fatalf("%v %+v", err, rep)
	}
	b[100] = 0 // in the middle of the padding nothing is looked at
	b[127] = 1
	if e, _, err = newDir().write(FileName(Append, 1), b).open(); err != nil || dump(t, e) != "" {
		t.Errorf("padding with content: %v", err)
	}
}

// smallDir is two queues with every kind of item, LZ4, an atomic group, and two append files.
func smallDir() (d testDir, last []byte) {
	d = newDir().
		rewrite(1, nb().log(2, 3, 6, 5).put(2, "R", "old"), nb().mark(0, 0).log(3, 1, 2, 5), nb().mark(0, 2).put(3, "R", "x")).
		log(4, nb().log(2, 5, 7, 6), nb().clean(9).put(9, "k", "v"))
	last = batches(2, 5, nb().log(2, 8, 9, 6).log(9, 1, 2, 6), nb().compact(2, 4).del(9, "k"),
		(&batchBuilder{lz4: true}).log(2, 9, 20, 7), nb().put(2, "R", "new"))
	return d.write(FileName(Append, 5), last), last
}

// readAll opens a directory and reads all that it has. The error must be typed.
func readAll(t *testing.T, d testDir, what string) (string, error) {
	t.Helper()
	e, _, err := d.open()
	if err == nil {
		got := dumpRaw(t, e)
		if err = e.VerifyBlocks(nil, func(_ uint64, err error) error { return err }); err == nil {
			return got, nil
		}
	}
	var te *base.Error
	if !errors.As(err, &te) {
		t.Fatalf("%s: error without a class: %v", what, err)
	}
	return "", err
}

func dumpRaw(t *testing.T, e *Engine) string {
	var b strings.Builder
	ids, _ := e.Regions()
	for _, id := range ids {
		first, last, _, _ := e.Bounds(id)
		fmt.Fprintf(&b, "%d: %d..%d %x", id, first, last, e.Keys(id))
		_ = e.Entries(id, first, last+1, func(x raftstate.Entry) error {
			fmt.Fprintf(&b, " %x", x.Raw)
			return nil
		})
		for _, k := range e.Keys(id) {
			v, _ := e.Value(id, k)
			fmt.Fprintf(&b, " %q", v)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Every byte of every file changed, in three ways, and every file cut at every length: no panic; a typed error, or the state
// after a whole number of batches of the damaged file, never a mixture.
func TestDamage(t *testing.T) {
	d, _ := smallDir()
	fs := base.NewMem(d.fs)
	for _, name := range []string{FileName(Rewrite, 1), FileName(Append, 4), FileName(Append, 5)} {
		content, err := base.ReadFile(fs, "/re/"+name)
		if err != nil {
			t.Fatal(err)
		}
		legal := map[string]bool{}
		cuts := batchEnds(t, content)
		for _, end := range append([]int64{0}, cuts...) {
			d.write(name, content[:end])
			if s, err := readAll(t, d, "prefix"); err == nil {
				legal[s] = true
			}
		}
		whole := cuts[len(cuts)-1]
		d.write(name, content[:whole])
		opened, refused := 0, 0
		try := func(what string, b []byte) {
			d.write(name, b)
			s, err := readAll(t, d, what)
			if err != nil {
				refused++
				return
			}
			opened++
			if !legal[s] {
				t.Fatalf("%s: neither an error nor the state after some batch:\n%s", what, s)
			}
		}
		for i := range content {
			for _, x := range []byte{0x01, 0x80, 0xFF} {
				b := bytes.Clone(content)
				b[i] ^= x
				try(fmt.Sprintf("%s: byte %d XOR %02X", name, i, x), b)
			}
			try(fmt.Sprintf("%s: cut to %d", name, i), content[:i])
		}
		d.write(name, content)
		t.Logf("%s: %d variants opened, %d refused", name, opened, refused)
		if opened == 0 || refused == 0 {
			t.Errorf("%s: %d opened, %d refused", name, opened, refused)
		}
	}
}

// batchEnds gives the header's end and the end of each batch.
func batchEnds(t *testing.T, content []byte) []int64 {
	t.Helper()
	ends := []int64{69}
	for off := int64(69); off+16 <= int64(len(content)); {
		total := int64(binary.BigEndian.Uint64(content[off:]) >> 8)
		if total == 0 || off+total > int64(len(content)) {
			break
		}
		off += total
		ends = append(ends, off)
	}
	return ends
}

// The first kilobytes of a real log, damaged in the same way.
func TestDamageOfARealFile(t *testing.T) {
	real := fixtures.File(t, "single-default", "data/raft-engine/0000000000000001.raftlog")
	ends := batchEnds(t, real)
	n := 0
	for n < len(ends) && ends[n] < 3000 {
		n++
	}
	content := real[:ends[n]]
	rewrite := fixtures.File(t, "single-default", "data/raft-engine/0000000000000001.rewrite")
	d := newDir().write(FileName(Rewrite, 1), rewrite)
	legal := map[string]bool{}
	for _, end := range append([]int64{0}, ends[:n+1]...) {
		d.write(FileName(Append, 1), content[:end])
		s, err := readAll(t, d, "prefix")
		if err != nil {
			t.Fatal(err)
		}
		legal[s] = true
	}
	if len(legal) < 5 {
		t.Fatalf("%d different states in %d bytes", len(legal), len(content))
	}
	check := func(what string, b []byte) {
		d.write(FileName(Append, 1), b)
		if s, err := readAll(t, d, what); err == nil && !legal[s] {
			t.Fatalf("%s: neither an error nor the state after some batch", what)
		}
	}
	for i := range content {
		b := bytes.Clone(content)
		b[i] ^= 1 << (i % 8)
		check(fmt.Sprintf("byte %d", i), b)
		check(fmt.Sprintf("cut to %d", i), content[:i])
	}
}
