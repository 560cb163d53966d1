package plan

import (
	"fmt"
	"maps"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"needs-snapshot": func() Problem { return new(NeedsSnapshot) },
		"log-conflict":   func() Problem { return new(LogConflict) },
		"not-committed":  func() Problem { return new(NotCommitted) },
		"tail-strategy":  func() Problem { return new(TailStrategyUnsafe) },
	})
}

// NeedsSnapshot: the log of another replica begins behind the end of this one's: its entries cannot follow here.
type NeedsSnapshot struct {
	Store     uint64 `json:"store_id"`
	Region    uint64 `json:"region_id"`
	Source    string `json:"source"`
	First     uint64 `json:"first_index"` // of the source
	Applied   uint64 `json:"applied_index"`
	Last      uint64 `json:"last_index"`
	Committed uint64 `json:"committed_index"` // by the source
}

func (*NeedsSnapshot) Name() string       { return "needs-snapshot" }
func (*NeedsSnapshot) Severity() Severity { return Warning }
func (p *NeedsSnapshot) Where() string    { return atRegion(p.Store, p.Region) }
func (p *NeedsSnapshot) What() string {
	return fmt.Sprintf("needs a snapshot: the log in %s begins with entry %d, and this replica has applied up to %d with a log up to %d that does not join it; nothing of this region changes",
		p.Source, p.First, p.Applied, p.Last)
}
func (p *NeedsSnapshot) Next() string {
	return fmt.Sprintf("give a store with a longer log to --from, or leave it to TiKV: the leader sends a snapshot. If %s is to be the only replica, tombstone --regions %d here", p.Source, p.Region)
}

// LogConflict: two replicas hold different entries where both say that they are committed.
type LogConflict struct {
	Store  uint64 `json:"store_id"`
	Region uint64 `json:"region_id"`
	Source string `json:"source"`
	Index  uint64 `json:"index"`
}

func (*LogConflict) Name() string       { return "log-conflict" }
func (*LogConflict) Severity() Severity { return Error }
func (p *LogConflict) Where() string    { return atRegion(p.Store, p.Region) }
func (p *LogConflict) What() string {
	return fmt.Sprintf("entry %d is another one in the log of %s, although it belongs to what both replicas share: one of them has been changed by hand, or is of another history",
		p.Index, p.Source)
}
func (p *LogConflict) Next() string {
	return fmt.Sprintf("compare raft-log --region %d of both; --force=log-conflict goes on without that log for this region", p.Region)
}

// NotCommitted: the index that was asked for lies beyond what any log that was given knows to be committed.
type NotCommitted struct {
	Store     uint64 `json:"store_id"`
	Region    uint64 `json:"region_id"`
	Committed uint64 `json:"committed_index"`
	To        uint64 `json:"to_index"`
}

func (*NotCommitted) Name() string       { return "not-committed" }
func (*NotCommitted) Severity() Severity { return Error }
func (p *NotCommitted) Where() string    { return atRegion(p.Store, p.Region) }
func (p *NotCommitted) What() string {
	return fmt.Sprintf("entries %d to %d are not known to be committed: the other replicas may have agreed on different ones, and data that is applied cannot be taken back by raft",
		p.Committed+1, p.To)
}
func (p *NotCommitted) Next() string {
	return fmt.Sprintf("--to-index %d is safe; --force=not-committed when this replica, or one with the same log, is to be the one that stays", p.Committed)
}

// TailStrategyUnsafe: the way of dealing with log tails that was asked for is not safe for a region.
type TailStrategyUnsafe struct {
	Store    uint64 `json:"store_id"`
	Region   uint64 `json:"region_id"`
	Strategy string `json:"strategy"`
	Reason   string `json:"reason"`
}

func (*TailStrategyUnsafe) Name() string       { return "tail-strategy" }
func (*TailStrategyUnsafe) Severity() Severity { return Fatal }
func (p *TailStrategyUnsafe) Where() string    { return atRegion(p.Store, p.Region) }
func (p *TailStrategyUnsafe) What() string {
	return fmt.Sprintf("--tail=%s is not safe here: %s", p.Strategy, p.Reason)
}
func (p *TailStrategyUnsafe) Next() string {
	return fmt.Sprintf("--tail=auto chooses for each region; look at the entries with raft-log --region %d --tail", p.Region)
}
