package oracle

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Which databases of TiKV 9.0 (RocksDB 8.10) the three stock lines read, none of them through our own reader. Those that read
// have to read the same, read-only and after a full open with recovery of the WAL.
func TestThreeLinesReadTheSame(t *testing.T) {
	Available(t)
	for _, c := range []struct {
		name, db string
		refuses  map[Version]string // what the error says
	}{
		{name: "single-levels", db: "/data/db"},
		{name: "single-raftdb", db: "/data/raft"},
		{name: "raw-v2", db: "/data/db"},
		{name: "tablets-v2", db: "/data/tablets/10_5"},
		{name: "multi5-lost3", db: "/store0/db"},
		// Table format version 5 came with 6.6.
		{name: "single-lz4-ranges", db: "/data/db", refuses: map[Version]string{V6_4: "Unknown Footer version"}},
		{name: "single-titan", db: "/data/db", refuses: map[Version]string{
			V6_4:  "unexpected blob index",
			V6_29: "decoding blob index",
			V8_10: "decoding blob index",
		}},
		// The MANIFEST is ciphertext: each reads an empty one, and says so.
		{name: "single-encrypted", db: "/data/db", refuses: map[Version]string{
			V6_4:  "no meta-nextfile entry",
			V6_29: "no log_file_number",
			V8_10: "no log_file_number",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mem := fixtures.Mem(t, c.name)
			var first *Result
			for _, v := range Versions() {
				if says, ok := c.refuses[v]; ok {
					if _, err := ReadFS(t, v, mem, c.db, Options{}); err == nil || !strings.Contains(err.Error(), says) {
						t.Errorf("%s: error %v, want one with %q", v, err, says)
					}
					continue
				}
				for _, o := range []Options{{}, {ReadWrite: true, Opens: 2}} {
					r, err := ReadFS(t, v, mem, c.db, o)
					if err != nil {
						t.Fatal(err)
					}
					if first == nil {
						first = r
						for cf, rows := range r.Rows {
							t.Logf("%s: %d rows", cf, len(rows))
						}
					}
					if !maps.Equal(r.SHA256, first.SHA256) {
						t.Errorf("%s %+v reads %v, before %v", v, o, r.SHA256, first.SHA256)
					}
				}
			}
		})
	}
}

// The rows of single-levels by RocksDB 8.10 (Java) and by Debian's ldb of another release are the same, and the write CF
// has a version for each commit of the history that is not a lock still.
func TestLDBAgrees(t *testing.T) {
	Available(t, V8_10)
	dir := filepath.Join(fixtures.Dir(t, "single-levels"), "data", "db")
	if err := LDBCheckConsistency(t, dir); err != nil {
		t.Error(err)
	}
	byJava := Dump(t, V8_10, dir)
	if len(byJava) != 4 {
		t.Errorf("%d column families", len(byJava))
	}
	for cf, want := range byJava {
		got, err := LDBScan(t, dir, cf)
		if err != nil {
			t.Fatal(err)
		}
		same := func(a, b KV) bool { return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) }
		if !slices.EqualFunc(got, want, same) {
			t.Errorf("%s: ldb reads %d rows, RocksDB 8.10 %d, or other ones", cf, len(got), len(want))
		}
	}
	versions := map[string]bool{}
	for _, kv := range byJava["write"] {
		// The last 8 bytes of the key are the commit_ts, big endian and inverted.
		versions[fmt.Sprint(^binary.BigEndian.Uint64(kv.Key[len(kv.Key)-8:]))] = true
	}
	pending := map[uint64]bool{} // transactions that are committed although they are locks still
	for _, l := range fixtures.Facts(t, "single-levels").Locks {
		pending[l.StartTS] = true
	}
	for _, c := range fixtures.History(t, "single-levels") {
		if !pending[c.StartTS] && !versions[fmt.Sprint(c.CommitTS)] {
			t.Fatalf("commit %d of the history is not in the write CF", c.CommitTS)
		}
	}
}

// A judge that is not the release that it is taken for proves nothing: a full open leaves an OPTIONS file with its number.
func TestEachJudgeIsItsRelease(t *testing.T) {
	Available(t)
	mem := fixtures.Mem(t, "single-clean-stop")
	for _, v := range Versions() {
		r, err := ReadFS(t, v, mem, "/data/db", Options{ReadWrite: true})
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(r.Dir, "OPTIONS-*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no OPTIONS file (%v)", v, err)
		}
		b, err := os.ReadFile(files[len(files)-1])
		if err != nil {
			t.Fatal(err)
		}
		if want := "rocksdb_version=" + string(v); !strings.Contains(string(b), want+"\n") {
			t.Errorf("%s has no line %s", files[len(files)-1], want)
		}
	}
}

// A compaction of everything changes no row; the filters that it writes are asked.
func TestCompactionKeepsRows(t *testing.T) {
	Available(t, V8_10)
	mem := fixtures.Mem(t, "single-levels")
	before, err := ReadFS(t, V8_10, mem, "/data/db", Options{})
	if err != nil {
		t.Fatal(err)
	}
	after, err := ReadFS(t, V8_10, mem, "/data/db", Options{ReadWrite: true, Opens: 2, Compact: []string{"write", "default"}})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before.SHA256, after.SHA256) {
		t.Errorf("before %v, after %v", before.SHA256, after.SHA256)
	}
	if after.Tickers["COMPACT_WRITE_BYTES"] == 0 || after.Tickers["BLOOM_FILTER_USEFUL"] == 0 {
		t.Errorf("no compaction or no filter: %v", after.Tickers)
	}
}

