//go:build rocksdb

package rewind_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/linxGnu/grocksdb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// ownView is what our reader sees, in the judges' form, and the keys that stock RocksDB cannot read.
func ownView(c content) (rows map[string][]oracle.KV, blobs map[string][][]byte) {
	rows, blobs = map[string][]oracle.KV{}, map[string][][]byte{}
	for cf, m := range c {
		rows[cf] = []oracle.KV{}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if m[k].kind == ikey.KindBlobIndex {
				blobs[cf] = append(blobs[cf], []byte(k))
				continue
			}
			rows[cf] = append(rows[cf], oracle.KV{Key: []byte(k), Value: []byte(m[k].value)})
		}
	}
	return rows, blobs
}

func sameRows(t testing.TB, judge string, got, want map[string][]oracle.KV) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d column families, want %d", judge, len(got), len(want))
	}
	for cf := range want {
		if len(got[cf]) != len(want[cf]) {
			t.Errorf("%s, %s: %d rows, want %d", judge, cf, len(got[cf]), len(want[cf]))
		}
		for i := range min(len(got[cf]), len(want[cf])) {
			if g, w := got[cf][i], want[cf][i]; string(g.Key) != string(w.Key) || string(g.Value) != string(w.Value) {
				t.Errorf("%s, %s row %d: got %X %X, want %X %X", judge, cf, i, g.Key, g.Value, w.Key, w.Value)
				break
			}
		}
	}
}

// judge lets real RocksDB read the store in memory by all its ways and compares with our reader.
func judge(t *testing.T, mem *vfs.MemFS, ts mvcc.TS, versions ...oracle.Version) {
	t.Helper()
	s := open(t, base.NewMem(mem), dataDir)
	want, blobs := ownView(contentOf(t, s))
	var live []string
	for _, f := range s.DB.CF(scan.CFWrite).Files() {
		live = append(live, filepath.Base(s.DB.TablePath(f.Number)))
	}
	closing(t, s)
	for _, v := range versions {
		for _, o := range []oracle.Options{{Opens: 2, Blobs: blobs}, {ReadWrite: true, Opens: 2, Blobs: blobs}} {
			r, err := oracle.ReadFS(t, v, mem, dataDir+"/db", o)
			if err != nil {
				t.Error(err)
				continue
			}
			who := fmt.Sprintf("RocksDB %s, read-write %v", v, o.ReadWrite)
			sameRows(t, who, r.Rows, want)
			if !o.ReadWrite {
				continue
			}
			// It has purged what nothing refers to, and gone on; our reader follows.
			db, err := rocks.Open(base.NewOS(), r.Dir, rocks.Options{})
			if err != nil {
				t.Error(err)
				continue
			}
			for _, f := range db.SelfCheck(func(string, rocks.LevelFile) bool { return true }) {
				t.Errorf("after %s: %v", who, f)
			}
			again, _ := ownView(contentOf(t, &scan.Store{DB: db}))
			sameRows(t, "our reader after "+who, again, want)
			closing(t, db)
		}
	}
	dir := filepath.Join(t.TempDir(), "db")
	fixtures.CopyToDisk(t, mem, dataDir+"/db", dir)
	if err := oracle.LDBCheckConsistency(t, dir); err != nil {
		t.Error(err)
	}
	for cf := range want {
		if len(blobs[cf]) > 0 {
			continue
		}
		rows, err := oracle.LDBScan(t, dir, cf)
		if err != nil {
			t.Error(err)
			continue
		}
		sameRows(t, "ldb", map[string][]oracle.KV{cf: rows}, map[string][]oracle.KV{cf: want[cf]})
	}
	if ts == 0 {
		return
	}
	for _, name := range live {
		file := filepath.Join(dir, name)
		if err := oracle.SSTVerify(t, file); err != nil {
			t.Error(err)
		}
		recs, err := oracle.SSTScan(t, file)
		if err != nil {
			t.Error(err)
		}
		for _, r := range recs {
			if _, at, ok := mvcc.SplitKey(r.Key.User); !ok || at > ts {
				t.Errorf("sst_dump %s: %v is above T", name, r.Key)
			}
		}
	}
}

