package plan

import "fmt"

// LastReplica: the peer that is to be destroyed is the only one that its region has.
type LastReplica struct {
	Store  uint64 `json:"store_id"`
	Region uint64 `json:"region_id"`
}

func (*LastReplica) Name() string       { return "last-replica" }
func (*LastReplica) Severity() Severity { return Error }
func (p *LastReplica) Where() string    { return atRegion(p.Store, p.Region) }
func (*LastReplica) What() string {
	return "its only peer is here: as a tombstone the region is gone, and TiKV deletes its data at the next start"
}
func (*LastReplica) Next() string { return "--force=last-replica, when the data may go" }

// TailStops: a log tail cannot be applied offline to its end.
type TailStops struct {
	Store  uint64 `json:"store_id"`
	Region uint64 `json:"region_id"`
	Index  uint64 `json:"index"`
	Limit  uint64 `json:"limit"`
	Reason string `json:"reason"`
}

func (*TailStops) Name() string       { return "tail-stops" }
func (*TailStops) Severity() Severity { return Warning }
func (p *TailStops) Where() string    { return atRegion(p.Store, p.Region) }
func (p *TailStops) What() string {
	return fmt.Sprintf("entry %d of the log cannot be applied offline: %s; what comes after it, up to %d, waits for TiKV", p.Index, p.Reason, p.Limit)
}
func (p *TailStops) Next() string {
	return fmt.Sprintf("look at it with raft-log --region %d --from %d", p.Region, p.Index)
}
