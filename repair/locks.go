package repair

import (
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// lockRuns turns the decisions into records: every lock goes (undecided ones only get here when the operator forced them), a committed
// one leaves its write record, a removed Put takes its default-CF row along. Inner locks of a shared lock are all removed or have no
// data, so that the key's record goes as a whole.
func lockRuns(ds []plan.LockDecision) map[string]*rocks.Run {
	lock, write, deflt := &rocks.Run{}, &rocks.Run{}, &rocks.Run{}
	var last string
	for _, d := range ds {
		key := mvcc.LockKey(d.UserKey)
		if string(key) != last {
			last = string(key)
			lock.Add(ikey.Key{User: key, Kind: ikey.KindDelete}, nil)
		}
		if d.Act == plan.Commit {
			write.Add(ikey.Key{User: mvcc.DataKey(d.UserKey, d.CommitTS), Kind: ikey.KindPut}, d.Record().Append(nil))
			continue
		}
		if ownsDefaultRow(d) {
			deflt.Add(ikey.Key{User: mvcc.DataKey(d.UserKey, d.Lock.StartTS), Kind: ikey.KindDelete}, nil)
		}
	}
	return map[string]*rocks.Run{scan.CFLock: lock, scan.CFWrite: write, scan.CFDefault: deflt}
}

// ownsDefaultRow tells whether a lock's default-CF row goes with it. The decision knows when the row belongs to a committed version
// of the same transaction; of a lock that is removed undecided, by force, nothing else can own it.
func ownsDefaultRow(d plan.LockDecision) bool {
	return d.DefaultRow || d.Act == plan.Undecided && d.Lock.NeedsDefault() && !d.Shared
}

// lockCounts sums the decisions up: removed, committed, and the default-CF rows that go with the removed.
func lockCounts(ds []plan.LockDecision) (removed, committed, rows int64) {
	for _, d := range ds {
		if d.Act == plan.Commit {
			committed++
			continue
		}
		removed++
		if ownsDefaultRow(d) {
			rows++
		}
	}
	return removed, committed, rows
}

// emptyLocks decides the records that no transaction decides: shared locks whose last holder has gone.
func emptyLocks(s *scan.Store) ([]plan.LockDecision, error) {
	locks, err := s.Locks()
	if err != nil {
		return nil, err
	}
	var out []plan.LockDecision
	for _, l := range locks {
		if len(l.Locks) == 0 {
			out = append(out, plan.LockDecision{UserKey: l.User, Shared: l.Shared, Act: plan.Remove, Reason: "a shared lock that nobody holds any more"})
		}
	}
	return out, nil
}
