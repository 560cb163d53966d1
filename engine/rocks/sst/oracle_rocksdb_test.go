//go:build rocksdb

package sst

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/linxGnu/grocksdb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
)

// rocksOptions gives options in RocksDB's own text form, which reaches more settings than the C API binds.
func rocksOptions(t *testing.T, text string) *grocksdb.Options {
	t.Helper()
	o := grocksdb.NewDefaultOptions()
	o.SetCreateIfMissing(true)
	o.SetDisableAutoCompactions(true)
	out, err := grocksdb.GetOptionsFromString(o, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func theirKey(i int) string { return fmt.Sprintf("key%05d-%08d", i/4, i) }

func theirValue(i int) string { return strings.Repeat(fmt.Sprintf("%d.", i), i%40) }

// theirDB writes a database with one table and returns its path and the records that it must hold: the
// newest version of each key, for the flush drops what is hidden.
func theirDB(t *testing.T, text string, dels bool) (file string, points, ranges []record) {
	t.Helper()
	dir := t.TempDir()
	db, err := grocksdb.OpenDb(rocksOptions(t, text), dir)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	defer db.Close()
	wo := grocksdb.NewDefaultWriteOptions()
	seq := uint64(0)
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		seq++
	}
	newest := map[string]record{}
	var order []string
	for i := range 600 {
		k := theirKey(i)
		do(db.Put(wo, []byte(k), []byte(theirValue(i))))
		newest[k] = put(k, seq, theirValue(i))
		order = append(order, k)
	}
	if dels {
		for _, r := range [][2]string{{theirKey(50), theirKey(60)}, {"a", "b"}, {theirKey(300), theirKey(310) + "x"}} {
			batch := grocksdb.NewWriteBatch()
			batch.DeleteRange([]byte(r[0]), []byte(r[1]))
			do(db.Write(wo, batch))
			batch.Destroy()
			ranges = append(ranges, rangeDel(r[0], r[1], seq))
			for k := range newest {
				if k >= r[0] && k < r[1] {
					delete(newest, k)
				}
			}
		}
		ranges[0], ranges[1] = ranges[1], ranges[0]
	}
	for i := 0; i < 600; i += 7 {
		k := theirKey(i)
		do(db.Delete(wo, []byte(k)))
		newest[k] = kind(ikey.KindDelete, put(k, seq, ""))
	}
	fo := grocksdb.NewDefaultFlushOptions()
	fo.SetWait(true)
	if err := db.Flush(fo); err != nil {
		t.Fatal(err)
	}
	for _, k := range order {
		if r, ok := newest[k]; ok {
			points = append(points, r)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v: want one table", files, err)
	}
	return files[0], points, ranges
}

func checkTheirs(t *testing.T, file string, points, ranges []record) *Reader {
	t.Helper()
	r, err := Open(base.NewOS(), file, ReaderOptions{LargestSeq: ikey.MaxSeq})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	gotPoints, gotRanges, err := content(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameRecords(gotPoints, points); err != nil {
		t.Errorf("points: %v", err)
	}
	if err := sameRecords(gotRanges, ranges); err != nil {
		t.Errorf("range tombstones: %v", err)
	}
	if err := r.VerifyChecksums(); err != nil {
		t.Error(err)
	}
	for i, it := 0, r.NewIter(); i < len(points); i += 13 {
		if !it.SeekGE(points[i].User) || ikey.Compare(it.Key(), points[i].Key) != 0 {
			t.Fatalf("SeekGE(%v): %v %v", points[i].Key, it.Key(), it.Err())
		}
	}
	return r
}

// TestReadsRocksDB reads tables of every format version, checksum, compression and index type that RocksDB 7.8 writes.
func TestReadsRocksDB(t *testing.T) {
	type variant struct {
		text    string
		version uint32
		sum     ChecksumType
	}
	var all []variant
	sums := map[string]ChecksumType{"kNoChecksum": 0, "kCRC32c": 1, "kxxHash": 2, "kxxHash64": 3, "kXXH3": 4}
	compressions := []string{"kNoCompression", "kSnappyCompression", "kZlibCompression", "kBZip2Compression", "kLZ4Compression", "kLZ4HCCompression", "kZSTD"}
	for v := uint32(0); v <= 5; v++ {
		for sum, code := range sums {
			if v == 0 && code != ChecksumCRC32C {
				continue
			}
			for _, c := range compressions {
				if rare := v < 2 || strings.Contains("kZlibCompression kBZip2Compression kLZ4HCCompression", c); rare && code > ChecksumCRC32C {
					continue
				}
				all = append(all, variant{fmt.Sprintf("compression=%s;block_based_table_factory={format_version=%d;checksum=%s;block_size=512;filter_policy=bloomfilter:10:false}", c, v, sum), v, code})
			}
		}
		if v == 3 {
			continue // as 4, without delta encoding, which 2 does not have either
		}
		for _, extra := range []string{
			"index_type=kTwoLevelIndexSearch;metadata_block_size=128;partition_filters=true;filter_policy=bloomfilter:10:false",
			"index_type=kBinarySearchWithFirstKey",
			"index_type=kHashSearch",
			"index_block_restart_interval=7",
			"index_shortening=kNoShortening",
			"index_shortening=kShortenSeparatorsAndSuccessor",
			"data_block_index_type=kDataBlockBinaryAndHash;data_block_hash_table_util_ratio=0.75",
			"block_restart_interval=1",
			"block_align=true",
			"whole_key_filtering=false;filter_policy=bloomfilter:10:false",
		} {
			compression := "kLZ4Compression"
			if strings.HasPrefix(extra, "block_align") {
				compression = "kNoCompression"
			}
			all = append(all, variant{fmt.Sprintf("prefix_extractor=fixed:8;compression=%s;block_based_table_factory={format_version=%d;checksum=kCRC32c;block_size=512;%s}", compression, v, extra), v, ChecksumCRC32C})
		}
	}
	for _, v := range all {
		for _, dels := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s dels=%v", v.text, dels), func(t *testing.T) {
				file, points, ranges := theirDB(t, v.text, dels)
				r := checkTheirs(t, file, points, ranges)
				if r.Version() != v.version || r.Checksum() != v.sum {
					t.Errorf("footer says version %d, %v", r.Version(), r.Checksum())
				}
				p := r.Props()
				if c := count(points, ranges, false); c != counted(p) {
					t.Errorf("counted %+v, properties %+v", c, counted(p))
				}
			})
		}
	}
}

