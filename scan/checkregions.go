package scan

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// regions reads the region states, and looks at their ranges.
func (c *checker) regions(context.Context) error {
	s := c.s
	if s.DB == nil {
		return nil
	}
	c.regionsRead = c.loadRegions()
	c.res.Counts.Regions = len(s.Regions)
	c.nameRegions()
	if !c.regionsRead {
		c.skip("gaps between regions, data outside regions, MVCC invariants: not all region states are known")
	}
	for _, r := range s.Regions {
		if !r.Live() {
			continue
		}
		if r.State.State != raftstate.Normal {
			c.add(&plan.RegionTransition{Store: c.store(), Region: r.ID, State: r.State.State.String()})
		}
		if r.State.Region.IsInFlashback {
			c.add(&plan.RegionTransition{Store: c.store(), Region: r.ID, State: "Flashback"})
		}
	}
	c.ranges()
	return nil
}

// alone tells whether no live region has a peer on another store: then the regions of this store must cover everything.
func (c *checker) alone() bool {
	for _, r := range c.s.Regions {
		for _, p := range r.State.Region.Peers {
			if r.Live() && p.StoreID != c.s.Ident.StoreID {
				return false
			}
		}
	}
	return true
}

// ranges looks for overlaps, which are wrong on any store, and for gaps on the only one.
//
// Invariant of a sound store: sorted by start key, each live region ends at or before the start of the next; on the only store
// it ends exactly there, the first starts at "" and the last ends at "".
func (c *checker) ranges() {
	live := c.s.liveByStart()
	if len(live) == 0 {
		return
	}
	gaps := c.regionsRead && c.ident && !c.o.Joined && c.alone()
	gap := func(start, end []byte, after, before uint64) {
		if gaps {
			c.add(&plan.RegionGap{Store: c.store(), Start: upperHex(start), End: upperHex(end), After: after, Before: before})
		}
	}
	if first := live[0].State.Region; len(first.StartKey) > 0 {
		gap(nil, first.StartKey, 0, first.ID)
	}
	widest := live[0] // the region that reaches furthest so far
	for _, r := range live[1:] {
		end, start := widest.State.Region.EndKey, r.State.Region.StartKey
		switch {
		case len(end) == 0 || bytes.Compare(start, end) < 0:
			c.overlap(widest, r)
		case bytes.Compare(start, end) > 0:
			gap(end, start, widest.ID, r.ID)
		}
		if e := r.State.Region.EndKey; len(end) > 0 && (len(e) == 0 || bytes.Compare(e, end) > 0) {
			widest = r
		}
	}
	if end := widest.State.Region.EndKey; len(end) > 0 {
		gap(end, nil, widest.ID, 0)
	}
}

func (c *checker) overlap(a, b Region) {
	x, y := a.State.Region, b.State.Region
	end := x.EndKey
	if len(end) == 0 || len(y.EndKey) > 0 && bytes.Compare(y.EndKey, end) < 0 {
		end = y.EndKey
	}
	c.add(&plan.RegionOverlap{Store: c.store(), Region: b.ID, Other: a.ID, Start: upperHex(y.StartKey), End: upperHex(end),
		Version: y.Epoch.Version, Against: x.Epoch.Version})
}

// checkSpan is a part of the data key space with one way to look at it.
type checkSpan struct {
	span
	live bool // false: no region of this store holds it
}

// spansOf cuts ['z', 'z'+1) into what live regions hold and what none holds. Left out are regions whose data is undefined or absent, which
// are given as well.
func spansOf(live []Region) (out []checkSpan, absent []Region) {
	var held []span
	at := []byte{'z'}
	outside := func(upTo []byte) {
		if bytes.Compare(at, upTo) < 0 {
			out = append(out, checkSpan{span: span{at, upTo}})
		}
	}
	for _, r := range live {
		lower, upper := r.Bounds()
		outside(lower)
		at = most(at, upper)
		if st := r.State.State; st == raftstate.Applying || st == raftstate.Unavailable {
			absent = append(absent, r)
			continue
		}
		if n := len(held); n > 0 && bytes.Compare(lower, held[n-1].upper) <= 0 {
			held[n-1].upper = most(held[n-1].upper, upper)
		} else {
			held = append(held, span{lower, upper})
		}
	}
	outside([]byte{'z' + 1})
	for _, l := range held {
		out = append(out, checkSpan{span: l, live: true})
	}
	return out, absent
}

// left is what is still to be looked at: all spans but those that were joined when the tables were read, and no damage has come to
// light in them since. What those have found becomes a part of the result.
func (c *checker) left(mode RawMode) []checkSpan {
	spans, absent := spansOf(c.s.liveByStart())
	for _, r := range absent {
		c.skip("MVCC invariants in region " + fmt.Sprint(r.ID) + ": its data is not complete (" + r.State.State.String() + ")")
	}
	same := func(a, b checkSpan) bool {
		return a.live == b.live && bytes.Equal(a.lower, b.lower) && bytes.Equal(a.upper, b.upper)
	}
	if c.joined == nil || c.joined.mode != mode || !slices.EqualFunc(spans, c.joined.spans, same) {
		return c.sound(spans)
	}
	var rest []checkSpan
	for _, w := range c.joined.shards {
		if w.again != nil || w.meets(c.bad) {
			rest = append(rest, w.parts...)
		} else {
			w.commit()
		}
	}
	return c.sound(rest)
}

// sound takes the key ranges of damaged tables out of spans.
func (c *checker) sound(spans []checkSpan) []checkSpan {
	if len(c.bad) > 0 {
		c.skip("MVCC invariants of the keys in damaged files")
	}
	for _, b := range c.bad {
		var next []checkSpan
		for _, s := range spans {
			if bytes.Compare(b.upper, s.lower) <= 0 || bytes.Compare(b.lower, s.upper) >= 0 {
				next = append(next, s)
				continue
			}
			for _, cut := range []span{{s.lower, b.lower}, {b.upper, s.upper}} {
				if bytes.Compare(cut.lower, cut.upper) < 0 && bytes.Compare(cut.lower, s.lower) >= 0 && bytes.Compare(cut.upper, s.upper) <= 0 {
					next = append(next, checkSpan{cut, s.live})
				}
			}
		}
		spans = next
	}
	return spans
}

// startRules tests whether a starting TiKV takes a region, and reports each kind of consequence once.
func (c *checker) startRules(r Region, raft *raftstate.RaftLocalState) error {
	vs, err := c.s.StartCheck(r, raft)
	if err != nil {
		if isInterrupted(err) {
			return err
		}
		c.fail("raft log", err)
	}
	seen := map[raftstate.Consequence]bool{}
	for _, v := range vs {
		// Rules 6 and 11 are one inequality in two layers; one finding says enough.
		if seen[v.Consequence] && v.Consequence != raftstate.StopsStart {
			continue
		}
		seen[v.Consequence] = true
		if v.Consequence == raftstate.StopsStart {
			c.add(&plan.RegionStart{Store: c.store(), Region: r.ID, Reason: v.Error()})
			continue
		}
		c.add(&plan.RegionStartLine{Store: c.store(), Region: r.ID, Rule: int(v.Rule), Lines: v.Lines, Reason: v.Message, Newer: c.newerLine()})
	}
	return nil
}

// newerLine tells whether a release behind all old lines wrote the store.
func (c *checker) newerLine() bool { return c.s.Line().Dialect == "8.10" }
