package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// ReportFormat is the version of the lines of a report. A reader refuses any other.
const ReportFormat = 1

// The kinds of lines of a report. A report is JSON lines: one "store" first, then its "region", "lock" and "answer" lines in any order, one
// "end" last. "pd" lines stand alone. Several reports may follow each other in one stream.
const (
	LineStore  = "store"
	LineRegion = "region"
	LineLock   = "lock"
	LineAnswer = "answer"
	LinePD     = "pd"
	LineEnd    = "end"
)

// Fingerprint is the first half of a SHA-256: it names the bytes that a decision was made from. Its text is hex, lower case; the zero
// value stands for "nothing there" and its text is "".
type Fingerprint [16]byte

// FingerprintOf hashes parts in their order; nil and empty parts differ, and so do two parts and their concatenation.
func FingerprintOf(parts ...[]byte) Fingerprint {
	h := sha256.New()
	for _, p := range parts {
		n := uint64(len(p)) + 1
		if p == nil {
			n = 0
		}
		h.Write(binary.BigEndian.AppendUint64(nil, n))
		h.Write(p)
	}
	return Fingerprint(h.Sum(nil)[:16])
}

func (f Fingerprint) String() string {
	if f == (Fingerprint{}) {
		return ""
	}
	return hex.EncodeToString(f[:])
}

// MarshalText gives String.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	*f = Fingerprint{}
	if len(b) == 0 {
		return nil
	}
	if hex.DecodedLen(len(b)) != len(f) {
		return fmt.Errorf("fingerprint %q has not %d bytes", b, len(f))
	}
	_, err := hex.Decode(f[:], b)
	return err
}

// RegionFingerprint is the fingerprint of one peer: the three records as their bytes (nil: no record) and the bounds of the stored log
// (first and last stored index; 0, 0: none).
func RegionFingerprint(region, raft, apply []byte, first, last uint64) Fingerprint {
	bounds := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, first), last)
	return FingerprintOf(region, raft, apply, bounds)
}

// Finding is a problem that collect met, as it travels in a report: the shape of Described, the details left as they are.
type Finding struct {
	Name      string          `json:"name"`
	Severity  Severity        `json:"severity"`
	Where     string          `json:"where,omitempty"`
	What      string          `json:"what"`
	Next      string          `json:"next,omitempty"`
	Forceable bool            `json:"forceable"`
	Details   json.RawMessage `json:"details,omitempty"`
}

// StoreReport is the head of one store's report.
type StoreReport struct {
	Kind   string `json:"kind"`   // LineStore
	Format int    `json:"format"` // ReportFormat
	Tool   string `json:"tool"`   // version of this tool

	ClusterID  uint64 `json:"cluster_id"`
	StoreID    uint64 `json:"store_id"`
	APIVersion string `json:"api_version"`    // V1, V1TTL, V2
	Engine     string `json:"engine"`         // EngineV1; anything else is refused
	RaftStore  string `json:"raft_store"`     // "raft-engine" or "raftdb"
	TiKV       string `json:"tikv,omitempty"` // the TiKV releases that the files point to
	RawData    bool   `json:"raw_data,omitempty"`

	// Fingerprint of the store: ids, CURRENT, live files and sizes, WAL sizes, raft tail.
	Fingerprint Fingerprint `json:"fingerprint"`
	// NewestCommit is the newest commit_ts in the data. 0: none.
	NewestCommit mvcc.TS `json:"newest_commit_ts"`
	NewestTime   string  `json:"newest_commit_time,omitempty"`
	// MaxTailTS is the newest timestamp in any entry of any log. 0: none.
	MaxTailTS mvcc.TS `json:"max_tail_ts"`
	// MaxID is the largest region or peer id in any record (tombstones too) or log entry.
	MaxID uint64 `json:"max_id"`
	// SafePoint is the GC safe point when the operator stated it or the store knows it. 0: not known.
	SafePoint mvcc.TS `json:"safe_point,omitempty"`
	// ToTS is the T that the report was made for: its locks are those with start_ts ≤ T. 0: made without, it has no locks.
	ToTS mvcc.TS `json:"to_ts,omitempty"`

	Collected string `json:"collected,omitempty"` // RFC 3339; for people
	DataDir   string `json:"data_dir,omitempty"`  // for people
	Host      string `json:"host,omitempty"`      // for people
	// Answers is the plan whose questions the lines answer; "": it is a report.
	Answers string `json:"answers_plan_id,omitempty"`
	// Fenced is the plan whose fence the store has.
	Fenced   string    `json:"fenced_plan_id,omitempty"`
	Problems []Finding `json:"problems,omitempty"`
}

