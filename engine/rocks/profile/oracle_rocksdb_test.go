//go:build rocksdb

package profile

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/linxGnu/grocksdb"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
	oracle "github.com/tikv-repair/tikv-repair/tests/oracle/rocksdb"
)

func theirs(t *testing.T, text string) (*grocksdb.DB, string) {
	t.Helper()
	o := grocksdb.NewDefaultOptions()
	o.SetCreateIfMissing(true)
	out, err := grocksdb.GetOptionsFromString(o, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	dir := t.TempDir()
	db, err := grocksdb.OpenDb(out, dir)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return db, dir
}

// What RocksDB 7.8 prints of its filter policies is read back as what was asked for.
func TestPoliciesAsRocksDBPrintsThem(t *testing.T) {
	for text, want := range map[string]Policy{
		"nullptr":                              {None: true},
		"bloomfilter:10:false":                 {Millibits: 10000},
		"bloomfilter:9.9:false":                {Millibits: 9900},
		"bloomfilter:4.5678:true":              {Millibits: 4568},
		"ribbonfilter:10":                      {Millibits: 10000, Ribbon: true},
		"ribbonfilter:15.5:-1":                 {Millibits: 15500, Ribbon: true, BloomBefore: -1},
		"ribbonfilter:10:3":                    {Millibits: 10000, Ribbon: true, BloomBefore: 3},
		"rocksdb.internal.LegacyBloomFilter:7": {Millibits: 7000, Bloom: sst.FormLegacyBloom},
	} {
		db, dir := theirs(t, "block_based_table_factory={format_version=5;block_size=8192;filter_policy="+text+"}")
		db.Close()
		o := newestOptions(t, base.NewOS(), dir)
		printed := o.Lookup("default").Table.FilterPolicy
		got := FromOptions(o, "default")
		if !got.policy.ok || got.policy.v != want || got.blockSize.v != 8192 || got.formatVersion.v != 5 || len(got.notes) > 0 {
			t.Errorf("%s is printed as %q and read as %+v, notes %q", text, printed, got.policy, got.notes)
		}
	}
}

// The OPTIONS files of the three lines that TiKV forked: those before 7 print a policy's name only, so that its bits have to come from
// elsewhere.
func TestOptionsOfTheThreeLines(t *testing.T) {
	oracle.Available(t)
	mem := fixtures.Mem(t, "single-clean-stop")
	for v, want := range map[oracle.Version]struct {
		policy known[Policy]
		name   string
	}{
		oracle.V6_4:  {known[Policy]{}, "rocksdb.BuiltinBloomFilter"},
		oracle.V6_29: {known[Policy]{}, "rocksdb.BuiltinBloomFilter"},
		oracle.V8_10: {is(Policy{Millibits: 10000}), "bloomfilter"},
	} {
		r, err := oracle.ReadFS(t, v, mem, "/data/db", oracle.Options{ReadWrite: true})
		if err != nil {
			t.Fatal(err)
		}
		o := newestOptions(t, base.NewOS(), r.Dir)
		s := FromOptions(o, "write")
		t.Logf("%s prints %q", v, o.Lookup("write").Table.FilterPolicy)
		if s.policy != want.policy || s.For(&manifest.CF{Name: "write"}).Options(Place{}, nil).FilterPolicy != want.name || !s.wholeKeys.v || !s.compression.ok || !s.levels.ok || !s.blockSize.ok || len(s.notes) > 0 {
			t.Errorf("%s: %+v", v, s)
		}
		whole := s.Or(Defaults("write")).policy.v
		if whole != (Policy{Millibits: 10000}) {
			t.Errorf("%s: with TiKV's defaults behind it %+v", v, whole)
		}
	}
}

// The base level, on which the compression of each level depends, is the one that RocksDB reports, for databases that grow.
func TestBaseLevelIsRocksDBs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	seen := map[int]int{}
	for _, multiplier := range []string{"2.000000", "4.000000", "10.000000"} {
		for _, dynamic := range []bool{true, true, false} {
			db, dir := theirs(t, fmt.Sprintf("level_compaction_dynamic_level_bytes=%v;max_bytes_for_level_base=%d;max_bytes_for_level_multiplier=%s;target_file_size_base=16384;"+
				"write_buffer_size=65536;compression=kNoCompression;level0_file_num_compaction_trigger=%d;num_levels=7", dynamic, 32<<10, multiplier, 2+rng.IntN(3)))
			wo := grocksdb.NewDefaultWriteOptions()
			wo.DisableWAL(true)
			for range 25 {
				for range 40 + rng.IntN(200) {
					value := make([]byte, 100+rng.IntN(400))
					for i := range value {
						value[i] = byte(rng.Uint32())
					}
					if err := db.Put(wo, fmt.Appendf(nil, "%08x", rng.Uint32()), value); err != nil {
						t.Fatal(err)
					}
				}
				if err := db.Flush(grocksdb.NewDefaultFlushOptions()); err != nil {
					t.Fatal(err)
				}
			}
			db.CancelAllBackgroundWork(true) // the version stands still
			st, err := manifest.Load(base.NewOS(), dir)
			if err != nil {
				t.Fatal(err)
			}
			want, err := strconv.Atoi(strings.TrimSpace(db.GetProperty("rocksdb.base-level")))
			if err != nil {
				t.Fatal(err)
			}
			tables := FromOptions(newestOptions(t, base.NewOS(), dir), "default").For(st.CFs[0])
			got := tables.s.levels.v.baseLevel(tables.sizes)
			if got != want {
				t.Errorf("base level %d, RocksDB says %d: levels %v", got, want, tables.sizes)
			}
			seen[want]++
			db.Close()
		}
	}
	t.Logf("base levels seen: %v", seen)
	if len(seen) < 3 {
		t.Error("too few shapes")
	}
}
