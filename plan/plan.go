package plan

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/raftstate"
)

// PlanFormat is the version of a plan file. apply refuses any other.
const PlanFormat = 1

// Plan is what is done to all stores, and why. It is a pure function of the reports and the options: the same input gives the same bytes.
type Plan struct {
	Format    int    `json:"format"` // PlanFormat
	PlanID    string `json:"plan_id"`
	Tool      string `json:"tool"`
	Made      string `json:"made"` // RFC 3339, as given by the caller
	ClusterID uint64 `json:"cluster_id"`
	// Final says that apply may execute the plan. A plan with questions is not final: collect --answer on each store that it asks, then plan
	// again with the answers.
	Final bool `json:"final"`

	ToTS         mvcc.TS  `json:"to_ts,omitempty"` // 0: no rewind
	ToTime       string   `json:"to_time,omitempty"`
	SafePoint    mvcc.TS  `json:"safe_point,omitempty"`   // what is known of it, with ToTS
	GCNeverRan   bool     `json:"gc_never_ran,omitempty"` // PD vouches that there is no safe point
	FailedStores []uint64 `json:"failed_stores"`
	Keep         string   `json:"keep"`      // KeepAll, KeepWinner
	HoleFill     string   `json:"hole_fill"` // HoleEmpty, HoleStale
	// ByHand is what the operator decided about single regions.
	ByHand []ByHand `json:"by_hand,omitempty"`

	Stores    []StorePlan    `json:"stores"`
	Regions   []RegionPlan   `json:"regions"`             // every region that is not left alone, by start key
	Txns      []TxnVerdict   `json:"transactions"`        // with ToTS: by start_ts, primary
	Questions []Question     `json:"questions,omitempty"` // by id
	Summary   Summary        `json:"summary"`
	Stages    []Stage        `json:"stages"`
	Problems  []Finding      `json:"problems"` // sorted; what was accepted with --force included
	Forced    []string       `json:"forced,omitempty"`
	NextSteps []string       `json:"next_steps"`
	Floors    Floors         `json:"floors"`
	Carried   []CarriedRange `json:"carried,omitempty"` // log entries that go to other stores
	// Hash is the SHA-256, hex, of the plan's JSON with this field empty.
	Hash string `json:"hash"`
}

// What is kept of a region that lost its quorum.
const (
	KeepAll    = "all"    // every survivor that can be made equal
	KeepWinner = "winner" // one
)

// How a part of the key space that no region holds is filled.
const (
	HoleEmpty = "empty" // with a new, empty region
	HoleStale = "stale" // with the best superseded copy, where one covers it
)

// StorePlan is the part of one store. The actions are in the order in which they are executed; there is one for each region of the store
// that changes, and no region that is not named changes (a rewind edits its data nevertheless, when Rewind is set).
type StorePlan struct {
	StoreID     uint64      `json:"store_id"`
	Fingerprint Fingerprint `json:"fingerprint"` // of the report; apply refuses another
	Rewind      bool        `json:"rewind"`      // the data go back to the plan's T after the log entries of all actions are applied
	Actions     []Action    `json:"actions"`
}

// ActionKind is what happens to one region on one store.
type ActionKind string

const (
	// ActionRewrite: the peer stays, with the records of Action.New.
	ActionRewrite ActionKind = "rewrite"
	// ActionTombstone: the peer is destroyed; TiKV deletes its data when it starts. Region state Tombstone with the descriptor of New;
	// apply state, raft state, snapshot raft state and log go. merge_state goes unless KeepMergeState.
	ActionTombstone ActionKind = "tombstone"
	// ActionCreate: a region that this store does not have, or has as a tombstone only, gets the records of New and an empty log.
	ActionCreate ActionKind = "create"
)

