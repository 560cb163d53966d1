package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// LockAt is one lock and where it is. An inner lock of a shared lock is one LockAt with Shared set.
type LockAt struct {
	UserKey []byte
	Lock    mvcc.Lock
	Shared  bool
}

// Evidence looks up, in the stores that were given and before anything is changed, what tells a transaction's outcome.
// All keys are raw user keys. A key whose region is on several of the stores is looked up in all its replicas.
type Evidence interface {
	// WriteByStart finds the Put, Delete or Lock record with this start_ts; its commit_ts is ≥ start.
	WriteByStart(user []byte, start mvcc.TS) (commit mvcc.TS, w mvcc.Write, found bool, err error)
	// RollbackAt reports a Rollback record, or a record with the overlapped-rollback flag, at ts = start.
	RollbackAt(user []byte, start mvcc.TS) (bool, error)
	// LockOf gives the locks of a key: none, one, or the inner ones of a shared lock.
	LockOf(user []byte) ([]mvcc.Lock, error)
	// Here reports whether the key's region is on the stores that were given.
	Here(user []byte) bool
}

// Act is what happens to a lock.
type Act uint8

const (
	// Remove deletes the lock: the transaction did not commit at or before T.
	Remove Act = iota
	// Commit replaces the lock by the write record of its commit.
	Commit
	// Undecided leaves the lock: the evidence is elsewhere.
	Undecided
)

func (a Act) String() string {
	switch a {
	case Remove:
		return "remove"
	case Commit:
		return "commit"
	case Undecided:
		return "undecided"
	}
	return fmt.Sprintf("act %d", uint8(a))
}

// MarshalText gives the name.
func (a Act) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// LockDecision is what happens to one lock, and why.
//
// Invariants: Commit ⇒ start_ts < CommitTS ≤ T and the lock is neither pessimistic nor shared; DefaultRow ⇒ Remove and the
// lock is a Put without a short value.
type LockDecision struct {
	UserKey    []byte
	Lock       mvcc.Lock
	Shared     bool
	Act        Act
	CommitTS   mvcc.TS // with Commit
	Reason     string  // for the operator
	DefaultRow bool    // the default-CF row (UserKey, Lock.StartTS) goes with the lock
}

// Record is the write record that replaces a committed lock, at CommitTS.
func (d LockDecision) Record() mvcc.Write { return d.Lock.CommitRecord(d.CommitTS) }

// Visible is what a read at T sees of the lock's key because of this decision: with ok the record is the newest version ≤ T
// (a lock keeps every other transaction from writing a newer one), without it the lock counts for nothing.
func (d LockDecision) Visible() (w mvcc.Write, commitTS mvcc.TS, ok bool) {
	if d.Act != Commit {
		return mvcc.Write{}, 0, false
	}
	return d.Record(), d.CommitTS, true
}

// DecideLocks decides every lock of a set of stores for a rewind to t, one by one but the same for all locks of one
// transaction. Locks that cannot be decided are listed in one UnresolvedLocks problem. An error is one of ev.
//
// The rules, in their order (T the target; S start_ts, U for_update_ts, M min_commit_ts of the lock):
//  1. S > T, U > T or M > T: it cannot commit at ≤ T. Remove.
//  2. A pessimistic lock holds no data, a shared one only locks. Remove.
//  3. The transaction's outcome, see Judge: committed at C ≤ T is committed here too, everything else is removed. Removing an
//     undecided transaction rolls it back, which is consistent because all its locks go, on all stores.
//
// Decisions come in the order of locks. They also serve a read at t that changes nothing.
func DecideLocks(t mvcc.TS, locks []LockAt, ev Evidence) ([]LockDecision, []Problem, error) {
	return NewDecider(t, ev).all(locks)
}

// Decider is DecideLocks for locks that come one at a time, because all of them do not fit into memory: every lock is given to Note first,
// and then, from the beginning, to Decide. Held are the transactions that were in flight at T, and the ones that cannot be decided up to
// a bound.
type Decider struct {
	j          *judge
	unresolved UnresolvedLocks
	seen       map[TxnKey]bool
}

// NewDecider decides by the evidence of the stores that were given.
func NewDecider(t mvcc.TS, ev Evidence) *Decider {
	return &Decider{j: newJudge(t, ev), seen: map[TxnKey]bool{}}
}

// NewVerdictDecider is NewDecider with DecideByVerdicts's rules.
func NewVerdictDecider(t mvcc.TS, verdicts []TxnVerdict, local Evidence) *Decider {
	d := NewDecider(t, elsewhere{local})
	d.j.given = make(map[TxnKey]Verdict, len(verdicts))
	for _, v := range verdicts {
		d.j.given[v.Txn] = v.Verdict
	}
	return d
}

// With gives a decider that knows what d has noted and asks other evidence about the same stores, so that several goroutines can decide.
// d must not be told anything more.
func (d *Decider) With(ev Evidence) *Decider {
	if _, ok := d.j.ev.(elsewhere); ok {
		ev = elsewhere{ev}
	}
	j := newJudge(d.j.t, ev)
	j.late, j.given, j.verdicts = d.j.late, d.j.given, d.j.verdicts
	return &Decider{j: j, seen: map[TxnKey]bool{}}
}

// Note looks at a lock before the first one is decided.
func (d *Decider) Note(l LockAt) {
	if l.Lock.StartTS <= d.j.t { // all locks of the others say of themselves that they are too late
		d.j.note(l)
	}
}

