//go:build rocksdb

package rewind_test

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

// Real RocksDB of each line that knows the form uses the filters of a rewound store. Its counters say so: every table of ours whose range
// has an absent key is asked, on each level, answers for nearly all of them that the key is not there, and never for one that is.
func TestRealRocksDBUsesOurFilters(t *testing.T) {
	oracle.Available(t)
	const name = "single-levels"
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			ts := named(t, name)[2]
			rng := seeded(t)
			mem, prefix, old := configured(t, name, v, ts)
			s := open(t, base.NewMem(mem), dataDir)
			want, blobs := ownView(contentOf(t, s))
			present := want[scan.CFWrite]
			known := map[string]bool{}
			for _, kv := range present {
				known[string(kv.Key)] = true
				known[string(kv.Key[:prefix])] = true
			}
			files := s.DB.CF(scan.CFWrite).Files()
			for _, f := range files {
				if old[f.Number] {
					t.Fatalf("table %d has not been written again", f.Number)
				}
			}
			// covering gives how many tables a Get of an absent key has to ask, and on which levels.
			covering := func(key []byte) (n uint64, levels []int) {
				for _, f := range files {
					if bytes.Compare(f.Smallest.User, key) <= 0 && bytes.Compare(f.Largest.User, key) >= 0 {
						n++
						levels = append(levels, f.Level)
					}
				}
				return n, slices.Compact(levels)
			}
			var asks []oracle.Ask
			expected, absent := map[string]uint64{}, map[string]uint64{} // tables that are asked for the absent keys of a level, and the keys
			for _, kv := range present {
				asks = append(asks, oracle.Ask{Group: "present", CF: scan.CFWrite, Key: kv.Key})
				key := bytes.Clone(kv.Key)
				for known[string(key[:prefix])] {
					key[prefix-1], key[prefix-2] = byte(rng.Uint32()), byte(rng.Uint32())
				}
				if v.extractor != "" {
					asks = append(asks, oracle.Ask{Group: "present-rows", CF: scan.CFWrite, Seek: true, Key: kv.Key[:prefix]},
						oracle.Ask{Group: "absent-rows", CF: scan.CFWrite, Seek: true, Key: key[:prefix]})
				}
				all, at := covering(key)
				for _, level := range at {
					group := fmt.Sprintf("absent-L%d", level)
					asks = append(asks, oracle.Ask{Group: group, CF: scan.CFWrite, Key: key})
					absent[group]++
					expected[group] += all
				}
			}
			closing(t, s)
			for _, level := range []int{4, 5, 6} {
				if n := absent[fmt.Sprintf("absent-L%d", level)]; n < 1000 {
					t.Fatalf("only %d absent keys for L%d", n, level)
				}
			}
			versions := []oracle.Version{oracle.V6_29, oracle.V8_10}
			if v.version == "2" { // format version 5 came with 6.6
				versions = oracle.Versions()
			}
			for _, release := range versions {
				o := oracle.Options{Blobs: blobs, Asks: asks}
				if v.extractor != "" {
					o.Prefixes = map[string]string{scan.CFWrite: fmt.Sprintf("capped:%d", prefix)}
				}
				r, err := oracle.ReadFS(t, release, mem, dataDir+"/db", o)
				if err != nil {
					t.Fatal(err)
				}
				sameRows(t, string(release), r.Rows, want)
				for _, group := range slices.Sorted(maps.Keys(absent)) {
					a := r.Asked[group]
					asked, useful := filterAnswers(a.Tickers)
					t.Logf("RocksDB %s, %s: %d keys, %d of %d tables ask their filter, %d are spared", release, group, absent[group], asked, expected[group], useful)
					if a.Found != 0 || a.Missing != absent[group] {
						t.Errorf("%s %s: %d found, %d missing of %d absent keys", release, group, a.Found, a.Missing, absent[group])
					}
					if asked != expected[group] || useful < asked*97/100 {
						t.Errorf("%s %s: %d of %d tables ask their filter, %d are spared: %v", release, group, asked, expected[group], useful, a.Tickers)
					}
				}
				a := r.Asked["present"]
				if a.Found != uint64(len(present)) {
					t.Errorf("%s: %d of %d present keys are found", release, a.Found, len(present))
				}
				if n := a.Tickers["BLOOM_FILTER_FULL_TRUE_POSITIVE"]; n != a.Found && a.Tickers["BLOOM_FILTER_PREFIX_CHECKED"] == 0 {
					t.Errorf("%s: of %d present keys %d have passed a filter: %v", release, a.Found, n, a.Tickers)
				}
				if v.extractor == "" {
					continue
				}
				rows, none := r.Asked["present-rows"], r.Asked["absent-rows"]
				asked, useful := filterAnswers(none.Tickers)
				t.Logf("RocksDB %s, Seeks to %d absent rows: %d tables ask their filter, %d are spared", release, none.Missing, asked, useful)
				if rows.Found != uint64(len(present)) || none.Found != 0 || none.Missing != uint64(len(present)) {
					t.Errorf("%s: %d of %d present rows are found, %d absent ones", release, rows.Found, len(present), none.Found)
				}
				if asked < none.Missing || useful < asked*97/100 {
					t.Errorf("%s: Seeks to %d absent rows: %v", release, none.Missing, none.Tickers)
				}
			}
		})
	}
}

