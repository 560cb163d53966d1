package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// TxnState is what the stores together say about a transaction that is not finished everywhere.
type TxnState string

// The states of a transaction, the worst first.
const (
	// TxnTorn: committed at one key, and at another one, which it had prewritten, there is neither a record nor a lock.
	TxnTorn TxnState = "torn"
	// TxnUnknown: what decides it is not on these stores.
	TxnUnknown TxnState = "unknown"
	// TxnIncomplete: some keys are locked, others, which it names, have nothing: it never committed, or those regions lack the end of their logs.
	TxnIncomplete TxnState = "incomplete"
	// TxnCommitted: it has committed, some keys are still locked; nothing is lost.
	TxnCommitted TxnState = "committed"
	// TxnPending: nothing was decided.
	TxnPending TxnState = "pending"
	// TxnRolledBack: it was rolled back, some keys are still locked.
	TxnRolledBack TxnState = "rolled-back"
	// TxnPessimistic: it has only taken pessimistic locks, which hold no data.
	TxnPessimistic TxnState = "pessimistic"
	// TxnBehind: it is finished where its regions have come furthest, log entries that wait included: locks of it are on replicas, or in data, that
	// are behind that.
	TxnBehind TxnState = "behind"
)

var txnStates = []TxnState{TxnTorn, TxnUnknown, TxnIncomplete, TxnCommitted, TxnPending, TxnRolledBack, TxnPessimistic, TxnBehind}

// TxnStates lists all states, the worst first.
func TxnStates() []TxnState { return slices.Clone(txnStates) }

// TxnLimit is one transaction that is not finished everywhere.
//
// Invariant: CommitTS ≠ 0 ⇔ State is TxnTorn, TxnCommitted, or TxnBehind of a committed one.
type TxnLimit struct {
	Txn        TxnKey   `json:"transaction"`
	State      TxnState `json:"state"`
	Reason     string   `json:"reason"`
	CommitTS   mvcc.TS  `json:"commit_ts,omitempty"`
	CommitTime string   `json:"commit_time,omitempty"`
	Async      bool     `json:"async_commit,omitempty"`
	Locks      int      `json:"locks"` // keys that it has locked
	// Keys are those that locks, logs or the primary's list name, in key order.
	Keys []TxnKeyAt `json:"keys"`
}

// Named counts the keys in a state.
func (t *TxnLimit) Named(s KeyState) int {
	n := 0
	for _, k := range t.Keys {
		if k.State == s {
			n++
		}
	}
	return n
}

// KeyState is what is found of a transaction at one key.
type KeyState string

// The states of a key.
const (
	KeyCommitted    KeyState = "committed"
	KeyCommitWaits  KeyState = "committed-in-log" // in an entry that is not applied
	KeyRolledBack   KeyState = "rolled-back"
	KeyRollbackWait KeyState = "rolled-back-in-log"
	KeyLocked       KeyState = "locked"
	KeyLockWaits    KeyState = "locked-in-log"
	KeyPessimistic  KeyState = "pessimistic" // locked, not prewritten
	KeyMissing      KeyState = "missing"     // neither lock nor record
	KeyElsewhere    KeyState = "elsewhere"   // its region is not on these stores
)

// TxnKeyAt is what is found of a transaction at one key. Of several replicas the one that has come furthest counts, and a commit on any.
type TxnKeyAt struct {
	Key      raftstate.Key `json:"key"` // raw user key
	RegionID uint64        `json:"region_id,omitempty"`
	State    KeyState      `json:"state"`
	CommitTS mvcc.TS       `json:"commit_ts,omitempty"`
	// Replicas are the states by store, when they are several.
	Replicas []ReplicaKey `json:"replicas,omitempty"`
}

// ReplicaKey is the state of a key on one store.
type ReplicaKey struct {
	StoreID uint64   `json:"store_id"`
	State   KeyState `json:"state"`
}

// limitsEvidence answers for all stores together.
type limitsEvidence struct {
	stores []LimitsStore
	// logged are the locks of entries that a store has not applied, by store.
	logged []map[string][]mvcc.Lock
}

// home is the store on which the region of a key has come furthest, with that region; -1: none holds it. Of replicas of one region that is the one
// that has applied most; where a store still shows the region from before a split or a merge, the newer one counts.
func (e *limitsEvidence) home(user []byte) (int, uint64) {
	at, region := -1, raftstate.Region{}
	var applied uint64
	for i := range e.stores {
		r, a, ok := e.stores[i].View.Holder(user)
		if !ok {
			continue
		}
		if at < 0 || r.ID == region.ID && a > applied || r.ID != region.ID && r.Epoch.Version > region.Epoch.Version {
			at, region, applied = i, r, a
		}
	}
	return at, region.ID
}

func (e *limitsEvidence) Here(user []byte) bool {
	at, _ := e.home(user)
	return at >= 0
}

