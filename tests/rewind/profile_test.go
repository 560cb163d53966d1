package rewind_test

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/options"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/repair"
	"github.com/tikv-repair/tikv-repair/scan"
)

// family are settings of one column family in an OPTIONS file: of [CFOptions], and of [TableOptions/BlockBasedTable], whose section of the
// fixtures, which Titan wrote, is empty.
type family struct{ cf, table map[string]string }

// withOptions changes the newest OPTIONS file of a store.
func withOptions(t testing.TB, mem vfs.FS, families map[string]family) {
	t.Helper()
	fs := base.NewMem(mem)
	dir := dataDir + "/db"
	name, err := options.Newest(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	path := fs.PathJoin(dir, name)
	b, err := base.ReadFile(fs, path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, cf := range slices.Sorted(maps.Keys(families)) {
		head := fmt.Sprintf("[CFOptions %q]\n", cf)
		before, section, ok := strings.Cut(text, head)
		if !ok {
			t.Fatalf("%s has no %s", path, head)
		}
		section, after, _ := strings.Cut(section, "[TableOptions/")
		for k, v := range families[cf].cf {
			line := regexp.MustCompile(`(?m)^  ` + k + `=.*$`)
			if !line.MatchString(section) {
				t.Fatalf("%s of %s is not in %s", k, cf, path)
			}
			section = line.ReplaceAllLiteralString(section, "  "+k+"="+v)
		}
		if table := families[cf].table; table != nil {
			_, rest, _ := strings.Cut(after, "\n")
			after = fmt.Sprintf("BlockBasedTable %q]\n", cf)
			for k, v := range table {
				after += "  " + k + "=" + v + "\n"
			}
			after += rest
		}
		text = before + head + section + "[TableOptions/" + after
	}
	if err := base.WriteFileSync(fs, path, []byte(text), path); err != nil {
		t.Fatal(err)
	}
}

// lived gives a fixture levels 4 to 6 besides L0, all with something above every T, so that every table of the write CF is written again.
func lived(t testing.TB, name string, above mvcc.TS) *vfs.MemFS {
	t.Helper()
	return shapedMem(t, name, shape{rng: seeded(t), deep: 3, junk: 0.2, junkAbove: above})
}

// output is a table that a rewind has written.
type output struct {
	level  int
	reader *sst.Reader
}

// outputs opens the tables of a column family whose numbers are not among old.
func outputs(t testing.TB, s *scan.Store, cf string, old map[uint64]bool) []output {
	t.Helper()
	var out []output
	for _, f := range s.DB.CF(cf).Files() {
		if old[f.Number] {
			continue
		}
		r, done, err := s.DB.CF(cf).Table(f.FileMeta)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = done() })
		out = append(out, output{f.Level, r})
	}
	return out
}

func numbers(s *scan.Store, cf string) map[uint64]bool {
	old := map[uint64]bool{}
	for _, f := range s.DB.CF(cf).Files() {
		old[f.Number] = true
	}
	return old
}

const (
	usualLevels = "kNoCompression:kNoCompression:kLZ4Compression:kLZ4Compression:kLZ4Compression:kZSTD:kZSTD"
	// Of these none can have been chosen for a table of the stores: with dynamic levels one that can stays.
	otherLevels = "kNoCompression:kSnappyCompression:kLZ4HCCompression:kSnappyCompression:kSnappyCompression:kSnappyCompression:kSnappyCompression"
)

// compressions are what an operator may have configured, and what that gives on the levels of a store that has L0 and L4 to L6. With dynamic
// levels L4 is the base: the second element counts for it.
var compressions = []struct {
	what, perLevel, bottommost, dynamic string
	want                                map[int]byte
}{
	{"fixed levels", usualLevels, "kZSTD", "false", map[int]byte{0: sst.CompressionNone, 4: sst.CompressionLZ4, 5: sst.CompressionZSTD, 6: sst.CompressionZSTD}},
	{"dynamic levels", otherLevels, "kZSTD", "true", map[int]byte{0: sst.CompressionNone, 4: sst.CompressionSnappy, 5: sst.CompressionLZ4HC, 6: sst.CompressionZSTD}},
	{"bottommost as its level", otherLevels, "kDisableCompressionOption", "true", map[int]byte{0: sst.CompressionNone, 4: sst.CompressionSnappy, 5: sst.CompressionLZ4HC, 6: sst.CompressionSnappy}},
	{"everything", "kSnappyCompression", "kLZ4HCCompression", "false", map[int]byte{0: sst.CompressionSnappy, 4: sst.CompressionSnappy, 5: sst.CompressionSnappy, 6: sst.CompressionLZ4HC}},
}

// compressedBy is the write CF's part of OPTIONS with such a configuration.
func compressedBy(perLevel, bottommost, dynamic string) map[string]family {
	return map[string]family{"write": {cf: map[string]string{
		"compression_per_level": perLevel, "bottommost_compression": bottommost, "level_compaction_dynamic_level_bytes": dynamic}}}
}

