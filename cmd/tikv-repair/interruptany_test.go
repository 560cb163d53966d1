package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// Whatever a verb does when Ctrl-C comes, it ends with status 130 or has done all that it was to do, and it concludes nothing from what it
// could not read any more: what is on standard output is what an uninterrupted run prints, or its beginning, or nothing. tests/crash looks
// at what is left on the disk.
func TestInterruptedAnywhere(t *testing.T) {
	points := int64(6)
	if testing.Short() {
		points = 2
	}
	for _, story := range lifeStories(t) {
		mem := fixtures.CrashMem(t, story.fixture, story.with...)
		for _, line := range story.commands {
			args := append(strings.Fields(line)[1:], "--progress=none", "--threads=1")
			run := func(mem *vfs.MemFS, k int64) (status int, stdout, stderr string, ops int64) {
				var n atomic.Int64
				var out, errs bytes.Buffer
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				e := memEnv(mem, &out, &errs)
				e.fs = base.NewPulse(e.now, func() error {
					if n.Add(1) == k {
						cancel()
					}
					return nil
				}).Watch(e.fs)
				status = newApp(e).run(ctx, args)
				return status, out.String(), errs.String(), n.Load()
			}
			_, want, _, ops := run(clone(mem), 0)
			interrupted := 0
			for k := int64(1); k <= ops; k += max(1, ops/points) {
				live := clone(mem)
				status, out, errs, _ := run(live, k)
				switch {
				case status == exitInterrupted:
					interrupted++
					if !strings.Contains(errs, "interrupted") {
						t.Errorf("%s, Ctrl-C at operation %d: it says %q", line, k, errs)
					}
					if !strings.HasPrefix(want, out) {
						t.Errorf("%s, Ctrl-C at operation %d: it prints what no whole run does: %.300q", line, k, out)
					}
				case status != 0 || !sameButTimes(out, want):
					t.Errorf("%s, Ctrl-C at operation %d: exit status %d\n%s%s", line, k, status, out, errs)
				}
				if names, err := live.List("/tmp"); err == nil && len(names) > 0 {
					t.Errorf("%s, Ctrl-C at operation %d: left in /tmp: %v", line, k, names)
				}
			}
			if interrupted == 0 {
				t.Errorf("%s: never interrupted in %d operations", line, ops)
			}
			if status, _, errs, _ := run(mem, 0); fmt.Sprint(status) != line[:1] {
				t.Fatalf("%s: exit status %d\n%s", line, status, errs)
			}
		}
	}
}

// clone copies everything, synced or not.
func clone(mem *vfs.MemFS) *vfs.MemFS {
	return mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
}

// sameButTimes compares two outputs without what takes time.
func sameButTimes(a, b string) bool {
	cut := func(s string) string {
		var out []string
		for _, l := range strings.Split(s, "\n") {
			if !strings.Contains(l, " s") {
				out = append(out, l)
			}
		}
		return strings.Join(out, "\n")
	}
	return cut(a) == cut(b)
}
