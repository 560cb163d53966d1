package plan

import (
	"fmt"
	"maps"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"damaged-file":         func() Problem { return new(DamagedFile) },
		"version-rule":         func() Problem { return new(VersionRule) },
		"wrong-properties":     func() Problem { return new(WrongProperties) },
		"unreadable-part":      func() Problem { return new(UnreadablePart) },
		"unreadable-value":     func() Problem { return new(UnreadableValue) },
		"lost-value":           func() Problem { return new(LostValue) },
		"orphan-row":           func() Problem { return new(OrphanRow) },
		"timestamp-order":      func() Problem { return new(TimestampOrder) },
		"stray-keys":           func() Problem { return new(StrayKeys) },
		"data-outside-regions": func() Problem { return new(OutsideData) },
		"region-gap":           func() Problem { return new(RegionGap) },
		"region-overlap":       func() Problem { return new(RegionOverlap) },
		"region-transition":    func() Problem { return new(RegionTransition) },
		"region-start-line":    func() Problem { return new(RegionStartLine) },
		"raft-entries":         func() Problem { return new(RaftEntries) },
		"store-identity":       func() Problem { return new(StoreIdentity) },
		"encryption-leftover":  func() Problem { return new(EncryptionLeftover) },
		"fenced":               func() Problem { return new(Fenced) },
	})
}

// places joins what is known of a place: "store 1, column family write, key 7A".
func places(parts ...string) string {
	var known []string
	for _, p := range parts {
		if p != "" {
			known = append(known, p)
		}
	}
	return strings.Join(known, ", ")
}

func inCF(cf string) string {
	if cf == "" {
		return ""
	}
	return "column family " + cf
}

// DamagedFile: a live file is missing, has the wrong size, or has bytes that fail their checksum or do not decode.
type DamagedFile struct {
	Store   uint64   `json:"store_id,omitempty"`
	Path    string   `json:"path"`
	CF      string   `json:"cf,omitempty"`
	Reason  string   `json:"reason"`
	Regions []uint64 `json:"region_ids,omitempty"` // live regions whose range the file touches, the first ones
	More    int      `json:"more_regions,omitempty"`
	Values  uint64   `json:"values_lost,omitempty"` // visible values that lie in a damaged blob file
}

// Name is part of Problem, as are Severity, Where, What and Next of this and the following types.
func (*DamagedFile) Name() string       { return "damaged-file" }
func (*DamagedFile) Severity() Severity { return Error }
func (p *DamagedFile) Where() string    { return places(p.Path, inCF(p.CF)) }
func (p *DamagedFile) What() string {
	s := p.Reason
	if len(p.Regions) > 0 {
		s += "; it has data of " + regionList(p.Regions, p.More)
	}
	if p.Values > 0 {
		s += fmt.Sprintf("; %s cannot be read", plural(int(p.Values), "visible value"))
	}
	return s
}
func (p *DamagedFile) Next() string {
	return "take a copy of the directory first; then restore this file from a copy, or tombstone its regions here if other stores have sound replicas, or see what salvage can read"
}

func regionList(ids []uint64, more int) string {
	s := "region "
	if len(ids)+more > 1 {
		s = "regions "
	}
	s += strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ", "), "[]")
	if more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s
}

// VersionRule: the MANIFEST describes a version that breaks a rule which RocksDB does not test.
type VersionRule struct {
	Store  uint64 `json:"store_id,omitempty"`
	Rule   int    `json:"rule"`
	Path   string `json:"path,omitempty"`
	CF     string `json:"cf,omitempty"`
	Reason string `json:"reason"`
}

func (*VersionRule) Name() string       { return "version-rule" }
func (*VersionRule) Severity() Severity { return Error }
func (p *VersionRule) Where() string    { return places(p.Path, inCF(p.CF)) }
func (p *VersionRule) What() string {
	return fmt.Sprintf("the set of files breaks rule %d: %s", p.Rule, p.Reason)
}
func (*VersionRule) Next() string {
	return "take a copy of the directory; TiKV opens it but may read or compact it wrongly: prefer another replica of its regions"
}