// Each table that a rewind writes has the compression that RocksDB would choose on its level, by the OPTIONS file, whatever the old table
// had; blocks that are copied keep theirs.
func TestOutputsAreCompressedByLevel(t *testing.T) {
	flushed := 0
	defer func() {
		if flushed == 0 {
			t.Error("no table was written to L0")
		}
	}()
	for _, c := range compressions {
		for _, name := range []string{"single-levels", "single-lz4-ranges"} {
			for _, anew := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/copied=%v", c.what, name, !anew), func(t *testing.T) {
					ts := named(t, name)[1]
					mem := lived(t, name, ts)
					withOptions(t, mem, compressedBy(c.perLevel, c.bottommost, c.dynamic))
					before := open(t, base.NewMem(mem), dataDir)
					old := numbers(before, scan.CFWrite)
					closing(t, before)
					o := to(ts)
					o.NoBlockCopy = anew
					reset(t, base.NewMem(mem), dataDir, o)
					s := open(t, base.NewMem(mem), dataDir)
					defer closing(t, s)
					levels := map[int]int{}
					for _, out := range outputs(t, s, scan.CFWrite, old) {
						levels[out.level]++
						want := c.want[out.level]
						if got := out.reader.Props().Compression; got != sst.CompressionName(want) {
							t.Errorf("L%d %s: property %s, want %s", out.level, out.reader.Path(), got, sst.CompressionName(want))
						}
						types, err := out.reader.BlockTypes()
						if err != nil {
							t.Fatal(err)
						}
						n := 0
						for code, blocks := range types {
							n += blocks
							switch {
							case want == sst.CompressionNone && code != want:
								t.Errorf("L%d %s: %d blocks of %s in a table that promises none", out.level, out.reader.Path(), blocks, sst.CompressionName(code))
							case anew && code != want && code != sst.CompressionNone:
								t.Errorf("L%d %s: %d blocks of %s", out.level, out.reader.Path(), blocks, sst.CompressionName(code))
							}
						}
						if anew && types[want]*2 < n {
							t.Errorf("L%d %s: blocks %v, want %s", out.level, out.reader.Path(), types, sst.CompressionName(want))
						}
						if err := out.reader.VerifyChecksums(); err != nil {
							t.Error(err)
						}
					}
					if levels[4] == 0 || levels[5] == 0 || levels[6] == 0 {
						t.Errorf("tables by level: %v", levels)
					}
					flushed += levels[0] // the youngest records, which T may leave nothing of
				})
			}
		}
	}
}

// variant is a filter that an operator may have configured for the write CF.
type variant struct {
	name      string
	policy    string
	version   string
	extractor string // "" is none: whole keys
	// form of a flush to L0 and of each deeper level
	flush, deep sst.FilterForm
}

var variants = []variant{
	{"Bloom, version 2, whole keys", "bloomfilter:10:false", "2", "", sst.FormLegacyBloom, sst.FormLegacyBloom},
	{"Bloom, version 2, prefixes", "bloomfilter:12.4:false", "2", "x", sst.FormLegacyBloom, sst.FormLegacyBloom},
	{"Bloom, version 5, whole keys", "bloomfilter:9.9:false", "5", "", sst.FormFastBloom, sst.FormFastBloom},
	{"Bloom, version 5, prefixes", "bloomfilter:10:false", "5", "x", sst.FormFastBloom, sst.FormFastBloom},
	{"Ribbon, whole keys", "ribbonfilter:10:-1", "5", "", sst.FormRibbon, sst.FormRibbon},
	{"Ribbon below L0, prefixes", "ribbonfilter:10:1", "5", "x", sst.FormFastBloom, sst.FormRibbon},
}

// configured is a store with a variant in its OPTIONS file, rewound to ts, and the length of the prefixes: stock RocksDB has no extractor
// that cuts a commit_ts off, so one of a fixed length stands in for it, at which all rows of the fixture differ or are one.
func configured(t testing.TB, name string, v variant, ts mvcc.TS) (mem *vfs.MemFS, prefix int, old map[uint64]bool) {
	t.Helper()
	mem = lived(t, name, ts)
	s := open(t, base.NewMem(mem), dataDir)
	old = numbers(s, scan.CFWrite)
	for k := range contentOf(t, s)[scan.CFWrite] {
		if n := len(k) - 8; prefix == 0 || n < prefix {
			prefix = n
		}
	}
	closing(t, s)
	f := family{cf: map[string]string{"prefix_extractor": "nullptr", "optimize_filters_for_hits": "false"}, table: map[string]string{
		"block_size": "4096", "block_restart_interval": "16", "format_version": v.version, "checksum": "kCRC32c", "index_type": "kBinarySearch",
		"whole_key_filtering": "true", "filter_policy": v.policy}}
	if v.extractor != "" {
		f.cf["prefix_extractor"] = fmt.Sprintf("rocksdb.CappedPrefix.%d", prefix)
		f.table["whole_key_filtering"] = "false"
	}
	withOptions(t, mem, map[string]family{"write": f})
	o := to(ts)
	o.NoBlockCopy = true
	reset(t, base.NewMem(mem), dataDir, o)
	return mem, prefix, old
}

