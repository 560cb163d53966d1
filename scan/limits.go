package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// LimitsOptions of FindLimits.
type LimitsOptions struct {
	// NoLogs leaves the entries of the raft logs alone: when what they hold is in the data already, or will never be.
	NoLogs bool
}

// FindLimits gathers from opened stores of one cluster what limits the timestamps that they can be returned to; pd may be nil. It reads the
// properties of tables, the write-ahead logs, the locks and the raft logs, and single keys. A table of the write column family is read through only
// when its properties cannot be trusted. The stores must have been opened with their raft stores. Errors of class ErrUsage: the stores, or PD, do not
// belong together.
func FindLimits(ctx context.Context, stores []*Store, pd *plan.PDReport, o LimitsOptions) (*plan.Limits, error) {
	in := plan.LimitsInput{PD: pd, NoLogs: o.NoLogs}
	dirs := map[uint64]string{}
	var cut mvcc.TS
	for _, s := range stores {
		bad := func(format string, args ...any) error {
			return &base.Error{Class: base.ErrUsage, Op: "find what limits T", Path: s.Layout.Dir, Offset: -1, Reason: fmt.Sprintf(format, args...), Next: "name the stores of one cluster, each once, and its PD"}
		}
		switch first := stores[0]; {
		case s.Ident.ClusterID != first.Ident.ClusterID:
			return nil, bad("it belongs to cluster %d, %s to %d", s.Ident.ClusterID, first.Layout.Dir, first.Ident.ClusterID)
		case pd != nil && s.Ident.ClusterID != pd.ClusterID:
			return nil, bad("it belongs to cluster %d, PD to %d", s.Ident.ClusterID, pd.ClusterID)
		case dirs[s.Ident.StoreID] != "":
			return nil, bad("it is store %d, and so is %s", s.Ident.StoreID, dirs[s.Ident.StoreID])
		}
		dirs[s.Ident.StoreID] = s.Layout.Dir
		v, err := s.limitsView()
		if err != nil {
			return nil, err
		}
		defer v.ev.Close()
		one, err := v.gather(ctx, o)
		if err != nil {
			return nil, err
		}
		in.Stores = append(in.Stores, *one)
		in.LogFloor = max(in.LogFloor, v.floor)
		if v.cut != 0 && (cut == 0 || v.cut < cut) {
			cut = v.cut
		}
	}
	if cut == 0 {
		return plan.FindLimits(in)
	}
	for i := range in.Stores {
		in.Stores[i].Locks = slices.DeleteFunc(in.Stores[i].Locks, func(l plan.LockAt) bool { return l.Lock.StartTS >= cut })
	}
	l, err := plan.FindLimits(in)
	if err == nil {
		l.LocksBelow = cut
		l.Words = append(l.Words, fmt.Sprintf("only the locks of transactions that started before %s = %s were looked at: all of them do not fit into --memory", cut, Time(cut)))
	}
	return l, err
}

// limitsPerLock: an eighth of the memory, at about 2 KiB a lock with all that is found out about its transaction.
const limitsPerLock = 8 * 2048

// oldestLocks keeps the locks of the oldest transactions, as many as fit; most 0 is no bound.
type oldestLocks struct {
	most  int
	cut   mvcc.TS // nothing that started then or later is kept; 0: all is
	locks []plan.LockAt
}

func (o *oldestLocks) add(l LockAt) error {
	locks, _, err := mvcc.ParseLocks(bytes.Clone(l.Raw))
	if err != nil {
		return err
	}
	for _, one := range locks {
		if o.cut == 0 || one.StartTS < o.cut {
			o.locks = append(o.locks, plan.LockAt{UserKey: l.User, Lock: one, Shared: l.Shared})
		}
	}
	if o.most > 0 && len(o.locks) > o.most {
		starts := make([]mvcc.TS, len(o.locks))
		for i := range o.locks {
			starts[i] = o.locks[i].Lock.StartTS
		}
		slices.Sort(starts)
		o.cut = starts[o.most/2]
		// All locks of a transaction go, or none.
		o.locks = slices.DeleteFunc(o.locks, func(l plan.LockAt) bool { return l.Lock.StartTS >= o.cut })
	}
	return nil
}

