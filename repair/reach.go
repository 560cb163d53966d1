package repair

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// Reach asks for one region's replica to be brought to an index of its log, as a follower would get there.
type Reach struct {
	Region uint64
	// To is the last index to apply; 0 is the last one that any of the logs knows to be committed.
	To uint64
	// Sources are the logs of other replicas. One of them is used, where the own log does not go as far.
	Sources []EntrySource
}

// BringTo applies the entries (applied, To] of one region to the view of an opened store, with the apply state that belongs to them, and
// puts into b what the raft log needs for that: missing entries, the right ones in place of own ones that were never committed, and the
// hard state. The caller makes both durable in one edit, the raft store first: a server that starts between the two is a follower that
// has received entries and has not applied them.
//
// Nothing is changed when nothing can be applied; the problems say why. A region that stops on the way is at the index that the result
// names. Problems: plan.TailStops, plan.NeedsSnapshot (the other log begins too late), plan.LogConflict (two replicas committed
// different entries), plan.NotCommitted (To is beyond what is known to be committed), plan.RegionStart.
func BringTo(s *scan.Store, b *raftlog.Batch, g Reach) (TailApplied, []plan.Problem, error) {
	for _, r := range s.Regions {
		if r.ID != g.Region || !r.Live() {
			continue
		}
		rp, _, err := planRegion(s, r, mvcc.MaxTS)
		if err != nil {
			return TailApplied{}, nil, err
		}
		return bringTo(s, b, &rp, g)
	}
	return TailApplied{}, nil, &base.Error{Class: base.ErrPlanMismatch, Op: "bring a region to an index", Path: s.Layout.Dir, Offset: -1, Region: g.Region,
		Reason: "there is no live replica of it on this store", Next: "tikv-repair region " + s.Layout.Dir}
}

// logView is the log that a replica has, or would have as a follower of another: own entries up to match, behind them those of src.
type logView struct {
	s      *scan.Store
	region uint64
	src    EntrySource // nil: own entries only
	match  uint64
	last   uint64
	terms  map[uint64]uint64 // of (applied, last]
	// planned: a plan decides what the admin entries do. The versions of the region after those that it carries out are here, by index;
	// all others are passed over. nil: they stop whoever applies the log.
	planned map[uint64]uint64
}

func ownLog(s *scan.Store, region uint64) logView { return logView{s: s, region: region} }

func (v logView) entries(from, to uint64, fn func(raftstate.Entry) error) error {
	if v.src == nil {
		return v.s.Raft.Entries(v.region, from, to, fn)
	}
	if from <= v.match {
		if err := v.s.Raft.Entries(v.region, from, min(to, v.match+1), fn); err != nil {
			return err
		}
	}
	if to <= v.match+1 {
		return nil
	}
	return v.src.Entries(v.region, max(from, v.match+1), to, fn)
}

// importFile finds the file of an ingest command: TiKV would have it in its own import/; a leader's copy is the same file.
func (v logView) importFile(uuid []byte) (fs base.FS, path, absent string) {
	path, absent = importFile(v.s, uuid)
	if absent == "" || v.src == nil {
		return v.s.FS, path, absent
	}
	if fs, p, no := v.src.ImportFile(uuid); no == "" {
		return fs, p, ""
	}
	return v.s.FS, path, absent
}

// known is what a log holds of one entry.
type known struct {
	term uint64
	data [sha256.Size]byte
	have bool // the entry itself is there
}

func (k known) same(o known) bool {
	return k.term == o.term && (!k.have || !o.have || k.data == o.data)
}

// knownEntries reads the entries of [from, to] and adds what is known of entries that are gone.
func knownEntries(walk func(from, to uint64, fn func(raftstate.Entry) error) error, from, to uint64, also []EntryID) (map[uint64]known, error) {
	m := map[uint64]known{}
	for _, id := range also {
		if id.Index >= from && id.Index <= to {
			m[id.Index] = known{term: id.Term}
		}
	}
	if from > to || to == ^uint64(0) {
		return m, nil
	}
	return m, walk(from, to+1, func(e raftstate.Entry) error {
		// A replica may keep other bytes around the command; the command itself is what is applied.
		h := sha256.New()
		fmt.Fprintf(h, "%d ", e.Type)
		h.Write(e.Data)
		k := known{term: e.Term, have: true}
		h.Sum(k.data[:0])
		m[e.Index] = k
		return nil
	})
}