// WrongProperties: the timestamps of a table are outside what its properties promise, and readers skip tables by them.
type WrongProperties struct {
	Store  uint64  `json:"store_id,omitempty"`
	Path   string  `json:"path"`
	MinTS  mvcc.TS `json:"min_ts"`
	MaxTS  mvcc.TS `json:"max_ts"`
	Key    string  `json:"key"` // database key outside the bounds, upper-case hex
	Commit mvcc.TS `json:"commit_ts"`
}

func (*WrongProperties) Name() string       { return "wrong-properties" }
func (*WrongProperties) Severity() Severity { return Error }
func (p *WrongProperties) Where() string    { return p.Path }
func (p *WrongProperties) What() string {
	return fmt.Sprintf("a record of commit_ts %s (key %s) is outside [%s, %s], which the table's properties give: CDC, log backup and a rewind would skip it",
		p.Commit, p.Key, p.MinTS, p.MaxTS)
}
func (*WrongProperties) Next() string {
	return "let TiKV compact the write column family before anything relies on these properties"
}

// UnreadablePart: a part of the store cannot be opened, so that nothing in it was checked.
type UnreadablePart struct {
	Store  uint64 `json:"store_id,omitempty"`
	Part   string `json:"part"`
	Path   string `json:"path,omitempty"`
	Reason string `json:"reason"`
	Hint   string `json:"hint,omitempty"`
}

func (*UnreadablePart) Name() string       { return "unreadable-part" }
func (*UnreadablePart) Severity() Severity { return Error }
func (p *UnreadablePart) Where() string    { return places(p.Part, p.Path) }
func (p *UnreadablePart) What() string     { return p.Reason }
func (p *UnreadablePart) Next() string {
	if p.Hint != "" {
		return p.Hint
	}
	return "take a copy of the directory first; then restore what is named from a copy, or see what salvage can read"
}

// UnreadableValue: a visible record points to a value that cannot be read.
type UnreadableValue struct {
	Store  uint64 `json:"store_id,omitempty"`
	CF     string `json:"cf"`
	Key    string `json:"key"` // database key, upper-case hex
	Reason string `json:"reason"`
}

func (*UnreadableValue) Name() string       { return "unreadable-value" }
func (*UnreadableValue) Severity() Severity { return Error }
func (p *UnreadableValue) Where() string {
	return places(atStore(p.Store), inCF(p.CF), "key "+p.Key)
}
func (p *UnreadableValue) What() string { return p.Reason }
func (p *UnreadableValue) Next() string {
	return "look at the key with mvcc --db-key " + p.Key + "; another replica of its region may have the value"
}

// LostValue: the newest version of a key, or its lock, has no value.
type LostValue struct {
	Store    uint64  `json:"store_id,omitempty"`
	Key      string  `json:"key"` // user key, upper-case hex
	Lock     bool    `json:"lock,omitempty"`
	CommitTS mvcc.TS `json:"commit_ts,omitempty"`
	StartTS  mvcc.TS `json:"start_ts"`
}

func (*LostValue) Name() string       { return "lost-value" }
func (*LostValue) Severity() Severity { return Error }
func (p *LostValue) Where() string    { return places(atStore(p.Store), "key "+p.Key) }
func (p *LostValue) What() string {
	of := fmt.Sprintf("the newest version, committed at %s,", p.CommitTS)
	if p.Lock {
		of = "the lock of a transaction that is not finished"
	}
	return fmt.Sprintf("%s has no row at %s in the default column family", of, p.StartTS)
}
func (p *LostValue) Next() string {
	return "look at the key with mvcc --key " + p.Key + "; another replica of its region may have the value"
}

// OrphanRow: a value that no version and no lock owns. Garbage collection that could not finish leaves such rows behind.
type OrphanRow struct {
	Store   uint64  `json:"store_id,omitempty"`
	Key     string  `json:"key"` // user key, upper-case hex
	StartTS mvcc.TS `json:"start_ts"`
}

