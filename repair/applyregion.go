package repair

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/scan"
)

// maxPointDeletes bounds the tombstones by which a range is emptied; above it one range tombstone per column family does it. TiKV avoids
// those where it can, because they cost every read of the range.
const maxPointDeletes = 100_000

// act plans one action: what it changes goes into the overlay of the data, the run of the raft column family and the raft batch.
func (a *applier) act(act *plan.Action) (*ApplyLine, error) {
	r, found := a.region(act.RegionID)
	line := &ApplyLine{Region: act.RegionID, Kind: act.Kind, Reason: act.Reason, Before: "not there", After: peersText(act.New.Region)}
	if found {
		line.Before = r.State.State.String() + ", " + peersText(r.State.Region)
	}
	var err error
	switch act.Kind {
	case plan.ActionTombstone:
		return line, a.tombstone(act, r, line)
	case plan.ActionRewrite, plan.ActionCreate:
	default:
		return nil, a.mismatch(fmt.Sprintf("region %d: there is no action %q in this version", act.RegionID, act.Kind), "use the version that made the plan")
	}
	if act.Kind == plan.ActionRewrite && !found {
		return nil, a.mismatch(fmt.Sprintf("region %d is not on this store", act.RegionID), "make the plan again from fresh reports")
	}
	if act.Kind == plan.ActionCreate {
		// A tombstone of the same id gives its place; nothing of it is kept.
		r = scan.Region{ID: act.RegionID}
	}
	var carried []raftstate.Entry
	if act.Apply != nil {
		if carried, err = a.applyEntries(act, r, line); err != nil {
			return nil, err
		}
	}
	if act.DeleteData {
		if line.Deleted, err = a.deleteRange(act.New.Region); err != nil {
			return nil, err
		}
	}
	if err := a.records(act, r); err != nil {
		return nil, err
	}
	if err := a.raft(act, carried); err != nil {
		return nil, err
	}
	n := act.New
	line.After = fmt.Sprintf("%s; applied %d, last %d", line.After, n.Applied, n.Last)
	if act.Tail != "" {
		line.After += ", tail: " + string(act.Tail)
	}
	return line, nil
}

func (a *applier) put(key, value []byte) {
	a.raftRun.Add(ikey.Key{User: key, Kind: ikey.KindPut}, value)
}

func (a *applier) drop(key []byte) {
	a.raftRun.Add(ikey.Key{User: key, Kind: ikey.KindDelete}, nil)
}

// corrupt is the error of a region record that cannot be changed.
func (a *applier) corrupt(op string, region uint64, err error) error {
	return &base.Error{Class: base.ErrCorrupt, Op: op, Path: a.s.Layout.KVDir, Offset: -1, CF: scan.CFRaft, Region: region, Err: err, Next: a.look(region)}
}

func (a *applier) look(region uint64) string {
	return fmt.Sprintf("tikv-repair region --region %d %s; then plan again with --tombstone %d@%d if other replicas are sound", region, a.s.Layout.Dir, region, a.s.Ident.StoreID)
}

// tombstone destroys a peer: TiKV deletes its data, as a gap between regions, at the next start; the tables that hold it are saved.
func (a *applier) tombstone(act *plan.Action, r scan.Region, line *ApplyLine) error {
	next, err := r.State.Rewrite(raftstate.Tombstone, act.New.Region, act.KeepMergeState)
	if err != nil {
		return a.corrupt("write a tombstone", act.RegionID, err)
	}
	a.put(raftstate.RegionStateKey(act.RegionID), next.Raw)
	if r.Apply != nil {
		a.drop(raftstate.ApplyStateKey(act.RegionID))
	}
	key := raftstate.SnapshotRaftStateKey(act.RegionID)
	if _, _, ok, err := a.s.DB.CF(scan.CFRaft).Get(key); err != nil {
		return err
	} else if ok {
		a.drop(key)
	}
	_, have, err := a.s.Raft.RaftState(act.RegionID)
	if err != nil {
		return err
	}
	if _, _, logged, err := a.s.Raft.Bounds(act.RegionID); err != nil {
		return err
	} else if have || logged {
		a.batch.Clean(act.RegionID)
	}
	if r.Live() {
		tables := saveTables(a.s, r, &a.save)
		line.After += fmt.Sprintf("; TiKV deletes its data at the next start (it lies in %d tables, saved)", tables)
	}
	return nil
}

