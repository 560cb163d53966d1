package scan_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// What lies in a damaged table is not judged; everything else still is.
func TestCheckGoesOnBesideDamage(t *testing.T) {
	p := admit(t, "single-levels")
	whole := check(t, p.base(), p.dir, false).Counts
	_, path := p.tableOf(scan.CFLock) // the narrowest
	p.must(p.fs.Remove(path))
	r := check(t, p.base(), p.dir, false)
	if found(r) != "damaged-file" || !slices.Contains(r.NotChecked, "MVCC invariants of the keys in damaged files") {
		t.Errorf("%s%v", names(r), r.NotChecked)
	}
	if n := r.Counts.Writes; n == 0 || n >= whole.Writes || r.Counts.LogEntries != whole.LogEntries {
		t.Errorf("%+v of %+v", r.Counts, whole)
	}
}

// How the work is cut up changes nothing.
func TestCheckShardsAddUp(t *testing.T) {
	for _, fixture := range []string{"single-levels", "single-titan", "raw-v2"} {
		p := admit(t, fixture)
		var want string
		for _, threads := range []int{1, 2, 16} {
			r, err := scan.Check(context.Background(), p.base(), p.dir, scan.CheckOptions{Threads: threads})
			p.must(err)
			got := fmt.Sprintf("%+v %s", r.Counts, names(r))
			if want == "" {
				want = got
			}
			if got != want {
				t.Errorf("%s, %d threads: %s, want %s", fixture, threads, got, want)
			}
		}
	}
}

// Damage can come by the million: only some of a kind are kept, the others are counted.
func TestCheckBoundsFindings(t *testing.T) {
	p := admit(t, "single-default")
	var ops []op
	for i := range 250 {
		ops = append(ops, op{scan.CFDefault, mvcc.DataKey(fmt.Appendf(nil, "t%07d", i), 5), []byte("v")})
	}
	p.commit(ops...)
	r := check(t, p.base(), p.dir, false)
	if len(r.Findings) != 200 || r.More["orphan-row"] != 50 {
		t.Errorf("%d findings, more %v", len(r.Findings), r.More)
	}
}

func TestCheckInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p := admit(t, "single-levels")
	if r, err := scan.Check(ctx, p.base(), p.dir, scan.CheckOptions{}); !errors.Is(err, base.ErrInterrupted) {
		t.Errorf("%v, %v", r, err)
	}
}

func TestCheckRefuses(t *testing.T) {
	p := admit(t, "single-default")
	if _, err := scan.Check(context.Background(), p.base(), "/data/db", scan.CheckOptions{}); !errors.Is(err, base.ErrNotStore) {
		t.Errorf("%v", err)
	}
}

// A byte that is wrong anywhere in a table is always found, the padding of the footer aside; one anywhere else never makes the
// check panic or give up.
func TestCheckRandomFlips(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	flips := 60
	if testing.Short() {
		flips = 12
	}
	for _, fixture := range []string{"single-levels", "single-titan", "single-raftdb"} {
		p := admit(t, fixture)
		var tables, all []string
		var walk func(dir string)
		walk = func(dir string) {
			names, err := p.fs.List(dir)
			p.must(err)
			for _, n := range names {
				path := p.fs.PathJoin(dir, n)
				st, err := p.fs.Stat(path)
				p.must(err)
				if st.IsDir() {
					walk(path)
				} else if st.Size() > 0 {
					all = append(all, path)
				}
			}
		}
		walk(p.dir)
		p.look(func(s *scan.Store) {
			for _, name := range s.DB.Names() {
				for _, f := range s.DB.CF(name).Files() {
					tables = append(tables, s.DB.TablePath(f.Number))
				}
			}
		})
		for i := range flips {
			path := all[rng.IntN(len(all))]
			if i%3 == 0 && len(tables) > 0 {
				path = tables[rng.IntN(len(tables))]
			}
			b := p.read(path)
			off := rng.IntN(len(b))
			damaged := slices.Clone(b)
			damaged[off] ^= byte(1 << rng.IntN(8))
			p.write(path, damaged)
			r, err := scan.Check(context.Background(), p.base(), p.dir, scan.CheckOptions{Threads: 2})
			switch {
			case err != nil && !errors.Is(err, base.ErrUnsupported) && !errors.Is(err, base.ErrNotStore):
				t.Errorf("%s offset %d: %v", path, off, err)
			case err == nil && slices.Contains(tables, path) && off < len(b)-53 && len(r.Findings) == 0:
				t.Errorf("%s offset %d: not found", path, off)
			}
			if err == nil && i%4 == 0 {
				checkBoth(t, p.base(), p.dir, scan.CheckOptions{})
			}
			p.write(path, b)
		}
		if d := cmp.Diff("", found(check(t, p.base(), p.dir, false))); d != "" {
			t.Errorf("%s is not restored: %s", fixture, d)
		}
	}
}