func (*OrphanRow) Name() string       { return "orphan-row" }
func (*OrphanRow) Severity() Severity { return Warning }
func (p *OrphanRow) Where() string    { return places(atStore(p.Store), "key "+p.Key) }
func (p *OrphanRow) What() string {
	return fmt.Sprintf("the row at %s in the default column family belongs to no version and no lock: it takes space and is never read", p.StartTS)
}
func (*OrphanRow) Next() string {
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

// RegionGap: a part of the key space that no region holds, on the only store.
type RegionGap struct {
	Store  uint64 `json:"store_id,omitempty"`
	Start  string `json:"start_key"` // region boundaries as in the descriptors, upper-case hex; "" is the end of the key space
	End    string `json:"end_key"`
	After  uint64 `json:"after_region_id,omitempty"`
	Before uint64 `json:"before_region_id,omitempty"`
}

func (*RegionGap) Name() string       { return "region-gap" }
func (*RegionGap) Severity() Severity { return Error }
func (p *RegionGap) Where() string {
	return places(atStore(p.Store), fmt.Sprintf("keys %q to %q", p.Start, p.End))
}
func (p *RegionGap) What() string {
	s := "no region of this store holds these keys, and its regions have no peers on other stores"
	switch {
	case p.After != 0 && p.Before != 0:
		s += fmt.Sprintf(": the gap is between regions %d and %d", p.After, p.Before)
	case p.After != 0:
		s += fmt.Sprintf(": the gap is behind region %d", p.After)
	case p.Before != 0:
		s += fmt.Sprintf(": the gap is before region %d", p.Before)
	}
	return s
}
func (*RegionGap) Next() string {
	return "do not start TiKV, it deletes what lies in a gap: copy the directory, then look at the neighbours and at tombstones with region --all"
}

// RegionOverlap: two live regions hold the same keys. TiKV does not notice when it starts, and serves one of them wrongly.
type RegionOverlap struct {
	Store   uint64 `json:"store_id,omitempty"`
	Region  uint64 `json:"region_id"`
	Other   uint64 `json:"other_region_id"`
	Start   string `json:"start_key"` // of the common part, upper-case hex
	End     string `json:"end_key"`
	Version uint64 `json:"version"` // of Region's epoch
	Against uint64 `json:"other_version"`
}

func (*RegionOverlap) Name() string       { return "region-overlap" }
func (*RegionOverlap) Severity() Severity { return Error }
func (p *RegionOverlap) Where() string    { return atRegion(p.Store, p.Region) }
func (p *RegionOverlap) What() string {
	return fmt.Sprintf("its range overlaps that of region %d from %q to %q (versions %d and %d)", p.Other, p.Start, p.End, p.Version, p.Against)
}
func (p *RegionOverlap) Next() string {
	older := p.Region
	if p.Against < p.Version {
		older = p.Other
	}
	return fmt.Sprintf("compare both with region --region %d --region %d; the one with the lower version is normally the stale one: tombstone region %d if so", p.Region, p.Other, older)
}

// RegionTransition: a region that was caught in the middle of a change which TiKV goes on with when it starts.
type RegionTransition struct {
	Store  uint64 `json:"store_id,omitempty"`
	Region uint64 `json:"region_id"`
	State  string `json:"state"` // Merging, Applying, Unavailable, or Flashback
}

func (*RegionTransition) Name() string       { return "region-transition" }
func (*RegionTransition) Severity() Severity { return Warning }
func (p *RegionTransition) Where() string    { return atRegion(p.Store, p.Region) }
func (p *RegionTransition) What() string {
	switch p.State {
	case "Merging":
		return "it is being merged into its neighbour; TiKV finishes the merge or takes it back"
	case "Applying":
		return "a snapshot is half applied: its data is undefined until TiKV has finished it, and was not checked"
	case "Unavailable":
		return "a former witness that waits for data: it holds none"
	case "Flashback":
		return "a flashback was not finished: it refuses reads and writes"
	}
	return "peer state " + p.State
}
func (p *RegionTransition) Next() string {
	switch p.State {
	case "Applying":
		return "keep snap/ as it is: TiKV needs the snapshot's files when it starts"
	case "Flashback":
		return "finish the flashback with tikv-ctl or BR once the cluster runs, or clear it together with a rewind"
	}
	return fmt.Sprintf("nothing has to be done before a normal start; details: region --region %d", p.Region)
}

// RegionStartLine: a region that some TiKV releases would not start, or that panics later.
type RegionStartLine struct {
	Store  uint64 `json:"store_id,omitempty"`
	Region uint64 `json:"region_id"`
	Rule   int    `json:"rule"`
	Lines  string `json:"lines,omitempty"` // the releases that enforce the rule; "": none at start, a later step panics
	Reason string `json:"reason"`
	// Newer: the store was written by a release behind these lines.
	Newer bool `json:"newer_store,omitempty"`
}

func (*RegionStartLine) Name() string { return "region-start-line" }
func (p *RegionStartLine) Severity() Severity {
	switch {
	case p.Lines == "":
		return Error
	case p.Newer:
		return Info
	}
	return Warning
}
func (p *RegionStartLine) Where() string { return atRegion(p.Store, p.Region) }
func (p *RegionStartLine) What() string {
	if p.Lines == "" {
		return "TiKV starts, but panics later: " + p.Reason
	}
	return fmt.Sprintf("TiKV %s would not start: %s", p.Lines, p.Reason)
}
func (p *RegionStartLine) Next() string {
	if p.Newer {
		return "legal for the release that wrote this store; do not downgrade it"
	}
	return fmt.Sprintf("look at it with region --region %d, and use a newer release", p.Region)
}

// RaftEntries: log entries that must be there are not, or do not decode.
type RaftEntries struct {
	Store   uint64 `json:"store_id,omitempty"`
	Region  uint64 `json:"region_id"`
	From    uint64 `json:"from_index"`
	To      uint64 `json:"to_index"` // inclusive
	Applied uint64 `json:"applied_index"`
	Reason  string `json:"reason"`
}

func (*RaftEntries) Name() string       { return "raft-entries" }
func (*RaftEntries) Severity() Severity { return Error }
func (p *RaftEntries) Where() string    { return atRegion(p.Store, p.Region) }
func (p *RaftEntries) What() string {
	at := fmt.Sprintf("log entries %d to %d", p.From, p.To)
	if p.From == p.To {
		at = fmt.Sprintf("log entry %d", p.From)
	}
	s := at + ": " + p.Reason
	if p.To > p.Applied {
		s += "; TiKV needs them to go on"
	} else {
		s += "; they are applied here, but peers that lag behind cannot get them from this store"
	}
	return s
}
func (p *RaftEntries) Next() string {
	return fmt.Sprintf("look at the log with raft-log --region %d; cut-tail repairs the region, or take it from another store", p.Region)
}

// StoreIdentity: the record that says which store of which cluster this is.
type StoreIdentity struct {
	Reason string `json:"reason"`
}

func (*StoreIdentity) Name() string       { return "store-identity" }
func (*StoreIdentity) Severity() Severity { return Error }
func (*StoreIdentity) Where() string      { return "column family default, key 0101" }
func (p *StoreIdentity) What() string     { return p.Reason }
func (*StoreIdentity) Next() string {
	return "without its identity TiKV does not take these data for its own: compare with a copy of the directory"
}

// EncryptionLeftover: the file dictionary of encryption at rest is there although no file is encrypted.
type EncryptionLeftover struct {
	Path    string `json:"path"`
	Entries int    `json:"entries"`
	Torn    int64  `json:"torn_bytes,omitempty"`
}

func (*EncryptionLeftover) Name() string       { return "encryption-leftover" }
func (*EncryptionLeftover) Severity() Severity { return Info }
func (p *EncryptionLeftover) Where() string    { return p.Path }
func (p *EncryptionLeftover) What() string {
	s := fmt.Sprintf("encryption at rest was on once: %d files are listed, none of them encrypted any more", p.Entries)
	if p.Torn > 0 {
		s += fmt.Sprintf("; its last record is cut off (%d bytes)", p.Torn)
	}
	return s
}
func (*EncryptionLeftover) Next() string {
	return "keep file.dict and key.dict: TiKV reads them at each start"
}

// Fenced: our own panic_mark_file.
type Fenced struct {
	Store  uint64 `json:"store_id,omitempty"`
	PlanID string `json:"plan_id"`
}

func (*Fenced) Name() string       { return "fenced" }
func (*Fenced) Severity() Severity { return Warning }
func (p *Fenced) Where() string    { return atStore(p.Store) }
func (p *Fenced) What() string {
	return "TiKV does not start: plan " + p.PlanID + " of this tool holds the store back"
}
func (*Fenced) Next() string {
	return "see status; run the same command again to finish, release when all stores are done, or undo"
}