// filterAnswers gives how many tables have asked their filter, and for how many it has denied the key. Where a filter of prefixes is asked
// for a Get, 6.4 and 6.29 count it as one of whole keys; 8.10 counts Seeks by level.
func filterAnswers(t map[string]uint64) (asked, useful uint64) {
	useful = t["BLOOM_FILTER_USEFUL"] + t["BLOOM_FILTER_PREFIX_USEFUL"] + t["LAST_LEVEL_SEEK_FILTERED"] + t["NON_LAST_LEVEL_SEEK_FILTERED"]
	asked = t["BLOOM_FILTER_USEFUL"] + t["BLOOM_FILTER_FULL_POSITIVE"] + t["BLOOM_FILTER_PREFIX_CHECKED"] + t["LAST_LEVEL_SEEK_FILTERED"] +
		t["LAST_LEVEL_SEEK_FILTER_MATCH"] + t["NON_LAST_LEVEL_SEEK_FILTERED"] + t["NON_LAST_LEVEL_SEEK_FILTER_MATCH"]
	return asked, useful
}

// sst_dump sees the compression of each level, and real RocksDB reads tables in which copied blocks have another one.
func TestRealRocksDBReadsMixedCompression(t *testing.T) {
	oracle.Available(t)
	const name = "single-levels"
	var seen atomic.Int64
	t.Cleanup(func() {
		if seen.Load() == 0 {
			t.Error("no block was copied in another compression")
		}
	})
	for _, c := range compressions {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			ts := named(t, name)[2]
			// Little has to go, so that whole blocks can be copied.
			mem := shapedMem(t, name, shape{rng: seeded(t), deep: 3, junk: 0.01, junkAbove: ts})
			withOptions(t, mem, compressedBy(c.perLevel, c.bottommost, c.dynamic))
			s := open(t, base.NewMem(mem), dataDir)
			old := numbers(s, scan.CFWrite)
			closing(t, s)
			reset(t, base.NewMem(mem), dataDir, to(ts))
			dir := filepath.Join(t.TempDir(), "db")
			fixtures.CopyToDisk(t, mem, dataDir+"/db", dir)
			s = open(t, base.NewMem(mem), dataDir)
			mixed := 0
			for _, out := range outputs(t, s, scan.CFWrite, old) {
				file := filepath.Join(dir, filepath.Base(out.reader.Path()))
				p, err := oracle.SSTProperties(t, file)
				if err != nil {
					t.Fatal(err)
				}
				if got, want := p.Table["SST file compression algo"], sst.CompressionName(c.want[out.level]); got != want {
					t.Errorf("L%d: sst_dump says %s, want %s", out.level, got, want)
				}
				if err := oracle.SSTVerify(t, file); err != nil {
					t.Error(err)
				}
				types, err := out.reader.BlockTypes()
				if err != nil {
					t.Fatal(err)
				}
				for code, n := range types {
					if code != c.want[out.level] && code != sst.CompressionNone {
						mixed += n
					}
				}
			}
			closing(t, s)
			seen.Add(int64(mixed))
			t.Logf("%d blocks in another compression than their table's", mixed)
			judge(t, mem, ts, oracle.Versions()...)
		})
	}
}
