package plan

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"report-mismatch":   func() Problem { return new(ReportMismatch) },
		"missing-report":    func() Problem { return new(MissingReport) },
		"bad-override":      func() Problem { return new(BadOverride) },
		"stale-leftover":    func() Problem { return new(StaleLeftover) },
		"unusable-peer":     func() Problem { return new(UnusablePeer) },
		"certain-loss":      func() Problem { return new(CertainLoss) },
		"empty-region":      func() Problem { return new(Hole) },
		"stale-copy":        func() Problem { return new(StaleCopy) },
		"unknown-allocator": func() Problem { return new(UnknownAllocator) },
		"pd-newer":          func() Problem { return new(PDNewer) },
	})
}

func tsOf(ts uint64) mvcc.TS { return mvcc.TS(ts) }

func tsText(ts mvcc.TS) string {
	if ts == 0 {
		return "none"
	}
	return ts.String()
}

// reported is a problem that collect met on a store; its name and words are those of the report.
type reported struct {
	store uint64
	f     Finding
}

func (p *reported) Name() string       { return p.f.Name }
func (p *reported) Severity() Severity { return p.f.Severity }
func (p *reported) Where() string      { return places(atStore(p.store), p.f.Where) }
func (p *reported) What() string       { return p.f.What }
func (p *reported) Next() string       { return p.f.Next }

// MarshalJSON gives the details of the report.
func (p *reported) MarshalJSON() ([]byte, error) {
	if len(p.f.Details) == 0 {
		return []byte("{}"), nil
	}
	return json.Marshal(p.f.Details)
}

// ReportMismatch: the reports do not belong together.
type ReportMismatch struct {
	Store  uint64 `json:"store_id,omitempty"`
	Reason string `json:"reason"`
}

// Name is part of Problem, as are Severity, Where, What and Next of this and the following types.
func (*ReportMismatch) Name() string       { return "report-mismatch" }
func (*ReportMismatch) Severity() Severity { return Fatal }
func (p *ReportMismatch) Where() string    { return atStore(p.Store) }
func (p *ReportMismatch) What() string     { return p.Reason }
func (*ReportMismatch) Next() string {
	return "give one report of each surviving store of one cluster, all collected while everything is stopped"
}

// MissingReport: regions have a peer on a store that is neither reported nor named as failed.
type MissingReport struct {
	Store   uint64 `json:"store_id"`
	Regions int    `json:"regions"`
}

func (*MissingReport) Name() string       { return "missing-report" }
func (*MissingReport) Severity() Severity { return Fatal }
func (p *MissingReport) Where() string    { return atStore(p.Store) }
func (p *MissingReport) What() string {
	return fmt.Sprintf("%s have a peer on this store, and there is no report of it: what it holds may decide", plural(p.Regions, "region"))
}
func (p *MissingReport) Next() string {
	return fmt.Sprintf("collect on store %d; if it is gone for good name it with --failed-stores %d, if it is a TiFlash store with --tiflash-stores %d", p.Store, p.Store, p.Store)
}

// BadOverride: what the operator named by hand does not exist or cannot be done.
type BadOverride struct {
	Option string `json:"option"`
	Region uint64 `json:"region_id"`
	Store  uint64 `json:"store_id,omitempty"`
	Reason string `json:"reason"`
}

func (*BadOverride) Name() string       { return "bad-override" }
func (*BadOverride) Severity() Severity { return Fatal }
func (p *BadOverride) Where() string    { return atRegion(p.Store, p.Region) }
func (p *BadOverride) What() string     { return "--" + p.Option + ": " + p.Reason }
func (*BadOverride) Next() string {
	return "look at the survivors of the region in the plan, then correct the option"
}

// StaleLeftover: the peers that are left had been removed from the region.
type StaleLeftover struct {
	Region    uint64          `json:"region_id"`
	Store     uint64          `json:"store_id"` // of the tombstone
	Tombstone raftstate.Epoch `json:"tombstone_epoch"`
	Newest    raftstate.Epoch `json:"newest_epoch"`
}

func (*StaleLeftover) Name() string       { return "stale-leftover" }
func (*StaleLeftover) Severity() Severity { return Error }
func (p *StaleLeftover) Where() string    { return fmt.Sprintf("region %d", p.Region) }
func (p *StaleLeftover) What() string {
	return fmt.Sprintf("a tombstone on store %d has conf_ver %d, the newest copy %d, and its list names none of the peers that are left: the region went on without them, and what they hold is old",
		p.Store, p.Tombstone.ConfVer, p.Newest.ConfVer)
}
func (p *StaleLeftover) Next() string {
	return fmt.Sprintf("--recreate %d makes the region empty; --force=stale-leftover brings the old copy back", p.Region)
}

// UnusablePeer: a peer of a healthy region that is left alone although its data cannot be trusted.
type UnusablePeer struct {
	Store  uint64 `json:"store_id"`
	Region uint64 `json:"region_id"`
	Reason string `json:"reason"`
}

