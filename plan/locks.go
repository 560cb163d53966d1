package plan

import (
	"bytes"
	"fmt"
	"slices"

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
	return newJudge(t, ev).decideAll(locks)
}

func (j *judge) decideAll(locks []LockAt) ([]LockDecision, []Problem, error) {
	for _, l := range locks {
		j.note(l)
	}
	out := make([]LockDecision, 0, len(locks))
	unresolved := UnresolvedLocks{}
	seen := make(map[TxnKey]bool)
	for _, l := range locks {
		d := LockDecision{UserKey: l.UserKey, Lock: l.Lock, Shared: l.Shared}
		if err := j.decide(&d); err != nil {
			return nil, nil, err
		}
		if d.Act == Undecided {
			unresolved.Keys++
			if k := txnOf(l.Lock); !seen[k] {
				seen[k] = true
				unresolved.Txns = append(unresolved.Txns, k)
			}
		}
		out = append(out, d)
	}
	if unresolved.Keys == 0 {
		return out, nil, nil
	}
	slices.SortFunc(unresolved.Txns, func(a, b TxnKey) int {
		if a.StartTS != b.StartTS {
			if a.StartTS < b.StartTS {
				return -1
			}
			return 1
		}
		return bytes.Compare([]byte(a.Primary), []byte(b.Primary))
	})
	return out, []Problem{&unresolved}, nil
}

func txnOf(l mvcc.Lock) TxnKey { return TxnKey{Primary: string(l.Primary), StartTS: l.StartTS} }

// judge caches one verdict per transaction.
type judge struct {
	t        mvcc.TS
	ev       Evidence
	verdicts map[TxnKey]Verdict
	// late holds the transactions with a prewritten lock here that cannot commit at ≤ T. A commit_ts is ≥ every M and > every
	// U of its transaction, so this decides the other locks even when the primary cannot be seen.
	late map[TxnKey]string
}

func newJudge(t mvcc.TS, ev Evidence) *judge {
	return &judge{t: t, ev: ev, verdicts: make(map[TxnKey]Verdict), late: make(map[TxnKey]string)}
}

func (j *judge) note(l LockAt) {
	if l.Lock.Pessimistic() {
		return
	}
	if why := tooLate(j.t, l.Lock); why != "" {
		j.late[txnOf(l.Lock)] = why
	}
}

// tooLate says why a lock cannot commit at ≤ t, or "".
func tooLate(t mvcc.TS, l mvcc.Lock) string {
	switch {
	case l.StartTS > t:
		return fmt.Sprintf("the transaction started at %s, after T", l.StartTS)
	case l.ForUpdateTS > t:
		return fmt.Sprintf("for_update_ts %s is after T, so it cannot have committed at or before T", l.ForUpdateTS)
	case l.MinCommitTS > t:
		return fmt.Sprintf("min_commit_ts %s is after T, so it cannot have committed at or before T", l.MinCommitTS)
	}
	return ""
}

func (j *judge) decide(d *LockDecision) error {
	l := d.Lock
	d.Act = Remove
	d.DefaultRow = l.NeedsDefault() && !d.Shared
	if why := tooLate(j.t, l); why != "" {
		d.Reason = why
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
