package repair

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/tikv-repair/tikv-repair/engine/raftlog"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// ApplyOptions of Apply.
type ApplyOptions struct {
	Plan    *plan.Plan
	Force   map[string]bool // beside what the plan has accepted
	DryRun  bool
	Threads int
	Memory  int64 // see RewindOptions
	Now     time.Time
	Version string
	Meter   *scan.Meter
	Preview func(*ApplyResult)
	Confirm func() (bool, error)
	Say     func(format string, args ...any)
}

// ApplyLine is what happens to one region of the store.
type ApplyLine struct {
	Region uint64          `json:"region_id"`
	Kind   plan.ActionKind `json:"kind"`
	Reason string          `json:"reason"`
	Before string          `json:"before"`
	After  string          `json:"after"`
	Tail   *TailApplied    `json:"tail,omitempty"`
	// Deleted is the number of records that an empty region's range held before.
	Deleted int64 `json:"records_deleted,omitempty"`
}

// ApplyResult is the preview and the last word of one store's part of a plan. The others' parts are judged by it: release wants one of every
// store.
type ApplyResult struct {
	PlanID    string `json:"plan_id"`
	PlanHash  string `json:"plan_hash"`
	ClusterID uint64 `json:"cluster_id"`
	StoreID   uint64 `json:"store_id"`
	Dir       string `json:"dir,omitempty"` // for people
	State     string `json:"state"`
	// Before and After are fingerprints of the store; After is set once the state is "done".
	Before plan.Fingerprint `json:"fingerprint_before"`
	After  plan.Fingerprint `json:"fingerprint_after"`
	Lines  []ApplyLine      `json:"regions"`
	Rewind *Result          `json:"rewind,omitempty"`
	Raft   *raftlog.Summary `json:"raft_store,omitempty"`
	Fenced bool             `json:"fenced"` // the fence stays until release
	// DoneBefore: an earlier run had done everything, and this one has written nothing.
	DoneBefore bool    `json:"done_before,omitempty"`
	Saved      int     `json:"files_saved"`
	Written    int64   `json:"bytes_written"`
	Started    string  `json:"started,omitempty"`
	Ended      string  `json:"ended,omitempty"`
	Seconds    float64 `json:"seconds"`

	Problems []plan.Described `json:"problems"`
	Backup   string           `json:"backup,omitempty"`
	preview  *Preview
}

// Preview is what the rewind of the store would do; nil without a rewind.
func (r *ApplyResult) Preview() *Preview { return r.preview }

// applyPlan is plan.json in the backup of a store. Its head has the names of ResetPlan, which undo and status read.
type applyPlan struct {
	Format      int      `json:"format"`
	Verb        string   `json:"verb"`
	Tool        string   `json:"tool_version"`
	PlanID      string   `json:"plan_id"`
	ClusterID   uint64   `json:"cluster_id"`
	StoreID     uint64   `json:"store_id"`
	T           mvcc.TS  `json:"to_ts,omitempty"`
	ToTime      string   `json:"to_time,omitempty"`
	Force       []string `json:"force,omitempty"`
	Fingerprint string   `json:"fingerprint"`
	Broken      []uint64 `json:"broken_before,omitempty"`
	PlanHash    string   `json:"plan_hash"`
	// Cluster is the whole plan as it was sealed: a command for several stores goes on with it.
	Cluster json.RawMessage `json:"cluster_plan"`
	Preview *ApplyResult    `json:"preview"`
	Written time.Time       `json:"written"`
}

// cluster is the whole plan. The file is indented for people; the plan is sealed as one line.
func (p *applyPlan) cluster() (*plan.Plan, error) {
	var line bytes.Buffer
	if err := json.Compact(&line, p.Cluster); err != nil {
		return nil, err
	}
	return plan.DecodePlan(line.Bytes())
}
