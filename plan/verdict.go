package plan

import (
	"fmt"
	"sync"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// Outcome of a transaction.
type Outcome uint8

const (
	// OutcomeUnknown: the evidence is on a store that was not given.
	OutcomeUnknown Outcome = iota
	// OutcomeCommitted: at Verdict.CommitTS.
	OutcomeCommitted
	// OutcomeRolledBack: it can never commit.
	OutcomeRolledBack
	// OutcomePending: nobody decided it; TiKV would at a commit_ts after T, or roll it back.
	OutcomePending
	// OutcomeLate: not decided, but it cannot have committed at or before T.
	OutcomeLate
)

func (o Outcome) String() string {
	switch o {
	case OutcomeUnknown:
		return "unknown"
	case OutcomeCommitted:
		return "committed"
	case OutcomeRolledBack:
		return "rolled-back"
	case OutcomePending:
		return "pending"
	case OutcomeLate:
		return "late"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// MarshalText gives the name.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads the name.
func (o *Outcome) UnmarshalText(b []byte) error {
	for x := OutcomeUnknown; x <= OutcomeLate; x++ {
		if x.String() == string(b) {
			*o = x
			return nil
		}
	}
	return fmt.Errorf("unknown outcome %q", b)
}

// Verdict is what the evidence says about one transaction. Invariant: CommitTS ≠ 0 ⇔ Outcome = OutcomeCommitted.
type Verdict struct {
	Outcome  Outcome `json:"outcome"`
	CommitTS mvcc.TS `json:"commit_ts,omitempty"`
	Reason   string  `json:"reason"`
}

// Judge gives the verdict on one transaction. The first hit at the primary p decides for all its locks:
//  1. a Put, Delete or Lock record of p with start_ts S: committed at its commit_ts;
//  2. a Rollback or overlapped rollback of p at S: rolled back;
//  3. a lock of p with start_ts S: pessimistic → nothing was decided; async commit → see async; otherwise nothing was decided;
//  4. nothing: rolled back, because the primary is the first to be prewritten and the last to go.
func Judge(t mvcc.TS, k TxnKey, ev Evidence) (Verdict, error) {
	return newJudge(t, ev).verdict(k)
}

// maxVerdicts bounds the memory, to some 4 MiB: the locks of a transaction often lie side by side, so that little is judged twice.
const maxVerdicts = 1 << 14

// verdicts are those that were found last, of one judge or of several that have the same evidence.
type verdicts struct {
	mu sync.Mutex
	of map[TxnKey]Verdict
}

func (c *verdicts) find(k TxnKey) (Verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.of[k]
	return v, ok
}

func (c *verdicts) keep(k TxnKey, v Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.of) >= maxVerdicts {
		clear(c.of)
	}
	c.of[k] = v
}

func (j *judge) verdict(k TxnKey) (Verdict, error) {
	if v, ok := j.given[k]; ok {
		return v, nil
	}
	if v, ok := j.verdicts.find(k); ok {
		return v, nil
	}
	v, err := j.examine(k)
	if err != nil {
		return Verdict{}, fmt.Errorf("%s: %w", k, err)
	}
	j.verdicts.keep(k, v)
	return v, nil
}

func (j *judge) examine(k TxnKey) (Verdict, error) {
	p := []byte(k.Primary)
	if !j.ev.Here(p) {
		return j.unknown(k, "the primary key is on a store that was not given"), nil
	}
	commit, w, found, err := j.ev.WriteByStart(p, k.StartTS)
	if err != nil {
		return Verdict{}, err
	}
	if found {
		return j.committed(commit, fmt.Sprintf("the primary committed at %s (record %c)", commit, w.Type)), nil
	}
	rolled, err := j.ev.RollbackAt(p, k.StartTS)
	if err != nil {
		return Verdict{}, err
	}
	if rolled {
		return Verdict{Outcome: OutcomeRolledBack, Reason: "the primary was rolled back"}, nil
	}
	l, ok, err := j.lockOf(p, k.StartTS)
	switch {
	case err != nil:
		return Verdict{}, err
	case !ok:
		return Verdict{Outcome: OutcomeRolledBack, Reason: "the primary has neither a lock nor a record of this transaction: it was rolled back"}, nil
	case l.Pessimistic():
		return Verdict{Outcome: OutcomePending, Reason: "the primary is only locked pessimistically: the transaction did not commit"}, nil
	case l.AsyncCommit:
		return j.async(k, l)
	}
	return Verdict{Outcome: OutcomePending, Reason: "the primary is still locked: the transaction did not commit"}, nil
}

func (j *judge) lockOf(user []byte, start mvcc.TS) (mvcc.Lock, bool, error) {
	ls, err := j.ev.LockOf(user)
	if err != nil {
		return mvcc.Lock{}, false, err
	}
	for _, l := range ls {
		if l.StartTS == start {
			return l, true, nil
		}
	}
	return mvcc.Lock{}, false, nil
}

// committed says when, and on which side of T that is.
func (j *judge) committed(commit mvcc.TS, why string) Verdict {
	if commit > j.t {
		why += ", after T"
	}
	return Verdict{Outcome: OutcomeCommitted, CommitTS: commit, Reason: why}
}

// unknown is the verdict when a key cannot be seen, unless another lock of the transaction already excludes a commit ≤ T.
func (j *judge) unknown(k TxnKey, why string) Verdict {
	if late, ok := j.late[k]; ok {
		return Verdict{Outcome: OutcomeLate, Reason: "another lock of the transaction decides: " + late.String()}
	}
	return Verdict{Outcome: OutcomeUnknown, Reason: why}
}

// async decides a transaction whose primary p holds an async-commit lock and has no record. It is committed as soon as every
// key is prewritten, at the largest min_commit_ts, although no record says so. Its keys are p and the list in p's lock.
//   - a Put, Delete or Lock record with start_ts S at any key: committed there, so everywhere;
//   - a key locked without the async mark: the client fell back to two-phase commit, in which p's record would come first, so
//     nothing was decided;
//   - a min_commit_ts above T on any key: not at ≤ T, whatever the others say;
//   - a key that cannot be seen: unknown;
//   - a key without a prewritten lock: not committed;
//   - otherwise committed at C = max min_commit_ts.
//
// Invariant of a verdict "committed" from locks: C > S.
func (j *judge) async(k TxnKey, primary mvcc.Lock) (Verdict, error) {
	var (
		maxCommit                       = primary.MinCommitTS
		unseen, missing, fellBack       []byte
		isUnseen, isMissing, isFallback bool
	)
	for _, key := range primary.Secondaries {
		if !j.ev.Here(key) {
			unseen, isUnseen = key, true
			continue
		}
		commit, w, found, err := j.ev.WriteByStart(key, k.StartTS)
		if err != nil {
			return Verdict{}, err
		}
		if found {
			return j.committed(commit, fmt.Sprintf("async commit: key %s committed at %s (record %c)", upperHex(key), commit, w.Type)), nil
		}
		l, ok, err := j.lockOf(key, k.StartTS)
		switch {
		case err != nil:
			return Verdict{}, err
		case !ok || l.Pessimistic():
			missing, isMissing = key, true
		case !l.AsyncCommit:
			fellBack, isFallback = key, true
		default:
			maxCommit = max(maxCommit, l.MinCommitTS)
		}
	}
	switch {
	case isFallback:
		return Verdict{Outcome: OutcomePending, Reason: fmt.Sprintf(
			"async commit fell back to two phases at key %s and the primary has no record: the transaction did not commit", upperHex(fellBack))}, nil
	case maxCommit > j.t && (isUnseen || isMissing):
		return Verdict{Outcome: OutcomeLate, Reason: fmt.Sprintf(
			"async commit: a min_commit_ts of %s is after T, so it cannot have committed at or before T", maxCommit)}, nil
	case isUnseen:
		return j.unknown(k, fmt.Sprintf("async commit: key %s is on a store that was not given", upperHex(unseen))), nil
	case isMissing:
		return Verdict{Outcome: OutcomeRolledBack, Reason: fmt.Sprintf(
			"async commit: key %s was never prewritten, so the transaction did not commit", upperHex(missing))}, nil
	case maxCommit <= k.StartTS:
		return Verdict{Outcome: OutcomeUnknown, Reason: fmt.Sprintf(
			"async commit: no key is missing but the largest min_commit_ts %s is not above start_ts", maxCommit)}, nil
	}
	return j.committed(maxCommit, fmt.Sprintf("async commit: %s prewritten, none missing, so it committed at %s",
		plural(1+len(primary.Secondaries), "key"), maxCommit)), nil
}
