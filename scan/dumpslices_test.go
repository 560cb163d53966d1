package scan_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// dumped is everything that a dump gives.
func dumped(t *testing.T, v *scan.View, o scan.DumpOptions) (text string, res scan.DumpResult) {
	t.Helper()
	var out bytes.Buffer
	var bad []string
	o.Bad = func(err error) { bad = append(bad, err.Error()) }
	o.Meter = new(scan.Meter)
	res, err := v.Dump(context.Background(), &out, o)
	if err != nil {
		bad = append(bad, err.Error())
	}
	if d, n := o.Meter.Done.Load(), o.Meter.Total.Load(); d != n {
		t.Errorf("the meter ends with %d of %d bytes", d, n)
	}
	return out.String() + strings.Join(bad, "\n"), res
}

// However many threads dump however small slices, the output is the same, and that of rows which cannot be read as well.
func TestDumpInSlices(t *testing.T) {
	for _, name := range []string{"single-levels", "single-lz4-ranges", "single-default", "single-titan", "raw-v2", "raw-v1"} {
		t.Run(name, func(t *testing.T) {
			p := admit(t, name)
			if name == "single-titan" {
				i := 0
				for _, path := range p.files(p.path("db", "titandb"), ".blob") {
					if i++; i == 2 {
						p.must(p.fs.Remove(path))
					}
				}
			}
			p.look(func(s *scan.Store) {
				for _, ts := range []mvcc.TS{mvcc.TS(fixtures.Facts(t, name).T2), mvcc.MaxTS, 1} {
					v, err := s.NewView(ts)
					p.must(err)
					for _, o := range []scan.DumpOptions{{T: ts, Format: scan.TSV}, {T: ts, Format: scan.JSONL}, {T: ts, Format: scan.TSV, Lower: []byte("t\x80"), Upper: []byte("t\x80\x00\x00\x00\x00\x00\x00\x60")}} {
						o.Threads = 1
						want, res := dumped(t, v, o)
						back := scan.SliceSize(1)
						for _, o.Threads = range []int{1, 2, 5} {
							got, res2 := dumped(t, v, o)
							if got != want || res2 != res {
								t.Errorf("at %d, %d threads: %d bytes, %+v; in one slice %d, %+v", ts, o.Threads, len(got), res2, len(want), res)
							}
						}
						back()
					}
				}
			})
		})
	}
}

// failing is an output that takes some bytes only.
type failing struct{ left int }

var errFull = errors.New("no space left on the output")

func (f *failing) Write(b []byte) (int, error) {
	if f.left -= len(b); f.left < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// An output that fails, or an interruption, ends all threads.
func TestDumpEndsEarly(t *testing.T) {
	defer scan.SliceSize(1)()
	p := admit(t, "single-levels")
	p.look(func(s *scan.Store) {
		v, err := s.NewView(mvcc.MaxTS)
		p.must(err)
		if _, err := v.Dump(context.Background(), &failing{1000}, scan.DumpOptions{Format: scan.TSV, Threads: 3}); !errors.Is(err, errFull) || !errors.Is(err, base.ErrIO) {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := v.Dump(ctx, &bytes.Buffer{}, scan.DumpOptions{Format: scan.TSV, Threads: 3}); !errors.Is(err, base.ErrInterrupted) {
			t.Errorf("%v", err)
		}
	})
}
