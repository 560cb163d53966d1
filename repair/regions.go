package repair

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// regionPlan is what an edit knows of one region's raft state, and what a rewind does to it.
type regionPlan struct {
	region  scan.Region
	raft    *raftstate.RaftLocalState
	derived raftstate.Derived
	tail    tailContent
	// dry is what applying the whole tail would do, if that is allowed.
	dry TailApplied
	// shared says that the region has peers on other stores. Its record is left alone even when the operator accepts that: an epoch
	// raised on one replica only would set it apart from the others.
	shared bool

	// The choice of a rewind.
	strategy TailStrategy
	reason   string
	first    uint64           // entries up to this one are applied before the rest is dealt with; 0: none
	rest     *tailContent     // what is not applied first
	epoch    raftstate.Epoch  // the new one
	dropped  *raftlog.Dropped // the records of a log that is cut
}

// tailContent is what the entries in (applied, last] would have done.
type tailContent struct {
	Entries     uint64
	MaxEpoch    raftstate.Epoch // of any command's header
	Lost        int64           // Puts and Deletes with commit_ts <= T
	MinCommitTS mvcc.TS         // of those
	MaxCommitTS mvcc.TS
	Opaque      int64 // entries that may hold such versions but cannot be looked into: ingests, undecodable ones
	DeleteRange int64
	// Prewrites are locks of two-phase commits with start_ts <= T: what became of their transactions stands elsewhere.
	Prewrites int64
	Keys      []string // user keys of some of the lost versions, upper-case hex
}

// planRegions decides for every live region of the store. Problems: regions that have peers elsewhere, that are not in a state a rewind
// may touch, that TiKV would not start, whose tail holds data at or below T that goes, or for which the wish is not safe.
func planRegions(s *scan.Store, t mvcc.TS, want TailStrategy) ([]regionPlan, []plan.Problem, error) {
	var out []regionPlan
	var problems []plan.Problem
	others := map[uint64]bool{}
	shared := 0
	ph := base.Begin(s.FS, "looking at the logs of the regions").Items(len(s.Regions), "regions")
	defer ph.End()
	for _, r := range s.Regions {
		if err := ph.Did(1); err != nil {
			return nil, nil, err
		}
		if !r.Live() {
			continue
		}
		for _, p := range r.State.Region.Peers {
			if p.StoreID != s.Ident.StoreID {
				others[p.StoreID] = true
			}
		}
		if !onlyPeerHere(s, r) {
			shared++
		}
		switch r.State.State {
		case raftstate.Normal:
		default:
			problems = append(problems, &plan.RegionState{Store: s.Ident.StoreID, Region: r.ID, State: r.State.State.String()})
		}
		if r.State.Region.IsInFlashback {
			problems = append(problems, &plan.Flashback{Store: s.Ident.StoreID, Region: r.ID, StartTS: mvcc.TS(r.State.Region.FlashbackStartTS)})
		}
		rp, ps, err := planRegion(s, r, t)
		if err != nil {
			return nil, nil, err
		}
		problems = append(problems, ps...)
		if ps, err = rp.choose(s, want, t); err != nil {
			return nil, nil, err
		}
		problems = append(problems, ps...)
		if rp.epoch = r.State.Region.Epoch; rp.strategy == TailNeutralise {
			rp.epoch = rp.raiseEpoch()
		}
		out = append(out, rp)
	}
	if shared > 0 {
		problems = append(problems, &plan.MultiStore{Given: []uint64{s.Ident.StoreID}, Missing: sortedKeys(others), Regions: shared})
	}
	return out, problems, nil
}

func planRegion(s *scan.Store, r scan.Region, t mvcc.TS) (regionPlan, []plan.Problem, error) {
	rp := regionPlan{region: r, shared: !onlyPeerHere(s, r)}
	var err error
	if rp.raft, err = s.RaftStateOf(r.ID); err != nil {
		return rp, nil, err
	}
	rp.derived = raftstate.Derive(rp.raft, r.Apply)
	terms := &raftlog.Terms{Store: s.Raft, Region: r.ID}
	problems := startProblems(raftstate.StartInput{StoreID: s.Ident.StoreID, Region: r.State, Raft: rp.raft, Apply: r.Apply, EntryTerm: terms.Term})
	if terms.Err != nil {
		return rp, nil, terms.Err
	}
	if rp.tail, err = readTail(s, r, rp.derived, t); err != nil {
		return rp, nil, err
	}
	if rp.derived.Last > rp.derived.Applied {
		// All that the log of a region with a single peer holds is committed.
		if rp.dry, _, err = readCommands(s, r, ownLog(s, r.ID), rp.derived.Applied, rp.derived.Last, nil); err != nil {
			return rp, nil, err
		}
	}
	return rp, problems, nil
}