// TestDictionaryIsRefusedByName: an operator can switch dictionaries on; TiKV does not by default.
func TestDictionaryIsRefusedByName(t *testing.T) {
	file, _, _ := theirDB(t, "compression=kZSTD;bottommost_compression=kZSTD;compression_opts={max_dict_bytes=4096;enabled=true};block_based_table_factory={block_size=512;format_version=2}", false)
	_, err := Open(base.NewOS(), file, ReaderOptions{})
	if err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Fatalf("got %v", err)
	}
}

// TestReadsIngestedFiles: a file of SstFileWriter takes its sequence number from the MANIFEST.
func TestReadsIngestedFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.sst")
	w := grocksdb.NewSSTFileWriter(grocksdb.NewDefaultEnvOptions(), rocksOptions(t, "compression=kZSTD;block_based_table_factory={block_size=256;format_version=2}"))
	if err := w.Open(file); err != nil {
		t.Fatal(err)
	}
	var points []record
	for i := range 300 {
		k := fmt.Sprintf("k%04d", i)
		if err := w.Put([]byte(k), []byte("v")); err != nil {
			t.Fatal(err)
		}
		points = append(points, put(k, 4711, "v"))
	}
	if err := w.DeleteRange([]byte("k1"), []byte("k2")); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(base.NewOS(), file, ReaderOptions{LargestSeq: 4711})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	gotPoints, gotRanges, err := content(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameRecords(gotPoints, points); err != nil {
		t.Error(err)
	}
	if err := sameRecords(gotRanges, []record{rangeDel("k1", "k2", 4711)}); err != nil {
		t.Error(err)
	}
	if seq, ok := r.GlobalSeq(); !ok || seq != 4711 || r.Props().ExternalVersion != 2 {
		t.Errorf("global sequence number %d, %v", seq, ok)
	}
}

var scanLine = regexp.MustCompile(`^'([0-9A-F]*)' seq:(\d+), type:(\d+) => ?([0-9A-F]*)$`)

