package scan_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// told is everything that a check says, for a comparison.
func told(r *scan.CheckResult) []string {
	var out []string
	for _, d := range plan.Describe(r.Findings) {
		out = append(out, fmt.Sprint(d.Name, d.Severity, d.Where, d.What, d.Next))
	}
	for name, n := range r.More {
		out = append(out, fmt.Sprintf("%d more %s", n, name))
	}
	out = append(out, r.NotChecked...)
	out = append(out, fmt.Sprintf("%+v", r.Counts))
	slices.Sort(out)
	return out
}

// checkBoth checks a directory the fast way, which reads every table once, and one thing at a time.
func checkBoth(t *testing.T, fs base.FS, dir string, o scan.CheckOptions) *scan.CheckResult {
	t.Helper()
	o.Threads, o.Meter = 3, new(scan.Meter)
	fast, err := scan.Check(context.Background(), fs, dir, o)
	if d, n := o.Meter.Done.Load(), o.Meter.Total.Load(); err == nil && d != n {
		t.Errorf("the meter ends with %d of %d bytes", d, n)
	}
	slow, err2 := scan.Check(context.Background(), fs, dir, o.Apart())
	if fmt.Sprint(err) != fmt.Sprint(err2) {
		t.Fatalf("%v, one thing at a time %v", err, err2)
	}
	if err != nil {
		return nil
	}
	if a, b := told(fast), told(slow); !slices.Equal(a, b) {
		for i := range max(len(a), len(b)) {
			if i >= len(a) || i >= len(b) || a[i] != b[i] {
				t.Fatalf("%d and %d lines; the first that differs:\n%s\none thing at a time:\n%s", len(a), len(b), at(a, i), at(b, i))
			}
		}
	}
	return fast
}

func at(l []string, i int) string {
	if i < len(l) {
		return l[i]
	}
	return "(nothing)"
}

// In a sound store almost all tables are read once, and the result is the same.
func TestCheckReadsTablesOnce(t *testing.T) {
	for _, name := range fixtures.Names() {
		if testing.Short() && name != "single-levels" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name))
			dir := "/data"
			if ok, err := base.Exists(fs, dir); err != nil || !ok {
				dir = "/store0"
			}
			if r := checkBoth(t, fs, dir, scan.CheckOptions{}); r != nil {
				t.Logf("%d of %d tables were read once", r.ReadOnce(), r.Counts.Files)
				if name == "single-levels" && r.ReadOnce() < r.Counts.Files/2 {
					t.Errorf("%d of %d tables were read once", r.ReadOnce(), r.Counts.Files)
				}
			}
		})
	}
}

