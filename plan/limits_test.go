package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// A replica is a store of a story: a key is a letter, its region is named by the letter's case: small ones are in region 1, capitals in region 2.
type replica struct {
	store   uint64
	applied map[uint64]uint64 // by region; a region that is not there is not on the store
	commits map[string]mvcc.TS
	rolled  map[string]bool
	locks   map[string]mvcc.Lock
	logged  []LoggedLock
	pending map[KeyStart]PendingWrite
	version uint64 // not 0: a split has made region 3 of region 2
	newest  mvcc.TS
	whole   bool
	err     error
}

func (c *replica) Holder(user []byte) (raftstate.Region, uint64, bool) {
	r := raftstate.Region{ID: 1, Epoch: raftstate.Epoch{Version: 1}}
	if user[0] < 'a' {
		if r.ID = 2; c.version > 0 {
			r.ID, r.Epoch.Version = 3, c.version
		}
	}
	a, ok := c.applied[r.ID]
	return r, a, ok
}

func (c *replica) WriteByStart(user []byte, start mvcc.TS) (mvcc.TS, mvcc.Write, bool, error) {
	ts, ok := c.commits[string(user)]
	return ts, mvcc.Write{Type: mvcc.WritePut, StartTS: start}, ok && start == 10, c.err
}

func (c *replica) RollbackAt(user []byte, start mvcc.TS) (bool, error) {
	return c.rolled[string(user)] && start == 10, nil
}

func (c *replica) LockOf(user []byte) ([]mvcc.Lock, error) {
	if l, ok := c.locks[string(user)]; ok {
		return []mvcc.Lock{l}, nil
	}
	return nil, nil
}

func (c *replica) NewestLogged(_, _, _ uint64) (mvcc.TS, bool, error) {
	return c.newest, c.whole, c.err
}

func (c *replica) given() LimitsStore {
	s := LimitsStore{StoreLimits: StoreLimits{StoreID: c.store}, View: c, Logged: c.logged, Pending: c.pending}
	for id, a := range c.applied {
		s.Regions = append(s.Regions, RegionLimits{RegionID: id, Applied: a})
	}
	for k, l := range c.locks {
		s.Locks = append(s.Locks, LockAt{UserKey: []byte(k), Lock: l})
	}
	return s
}

// put is a prewrite of the transaction of the stories, which began at 10; its primary is p.
func put(async bool, secondaries ...string) mvcc.Lock {
	l := mvcc.Lock{Type: mvcc.LockPut, Primary: []byte("p"), StartTS: 10}
	if async {
		l.AsyncCommit, l.MinCommitTS = true, 12
	}
	for _, s := range secondaries {
		l.Secondaries = append(l.Secondaries, []byte(s))
	}
	return l
}

func waiting() mvcc.Lock {
	return mvcc.Lock{Type: mvcc.LockPessimistic, Primary: []byte("p"), StartTS: 10}
}

func logs(key string, l mvcc.Lock, applied bool) LoggedLock {
	return LoggedLock{UserKey: []byte(key), Lock: l, Applied: applied}
}

var both = map[uint64]uint64{1: 9, 2: 9}

