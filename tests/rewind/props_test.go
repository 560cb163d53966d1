package rewind_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// recollect runs the collectors that a table names over its entries.
func recollect(t testing.TB, s *scan.Store, cf *rocks.CF, r *sst.Reader) map[string]string {
	t.Helper()
	c := s.Layout.Config.KV.CFs[cf.Meta.Name]
	_, stale := r.Props().User[mvcc.PropOldestStaleTS]
	var cs []mvcc.Collector
	for _, name := range strings.Split(strings.Trim(r.Props().Collectors, "[]"), ",") {
		switch name {
		case "":
		case mvcc.MVCCCollectorName:
			cs = append(cs, mvcc.NewMVCCCollector(mvcc.MVCCOptions{StaleTS: stale}))
		case mvcc.RangeCollectorName:
			cs = append(cs, mvcc.NewRangeCollector(mvcc.RangeOptions{SizeDistance: c.PropSizeIndexDistance, KeysDistance: c.PropKeysIndexDistance}))
		case mvcc.RawMVCCCollectorName:
			cs = append(cs, mvcc.NewRawMVCCCollector(mvcc.RawMVCCOptions{MVCCOptions: mvcc.MVCCOptions{StaleTS: stale}, Now: uint64(now.Unix())}))
		case sst.BlobCollectorName:
			cs = append(cs, sst.NewBlobCollector())
		default:
			t.Errorf("%s: collector %q", r.Path(), name)
		}
	}
	it := r.NewIter()
	defer closing(t, it)
	for ok := it.First(); ok; ok = it.Next() {
		for _, c := range cs {
			c.Add(it.Key().User, byte(it.Key().Kind), it.Value())
		}
	}
	if err := it.Err(); err != nil {
		t.Fatal(err)
	}
	dels, err := r.RangeDels()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dels {
		for _, c := range cs {
			c.Add(d.Start, byte(ikey.KindRangeDelete), d.End)
		}
	}
	props := map[string]string{}
	for _, c := range cs {
		c.Finish(props)
	}
	return props
}

// checkProps compares a table's properties with those that its entries give, and returns their number. A range index over blob
// values is the exception: TiKV puts running estimates of the whole process into it, so only its keys and counts are fixed.
func checkProps(t testing.TB, s *scan.Store, cf *rocks.CF, r *sst.Reader, byTiKV bool) int {
	t.Helper()
	got, want := recollect(t, s, cf, r), maps.Clone(r.Props().User)
	if _, blobs := want[mvcc.PropBlobSize]; blobs && byTiKV {
		for _, p := range []map[string]string{got, want} {
			p[mvcc.PropRangeIndex] = string(withoutSizes(t, p[mvcc.PropRangeIndex]))
		}
	}
	names := maps.Clone(got)
	maps.Copy(names, want)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		g, inGot := got[n]
		w, inWant := want[n]
		if g != w || inGot != inWant {
			t.Errorf("%s of %s: %s is %X (%v), its entries give %X (%v)", r.Path(), cf.Meta.Name, n, w, inWant, g, inGot)
		}
	}
	return len(want)
}

// withoutSizes leaves of a range index its keys and their positions.
//
//	{ key length u64 BE | key | size so far u64 BE | entries so far u64 BE } ...
func withoutSizes(t testing.TB, index string) []byte {
	var out []byte
	for b := []byte(index); len(b) > 0; {
		n := binary.BigEndian.Uint64(b)
		if uint64(len(b)) < n+24 {
			t.Fatalf("range index %X", index)
		}
		out = append(append(out, b[:8+n]...), b[16+n:24+n]...)
		b = b[24+n:]
	}
	return out
}

