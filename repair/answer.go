package repair

import (
	"context"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// answers writes one line for each question that this store is asked.
func (c *collector) answers(ctx context.Context) error {
	ev, err := c.s.Evidence()
	if err != nil {
		return err
	}
	defer ev.Close()
	ph := base.Begin(c.s.FS, "answering the plan").Items(len(c.o.Questions), "questions")
	defer ph.End()
	for _, q := range c.o.Questions {
		if err := step(ctx, ph); err != nil {
			return err
		}
		if !slices.Contains(q.Stores, c.s.Ident.StoreID) {
			continue
		}
		a := &plan.Answer{StoreID: c.s.Ident.StoreID, Question: q.ID, PlanID: c.o.PlanID, Fingerprint: c.head.Fingerprint}
		switch q.Kind {
		case plan.AskKey:
			err = c.keyFacts(a, ev, q)
		case plan.AskEntries:
			err = c.entries(a, q)
		default:
			err = &base.Error{Class: base.ErrPlanMismatch, Op: "answer the plan", Path: c.s.Layout.Dir, Offset: -1,
				Reason: fmt.Sprintf("question %s is of the unknown kind %q: the plan is of a newer version", q.ID, q.Kind), Next: "use the version that made the plan"}
		}
		if err != nil {
			return err
		}
		c.end.Answers++
		if err := c.line(a); err != nil {
			return err
		}
	}
	return nil
}

// keyFacts says what this store knows of one transaction at one key: in the data, and in the entries that are not applied.
func (c *collector) keyFacts(a *plan.Answer, ev *scan.Evidence, q plan.Question) error {
	region, ok := ev.Region(q.Key)
	if !ok {
		return nil
	}
	a.Here, a.RegionID = true, region.ID
	commit, w, found, err := ev.WriteByStart(q.Key, q.StartTS)
	if err != nil {
		return err
	}
	if found {
		a.Facts = append(a.Facts, plan.KeyFact{Commit: &plan.CommitFact{CommitTS: commit, Type: string(rune(w.Type))}})
	}
	rolled, err := ev.RollbackAt(q.Key, q.StartTS)
	if err != nil {
		return err
	}
	if rolled {
		a.Facts = append(a.Facts, plan.KeyFact{Rollback: true})
	}
	locks, err := ev.LockOf(q.Key)
	if err != nil {
		return err
	}
	for _, l := range locks {
		if l.StartTS == q.StartTS {
			r := reportLock(c.s.Ident.StoreID, region.ID, 0, q.Key, l)
			a.Facts = append(a.Facts, plan.KeyFact{Lock: &r})
		}
	}
	return c.tailFacts(a, region, q)
}

// tailFacts adds what entries above applied would change.
func (c *collector) tailFacts(a *plan.Answer, r scan.Region, q plan.Question) error {
	raft, err := c.s.RaftStateOf(r.ID)
	if err != nil {
		return err
	}
	d := raftstate.Derive(raft, r.Apply)
	enc := mvcc.EncodeBytes(nil, q.Key)
	return c.s.Raft.Entries(r.ID, d.Applied+1, d.Last+1, func(e raftstate.Entry) error {
		cmd, err := raftstate.Decode(e)
		if err != nil {
			return nil // the entry is opaque in the report
		}
		for _, req := range cmd.Requests {
			if f, ok := c.factOf(req, enc, r.ID, e.Index, q); ok {
				a.Facts = append(a.Facts, f)
			}
		}
		return nil
	})
}

// factOf reads one request as a fact about a transaction at the key with this encoded form.
func (c *collector) factOf(req raftstate.Request, enc []byte, region, index uint64, q plan.Question) (plan.KeyFact, bool) {
	f := plan.KeyFact{Index: index}
	switch {
	case req.CF == scan.CFLock && slices.Equal(req.Key, enc):
		if req.Op == raftstate.OpDelete {
			f.Unlock = true
			return f, true
		}
		locks, _, err := mvcc.ParseLocks(req.Value)
		if err != nil || req.Op != raftstate.OpPut {
			return f, false
		}
		for _, l := range locks {
			if l.StartTS == q.StartTS {
				r := reportLock(c.s.Ident.StoreID, region, index, q.Key, l)
				f.Lock = &r
				return f, true
			}
		}
	case req.CF == scan.CFWrite && req.Op == raftstate.OpPut && len(req.Key) == len(enc)+8 && slices.Equal(req.Key[:len(enc)], enc):
		_, ts, ok := mvcc.SplitKey(append([]byte{mvcc.DataPrefix}, req.Key...))
		w, err := mvcc.ParseWrite(req.Value)
		switch {
		case !ok || err != nil:
		case w.Type == mvcc.WriteRollback && w.StartTS == q.StartTS, w.OverlappedRollback && ts == q.StartTS:
			f.Rollback = true
			return f, true
		case w.Type != mvcc.WriteRollback && w.StartTS == q.StartTS:
			f.Commit = &plan.CommitFact{CommitTS: ts, Type: string(rune(w.Type))}
			return f, true
		}
	}
	return f, false
}

// entries carries log entries out: all of (from, to], or none when the log does not hold them all.
func (c *collector) entries(a *plan.Answer, q plan.Question) error {
	a.RegionID = q.RegionID
	var out []plan.CarriedEntry
	next := q.From + 1
	err := c.s.Raft.Entries(q.RegionID, next, q.To+1, func(e raftstate.Entry) error {
		if e.Index == next {
			out = append(out, plan.CarriedEntry{Index: e.Index, Term: e.Term, Raw: slices.Clone(e.Raw)})
			next++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if next == q.To+1 {
		a.Here, a.Entries = true, out
	}
	return nil
}