// What stores say together about one transaction. Keys: p, its primary, and q in region 1, S in region 2.
func TestLimitsOfTransactions(t *testing.T) {
	type locks = map[string]mvcc.Lock
	type commits = map[string]mvcc.TS
	at12 := PendingWrite{CommitTS: 12, Type: mvcc.WritePut}
	for _, c := range []struct {
		what   string
		stores []*replica
		pd     *PDReport
		state  TxnState
		commit mvcc.TS
		keys   string // states in key order
	}{
		{"nothing was decided", []*replica{{applied: both, locks: locks{"p": put(false), "S": put(false)}}}, nil, TxnPending, 0, "S locked, p locked"},
		{"the primary has committed", []*replica{{applied: both, commits: commits{"p": 12}, locks: locks{"S": put(false)}}}, nil, TxnCommitted, 12, "S locked, p committed"},
		{"the primary was rolled back", []*replica{{applied: both, rolled: map[string]bool{"p": true}, locks: locks{"S": put(false)}}}, nil, TxnRolledBack, 0, "S locked, p rolled-back"},
		{"the primary has nothing", []*replica{{applied: both, locks: locks{"S": put(false)}}}, nil, TxnIncomplete, 0, "S locked, p missing"},
		{"the primary's region is elsewhere", []*replica{{applied: map[uint64]uint64{2: 9}, locks: locks{"S": put(false)}}}, nil, TxnUnknown, 0, "S locked, p elsewhere"},
		{"the primary's region is elsewhere, and another key has committed, as the log knows", []*replica{{applied: map[uint64]uint64{2: 9}, commits: commits{"S": 12}, locks: locks{"T": put(false)},
			logged: []LoggedLock{logs("S", put(false), true)}}}, nil, TxnCommitted, 12, "S committed, T locked, p elsewhere"},
		{"async commit, all keys prewritten", []*replica{{applied: both, locks: locks{"p": put(true, "S"), "S": put(true)}}}, nil, TxnCommitted, 12, "S locked, p locked"},
		{"async commit, a key is missing", []*replica{{applied: both, locks: locks{"p": put(true, "S")}}}, nil, TxnIncomplete, 0, "S missing, p locked"},
		{"async commit, a key is elsewhere", []*replica{{applied: map[uint64]uint64{1: 9}, locks: locks{"p": put(true, "S")}}}, nil, TxnUnknown, 0, "S elsewhere, p locked"},
		{"async commit, one key has committed, one is missing", []*replica{{applied: both, commits: commits{"q": 12}, locks: locks{"p": put(true, "S", "q")}}}, nil, TxnTorn, 12, "S missing, p locked, q committed"},
		{"committed, and what the log names is missing", []*replica{{applied: both, commits: commits{"p": 12}, logged: []LoggedLock{logs("p", put(true, "S"), true)}}}, nil, TxnTorn, 12, "S missing, p committed"},
		{"the same, of a primary", []*replica{{applied: both, commits: commits{"S": 12}, logged: []LoggedLock{logs("S", put(false), true)}}}, nil, TxnTorn, 12, "S committed, p missing"},
		{"the same, but garbage collection has been there", []*replica{{applied: both, commits: commits{"p": 12}, logged: []LoggedLock{logs("p", put(true, "S"), true)}}}, &PDReport{SafePoint: 12}, "", 0, ""},
		{"the same, just above the safe point", []*replica{{applied: both, commits: commits{"p": 12}, logged: []LoggedLock{logs("p", put(true, "S"), true)}}}, &PDReport{SafePoint: 11}, TxnTorn, 12, "S missing, p committed"},
		{"committed here, rolled back there", []*replica{{applied: both, commits: commits{"p": 12}, rolled: map[string]bool{"S": true}, logged: []LoggedLock{logs("S", put(false), true)}}}, nil, TxnTorn, 12, "S rolled-back, p committed"},
		{"only the log names it, and it is finished", []*replica{{applied: both, commits: commits{"p": 12, "S": 12}, logged: []LoggedLock{logs("p", put(true, "S"), true)}}}, nil, "", 0, ""},
		{"a pessimistic lock alone", []*replica{{applied: both, locks: locks{"S": waiting()}}}, nil, TxnPessimistic, 0, "S pessimistic"},
		{"a pessimistic lock that was lifted, of a transaction that went on", []*replica{{store: 1, applied: both, commits: commits{"p": 12}}, {store: 2, applied: map[uint64]uint64{1: 8, 2: 8}, locks: locks{"p": put(false), "S": waiting()}}},
			nil, TxnBehind, 12, "S missing (1 missing, 2 pessimistic), p committed (1 committed, 2 locked)"},
		{"a replica behind", []*replica{{store: 1, applied: both, commits: commits{"p": 12}}, {store: 2, applied: map[uint64]uint64{1: 8}, locks: locks{"p": put(false)}}}, nil, TxnBehind, 12, "p committed (1 committed, 2 locked)"},
		{"a replica behind, and only it is left of another region", []*replica{{store: 1, applied: map[uint64]uint64{1: 9}, commits: commits{"p": 12}}, {store: 2, applied: map[uint64]uint64{1: 8, 2: 8}, locks: locks{"p": put(true, "S")}}},
			nil, TxnTorn, 12, "S missing, p committed (1 committed, 2 locked)"},
		{"the commit waits in the log", []*replica{{applied: both, locks: locks{"p": put(false)}, pending: map[KeyStart]PendingWrite{{"p", 10}: at12}}}, nil, TxnBehind, 12, "p committed-in-log"},
		{"the rollback waits in the log", []*replica{{applied: both, locks: locks{"p": put(false), "S": put(false)}, pending: map[KeyStart]PendingWrite{{"p", 10}: {}}}}, nil, TxnRolledBack, 0, "S locked, p rolled-back-in-log"},
		{"the prewrite waits in the log", []*replica{{applied: both, logged: []LoggedLock{logs("p", put(false), false)}}}, nil, TxnPending, 0, "p locked-in-log"},
		{"the primary's commit waits in the log", []*replica{{applied: both, locks: locks{"S": put(false)}, pending: map[KeyStart]PendingWrite{{"p", 10}: at12}}}, nil, TxnCommitted, 12, "S locked, p committed-in-log"},
		{"a store still shows the region from before a split", []*replica{{store: 1, applied: map[uint64]uint64{1: 9, 3: 3}, version: 2, commits: commits{"p": 12}, locks: locks{"S": put(false)}}, {store: 2, applied: map[uint64]uint64{1: 9, 2: 5}, commits: commits{"p": 12}}},
			nil, TxnCommitted, 12, "S locked (1 locked, 2 missing), p committed (1 committed, 2 committed)"},
		{"the other store shows it", []*replica{{store: 1, applied: map[uint64]uint64{1: 9, 2: 5}, commits: commits{"p": 12}}, {store: 2, applied: map[uint64]uint64{1: 9, 3: 3}, version: 2, commits: commits{"p": 12}, locks: locks{"S": put(false)}}},
			nil, TxnCommitted, 12, "S locked (1 missing, 2 locked), p committed (1 committed, 2 committed)"},
	} {
		in := LimitsInput{PD: c.pd}
		for _, s := range c.stores {
			in.Stores = append(in.Stores, s.given())
		}
		l, err := FindLimits(in)
		if err != nil {
			t.Fatal(err)
		}
		if c.state == "" {
			if len(l.Txns) != 0 {
				t.Errorf("%s: %+v", c.what, l.Txns)
			}
			continue
		}
		if len(l.Txns) != 1 {
			t.Errorf("%s: %d transactions", c.what, len(l.Txns))
			continue
		}
		x := l.Txns[0]
		if x.State != c.state || x.CommitTS != c.commit || (x.CommitTime == "") != (x.CommitTS == 0) || keysText(x.Keys) != c.keys || l.ByState[c.state] != 1 || x.Reason == "" {
			t.Errorf("%s: %s at %d (%s), keys %s\nwant %s at %d, keys %s", c.what, x.State, x.CommitTS, x.Reason, keysText(x.Keys), c.state, c.commit, c.keys)
		}
		if (l.TornAt != 0) != (c.state == TxnTorn) || (l.OldestLock != nil) != (x.Locks > 0 && c.state != TxnBehind) {
			t.Errorf("%s: torn at %s, oldest lock %+v", c.what, l.TornAt, l.OldestLock)
		}
	}
	boom := fmt.Errorf("boom")
	if _, err := FindLimits(LimitsInput{Stores: []LimitsStore{(&replica{applied: both, locks: map[string]mvcc.Lock{"p": put(false)}, err: boom}).given()}}); err == nil {
		t.Error("an error of the view is lost")
	}
}