// maxUndecided is how many undecided transactions a problem names.
const maxUndecided = 1 << 16

// Decide decides one lock.
func (d *Decider) Decide(l LockAt) (LockDecision, error) {
	out := LockDecision{UserKey: l.UserKey, Lock: l.Lock, Shared: l.Shared}
	if err := d.j.decide(&out); err != nil || out.Act != Undecided {
		return out, err
	}
	d.unresolved.Keys++
	if k := txnOf(l.Lock); !d.seen[k] {
		if d.unresolved.More = len(d.seen) == maxUndecided; !d.unresolved.More {
			d.seen[k] = true
			d.unresolved.Txns = append(d.unresolved.Txns, k)
		}
	}
	return out, nil
}

// Problems are what could not be decided.
func (d *Decider) Problems() []Problem {
	if d.unresolved.Keys == 0 {
		return nil
	}
	slices.SortFunc(d.unresolved.Txns, func(a, b TxnKey) int {
		return cmp.Or(cmp.Compare(a.StartTS, b.StartTS), strings.Compare(a.Primary, b.Primary))
	})
	return []Problem{&d.unresolved}
}

func (d *Decider) all(locks []LockAt) ([]LockDecision, []Problem, error) {
	for _, l := range locks {
		d.Note(l)
	}
	out := make([]LockDecision, 0, len(locks))
	for _, l := range locks {
		one, err := d.Decide(l)
		if err != nil {
			return nil, nil, err
		}
		out = append(out, one)
	}
	return out, d.Problems(), nil
}

func txnOf(l mvcc.Lock) TxnKey { return TxnKey{Primary: string(l.Primary), StartTS: l.StartTS} }

// judge caches verdicts of transactions: the same evidence gives the same verdict again.
type judge struct {
	t        mvcc.TS
	ev       Evidence
	verdicts *verdicts
	given    map[TxnKey]Verdict // not to be judged: another one did
	// late holds the transactions with a prewritten lock here that cannot commit at ≤ T. A commit_ts is ≥ every M and > every
	// U of its transaction, so this decides the other locks even when the primary cannot be seen.
	late map[TxnKey]late
}

func newJudge(t mvcc.TS, ev Evidence) *judge {
	return &judge{t: t, ev: ev, verdicts: &verdicts{of: make(map[TxnKey]Verdict)}, late: make(map[TxnKey]late)}
}

func (j *judge) note(l LockAt) {
	if l.Lock.Pessimistic() {
		return
	}
	if why := tooLate(j.t, l.Lock); why.field != notLate {
		j.late[txnOf(l.Lock)] = why
	}
}

// late says why a lock cannot commit at or before T, in few bytes: many transactions may be remembered.
type late struct {
	field lateField
	ts    mvcc.TS
}

type lateField uint8

const (
	notLate lateField = iota
	lateStart
	lateForUpdate
	lateMinCommit
)

func (l late) String() string {
	switch l.field {
	case lateStart:
		return fmt.Sprintf("the transaction started at %s, after T", l.ts)
	case lateForUpdate:
		return fmt.Sprintf("for_update_ts %s is after T, so it cannot have committed at or before T", l.ts)
	case lateMinCommit:
		return fmt.Sprintf("min_commit_ts %s is after T, so it cannot have committed at or before T", l.ts)
	}
	return ""
}

// tooLate says why a lock cannot commit at ≤ t, if so.
func tooLate(t mvcc.TS, l mvcc.Lock) late {
	switch {
	case l.StartTS > t:
		return late{lateStart, l.StartTS}
	case l.ForUpdateTS > t:
		return late{lateForUpdate, l.ForUpdateTS}
	case l.MinCommitTS > t:
		return late{lateMinCommit, l.MinCommitTS}
	}
	return late{}
}

func (j *judge) decide(d *LockDecision) error {
	l := d.Lock
	d.Act = Remove
	d.DefaultRow = l.NeedsDefault() && !d.Shared
	if why := tooLate(j.t, l); why.field != notLate {
		d.Reason = why.String()
		return j.spareOwnValue(d)
	}
	if l.Pessimistic() {
		d.Reason = "a pessimistic lock that was not prewritten holds no data"
		return nil
	}
	if d.Shared {
		d.Reason = "a shared lock holds no data"
		return nil
	}
	v, err := j.verdict(txnOf(l))
	if err != nil {
		return err
	}
	d.Reason = v.Reason
	switch {
	case v.Outcome == OutcomeUnknown:
		d.Act = Undecided
		d.DefaultRow = false
		return nil
	case v.Outcome == OutcomeCommitted && v.CommitTS <= j.t:
		d.Act, d.CommitTS = Commit, v.CommitTS
		d.DefaultRow = false
		return nil
	}
	return j.spareOwnValue(d)
}

// spareOwnValue keeps the default row of a removed lock when a version ≤ T at the same key has the same start_ts: the row is
// that version's value. TiKV removes the lock when it writes such a version, so this takes a damaged store; but the row would
// be somebody's data.
func (j *judge) spareOwnValue(d *LockDecision) error {
	if !d.DefaultRow || d.Lock.StartTS >= j.t {
		return nil
	}
	commit, _, found, err := j.ev.WriteByStart(d.UserKey, d.Lock.StartTS)
	if err != nil {
		return err
	}
	if found && commit <= j.t {
		d.DefaultRow = false
		d.Reason += fmt.Sprintf("; its value stays, it belongs to the version committed at %s", commit)
	}
	return nil
}
