package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/tests/many"
)

// manyFiles measures what a store of very many tables costs that need not be read.
func (b *runner) manyFiles(s shape, scale float64) error {
	small, rounds, err := b.generate(s, scale)
	if err != nil {
		return err
	}
	dir := small + ".linked"
	if _, err := os.Stat(filepath.Join(dir, "db", "CURRENT")); err != nil {
		if err := clone(small, dir); err != nil {
			return err
		}
		oldest, err := strconv.ParseUint(rounds[s.versions-1], 10, 64)
		if err != nil {
			return err
		}
		if err := many.Link(base.NewOS(), dir, mvcc.TS(oldest), manyTables); err != nil {
			return err
		}
	}
	fmt.Printf("%s: %s\n", s.name, s.what)
	line := func(name string, u usage, more string) {
		fmt.Printf("  %-14s %7.3f s (%6.3f)  rss %4d MB  %s\n", name, u.wall, u.cpu, u.rss>>20, more)
	}
	for range 2 { // the first one may find the directory's entries on the disk
		u, err := run(b.ours, "inspect", "--json", "--progress=none", dir)
		if err != nil {
			return err
		}
		line("inspect", u, "")
	}
	work := filepath.Join(b.dir, "work")
	defer os.RemoveAll(work)
	for _, n := range s.above {
		if err := clone(dir, work); err != nil {
			return err
		}
		t := rounds[len(rounds)-1-n]
		u, err := run(b.ours, "reset", "--to-ts", t, "--safe-point", "1", "--yes", "--json", "--progress=none", work)
		if err != nil {
			return err
		}
		var r ourResult
		if err := json.Unmarshal([]byte(u.out), &r); err != nil {
			return err
		}
		line(fmt.Sprintf("reset, %d above", n), u, fmt.Sprintf("%s, %.3f s without opening, %d versions removed, %d tables rewritten", r.State, r.Seconds, r.Removed, r.Rewritten))
	}
	fmt.Println()
	return nil
}