func keysText(ks []TxnKeyAt) string {
	var parts []string
	for _, k := range ks {
		s := string(k.Key) + " " + string(k.State)
		var on []string
		for _, r := range k.Replicas {
			on = append(on, fmt.Sprintf("%d %s", r.StoreID, r.State))
		}
		if len(on) > 0 {
			s += " (" + strings.Join(on, ", ") + ")"
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, ", ")
}

// The worst comes first, and states are told by their number.
func TestLimitsOrder(t *testing.T) {
	var logged []LoggedLock
	locks := map[string]mvcc.Lock{}
	for i, key := range []string{"a", "b", "S"} {
		l := mvcc.Lock{Type: mvcc.LockPut, Primary: []byte(key), StartTS: mvcc.TS(20 - i)}
		if key == "S" {
			l.Primary = []byte("z") // nowhere to be found
		}
		locks[key] = l
	}
	c := &replica{applied: both, locks: locks, commits: map[string]mvcc.TS{"p": 12}, logged: append(logged, logs("p", put(true, "Q"), true))}
	l, err := FindLimits(LimitsInput{Stores: []LimitsStore{c.given()}, LogFloor: 3})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range l.Txns {
		got = append(got, fmt.Sprintf("%s %d", x.State, x.Txn.StartTS))
	}
	if want := []string{"torn 10", "incomplete 18", "pending 19", "pending 20"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if l.OldestLock == nil || l.OldestLock.Txn.StartTS != 18 || l.TornAt != 12 {
		t.Errorf("oldest %+v, torn at %d", l.OldestLock, l.TornAt)
	}
	words := strings.Join(l.Words, "\n")
	for _, w := range []string{"T at or above 12", "1 transaction is committed in one region and missing in another", "unless garbage collection", "1 transaction is locked in one region", "began before 3", "without PD's directory"} {
		if !strings.Contains(words, w) {
			t.Errorf("no %q in\n%s", w, words)
		}
	}
}

// Replicas that have not applied the same, and how much of the difference the logs still tell.
func TestLimitsDiffer(t *testing.T) {
	same := &replica{store: 1, applied: map[uint64]uint64{1: 9, 2: 9}, newest: 50, whole: true}
	for _, c := range []struct {
		what  string
		other *replica
		want  string
	}{
		{"they have applied the same", &replica{store: 2, applied: both}, ""},
		{"one is behind", &replica{store: 2, applied: map[uint64]uint64{1: 7, 2: 9}, newest: 70}, "1: [{1 9} {2 7}] 2 50 false"},
		{"one is ahead, and its log has been compacted", &replica{store: 2, applied: map[uint64]uint64{1: 11, 2: 9}, newest: 40}, "1: [{2 11} {1 9}] 2 50 false"},
		{"other regions", &replica{store: 2, applied: map[uint64]uint64{3: 11}}, ""},
	} {
		l, err := FindLimits(LimitsInput{Stores: []LimitsStore{same.given(), c.other.given()}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range l.Differ {
			got = append(got, fmt.Sprintf("%d: %v %d %d %v", g.RegionID, g.Replicas, g.Entries, g.Newest, g.Partial))
		}
		if strings.Join(got, "; ") != c.want {
			t.Errorf("%s: %v, want %s", c.what, got, c.want)
		}
		if (c.want != "") != strings.Contains(strings.Join(l.Words, "\n"), "the replicas of 1 region differ") {
			t.Errorf("%s: %v", c.what, l.Words)
		}
	}
	same.whole = false
	l, err := FindLimits(LimitsInput{Stores: []LimitsStore{same.given(), (&replica{store: 2, applied: map[uint64]uint64{1: 7}}).given()}})
	if err != nil || len(l.Differ) != 1 || !l.Differ[0].Partial || l.Differ[0].Newest != 50 {
		t.Errorf("%+v, %v", l.Differ, err)
	}
}

// What PD knew decides what may be said of a T, and never more than that.
func TestLimitsOfPD(t *testing.T) {
	one := (&replica{store: 1, applied: both}).given()
	one.PeerStores = []uint64{1, 2, 9}
	for _, c := range []struct {
		what string
		pd   PDReport
		says []string
	}{
		{"async", PDReport{ConsistentTS: 7, ConsistentWhy: "why", DRState: "async"}, []string{"DR Auto-Sync was async", "cannot be proven to be whole above min-resolved-ts = 7 (1970-01-01T00:00:00.000Z): why"}},
		{"catching up, and not for sure", PDReport{ConsistentTS: 7, DRState: "sync_recover", DRReserve: "one of three"}, []string{"DR Auto-Sync was sync_recover; one of three", "above min-resolved-ts = 7"}},
		{"nothing is proven", PDReport{ConsistentWhy: "why", DRState: "async"}, []string{"no T is proven to be whole: why"}},
		{"in step", PDReport{ConsistentTS: 7, DRState: "sync"}, []string{"a surviving site is complete"}},
		{"in step, as far as is known", PDReport{ConsistentTS: 7, DRState: "sync", DRReserve: "one of three"}, []string{"sync; one of three", "cannot be proven to be whole above min-resolved-ts = 7"}},
		{"one site", PDReport{ConsistentTS: 7}, []string{"resolved up to min-resolved-ts = 7", "nothing proves that a later T is whole"}},
	} {
		c.pd.Stores = []PDStore{{ID: 9, TiFlash: true}}
		l, err := FindLimits(LimitsInput{Stores: []LimitsStore{one}, PD: &c.pd})
		if err != nil {
			t.Fatal(err)
		}
		words := strings.Join(l.Words, "\n")
		for _, w := range append(c.says, "stores that were not given: 2;") {
			if !strings.Contains(words, w) {
				t.Errorf("%s: no %q in\n%s", c.what, w, words)
			}
		}
	}
}