// applyEntries executes the log entries of an action on top of the store's view. It returns those that come from another store, which
// belong into the log as well.
func (a *applier) applyEntries(act *plan.Action, r scan.Region, line *ApplyLine) ([]raftstate.Entry, error) {
	al := act.Apply
	if r.Apply == nil || r.Apply.AppliedIndex != al.From {
		return nil, a.mismatch(fmt.Sprintf("region %d has another applied index than the plan wants", r.ID), "make the plan again from fresh reports")
	}
	log := ownLog(a.s, r.ID)
	var carried []raftstate.Entry
	if al.CarriedFrom != 0 {
		src, err := a.carried(r.ID, al, max(al.To, act.New.Last))
		if err != nil {
			return nil, err
		}
		log.src, log.match, carried = src, al.CarriedFrom, src.List
	}
	log.planned = map[uint64]uint64{}
	for _, st := range al.Admin {
		log.planned[st.Index] = st.Version
	}
	r.State.Region.Epoch.Version = al.Version
	ov := a.s.DB.NewOverlay()
	defer ov.Close()
	t, term, err := readCommands(a.s, r, log, al.From, al.To, func(rec tailRecord) error {
		return ov.Add(rec.cf, rec.kind, rec.user, rec.rest)
	})
	if err != nil {
		return nil, err
	}
	if t.Stopped != nil {
		return nil, a.mismatch(fmt.Sprintf("region %d: entry %d cannot be applied: %s", r.ID, t.Stopped.Index, t.Stopped.Reason), "make the plan again from fresh reports")
	}
	if t.To > t.From && al.Term != 0 && term != al.Term {
		return nil, a.mismatch(fmt.Sprintf("region %d: entry %d has term %d, the plan says %d", r.ID, al.To, term, al.Term), "make the plan again from fresh reports")
	}
	if len(carried) > 0 {
		t.Source, t.Appended = "the plan", uint64(len(carried))
	}
	line.Tail = &t
	return carried, nil
}

// carried finds the entries of a region that the plan brings along: those to apply, and behind them those that stay in the log unapplied.
func (a *applier) carried(region uint64, al *plan.ApplyLog, last uint64) (*ListSource, error) {
	src := &ListSource{From: "the plan", Region: region}
	for _, c := range a.p.Carried {
		if c.RegionID != region {
			continue
		}
		for _, e := range c.Entries {
			if e.Index <= al.CarriedFrom || e.Index > last || len(src.List) > 0 && e.Index <= src.List[len(src.List)-1].Index {
				continue
			}
			entry, err := raftstate.ParseEntry(e.Raw)
			if err != nil || entry.Index != e.Index || entry.Term != e.Term {
				return nil, a.mismatch(fmt.Sprintf("region %d: the carried entry %d is not what it says", region, e.Index), "make the plan again")
			}
			src.List = append(src.List, entry)
		}
	}
	if n := last - al.CarriedFrom; n == 0 || uint64(len(src.List)) != n || src.List[0].Index != al.CarriedFrom+1 {
		return nil, a.mismatch(fmt.Sprintf("region %d: the plan carries %d of %d entries", region, len(src.List), n), "make the plan again with the answers of all stores")
	}
	return src, nil
}