// limitsView is the plan.LimitsView of one store.
type limitsView struct {
	cut     mvcc.TS // see oldestLocks
	s       *Store
	ev      *Evidence
	regions []Region                     // that hold data, by start key
	finder  RegionFinder                 // of them
	numbers map[uint64]raftstate.Derived // by region
	logged  logged
	floor   mvcc.TS
}

// limitsView opens the view; its Evidence must be closed.
func (s *Store) limitsView() (*limitsView, error) {
	v := &limitsView{s: s, numbers: map[uint64]raftstate.Derived{}}
	for _, r := range s.liveByStart() {
		own, here := r.State.Region.PeerOn(s.Ident.StoreID)
		if st := r.State.State; !here || own.IsWitness || st != raftstate.Normal && st != raftstate.Merging {
			continue // its data is not there, or not whole
		}
		raft, err := s.RaftStateOf(r.ID)
		if err != nil {
			return nil, err
		}
		v.numbers[r.ID] = raftstate.Derive(raft, r.Apply)
		v.regions = append(v.regions, r)
	}
	v.finder = finderOf(v.regions)
	var err error
	v.ev, err = s.Evidence()
	return v, err
}

// WriteByStart is part of plan.LimitsView, as are the following.
func (v *limitsView) WriteByStart(user []byte, start mvcc.TS) (mvcc.TS, mvcc.Write, bool, error) {
	return v.ev.WriteByStart(user, start)
}

func (v *limitsView) RollbackAt(user []byte, start mvcc.TS) (bool, error) {
	return v.ev.RollbackAt(user, start)
}

func (v *limitsView) LockOf(user []byte) ([]mvcc.Lock, error) { return v.ev.LockOf(user) }

func (v *limitsView) Holder(user []byte) (raftstate.Region, uint64, bool) {
	r, ok := v.finder.Find(mvcc.LockKey(user))
	return r.State.Region, v.numbers[r.ID].Applied, ok
}

// gather reads one store.
func (v *limitsView) gather(ctx context.Context, o LimitsOptions) (*plan.LimitsStore, error) {
	s := v.s
	out := &plan.LimitsStore{View: v, StoreLimits: plan.StoreLimits{StoreID: s.Ident.StoreID, Dir: s.Layout.Dir, Regions: []plan.RegionLimits{}}, Pending: map[plan.KeyStart]plan.PendingWrite{}}
	kept := oldestLocks{most: int(s.o.Memory / limitsPerLock)}
	err := s.EachLock(func(l LockAt) error {
		if _, ok := v.finder.Find(mvcc.LockKey(l.User)); !ok {
			return nil // left over from a region that has gone
		}
		out.LockedKeys++
		return kept.add(l)
	})
	if err != nil {
		return nil, err
	}
	out.Locks, v.cut = kept.locks, kept.cut
	bounds, err := v.newest(ctx)
	if err != nil {
		return nil, err
	}
	out.Newest, out.NewestTime = bounds[anyRegion].exact, Time(bounds[anyRegion].exact)
	regions := slices.Clone(v.regions)
	slices.SortFunc(regions, func(a, b Region) int { return cmp.Compare(a.ID, b.ID) })
	peers := map[uint64]bool{}
	for _, r := range regions {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		d, b := v.numbers[r.ID], bounds[r.ID]
		one := plan.RegionLimits{RegionID: r.ID, Newest: max(b.exact, b.atMost), AtMost: b.atMost > b.exact, Applied: d.Applied, Waiting: d.Last - min(d.Applied, d.Last)}
		one.NewestTime = Time(one.Newest)
		for _, p := range r.State.Region.Peers {
			if !peers[p.StoreID] {
				peers[p.StoreID] = true
				out.PeerStores = append(out.PeerStores, p.StoreID)
			}
		}
		if !o.NoLogs {
			if one.NewestWaiting, err = v.readLog(r.ID, out); err != nil {
				return nil, err
			}
			one.NewestWaitingTime = Time(one.NewestWaiting)
		}
		out.Regions = append(out.Regions, one)
	}
	out.Logged = v.logged.locks()
	v.floor = v.logged.floor
	return out, nil
}