// titanKeys finds the keys of the default CF whose newest record in the SSTs is a blob index, by sst_dump.
func titanKeys(t *testing.T, db string) [][]byte {
	t.Helper()
	newest := map[string]ikey.Key{}
	for _, f := range ssts(t, db) {
		p, err := SSTProperties(t, f)
		if err != nil {
			t.Fatal(err)
		}
		if p.Table["column family name"] != "default" {
			continue
		}
		records, err := SSTScan(t, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if old, ok := newest[string(r.Key.User)]; !ok || old.Seq < r.Key.Seq {
				newest[string(r.Key.User)] = r.Key
			}
		}
	}
	var keys [][]byte
	for _, k := range newest {
		if k.Kind == ikey.KindBlobIndex {
			keys = append(keys, k.User)
		}
	}
	return keys
}

func ssts(t *testing.T, db string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(db, "*.sst"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no SST in %s (%v)", db, err)
	}
	return files
}

// With the Titan keys named, all the rest of single-titan can be judged; a wrong name is found out.
func TestTitanKeysAreSteppedOver(t *testing.T) {
	Available(t)
	db := filepath.Join(fixtures.Dir(t, "single-titan"), "data", "db")
	blobs := titanKeys(t, db)
	if len(blobs) == 0 {
		t.Fatal("no blob index in single-titan")
	}
	var first *Result
	for _, v := range Versions() {
		r, err := Read(t, v, db, Options{Blobs: map[string][][]byte{"default": blobs}})
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = r
			t.Logf("%d blobs, %d other rows of the default CF", len(blobs), len(r.Rows["default"]))
		}
		if !maps.Equal(r.SHA256, first.SHA256) {
			t.Errorf("%s reads %v, before %v", v, r.SHA256, first.SHA256)
		}
	}
	if _, err := Read(t, V8_10, db, Options{Blobs: map[string][][]byte{"default": blobs[1:]}}); err == nil {
		t.Error("a blob that is not named was not noticed")
	}
	wrong := append(slices.Clone(blobs), first.Rows["default"][0].Key)
	if _, err := Read(t, V8_10, db, Options{Blobs: map[string][][]byte{"default": wrong}}); err == nil {
		t.Error("a plain row named as a blob was not noticed")
	}
}

// sst_dump's records and properties agree with each other and have TiKV's own properties.
func TestSSTDump(t *testing.T) {
	db := filepath.Join(fixtures.Dir(t, "single-levels"), "data", "db")
	withMVCC := 0
	for _, f := range ssts(t, db) {
		if err := SSTVerify(t, f); err != nil {
			t.Error(err)
		}
		records, err := SSTScan(t, f)
		if err != nil {
			t.Fatal(err)
		}
		p, err := SSTProperties(t, f)
		if err != nil {
			t.Fatal(err)
		}
		if want := strconv.Itoa(len(records)); p.Table["# entries"] != want {
			t.Errorf("%s: %s records, # entries %s", f, want, p.Table["# entries"])
		}
		if !slices.IsSortedFunc(records, func(a, b Record) int { return ikey.Compare(a.Key, b.Key) }) {
			t.Errorf("%s: records out of order", f)
		}
		if p.Table["column family name"] == "write" && len(p.User["tikv.max_ts"]) == 8 {
			withMVCC++
		}
	}
	if withMVCC == 0 {
		t.Error("no SST of the write CF with tikv.max_ts")
	}
}

// A judge that never says no proves nothing.
func TestDamageIsFound(t *testing.T) {
	Available(t)
	dir := t.TempDir()
	fresh := func(name string) string {
		at := filepath.Join(dir, name)
		fixtures.DirAt(t, "single-levels", at)
		return filepath.Join(at, "data", "db")
	}

	flipped := fresh("flipped")
	victim := ssts(t, flipped)[0]
	b, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/3] ^= 1
	if err := os.WriteFile(victim, b, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := fresh("missing")
	if err := os.Remove(ssts(t, missing)[0]); err != nil {
		t.Fatal(err)
	}
	for _, v := range Versions() {
		for what, db := range map[string]string{"a flipped bit": flipped, "a missing SST": missing} {
			if _, err := Read(t, v, db, Options{}); err == nil {
				t.Errorf("RocksDB %s does not notice %s", v, what)
			} else {
				t.Logf("%s, %s: %v", v, what, err)
			}
		}
	}
	if err := SSTVerify(t, victim); err == nil {
		t.Error("sst_dump verify does not notice a flipped bit")
	}
	if _, err := SSTScan(t, victim); err == nil {
		t.Error("sst_dump scan does not notice a flipped bit")
	}
	if err := LDBCheckConsistency(t, missing); err == nil {
		t.Error("ldb checkconsistency does not notice a missing SST")
	}
}