// hurts are ways to change a table of a column family; n counts its records.
var hurts = []struct {
	name string
	cf   string
	edit func(rng *rand.Rand, n int, k *ikey.Key, v *[]byte) int
	meta func(rng *rand.Rand, m *manifest.FileMeta)
	prop map[string]string
}{
	{name: "values are gone", cf: scan.CFDefault, edit: func(rng *rand.Rand, _ int, _ *ikey.Key, _ *[]byte) int { return min(1, rng.IntN(8)) }},
	{name: "write records are gone", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, _ *ikey.Key, _ *[]byte) int { return min(1, rng.IntN(16)) }},
	{name: "write records lose what says that they have a value", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, _ *ikey.Key, v *[]byte) int {
		if p, err := mvcc.PeekWrite(*v); err == nil && p.HasShortValue && rng.IntN(30) == 0 {
			*v = binary.AppendUvarint([]byte{p.Type}, uint64(p.StartTS))
		}
		return 1
	}},
	{name: "write records are of another type", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, _ *ikey.Key, v *[]byte) int {
		if len(*v) > 0 && rng.IntN(30) == 0 {
			(*v)[0] = "PDLRx"[rng.IntN(5)]
		}
		return 1
	}},
	{name: "write records are deletions", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, k *ikey.Key, v *[]byte) int {
		if rng.IntN(20) == 0 {
			k.Kind, *v = ikey.KindDelete, nil
		}
		return 1
	}},
	{name: "write records began after they were committed", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, k *ikey.Key, v *[]byte) int {
		if _, ts, ok := mvcc.SplitKey(k.User); ok && len(*v) > 0 && rng.IntN(30) == 0 {
			*v = append(binary.AppendUvarint([]byte{'D'}, uint64(ts)+uint64(rng.IntN(2))), 'R')
		}
		return 1
	}},
	{name: "older records of the same keys are there", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, _ *ikey.Key, _ *[]byte) int { return 1 + rng.IntN(3) }},
	{name: "a key is cut off", cf: scan.CFWrite, edit: func(rng *rand.Rand, n int, k *ikey.Key, _ *[]byte) int {
		if n == 0 {
			k.User = k.User[:len(k.User)-3]
		}
		return 1
	}},
	{name: "sequences are below the bound", cf: scan.CFWrite, meta: func(_ *rand.Rand, m *manifest.FileMeta) { m.SmallestSeq, m.LargestSeq = m.LargestSeq+1, m.LargestSeq+2 }},
	{name: "sequences are above the bound", cf: scan.CFWrite, edit: func(rng *rand.Rand, _ int, _ *ikey.Key, _ *[]byte) int { return 1 + rng.IntN(2) }, meta: func(_ *rand.Rand, m *manifest.FileMeta) { m.LargestSeq = m.SmallestSeq }},
	{name: "a table begins before its boundary", cf: scan.CFWrite, meta: func(rng *rand.Rand, m *manifest.FileMeta) {
		m.Smallest.User = append(slices.Clone(m.Smallest.User), byte(rng.IntN(256)))
	}},
	{name: "a table ends behind its boundary", cf: scan.CFDefault, meta: func(_ *rand.Rand, m *manifest.FileMeta) {
		m.Largest.User = slices.Clone(m.Largest.User[:len(m.Largest.User)-1])
	}},
	{name: "the newest timestamp is wrong", cf: scan.CFWrite, prop: map[string]string{
		mvcc.PropMinTS: u64(1), mvcc.PropMaxTS: u64(2), mvcc.PropNumErrors: u64(0), mvcc.PropNumDeletes: u64(0)}},
}

// Whatever is changed in random tables, both ways find the same, and nothing of what is wrong passes as sound.
func TestCheckJoinFindsTheSame(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	names := map[string]int{}
	rounds := 60
	if testing.Short() {
		rounds = 13
	}
	for round := range rounds {
		fixture := []string{"single-levels", "single-lz4-ranges"}[rng.IntN(2)]
		p := admit(t, fixture)
		var safe mvcc.TS
		p.look(func(s *scan.Store) {
			if vs := versions(t, s); rng.IntN(3) > 0 {
				safe = vs[rng.IntN(len(vs))].ts
			}
		})
		var did []string
		for i := range 1 + rng.IntN(2) {
			h := hurts[(round+i*rng.IntN(len(hurts)))%len(hurts)]
			var files []rocks.LevelFile
			p.look(func(s *scan.Store) { files = s.DB.CF(h.cf).Files() })
			if len(files) == 0 {
				continue
			}
			n := 0
			edit := func(k *ikey.Key, v *[]byte) int {
				if n++; h.edit == nil {
					return 1
				}
				copies := h.edit(rng, n-1, k, v)
				if n == 1 {
					return max(1, copies) // a table is never empty
				}
				return copies
			}
			change := func(m *manifest.FileMeta) {
				if h.meta != nil {
					h.meta(rng, m)
				}
			}
			did = append(did, h.name)
			p.rewriteFile(h.cf, files[rng.IntN(len(files))], liar{h.prop}, edit, change)
		}
		r := checkBoth(t, p.base(), p.dir, scan.CheckOptions{SafePoint: safe})
		if t.Failed() || r == nil {
			t.Fatalf("round %d, %s: %v", round, fixture, did)
		}
		for _, f := range r.Findings {
			names[f.Name()]++
		}
	}
	t.Log(names)
	for _, name := range []string{"version-rule", "wrong-properties", "lost-value", "orphan-row", "bad-record", "timestamp-order"} {
		if names[name] == 0 {
			t.Errorf("nothing was found of %s; found %v", name, slices.Sorted(maps.Keys(names)))
		}
	}
}
