package manifest

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// rocksDirs finds the RocksDB directories of an archive.
func rocksDirs(t *testing.T, fs base.FS, dir string) (dirs []string) {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if name == "CURRENT" && !strings.HasSuffix(dir, "titandb") {
			dirs = append(dirs, dir)
		}
		path := fs.PathJoin(dir, name)
		if st, err := fs.Stat(path); err == nil && st.IsDir() {
			dirs = append(dirs, rocksDirs(t, fs, path)...)
		}
	}
	return dirs
}

// The MANIFESTs that TiKV left behind: every live file is there with its size, the records written again make the same
// state, and each edit that does not hide tag 10 in a file encodes to the bytes that TiKV wrote.
func TestFixtures(t *testing.T) {
	var dirs, files, edits, exact int
	for _, name := range fixtures.Names() {
		fs := base.NewMem(fixtures.Mem(t, name))
		for _, dir := range rocksDirs(t, fs, "/") {
			if strings.Contains(dir, "/pd/") {
				continue
			}
			dirs++
			t.Run(name+dir, func(t *testing.T) {
				s, err := Load(fs, dir)
				if name == "single-encrypted" {
					// Cipher text does not read as a MANIFEST; engine/crypt belongs below the FS.
					if !errors.Is(err, base.ErrCorrupt) {
						t.Fatalf("cipher text: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if s.TornTail || s.NextFile == 0 {
					t.Errorf("state %s", describe(s))
				}
				if s.CF("default") == nil || strings.HasSuffix(dir, "/db") && (s.CF("write") == nil || s.CF("lock") == nil || s.CF("raft") == nil) {
					t.Errorf("column families of %s", describe(s))
				}
				for _, cf := range s.CFs {
					if cf.Comparator != Comparator || !cf.EpochsComplete() || !cf.OrdersAgree() {
						t.Errorf("column family %s: comparator %q, epochs %v, orders agree %v", cf.Name, cf.Comparator, cf.EpochsComplete(), cf.OrdersAgree())
					}
					for _, level := range cf.Levels {
						for _, f := range level {
							files++
							if st, err := fs.Stat(fs.PathJoin(dir, TableName(f.Number))); err != nil || uint64(st.Size()) != f.Size {
								t.Errorf("file %d: %v", f.Number, err)
							}
							if f.Number > s.NextFile || f.LargestSeq > s.LastSeq || f.SmallestSeq > f.LargestSeq {
								t.Errorf("file %d: next %d, last %d, sequences %d..%d", f.Number, s.NextFile, s.LastSeq, f.SmallestSeq, f.LargestSeq)
							}
						}
					}
				}
				for i, r := range s.Records {
					e, err := DecodeEdit(r)
					if err != nil {
						t.Fatal(err)
					}
					edits++
					enc := e.Encode()
					if bytes.Equal(enc, r) {
						exact++
						continue
					}
					again, err := DecodeEdit(enc)
					if err != nil {
						t.Fatal(err)
					}
					if d := cmp.Diff(e, again); d != "" {
						t.Errorf("record %d: %s", i, d)
					}
					if !(len(e.NewFiles) > 0 && e.MinLogNumberToKeep != nil) {
						t.Errorf("record %d: %X became %X", i, r, enc)
					}
				}
				if err := Write(fs, dir+"/MANIFEST-999999", s.Records, dir+"/CURRENT"); err != nil {
					t.Fatal(err)
				}
				again, err := LoadFile(fs, dir+"/MANIFEST-999999", 999999)
				if err != nil {
					t.Fatal(err)
				}
				if equal, why := s.Equal(again); !equal {
					t.Errorf("written again it differs in %s", why)
				}
			})
		}
	}
	t.Logf("%d directories, %d live files, %d edits of which %d encode to the same bytes", dirs, files, edits, exact)
	if dirs < 35 || files < 30 || exact < 300 {
		t.Errorf("%d directories, %d files, %d exact edits: fixtures are missing", dirs, files, exact)
	}
}
