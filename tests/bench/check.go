package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/scan"
)

// checks compares reading a store with what it costs at least:
//
//	open   opening the store, which replays its logs: a part of all that follow
//	pure   the data blocks of all tables: read in large pieces, checksum, decompression, nothing else
//	sums   check --checksums
//	check  check: order of the records, boundaries, properties, MVCC invariants, raft logs, start rules as well
//
// The numbers of the best of some runs count; the rates of the first two are those of their own clocks, without opening the store.
func (b *runner) checks(dir string, size int64) error {
	const runs = 5
	type side struct {
		name   string
		run    func() (usage, error)
		rate   func(out string) (scan.Verified, error)
		best   usage
		inside scan.Verified // the fastest
	}
	sides := []*side{
		{name: "open", run: func() (usage, error) { return run(b.self, "-verify", dir, "-open") }},
		{name: "pure", run: func() (usage, error) { return run(b.self, "-verify", dir) }, rate: func(out string) (v scan.Verified, err error) {
			return v, json.Unmarshal([]byte(out), &v)
		}},
		{name: "sums", run: func() (usage, error) { return run(b.ours, "check", "--checksums", "--json", "--progress=none", dir) }, rate: verifiedOf},
		{name: "check", run: func() (usage, error) { return run(b.ours, "check", "--json", "--progress=none", dir) }},
	}
	for i := range runs {
		for _, s := range sides {
			u, err := s.run()
			if err != nil {
				return err
			}
			if i == 0 || u.cpu < s.best.cpu {
				s.best.cpu = u.cpu
			}
			if i == 0 || u.wall < s.best.wall {
				s.best.wall = u.wall
			}
			s.best.rss = max(s.best.rss, u.rss)
			if s.rate == nil {
				continue
			}
			v, err := s.rate(u.out)
			if err != nil {
				return err
			}
			if i == 0 || v.Seconds < s.inside.Seconds {
				s.inside = v
			}
		}
	}
	for _, s := range sides {
		more := ""
		if s.rate != nil {
			more = fmt.Sprintf("reading itself: %.0f MB/s", rateOf(s.inside))
		}
		rate := fmt.Sprintf("%7.0f MB/s", float64(size)/1e6/s.best.wall)
		if s.name == "open" {
			rate = strings.Repeat(" ", len(rate))
		}
		fmt.Printf("  %-6s %7.2f s (%6.2f)  %s  rss %4d MB  %s\n", s.name, s.best.wall, s.best.cpu, rate, s.best.rss>>20, more)
	}
	open, pure, sums, check := sides[0], sides[1], sides[2], sides[3]
	net := func(s *side) float64 { return max(s.best.cpu-open.best.cpu, 1e-3) }
	fmt.Printf("  checksums at %.0f%% of the pure rate by the clock, at %.0f%% by the processor without opening\n",
		100*rateOf(sums.inside)/rateOf(pure.inside), 100*net(pure)/net(sums))
	fmt.Printf("  the whole check takes %.1f times the pure processor time, %.1f times without opening\n", check.best.cpu/pure.best.cpu, net(check)/net(pure))
	return nil
}

func rateOf(v scan.Verified) float64 { return float64(v.Bytes) / 1e6 / max(v.Seconds, 1e-9) }

func verifiedOf(out string) (v scan.Verified, err error) {
	var r struct {
		Stores []struct {
			Checksums *scan.Verified `json:"checksums"`
		} `json:"stores"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return v, err
	}
	if len(r.Stores) != 1 || r.Stores[0].Checksums == nil {
		return v, fmt.Errorf("no rate in %s", out)
	}
	return *r.Stores[0].Checksums, nil
}
