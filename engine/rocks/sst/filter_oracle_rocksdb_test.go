//go:build rocksdb

package sst

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/linxGnu/grocksdb"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// theirTable lets RocksDB write a table of ascending keys and opens it: by a flush, or, much faster, as a file for ingestion, whose level
// RocksDB does not know.
func theirTable(t *testing.T, flush bool, text string, keys [][]byte) *Reader {
	t.Helper()
	dir := t.TempDir()
	o := rocksOptions(t, text)
	defer o.Destroy()
	file := filepath.Join(dir, "1.sst")
	if flush {
		db, err := grocksdb.OpenDb(o, dir)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		wo := grocksdb.NewDefaultWriteOptions()
		wo.DisableWAL(true)
		for _, k := range keys {
			if err := db.Put(wo, k, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Flush(grocksdb.NewDefaultFlushOptions()); err != nil {
			t.Fatal(err)
		}
		db.Close()
		files, err := filepath.Glob(filepath.Join(dir, "*.sst"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		file = files[0]
	} else {
		w := grocksdb.NewSSTFileWriter(grocksdb.NewDefaultEnvOptions(), o)
		defer w.Destroy()
		if err := w.Open(file); err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if err := w.Put(k, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(base.NewOS(), file, ReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// someKeys gives n different keys, ascending: of every length up to 300 bytes, so that each branch of the hashes is taken, and more of
// about 20 bytes, of which several share all but the last 8.
func someKeys(rng *rand.Rand, n int) [][]byte {
	set := map[string]bool{}
	for i := 0; len(set) < n; i++ {
		k := make([]byte, 12+rng.IntN(16))
		if i < 301 {
			k = make([]byte, i)
		}
		for j := range k {
			k[j] = byte(rng.Uint32())
		}
		for v := rng.IntN(4); v >= 0 && len(set) < n; v-- {
			if len(k) >= 8 {
				k[len(k)-1] = byte(v)
			}
			set[string(k)] = true
		}
	}
	var out [][]byte
	for _, k := range slices.Sorted(maps.Keys(set)) {
		out = append(out, []byte(k))
	}
	return out
}

// TestFilterEqualsRocksDB compares our filters with RocksDB's, byte by byte: legacy and fast local Bloom, Ribbon, whole and fractional bits
// a key, whole keys and prefixes, and numbers of keys on both sides of every border (lines, blocks, Ribbon's fall-back, its formula for
// large tables).
func TestFilterEqualsRocksDB(t *testing.T) {
	type policy struct {
		name      string
		version   uint32
		form      FilterForm
		millibits int
	}
	var policies []policy
	for _, bits := range []int{1000, 1500, 2080, 2100, 4567, 7500, 9900, 10000, 10071, 13800, 15500, 16000, 20000, 24500, 30000, 51000, 100000} {
		text := fmt.Sprintf("%g", float64(bits)/1000)
		policies = append(policies,
			policy{"bloomfilter:" + text + ":false", 2, FormBloom, bits},
			policy{"bloomfilter:" + text + ":false", 5, FormBloom, bits},
			policy{"ribbonfilter:" + text + ":-1", 5, FormRibbon, bits})
	}
	policies = append(policies,
		policy{"ribbonfilter:10:0", 5, FormFastBloom, 10000}, // a flush counts as level -1
		policy{"ribbonfilter:10:0", 2, FormFastBloom, 10000},
		policy{"ribbonfilter:10:-1", 2, FormRibbon, 10000},
		policy{"bloomfilter:10:true", 4, FormBloom, 10000})
	seed := uint64(20260117)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	common := map[int][][]byte{}
	for _, n := range []int{1, 2, 3, 51, 52, 249, 250, 400, 500, 501, 700, 1001, 1002, 2600, 30000} {
		common[n] = someKeys(rng, n)
	}
	forms := map[FilterForm]int{}
	check := func(t *testing.T, p policy, o WriterOptions, text string, keys [][]byte) {
		t.Helper()
		r := theirTable(t, strings.HasSuffix(p.name, ":0"), fmt.Sprintf("%sblock_based_table_factory={format_version=%d;filter_policy=%s;whole_key_filtering=%v}", text, p.version, p.name, o.Filter.wholeKey()), keys)
		o.FormatVersion, o.FilterForm, o.FilterMillibits = p.version, p.form, p.millibits
		b := newFilterBuilder(&o)
		for _, k := range keys {
			b.add(k)
		}
		got := b.finish()
		if got == nil || !r.HasFilter() {
			if got != nil || r.HasFilter() {
				t.Errorf("%d keys, %s: a filter of %d bytes, RocksDB has one: %v", len(keys), p.name, len(got), r.HasFilter())
			}
			return
		}
		want := filterBlock(t, r)
		if !bytes.Equal(got, want) {
			t.Errorf("%d keys, %s, version %d: filters differ (%d and %d bytes, ends %X and %X)", len(keys), p.name, p.version,
				len(got), len(want), got[max(0, len(got)-5):], want[max(0, len(want)-5):])
		}
		if p := r.Props(); p.NumFilterEntries != uint64(b.entries()) || p.PrefixFilter != o.Filter.prefix() {
			t.Errorf("%d keys: %d entries, RocksDB counts %d; prefixes %v", len(keys), b.entries(), p.NumFilterEntries, p.PrefixFilter)
		}
		f, err := r.Filter()
		if err != nil {
			t.Fatal(err)
		}
		forms[f.Form()]++
		for _, k := range keys {
			if !f.MayHoldKey(k) {
				t.Fatalf("%s: RocksDB's filter does not hold %X", p.name, k)
			}
		}
	}
	for _, p := range policies {
		sizes := []int{3, 500, 2600}
		if p.millibits == DefaultFilterMillibits {
			sizes = slices.Sorted(maps.Keys(common))
		}
		for _, n := range sizes {
			check(t, p, WriterOptions{Filter: FilterWholeKey}, "", common[n])
		}
	}
	for _, p := range []policy{{"bloomfilter:10:false", 2, FormBloom, 10000}, {"bloomfilter:10:false", 5, FormBloom, 10000}, {"ribbonfilter:10:-1", 5, FormRibbon, 10000}} {
		for _, e := range []struct{ text, name string }{
			{"fixed:8", "rocksdb.FixedPrefix.8"}, {"capped:8", "rocksdb.CappedPrefix.8"}, {"rocksdb.Noop", "rocksdb.Noop"},
		} {
			for _, kind := range []FilterKind{FilterPrefix, FilterWholeKeyAndPrefix} {
				for _, n := range []int{2, 500, 2600} {
					check(t, p, WriterOptions{Filter: kind, PrefixExtractor: e.name}, "prefix_extractor="+e.text+";", common[n])
				}
			}
		}
	}
	t.Logf("filters by form: %v", forms)
	for _, f := range []FilterForm{FormLegacyBloom, FormFastBloom, FormRibbon} {
		if forms[f] == 0 {
			t.Errorf("no filter in form %v", f)
		}
	}
}

// TestLargeFilterEqualsRocksDB is about more slots than RocksDB's table of known sizes has.
func TestLargeFilterEqualsRocksDB(t *testing.T) {
	for _, n := range []int{100_000, 300_000} {
		keys := make([][]byte, n)
		for i := range keys {
			keys[i] = fmt.Appendf(nil, "t%c%010d", byte(i>>16), i*3)
		}
		for _, c := range []struct {
			policy string
			form   FilterForm
		}{{"bloomfilter:10:false", FormFastBloom}, {"ribbonfilter:10:-1", FormRibbon}} {
			r := theirTable(t, false, "block_based_table_factory={format_version=5;filter_policy="+c.policy+"}", keys)
			b := newFilterBuilder(&WriterOptions{Filter: FilterWholeKey, FilterForm: c.form, FilterMillibits: DefaultFilterMillibits})
			for _, k := range keys {
				b.add(k)
			}
			if got, want := b.finish(), filterBlock(t, r); !bytes.Equal(got, want) {
				t.Errorf("%d keys, %s: filters differ (%d and %d bytes)", n, c.policy, len(got), len(want))
			}
		}
	}
}

// TestFilterGoldenAreRocksDBs: what other tests compare with, without RocksDB, is what RocksDB writes.
func TestFilterGoldenAreRocksDBs(t *testing.T) {
	for _, g := range filterGolden {
		r := theirTable(t, false, fmt.Sprintf("block_based_table_factory={format_version=%d;filter_policy=%s}", g.version, g.policy), goldenKeys(g.keys))
		if got := checksum(ChecksumXXH64, filterBlock(t, r)); got != g.digest {
			t.Errorf("%s of %d keys, version %d: digest %#08x, not %#08x", g.policy, g.keys, g.version, got, g.digest)
		}
	}
}