// newestOf bounds the newest commit of one region: exact is one that is there, atMost may be of a neighbour.
type newestOf struct{ exact, atMost mvcc.TS }

// anyRegion stands for the whole store; no region has this id.
const anyRegion = 0

// newest bounds the newest commit of each region, and of the store as NewestCommit does: from the write-ahead logs, and from the properties of
// tables. A table that lies in one region speaks for it; one that holds records of several is an upper bound for each.
func (v *limitsView) newest(ctx context.Context) (map[uint64]newestOf, error) {
	out := map[uint64]newestOf{}
	if err := v.newestIn(ctx, CFWrite, out); err != nil {
		return nil, err
	}
	if v.s.HasRawV2() {
		return out, v.newestIn(ctx, CFDefault, out)
	}
	return out, nil
}

func (v *limitsView) newestIn(ctx context.Context, name string, out map[uint64]newestOf) error {
	cf := v.s.DB.CF(name)
	// Keys come in order: the next one is most likely of the same region.
	var in regionRun
	end := func() {
		if in.newest != 0 {
			raise(out, in.id, in.newest, true)
		}
		in.newest = 0
	}
	note := func(prefix []byte, ts mvcc.TS) {
		if !v.finder.isAt(in.at, prefix) {
			end()
			in.at = v.finder.atData(prefix)
		}
		if v.finder.holds(in.at, prefix) {
			in.id, in.newest = v.finder.spans[in.at].id, max(in.newest, ts)
		}
	}
	newest, err := v.s.newestInLog(name, note)
	if err != nil {
		return err
	}
	raise(out, anyRegion, newest, true)
	end()
	bounds, err := v.s.TimeBounds(name)
	if err != nil {
		return err
	}
	for _, f := range cf.Files() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		// Properties of the default column family speak of rows that are no raw entries, too: they only tell that a table cannot raise anything.
		if b := bounds.Of(f.Number); b.Trust && (name == CFWrite || b.Max <= out[anyRegion].exact) {
			v.boundInTable(name, f, b.Max, out)
			continue
		}
		err := noteTable(v.s.FS, cf, f, func(prefix []byte, ts mvcc.TS) {
			raise(out, anyRegion, ts, true)
			note(prefix, ts)
		})
		end()
		if err != nil {
			return err
		}
	}
	return nil
}

// regionRun is what a walk over keys has found in the region where it is.
type regionRun struct {
	at     int // in the spans of the finder
	id     uint64
	newest mvcc.TS
}

// boundInTable raises the newest commit of the regions that a table touches to what its properties say.
func (v *limitsView) boundInTable(name string, f rocks.LevelFile, hi mvcc.TS, out map[uint64]newestOf) {
	if name == CFWrite {
		raise(out, anyRegion, hi, true)
	}
	first, ok1 := v.finder.Find(f.Smallest.User)
	last, ok2 := v.finder.Find(f.Largest.User)
	for _, id := range v.finder.Touching(f.Smallest.User, f.Largest.User) {
		raise(out, id, hi, name == CFWrite && ok1 && ok2 && first.ID == last.ID && first.ID == id)
	}
}

// noteTable reads through the keys of a table that tell of commits.
func noteTable(fs base.FS, cf *rocks.CF, f rocks.LevelFile, note func(prefix []byte, ts mvcc.TS)) error {
	t, done, err := cf.Table(f.FileMeta)
	if err != nil {
		return err
	}
	it := t.NewIter()
	n := 0
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if prefix, ts, ok := commitOf(cf.Meta.Name, it.Key().User); ok {
			note(prefix, ts)
		}
		if n++; n&4095 == 0 {
			err = base.Stopped(fs)
		}
	}
	return errors.Join(err, it.Err(), it.Close(), done())
}

func raise(out map[uint64]newestOf, region uint64, ts mvcc.TS, exact bool) {
	n := out[region]
	if exact {
		n.exact = max(n.exact, ts)
	} else {
		n.atMost = max(n.atMost, ts)
	}
	out[region] = n
}