// Action is what happens to one region on one store. It is executed as one edit, in this order: Apply, then DeleteData, then the records.
//
// apply compares three ways: the peer's fingerprint is Old → do it; the records are New and the journal is ours → done already; anything
// else → refuse.
type Action struct {
	Kind     ActionKind  `json:"kind"`
	RegionID uint64      `json:"region_id"`
	Old      Fingerprint `json:"old_fingerprint"` // "": the store has no record of the region
	Reason   string      `json:"reason"`

	// Apply brings the data to a log index first. nil: they stay.
	Apply *ApplyLog `json:"apply_log,omitempty"`
	// DeleteData deletes every record of the new region's range in default, lock and write first: an empty region must be empty.
	DeleteData bool `json:"delete_data,omitempty"`
	// Tail is what becomes of the log entries above New.Applied. With TailKeep and TailNeutralise log and indexes stay as they are.
	Tail TailStrategy `json:"tail,omitempty"`
	// KeepMergeState leaves merge_state in a tombstone: the merge was committed, so the peer that comes back is told to go.
	KeepMergeState bool `json:"keep_merge_state,omitempty"`

	New NewState `json:"new"`
}

// ApplyLog brings a peer's data from its applied index to To.
type ApplyLog struct {
	From uint64 `json:"from"` // the applied index of the report
	To   uint64 `json:"to"`   // inclusive
	Term uint64 `json:"term"` // of the entry at To
	// Version is the region version at From. A write whose header names another version than the region has by then is a no-op.
	Version uint64 `json:"version"`
	// Carried: the entries above CarriedFrom come from Plan.Carried of this region, and are appended to the log (which is cut there first
	// when it disagrees). 0: all come from the peer's own log.
	CarriedFrom uint64 `json:"carried_from,omitempty"`
	// Admin are the admin entries of (From, To] whose effect the plan itself has: apply passes over them, takes the version behind them, and
	// leaves everything else of them to the actions. Every other admin entry or conf change in the range is a no-op.
	Admin []AdminStep `json:"admin,omitempty"`
}

// AdminStep is an admin entry that the plan carries out.
type AdminStep struct {
	Index   uint64              `json:"index"`
	Type    raftstate.AdminType `json:"cmd_type"`
	Version uint64              `json:"version_after"` // of the region
}

// TailStrategy is one of the three of repair-semantics.md 7.2.
type TailStrategy string

const (
	// TailKeep: conf_ver is raised; writes of the tail still apply, everything else becomes a no-op.
	TailKeep TailStrategy = "keep"
	// TailNeutralise: both parts of the epoch are raised; the whole tail becomes a no-op.
	TailNeutralise TailStrategy = "neutralise"
	// TailDrop: the log is emptied at the applied index.
	TailDrop TailStrategy = "drop"
)

// NewState is what the records say afterwards. Fields of the records that are not named stay byte for byte.
type NewState struct {
	State  raftstate.PeerState `json:"state"`
	Region raftstate.Region    `json:"region"` // the whole descriptor; flashback mark included
	// The rest is not set for a tombstone. With a rewind and TailDrop, Applied may be below the applied index of the report: everything
	// that was applied above it is above T, and the rewind takes it back.
	Applied     uint64                   `json:"applied,omitempty"`
	AppliedTerm uint64                   `json:"applied_term,omitempty"`
	Truncated   raftstate.TruncatedState `json:"truncated,omitzero"`
	Last        uint64                   `json:"last,omitempty"`
	LastTerm    uint64                   `json:"last_term,omitempty"`
	// Commit is hard_state.commit. apply.commit_index and commit_term are Applied and AppliedTerm where they grow or, with TailDrop, shrink.
	Commit uint64 `json:"commit,omitempty"`
	Term   uint64 `json:"hard_state_term,omitempty"`
	Vote   uint64 `json:"hard_state_vote,omitempty"` // 0 when Term is raised: a vote belongs to its term
}

// CarriedRange are log entries of a region that other stores need. A region can have two, one after the other, from two stores.
type CarriedRange struct {
	RegionID  uint64         `json:"region_id"`
	FromStore uint64         `json:"from_store"`
	Entries   []CarriedEntry `json:"entries"`
}

