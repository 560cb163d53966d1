package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// transactions gives the verdict on every transaction that has a lock with start_ts ≤ T on any store, from the lock reports and from the
// answers to the questions that it asks.
func (pl *planner) transactions() {
	if !pl.rewind() {
		return
	}
	ev := &answered{pl: pl, locks: map[string][]*LockReport{}}
	j := newJudge(pl.opt.ToTS, ev)
	byTxn := map[TxnKey]int{}
	keys := map[TxnKey]map[string]bool{} // keys to ask about
	for _, l := range pl.in.Locks {
		ev.locks[string(l.Key)] = append(ev.locks[string(l.Key)], l)
		lock := l.lock()
		j.note(LockAt{UserKey: l.Key, Lock: lock})
		k := txnOf(lock)
		byTxn[k]++
		if keys[k] == nil {
			keys[k] = map[string]bool{k.Primary: true}
		}
		for _, s := range l.Secondaries {
			keys[k][string(s)] = true
		}
	}
	unresolved := UnresolvedLocks{}
	for _, k := range slices.SortedFunc(maps.Keys(byTxn), compareTxn) {
		v := TxnVerdict{Txn: k, Locks: byTxn[k]}
		if late, ok := j.late[k]; ok {
			v.Verdict = Verdict{Outcome: OutcomeLate, Reason: late.String()}
			pl.txns = append(pl.txns, v)
			continue
		}
		open := false
		for _, key := range slices.Sorted(maps.Keys(keys[k])) {
			q := keyQuestion(raftstate.Key(key), k.StartTS, pl.storeID)
			if !pl.answeredBy(q) {
				pl.ask[q.ID], open = q, true
			}
		}
		if open {
			v.Verdict = Verdict{Outcome: OutcomeUnknown, Reason: "asked: collect --answer, then plan again"}
			pl.txns = append(pl.txns, v)
			continue
		}
		ev.start = k.StartTS
		verdict, err := j.verdict(k)
		if err != nil {
			verdict = Verdict{Outcome: OutcomeUnknown, Reason: err.Error()}
		}
		if v.Verdict = verdict; verdict.Outcome == OutcomeUnknown {
			unresolved.Keys += v.Locks
			unresolved.Txns = append(unresolved.Txns, k)
		}
		pl.txns = append(pl.txns, v)
	}
	if unresolved.Keys > 0 {
		pl.problem(&unresolved)
	}
}

func compareTxn(a, b TxnKey) int {
	return cmp.Or(cmp.Compare(a.StartTS, b.StartTS), cmp.Compare(a.Primary, b.Primary))
}

// lock is the lock as far as decisions need it.
func (l *LockReport) lock() mvcc.Lock {
	m := mvcc.Lock{Primary: l.Primary, StartTS: l.StartTS, ForUpdateTS: l.ForUpdateTS, MinCommitTS: l.MinCommitTS, AsyncCommit: l.AsyncCommit, HasShortValue: l.ShortValue}
	if len(l.Type) == 1 {
		m.Type = l.Type[0]
	}
	for _, s := range l.Secondaries {
		m.Secondaries = append(m.Secondaries, s)
	}
	return m
}

func keyQuestion(key raftstate.Key, start mvcc.TS, stores []uint64) *Question {
	return &Question{ID: fmt.Sprintf("key-%s-%s", key, start), Kind: AskKey, Stores: stores, Key: key, StartTS: start,
		Reason: "what became of the transaction that was begun at " + start.String()}
}

// answeredBy tells whether every store that a question goes to has answered it.
func (pl *planner) answeredBy(q *Question) bool {
	for _, s := range q.Stores {
		if pl.answerOf(q.ID, s) == nil {
			return false
		}
	}
	return true
}

func (pl *planner) answerOf(id string, store uint64) *Answer {
	for _, a := range pl.answers[id] {
		if a.StoreID == store {
			return a
		}
	}
	return nil
}

// answered is the Evidence of the answers. A commit or rollback record is a fact wherever it was applied; that there is none, or that there
// is a lock, counts only where the replica is that the region goes on with.
type answered struct {
	pl    *planner
	locks map[string][]*LockReport // by raw user key
	start mvcc.TS                  // of the transaction that is being judged
}

