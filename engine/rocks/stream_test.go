package rocks_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/engine/rocks/manifest"
	"github.com/tikv-repair/tikv-repair/engine/rocks/sst"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

type seenRecord struct {
	user, value string
	seq         uint64
	kind        ikey.Kind
}

// visibleOf is what Visible gives, which Stream must give as well.
func visibleOf(t *testing.T, cf *rocks.CF, lower, upper []byte) (out []seenRecord) {
	t.Helper()
	v, err := cf.NewVisible(lower, upper, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for ok := v.First(); ok; ok = v.Next() {
		out = append(out, seenRecord{string(v.User()), string(v.Value()), v.Seq(), v.Kind()})
	}
	if v.Err() != nil {
		t.Fatal(v.Err())
	}
	return out
}

// streamOf walks a Stream with a mix of single steps, seeks to keys of want and stretches, and gives every record that was met, with the
// number of those that seeks left out.
func streamOf(t *testing.T, cf *rocks.CF, lower, upper []byte, want []seenRecord, rng *rand.Rand) (out []seenRecord, stretched int) {
	t.Helper()
	s, err := cf.NewStream(lower, upper, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for ok := s.First(); ok; {
		switch rng.IntN(4) {
		case 0: // what the seek passes over is taken from the other side
			to := min(len(out)+rng.IntN(40), len(want)-1)
			ok = s.SeekGE([]byte(want[to].user))
			if to >= len(out) {
				if !ok || string(s.User()) != want[to].user {
					t.Fatalf("a seek to %X, record %d, ends elsewhere", want[to].user, to)
				}
				out = append(out, want[len(out):to]...)
			}
		case 1, 2:
			var limit []byte
			if n := len(out) + 1 + rng.IntN(200); n < len(want) && rng.IntN(2) == 0 {
				limit = []byte(want[n].user)
			}
			b, from, to := s.Stretch(limit)
			if b == nil {
				out = append(out, seenRecord{string(s.User()), string(s.Value()), s.Seq(), s.Kind()})
				ok = s.Next()
				continue
			}
			if from >= to {
				t.Fatalf("a stretch from %d to %d", from, to)
			}
			to = from + 1 + rng.IntN(to-from)
			for i := from; i < to; i++ {
				k := b.Key(i)
				if limit != nil && bytes.Compare(k.User, limit) >= 0 {
					t.Fatalf("%X is not below the limit %X", k.User, limit)
				}
				if i > from && bytes.Equal(k.User, b.User(i-1)) || k.Kind == ikey.KindDelete || k.Kind == ikey.KindSingleDelete || s.Covered(k.User, k.Seq) {
					continue
				}
				out = append(out, seenRecord{string(k.User), string(b.Value(i)), k.Seq, k.Kind})
				stretched++
			}
			ok = s.Skip(to)
		default:
			out = append(out, seenRecord{string(s.User()), string(s.Value()), s.Seq(), s.Kind()})
			ok = s.Next()
		}
	}
	if s.Err() != nil {
		t.Fatal(s.Err())
	}
	return out, stretched
}

func TestStreamGivesWhatVisibleGives(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	for _, name := range fixtures.Names() {
		if testing.Short() && name != "single-levels" && name != "single-lz4-ranges" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name))
			dir := "/data/db"
			if ok, err := base.Exists(fs, dir); err != nil || !ok {
				dir = "/store0/db"
			}
			db, err := rocks.Open(fs, dir, rocks.Options{})
			if err != nil {
				t.Skip(err)
			}
			defer db.Close()
			rng := rand.New(rand.NewPCG(seed, 1))
			total := 0
			for _, n := range db.Names() {
				cf := db.CF(n)
				all := visibleOf(t, cf, nil, nil)
				for range 6 {
					var lower, upper []byte
					if len(all) > 3 && rng.IntN(3) > 0 {
						a, b := rng.IntN(len(all)), rng.IntN(len(all))
						lower, upper = []byte(all[min(a, b)].user), []byte(all[max(a, b)].user)
					}
					want := visibleOf(t, cf, lower, upper)
					got, stretched := streamOf(t, cf, lower, upper, want, rng)
					total += stretched
					if len(got) != len(want) {
						t.Fatalf("%s: %d records, Visible has %d", n, len(got), len(want))
					}
					for i := range got {
						if got[i] != want[i] {
							t.Fatalf("%s: record %d is %q, Visible has %q", n, i, got[i].user, want[i].user)
						}
					}
				}
			}
			if total == 0 && name == "single-levels" {
				t.Error("nothing came in stretches")
			}
		})
	}
}

// A watch is told of every record of a table, and of every block's end once.
func TestStreamWatch(t *testing.T) {
	fs := base.NewMem(fixtures.Mem(t, "single-levels"))
	db, err := rocks.Open(fs, "/data/db", rocks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	cf := db.CF("write")
	records, ends := map[uint64]uint64{}, map[uint64]int{}
	s, err := cf.NewStream(nil, nil, func(f *manifest.FileMeta, _ *sst.Reader) func(int, bool, *sst.Batch) {
		return func(block int, end bool, b *sst.Batch) {
			records[f.Number] += uint64(b.Len())
			if end {
				if block != ends[f.Number] {
					t.Errorf("file %d: block %d ends, %d have ended", f.Number, block, ends[f.Number])
				}
				ends[f.Number]++
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for ok := s.First(); ok; ok = s.Next() {
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cf.Files() {
		r, done, err := cf.Table(f.FileMeta)
		if err != nil {
			t.Fatal(err)
		}
		if p := r.Props(); records[f.Number] != p.NumEntries-p.NumRangeDels || ends[f.Number] != len(r.BlockBounds()) {
			t.Errorf("file %d: %d records in %d blocks, of %d in %d", f.Number, records[f.Number], ends[f.Number], p.NumEntries-p.NumRangeDels, len(r.BlockBounds()))
		}
		if err := done(); err != nil {
			t.Fatal(err)
		}
	}
}