// Decision is what happens to a region.
type Decision string

const (
	// DecisionHealthy: it has its quorum; nothing is done to it.
	DecisionHealthy Decision = "healthy"
	// DecisionRewind: it has its quorum, and its replicas are made equal for the rewind.
	DecisionRewind Decision = "rewind"
	// DecisionRewrite: it lost its quorum; what is kept becomes the whole group.
	DecisionRewrite Decision = "rewrite"
	// DecisionSuperseded: other regions with newer descriptors hold its range.
	DecisionSuperseded Decision = "superseded"
	// DecisionMerged: it was merged into its neighbour.
	DecisionMerged Decision = "merged"
	// DecisionRemoved: a tombstone with a newer epoch shows that these peers had been removed, or the operator says so.
	DecisionRemoved Decision = "removed"
	// DecisionCreate: a new empty region fills a hole.
	DecisionCreate Decision = "create"
	// DecisionSplitOff: a split that was committed and not carried out where the log survived is carried out.
	DecisionSplitOff Decision = "split-off"
	// DecisionStale: a superseded copy fills a hole.
	DecisionStale Decision = "stale-copy"
	// DecisionWait: TiKV has to finish a snapshot first; left as it is.
	DecisionWait Decision = "wait"
)

// RegionPlan is the decision about one region, with everything that it was made from.
type RegionPlan struct {
	ID       uint64   `json:"region_id"`
	Range    Range    `json:"range"` // afterwards; before, for regions that go
	Decision Decision `json:"decision"`
	Reason   string   `json:"reason"`
	// LostQuorum says that the region would have no leader if it were left alone.
	LostQuorum bool             `json:"lost_quorum,omitempty"`
	Old        raftstate.Region `json:"old_region,omitzero"` // the newest descriptor of the survivors
	New        raftstate.Region `json:"new_region,omitzero"` // zero: none stays

	WinnerStore uint64     `json:"winner_store,omitempty"`
	WinnerPeer  uint64     `json:"winner_peer,omitempty"`
	KeptStores  []uint64   `json:"kept_stores,omitempty"`
	Survivors   []Survivor `json:"survivors,omitempty"` // by store id
	Loss        Loss       `json:"loss"`
	// CopyBytes is about what PD has to copy until the region has as many replicas as before.
	CopyBytes uint64 `json:"copy_bytes,omitempty"`
}

// Survivor is one peer with its numbers.
type Survivor struct {
	StoreID     uint64 `json:"store_id"`
	PeerID      uint64 `json:"peer_id,omitempty"`
	Role        string `json:"role,omitempty"`
	State       string `json:"state"`
	ConfVer     uint64 `json:"conf_ver"`
	Version     uint64 `json:"version"`
	Applied     uint64 `json:"applied"`
	AppliedTerm uint64 `json:"applied_term"`
	Commit      uint64 `json:"commit"`
	Last        uint64 `json:"last"`
	LastTerm    uint64 `json:"last_term"`
	HardTerm    uint64 `json:"hard_state_term"`
	Kept        bool   `json:"kept"`
	Why         string `json:"why"` // why it is kept, or not
}

// Certainty of a loss.
type Certainty string

const (
	// LossNone: everything that the survivors applied or knew to be committed is in the result, and so is what the lost majority could have
	// committed (a quorum of the region is here).
	LossNone Certainty = "none"
	// LossPossible: everything that survived is in the result; what only the lost stores had is not.
	LossPossible Certainty = "possible"
	// LossCertain: something that was committed, or that a survivor has, is not in the result.
	LossCertain Certainty = "certain"
)

// Loss is what does not survive of one region.
type Loss struct {
	Certainty Certainty `json:"certainty"`
	// Entries are log entries that a survivor has applied or knows to be committed and that are not in the result.
	Entries []LostEntries `json:"entries,omitempty"`
	Notes   []string      `json:"notes,omitempty"`
}