// EngineV1 is the only engine that is written.
const EngineV1 = "raftstore-v1"

// PeerReport is one region record of one store, tombstones included.
//
// A million regions have three million of these: what is rare is small, and kind is only in the line.
type PeerReport struct {
	StoreID     uint64      `json:"store_id"`
	RegionID    uint64      `json:"region_id"`
	Fingerprint Fingerprint `json:"fingerprint"` // see RegionFingerprint

	Region     raftstate.Region      `json:"region"`
	MergeState *raftstate.MergeState `json:"merge_state,omitempty"`
	State      raftstate.PeerState   `json:"state"`
	// Usable says that the data of the range is there and whole and that the start rules pass or can be made to pass (repair-semantics.md
	// 9.1). Reason says why not. It is about this store alone: witnesses, Applying and Unavailable peers are not usable.
	Usable  bool   `json:"usable"`
	NoRaft  bool   `json:"no_raft_state,omitempty"` // the record is not there
	NoApply bool   `json:"no_apply_state,omitempty"`
	Reason  string `json:"unusable_reason,omitempty"`
	// StartRules are the rules of repair-semantics.md 5.2 that the records break as they are.
	StartRules []StartRule `json:"start_rules,omitempty"`
	// Snapshot is set for Applying.
	Snapshot *SnapshotReport `json:"snapshot,omitempty"`

	RaftNumbers
	// Bytes is about how much data the range has on this store, from the sizes of files.
	Bytes uint64 `json:"data_bytes"`
	// Log sums up the entries of (truncated, last], in index order, without gaps: what is not stored is a group of kind GroupMissing.
	Log []LogGroup `json:"log,omitempty"`
}

// RaftNumbers are what follows from the records and the log of one peer.
//
// Invariant: Truncated.Index ≤ Applied. Last < Applied is legal: entries were applied before they were persisted.
type RaftNumbers struct {
	Truncated   raftstate.TruncatedState `json:"truncated"`
	Applied     uint64                   `json:"applied"`
	AppliedTerm uint64                   `json:"applied_term"` // 0: not known
	Last        uint64                   `json:"last"`
	LastTerm    uint64                   `json:"last_term"` // of the entry, not of the hard state; 0: not known
	Commit      uint64                   `json:"commit"`    // max(hard_state.commit, apply.commit_index)
	CommitTerm  uint64                   `json:"commit_term"`
	HardTerm    uint64                   `json:"hard_state_term"`
	Vote        uint64                   `json:"hard_state_vote"`
	HardCommit  uint64                   `json:"hard_state_commit"`
	FirstStored uint64                   `json:"log_first"` // first and last stored index; 0, 0: the log is empty
	LastStored  uint64                   `json:"log_last"`
}

// StartRule is one broken start rule.
type StartRule struct {
	Rule        int    `json:"rule"`
	Consequence string `json:"consequence"` // stops-start, stops-old-lines, panics-later
	Message     string `json:"message"`
}

// SnapshotReport is about the snapshot that an Applying peer waits for.
type SnapshotReport struct {
	Complete bool   `json:"complete"` // all files are there and their checksums match
	Index    uint64 `json:"index"`    // of the snapshot's raft state; 0: it has none
	Term     uint64 `json:"term"`
	Reason   string `json:"reason,omitempty"`
}

// GroupKind tells what a LogGroup holds.
type GroupKind uint8

const (
	// GroupEmpty: no-ops of new leaders, and commands without requests.
	GroupEmpty GroupKind = iota
	// GroupWrite: write commands.
	GroupWrite
	// GroupAdmin: one admin command.
	GroupAdmin
	// GroupConfChange: one conf change; Admin is nil when raft itself proposed to leave the joint state.
	GroupConfChange
	// GroupOpaque: one entry that does not decode, or whose effect is not known.
	GroupOpaque
	// GroupMissing: entries that should be there and are not.
	GroupMissing
)

var groupNames = []string{"empty", "write", "admin", "conf-change", "opaque", "missing"}

func (k GroupKind) String() string {
	if int(k) < len(groupNames) {
		return groupNames[k]
	}
	return fmt.Sprintf("GroupKind(%d)", uint8(k))
}