func (*UnusablePeer) Name() string       { return "unusable-peer" }
func (*UnusablePeer) Severity() Severity { return Warning }
func (p *UnusablePeer) Where() string    { return atRegion(p.Store, p.Region) }
func (p *UnusablePeer) What() string {
	return "its region has a quorum and is left alone, but this peer is not sound: " + p.Reason
}
func (p *UnusablePeer) Next() string {
	return fmt.Sprintf("--tombstone %d@%d destroys it; PD then makes a new one", p.Region, p.Store)
}

// CertainLoss: something that a survivor has is not in the result.
type CertainLoss struct {
	Region   uint64 `json:"region_id"`
	Store    uint64 `json:"store_id,omitempty"`
	First    uint64 `json:"first_index"`
	Last     uint64 `json:"last_index"`
	Versions uint64 `json:"versions"`
	Why      string `json:"why"`
}

func (*CertainLoss) Name() string       { return "certain-loss" }
func (*CertainLoss) Severity() Severity { return Error }
func (p *CertainLoss) Where() string    { return atRegion(p.Store, p.Region) }
func (p *CertainLoss) What() string {
	return fmt.Sprintf("log entries %d to %d, with at most %s, are lost: %s", p.First, p.Last, plural(int(p.Versions), "version"), p.Why)
}
func (p *CertainLoss) Next() string {
	return fmt.Sprintf("look at them with raft-log --region %d; --winner %d=STORE keeps another copy; --force=certain-loss accepts it", p.Region, p.Region)
}

// Hole: a part of the key space that no survivor holds gets an empty region.
type Hole struct {
	Start  raftstate.Key `json:"start_key"`
	End    raftstate.Key `json:"end_key"`
	Region uint64        `json:"region_id"` // the new one
	Store  uint64        `json:"store_id"`
	Copies []RegionStore `json:"unused_copies,omitempty"` // peers that overlap it and are not kept
}

func (*Hole) Name() string       { return "empty-region" }
func (*Hole) Severity() Severity { return Error }
func (p *Hole) Where() string    { return fmt.Sprintf("keys %q to %q", p.Start.String(), p.End.String()) }
func (p *Hole) What() string {
	s := fmt.Sprintf("no survivor holds these keys: all their data is lost, and an empty region %d takes their place on store %d", p.Region, p.Store)
	for i, c := range p.Copies {
		if i == 0 {
			s += "; copies that are not used: "
		} else {
			s += ", "
		}
		s += fmt.Sprintf("region %d on store %d", c.Region, c.Store)
	}
	return s
}
func (*Hole) Next() string {
	return "--hole-fill=stale takes an old copy where one covers them; --force=empty-region accepts the loss"
}

// StaleCopy: an old copy of a region fills a part of the key space that nobody else holds.
type StaleCopy struct {
	Region uint64        `json:"region_id"`
	Store  uint64        `json:"store_id"`
	Start  raftstate.Key `json:"start_key"`
	End    raftstate.Key `json:"end_key"`
}

func (*StaleCopy) Name() string       { return "stale-copy" }
func (*StaleCopy) Severity() Severity { return Error }
func (p *StaleCopy) Where() string    { return atRegion(p.Store, p.Region) }
func (p *StaleCopy) What() string {
	return fmt.Sprintf("an old copy takes the keys %q to %q, which nobody else holds: what was written there since it was left behind is lost", p.Start.String(), p.End.String())
}
func (*StaleCopy) Next() string { return "--force=stale-copy accepts it" }

// UnknownAllocator: new ids are needed, and nobody says how far PD's allocator has come.
type UnknownAllocator struct {
	MaxSeen uint64 `json:"max_id_seen"`
	First   uint64 `json:"first_new_id"`
}

func (*UnknownAllocator) Name() string       { return "unknown-allocator" }
func (*UnknownAllocator) Severity() Severity { return Warning }
func (*UnknownAllocator) Where() string      { return "" }
func (p *UnknownAllocator) What() string {
	return fmt.Sprintf("no report of PD says which ids it has handed out: new ids begin at %d, far above the largest that the survivors know, %d", p.First, p.MaxSeen)
}
func (*UnknownAllocator) Next() string {
	return "give PD's data directory with --pd, or the id with --alloc-id; in any case raise PD's base-alloc-id before anything starts"
}

// PDNewer: PD knows a newer descriptor than any survivor, and the region's version cannot be raised above it.
type PDNewer struct {
	Region    uint64 `json:"region_id"`
	Version   uint64 `json:"version"`
	PDVersion uint64 `json:"pd_version"`
}

func (*PDNewer) Name() string       { return "pd-newer" }
func (*PDNewer) Severity() Severity { return Warning }
func (p *PDNewer) Where() string    { return fmt.Sprintf("region %d", p.Region) }
func (p *PDNewer) What() string {
	return fmt.Sprintf("PD knows version %d of something in its range, the region goes on with %d: PD would refuse it", p.PDVersion, p.Version)
}
func (*PDNewer) Next() string {
	return "set PD's region-meta aside (clean does it) before PD starts, and never start a failed store again"
}
