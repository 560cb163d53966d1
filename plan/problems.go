package plan

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/mvcc"
)

// problemTypes makes an empty problem of each name.
var problemTypes = map[string]func() Problem{
	"unresolved-locks":    func() Problem { return new(UnresolvedLocks) },
	"raft-tail":           func() Problem { return new(RaftTail) },
	"multi-store":         func() Problem { return new(MultiStore) },
	"unknown-safe-point":  func() Problem { return new(UnknownSafePoint) },
	"safe-point-above-t":  func() Problem { return new(SafePointAboveT) },
	"above-min-resolved":  func() Problem { return new(AboveMinResolved) },
	"pd-behind-store":     func() Problem { return new(PDBehindStore) },
	"flashback":           func() Problem { return new(Flashback) },
	"panic-mark":          func() Problem { return new(PanicMark) },
	"raw-data":            func() Problem { return new(RawData) },
	"wal-damage":          func() Problem { return new(WALDamage) },
	"raft-log-damage":     func() Problem { return new(RaftLogDamage) },
	"last-replica":        func() Problem { return new(LastReplica) },
	"tail-stops":          func() Problem { return new(TailStops) },
	"region-state":        func() Problem { return new(RegionState) },
	"region-start":        func() Problem { return new(RegionStart) },
	"bad-record":          func() Problem { return new(BadRecord) },
	"missing-value":       func() Problem { return new(MissingValue) },
	"pending-snapshot":    func() Problem { return new(PendingFile) },
	"unsupported-feature": func() Problem { return new(Unsupported) },
}

// TxnKey names a transaction: the raw user key of its primary and its start_ts. It is comparable.
type TxnKey struct {
	Primary string // raw bytes
	StartTS mvcc.TS
}

type txnKeyJSON struct {
	Primary   string       `json:"primary"` // upper-case hex
	Key       mvcc.KeyInfo `json:"primary_decoded"`
	StartTS   mvcc.TS      `json:"start_ts"`
	StartTime string       `json:"start_time"`
}

// MarshalJSON gives the primary in upper-case hex and decoded, start_ts as a decimal string and as a time.
func (k TxnKey) MarshalJSON() ([]byte, error) {
	return json.Marshal(txnKeyJSON{upperHex(k.Primary), mvcc.DescribeUserKey([]byte(k.Primary)), k.StartTS, rfc3339(k.StartTS)})
}

// UnmarshalJSON reads what MarshalJSON writes; only the hex form and the TSO count.
func (k *TxnKey) UnmarshalJSON(b []byte) error {
	var j txnKeyJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	p, err := hex.DecodeString(j.Primary)
	if err != nil {
		return fmt.Errorf("primary %q is not hex", j.Primary)
	}
	k.Primary, k.StartTS = string(p), j.StartTS
	return nil
}

func (k TxnKey) String() string {
	return fmt.Sprintf("transaction %s, primary %s", k.StartTS, upperHex(k.Primary))
}

func upperHex[T string | []byte](s T) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) }

func rfc3339(ts mvcc.TS) string { return ts.Time().Format("2006-01-02T15:04:05.000Z07:00") }

func atStore(id uint64) string {
	if id == 0 {
		return ""
	}
	return fmt.Sprintf("store %d", id)
}