func eachTable(t testing.TB, s *scan.Store, do func(cf *rocks.CF, f rocks.LevelFile, r *sst.Reader)) {
	t.Helper()
	for _, name := range s.DB.Names() {
		cf := s.DB.CF(name)
		for _, f := range cf.Files() {
			r, done, err := cf.Table(f.FileMeta)
			if err != nil {
				t.Fatal(err)
			}
			do(cf, f, r)
			if err := done(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TiKV's own tables give the same properties once more, byte for byte; and so does every table that a rewind writes, with the
// same collectors in the same order as its family's other tables.
func TestTablesCarryTiKVsProperties(t *testing.T) {
	for _, name := range []string{"single-levels", "single-lz4-ranges", "single-titan", "single-default", "raw-v2"} {
		t.Run(name, func(t *testing.T) {
			s := open(t, base.NewMem(fixtures.Mem(t, name)), dataDir)
			theirs := map[uint64]bool{}
			collectors := map[string]string{}
			n := 0
			eachTable(t, s, func(cf *rocks.CF, f rocks.LevelFile, r *sst.Reader) {
				theirs[f.Number] = true
				collectors[cf.Meta.Name] = r.Props().Collectors
				n += checkProps(t, s, cf, r, true)
			})
			closing(t, s)
			t.Logf("%d tables by TiKV, %d properties", len(theirs), n)
			if len(theirs) == 0 && (name == "single-levels" || name == "single-lz4-ranges" || name == "single-titan") {
				t.Error("no tables")
			}
			ours := 0
			for _, ts := range named(t, name) {
				fs := base.NewMem(fixtures.Mem(t, name))
				reset(t, fs, dataDir, forced(to(ts), "raw-data"))
				s := open(t, fs, dataDir)
				eachTable(t, s, func(cf *rocks.CF, f rocks.LevelFile, r *sst.Reader) {
					if theirs[f.Number] {
						return
					}
					ours++
					checkProps(t, s, cf, r, false)
					if c, ok := collectors[cf.Meta.Name]; ok && r.Props().Collectors != c {
						t.Errorf("%s: collectors %s, TiKV's tables have %s", r.Path(), r.Props().Collectors, c)
					}
					if cf.Meta.Name == scan.CFWrite {
						if _, hi, trust := mvcc.PropTS(r.Props().User, r.Props().NumRangeDels); hi > ts || !trust && r.Props().NumRangeDels == 0 {
							t.Errorf("%s: max_ts %s, trustworthy %v", r.Path(), hi, trust)
						}
					}
					checkMeta(t, f, r)
				})
				closing(t, s)
			}
			if ours == 0 && name != "raw-v2" {
				t.Error("no table of ours")
			}
			t.Logf("%d tables by us", ours)
		})
	}
}

// checkMeta holds what the MANIFEST says of a table to its entries.
func checkMeta(t testing.TB, f rocks.LevelFile, r *sst.Reader) {
	t.Helper()
	var first, last ikey.Key
	lo, hi, n, deletes := ikey.MaxSeq, uint64(0), uint64(0), uint64(0)
	it := r.NewIter()
	for ok := it.First(); ok; ok = it.Next() {
		if n == 0 {
			first = it.Key().Clone()
		}
		last = it.Key().Clone()
		lo, hi = min(lo, last.Seq), max(hi, last.Seq)
		if n++; last.Kind == ikey.KindDelete || last.Kind == ikey.KindSingleDelete {
			deletes++
		}
	}
	if err := it.Err(); err != nil {
		t.Error(err)
	}
	closing(t, it)
	if p := r.Props(); p.NumRangeDels > 0 {
		return
	} else if p.NumEntries != n || p.NumDeletions != deletes || p.OrigFileNumber != f.Number {
		t.Errorf("%s: properties %+v for %d entries, %d deletes", r.Path(), p, n, deletes)
	}
	if f.SmallestSeq != lo || f.LargestSeq != hi || !bytes.Equal(f.Smallest.Encode(), first.Encode()) || !bytes.Equal(f.Largest.Encode(), last.Encode()) {
		t.Errorf("%s: MANIFEST %+v, entries %v..%v, sequences %d..%d", r.Path(), f.FileMeta, first, last, lo, hi)
	}
}
