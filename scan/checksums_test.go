package scan_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

func checksums(t *testing.T, p *patient) *scan.CheckResult {
	t.Helper()
	r, err := scan.Check(context.Background(), p.base(), p.dir, scan.CheckOptions{Checksums: true, Threads: 2})
	p.must(err)
	return r
}

// Every flipped byte of a table or blob file is a finding of its file, whoever points to it, and nothing else is one.
func TestChecksumsFindFlips(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, fixture := range []string{"single-levels", "single-titan", "single-lz4-ranges"} {
		t.Run(fixture, func(t *testing.T) {
			p := admit(t, fixture)
			sound := checksums(t, p)
			for _, f := range sound.Findings {
				if f.Severity() > plan.Info {
					t.Errorf("in the sound store: %s: %s", f.Name(), f.What())
				}
			}
			if v := sound.Verified; v == nil || v.Files != sound.Counts.Files+sound.Counts.BlobFiles || v.Bytes == 0 {
				t.Fatalf("%+v of %+v", v, sound.Counts)
			}
			var files []string
			p.look(func(s *scan.Store) {
				for _, name := range s.DB.Names() {
					for _, f := range s.DB.CF(name).Files() {
						files = append(files, s.DB.TablePath(f.Number))
					}
				}
				if s.Titan != nil {
					for _, f := range s.Titan.Manifest().Sorted() {
						files = append(files, s.Titan.Path(f.Number))
					}
				}
			})
			for range 60 {
				path := files[rng.IntN(len(files))]
				b := p.read(path)
				damaged, off := slices.Clone(b), rng.IntN(len(b))
				damaged[off] ^= byte(1 << rng.IntN(8))
				p.write(path, damaged)
				found := 0
				for _, f := range checksums(t, p).Findings {
					if d, ok := f.(*plan.DamagedFile); ok && d.Path == path {
						found++
					} else if f.Severity() > plan.Info {
						t.Errorf("a flip at %d of %s: %s: %s", off, path, f.Name(), f.What())
					}
				}
				const footer = 53 // of a table; a part of it is padding
				if found != 1 && (found > 0 || !strings.HasSuffix(path, ".sst") || off < len(b)-footer) {
					t.Errorf("a flip at %d of %s: %d findings of the file", off, path, found)
				}
				p.write(path, b)
			}
		})
	}
}

// A damaged block of raft-engine's entries is found without regions.
func TestChecksumsOfRaftEntries(t *testing.T) {
	i := slices.IndexFunc(damages, func(d damage) bool { return d.name == "an entries block of the raft log is damaged" })
	p := admit(t, damages[i].fixture)
	damages[i].hurt(p)
	names := map[string]int{}
	for _, f := range checksums(t, p).Findings {
		names[f.Name()]++
	}
	if names["raft-log-damage"] == 0 {
		t.Errorf("found %v", names)
	}
}

func TestChecksumsInterrupted(t *testing.T) {
	p := admit(t, "single-levels")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r, err := scan.Check(ctx, p.base(), p.dir, scan.CheckOptions{Checksums: true})
	if !errors.Is(err, base.ErrInterrupted) {
		t.Fatalf("%v, %v", r, err)
	}
	m := new(scan.Meter)
	if _, err := scan.Check(context.Background(), p.base(), p.dir, scan.CheckOptions{Checksums: true, Meter: m}); err != nil {
		t.Fatal(err)
	}
	if d, n := m.Done.Load(), m.Total.Load(); d == 0 || d > n || d < n*9/10 {
		t.Errorf("the meter ends with %d of %d bytes", d, n)
	}
}
