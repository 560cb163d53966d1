package repair

import (
	"context"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// verifyPart tests one store's part on the opened store: the version is sound, every region starts, every action's records are there, and, with
// a rewind, all its truths hold.
func verifyPart(ctx context.Context, s *scan.Store, p *plan.Plan, part *plan.StorePlan, broken []uint64, threads int) ([]Finding, error) {
	var out []Finding
	if part.Rewind {
		fs, err := Verify(ctx, s, VerifyOptions{T: p.ToTS, Threads: threads, Cluster: true})
		if err != nil {
			return nil, err
		}
		out = append(out, fs...)
	} else {
		for _, f := range s.DB.SelfCheck(func(_ string, f rocks.LevelFile) bool { return f.Level == 0 }) {
			out = append(out, Finding{Truth: "sound-version", CF: f.CF, Path: f.Path, What: f.String()})
		}
		now, err := wontStart(s)
		if err != nil {
			return nil, err
		}
		for _, id := range now {
			out = append(out, Finding{Truth: truthStarts, Region: id, What: "TiKV would not start it"})
		}
	}
	out = slices.DeleteFunc(out, func(f Finding) bool { return f.Truth == truthStarts && slices.Contains(broken, f.Region) })
	for _, act := range part.Actions {
		what, err := actionHolds(s, &act)
		if err != nil {
			return nil, err
		}
		if what != "" {
			out = append(out, Finding{Truth: "plan-is-done", Region: act.RegionID, What: what})
		}
	}
	return out, nil
}

// actionHolds says what of an action's records is not there; "" when all are.
func actionHolds(s *scan.Store, act *plan.Action) (string, error) {
	i := slices.IndexFunc(s.Regions, func(r scan.Region) bool { return r.ID == act.RegionID })
	if i < 0 {
		return "there is no record of it", nil
	}
	r := s.Regions[i]
	raft, err := s.RaftStateOf(r.ID)
	if err != nil {
		return "", err
	}
	_, _, logged, err := s.Raft.Bounds(r.ID)
	if err != nil {
		return "", err
	}
	n := act.New
	switch {
	case r.State.State != n.State:
		return fmt.Sprintf("its state is %s, planned is %s", r.State.State, n.State), nil
	case !r.State.Region.Equal(n.Region):
		return "its descriptor is not the planned one", nil
	case n.State == raftstate.Tombstone && (raft != nil || r.Apply != nil || logged):
		return "the tombstone has raft records", nil
	case n.State == raftstate.Tombstone:
		return "", nil
	case raft == nil || r.Apply == nil:
		return "a raft or apply state is missing", nil
	}
	d := raftstate.Derive(raft, r.Apply)
	for _, c := range []struct {
		name      string
		got, want uint64
	}{
		{"applied", d.Applied, n.Applied}, {"truncated index", d.Truncated.Index, n.Truncated.Index}, {"truncated term", d.Truncated.Term, n.Truncated.Term},
		{"last", d.Last, n.Last}, {"hard_state.commit", raft.HardState.Commit, n.Commit}, {"hard_state.term", raft.HardState.Term, n.Term}, {"vote", raft.HardState.Vote, n.Vote},
	} {
		if c.got != c.want {
			return fmt.Sprintf("%s is %d, planned is %d", c.name, c.got, c.want), nil
		}
	}
	if act.Tail == plan.TailDrop && logged {
		return "its log is not empty", nil
	}
	return "", nil
}
