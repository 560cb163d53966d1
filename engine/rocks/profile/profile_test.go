package profile

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

func TestParsePolicy(t *testing.T) {
	for text, want := range map[string]Policy{
		"nullptr": {None: true}, "": {None: true},
		"rocksdb.BuiltinBloomFilter": {},
		"bloomfilter:10:false":       {Millibits: 10000}, "bloomfilter:10:true": {Millibits: 10000}, "bloomfilter:9.9": {Millibits: 9900},
		"rocksdb.BloomFilter:4.567:false": {Millibits: 4567}, "bloomfilter:7.4999999:false": {Millibits: 7500},
		"bloomfilter:0.4:false": {None: true}, "bloomfilter:0.5:false": {Millibits: 1000}, "bloomfilter:nan:false": {Millibits: 100000},
		"bloomfilter:1000:false": {Millibits: 100000},
		"ribbonfilter:10":        {Millibits: 10000, Ribbon: true}, "ribbonfilter:15.5:-1": {Millibits: 15500, Ribbon: true, BloomBefore: -1},
		"rocksdb.RibbonFilter:10:3":                                 {Millibits: 10000, Ribbon: true, BloomBefore: 3},
		"{bloom_before_level=2;id=ribbonfilter:10:-1;}":             {Millibits: 10000, Ribbon: true, BloomBefore: 2},
		"{id=bloomfilter:10:false;}":                                {Millibits: 10000},
		"rocksdb.internal.LegacyBloomFilter:3":                      {Millibits: 3000, Bloom: sst.FormLegacyBloom},
		"rocksdb.internal.FastLocalBloomFilter:1.234":               {Millibits: 1234, Bloom: sst.FormFastBloom},
		"rocksdb.internal.Standard128RibbonFilter:1.234":            {Millibits: 1234, Ribbon: true, BloomBefore: -1},
		"{id=rocksdb.internal.Standard128RibbonFilter:10}":          {Millibits: 10000, Ribbon: true, BloomBefore: -1},
		"{id=ribbonfilter:10:2147483647;bloom_before_level=-1;x=y}": {Millibits: 10000, Ribbon: true, BloomBefore: -1},
	} {
		got, err := ParsePolicy(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"bloomfilter", "bloomfilter:", "bloomfilter:x:false", "bloomfilter:1:2:3", "ribbonfilter:10:x", "mine:10", "{", "{}", strings.Repeat("x", 1000)} {
		if got, err := ParsePolicy(text); err == nil || len(err.Error()) > 200 {
			t.Errorf("%q: %+v, error %v", text, got, err)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("{bloom_before_level=2;id=ribbonfilter:10:-1;}")
	f.Add("bloomfilter:9.9:false")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePolicy(text); err == nil && (p.Millibits != 0 && (p.Millibits < 1000 || p.Millibits > 100_000) || p.None && p.Millibits != 0) {
			t.Errorf("%q: %+v", text, p)
		}
	})
}

// TiKV's ribbon-filter-above-level is one more than RocksDB's bloom_before_level; a flush counts as level -1.
func TestFilterForms(t *testing.T) {
	b, f, r := sst.FormBloom, sst.FormFastBloom, sst.FormRibbon
	for _, c := range []struct {
		p    Policy
		want [4]sst.FilterForm // L0 (a flush), L1, L2, L6
	}{
		{Policy{Millibits: 10000}, [4]sst.FilterForm{b, b, b, b}},
		{Policy{Millibits: 10000, Ribbon: true, BloomBefore: -1}, [4]sst.FilterForm{r, r, r, r}},
		{Policy{Millibits: 10000, Ribbon: true}, [4]sst.FilterForm{f, r, r, r}},
		{Policy{Millibits: 10000, Ribbon: true, BloomBefore: 2}, [4]sst.FilterForm{f, f, r, r}},
		{Policy{Millibits: 10000, Ribbon: true, BloomBefore: 1 << 31}, [4]sst.FilterForm{f, f, f, f}},
		{FromTiKV(TiKV{BlockSize: 1, HasFilter: true, UseBloomFilter: true, BitsPerKey: 10, RibbonAboveLevel: 3}).policy.v, [4]sst.FilterForm{f, f, r, r}},
		{FromTiKV(TiKV{BlockSize: 1, HasFilter: true, UseBloomFilter: true, BitsPerKey: 10, RibbonAboveLevel: 0}).policy.v, [4]sst.FilterForm{r, r, r, r}},
		{FromTiKV(TiKV{BlockSize: 1, HasFilter: true, UseBloomFilter: true, BitsPerKey: 10, RibbonAboveLevel: -1}).policy.v, [4]sst.FilterForm{b, b, b, b}},
	} {
		for i, level := range []int{0, 1, 2, 6} {
			if got := c.p.form(level); got != c.want[i] {
				t.Errorf("%+v on L%d: %v, want %v", c.p, level, got, c.want[i])
			}
		}
	}
}

// family makes a column family with one file of a size, in MiB, on each level that has one.
func family(name string, mib ...uint64) *manifest.CF {
	cf := &manifest.CF{Name: name, ID: 2}
	for l, n := range mib {
		if n > 0 {
			cf.Levels[l] = []*manifest.FileMeta{file(uint64(l+1), "a", "z", n<<20)}
		}
	}
	return cf
}

func file(number uint64, from, to string, size uint64) *manifest.FileMeta {
	return &manifest.FileMeta{Number: number, Size: size, Smallest: ikey.Key{User: []byte(from)}, Largest: ikey.Key{User: []byte(to)}}
}

// What RocksDB would compress by, level by level, for shapes of a store. Each line: sizes of L0 to L6 in MiB, then what the levels get.
func TestCompressionByLevel(t *testing.T) {
	const usual = "compression_per_level=kNoCompression:kNoCompression:kLZ4Compression:kLZ4Compression:kLZ4Compression:kZSTD:kZSTD\ncompression=kSnappyCompression\nbottommost_compression=kZSTD\n"
	const dynamic = "level_compaction_dynamic_level_bytes=true\n"
	for _, c := range []struct {
		what, version, options string
		mib                    []uint64
		want                   string // n none, s snappy, l LZ4, z ZSTD
	}{
		{"all levels in use, fixed", "8.10.2", usual, []uint64{1, 512, 5120, 51200, 1, 1, 1}, "nnlllzz"},
		{"few levels, fixed: the last is the bottommost", "8.10.2", usual, []uint64{1, 512, 5120}, "nnzzzzz"},
		{"bottommost as the level says", "8.10.2", strings.Replace(usual, "bottommost_compression=kZSTD", "bottommost_compression=kDisableCompressionOption", 1), []uint64{1, 512, 5120}, "nnlllzz"},
		{"dynamic, one level: L6 is the base", "8.10.2", usual + dynamic, []uint64{1, 0, 0, 0, 0, 0, 100}, "nnnnnnz"},
		{"dynamic, nothing below L0", "8.10.2", usual + dynamic, []uint64{1}, "nzzzzzz"},
		{"dynamic, base L5: the second element is L5's", "8.10.2", usual + dynamic, []uint64{1, 0, 0, 0, 0, 300, 3000}, "nnnnnnz"},
		{"dynamic, base L4", "8.10.2", usual + dynamic, []uint64{1, 0, 0, 0, 300, 3000, 30000}, "nnnnnlz"},
		{"dynamic, base L3", "8.10.2", usual + dynamic, []uint64{1, 0, 0, 300, 3000, 30000, 300000}, "nnnnllz"},
		{"dynamic, base L2", "8.10.2", usual + dynamic, []uint64{1, 0, 200, 3000, 30000, 300000, 3000000}, "nnnlllz"},
		{"dynamic, L5 is too small to be needed but has files", "8.10.2", usual + dynamic, []uint64{1, 0, 0, 0, 0, 1, 100}, "nnnnnnz"},
		{"dynamic, L6 has grown: the base moves up to L4 before it has files", "8.10.2", usual + dynamic, []uint64{1, 0, 0, 0, 0, 0, 6000}, "nnnnnlz"},
		{"dynamic, L0 is larger than the base: 8.10 takes no notice", "8.10.2", usual + dynamic, []uint64{60000, 0, 0, 0, 300, 3000, 55000}, "nnnnllz"},
		{"dynamic, L0 is larger than the base: 6.4 keeps L4", "6.4.6", usual + dynamic, []uint64{60000, 0, 0, 0, 300, 3000, 55000}, "nnnnnlz"},
		{"without a list", "6.29.5", "compression_per_level=\ncompression=kSnappyCompression\nbottommost_compression=kLZ4Compression\n", []uint64{1, 512, 5120}, "sslllll"},
		{"a short list: the last element goes on", "8.10.2", "compression_per_level=kNoCompression:kLZ4Compression\ncompression=kSnappyCompression\n", []uint64{1, 512, 5120}, "nllllll"},
		{"what the writer does not have becomes ZSTD", "8.10.2", "compression_per_level=kZlibCompression\n", []uint64{1, 512, 5120}, "zzzzzzz"},
	} {
		t.Run(c.what, func(t *testing.T) {
			o, err := options.Parse("OPTIONS-1", []byte("[Version]\nrocksdb_version="+c.version+"\n[DBOptions]\n[CFOptions \"write\"]\nnum_levels=7\ncompaction_style=kCompactionStyleLevel\n"+
				"max_bytes_for_level_base=536870912\nmax_bytes_for_level_multiplier=10.000000\n"+c.options))
			if err != nil {
				t.Fatal(err)
			}
			cf := family("write", c.mib...)
			tables := FromOptions(o, "write").For(cf)
			var got strings.Builder
			for l := range 7 {
				code := tables.Options(Place{Level: l}, nil).Compression
				got.WriteString(map[byte]string{sst.CompressionNone: "n", sst.CompressionSnappy: "s", sst.CompressionLZ4: "l", sst.CompressionZSTD: "z"}[code])
			}
			if got.String() != c.want {
				t.Errorf("L0 to L6: %s, want %s", got.String(), c.want)
			}
		})
	}
}

// With dynamic levels the table that is replaced keeps its compression where some base level leads to it; with fixed ones, or where
// RocksDB could not have chosen it, OPTIONS wins.
func TestCompressionOfTheOldTableStays(t *testing.T) {
	const list = "compression_per_level=kNoCompression:kNoCompression:kLZ4Compression:kZSTD\nbottommost_compression=kDisableCompressionOption\n"
	for _, c := range []struct {
		what, dynamic string
		level         int
		old, want     byte
	}{
		{"as the base level of the moment says", "true", 6, sst.CompressionLZ4, sst.CompressionLZ4},
		{"written when L6 was the base", "true", 6, sst.CompressionNone, sst.CompressionNone},
		{"written when L4 was the base", "true", 6, sst.CompressionZSTD, sst.CompressionZSTD},
		{"from other settings", "true", 6, sst.CompressionSnappy, sst.CompressionLZ4},
		{"L1 can only be the base", "true", 1, sst.CompressionLZ4, sst.CompressionNone},
		{"L0 is never compressed", "true", 0, sst.CompressionLZ4, sst.CompressionNone},
		{"fixed levels", "false", 6, sst.CompressionNone, sst.CompressionZSTD},
	} {
		t.Run(c.what, func(t *testing.T) {
			o, err := options.Parse("OPTIONS-1", []byte("[Version]\nrocksdb_version=8.10.2\n[DBOptions]\n[CFOptions \"write\"]\nnum_levels=7\ncompaction_style=kCompactionStyleLevel\n"+
				"max_bytes_for_level_base=536870912\nmax_bytes_for_level_multiplier=10.000000\nlevel_compaction_dynamic_level_bytes="+c.dynamic+"\n"+list))
			if err != nil {
				t.Fatal(err)
			}
			tables := FromOptions(o, "write").For(family("write", 0, 0, 0, 0, 0, 300, 3000))
			if got := tables.Options(Place{Level: c.level}, tableWith(t, c.old)).Compression; got != c.want {
				t.Errorf("%s, want %s", sst.CompressionName(got), sst.CompressionName(c.want))
			}
		})
	}
}

// tableWith is a table of one record.
func tableWith(t *testing.T, compression byte) *sst.Reader {
	t.Helper()
	mem := vfs.NewMem()
	f, err := mem.Create("1.sst", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	w := sst.NewWriter(f, sst.WriterOptions{Compression: compression})
	if err := w.Add(ikey.Key{User: []byte("k"), Seq: 1, Kind: ikey.KindPut}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := sst.Open(base.NewMem(mem), "1.sst", sst.ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// optimize_filters_for_hits leaves the filter out where no file below overlaps; a flush always has one.
func TestNoFilterAtTheBottom(t *testing.T) {
	cf := &manifest.CF{Name: "default"}
	cf.Levels[0] = []*manifest.FileMeta{file(1, "a", "z", 1)}
	cf.Levels[3] = []*manifest.FileMeta{file(2, "a", "c", 1), file(3, "d", "f", 1), file(4, "p", "q", 1)}
	cf.Levels[5] = []*manifest.FileMeta{file(5, "c", "ca", 1), file(6, "f1", "o", 1)}
	cf.Levels[6] = []*manifest.FileMeta{file(7, "q", "r", 1)}
	s := Defaults("default")
	for number, want := range map[uint64]bool{1: true, 2: true, 3: false, 4: true, 5: false, 6: false, 7: false} {
		for l, files := range cf.Levels {
			for _, f := range files {
				if f.Number != number {
					continue
				}
				if o := s.For(cf).Options(Place{Level: l, Old: f}, nil); (o.Filter != sst.FilterNone) != want {
					t.Errorf("table %d on L%d [%s, %s]: filter %v", number, l, f.Smallest.User, f.Largest.User, o.Filter)
				}
			}
		}
	}
	if o := s.For(cf).Options(Place{}, nil); o.Filter != sst.FilterWholeKey {
		t.Errorf("flush: filter %v", o.Filter)
	}
	s.skipLast = is(false)
	if o := s.For(cf).Options(Place{Level: 6, Old: cf.Levels[6][0]}, nil); o.Filter != sst.FilterWholeKey {
		t.Errorf("without the option: filter %v", o.Filter)
	}
}

const blockBased = `[Version]
  rocksdb_version=%s
[DBOptions]
[CFOptions "write"]
  prefix_extractor=%s
  compression_per_level=
  compression=kLZ4Compression
[TableOptions/BlockBasedTable "write"]
  block_size=8192
  block_restart_interval=4
  whole_key_filtering=%v
  filter_policy=%s
  format_version=%d
  checksum=%s
`

// Each source says what it knows, the first that knows counts.
func TestSources(t *testing.T) {
	toml := TiKV{BlockSize: 64 << 10, CompressionPerLevel: []string{"no", "zstd"}, Bottommost: "disable", HasFilter: true, UseBloomFilter: true, BitsPerKey: 7,
		WholeKeyFiltering: true, RibbonAboveLevel: -1, FormatVersion: 4, Checksum: "xxhash64", HasHits: true, LevelBase: 1, Multiplier: 10, NumLevels: 7}
	cf := family("write", 1, 1, 1, 1)
	for _, c := range []struct {
		what    string
		options string
		toml    TiKV
		want    sst.WriterOptions
		notes   string
	}{
		{"nothing: TiKV's defaults", "", TiKV{}, sst.WriterOptions{Compression: sst.CompressionNone, BlockSize: 32 << 10, RestartInterval: 16, FormatVersion: 2, Checksum: sst.ChecksumCRC32C,
			Filter: sst.FilterPrefix, FilterMillibits: 10000, PrefixExtractor: "FixedSuffixSliceTransform"}, ""},
		{"last_tikv.toml alone", "", toml, sst.WriterOptions{Compression: sst.CompressionZSTD, BlockSize: 64 << 10, RestartInterval: 16, FormatVersion: 4, Checksum: sst.ChecksumXXH64,
			Filter: sst.FilterWholeKeyAndPrefix, FilterMillibits: 7000, PrefixExtractor: "FixedSuffixSliceTransform"}, ""},
		{"OPTIONS wins", fmt.Sprintf(blockBased, "8.10.2", "FixedSuffixSliceTransform", false, "bloomfilter:12.5:false", 5, "kXXH3"), toml,
			sst.WriterOptions{Compression: sst.CompressionLZ4, BlockSize: 8192, RestartInterval: 4, FormatVersion: 5, Checksum: sst.ChecksumXXH3, FilterPolicy: "bloomfilter",
				Filter: sst.FilterPrefix, FilterMillibits: 12500, PrefixExtractor: "FixedSuffixSliceTransform"}, ""},
		{"RocksDB 6.4 names the policy only: the bits are last_tikv.toml's", fmt.Sprintf(blockBased, "6.4.6", "FixedSuffixSliceTransform", false, "rocksdb.BuiltinBloomFilter", 2, "kCRC32c"), toml,
			sst.WriterOptions{Compression: sst.CompressionLZ4, BlockSize: 8192, RestartInterval: 4, FormatVersion: 2, Checksum: sst.ChecksumCRC32C, FilterPolicy: "rocksdb.BuiltinBloomFilter",
				Filter: sst.FilterPrefix, FilterMillibits: 7000, PrefixExtractor: "FixedSuffixSliceTransform"}, ""},
		{"no filter", fmt.Sprintf(blockBased, "8.10.2", "FixedSuffixSliceTransform", true, "nullptr", 2, "kCRC32c"), toml,
			sst.WriterOptions{Compression: sst.CompressionLZ4, BlockSize: 8192, RestartInterval: 4, FormatVersion: 2, Checksum: sst.ChecksumCRC32C, PrefixExtractor: "FixedSuffixSliceTransform"}, ""},
		{"prefixes that are not known are left out", fmt.Sprintf(blockBased, "8.10.2", "Mine", true, "ribbonfilter:10:1", 5, "kNoChecksum"), TiKV{},
			sst.WriterOptions{Compression: sst.CompressionLZ4, BlockSize: 8192, RestartInterval: 4, FormatVersion: 5, Checksum: sst.ChecksumCRC32C, FilterPolicy: "ribbonfilter",
				FilterForm: sst.FormRibbon, FilterMillibits: 10000, PrefixExtractor: "Mine"}, "the prefixes of Mine (write) are not known"},
		{"newer than the writer", fmt.Sprintf(blockBased, "8.10.2", "rocksdb.FixedPrefix.8", true, "mine", 6, "kCRC32c"), TiKV{},
			sst.WriterOptions{Compression: sst.CompressionLZ4, BlockSize: 8192, RestartInterval: 4, FormatVersion: 5, Checksum: sst.ChecksumCRC32C,
				Filter: sst.FilterWholeKeyAndPrefix, FilterMillibits: 10000, PrefixExtractor: "rocksdb.FixedPrefix.8", FilterPolicy: "bloomfilter"}, "format version 5 instead of 6; every RocksDB that writes 6 reads it|filter policy \"mine\" is not known"},
	} {
		t.Run(c.what, func(t *testing.T) {
			var o *options.Options
			if c.options != "" {
				var err error
				if o, err = options.Parse("OPTIONS-1", []byte(c.options)); err != nil {
					t.Fatal(err)
				}
			}
			s := FromOptions(o, "write").Or(FromTiKV(c.toml))
			c.want.CFID, c.want.CFName = 2, "write"
			got := s.For(cf).Options(Place{Level: 1, Old: cf.Levels[1][0]}, nil)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			for _, n := range strings.Split(c.notes, "|") {
				if !strings.Contains(strings.Join(s.Notes(), "\n"), n) || n == "" && len(s.Notes()) > 0 {
					t.Errorf("notes %q, want %q", s.Notes(), n)
				}
			}
		})
	}
	if o := FromTiKV(toml).For(family("write")).Options(Place{}, nil); o.Compression != sst.CompressionNone {
		t.Errorf("a flush is compressed: %d", o.Compression)
	}
	if n := FromOptions(nil, "write").Missing(); !reflect.DeepEqual(n, []string{"compression", "block size", "filter policy", "format version"}) {
		t.Errorf("nothing knows nothing: %v", n)
	}
}

func newestOptions(t *testing.T, fs base.FS, dir string) *options.Options {
	t.Helper()
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

// The real OPTIONS of a store without Titan's table factory, and of one with it, whose table sections are empty.
func TestRealOptions(t *testing.T) {
	load := func(fixture, dir string) *options.Options {
		return newestOptions(t, base.NewMem(fixtures.Mem(t, fixture)), dir)
	}
	if s := FromOptions(load("single-raftdb", "/data/raft"), "default"); !s.whole() || len(s.Notes()) > 0 || !s.policy.v.None || s.blockSize.v != 64<<10 {
		t.Errorf("block based: %+v", s)
	}
	s := FromOptions(load("single-titan", "/data/db"), "write")
	if s.blockSize.ok || s.policy.ok || !s.compression.ok || !s.levels.v.Dynamic || s.extractor.v != "FixedSuffixSliceTransform" {
		t.Errorf("Titan: %+v", s)
	}
	if got := s.Missing(); !reflect.DeepEqual(got, []string{"block size", "filter policy", "format version"}) {
		t.Errorf("Titan: missing %v", got)
	}
}