// reach is one attempt to bring a region forward.
type reach struct {
	s     *scan.Store
	rp    *regionPlan
	g     Reach
	own   map[uint64]known // of [floor, last]
	floor uint64           // last index at which the own log is known to be right
	known []EntryID        // committed, whoever knows it

	problems []plan.Problem
}

func bringTo(s *scan.Store, b *raftlog.Batch, rp *regionPlan, g Reach) (TailApplied, []plan.Problem, error) {
	c := &reach{s: s, rp: rp, g: g}
	log, t, err := c.choose()
	if err != nil || t.To == t.From {
		return t, c.problems, err
	}
	if log.src != nil && t.To > log.match {
		t.Source = log.src.Name()
		if err := c.extend(b, log, &t); err != nil {
			return t, c.problems, err
		}
	}
	if _, err = applyLog(s, rp, log, t.To); err != nil {
		return t, c.problems, err
	}
	terms := &raftlog.Terms{Store: s.Raft, Region: g.Region}
	c.problems = append(c.problems, startProblems(raftstate.StartInput{StoreID: s.Ident.StoreID, Region: rp.region.State, Raft: rp.raft, Apply: rp.region.Apply,
		EntryTerm: func(index uint64) (uint64, bool) {
			if t.Appended == 0 || index <= log.match {
				return terms.Term(index)
			}
			return log.terms[index], index <= t.To
		}})...)
	return t, c.problems, terms.Err
}

// choose finds the log that leads furthest, the own one if it does not have to grow.
func (c *reach) choose() (logView, TailApplied, error) {
	s, d, id := c.s, c.rp.derived, c.rp.region.ID
	best := logView{}
	t := TailApplied{Region: id, From: d.Applied, To: d.Applied, Limit: d.Applied}
	what := ""
	if st := c.rp.region.State.State; st != raftstate.Normal && st != raftstate.Merging {
		what = st.String()
	}
	if p, ok := c.rp.region.State.Region.PeerOn(s.Ident.StoreID); ok && p.IsWitness {
		what = "a witness, which holds no data"
	}
	if what != "" {
		if limit := max(c.g.To, d.Last); limit > d.Applied {
			c.problems = append(c.problems, &plan.TailStops{Store: s.Ident.StoreID, Region: id, Index: d.Applied + 1, Limit: limit, Reason: "the replica is " + what})
		}
		return best, t, nil
	}
	var err error
	if c.known, err = committedPoints(s.Raft, id, c.rp.raft, c.rp.region.Apply); err != nil {
		return best, t, err
	}
	c.floor = min(d.Applied, d.Last)
	own := ownLog(s, id)
	if c.own, err = knownEntries(own.entries, c.floor, d.Last, append([]EntryID{EntryID(d.Truncated)}, c.known...)); err != nil {
		return best, t, err
	}
	own.last, own.terms = d.Last, map[uint64]uint64{}
	for i, k := range c.own {
		own.terms[i] = k.term
	}
	logs, alone, err := c.candidates(own)
	if err != nil {
		return best, t, err
	}
	for i, log := range logs {
		committed := c.committed(log)
		if alone {
			committed = d.Last
		}
		limit := committed
		if c.g.To != 0 {
			limit = c.g.To
		}
		overruled := limit > committed && c.refuted(log)
		if overruled {
			limit = committed
		}
		if limit <= t.To && i > 0 {
			continue
		}
		// The first pass only looks: what is applied in the end comes from one log.
		got, _, err := readCommands(s, c.rp.region, log, d.Applied, max(limit, d.Applied), nil)
		if err != nil {
			return best, t, err
		}
		if overruled && got.Stopped == nil && got.To < c.g.To {
			got.Stopped, got.Limit = &TailStop{Index: got.To + 1, Reason: "from here another replica knows a different entry to be committed"}, c.g.To
		}
		if i > 0 && got.To <= t.To {
			if got.To == t.To && got.Stopped != nil && t.Stopped == nil {
				t.Stopped, t.Limit = got.Stopped, got.Limit // further on lies what neither gets past
			}
			continue
		}
		got.Committed = max(min(committed, got.To), d.Applied)
		best, t = log, got
	}
	c.explain(t)
	return best, t, nil
}