// home finds the peer that the region of a key goes on with.
func (e *answered) home(user []byte) *PeerReport {
	enc := mvcc.EncodeBytes(nil, user)
	f := e.pl.final
	i, found := slices.BinarySearchFunc(f, enc, func(p placed, k []byte) int { return bytes.Compare(p.start, k) })
	if !found {
		i--
	}
	if i < 0 || !startBeforeEnd(enc, f[i].end) {
		return nil
	}
	if g := f[i].g; g != nil {
		if g.choice == nil {
			return nil
		}
		return g.choice.winner
	}
	// A region that a split carried out by the plan gives birth to: its data is its parent's.
	for j := range e.pl.groups {
		if g := &e.pl.groups[j]; g.choice != nil && len(g.choice.members) > 0 {
			for _, s := range g.choice.member(g.choice.winner.StoreID).steps {
				for _, c := range s.children {
					if c.ID == f[i].virtual.ID {
						return g.choice.winner
					}
				}
			}
		}
	}
	return nil
}

// counts tells whether a fact is part of the result: it is in the data of some replica, or in a log entry that the winner has, too.
func (e *answered) counts(a *Answer, index uint64) bool {
	if index == 0 {
		return true
	}
	g := e.pl.group(a.RegionID)
	p := g.peerOn(a.StoreID)
	if p == nil || g.choice == nil {
		return false
	}
	return index <= commonEnd(g.choice.winner, p) && index <= g.choice.resultEnd
}

func (e *answered) facts(user []byte, start mvcc.TS, f func(a *Answer, k KeyFact) bool) {
	for _, a := range e.pl.answers[keyQuestion(user, start, nil).ID] {
		for _, k := range a.Facts {
			if e.counts(a, k.Index) && f(a, k) {
				return
			}
		}
	}
}

// WriteByStart is part of Evidence, as are the following.
func (e *answered) WriteByStart(user []byte, start mvcc.TS) (commit mvcc.TS, w mvcc.Write, found bool, err error) {
	e.facts(user, start, func(_ *Answer, k KeyFact) bool {
		if k.Commit != nil && len(k.Commit.Type) == 1 {
			commit, w, found = k.Commit.CommitTS, mvcc.Write{Type: k.Commit.Type[0], StartTS: start}, true
		}
		return found
	})
	return commit, w, found, nil
}

func (e *answered) RollbackAt(user []byte, start mvcc.TS) (rolled bool, err error) {
	e.facts(user, start, func(_ *Answer, k KeyFact) bool {
		rolled = k.Rollback
		return rolled
	})
	return rolled, nil
}

func (e *answered) LockOf(user []byte) (out []mvcc.Lock, err error) {
	home := e.home(user)
	if home == nil {
		return nil, nil
	}
	for _, l := range e.locks[string(user)] {
		if l.StoreID != home.StoreID {
			continue
		}
		if g := e.pl.group(l.RegionID); l.Index > 0 && (g == nil || g.choice == nil || l.Index > g.choice.resultEnd) {
			continue
		}
		gone := false
		e.facts(user, l.StartTS, func(a *Answer, k KeyFact) bool {
			gone = k.Unlock && a.StoreID == home.StoreID && k.Index > l.Index
			return gone
		})
		if !gone {
			out = append(out, l.lock())
		}
	}
	return out, nil
}

func (e *answered) Here(user []byte) bool {
	h := e.home(user)
	if h == nil {
		return false
	}
	a := e.pl.answerOf(keyQuestion(user, e.start, nil).ID, h.StoreID)
	return a != nil && a.Here
}

// elsewhere is the Evidence of a store that only carries out a plan: the outcome of each transaction is given, what is asked is its own data.
type elsewhere struct{ Evidence }

func (elsewhere) Here([]byte) bool { return false }

// DecideByVerdicts is DecideLocks for one store of a plan: the outcome of each transaction is the plan's. local answers about this store; it
// is asked only whether a removed lock's value belongs to somebody else. A lock of a transaction that the plan does not know, and that rules
// 1 and 2 do not decide, is UnresolvedLocks.
func DecideByVerdicts(t mvcc.TS, locks []LockAt, verdicts []TxnVerdict, local Evidence) ([]LockDecision, []Problem, error) {
	return NewVerdictDecider(t, verdicts, local).all(locks)
}
