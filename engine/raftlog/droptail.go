package raftlog

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// Drop asks for one region's log to end at its applied index.
type Drop struct {
	Region uint64
	Raft   *raftstate.RaftLocalState // nil: no record
	Apply  *raftstate.RaftApplyState // nil: no record
	// MinTerm raises hard_state.term to at least this value; 0 leaves it. A raised term takes the vote away.
	MinTerm uint64
	// KeepHistory keeps the entries in (truncated, applied]: other replicas can catch up from them. Otherwise the log is empty
	// afterwards, and truncated is the applied index.
	KeepHistory bool
}

// Dropped are the records that belong to a log that ends at the applied index. Raft goes into the batch; Apply into the raft column
// family of the kv db, after the raft store: a server that starts between the two finds no entry where the old apply state needs
// one, and stops. The other way round it would start and apply the tail.
type Dropped struct {
	Raft  raftstate.RaftLocalState
	Apply raftstate.RaftApplyState
	// Index and Term are the applied index and its term. The entry that says so may be gone afterwards.
	Index, Term uint64
	// First and Last are the entries that went out of use; none if Last < First.
	First, Last uint64
	// History tells that the entries in (truncated, applied] stayed.
	History bool
}

// DropTail adds to b what makes the log of a region end at its applied index A, and gives the new records. With A > last_index
// (entries applied before they were persisted) the log becomes an ordinary one again; that is for a single kept replica only.
// Unapplied entries of quorums are lost: whether they may be is the caller's decision.
//
//	                 raft state                              apply state                         log
//	universal        last = commit = A, term >= term(A)      truncated = commit = A, term(A)     empty
//	keep history     the same                                commit = A, term(A)                 (truncated, A]
//
// Source: the start rules, raftstate.StartCheck. The error is of class ErrProblems when the term of A is not known, ErrCorrupt
// when the log does not read.
func DropTail(b *Batch, s Store, d Drop) (Dropped, error) {
	raft, apply := raftstate.InitialRaftState(), raftstate.InitialApplyState()
	if d.Raft != nil {
		raft = *d.Raft
	}
	if d.Apply != nil {
		apply = *d.Apply
	}
	now := raftstate.Derive(d.Raft, d.Apply)
	a := now.Applied
	terms := &Terms{Store: s, Region: d.Region}
	term, ok := now.TermOf(a, terms.Term)
	if terms.Err != nil {
		return Dropped{}, terms.Err
	}
	refuse := func(format string, args ...any) error {
		return &base.Error{Class: base.ErrProblems, Op: "drop the tail", Offset: -1, Region: d.Region, Reason: fmt.Sprintf(format, args...)}
	}
	if !ok || term == 0 {
		return Dropped{}, refuse("the term of applied_index %d is not known: the entry is not there", a)
	}
	if a < apply.TruncatedState.Index {
		return Dropped{}, refuse("applied_index %d is below the truncated index %d", a, apply.TruncatedState.Index)
	}
	out := Dropped{Index: a, Term: term, First: a + 1, Last: max(a, now.Last), History: d.KeepHistory && a > apply.TruncatedState.Index && a <= now.Last}
	h := raft.HardState
	h.Commit = a
	if t := max(h.Term, term, d.MinTerm); t != h.Term {
		h.Term, h.Vote = t, 0
	}
	var err error
	if out.Raft, err = raft.With(h, a); err != nil {
		return Dropped{}, err
	}
	if out.Apply, err = apply.WithCommit(a, term); err != nil {
		return Dropped{}, err
	}
	if out.History {
		entry, err := wholeHistory(s, d.Region, apply.TruncatedState.Index, a)
		if err != nil {
			return Dropped{}, err
		}
		// An entry that is written again takes away all above it; there is no other way to say so to raft-engine.
		if err := b.Entries(d.Region, []raftstate.Entry{entry}); err != nil {
			return Dropped{}, err
		}
	} else {
		if out.Apply, err = out.Apply.WithTruncated(raftstate.TruncatedState{Index: a, Term: term}); err != nil {
			return Dropped{}, err
		}
		b.Clean(d.Region)
	}
	return out, b.PutState(d.Region, out.Raft)
}

// wholeHistory demands every entry in (truncated, applied] and returns the last one.
func wholeHistory(s Store, region, truncated, applied uint64) (raftstate.Entry, error) {
	next := truncated + 1
	var last raftstate.Entry
	err := s.Entries(region, next, applied+1, func(e raftstate.Entry) error {
		if e.Index != next {
			return missing(region, next)
		}
		next++
		if e.Index == applied {
			last = e
			last.Raw = append([]byte(nil), e.Raw...)
		}
		return nil
	})
	if err == nil && next != applied+1 {
		err = missing(region, next)
	}
	return last, err
}

func missing(region, index uint64) error {
	return &base.Error{Class: base.ErrProblems, Op: "keep the history of the log", Offset: -1, Region: region,
		Reason: fmt.Sprintf("entry %d is not there", index)}
}
