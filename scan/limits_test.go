package scan

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/raftstate"
	"github.com/tikv-repair/tikv-repair/tests/fixtures"
)

// openAll opens all stores of an archive.
func openAll(t *testing.T, name string) []*Store {
	t.Helper()
	fs := base.NewMem(fixtures.Mem(t, name))
	var out []*Store
	for _, dir := range fixtures.Stores(t, name) {
		s, err := Open(fs, dir, Options{Mode: base.LockShared})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		out = append(out, s)
	}
	return out
}

func limitsOf(t *testing.T, stores []*Store, o LimitsOptions) *plan.Limits {
	t.Helper()
	l, err := FindLimits(context.Background(), stores, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// left is what a writer of the fixtures left behind, as the evidence should name it when nobody has touched it since.
func left(f fixtures.Lock) (state plan.TxnState, commit mvcc.TS, key plan.KeyState) {
	switch {
	case f.Pessimistic:
		return plan.TxnPessimistic, 0, plan.KeyPessimistic
	case f.CommittedPrimary:
		return plan.TxnCommitted, mvcc.TS(f.CommitTS), plan.KeyLocked
	case f.Async:
		return plan.TxnCommitted, mvcc.TS(f.MinCommitTS), plan.KeyLocked
	}
	return plan.TxnPending, 0, plan.KeyLocked
}

// On a store that nobody wrote to any more, the evidence names exactly the transactions that left locks behind, each with all its keys.
func TestLimitsNameWhatWasLeft(t *testing.T) {
	for _, name := range []string{"single-default", "single-levels", "single-lz4-ranges", "single-raftdb", "single-clean-stop", "single-titan"} {
		for _, o := range []LimitsOptions{{}, {NoLogs: true}} {
			t.Run(fmt.Sprintf("%s/no logs %v", name, o.NoLogs), func(t *testing.T) {
				stores := openAll(t, name)
				l := limitsOf(t, stores, o)
				// TiKV keeps pessimistic locks in memory when it can: then there is nothing to name.
				facts := slices.DeleteFunc(fixtures.Facts(t, name).Locks, func(f fixtures.Lock) bool {
					return f.Pessimistic && !hasLock(t, stores[0], mvcc.TS(f.StartTS))
				})
				if len(l.Txns) != len(facts) || len(facts) < 4 {
					t.Fatalf("%d transactions, want %d: %+v", len(l.Txns), len(facts), l.Txns)
				}
				oldest := mvcc.MaxTS
				for _, f := range facts {
					oldest = min(oldest, mvcc.TS(f.StartTS))
					i := slices.IndexFunc(l.Txns, func(x plan.TxnLimit) bool { return x.Txn.StartTS == mvcc.TS(f.StartTS) })
					if i < 0 {
						t.Errorf("transaction %d is not named", f.StartTS)
						continue
					}
					x := l.Txns[i]
					state, commit, key := left(f)
					// The largest min_commit_ts of all keys decides; the writer noted that of the primary.
					if x.State != state || f.Async != x.Async || (commit == 0) != (x.CommitTS == 0) || x.CommitTS < commit || f.CommittedPrimary && x.CommitTS != commit {
						t.Errorf("%d: %s at %s, want %s at %s", f.StartTS, x.State, x.CommitTS, state, commit)
					}
					if f.Primary != nil && x.Txn.Primary != string(f.Primary) {
						t.Errorf("%d: primary %X, want %X", f.StartTS, x.Txn.Primary, f.Primary)
					}
					if len(x.Keys) != len(f.Keys) {
						t.Errorf("%d: %d keys, want %d", f.StartTS, len(x.Keys), len(f.Keys))
					}
					for _, k := range x.Keys {
						want := key
						if f.CommittedPrimary && string(k.Key) == string(f.Primary) {
							want = plan.KeyCommitted
						}
						if !slices.ContainsFunc(f.Keys, func(b []byte) bool { return string(b) == string(k.Key) }) || k.State != want || k.RegionID == 0 {
							t.Errorf("%d: key %s of region %d is %s, want %s", f.StartTS, k.Key, k.RegionID, k.State, want)
						}
					}
				}
				if l.OldestLock == nil || l.OldestLock.Txn.StartTS != oldest || l.TornAt != 0 {
					t.Errorf("oldest lock %+v, want %s; torn at %s", l.OldestLock, oldest, l.TornAt)
				}
			})
		}
	}
}

func hasLock(t *testing.T, s *Store, start mvcc.TS) bool {
	t.Helper()
	locks, err := s.Locks()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(locks, func(a LockAt) bool {
		return slices.ContainsFunc(a.Locks, func(l mvcc.Lock) bool { return l.StartTS == start })
	})
}

// On stores that were killed one by one under load, all together, what is unfinished is what the writer left on purpose or does not know the outcome
// of; everything else that is locked somewhere is finished on the replica that has come furthest. No whole cluster is called torn, and no single
// store of it either: a store applies in the order in which its leader did.
func TestLimitsOfWholeClusters(t *testing.T) {
	for _, name := range []string{"multi3-lost2", "multi3-merging-early", "multi3-merging-late", "multi4-dr-learner", "multi5-lost3", "multi3-dr-autosync"} {
		t.Run(name, func(t *testing.T) {
			stores := openAll(t, name)
			l := limitsOf(t, stores, LimitsOptions{})
			facts := fixtures.Facts(t, name)
			locked := map[mvcc.TS]bool{} // on any store, inside its regions
			for _, s := range stores {
				locks, err := s.Locks()
				if err != nil {
					t.Fatal(err)
				}
				at := s.RegionFinder()
				for _, a := range locks {
					if _, ok := at.Find(mvcc.LockKey(a.User)); !ok {
						continue
					}
					for _, one := range a.Locks {
						locked[one.StartTS] = true
					}
				}
			}
			open := 0
			for _, x := range l.Txns {
				delete(locked, x.Txn.StartTS)
				if x.State == plan.TxnBehind {
					continue
				}
				i := slices.IndexFunc(facts.Locks, func(f fixtures.Lock) bool { return mvcc.TS(f.StartTS) == x.Txn.StartTS })
				if i < 0 {
					if !slices.ContainsFunc(facts.Undetermined, func(u fixtures.Undetermined) bool {
						return mvcc.TS(u.StartTS) == x.Txn.StartTS && slices.ContainsFunc(x.Keys, func(k plan.TxnKeyAt) bool { return string(k.Key) == string(u.Key) })
					}) {
						t.Errorf("%s transaction %s is nobody's: %+v", x.State, x.Txn.StartTS, x)
					}
					continue
				}
				open++
				// Readers under load meet what was left: they roll pending transactions back, or lift pessimistic locks, key by key.
				f := facts.Locks[i]
				want, commit, _ := left(f)
				if x.State != want && !(want == plan.TxnPending && x.State == plan.TxnRolledBack) || f.CommittedPrimary && x.CommitTS != commit {
					t.Errorf("%d: %s at %s, want %s at %s", f.StartTS, x.State, x.CommitTS, want, commit)
				}
			}
			if open < 3 || len(locked) > 0 {
				t.Errorf("%d of what was left is open; locked and not named: %v", open, locked)
			}
			if l.ByState[plan.TxnTorn]+l.ByState[plan.TxnIncomplete]+l.ByState[plan.TxnUnknown] > 0 || l.TornAt != 0 || len(l.Absent) > 0 {
				t.Errorf("%v, torn at %s, absent %v", l.ByState, l.TornAt, l.Absent)
			}
			for _, s := range stores {
				if one := limitsOf(t, []*Store{s}, LimitsOptions{}); one.TornAt != 0 {
					t.Errorf("store %d alone is torn at %s: %+v", s.Ident.StoreID, one.TornAt, one.Txns[0])
				}
			}
		})
	}
}

// The newest commit of a region, from properties and logs, is the newest record of it that a pass over the store finds, or an upper bound that says
// so.
func TestLimitsNewestCommit(t *testing.T) {
	exact := 0
	for _, name := range []string{"single-default", "single-levels", "single-lz4-ranges", "single-titan", "multi3-dr-autosync", "multi5-lost3"} {
		for _, s := range openAll(t, name) {
			l := limitsOf(t, []*Store{s}, LimitsOptions{NoLogs: true})
			if newest, err := s.NewestCommit(); err != nil || newest != l.Stores[0].Newest {
				t.Errorf("%s: newest %s, want %s, %v", name, l.Stores[0].Newest, newest, err)
			}
			found := map[uint64]mvcc.TS{}
			at := s.RegionFinder()
			v, err := s.DB.CF(CFWrite).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
			if err != nil {
				t.Fatal(err)
			}
			for ok := v.First(); ok; ok = v.Next() {
				if p, ts, ok := mvcc.SplitKey(v.User()); ok {
					id := at.ID(p)
					found[id] = max(found[id], ts)
				}
			}
			if err := errors.Join(v.Err(), v.Close()); err != nil {
				t.Fatal(err)
			}
			for _, r := range l.Stores[0].Regions {
				want := found[r.RegionID]
				if r.Newest < want || !r.AtMost && r.Newest != want {
					t.Errorf("%s, store %d, region %d: newest %s (at most: %v), found %s", name, s.Ident.StoreID, r.RegionID, r.Newest, r.AtMost, want)
				}
				if !r.AtMost {
					exact++
				}
			}
		}
	}
	if exact < 40 {
		t.Errorf("only %d regions are exact", exact)
	}
}

// behind is a store on which one region stopped at a moment in the past: nothing that began after it has reached it.
type behind struct {
	plan.LimitsView
	region uint64
	since  mvcc.TS
}

func (b behind) hides(user []byte, start mvcc.TS) bool {
	r, _, ok := b.Holder(user)
	return ok && r.ID == b.region && start > b.since
}

func (b behind) WriteByStart(user []byte, start mvcc.TS) (mvcc.TS, mvcc.Write, bool, error) {
	if b.hides(user, start) {
		return 0, mvcc.Write{}, false, nil
	}
	return b.LimitsView.WriteByStart(user, start)
}

func (b behind) RollbackAt(user []byte, start mvcc.TS) (bool, error) {
	if b.hides(user, start) {
		return false, nil
	}
	return b.LimitsView.RollbackAt(user, start)
}

func (b behind) LockOf(user []byte) ([]mvcc.Lock, error) {
	locks, err := b.LimitsView.LockOf(user)
	return slices.DeleteFunc(locks, func(l mvcc.Lock) bool { return b.hides(user, l.StartTS) }), err
}

// An asynchronous copy stopped earlier for one region than for the others, for each region in turn: exactly those transactions are torn of which the logs
// or a lock of another region name a key in it, and which had committed.
func TestLimitsTornByACopy(t *testing.T) {
	torn, incomplete := 0, 0
	for _, c := range []struct {
		name  string
		store int
	}{{"single-default", 0}, {"multi3-merging-late", 2}, {"multi4-dr-learner", 3}, {"multi5-lost3", 4}, {"multi3-lost2", 2}} {
		s := openAll(t, c.name)[c.store]
		facts := fixtures.Facts(t, c.name)
		// History knows the transactions that changed rows; others only locked them, and these count as well.
		committed := commits(t, s)
		for _, h := range fixtures.History(t, c.name) {
			if commit, ok := committed[mvcc.TS(h.StartTS)]; ok && commit != mvcc.TS(h.CommitTS) {
				t.Errorf("%s: %d committed at %s, history has %d", c.name, h.StartTS, commit, h.CommitTS)
			}
		}
		for _, r := range s.liveByStart() {
			a, b := tornIn(t, s, r.ID, mvcc.TS(facts.T1), committed)
			torn, incomplete = torn+a, incomplete+b
		}
	}
	if torn < 100 || incomplete < 3 {
		t.Errorf("%d torn, %d incomplete: the test shows little", torn, incomplete)
	}
}

// commits are all transactions with a commit record, and the timestamps of these.
func commits(t *testing.T, s *Store) map[mvcc.TS]mvcc.TS {
	t.Helper()
	out := map[mvcc.TS]mvcc.TS{}
	v, err := s.DB.CF(CFWrite).NewVisible([]byte{'z'}, []byte{'z' + 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for ok := v.First(); ok; ok = v.Next() {
		_, ts, isTxn := mvcc.SplitKey(v.User())
		w, err := mvcc.ParseWrite(v.Value())
		if !isTxn || err != nil {
			t.Fatalf("%X: %v", v.User(), err)
		}
		if w.Type != mvcc.WriteRollback {
			out[w.StartTS] = ts
		}
	}
	if err := errors.Join(v.Err(), v.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

func tornIn(t *testing.T, s *Store, region uint64, since mvcc.TS, committed map[mvcc.TS]mvcc.TS) (torn, incomplete int) {
	t.Helper()
	v, err := s.limitsView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.ev.Close()
	one, err := v.gather(context.Background(), LimitsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	hide := behind{v, region, since}
	one.View = hide
	one.Locks = slices.DeleteFunc(one.Locks, func(l plan.LockAt) bool { return hide.hides(l.UserKey, l.Lock.StartTS) })
	one.Logged = slices.DeleteFunc(one.Logged, func(l plan.LoggedLock) bool { return hide.hides(l.UserKey, l.Lock.StartTS) })
	for k := range one.Pending {
		if hide.hides([]byte(k.User), k.Start) {
			delete(one.Pending, k)
		}
	}
	// What names a key of the region from outside of it, by transaction: all that can be known.
	named := map[mvcc.TS]bool{}
	names := func(l mvcc.Lock) {
		for _, k := range append([][]byte{l.Primary}, l.Secondaries...) {
			if !l.Pessimistic() && hide.hides(k, l.StartTS) {
				named[l.StartTS] = true
			}
		}
	}
	for _, l := range one.Locks {
		names(l.Lock)
	}
	for _, l := range one.Logged {
		names(l.Lock)
	}
	l, err := plan.FindLimits(plan.LimitsInput{Stores: []plan.LimitsStore{*one}})
	if err != nil {
		t.Fatal(err)
	}
	lowest := mvcc.TS(0)
	for _, x := range l.Txns {
		start := x.Txn.StartTS
		switch x.State {
		case plan.TxnTorn:
			if commit := committed[start]; !named[start] || commit != x.CommitTS {
				t.Errorf("region %d: %s is torn at %s; it committed at %s", region, start, x.CommitTS, commit)
			}
			if torn++; lowest == 0 || x.CommitTS < lowest {
				lowest = x.CommitTS
			}
			for _, k := range x.Keys {
				if (k.RegionID == region) != (k.State == plan.KeyMissing) {
					t.Errorf("region %d: %s, key of region %d: %s", region, start, k.RegionID, k.State)
				}
			}
			delete(named, start)
		case plan.TxnIncomplete:
			if incomplete++; !named[start] {
				t.Errorf("region %d: %s is incomplete, and nothing names a key there", region, start)
			}
			delete(named, start)
		}
	}
	if l.TornAt != lowest || (lowest != 0) != strings.Contains(strings.Join(l.Words, "\n"), "is proven not to be whole") {
		t.Errorf("region %d: torn at %s, want %s: %v", region, l.TornAt, lowest, l.Words)
	}
	for start := range named {
		if commit, ok := committed[start]; ok {
			t.Errorf("region %d: the transaction of %s, committed at %s, is torn and not named", region, start, commit)
		}
	}
	return torn, incomplete
}

func TestLimitsOfStrangers(t *testing.T) {
	a, b := openAll(t, "single-default")[0], openAll(t, "single-raftdb")[0]
	for _, c := range []struct {
		stores []*Store
		pd     *plan.PDReport
		says   string
	}{
		{[]*Store{a, b}, nil, "it belongs to cluster"},
		{[]*Store{a, a}, nil, "it is store 1, and so is /data"},
		{[]*Store{a}, &plan.PDReport{ClusterID: 1}, "PD to 1"},
	} {
		if _, err := FindLimits(context.Background(), c.stores, c.pd, LimitsOptions{}); !errors.Is(err, base.ErrUsage) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := FindLimits(ctx, []*Store{a}, nil, LimitsOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// However many prewrites the logs hold, those that began last are remembered, and the floor says from when on.
func TestLoggedIsBounded(t *testing.T) {
	var g logged
	const all = 5 * maxLoggedKeys
	for i := range all {
		start := mvcc.TS(1 + (i*7919)%all) // each once, in no order
		g.add(plan.LoggedLock{Lock: mvcc.Lock{StartTS: start}, Applied: true})
		if len(g.applied) > 2*maxLoggedKeys {
			t.Fatalf("%d are remembered", len(g.applied))
		}
	}
	g.add(plan.LoggedLock{Lock: mvcc.Lock{StartTS: 1}}) // waits: kept
	got := map[mvcc.TS]bool{}
	for _, l := range g.locks() {
		got[l.Lock.StartTS] = true
	}
	if len(got) != maxLoggedKeys+1 || !got[1] || g.floor != all-maxLoggedKeys+1 {
		t.Errorf("%d remembered, floor %d", len(got), g.floor)
	}
	for ts := g.floor; ts <= all; ts++ {
		if !got[ts] {
			t.Fatalf("%d is at or above the floor %d and gone", ts, g.floor)
		}
	}
	// A transaction with more keys than the bound is kept all the same.
	g = logged{}
	g.add(plan.LoggedLock{Lock: mvcc.Lock{StartTS: 9, Secondaries: make([][]byte, 3*maxLoggedKeys)}, Applied: true})
	if n := len(g.locks()); n != 1 || g.floor != 0 {
		t.Errorf("%d, floor %d", n, g.floor)
	}
}

// The difference of two replicas is read from the log of one that has it all; what the log has lost is said.
func TestNewestLogged(t *testing.T) {
	s := openAll(t, "multi3-lost2")[0]
	v, err := s.limitsView()
	if err != nil {
		t.Fatal(err)
	}
	defer v.ev.Close()
	for _, r := range s.liveByStart() {
		d := v.numbers[r.ID]
		if d.Applied <= d.Truncated.Index {
			continue
		}
		newest, whole, err := v.NewestLogged(r.ID, d.Truncated.Index, d.Applied)
		want := mvcc.TS(0)
		e2 := s.Raft.Entries(r.ID, d.Truncated.Index+1, d.Applied+1, func(e raftstate.Entry) error {
			cmd, err := raftstate.Decode(e)
			for _, q := range cmd.Requests {
				if _, ts, ok := mvcc.SplitKey(append([]byte{'z'}, q.Key...)); ok && q.CF == CFWrite {
					want = max(want, ts)
				}
			}
			return err
		})
		if err != nil || e2 != nil || !whole || newest != want {
			t.Errorf("region %d: %s, want %s, whole %v, %v, %v", r.ID, newest, want, whole, err, e2)
		}
		if _, whole, err := v.NewestLogged(r.ID, 0, d.Applied); err != nil || whole {
			t.Errorf("region %d: the log begins at %d, and all before is said to be there (%v)", r.ID, d.Truncated.Index, err)
		}
	}
}
