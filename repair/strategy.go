package repair

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// TailStrategy is how a rewind deals with the log entries of a region that are not applied (docs/formats/repair-semantics.md, 7.2).
type TailStrategy string

// The strategies. TailAuto is a wish only: it chooses for each region the one that loses least. TailLeft is an outcome only: the region has
// replicas on other stores, and is not touched.
const (
	TailAuto       TailStrategy = "auto"
	TailApply      TailStrategy = "apply"      // what the entries hold becomes data before the rewind looks at it
	TailKeep       TailStrategy = "keep"       // nothing in the tail can matter
	TailNeutralise TailStrategy = "neutralise" // the epoch is raised above every entry: TiKV applies each as a no-op
	TailDrop       TailStrategy = "drop"       // the log ends at the applied index
	TailLeft       TailStrategy = "left"
)

// TailStrategies are the wishes, the default first.
func TailStrategies() []TailStrategy {
	return []TailStrategy{TailAuto, TailApply, TailKeep, TailNeutralise, TailDrop}
}

// inert tells that TiKV would change neither data nor peers by applying the tail, and that it would not compare data either.
func (rp *regionPlan) inert() bool {
	return rp.tail.Entries == 0 && rp.derived.Last <= rp.derived.Applied || rp.dry.Stopped == nil && rp.dry.Records+rp.dry.Ranges == 0 && rp.dry.hashes == 0
}

// choose decides how the tail of a region is dealt with. An unsafe wish is a problem, and so is what the choice loses.
//
//	auto: nothing in it matters                    keep
//	      every entry can be applied               apply
//	      some can, up to entry i                  apply up to i, then as below for the rest
//	      each of the rest checks the epoch        neutralise
//	      one of them does not                     drop
func (rp *regionPlan) choose(s *scan.Store, want TailStrategy, t mvcc.TS) ([]plan.Problem, error) {
	unsafe := func(reason string) []plan.Problem {
		rp.strategy, rp.reason = want, reason
		return []plan.Problem{&plan.TailStrategyUnsafe{Store: s.Ident.StoreID, Region: rp.region.ID, Strategy: string(want), Reason: reason}}
	}
	rest := rp.tail
	rp.rest = &rest
	switch {
	case rp.shared:
		rp.strategy, rp.reason = TailLeft, "other stores hold replicas"
		if rp.inert() {
			return nil, nil
		}
		return rp.loss(s), nil
	case rp.inert():
		rp.strategy, rp.reason = TailKeep, "what waits changes neither data nor peers"
		if rp.derived.Last <= rp.derived.Applied {
			rp.reason = "nothing waits"
			return nil, nil
		}
		if want != TailDrop {
			return nil, nil
		}
	}
	canApply := rp.region.State.State == raftstate.Normal
	if want == TailKeep {
		return unsafe(fmt.Sprintf("TiKV would apply entries %d to %d when it starts, and bring data back", rp.derived.Applied+1, rp.derived.Last)), nil
	}
	if rp.dry.Stopped == nil && canApply && (want == TailAuto || want == TailApply) {
		rp.strategy, rp.reason = TailApply, "every entry can be applied"
		return nil, nil
	}
	if want == TailApply {
		reason := "the region is " + rp.region.State.State.String()
		if canApply {
			reason = fmt.Sprintf("entry %d cannot be applied offline: %s", rp.dry.Stopped.Index, rp.dry.Stopped.Reason)
		}
		return unsafe(reason), nil
	}
	why := "it was asked for"
	if want == TailAuto {
		why = "the region is " + rp.region.State.State.String()
		if canApply {
			why = fmt.Sprintf("entry %d: %s", rp.dry.Stopped.Index, rp.dry.Stopped.Reason)
		}
		if canApply && rp.dry.Records+rp.dry.Ranges > 0 {
			rp.first = rp.dry.To
			d := rp.derived
			d.Applied = rp.first
			var err error
			if rest, err = readTail(s, rp.region, d, t); err != nil {
				return nil, err
			}
		}
	}
	bar, err := rp.barrier(s)
	if err != nil {
		return nil, err
	}
	uncut, err := rp.uncut(s)
	if err != nil {
		return nil, err
	}
	switch {
	case want == TailDrop && uncut != "":
		return unsafe(uncut), nil
	case want == TailDrop:
		rp.strategy, rp.reason = TailDrop, why
	case bar == "":
		rp.strategy, rp.reason = TailNeutralise, why
	case want == TailNeutralise:
		return unsafe(bar), nil
	case uncut != "":
		// TiKV does not start with such a region: nothing of its tail is ever applied.
		rp.strategy, rp.reason = TailNeutralise, bar+"; "+uncut
	default:
		rp.strategy, rp.reason = TailDrop, bar
	}
	if rp.first > 0 {
		rp.reason += fmt.Sprintf("; what comes before it, up to %d, is applied", rp.first)
	}
	return rp.loss(s), nil
}

// loss is the problem that data at or below T goes with the tail, or may go.
func (rp *regionPlan) loss(s *scan.Store) []plan.Problem {
	c := rp.rest
	if !rp.shared && c.Lost+c.Opaque+c.Prewrites == 0 {
		return nil
	}
	return []plan.Problem{&plan.RaftTail{Store: s.Ident.StoreID, Region: rp.region.ID, Strategy: string(rp.strategy), Applied: max(rp.derived.Applied, rp.first), Commit: rp.derived.Committed, Last: rp.derived.Last,
		MinCommitTS: c.MinCommitTS, MaxCommitTS: c.MaxCommitTS, Versions: c.Lost, Opaque: c.Opaque, Keys: c.Keys}}
}