func (e *limitsEvidence) WriteByStart(user []byte, start mvcc.TS) (mvcc.TS, mvcc.Write, bool, error) {
	for i := range e.stores {
		if _, _, ok := e.stores[i].View.Holder(user); !ok {
			continue // what lies outside of its regions is nobody's
		}
		commit, w, found, err := e.stores[i].View.WriteByStart(user, start)
		if found || err != nil {
			return commit, w, found, err
		}
	}
	for i := range e.stores {
		if p, ok := e.stores[i].Pending[KeyStart{string(user), start}]; ok && p.CommitTS != 0 {
			return p.CommitTS, mvcc.Write{Type: p.Type, StartTS: start}, true, nil
		}
	}
	return 0, mvcc.Write{}, false, nil
}

func (e *limitsEvidence) RollbackAt(user []byte, start mvcc.TS) (bool, error) {
	for i := range e.stores {
		if _, _, ok := e.stores[i].View.Holder(user); !ok {
			continue
		}
		if rolled, err := e.stores[i].View.RollbackAt(user, start); rolled || err != nil {
			return rolled, err
		}
		if p, ok := e.stores[i].Pending[KeyStart{string(user), start}]; ok && p.CommitTS == 0 {
			return true, nil
		}
	}
	return false, nil
}

func (e *limitsEvidence) LockOf(user []byte) ([]mvcc.Lock, error) {
	at, _ := e.home(user)
	if at < 0 {
		return nil, nil
	}
	locks, err := e.stores[at].View.LockOf(user)
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(locks), e.logged[at][string(user)]...), nil
}

// stateOn is the state of a key on one store that holds it.
func (e *limitsEvidence) stateOn(i int, user []byte, start mvcc.TS) (KeyState, mvcc.TS, error) {
	v := e.stores[i].View
	commit, _, found, err := v.WriteByStart(user, start)
	if found || err != nil {
		return KeyCommitted, commit, err
	}
	rolled, err := v.RollbackAt(user, start)
	if rolled || err != nil {
		return KeyRolledBack, 0, err
	}
	if p, ok := e.stores[i].Pending[KeyStart{string(user), start}]; ok {
		if p.CommitTS == 0 {
			return KeyRollbackWait, 0, nil
		}
		return KeyCommitWaits, p.CommitTS, nil
	}
	locks, err := v.LockOf(user)
	if err != nil {
		return "", 0, err
	}
	ours := func(l mvcc.Lock) bool { return l.StartTS == start }
	i1, i2 := slices.IndexFunc(locks, ours), slices.IndexFunc(e.logged[i][string(user)], ours)
	switch {
	case i1 >= 0 && !locks[i1].Pessimistic():
		return KeyLocked, 0, nil
	case i2 >= 0:
		return KeyLockWaits, 0, nil
	case i1 >= 0:
		return KeyPessimistic, 0, nil
	}
	return KeyMissing, 0, nil
}

// key is the state of a key over all stores.
func (e *limitsEvidence) key(user []byte, start mvcc.TS) (TxnKeyAt, error) {
	k := TxnKeyAt{Key: user, State: KeyElsewhere}
	at, region := e.home(user)
	if at < 0 {
		return k, nil
	}
	k.RegionID = region
	for i := range e.stores {
		if _, _, ok := e.stores[i].View.Holder(user); !ok {
			continue
		}
		state, commit, err := e.stateOn(i, user, start)
		if err != nil {
			return k, err
		}
		k.Replicas = append(k.Replicas, ReplicaKey{e.stores[i].StoreID, state})
		switch {
		case state == KeyCommitted || state == KeyCommitWaits && k.State != KeyCommitted:
			k.State, k.CommitTS = state, commit
		case i == at && k.CommitTS == 0:
			k.State = state
		}
	}
	if len(k.Replicas) == 1 {
		k.Replicas = nil
	}
	return k, nil
}

// txnSeen is what is known of a transaction before its keys are looked up.
type txnSeen struct {
	keys    map[string]bool // true: prewritten, if the transaction has committed at all
	async   bool
	held    bool // some store has a lock of it in its data or in a log entry to come
	written bool // some lock is not pessimistic
}

