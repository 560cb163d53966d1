package options_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func load(t *testing.T, fixture, dir string) *options.Options {
	t.Helper()
	fs := base.NewMem(fixtures.Mem(t, fixture))
	name, err := options.Newest(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	o, err := options.Load(fs, fs.PathJoin(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// The kv database of a store that was opened through Titan: its table sections are empty.
func TestRealTitanOptions(t *testing.T) {
	o := load(t, "single-titan", "/data/db")
	if !strings.HasSuffix(o.Path, "/OPTIONS-000015") || o.RocksDBVersion != "8.10.2" || o.WALDir != "" || o.DB["wal_recovery_mode"] != "kPointInTimeRecovery" {
		t.Errorf("%s: version %s, wal_dir %q", o.Path, o.RocksDBVersion, o.WALDir)
	}
	var names []string
	for _, c := range o.CFs {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{"default", "lock", "write", "raft"}) {
		t.Errorf("column families %v", names)
	}
	const none, lz4, zst = options.NoCompression, options.LZ4, options.ZSTD
	got := *o.Lookup("write")
	got.Values = nil
	got.Table.Values = nil
	want := options.CF{
		Name: "write", CompressionPerLevel: []options.Compression{none, none, lz4, lz4, lz4, zst, zst},
		Compression: options.Snappy, BottommostCompression: zst, Comparator: "leveldb.BytewiseComparator", MergeOperator: "nullptr",
		PrefixExtractor: "FixedSuffixSliceTransform", NumLevels: 7, DynamicLevelBytes: true,
		Collectors:   []string{"tikv.mvcc-properties-collector", "tikv.range-properties-collector", "BlobFileSizeCollector"},
		TableFactory: "TitanTable",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if c := o.Lookup("lock"); c.LevelCompression(0) != none || c.BottommostCompression != options.Disabled || c.PrefixExtractor != "NoopSliceTransform" {
		t.Errorf("lock: %+v", c)
	}
	if c := o.Lookup("write"); c.LevelCompression(2) != lz4 || c.LevelCompression(6) != zst || c.LevelCompression(20) != zst || c.LevelCompression(-1) != options.Snappy {
		t.Error("compression by level")
	}
	if o.Lookup("ver_default") != nil {
		t.Error("found a column family that is not there")
	}
}

// The raft RocksDB uses the plain block-based table.
func TestRealBlockBasedOptions(t *testing.T) {
	o := load(t, "single-raftdb", "/data/raft")
	c := o.Lookup("default")
	if len(o.CFs) != 1 || c.TableFactory != "BlockBasedTable" || !c.Table.Known {
		t.Fatalf("%+v", o.CFs)
	}
	got := c.Table
	got.Values = nil
	want := options.Table{Known: true, BlockSize: 64 << 10, FilterPolicy: "nullptr", WholeKeyFiltering: true, FormatVersion: 2, Checksum: "kCRC32c", IndexType: "kBinarySearch"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Every OPTIONS file of every fixture parses, but not when it is cut off inside its first column family's header.
func TestAllRealOptions(t *testing.T) {
	n := 0
	for _, fixture := range fixtures.Names() {
		if fixture == "single-encrypted" {
			continue
		}
		fs := base.NewMem(fixtures.Mem(t, fixture))
		for _, store := range fixtures.Stores(t, fixture) {
			for _, db := range []string{"db", "raft"} {
				dir := fs.PathJoin("/", store, db)
				names, err := fs.List(dir)
				if err != nil {
					continue
				}
				for _, name := range names {
					if _, ok := options.FileNumber(name); !ok {
						continue
					}
					if _, err := options.Load(fs, fs.PathJoin(dir, name)); err != nil {
						t.Errorf("%s: %v", fixture, err)
					}
					n++
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d files", n)
	}
}

const head = "[Version]\n  rocksdb_version=6.4.6\n  options_file_version=1.1\n"

func TestSyntax(t *testing.T) {
	o, err := options.Parse("OPTIONS-1", []byte("# comment\n"+head+`
[DBOptions]
  wal_dir=/srv/wal \#1 # trailing comment
  odd = a=b\:c
[CFOptions "de\:f"]
  compression_per_level=
  compression=kZSTD
  table_factory=BlockBasedTable
[TableOptions/BlockBasedTable "de\:f"]
  block_size=16384
  filter_policy=rocksdb.BuiltinBloomFilter`))
	if err != nil {
		t.Fatal(err)
	}
	c := o.Lookup("de:f")
	if o.WALDir != "/srv/wal #1" || o.DB["odd"] != "a=b:c" || c == nil || c.LevelCompression(3) != options.ZSTD || c.Table.BlockSize != 16384 ||
		c.Table.FilterPolicy != "rocksdb.BuiltinBloomFilter" || c.Table.WholeKeyFiltering {
		t.Errorf("%+v", o)
	}
}

func TestDamaged(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                   "",
		"no column family":        head,
		"no version":              "[CFOptions \"default\"]\n",
		"option before a section": "a=b\n" + head,
		"no equals sign":          head + "[DBOptions]\n  nonsense\n",
		"section not closed":      head + "[CFOptions \"default\"\n",
		"unknown section":         head + "[Nonsense]\n",
		"twice":                   head + "[CFOptions \"a\"]\n[CFOptions \"a\"]\n",
		"table of an unknown CF":  head + "[TableOptions/BlockBasedTable \"a\"]\n",
		"zeros":                   head + strings.Repeat("\x00", 100),
		"encrypted":               "\x9c\x01\xfe\n\x80",
	} {
		if _, err := options.Parse("OPTIONS-1", []byte(text)); !errors.Is(err, base.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileNumber(t *testing.T) {
	for name, want := range map[string]uint64{
		"OPTIONS-000015": 15, "OPTIONS-1234567": 1234567, "OPTIONS-000015.dbtmp": 0, "OPTIONS-": 0, "OPTIONS-+5": 0,
		"OPTIONS-99999999999999999999": 0, "MANIFEST-000001": 0,
	} {
		if got, ok := options.FileNumber(name); got != want && ok || ok != (want != 0) {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
}

func FuzzOptions(f *testing.F) {
	fs := base.NewMem(fixtures.Mem(f, "single-raftdb"))
	b, err := base.ReadFile(fs, "/data/raft/OPTIONS-000007")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(head + "[CFOptions \"a\"]\ncompression_per_level=kZSTD:kZSTD\n[TableOptions/B \"a\"]\nblock_size=\\#5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := options.Parse("OPTIONS-1", b)
		if err != nil {
			if !errors.Is(err, base.ErrCorrupt) {
				t.Errorf("error without a class: %v", err)
			}
			return
		}
		for i := range o.CFs {
			if o.Lookup(o.CFs[i].Name) != &o.CFs[i] {
				t.Errorf("column family %q is there twice", o.CFs[i].Name)
			}
		}
	})
}
