package plan

import (
	"fmt"
	"maps"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

func init() {
	maps.Copy(problemTypes, map[string]func() Problem{
		"damaged-file":        func() Problem { return new(DamagedFile) },
		"version-rule":        func() Problem { return new(VersionRule) },
		"wrong-properties":    func() Problem { return new(WrongProperties) },
		"unreadable-part":     func() Problem { return new(UnreadablePart) },
		"region-gap":          func() Problem { return new(RegionGap) },
		"region-overlap":      func() Problem { return new(RegionOverlap) },
		"region-transition":   func() Problem { return new(RegionTransition) },
		"region-start-line":   func() Problem { return new(RegionStartLine) },
		"raft-entries":        func() Problem { return new(RaftEntries) },
		"store-identity":      func() Problem { return new(StoreIdentity) },
		"encryption-leftover": func() Problem { return new(EncryptionLeftover) },
		"fenced":              func() Problem { return new(Fenced) },
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
	return "take a copy of the directory first; then restore this file from a copy, or tombstone its regions here if other stores have sound replicas"
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
	return "take a copy of the directory first; then restore what is named from a copy"
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
