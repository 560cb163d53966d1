package plan

import (
	"fmt"
	"maps"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"unreadable-value":     func() Problem { return new(UnreadableValue) },
		"lost-value":           func() Problem { return new(LostValue) },
		"orphan-row":           func() Problem { return new(OrphanRow) },
		"timestamp-order":      func() Problem { return new(TimestampOrder) },
		"stray-keys":           func() Problem { return new(StrayKeys) },
		"data-outside-regions": func() Problem { return new(OutsideData) },
	})
}

// UnreadableValue: a visible record points to a value that cannot be read.
type UnreadableValue struct {
	Store  uint64 `json:"store_id,omitempty"`
	CF     string `json:"cf"`
	Key    string `json:"key"` // database key, upper-case hex
	Reason string `json:"reason"`
}

// Name is part of Problem, as are Severity, Where, What and Next of this and the following types.
func (*UnreadableValue) Name() string       { return "unreadable-value" }
func (*UnreadableValue) Severity() Severity { return Error }
func (p *UnreadableValue) Where() string {
	return places(atStore(p.Store), inCF(p.CF), "key "+p.Key)
}
func (p *UnreadableValue) What() string { return p.Reason }
func (p *UnreadableValue) Next() string {
	return "look at the key with mvcc --db-key " + p.Key + "; another replica of its region may have the value"
}

// LostValue: the newest version of a key, its lock, or a version that readers above the safe point still see, has no value.
type LostValue struct {
	Store    uint64  `json:"store_id,omitempty"`
	Key      string  `json:"key"` // user key, upper-case hex
	Lock     bool    `json:"lock,omitempty"`
	CommitTS mvcc.TS `json:"commit_ts,omitempty"`
	StartTS  mvcc.TS `json:"start_ts"`
	// Until is the commit_ts of the version that supersedes it; 0: none does. SafePoint is the one that was given.
	Until     mvcc.TS `json:"superseded_at,omitempty"`
	SafePoint mvcc.TS `json:"safe_point,omitempty"`
}

func (*LostValue) Name() string       { return "lost-value" }
func (*LostValue) Severity() Severity { return Error }
func (p *LostValue) Where() string    { return places(atStore(p.Store), "key "+p.Key) }
func (p *LostValue) What() string {
	of := fmt.Sprintf("the newest version, committed at %s,", p.CommitTS)
	if p.Until != 0 {
		of = fmt.Sprintf("the version committed at %s, which was superseded at %s, above the safe point %s, so that it is still read,", p.CommitTS, p.Until, p.SafePoint)
	}
	if p.Lock {
		of = "the lock of a transaction that is not finished"
	}
	return fmt.Sprintf("%s has no row at %s in the default column family", of, p.StartTS)
}
func (p *LostValue) Next() string {
	return "look at the key with mvcc --key " + p.Key + "; another replica of its region may have the value"
}

// OrphanRow: a value that no version and no lock owns. Garbage collection that could not finish leaves such rows behind, below the safe
// point; above it nothing does.
type OrphanRow struct {
	Store     uint64  `json:"store_id,omitempty"`
	Key       string  `json:"key"` // user key, upper-case hex
	StartTS   mvcc.TS `json:"start_ts"`
	SafePoint mvcc.TS `json:"safe_point,omitempty"` // 0: not known
}

func (*OrphanRow) Name() string { return "orphan-row" }
func (p *OrphanRow) Severity() Severity {
	if p.SafePoint != 0 && p.StartTS < p.SafePoint {
		return Info
	}
	return Warning
}
func (p *OrphanRow) Where() string { return places(atStore(p.Store), "key "+p.Key) }
func (p *OrphanRow) What() string {
	s := fmt.Sprintf("the row at %s in the default column family belongs to no version and no lock: it takes space and is never read", p.StartTS)
	switch {
	case p.SafePoint == 0:
		return s
	case p.StartTS < p.SafePoint:
		return s + "; garbage collection can have left it"
	}
	return fmt.Sprintf("%s; garbage collection cannot have left it, the safe point is %s", s, p.SafePoint)
}
func (p *OrphanRow) Next() string {
	if p.SafePoint != 0 && p.StartTS >= p.SafePoint {
		return "look at the key with mvcc --key " + p.Key + " and compare with another replica: its write record may be lost"
	}
	return "nothing has to be done; if there are many, compare with another replica: write records may be lost"
}

// TimestampOrder: a write record whose two timestamps contradict each other.
type TimestampOrder struct {
	Store    uint64  `json:"store_id,omitempty"`
	Key      string  `json:"key"` // user key, upper-case hex
	Type     string  `json:"type"`
	CommitTS mvcc.TS `json:"commit_ts"`
	StartTS  mvcc.TS `json:"start_ts"`
}

func (*TimestampOrder) Name() string       { return "timestamp-order" }
func (*TimestampOrder) Severity() Severity { return Error }
func (p *TimestampOrder) Where() string    { return places(atStore(p.Store), "key "+p.Key) }
func (p *TimestampOrder) What() string {
	if p.Type == "rollback" {
		return fmt.Sprintf("a rollback stands at %s but names start_ts %s: they must be equal", p.CommitTS, p.StartTS)
	}
	return fmt.Sprintf("a %s committed at %s has the later start_ts %s", p.Type, p.CommitTS, p.StartTS)
}
func (p *TimestampOrder) Next() string {
	return "look at the key with mvcc --key " + p.Key + " and compare with another replica"
}

// StrayKeys: keys that TiKV does not write into this column family.
type StrayKeys struct {
	Store   uint64 `json:"store_id,omitempty"`
	CF      string `json:"cf"`
	Records uint64 `json:"records"`
	First   string `json:"first_key"` // database key, upper-case hex
}

func (*StrayKeys) Name() string       { return "stray-keys" }
func (*StrayKeys) Severity() Severity { return Warning }
func (p *StrayKeys) Where() string    { return places(atStore(p.Store), inCF(p.CF)) }
func (p *StrayKeys) What() string {
	s := "s"
	if p.Records == 1 {
		s = ""
	}
	return fmt.Sprintf("%d key%s not of any form that TiKV writes here, the first is %s", p.Records, s, p.First)
}
func (p *StrayKeys) Next() string {
	if p.CF == "default" {
		return "raw data of API V1 beside transactional data looks like this; otherwise look with scan --cf default --from " + p.First
	}
	return "look at them with scan --cf " + p.CF + " --from " + p.First
}

// OutsideData: records between the regions of the store.
type OutsideData struct {
	Store   uint64            `json:"store_id,omitempty"`
	Start   string            `json:"start_key"` // database keys, upper-case hex
	End     string            `json:"end_key"`
	Records map[string]uint64 `json:"records"` // visible ones, by column family
}

func (*OutsideData) Name() string       { return "data-outside-regions" }
func (*OutsideData) Severity() Severity { return Warning }
func (p *OutsideData) Where() string {
	return places(atStore(p.Store), fmt.Sprintf("keys %s to %s", p.Start, p.End))
}
func (p *OutsideData) What() string {
	var n []string
	for _, cf := range []string{"write", "lock", "default"} {
		if p.Records[cf] > 0 {
			n = append(n, fmt.Sprintf("%s in %s", plural(int(p.Records[cf]), "record"), cf))
		}
	}
	return strings.Join(n, ", ") + " belong to no live region of this store: TiKV deletes them when it starts or later"
}
func (*OutsideData) Next() string {
	return "normal after a peer was moved away; if no other store has a region here, copy the directory before TiKV is started"
}
