package titan_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/titan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

const fixtureDir = "/data/db/titandb"

func index(file, off, size uint64) []byte {
	b := []byte{1}
	for _, v := range []uint64{file, off, size} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func openFixture(t *testing.T) (*titan.Store, *vfs.MemFS) {
	t.Helper()
	mem := fixtures.Mem(t, "single-titan")
	s, err := titan.Open(base.NewMem(mem), fixtureDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, mem
}

// What TiKV wrote: every record of every blob file reads, in key order, as many and in the range that the MANIFEST says,
// and Get gives the same value by index.
func TestRealBlobFiles(t *testing.T) {
	s, _ := openFixture(t)
	m := s.Manifest()
	if len(m.Files) != 7 || m.NextNumber == 0 || len(m.CFs) != 4 || m.Torn != 0 {
		t.Fatalf("manifest: %d files, next %d, column families %v", len(m.Files), m.NextNumber, m.CFs)
	}
	total := 0
	for _, f := range m.Sorted() {
		var keys [][]byte
		err := s.Walk(f.Number, func(off, size int64, key, value []byte) error {
			if n := len(keys); n > 0 && bytes.Compare(keys[n-1], key) >= 0 {
				t.Errorf("%s: key %X after %X", s.Path(f.Number), key, keys[n-1])
			}
			keys = append(keys, bytes.Clone(key))
			if len(value) < 1024 {
				t.Errorf("value of %d bytes is below min-blob-size", len(value))
			}
			got, err := s.Get(index(f.Number, uint64(off), uint64(size)), key)
			if err != nil || !bytes.Equal(got, value) {
				t.Errorf("get %X: %v", key, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(keys)) != f.Entries || f.CF != 0 || !bytes.Equal(keys[0], f.Smallest) || !bytes.Equal(keys[len(keys)-1], f.Largest) {
			t.Errorf("file %d: %d records, MANIFEST: %+v", f.Number, len(keys), f)
		}
		total += len(keys)
	}
	if total != 108 {
		t.Errorf("%d records, want 108", total)
	}
}

// Every value is either right or an error that names the file; the tool never makes one up.
func TestGetRefuses(t *testing.T) {
	s, _ := openFixture(t)
	var off, size uint64
	var key, other []byte
	stop := errors.New("stop")
	err := s.Walk(2, func(o, n int64, k, _ []byte) error {
		if key != nil {
			other = bytes.Clone(k)
			return stop
		}
		off, size, key = uint64(o), uint64(n), bytes.Clone(k)
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		index []byte
		key   []byte
		want  string
	}{
		"other key":             {index(2, off, size), other, "belongs to key"},
		"file that is not live": {index(99, off, size), key, "not live"},
		"size too small":        {index(2, off, 3), key, "points to"},
		"one byte less":         {index(2, off, size-1), key, "record says"},
		"header of the file":    {index(2, 0, size), key, "points to"},
		"one byte later":        {index(2, off+1, size), key, "record says"},
		"beyond the end":        {index(2, 1<<40, size), key, "points to"},
		"overflow":              {index(2, off, 1<<64-1), key, "points to"},
		"into the footer":       {index(2, off, 1<<30), key, "points to"},
		"empty index":           {nil, key, "does not start with 01"},
		"wrong type":            {[]byte{2, 2, 0, 0}, key, "does not start with 01"},
		"cut index":             {index(2, off, size)[:3], key, "cut off"},
		"long index":            {append(index(2, off, size), 0), key, "trailing"},
	} {
		_, err := s.Get(tc.index, tc.key)
		var e *base.Error
		if !errors.Is(err, base.ErrCorrupt) || !errors.As(err, &e) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
			continue
		}
		if !bytes.Equal(e.Key, tc.key) || !strings.HasPrefix(e.Path, fixtureDir) {
			t.Errorf("%s: error names key %X and path %s", name, e.Key, e.Path)
		}
	}
}

// Each flipped byte of a real blob file is noticed by Open of the file, or by Walk.
func TestEveryFlippedByteIsNoticed(t *testing.T) {
	mem := fixtures.Mem(t, "single-titan")
	fs := base.NewMem(mem)
	const name = fixtureDir + "/000008.blob"
	content, err := base.ReadFile(fs, name)
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 61
	}
	for i := 0; i < len(content); i += step {
		if i > 4096 && i < len(content)-64 && i%61 != 0 {
			continue // the middle is like the beginning
		}
		damaged := bytes.Clone(content)
		damaged[i] ^= 0x10
		if err := base.WriteFileSync(fs, name, damaged, ""); err != nil {
			t.Fatal(err)
		}
		s, err := titan.Open(fs, fixtureDir)
		if err != nil {
			t.Fatal(err)
		}
		n := uint64(0)
		err = s.Walk(8, func(_, _ int64, _, _ []byte) error { n++; return nil })
		if err == nil && n == s.Manifest().Files[8].Entries {
			t.Errorf("byte %d flipped: not noticed", i)
		}
		if err != nil && !errors.Is(err, base.ErrCorrupt) && !errors.Is(err, base.ErrUnsupported) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
		s.Close()
	}
}

func TestBlobFileGoneOrCut(t *testing.T) {
	for name, damage := range map[string]func(fs base.FS, path string) error{
		"gone": func(fs base.FS, path string) error { return fs.Remove(path) },
		"cut": func(fs base.FS, path string) error {
			b, err := base.ReadFile(fs, path)
			if err != nil {
				return err
			}
			return base.WriteFileSync(fs, path, b[:len(b)-1], "")
		},
		"empty": func(fs base.FS, path string) error { return base.WriteFileSync(fs, path, nil, "") },
	} {
		fs := base.NewMem(fixtures.Mem(t, "single-titan"))
		if err := damage(fs, fixtureDir+"/000002.blob"); err != nil {
			t.Fatal(err)
		}
		s, err := titan.Open(fs, fixtureDir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(index(2, 20, 100), []byte("k")); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), "000002.blob") {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

func TestConcurrentGet(t *testing.T) {
	s, _ := openFixture(t)
	type ref struct{ index, key, value []byte }
	var refs []ref
	for _, f := range s.Manifest().Sorted() {
		err := s.Walk(f.Number, func(off, size int64, key, value []byte) error {
			refs = append(refs, ref{index(f.Number, uint64(off), uint64(size)), bytes.Clone(key), bytes.Clone(value)})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range refs {
				r := refs[(i*7+g*13)%len(refs)]
				if got, err := s.Get(r.index, r.key); err != nil || !bytes.Equal(got, r.value) {
					t.Errorf("get %X: %v", r.key, err)
				}
			}
		})
	}
	wg.Wait()
}

// Versions 1 to 3, aligned files with a punched hole, and each compression. The MANIFEST uses all three ways to add a file.
func TestVersionsAndCompressions(t *testing.T) {
	value := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i), 'x', 'y'}, 1000+i) }
	for _, v := range []struct {
		version   uint32
		blockSize int
		added     func(size, entries int) []byte
	}{
		{1, 0, func(size, _ int) []byte { return edit(10, 0, 11, 7, size) }},
		{2, 0, func(size, n int) []byte { return edit(13, 7, size, n, 0, "k0", "k3", 10, 2) }},
		{3, 0, func(size, n int) []byte { return edit(14, 7, size, n, 1, 0, "k0", "k3") }},
		{3, 4096, func(size, n int) []byte { return edit(14, 7, size, n, 1, 4096, "k0", "k3") }},
	} {
		w := newBlob(v.version, 0, v.blockSize)
		var idx [][]byte
		for i, c := range []byte{0, 1, 4, 7} {
			if v.blockSize > 0 && i == 2 {
				w.b = append(w.b, make([]byte, 2*v.blockSize)...)
			}
			off, size := w.add(c, fmt.Appendf(nil, "k%d", i), value(i))
			idx = append(idx, index(7, off, size))
		}
		blob := w.finish()
		s := store(t, map[int][]byte{7: blob}, edit(1, 9), v.added(len(blob), 4))
		for i := range idx {
			got, err := s.Get(idx[i], fmt.Appendf(nil, "k%d", i))
			if err != nil || !bytes.Equal(got, value(i)) {
				t.Errorf("version %d, block size %d, record %d: %v", v.version, v.blockSize, i, err)
			}
		}
		n := 0
		err := s.Walk(7, func(_, _ int64, key, val []byte) error {
			if string(key) != fmt.Sprintf("k%d", n) || !bytes.Equal(val, value(n)) {
				t.Errorf("version %d, block size %d: record %d has key %s", v.version, v.blockSize, n, key)
			}
			n++
			return nil
		})
		if err != nil || n != 4 {
			t.Errorf("version %d, block size %d: walked %d records, %v", v.version, v.blockSize, n, err)
		}
	}
}

func TestRefusedByName(t *testing.T) {
	dict := newBlob(2, 1, 0)
	dict.add(0, []byte("k"), []byte("v"))
	future := newBlob(4, 0, 0)
	flags := newBlob(3, 2, 0)
	zlib := newBlob(1, 0, 0)
	off, size := zlib.raw(2, []byte{1, 2, 3})
	for name, tc := range map[string]struct {
		blob  []byte
		index []byte
		want  string
	}{
		"dictionary": {dict.finish(), index(5, 12, 13), "dictionary"},
		"version 4":  {future.finish(), index(5, 20, 13), "version 4"},
		"flags":      {flags.finish(), index(5, 20, 13), "unknown flags"},
		"zlib":       {zlib.finish(), index(5, off, size), "type 2"},
	} {
		s := store(t, map[int][]byte{5: tc.blob}, edit(11, 5, len(tc.blob)))
		if _, err := s.Get(tc.index, []byte("k")); !errors.Is(err, base.ErrUnsupported) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A record may claim any unpacked size; the claim alone must neither be believed nor allocated.
func TestSizeBombs(t *testing.T) {
	for _, c := range []byte{1, 4, 5, 7} {
		for _, claim := range []uint64{1 << 20, 1 << 29, 1 << 31, 1<<63 + 5} {
			w := newBlob(1, 0, 0)
			off, size := w.raw(c, append(binary.AppendUvarint(nil, claim), 0x28, 0xb5, 0x2f, 0xfd))
			blob := w.finish()
			s := store(t, map[int][]byte{5: blob}, edit(11, 5, len(blob)))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := s.Get(index(5, off, size), []byte("k")); !errors.Is(err, base.ErrCorrupt) {
				t.Errorf("compression %d, claim %d: %v", c, claim, err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
				t.Errorf("compression %d, claim %d: %d bytes allocated", c, claim, n)
			}
		}
	}
}

func TestManifestRules(t *testing.T) {
	big := strings.Repeat("x", 40000) // crosses a block
	good := manifest(edit(1, 5, 10, 3), edit(11, 2, 100), edit(), edit(14, 3, 50, 1, 0, 0, "a", big), edit(12, 2), edit(1, 9))
	m, err := titan.ParseManifest("M", good)
	if err != nil || len(m.Files) != 1 || m.NextNumber != 9 || string(m.Files[3].Largest) != big || !m.Files[3].HasMeta {
		t.Fatalf("%+v, %v", m, err)
	}
	for name, tc := range map[string]struct {
		b    []byte
		want string
	}{
		"added twice":      {manifest(edit(11, 2, 100), edit(11, 2, 100)), "added twice"},
		"deleted unknown":  {manifest(edit(12, 2)), "not there"},
		"deleted other CF": {manifest(edit(10, 1, 11, 2, 100), edit(12, 2)), "not there"},
		"unknown tag":      {manifest(edit(99, 1)), "unknown tag 99"},
		"going back":       {manifest(edit(1, 9), edit(1, 8)), "goes back"},
		"cut field":        {manifest(edit(11, 2)), "inside a field"},
		"long string":      {manifest(edit(14, 3, 50, 1, 0, 0, 1<<31)), "inside a field"},
		"wide level":       {manifest(edit(14, 3, 50, 1, 1<<40)), "32 bits"},
		"flipped bit":      {flip(good, 9), "checksum"},
	} {
		if _, err := titan.ParseManifest("M", tc.b); !errors.Is(err, base.ErrCorrupt) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	// Cut anywhere: what is whole counts, what is torn is measured, nothing else is said.
	ends := map[int]bool{len(good): true}
	for cut := len(good) - 1; cut >= 0; cut -= max(1, cut/400) {
		m, err := titan.ParseManifest("M", good[:cut])
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if m.Torn == 0 {
			ends[cut] = true
		}
	}
	if len(ends) < 4 {
		t.Errorf("records end at %v", ends)
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestOpenWithoutTitan(t *testing.T) {
	fs := base.NewMem(vfs.NewMem())
	s, err := titan.Open(fs, "/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(index(1, 20, 100), []byte("k")); !errors.Is(err, base.ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	for _, bad := range []string{"", "MANIFEST-000001", "MANIFEST-\n", "../x\n", "MANIFEST-1/../2\n"} {
		if err := fs.MkdirAll("/t", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := base.WriteFileSync(fs, "/t/CURRENT", []byte(bad), ""); err != nil {
			t.Fatal(err)
		}
		if _, err := titan.Open(fs, "/t"); !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("CURRENT %q: %v", bad, err)
		}
	}
}