// MarshalText gives the name.
func (k GroupKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the name.
func (k *GroupKind) UnmarshalText(b []byte) error {
	for i, n := range groupNames {
		if n == string(b) {
			*k = GroupKind(i)
			return nil
		}
	}
	return fmt.Errorf("unknown kind of log entries %q", b)
}

// LogGroup is one admin entry, or a run of consecutive entries of one kind with one term and one header epoch. A run never crosses the
// peer's applied or commit index. The planner judges a range of the log by all groups that it touches, so it is right with runs of any
// length; shorter ones near applied and last let it decide more.
type LogGroup struct {
	First uint64          `json:"first"`
	Last  uint64          `json:"last"` // inclusive
	Term  uint64          `json:"term"`
	Kind  GroupKind       `json:"group"`
	Epoch raftstate.Epoch `json:"epoch,omitzero"` // of the headers; zero for entries without one
	// Admin is the command of an admin or conf-change entry.
	Admin *raftstate.Admin `json:"admin,omitempty"`
	// Blocked says why apply cannot execute the entry offline, whatever its epoch: it does not decode, holds unknown fields, ingests a file
	// that is not there. Such an entry is a group of its own. Admin commands and conf changes are not blocked: the planner judges them.
	Blocked string `json:"blocked,omitempty"`
	// StopsTiKV says that TiKV, too, stops at a blocked entry: it does not decode, or the ingested file is missing. Missing entries do.
	StopsTiKV bool      `json:"stops_tikv,omitempty"`
	Write     *WriteSum `json:"write,omitempty"` // of GroupWrite with requests
}

// Entries is the number of entries.
func (g LogGroup) Entries() uint64 { return g.Last - g.First + 1 }

// WriteSum sums up the requests of a run of write commands.
type WriteSum struct {
	Records  uint64 `json:"records"`            // puts and deletes, in any column family, those of ingested files not included
	Versions uint64 `json:"versions,omitempty"` // Put and Delete records put into the write column family
	// MinCommitTS and MaxCommitTS are over the keys of all puts and deletes in the write column family. 0, 0: none.
	MinCommitTS mvcc.TS `json:"min_commit_ts,omitempty"`
	MaxCommitTS mvcc.TS `json:"max_commit_ts,omitempty"`
	// MinStartTS and MaxStartTS are over prewritten locks (not pessimistic ones) that are put, over rows of the default column family that
	// are put or deleted, and over the timestamps of raw API V2 keys. 0, 0: none.
	MinStartTS mvcc.TS `json:"min_start_ts,omitempty"`
	MaxStartTS mvcc.TS `json:"max_start_ts,omitempty"`
	// Unstamped counts records whose key has no timestamp where one is expected: raw data of API V1.
	Unstamped    uint64 `json:"unstamped,omitempty"`
	DeleteRanges uint64 `json:"delete_ranges,omitempty"`
	Ingests      uint64 `json:"ingests,omitempty"` // files that are there; one that is not blocks
}

// LockReport is one lock with start_ts ≤ T, or one inner lock of a shared lock. Pessimistic and shared locks are left out: they are removed
// whatever happened.
type LockReport struct {
	Kind     string        `json:"kind"` // LineLock
	StoreID  uint64        `json:"store_id"`
	RegionID uint64        `json:"region_id"`
	Key      raftstate.Key `json:"key"` // raw user key
	// Index is 0 for a lock in the data, else the index of the log entry above applied that would put it.
	Index uint64 `json:"index,omitempty"`

	Type        string          `json:"type"` // P, D, L
	Primary     raftstate.Key   `json:"primary"`
	StartTS     mvcc.TS         `json:"start_ts"`
	ForUpdateTS mvcc.TS         `json:"for_update_ts,omitempty"`
	MinCommitTS mvcc.TS         `json:"min_commit_ts,omitempty"`
	AsyncCommit bool            `json:"async_commit,omitempty"`
	Secondaries []raftstate.Key `json:"secondaries,omitempty"`
	ShortValue  bool            `json:"short_value,omitempty"` // the value is in the lock
}

// PDReport is what a PD directory, or its API, knew.
type PDReport struct {
	Kind   string `json:"kind"` // LinePD
	Format int    `json:"format"`
	Tool   string `json:"tool"`

	ClusterID uint64 `json:"cluster_id"`
	// SafePoint is the highest GC safe point found; 0: none. SafePointUnsure says that a higher one may be lost; GCNeverRan that there
	// never was one, so that nothing has been collected. SafePointSource says where that comes from.
	//
	// Invariant: GCNeverRan ⇒ SafePoint = 0 and not SafePointUnsure.
	SafePoint       mvcc.TS `json:"safe_point,omitempty"`
	SafePointUnsure bool    `json:"safe_point_unsure,omitempty"`
	GCNeverRan      bool    `json:"gc_never_ran,omitempty"`
	SafePointSource string  `json:"safe_point_source,omitempty"`
	// MinResolvedTS is the last min-resolved-ts of the cluster. ConsistentTS is the latest one that proves something: after a switch to
	// async an earlier one. 0: nothing is proven. ConsistentWhy says why in both cases.
	MinResolvedTS mvcc.TS `json:"min_resolved_ts,omitempty"`
	ConsistentTS  mvcc.TS `json:"consistent_ts,omitempty"`
	ConsistentWhy string  `json:"consistent_reason,omitempty"`
	TSO           mvcc.TS `json:"tso,omitempty"` // no timestamp above it was handed out
	TSOSource     string  `json:"tso_source,omitempty"`
	AllocID       uint64  `json:"alloc_id,omitempty"` // no id above it was handed out

	ServiceSafePoints []ServiceSafePoint `json:"service_safe_points,omitempty"`
	Stores            []PDStore          `json:"stores,omitempty"`
	// Regions are the descriptors with the highest epoch known, by id.
	Regions []raftstate.Region `json:"regions,omitempty"`
	// DRState is the state of DR Auto-Sync: sync, async_wait, async, sync_recover; unknown: it is on, and no state of it is left;
	// "": it is not in use.
	DRState   string `json:"dr_state,omitempty"`
	DRStateID uint64 `json:"dr_state_id,omitempty"`
	// DRReserve says why a later state may be lost; "": this is the last one.
	DRReserve string `json:"dr_state_reserve,omitempty"`
	DataDir   string `json:"data_dir,omitempty"` // one for each member, separated by commas
}

// ServiceSafePoint is one entry of PD's list.
type ServiceSafePoint struct {
	Service   string  `json:"service_id"`
	SafePoint mvcc.TS `json:"safe_point"`
	Expires   int64   `json:"expired_at,omitempty"` // Unix seconds
}

// PDStore is a store as PD knows it.
type PDStore struct {
	ID      uint64            `json:"id"`
	State   string            `json:"state"` // Up, Offline, Tombstone
	Address string            `json:"address,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	TiFlash bool              `json:"tiflash,omitempty"`
}

// Answer is what one store says to one question of a plan. A store that holds nothing of the region answers with Here = false, so that "not
// there" and "not asked" differ.
type Answer struct {
	Kind     string `json:"kind"` // LineAnswer
	StoreID  uint64 `json:"store_id"`
	Question string `json:"question_id"`
	PlanID   string `json:"plan_id"`
	// Fingerprint is the store's at the time of the answer; the plan refuses answers of a store that has changed since its report.
	Fingerprint Fingerprint `json:"fingerprint"`

	RegionID uint64 `json:"region_id,omitempty"` // the region of the key, or the one that was asked for
	Here     bool   `json:"here"`
	// To a question about a key: what the data have (Index 0) and what entries above applied would change (Index of the entry), in index
	// order, for the transaction that was asked for.
	Facts []KeyFact `json:"facts,omitempty"`
	// To a question about entries: the entries of (from, to], all of them, in order.
	Entries []CarriedEntry `json:"entries,omitempty"`
}

// KeyFact is one thing that is known about a transaction at one key. Exactly one of Commit, Rollback, Lock, Unlock is set.
type KeyFact struct {
	Index    uint64      `json:"index,omitempty"` // 0: in the data; else the log entry that says so
	Commit   *CommitFact `json:"commit,omitempty"`
	Rollback bool        `json:"rollback,omitempty"` // a Rollback record, or the overlapped flag, at start_ts
	Lock     *LockReport `json:"lock,omitempty"`     // pessimistic ones too: type S
	Unlock   bool        `json:"unlock,omitempty"`   // an entry deletes the key's lock
}

// CommitFact is a Put, Delete or Lock record with the transaction's start_ts.
type CommitFact struct {
	CommitTS mvcc.TS `json:"commit_ts"`
	Type     string  `json:"type"` // P, D, L
}

// CarriedEntry is a raft log entry on its way to another store.
type CarriedEntry struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Raw   []byte `json:"raw"` // eraftpb.Entry; base64 in JSON
}

// EndReport ends the report of one store; its counts tell a whole report from one that was cut off.
type EndReport struct {
	Kind    string `json:"kind"` // LineEnd
	StoreID uint64 `json:"store_id"`
	Regions uint64 `json:"regions"`
	Locks   uint64 `json:"locks"`
	Answers uint64 `json:"answers"`
}
