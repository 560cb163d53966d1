package plan

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// AboveMinResolved: PD did not know T to be resolved on all stores.
type AboveMinResolved struct {
	T           mvcc.TS `json:"to_ts"`
	MinResolved mvcc.TS `json:"min_resolved_ts,omitempty"` // the latest that is proven; 0: none is
	Source      string  `json:"source"`
}

func (*AboveMinResolved) Name() string       { return "above-min-resolved" }
func (*AboveMinResolved) Severity() Severity { return Warning }
func (*AboveMinResolved) Where() string      { return "" }
func (p *AboveMinResolved) What() string {
	if p.MinResolved == 0 {
		return fmt.Sprintf("nothing proves that a site alone is whole at T %s (%s): %s", p.T, rfc3339(p.T), p.Source)
	}
	return fmt.Sprintf("T %s (%s) is later than the cluster's min-resolved-ts %s (%s; %s): with stores missing, or after an asynchronous switch to another site, nothing proves that T is whole",
		p.T, rfc3339(p.T), p.MinResolved, rfc3339(p.MinResolved), p.Source)
}
func (*AboveMinResolved) Next() string {
	return "--to-ts min-resolved-ts returns to what PD knew to be whole; with all stores of the cluster at hand, T is as good as they are"
}

// aboveMinResolved compares T with what PD knew to be whole; nil: T is not above it, or nothing makes that a question.
func (p *PDReport) aboveMinResolved(t mvcc.TS) *AboveMinResolved {
	switch {
	case p.ConsistentTS != 0 && t > p.ConsistentTS:
		return &AboveMinResolved{T: t, MinResolved: p.ConsistentTS, Source: p.ConsistentWhy}
	case p.ConsistentTS == 0 && p.DRState != "":
		return &AboveMinResolved{T: t, Source: p.ConsistentWhy}
	}
	return nil
}

// PDBehindStore: the PD directory is older than the store.
type PDBehindStore struct {
	Store    uint64  `json:"store_id"`
	Newest   mvcc.TS `json:"newest_commit_ts"`
	TSOFloor mvcc.TS `json:"tso_floor"`
	Source   string  `json:"source"`
}

func (*PDBehindStore) Name() string       { return "pd-behind-store" }
func (*PDBehindStore) Severity() Severity { return Error }
func (p *PDBehindStore) Where() string    { return atStore(p.Store) }
func (p *PDBehindStore) What() string {
	return fmt.Sprintf("the newest commit %s (%s) is later than every timestamp that this PD gave out (up to %s, %s; %s): the PD directory is older than the store, and so is its safe point",
		p.Newest, rfc3339(p.Newest), p.TSOFloor, rfc3339(p.TSOFloor), p.Source)
}
func (*PDBehindStore) Next() string {
	return "give the directories of more PD members with --pd, or state the safe point with --safe-point and accept this"
}