func (l *Limits) transactions(in LimitsInput) error {
	e := &limitsEvidence{stores: in.Stores}
	seen := map[TxnKey]*txnSeen{}
	note := func(user []byte, lock mvcc.Lock, held bool) {
		k := txnOf(lock)
		t := seen[k]
		if t == nil {
			t = &txnSeen{keys: map[string]bool{}}
			seen[k] = t
		}
		t.held = t.held || held
		t.keys[string(user)] = t.keys[string(user)] || !lock.Pessimistic()
		if lock.Pessimistic() {
			return // nothing follows for its primary
		}
		t.keys[k.Primary] = true
		t.written, t.async = true, t.async || lock.AsyncCommit
		for _, s := range lock.Secondaries {
			t.keys[string(s)] = true
		}
	}
	for i := range in.Stores {
		e.logged = append(e.logged, map[string][]mvcc.Lock{})
		for _, a := range in.Stores[i].Locks {
			if !a.Shared {
				note(a.UserKey, a.Lock, true)
			}
		}
		for _, a := range in.Stores[i].Logged {
			if a.Lock.Pessimistic() {
				continue // a statement that was rolled back leaves the key without a trace
			}
			note(a.UserKey, a.Lock, !a.Applied)
			if !a.Applied {
				e.logged[i][string(a.UserKey)] = append(e.logged[i][string(a.UserKey)], a.Lock)
			}
		}
	}
	j := newJudge(mvcc.MaxTS, e)
	// In the order of keys: what is looked up next lies near what was looked up last.
	for _, k := range slices.SortedFunc(maps.Keys(seen), func(a, b TxnKey) int { return cmp.Or(cmp.Compare(a.Primary, b.Primary), compareTxn(a, b)) }) {
		t, err := l.transaction(in, e, j, k, seen[k])
		if err != nil {
			return err
		}
		if t == nil {
			continue
		}
		l.Txns = append(l.Txns, *t)
		l.ByState[t.State]++
		if t.State == TxnTorn && (l.TornAt == 0 || t.CommitTS < l.TornAt) {
			l.TornAt, l.TornTime = t.CommitTS, t.CommitTime
		}
	}
	slices.SortFunc(l.Txns, func(a, b TxnLimit) int {
		return cmp.Or(cmp.Compare(slices.Index(txnStates, a.State), slices.Index(txnStates, b.State)), compareTxn(a.Txn, b.Txn))
	})
	for i := range l.Txns {
		if t := &l.Txns[i]; t.Locks > 0 && t.State != TxnBehind && (l.OldestLock == nil || t.Txn.StartTS < l.OldestLock.Txn.StartTS) {
			l.OldestLock = t
		}
	}
	return nil
}

// transaction looks up the keys of one transaction; nil: it is finished.
func (l *Limits) transaction(in LimitsInput, e *limitsEvidence, j *judge, k TxnKey, seen *txnSeen) (*TxnLimit, error) {
	t := &TxnLimit{Txn: k, Async: seen.async}
	lost := 0 // keys that it had prewritten, if it has committed at all
	for _, key := range slices.Sorted(maps.Keys(seen.keys)) {
		at, err := e.key([]byte(key), k.StartTS)
		if err != nil {
			return nil, err
		}
		t.Keys = append(t.Keys, at)
		switch at.State {
		case KeyCommitted, KeyCommitWaits:
			t.CommitTS = max(t.CommitTS, at.CommitTS)
		case KeyLocked, KeyLockWaits, KeyPessimistic:
			t.Locks++
		case KeyMissing, KeyRolledBack, KeyRollbackWait:
			if seen.keys[key] {
				lost++
			}
		}
	}
	if t.CommitTS != 0 && lost > 0 && !collected(in.PD, t.CommitTS) {
		t.State, t.CommitTime = TxnTorn, timeIfAny(t.CommitTS)
		t.Reason = "committed, and " + plural(lost, "key") + " that it had prewritten have neither a record nor a lock"
		return t, nil
	}
	if !seen.held {
		return nil, nil
	}
	if !seen.written {
		t.State, t.Reason = TxnPessimistic, "it has only taken pessimistic locks, which hold no data"
		if t.Locks == 0 {
			t.State, t.Reason = TxnBehind, behindReason
		}
		return t, nil
	}
	v, err := j.verdict(k)
	if err != nil {
		return nil, err
	}
	t.Reason = v.Reason
	switch {
	case v.Outcome == OutcomeCommitted:
		t.State, t.CommitTS = TxnCommitted, v.CommitTS
	case t.CommitTS != 0:
		t.State, t.Reason = TxnCommitted, "another key of it committed at "+t.CommitTS.String()
	case v.Outcome == OutcomeRolledBack:
		t.State = TxnIncomplete
		if t.Named(KeyRolledBack)+t.Named(KeyRollbackWait) > 0 {
			t.State = TxnRolledBack
		}
	case v.Outcome == OutcomePending:
		t.State = TxnPending
	default:
		t.State = TxnUnknown
	}
	t.CommitTime = timeIfAny(t.CommitTS)
	if t.Locks == 0 && t.State != TxnUnknown {
		t.State, t.Reason = TxnBehind, behindReason
	}
	return t, nil
}

const behindReason = "finished where its regions have come furthest, or by log entries that wait; its locks are what is behind"

// collected tells whether garbage collection may have removed the traces of what was committed at commit. Without PD that is not known, and the
// words say so.
func collected(pd *PDReport, commit mvcc.TS) bool { return pd != nil && commit <= pd.SafePoint }