// Real RocksDB reads from a rewound store what we read, by iterator and by Get, read-only and after a full open.
func TestRealRocksDBReadsRewoundStores(t *testing.T) {
	oracle.Available(t, oracle.V8_10, oracle.V6_29)
	for _, name := range singles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ts := named(t, name)
			for i, at := range []mvcc.TS{ts[0], ts[3]} {
				mem := fixtures.Mem(t, name)
				reset(t, base.NewMem(mem), dataDir, to(at))
				versions := []oracle.Version{oracle.V8_10}
				if i == 0 {
					versions = append(versions, oracle.V6_29)
				}
				judge(t, mem, at, versions...)
			}
		})
	}
}

// The stores that the tests shape are ones that real RocksDB reads as we do, before a rewind and after it.
func TestRealRocksDBReadsShapedStores(t *testing.T) {
	oracle.Available(t, oracle.V8_10)
	for _, name := range []string{"single-levels", "single-lz4-ranges"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			for range 3 {
				sh := randomShape(rng)
				sh.ranges = max(sh.ranges, 3)
				at := named(t, name)[rng.IntN(4)]
				t.Logf("%v, T %s", sh, at)
				mem := shapedMem(t, name, sh)
				judge(t, mem, 0, oracle.V8_10)
				reset(t, base.NewMem(mem), dataDir, to(at))
				judge(t, mem, at, oracle.V8_10)
			}
		})
	}
}

