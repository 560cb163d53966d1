package scan_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// unreadable are the fixtures that this tool refuses by name.
var unreadable = map[string]bool{"single-encrypted": true, "tablets-v2": true}

func check(t *testing.T, fs base.FS, dir string, quick bool) *scan.CheckResult {
	t.Helper()
	m := new(scan.Meter)
	r, err := scan.Check(context.Background(), fs, dir, scan.CheckOptions{Quick: quick, Meter: m, Threads: 2})
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	if done, total := m.Done.Load(), m.Total.Load(); done != total {
		t.Errorf("%s: the meter ends at %d of %d", dir, done, total)
	}
	return r
}

func names(r *scan.CheckResult) string {
	var b strings.Builder
	for _, p := range r.Findings {
		fmt.Fprintf(&b, "%s %s [%s] %s\n", p.Severity(), p.Name(), p.Where(), p.What())
	}
	return b.String()
}

// Every store that a real TiKV left behind is sound, killed or not, and everything in it is looked at.
func TestCheckFixturesAreSound(t *testing.T) {
	for i, name := range fixtures.Names() {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			fs := base.NewMem(fixtures.Mem(t, name))
			for _, dir := range fixtures.Stores(t, name) {
				for _, quick := range []bool{false, true} {
					if unreadable[name] {
						if _, err := scan.Check(context.Background(), fs, dir, scan.CheckOptions{Quick: quick}); !errors.Is(err, base.ErrUnsupported) {
							t.Errorf("%s: %v", dir, err)
						}
						continue
					}
					r := check(t, fs, dir, quick)
					t.Logf("%s quick=%v %+v %v\n%s", dir, quick, r.Counts, r.NotChecked, names(r))
					if r.Worst() > plan.Warning {
						t.Errorf("%s, quick %v:\n%s", dir, quick, names(r))
					}
					if !quick {
						allRead(t, open(t, name, dir), r.Counts)
					}
				}
			}
		})
	}
}

// allRead compares what a check has looked at with what a scan of each column family gives.
func allRead(t *testing.T, s *scan.Store, got scan.CheckCounts) {
	t.Helper()
	count := func(cf string) (n uint64) {
		err := s.RawScan(context.Background(), scan.RawScanOptions{CF: cf, Lower: []byte{'z'}}, func(*scan.RawRecord) error { n++; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if w, v, l := count(scan.CFWrite), count(scan.CFDefault), count(scan.CFLock); w != got.Writes || v != got.Values || l != got.Locks {
		t.Errorf("%s: %+v; there are %d write records, %d values, %d locks", s.Layout.Dir, got, w, v, l)
	}
	if got.Regions != len(s.Regions) || got.Regions == 0 {
		t.Errorf("%+v of %d regions", got, len(s.Regions))
	}
}