func atRegion(store, region uint64) string {
	s := fmt.Sprintf("region %d", region)
	if store != 0 {
		s = atStore(store) + ", " + s
	}
	return s
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// UnresolvedLocks: the outcome of transactions that left locks is in a directory that was not given.
type UnresolvedLocks struct {
	Store uint64   `json:"store_id,omitempty"`
	Keys  int      `json:"keys"`
	Txns  []TxnKey `json:"transactions"`
	More  bool     `json:"more_transactions,omitempty"` // than are listed
}

func (*UnresolvedLocks) Name() string       { return "unresolved-locks" }
func (*UnresolvedLocks) Severity() Severity { return Error }
func (p *UnresolvedLocks) Where() string    { return atStore(p.Store) }
func (p *UnresolvedLocks) What() string {
	txns := plural(len(p.Txns), "transaction")
	if p.More {
		txns += " and more"
	}
	return fmt.Sprintf("%s of %s cannot be decided: what tells whether it committed at or before T was not given, or contradicts itself",
		plural(p.Keys, "lock"), txns)
}
func (*UnresolvedLocks) Next() string {
	return "give the directories of all stores, or collect on each store and plan over all reports; --force=unresolved-locks removes these locks, which breaks transactions that did commit"
}

// RaftTail: log entries that are not applied would change the data after the rewind.
type RaftTail struct {
	Store       uint64  `json:"store_id"`
	Region      uint64  `json:"region_id"`
	Applied     uint64  `json:"applied_index"`
	Commit      uint64  `json:"commit_index"`
	Last        uint64  `json:"last_index"`
	MinCommitTS mvcc.TS `json:"min_commit_ts,omitempty"` // smallest commit_ts that the tail writes; 0: none
	MaxCommitTS mvcc.TS `json:"max_commit_ts,omitempty"` // the newest one
	// Strategy says what becomes of the entries: drop, neutralise, or left when they stay because other stores hold replicas.
	Strategy string `json:"strategy,omitempty"`
	// Versions is how many Puts and Deletes would be lost, Opaque how many entries cannot be looked into; Keys are raw user keys of
	// some of them, upper-case hex.
	Versions int64    `json:"versions"`
	Opaque   int64    `json:"opaque_entries,omitempty"`
	Keys     []string `json:"keys,omitempty"`
}

func (*RaftTail) Name() string       { return "raft-tail" }
func (*RaftTail) Severity() Severity { return Error }
func (p *RaftTail) Where() string    { return atRegion(p.Store, p.Region) }
func (p *RaftTail) What() string {
	s := fmt.Sprintf("%s after applied index %d, of which %d are committed",
		plural(int(p.Last-min(p.Applied, p.Last)), "log entry"), p.Applied, p.Commit-min(p.Applied, p.Commit))
	s = strings.Replace(s, "entrys", "entries", 1)
	if p.MinCommitTS != 0 {
		fate := "would be lost with them"
		if p.Strategy == "left" {
			fate = "at or below T is among them"
		}
		s += fmt.Sprintf("; %s of data %s, commit_ts %s to %s (%s)", plural(int(p.Versions), "version"), fate, p.MinCommitTS, p.MaxCommitTS, rfc3339(p.MaxCommitTS))
	}
	if p.Opaque > 0 {
		s += fmt.Sprintf("; %d cannot be looked into", p.Opaque)
	}
	if p.Strategy == "left" {
		s += "; they stay, because other stores hold replicas, and TiKV may apply them after the rewind"
	}
	return s
}
func (p *RaftTail) Next() string {
	if p.Strategy == "left" {
		return fmt.Sprintf("apply-tail --from the other replicas applies what is committed; look at the rest with raft-log --region %d; --force=raft-tail leaves it there", p.Region)
	}
	return fmt.Sprintf("look at it with raft-log --region %d; --force=raft-tail gives these entries up", p.Region)
}

// MultiStore: the regions have peers on stores that were not given.
type MultiStore struct {
	Given   []uint64 `json:"store_ids"`
	Missing []uint64 `json:"missing_store_ids"`
	Regions int      `json:"regions"` // regions with a peer on a missing store
	// Verb is the edit by hand that asks; empty for one that should see all stores.
	Verb string `json:"verb,omitempty"`
}

func (*MultiStore) Name() string       { return "multi-store" }
func (*MultiStore) Severity() Severity { return Error }
func (p *MultiStore) Where() string {
	return "stores " + strings.Trim(fmt.Sprint(p.Missing), "[]")
}
func (p *MultiStore) What() string {
	switch p.Verb {
	case "cut-tail":
		return fmt.Sprintf("%s have other replicas: what is dropped here may be committed and applied there, and this replica would count as having agreed to it",
			plural(p.Regions, "region"))
	case "set-peers":
		return fmt.Sprintf("peers of %s are on other stores, in the old list or the new one: where the old list stays, a second group with the same region id can come up",
			plural(p.Regions, "region"))
	}
	return fmt.Sprintf("%s have peers on stores that were not given: their replicas there would not be what they are here", plural(p.Regions, "region"))
}
func (p *MultiStore) Next() string {
	switch p.Verb {
	case "cut-tail":
		return "apply-tail --from DIR2 makes this replica equal to another one without losing anything; --force=multi-store when the others are gone for good, " +
			"or their logs are cut at the same index"
	case "set-peers":
		return "run the same set-peers on each store that stays, before any of them starts; stores that are gone must never start again; then --force=multi-store"
	}
	return "give all directories, or collect on each store, plan once, apply on each; name stores that are gone with --failed-stores"
}

// UnknownSafePoint: nobody said up to where versions may have been collected.
type UnknownSafePoint struct{}

func (*UnknownSafePoint) Name() string       { return "unknown-safe-point" }
func (*UnknownSafePoint) Severity() Severity { return Error }
func (*UnknownSafePoint) Where() string      { return "" }
func (*UnknownSafePoint) What() string {
	return "the GC safe point is not known: if it is above T, versions that were visible at T may be gone"
}
func (*UnknownSafePoint) Next() string {
	return "give PD's data directory with --pd, or state the safe point with --safe-point"
}

// SafePointAboveT: versions that were visible at T may have been collected.
type SafePointAboveT struct {
	T         mvcc.TS `json:"to_ts"`
	SafePoint mvcc.TS `json:"safe_point"`
}

func (*SafePointAboveT) Name() string       { return "safe-point-above-t" }
func (*SafePointAboveT) Severity() Severity { return Fatal }
func (*SafePointAboveT) Where() string      { return "" }
func (p *SafePointAboveT) What() string {
	return fmt.Sprintf("the GC safe point %s (%s) is above T %s (%s): what was visible at T may be gone",
		p.SafePoint, rfc3339(p.SafePoint), p.T, rfc3339(p.T))
}
func (p *SafePointAboveT) Next() string {
	return fmt.Sprintf("choose a T of at least %s", p.SafePoint)
}

// Flashback: an online flashback was under way.
type Flashback struct {
	Store   uint64  `json:"store_id"`
	Region  uint64  `json:"region_id"`
	StartTS mvcc.TS `json:"flashback_start_ts,omitempty"`
}

func (*Flashback) Name() string       { return "flashback" }
func (*Flashback) Severity() Severity { return Error }
func (p *Flashback) Where() string    { return atRegion(p.Store, p.Region) }
func (*Flashback) What() string {
	return "a flashback was not finished: the region refuses reads and writes"
}
func (*Flashback) Next() string {
	return "--force=flashback clears the mark on all replicas together with the rewind"
}

// PanicMark: TiKV stopped itself and refuses to start.
type PanicMark struct {
	Store uint64 `json:"store_id,omitempty"`
	Path  string `json:"path"`
	Text  string `json:"text,omitempty"`
}

func (*PanicMark) Name() string       { return "panic-mark" }
func (*PanicMark) Severity() Severity { return Error }
func (p *PanicMark) Where() string    { return p.Path }
func (*PanicMark) What() string {
	return "TiKV left panic_mark_file: it stopped because it found wrong data, and will not start again"
}
func (*PanicMark) Next() string {
	return "run check and read TiKV's log for the reason; --force=panic-mark goes on and keeps the file"
}

// RawData: raw keys have no versions to go back to.
type RawData struct {
	Store      uint64 `json:"store_id,omitempty"`
	APIVersion string `json:"api_version"` // V1, V1TTL, V2
	Keys       uint64 `json:"keys,omitempty"`
}

func (*RawData) Name() string { return "raw-data" }
func (p *RawData) Severity() Severity {
	if p.APIVersion == "V2" {
		return Error
	}
	return Fatal
}
func (p *RawData) Where() string { return atStore(p.Store) }
func (p *RawData) What() string {
	if p.APIVersion == "V2" {
		return "API V2 raw data: its timestamps come from a cache and lag the clock by seconds, so T must be a TSO known to be a cut"
	}
	return fmt.Sprintf("API %s raw data has no versions: there is nothing to go back to", p.APIVersion)
}
func (p *RawData) Next() string {
	if p.APIVersion == "V2" {
		return "--force=raw-data rewinds raw data too"
	}
	return "restore raw data from a backup"
}

// WALDamage: a log of the kv or raft DB has a damage that is not a torn end.
type WALDamage struct {
	Store  uint64 `json:"store_id,omitempty"`
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Reason string `json:"reason"`
}

func (*WALDamage) Name() string       { return "wal-damage" }
func (*WALDamage) Severity() Severity { return Fatal }
func (p *WALDamage) Where() string    { return p.Path }
func (p *WALDamage) What() string {
	return fmt.Sprintf("damaged at offset %d: %s", p.Offset, p.Reason)
}
func (*WALDamage) Next() string {
	return "take a copy of the directory; then restore this log from a copy, or give the store up: its replicas elsewhere are whole"
}

// RaftLogDamage: TiKV opens the raft store, but drops part of it without a word.
type RaftLogDamage struct {
	Store  uint64 `json:"store_id,omitempty"`
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

func (*RaftLogDamage) Name() string       { return "raft-log-damage" }
func (*RaftLogDamage) Severity() Severity { return Error }
func (p *RaftLogDamage) Where() string    { return p.Path }
func (p *RaftLogDamage) What() string     { return "part of the raft log is lost: " + p.Reason }
func (*RaftLogDamage) Next() string {
	return "restore the file if a copy exists; --force=raft-log-damage goes on with what is readable, as TiKV would"
}

// RegionState: a peer that is neither Normal nor Tombstone.
type RegionState struct {
	Store  uint64 `json:"store_id"`
	Region uint64 `json:"region_id"`
	State  string `json:"state"` // Applying, Merging, Unavailable
}

func (*RegionState) Name() string { return "region-state" }
func (p *RegionState) Severity() Severity {
	if p.State == "Merging" {
		return Error
	}
	return Fatal
}
func (p *RegionState) Where() string { return atRegion(p.Store, p.Region) }
func (p *RegionState) What() string {
	switch p.State {
	case "Applying":
		return "a snapshot is half applied: the data of its range is undefined until TiKV has finished it"
	case "Merging":
		return "the region was being merged into its neighbour"
	case "Unavailable":
		return "a former witness that waits for data: it holds none"
	}
	return "peer state " + p.State
}
func (p *RegionState) Next() string {
	if p.State == "Merging" {
		return "plan over the reports of all stores: it rolls the merge back or finishes it"
	}
	return "take this region from another store, or start TiKV once so that it finishes the snapshot"
}

// RegionStart: TiKV would not start with this region.
type RegionStart struct {
	Store  uint64 `json:"store_id"`
	Region uint64 `json:"region_id"`
	Reason string `json:"reason"`
}

func (*RegionStart) Name() string       { return "region-start" }
func (*RegionStart) Severity() Severity { return Error }
func (p *RegionStart) Where() string    { return atRegion(p.Store, p.Region) }
func (p *RegionStart) What() string     { return "TiKV will not start: " + p.Reason }
func (p *RegionStart) Next() string {
	return fmt.Sprintf("look at it with region %d; cut-tail or tombstone repair one region", p.Region)
}

// BadRecord: a write or lock record does not decode.
type BadRecord struct {
	Store  uint64 `json:"store_id,omitempty"`
	CF     string `json:"cf"`
	Key    string `json:"key"` // database key, upper-case hex
	Reason string `json:"reason"`
}

func (*BadRecord) Name() string       { return "bad-record" }
func (*BadRecord) Severity() Severity { return Fatal }
func (p *BadRecord) Where() string {
	return strings.TrimPrefix(atStore(p.Store)+", column family "+p.CF+", key "+p.Key, ", ")
}
func (p *BadRecord) What() string { return p.Reason }
func (*BadRecord) Next() string   { return "look at the key with mvcc, then run check" }

// MissingValue: a version that is visible has no value.
type MissingValue struct {
	Store    uint64  `json:"store_id,omitempty"`
	Key      string  `json:"key"` // user key, upper-case hex
	CommitTS mvcc.TS `json:"commit_ts"`
	StartTS  mvcc.TS `json:"start_ts"`
	// SafePoint is the cluster's GC safe point if it is known and the version was superseded below it.
	SafePoint mvcc.TS `json:"safe_point,omitempty"`
}

func (*MissingValue) Name() string { return "missing-value" }
func (p *MissingValue) Severity() Severity {
	if p.SafePoint != 0 {
		return Info
	}
	return Warning
}
func (p *MissingValue) Where() string {
	return strings.TrimPrefix(atStore(p.Store)+", key "+p.Key, ", ")
}
func (p *MissingValue) What() string {
	s := fmt.Sprintf("the version committed at %s has no row at %s in the default column family", p.CommitTS, p.StartTS)
	if p.SafePoint != 0 {
		s += fmt.Sprintf("; it was superseded below the safe point %s: garbage collection was at it, and nobody reads it", p.SafePoint)
	}
	return s
}
func (p *MissingValue) Next() string {
	if p.SafePoint != 0 {
		return "nothing has to be done"
	}
	return "look at the key with mvcc; another replica may have the value"
}

// PendingFile: a received snapshot or an uploaded SST that TiKV would take in after the rewind.
type PendingFile struct {
	Store uint64 `json:"store_id,omitempty"`
	Path  string `json:"path"`
}

func (*PendingFile) Name() string       { return "pending-snapshot" }
func (*PendingFile) Severity() Severity { return Warning }
func (p *PendingFile) Where() string    { return p.Path }
func (*PendingFile) What() string {
	return "a snapshot or an imported file waits here with something above T: TiKV could bring it back"
}
func (*PendingFile) Next() string {
	return "nothing to do: it is moved into the backup, and undo puts it back"
}

// Unsupported: legal data that this tool does not change.
type Unsupported struct {
	Store   uint64 `json:"store_id,omitempty"`
	Feature string `json:"feature"`
	Reason  string `json:"reason"`
}

func (*Unsupported) Name() string       { return "unsupported-feature" }
func (*Unsupported) Severity() Severity { return Fatal }
func (p *Unsupported) Where() string    { return atStore(p.Store) }
func (p *Unsupported) What() string     { return p.Feature + ": " + p.Reason }
func (*Unsupported) Next() string       { return "the read-only verbs still work on this store" }