// LostEntries is a range of log entries that are lost, and how that is known.
type LostEntries struct {
	StoreID     uint64  `json:"store_id"` // who has them
	First       uint64  `json:"first"`
	Last        uint64  `json:"last"`
	Applied     bool    `json:"applied"`            // they were applied there; else they are known to be committed
	Versions    uint64  `json:"versions,omitempty"` // Put and Delete records among them, as far as known
	MinCommitTS mvcc.TS `json:"min_commit_ts,omitempty"`
	MaxCommitTS mvcc.TS `json:"max_commit_ts,omitempty"`
	Why         string  `json:"why"`
}

// TxnVerdict decides all locks of one transaction, on all stores: rules 1 and 2 of DecideLocks come first.
type TxnVerdict struct {
	Txn TxnKey `json:"transaction"`
	Verdict
	// Locks is how many locks of it were reported.
	Locks int `json:"locks"`
}

// QuestionKind tells what is asked.
type QuestionKind string

const (
	// AskKey asks what a store knows of one transaction at one key.
	AskKey QuestionKind = "key"
	// AskEntries asks for log entries.
	AskEntries QuestionKind = "entries"
)

// Question is what a plan that is not final wants to know.
type Question struct {
	ID     string       `json:"question_id"`
	Kind   QuestionKind `json:"kind"`
	Stores []uint64     `json:"stores"` // who is asked
	Reason string       `json:"reason"`

	Key     raftstate.Key `json:"key,omitempty"`      // AskKey: raw user key
	StartTS mvcc.TS       `json:"start_ts,omitempty"` // AskKey: the transaction

	RegionID uint64 `json:"region_id,omitempty"` // AskEntries
	From     uint64 `json:"from,omitempty"`      // exclusive
	To       uint64 `json:"to,omitempty"`        // inclusive
}

// Range is a part of the key space, in the form of region descriptors and decoded.
type Range struct {
	Start     raftstate.Key `json:"start_key"`
	End       raftstate.Key `json:"end_key"` // "": the end of the key space
	StartText string        `json:"start,omitempty"`
	EndText   string        `json:"end,omitempty"`
}

// Summary counts.
type Summary struct {
	Healthy     int `json:"healthy_regions"` // left alone
	Rewound     int `json:"rewound_regions"`
	Rewritten   int `json:"rewritten_regions"`
	Tombstoned  int `json:"tombstoned_peers"`
	Created     int `json:"created_regions"`
	LossCertain int `json:"regions_with_certain_loss"`
	LossMaybe   int `json:"regions_with_possible_loss"`

	AffectedTables []int64  `json:"affected_table_ids"`
	MetaRegions    []uint64 `json:"affected_meta_regions"`
	EmptyRegions   []uint64 `json:"newly_created_empty_regions"`
	CopyBytes      uint64   `json:"copy_bytes"`
}

// Stage is one step of the report, in the order of PD's online recovery.
type Stage struct {
	Name    string              `json:"stage"`
	Info    string              `json:"info"`
	Actions map[string][]string `json:"actions,omitempty"` // "store N" → lines
	Details []string            `json:"details,omitempty"`
}

// Floors are what PD must be above before the cluster starts.
type Floors struct {
	AllocID uint64  `json:"alloc_id"` // base-alloc-id: no id up to here may be handed out again
	TSO     mvcc.TS `json:"tso"`
	TSOTime string  `json:"tso_time"`
}

// Violation is an invariant of repair-semantics.md 10 that a plan breaks: a bug of the planner.
type Violation struct {
	Invariant string `json:"invariant"` // I1 to I14
	Where     string `json:"where"`
	What      string `json:"what"`
}

func (v Violation) Error() string { return fmt.Sprintf("%s, %s: %s", v.Invariant, v.Where, v.What) }