// barrier names an entry of the tail that a raised epoch does not make a no-op, or that TiKV does not survive whatever the epoch; "" when
// there is none.
func (rp *regionPlan) barrier(s *scan.Store) (string, error) {
	reason := ""
	next := max(rp.derived.Applied, rp.first) + 1
	log := ownLog(s, rp.region.ID)
	err := log.entries(next, rp.derived.Last+1, func(e raftstate.Entry) error {
		if e.Index != next {
			reason = fmt.Sprintf("entry %d is missing", next)
			return errStop
		}
		next++
		if what := barrierOf(e, rp.region.State.Region, log); what != "" {
			reason = fmt.Sprintf("entry %d: %s", e.Index, what)
			return errStop
		}
		return nil
	})
	if err == errStop {
		err = nil
	}
	if reason == "" && err == nil && next <= rp.derived.Last {
		reason = fmt.Sprintf("entry %d is missing", next)
	}
	return reason, err
}

func barrierOf(e raftstate.Entry, r raftstate.Region, log logView) string {
	cmd, err := raftstate.Decode(e)
	switch {
	case err != nil:
		return "it does not decode, and TiKV stops on it whatever its epoch"
	case cmd.Unknown || cmd.Admin != nil && cmd.Admin.Unknown || cmd.Kind == raftstate.CommandOther:
		return "whether the epoch is checked for it is not known"
	case cmd.Kind == raftstate.CommandConfChange && cmd.Admin == nil:
		return "a conf change without a command has no epoch"
	case cmd.Admin != nil && cmd.Admin.Type == raftstate.AdminCommitMerge && epochFits(cmd, r.Epoch):
		return "a merge waits for its source in a state that it would not find"
	case cmd.Admin != nil && cmd.Admin.Type.Checks() == raftstate.EpochCheck{}:
		switch cmd.Admin.Type {
		case raftstate.AdminTransferLeader, raftstate.AdminUpdateGcPeer:
			return "" // no effect
		case raftstate.AdminComputeHash, raftstate.AdminVerifyHash:
			return cmd.Admin.Type.String() + " is applied whatever its epoch, and would compare data that has changed"
		}
		return cmd.Admin.Type.String() + " is applied whatever its epoch"
	}
	for _, q := range cmd.Requests {
		if q.Op != raftstate.OpIngest || !epochFits(cmd, r.Epoch) {
			continue
		}
		if q.SST == nil {
			return "it ingests a file without a description"
		}
		if _, _, absent := log.importFile(q.SST.UUID); absent != "" {
			return absent
		}
	}
	return ""
}

// uncut says why the log cannot end at the applied index; "" when it can.
func (rp *regionPlan) uncut(s *scan.Store) (string, error) {
	at := max(rp.derived.Applied, rp.first)
	terms := &raftlog.Terms{Store: s.Raft, Region: rp.region.ID}
	if term, ok := rp.derived.TermOf(at, terms.Term); ok && term != 0 && at >= rp.derived.Truncated.Index {
		return "", terms.Err
	}
	return fmt.Sprintf("the log cannot be cut at %d, because the term of that entry is not known", at), terms.Err
}

// raiseEpoch is the epoch that lies above every entry of the log.
func (rp *regionPlan) raiseEpoch() raftstate.Epoch {
	e := rp.region.State.Region.Epoch
	return raftstate.Epoch{ConfVer: max(e.ConfVer, rp.tail.MaxEpoch.ConfVer) + 1, Version: max(e.Version, rp.tail.MaxEpoch.Version) + 1}
}

// applyTails puts the tails that are applied first on top of the store's view, so that what they hold at or below T is not lost.
func applyTails(s *scan.Store, regions []regionPlan) error {
	ph := base.Begin(s.FS, "applying what the logs hold").Items(len(regions), "regions")
	defer ph.End()
	for i := range regions {
		if err := ph.Did(1); err != nil {
			return err
		}
		rp := &regions[i]
		to := rp.first
		if rp.strategy == TailApply {
			to = rp.derived.Last
		}
		if to == 0 {
			continue
		}
		if _, err := applyTail(s, rp, to); err != nil {
			return err
		}
	}
	return nil
}

// dropTails adds to b what cuts the logs of the regions whose tails are dropped, and notes their new apply states. It comes after
// applyTails: a log ends where its region stands then.
func dropTails(s *scan.Store, b *raftlog.Batch, regions []regionPlan) error {
	ph := base.Begin(s.FS, "cutting the logs").Items(len(regions), "regions")
	defer ph.End()
	for i := range regions {
		if err := ph.Did(1); err != nil {
			return err
		}
		rp := &regions[i]
		if rp.strategy != TailDrop {
			continue
		}
		d, err := raftlog.DropTail(b, s.Raft, raftlog.Drop{Region: rp.region.ID, Raft: rp.raft, Apply: rp.region.Apply})
		if err != nil {
			return err
		}
		rp.dropped = &d
	}
	return nil
}