// Every table that a rewind writes has the filter that OPTIONS asks for on its level, and the filter holds every one of its keys.
func TestOutputsHaveTheConfiguredFilter(t *testing.T) {
	flushed := 0
	defer func() {
		if flushed == 0 {
			t.Error("no table was written to L0")
		}
	}()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			mem, prefix, old := configured(t, "single-levels", v, named(t, "single-levels")[2])
			s := open(t, base.NewMem(mem), dataDir)
			defer closing(t, s)
			levels, forms := map[int]int{}, map[sst.FilterForm]int{}
			for _, out := range outputs(t, s, scan.CFWrite, old) {
				levels[out.level]++
				r := out.reader
				if fmt.Sprint(r.Version()) != v.version {
					t.Errorf("%s: format version %d", r.Path(), r.Version())
				}
				f, err := r.Filter()
				if err != nil || f == nil {
					t.Fatalf("%s: filter %v, %v", r.Path(), f, err)
				}
				want := v.deep
				if out.level == 0 {
					want = v.flush
				}
				forms[f.Form()]++
				// A Ribbon filter of few keys is smaller as a Bloom filter: RocksDB falls back to it.
				if got := f.Form(); got != want && !(want == sst.FormRibbon && got == sst.FormFastBloom && r.Props().NumFilterEntries < 700) {
					t.Errorf("L%d %s: form %v, want %v", out.level, r.Path(), got, want)
				}
				if f.WholeKeys != (v.extractor == "") || f.Prefixes != (v.extractor != "") {
					t.Errorf("%s: whole keys %v, prefixes %v", r.Path(), f.WholeKeys, f.Prefixes)
				}
				it := r.NewIter()
				for ok := it.First(); ok; ok = it.Next() {
					user := it.Key().User
					if !f.MayHoldKey(user) {
						t.Fatalf("%s: %X is denied", r.Path(), user)
					}
					if v.extractor != "" && !f.MayHold(user[:prefix]) {
						t.Fatalf("%s: prefix of %X is denied", r.Path(), user)
					}
				}
				closing(t, it)
			}
			if levels[4] == 0 || levels[5] == 0 || levels[6] == 0 {
				t.Errorf("tables by level: %v", levels)
			}
			flushed += levels[0]
			if v.deep == sst.FormRibbon && v.extractor == "" && forms[v.deep] == 0 { // there are few rows, but many versions
				t.Errorf("no Ribbon filter: %v", forms)
			}
		})
	}
}

// What is configured and not written is said; a damaged OPTIONS file is no reason to refuse, and said, too.
func TestOptionsNotes(t *testing.T) {
	const name = "single-levels"
	ts := named(t, name)[2]
	says := func(t *testing.T, mem vfs.FS) string {
		var said bytes.Buffer
		o := to(ts)
		o.Say = func(format string, args ...any) { fmt.Fprintf(&said, format+"\n", args...) }
		reset(t, base.NewMem(mem), dataDir, o)
		return said.String()
	}
	mem := lived(t, name, ts)
	withOptions(t, mem, map[string]family{"write": {cf: map[string]string{"compression_per_level": "kZlibCompression"},
		table: map[string]string{"block_size": "4096", "format_version": "6", "partition_filters": "true", "filter_policy": "bloomfilter:10:false"}}})
	got := says(t, mem)
	for _, want := range []string{"note: new tables have format version 5 instead of 6", "note: new tables of write have one index and one filter", "compressed by kZSTD where kZlibCompression is configured"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not said:\n%s", want, got)
		}
	}

	// Without last_tikv.toml nobody knows what Titan has not printed.
	mem = lived(t, name, ts)
	if err := mem.Remove(dataDir + "/" + engine.LastConfig); err != nil {
		t.Fatal(err)
	}
	if got := says(t, mem); !strings.Contains(got, "note: neither the OPTIONS file nor last_tikv.toml") || !strings.Contains(got, "write (block size, filter policy, format version)") {
		t.Errorf("no configuration: %s", got)
	}

	mem = lived(t, name, ts)
	fs := base.NewMem(mem)
	newest, err := options.Newest(fs, dataDir+"/db")
	if err != nil {
		t.Fatal(err)
	}
	path := fs.PathJoin(dataDir, "db", newest)
	if err := base.WriteFileSync(fs, path, []byte("[Version\x00"), path); err != nil {
		t.Fatal(err)
	}
	if got := says(t, mem); !strings.Contains(got, "OPTIONS file is damaged") || !strings.Contains(got, "new tables are written as last_tikv.toml") {
		t.Errorf("a damaged OPTIONS file: %s", got)
	}
	s := open(t, fs, dataDir)
	defer closing(t, s)
	findings, err := repair.Verify(t.Context(), s, repair.VerifyOptions{T: ts, Full: true})
	if err != nil || len(findings) > 0 {
		t.Errorf("verify: %v, %v", findings, err)
	}
}