// TestRocksDBReadsOurs gives our tables to sst_dump: it verifies the checksums and scans the same records.
func TestRocksDBReadsOurs(t *testing.T) {
	var points []record
	for _, r := range manyRecords(3000) {
		if r.Kind != ikey.KindBlobIndex { // another meaning in stock RocksDB
			points = append(points, r)
		}
	}
	big := append([]record{put("a", 9, strings.Repeat("0123456789abcdef", 40<<10)), put("b", 8, string(make([]byte, 3<<20)))}, points...)
	dels := []record{rangeDel("a", "b", 3), rangeDel("z000001", "z000009", 9), rangeDel("z000001", "z1", 8), rangeDel("zz", "zzz", 1<<50)}
	for _, o := range profiles {
		for i, c := range [][2][]record{{points, nil}, {points, dels}, {nil, dels}, {points[:1], nil}, {big, nil}} {
			t.Run(fmt.Sprintf("%s content %d", profileName(o), i), func(t *testing.T) {
				b, m := write(t, o, c[0], c[1])
				file := filepath.Join(t.TempDir(), "000007.sst")
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
				run := func(args ...string) string {
					t.Helper()
					out, err := exec.Command("sst_dump", append(args, "--file="+file)...).CombinedOutput()
					if err != nil {
						t.Fatalf("sst_dump %v: %v\n%.2000s", args, err, out)
					}
					return string(out)
				}
				if out := run("--command=verify"); !strings.Contains(out, "The file is ok") {
					t.Fatalf("verify: %.2000s", out)
				}
				out := run("--command=scan", "--output_hex", "--show_properties")
				var got []record
				for _, line := range strings.Split(out, "\n") {
					f := scanLine.FindStringSubmatch(strings.TrimSpace(line))
					if f == nil {
						continue
					}
					seq, err := strconv.ParseUint(f[2], 10, 64)
					if err != nil {
						t.Fatal(err)
					}
					typ, err := strconv.ParseUint(f[3], 10, 8)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, record{ikey.Key{User: unhex(t, f[1]), Seq: seq, Kind: ikey.Kind(typ)}, string(unhex(t, f[4]))})
				}
				if err := sameRecords(got, c[0]); err != nil {
					t.Errorf("scan: %v\n%.3000s", err, out)
				}
				run("--command=raw")
				dump, err := os.ReadFile(strings.TrimSuffix(file, ".sst") + "_dump.txt")
				if err != nil {
					t.Fatal(err)
				}
				_, after, _ := strings.Cut(string(dump), "Range deletions:")
				after, _, _ = strings.Cut(after, "Data Block")
				var ranges []string
				for _, f := range rangeLine.FindAllStringSubmatch(after, -1) {
					ranges = append(ranges, f[1])
				}
				if d := cmp.Diff(fragments(c[1]), ranges); d != "" {
					t.Errorf("range tombstones (-ours +sst_dump):\n%s", d)
				}
				for _, p := range []string{
					fmt.Sprintf("# entries: %d", m.Entries), fmt.Sprintf("# deletions: %d", m.Deletions),
					fmt.Sprintf("# range deletions: %d", m.RangeDels), fmt.Sprintf("# data blocks: %d", m.Props.NumDataBlocks),
					"column family name: " + o.CFName, "comparator name: leveldb.BytewiseComparator", "compression algo: " + CompressionName(o.Compression),
				} {
					if !strings.Contains(out, p) {
						t.Errorf("sst_dump does not say %q:\n%.4000s", p, out)
					}
				}
			})
		}
	}
}

var rangeLine = regexp.MustCompile(`(?m)^  HEX    ([0-9A-F]+: [0-9A-F]+)$`)

// fragments cuts range tombstones at each other's ends, as RocksDB does when it reads them.
func fragments(dels []record) []string {
	var cuts []string
	for _, d := range dels {
		cuts = append(cuts, string(d.User), d.Value)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var out []string
	for i := 1; i < len(cuts); i++ {
		for _, d := range dels {
			if string(d.User) <= cuts[i-1] && d.Value >= cuts[i] {
				out = append(out, fmt.Sprintf("%X: %X", cuts[i-1], cuts[i]))
			}
		}
	}
	return out
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b := make([]byte, len(s)/2)
	for i := range b {
		v, err := strconv.ParseUint(s[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		b[i] = byte(v)
	}
	return b
}