// startProblems are the start rules that keep TiKV from starting. What only older lines object to is legal for the one that wrote the store
// (entries applied before they were persisted, 8.2 and later).
func startProblems(in raftstate.StartInput) []plan.Problem {
	var out []plan.Problem
	for _, v := range raftstate.StartCheck(in) {
		if v.Consequence != raftstate.StopsOldLines {
			out = append(out, &plan.RegionStart{Store: in.StoreID, Region: in.Region.Region.ID, Reason: v.Error()})
		}
	}
	return out
}

// readTail walks the entries that are not applied. Only what a reader at T would have seen counts as lost: rollback and lock records
// carry no data, and a prewrite that never committed is rolled back anyway.
func readTail(s *scan.Store, r scan.Region, d raftstate.Derived, t mvcc.TS) (tailContent, error) {
	var c tailContent
	if d.Last <= d.Applied {
		return c, nil
	}
	err := s.Raft.Entries(r.ID, d.Applied+1, d.Last+1, func(e raftstate.Entry) error {
		c.Entries++
		cmd, err := raftstate.Decode(e)
		if err != nil {
			c.Opaque++
			return nil
		}
		if ep, ok := cmd.Epoch(); ok {
			c.MaxEpoch.ConfVer = max(c.MaxEpoch.ConfVer, ep.ConfVer)
			c.MaxEpoch.Version = max(c.MaxEpoch.Version, ep.Version)
		}
		if !epochFits(cmd, r.State.Region.Epoch) {
			return nil // a no-op in any case
		}
		for _, q := range cmd.Requests {
			c.request(q, t)
		}
		// A merge carries log entries of its source inside.
		if cmd.Admin != nil && cmd.Admin.Type == raftstate.AdminCommitMerge {
			c.Opaque++
		}
		return nil
	})
	if err != nil {
		return c, err
	}
	if want := d.Last - d.Applied; c.Entries != want {
		// Not an error here: the start rules name the missing entry. What is not there cannot come back.
		c.Opaque += int64(want - c.Entries)
	}
	return c, nil
}

func (c *tailContent) request(q raftstate.Request, t mvcc.TS) {
	switch {
	case q.Op == raftstate.OpIngest:
		c.Opaque++
	case q.Op == raftstate.OpDeleteRange:
		c.DeleteRange++
	case q.Op == raftstate.OpPut && q.CF == scan.CFWrite:
		_, ts, ok := mvcc.SplitKey(append([]byte{'z'}, q.Key...))
		w, err := mvcc.ParseWrite(q.Value)
		if !ok || err != nil {
			c.Opaque++
			return
		}
		if ts <= t && (w.Type == mvcc.WritePut || w.Type == mvcc.WriteDelete) {
			c.lose(ts, q.Key[:len(q.Key)-8])
		}
	case q.Op == raftstate.OpPut && q.CF == scan.CFLock:
		// A fully prewritten async commit counts as committed although no write record exists yet.
		locks, _, err := mvcc.ParseLocks(q.Value)
		if err != nil {
			c.Opaque++
			return
		}
		for _, l := range locks {
			if !l.AsyncCommit && l.StartTS <= t && (l.Type == mvcc.LockPut || l.Type == mvcc.LockDelete) {
				c.Prewrites++
			}
			if l.AsyncCommit && l.MinCommitTS <= t {
				c.lose(l.MinCommitTS, q.Key)
			}
		}
	}
}

// lostKeys bounds the list of keys that a problem names.
const lostKeys = 20

// lose counts a version; encoded is its memcomparable user key.
func (c *tailContent) lose(ts mvcc.TS, encoded []byte) {
	c.Lost++
	if user, _, err := mvcc.DecodeBytes(encoded); err == nil && len(c.Keys) < lostKeys {
		c.Keys = append(c.Keys, fmt.Sprintf("%X", user))
	}
	if c.MinCommitTS == 0 || ts < c.MinCommitTS {
		c.MinCommitTS = ts
	}
	c.MaxCommitTS = max(c.MaxCommitTS, ts)
}

// raftRecords are the new records of the raft column family: region states with raised epochs, everything else in them byte for byte as it
// was, and the apply states of logs that are cut.
func raftRecords(s *scan.Store, regions []regionPlan) (*rocks.Run, error) {
	run := &rocks.Run{}
	for _, r := range regions {
		if r.dropped != nil {
			run.Add(ikey.Key{User: raftstate.ApplyStateKey(r.region.ID), Kind: ikey.KindPut}, r.dropped.Apply.Raw)
		}
		if r.strategy != TailNeutralise {
			continue
		}
		b := r.region.State.WithEpoch(r.epoch.ConfVer, r.epoch.Version)
		if b == nil {
			return nil, &base.Error{Class: base.ErrCorrupt, Op: "raise the epoch", Path: s.Layout.KVDir, Offset: -1, CF: scan.CFRaft, Region: r.region.ID,
				Reason: "its region state does not decode strictly"}
		}
		run.Add(ikey.Key{User: raftstate.RegionStateKey(r.region.ID), Kind: ikey.KindPut}, b)
	}
	return run, nil
}