// stranger lets another release of RocksDB work on a fixture's database: files ingested with a sequence of their own while the
// memtable holds older records, range tombstones, compactions of a part, deleted versions far above every T, a log that is not
// flushed. The logical content of before stays visible.
func stranger(t *testing.T, name string, flush bool) *vfs.MemFS {
	t.Helper()
	mem := fixtures.Mem(t, name)
	s := open(t, base.NewMem(mem), dataDir)
	want := contentOf(t, s)
	names := s.DB.Names()
	closing(t, s)
	dir := filepath.Join(t.TempDir(), "db")
	fixtures.CopyToDisk(t, mem, dataDir+"/db", dir)
	// OPTIONS files of TiKV do not parse in stock RocksDB.
	for _, f := range must(filepath.Glob(filepath.Join(dir, "OPTIONS-*")))(t) {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	o := grocksdb.NewDefaultOptions()
	o.SetDisableAutoCompactions(true)
	o.SetTargetFileSizeBase(32 << 10)
	opts := make([]*grocksdb.Options, len(names))
	for i := range opts {
		opts[i] = o
	}
	db, handles, err := grocksdb.OpenDbColumnFamilies(o, dir, names, opts)
	if err != nil {
		t.Fatal(err)
	}
	wo, fo := grocksdb.NewDefaultWriteOptions(), grocksdb.NewDefaultFlushOptions()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := handles[slices.Index(names, scan.CFWrite)]
	keys := slices.Sorted(maps.Keys(want[scan.CFWrite]))
	n := len(keys)
	put := func(keys []string) {
		for _, k := range keys {
			ok(db.PutCF(wo, write, []byte(k), []byte(want[scan.CFWrite][k].value)))
		}
	}
	batch := grocksdb.NewWriteBatch()
	batch.DeleteRangeCF(write, []byte(keys[n/5]), []byte(keys[4*n/5]))
	snapshot := db.NewSnapshot() // keeps what the tombstone hides, and so the tombstone
	ok(db.Write(wo, batch))
	put(keys[n/5 : 4*n/5])
	ok(db.FlushCF(write, fo))
	db.CompactRangeCF(write, grocksdb.Range{})
	db.ReleaseSnapshot(snapshot)
	force := grocksdb.NewCompactRangeOptions()
	force.SetBottommostLevelCompaction(grocksdb.KForce)
	db.CompactRangeCFOpt(write, grocksdb.Range{Start: []byte(keys[n/3]), Limit: []byte(keys[n/2])}, force)

	// Far above every T: a version in one file, its tombstone in the log.
	junk := func(k string) []byte {
		prefix, _, _ := mvcc.SplitKey([]byte(k))
		return mvcc.AppendTS(slices.Clone(prefix), farFuture)
	}
	value := mvcc.Write{Type: mvcc.WritePut, StartTS: 7, ShortValue: []byte("junk"), HasShortValue: true}.Append(nil)
	for _, k := range keys[n/3 : n/3+50] {
		ok(db.PutCF(wo, write, junk(k), value))
	}
	ok(db.FlushCF(write, fo))
	// These wait in the memtable, on both sides of what is ingested.
	put(keys[:5])
	put(keys[n-5:])
	for _, k := range keys[n/3 : n/3+50] {
		ok(db.DeleteCF(wo, write, junk(k)))
	}
	file := filepath.Join(t.TempDir(), "x.sst")
	w := grocksdb.NewSSTFileWriter(grocksdb.NewDefaultEnvOptions(), o)
	ok(w.Open(file))
	for _, k := range keys[n/2 : n/2+100] {
		ok(w.Put([]byte(k), []byte(want[scan.CFWrite][k].value)))
	}
	ok(w.Finish())
	ok(db.IngestExternalFileCF(write, []string{file}, grocksdb.NewDefaultIngestExternalFileOptions()))
	if flush {
		ok(db.FlushCF(write, fo))
	}
	for _, h := range handles {
		h.Destroy()
	}
	db.Close()

	out := cloneMem(t, mem)
	ok(out.RemoveAll(dataDir + "/db"))
	if done, err := vfs.Clone(vfs.Default, out, dir, dataDir+"/db"); err != nil || !done {
		t.Fatal(done, err)
	}
	s = open(t, base.NewMem(out), dataDir)
	defer closing(t, s)
	if d := differ(contentOf(t, s).withoutSeqs(), want.withoutSeqs()); d != "" {
		t.Errorf("%s after RocksDB has worked on it:\n%s", name, d)
	}
	for _, f := range s.DB.SelfCheck(func(string, rocks.LevelFile) bool { return true }) {
		t.Errorf("%s after RocksDB has worked on it: %v", name, f)
	}
	ingested, ranged := 0, 0
	for _, f := range s.DB.CF(scan.CFWrite).Files() {
		r, done, err := s.DB.CF(scan.CFWrite).Table(f.FileMeta)
		ok(err)
		if seq, global := r.GlobalSeq(); global && seq > 0 {
			ingested++
		}
		if r.Props().NumRangeDels > 0 {
			ranged++
		}
		ok(done())
	}
	if ingested == 0 || ranged == 0 {
		t.Errorf("%d files with a global sequence, %d with range tombstones: the test shows nothing", ingested, ranged)
	}
	return out
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A store on which RocksDB itself has ingested, deleted ranges and compacted is rewound like any other, and read back by it.
func TestRewindOfWhatRocksDBWrote(t *testing.T) {
	oracle.Available(t, oracle.V8_10)
	for _, name := range []string{"single-levels", "single-lz4-ranges"} {
		for _, flush := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/flushed=%v", name, flush), func(t *testing.T) {
				mem := stranger(t, name, flush)
				b := lookBefore(t, name, mem)
				defer b.close()
				for _, ts := range append(named(t, name), b.h.around(seeded(t), 5)...) {
					t.Run(ts.String(), func(t *testing.T) { b.oneMoment(t, ts) })
				}
				at := named(t, name)[1]
				after := cloneMem(t, mem)
				reset(t, base.NewMem(after), dataDir, to(at))
				judge(t, after, at, oracle.V8_10)
			})
		}
	}
}