// explain turns what stands in the way into problems.
func (c *reach) explain(t TailApplied) {
	store, id := c.s.Ident.StoreID, c.rp.region.ID
	if t.To > max(t.Committed, t.From) {
		c.problems = append(c.problems, &plan.NotCommitted{Store: store, Region: id, Committed: t.Committed, To: t.To})
	}
	for _, p := range c.problems {
		if _, ok := p.(*plan.NeedsSnapshot); ok && t.Stopped != nil && t.Stopped.Index > c.rp.derived.Last {
			return // that is the reason for the missing entry
		}
	}
	if t.Stopped != nil {
		c.problems = append(c.problems, &plan.TailStops{Store: store, Region: id, Index: t.Stopped.Index, Limit: t.Limit, Reason: t.Stopped.Reason})
	}
}

// refuted tells whether an entry that is known to be committed is another one in this log.
func (c *reach) refuted(log logView) bool {
	return slices.ContainsFunc(c.known, func(id EntryID) bool {
		term, ok := log.terms[id.Index]
		return ok && term != id.Term
	})
}

// committed is the last entry of a log that is known to be committed.
func (c *reach) committed(log logView) uint64 {
	out := uint64(0)
	for _, id := range c.known {
		if term, ok := log.terms[id.Index]; ok && term == id.Term && id.Index <= log.last {
			out = max(out, id.Index)
		}
	}
	return out
}

// candidates are the own log, and with each source the log that a follower of it would have. alone tells that every entry of the own log
// counts as committed, because the only peer is here and no other replica is known.
func (c *reach) candidates(own logView) (logs []logView, alone bool, err error) {
	d := c.rp.derived
	logs, alone = []logView{own}, onlyPeerHere(c.s, c.rp.region)
	reachable := uint64(0)
	type late struct {
		name             string
		first, committed uint64
	}
	var tooLate []late
	for _, src := range c.g.Sources {
		sl, absent, err := src.Log(c.rp.region.ID)
		if err != nil {
			return nil, false, err
		}
		if absent != "" {
			continue
		}
		alone = false
		theirs, err := knownEntries(func(from, to uint64, fn func(raftstate.Entry) error) error {
			return src.Entries(c.rp.region.ID, from, to, fn)
		},
			max(c.floor, sl.Before.Index+1), sl.Last, nil)
		if err != nil {
			return nil, false, err
		}
		for _, id := range append([]EntryID{sl.Before}, sl.Committed...) {
			if _, ok := theirs[id.Index]; !ok {
				theirs[id.Index] = known{term: id.Term}
			}
		}
		committed := uint64(0)
		for _, id := range sl.Committed {
			committed = max(committed, id.Index)
		}
		if at, ok := c.contradiction(theirs, committed); ok {
			c.problems = append(c.problems, &plan.LogConflict{Store: c.s.Ident.StoreID, Region: c.rp.region.ID, Source: src.Name(), Index: at})
			continue
		}
		c.known = append(c.known, sl.Committed...)
		match, ok := c.match(theirs, min(d.Last, sl.Last))
		if !ok {
			if committed > d.Applied {
				tooLate = append(tooLate, late{src.Name(), sl.Before.Index + 1, committed})
			}
			continue
		}
		if sl.Last <= match {
			continue // it holds no entry that is not here
		}
		log := logView{s: c.s, region: c.rp.region.ID, src: src, match: match, last: sl.Last, terms: map[uint64]uint64{}}
		for i, k := range c.own {
			if i <= match {
				log.terms[i] = k.term
			}
		}
		for i, k := range theirs {
			if i > match {
				log.terms[i] = k.term
			}
		}
		reachable = max(reachable, committed)
		logs = append(logs, log)
	}
	reachable = max(reachable, c.committed(own))
	for _, l := range tooLate {
		goal := l.committed
		if c.g.To != 0 {
			goal = min(goal, c.g.To)
		}
		if goal > reachable {
			c.problems = append(c.problems, &plan.NeedsSnapshot{Store: c.s.Ident.StoreID, Region: c.rp.region.ID, Source: l.name, First: l.first, Last: d.Last,
				Applied: d.Applied, Committed: l.committed})
		}
	}
	return logs, alone, nil
}