// deleteRange empties a range in the data column families.
func (a *applier) deleteRange(want raftstate.Region) (int64, error) {
	lower, upper := scan.Region{State: raftstate.RegionLocalState{Region: want}}.Bounds()
	total := int64(0)
	for _, name := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
		v, err := a.s.DB.CF(name).NewVisible(lower, upper, nil)
		if err != nil {
			return total, err
		}
		var keys [][]byte
		n := int64(0)
		for ok := v.First(); ok; ok = v.Next() {
			if n++; n <= maxPointDeletes {
				keys = append(keys, bytes.Clone(v.User()))
			}
		}
		err = v.Err()
		v.Close()
		if err != nil {
			return total, err
		}
		ov := a.s.DB.NewOverlay()
		if n > maxPointDeletes {
			keys, err = nil, ov.Add(name, ikey.KindRangeDelete, lower, upper)
		}
		for _, k := range keys {
			if err == nil {
				err = ov.Add(name, ikey.KindDelete, k, nil)
			}
		}
		ov.Close()
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// records writes region and apply state of a kept or new peer.
func (a *applier) records(act *plan.Action, r scan.Region) error {
	n := act.New
	corrupt := func(op string, err error) error { return a.corrupt(op, act.RegionID, err) }
	next, err := r.State.Rewrite(n.State, n.Region, n.State == raftstate.Merging)
	if err != nil {
		return corrupt("rewrite the region state", err)
	}
	if !bytes.Equal(next.Raw, r.Raw) {
		a.put(raftstate.RegionStateKey(act.RegionID), next.Raw)
	}
	old := raftstate.RaftApplyState{}
	if r.Apply != nil {
		old = *r.Apply
	}
	applied := old
	if len(old.Raw) == 0 || n.Applied != old.AppliedIndex {
		raw := old.WithApplied(n.Applied, 0, 0)
		if raw == nil {
			return corrupt("move the applied index", fmt.Errorf("the apply state does not decode strictly"))
		}
		if applied, err = raftstate.ParseRaftApplyState(raw); err != nil {
			return corrupt("move the applied index", err)
		}
	}
	if applied.TruncatedState != n.Truncated {
		if applied, err = applied.WithTruncated(n.Truncated); err != nil {
			return corrupt("move the truncated index", err)
		}
	}
	if act.Tail == plan.TailDrop && applied.CommitIndex != n.Applied || n.Applied > applied.CommitIndex && n.Applied > old.AppliedIndex {
		if applied, err = applied.WithCommit(n.Applied, n.AppliedTerm); err != nil {
			return corrupt("set the commit index", err)
		}
	}
	if !bytes.Equal(applied.Raw, old.Raw) {
		a.put(raftstate.ApplyStateKey(act.RegionID), applied.Raw)
	}
	return nil
}

// raft writes the raft state and changes the log.
func (a *applier) raft(act *plan.Action, carried []raftstate.Entry) error {
	id, n := act.RegionID, act.New
	old := raftstate.RaftLocalState{}
	if act.Kind == plan.ActionRewrite {
		st, err := a.s.RaftStateOf(id)
		if err != nil {
			return err
		}
		if st != nil {
			old = *st
		}
	}
	next, err := old.With(raftstate.HardState{Term: n.Term, Vote: n.Vote, Commit: n.Commit}, n.Last)
	if err != nil {
		return &base.Error{Class: base.ErrCorrupt, Op: "rewrite the raft state", Path: a.s.Layout.RaftDir, Offset: -1, Region: id, Err: err, Next: a.look(id)}
	}
	first, last, logged, err := a.s.Raft.Bounds(id)
	if err != nil {
		return err
	}
	switch {
	case act.Kind == plan.ActionCreate || act.Tail == plan.TailDrop:
		a.batch.Clean(id)
	case len(carried) > 0:
		if !logged || last < carried[0].Index-1 {
			if !logged || first > act.New.Truncated.Index {
				return a.mismatch(fmt.Sprintf("region %d: the log ends at %d, the carried entries begin at %d", id, last, carried[0].Index), "make the plan again from fresh reports")
			}
			// Only dead entries are there: the log ends with a snapshot, and goes on behind it.
			a.batch.Clean(id)
		}
		if err := a.batch.Entries(id, carried); err != nil {
			return err
		}
	case bytes.Equal(next.Raw, old.Raw):
		return nil
	}
	return a.batch.PutState(id, next)
}

// saveTables adds the tables that hold data of a region to list, and with Titan all blob files: which of them the region's values lie in is
// known to Titan only, and a link takes no space while they live.
func saveTables(s *scan.Store, r scan.Region, list *[]string) (tables int) {
	add := func(p string) {
		if !slices.Contains(*list, p) {
			*list = append(*list, p)
		}
	}
	lower, upper := r.Bounds()
	for _, name := range []string{scan.CFDefault, scan.CFLock, scan.CFWrite} {
		for _, f := range s.DB.CF(name).Files() {
			if bytes.Compare(f.Largest.User, lower) >= 0 && bytes.Compare(f.Smallest.User, upper) < 0 {
				tables++
				add(s.DB.TablePath(f.Number))
			}
		}
	}
	if t := s.Titan; t != nil {
		for _, f := range t.Manifest().Sorted() {
			add(t.Path(f.Number))
		}
	}
	return tables
}