// match is the last entry that both logs hold; all own ones before it are the other's too.
func (c *reach) match(theirs map[uint64]known, to uint64) (uint64, bool) {
	for i := to; i >= c.floor && i != ^uint64(0); i-- {
		a, okA := c.own[i]
		b, okB := theirs[i]
		if okA && okB && a.term == b.term {
			return i, true
		}
	}
	return 0, false
}

// contradiction finds an entry that both replicas know to be committed and that is not the same. Raft excludes that: one of the stores has
// been changed by a tool, or is of another history.
func (c *reach) contradiction(theirs map[uint64]known, committed uint64) (uint64, bool) {
	// Whatever lies below an entry that both hold with one term must be the same, committed or not.
	to := min(committed, c.rp.derived.Committed)
	if m, ok := c.match(theirs, c.rp.derived.Last); ok {
		to = max(to, m)
	}
	for i := c.floor; i <= to; i++ {
		a, okA := c.own[i]
		b, okB := theirs[i]
		if okA && okB && !a.same(b) {
			return i, true
		}
	}
	return 0, false
}

// extend adds to b what makes the raft log that of log up to t.To: a follower that receives these entries truncates its own at the first
// one that differs, appends, and takes over the term of what it has received; the vote of another term is void.
func (c *reach) extend(b *raftlog.Batch, log logView, t *TailApplied) error {
	id, d := c.rp.region.ID, c.rp.derived
	var list []raftstate.Entry
	err := log.src.Entries(id, log.match+1, t.To+1, func(e raftstate.Entry) error {
		copied, err := raftstate.ParseEntry(bytes.Clone(e.Raw))
		list = append(list, copied)
		return err
	})
	if err != nil {
		return err
	}
	if _, last, ok, err := c.s.Raft.Bounds(id); err != nil {
		return err
	} else if ok && last < log.match {
		// Only dead entries are there: the log ends with a snapshot, and goes on behind it.
		if log.match != d.Truncated.Index {
			return &base.Error{Class: base.ErrCorrupt, Op: "append to the raft log", Path: c.s.Layout.RaftDir, Offset: -1, Region: id,
				Reason: fmt.Sprintf("it ends with entry %d, but should hold %d", last, log.match)}
		}
		b.Clean(id)
	}
	if err := b.Entries(id, list); err != nil {
		return err
	}
	old := raftstate.InitialRaftState()
	if c.rp.raft != nil {
		old = *c.rp.raft
	}
	h := old.HardState
	if term := list[len(list)-1].Term; term > h.Term {
		h.Term, h.Vote = term, 0
	}
	h.Commit = max(h.Commit, t.To)
	next, err := old.With(h, t.To)
	if err != nil {
		return err
	}
	if err := b.PutState(id, next); err != nil {
		return err
	}
	t.Appended = uint64(len(list))
	if d.Last > log.match {
		t.Replaced = d.Last - log.match
	}
	c.rp.raft = &next
	return nil
}

// applyLog puts the entries (applied, limit] of a log on top of the store's view, with the apply state that belongs to it: both become
// durable in the same edit.
func applyLog(s *scan.Store, rp *regionPlan, log logView, limit uint64) (TailApplied, error) {
	r := rp.region
	ov := s.DB.NewOverlay()
	defer ov.Close()
	t, term, err := readCommands(s, r, log, rp.derived.Applied, limit, func(rec tailRecord) error {
		return ov.Add(rec.cf, rec.kind, rec.user, rec.rest)
	})
	if err != nil || t.To == t.From {
		return t, err
	}
	state := raftstate.RaftApplyState{}
	if r.Apply != nil {
		state = *r.Apply
	}
	raw := state.WithApplied(t.To, t.To, term)
	if raw == nil {
		return t, &base.Error{Class: base.ErrCorrupt, Op: "move the applied index", Path: s.Layout.KVDir, Offset: -1, CF: scan.CFRaft, Region: r.ID,
			Reason: "its apply state does not decode strictly"}
	}
	if err := ov.Add(scan.CFRaft, ikey.KindPut, raftstate.ApplyStateKey(r.ID), raw); err != nil {
		return t, err
	}
	now, err := raftstate.ParseRaftApplyState(raw)
	if err != nil {
		return t, err
	}
	rp.region.Apply = &now
	rp.derived = raftstate.Derive(rp.raft, &now)
	return t, nil
}
