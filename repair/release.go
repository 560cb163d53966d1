package repair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
	"github.com/tikv-repair/tikv-repair/scan"
)

// Proof is what verify found on one store of a plan. The replicas' contents are compared across the proofs of all stores.
type Proof struct {
	Format    int    `json:"format"`
	PlanID    string `json:"plan_id"`
	PlanHash  string `json:"plan_hash"`
	ClusterID uint64 `json:"cluster_id"`
	StoreID   uint64 `json:"store_id"`
	Dir       string `json:"dir,omitempty"` // for people
	// Fingerprint of the store when it was looked at.
	Fingerprint plan.Fingerprint `json:"fingerprint"`
	Findings    []Finding        `json:"findings"`
	// Hashes of the visible data per live region; nil: not computed.
	Hashes map[uint64]scan.RegionHash `json:"region_hashes,omitempty"`
}

// proofFormat is the version of Proof and of ApplyResult as files.
const proofFormat = 1

// ProveOptions of Prove.
type ProveOptions struct {
	Plan    *plan.Plan
	Hash    bool // hash the visible data of every region: reads the whole store
	Threads int
	Meter   *scan.Meter
}

// Prove tests on an opened store that its part of a plan is done: the start rules, every record of every action, and with a rewind all its truths.
func Prove(ctx context.Context, s *scan.Store, o ProveOptions) (*Proof, error) {
	a := &applier{s: s, o: ApplyOptions{Plan: o.Plan}, p: o.Plan}
	if err := a.fits(); err != nil {
		return nil, err
	}
	p := &Proof{Format: proofFormat, PlanID: o.Plan.PlanID, PlanHash: o.Plan.Hash, ClusterID: s.Ident.ClusterID, StoreID: s.Ident.StoreID, Dir: s.Layout.Dir}
	var err error
	if p.Fingerprint, err = storeFingerprint(s); err != nil {
		return nil, err
	}
	if p.Findings, err = verifyPart(ctx, s, o.Plan, a.part, brokenBefore(s, o.Plan.PlanID), o.Threads); err != nil {
		return nil, err
	}
	if p.Findings == nil {
		p.Findings = []Finding{}
	}
	if !o.Hash {
		return p, nil
	}
	t := mvcc.MaxTS
	if a.part.Rewind {
		t = o.Plan.ToTS
	}
	p.Hashes, err = s.RegionHashes(ctx, t, o.Meter)
	return p, err
}

// brokenBefore are the regions that TiKV would not have started before the plan either.
func brokenBefore(s *scan.Store, id string) []uint64 {
	tx, err := edit.Open(s.FS, s.Layout.Dir, id)
	if err != nil {
		return nil // then they count
	}
	var p applyPlan
	if tx.Plan(&p) != nil {
		return nil
	}
	return p.Broken
}

// Compare tests that the replicas which a plan keeps of one region hold the same data on all stores, by their proofs. Regions with a replica
// that was not hashed are counted.
func Compare(p *plan.Plan, proofs []*Proof) (differ []Finding, compared, missing int) {
	by := map[uint64]*Proof{}
	for _, x := range proofs {
		by[x.StoreID] = x
	}
	for _, r := range keptRegions(p) {
		var first *Proof
		whole := true
		for _, id := range r.stores {
			x := by[id]
			if x == nil || x.Hashes == nil {
				whole = false
				continue
			}
			h, ok := x.Hashes[r.id]
			switch {
			case !ok:
				differ = append(differ, Finding{Truth: "replicas-agree", Region: r.id, What: fmt.Sprintf("store %d has no live replica of it", id)})
			case first == nil:
				first = x
			case h != first.Hashes[r.id]:
				differ = append(differ, Finding{Truth: "replicas-agree", Region: r.id, What: fmt.Sprintf("store %d has %d rows, %d locks, hash %s; store %d has %d rows, %d locks, hash %s",
					first.StoreID, first.Hashes[r.id].Rows, first.Hashes[r.id].Locks, first.Hashes[r.id].Hash, id, h.Rows, h.Locks, h.Hash)})
			}
		}
		if whole {
			compared++
		} else {
			missing++
		}
	}
	return differ, compared, missing
}

type keptRegion struct {
	id     uint64
	stores []uint64
}

// keptRegions are the regions that a plan changes and keeps on several stores.
func keptRegions(p *plan.Plan) []keptRegion {
	var out []keptRegion
	for _, r := range p.Regions {
		if len(r.KeptStores) > 1 {
			out = append(out, keptRegion{r.ID, r.KeptStores})
		}
	}
	return out
}

// readJSON reads a JSON file of this tool.
func readJSON(fs base.FS, path, what string, v any) error {
	b, err := base.ReadFile(fs, path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "read " + what, Path: path, Offset: -1, Err: err, Next: "give the file that this tool has written"}
	}
	return nil
}

// WriteProof writes a proof file.
func WriteProof(fs base.FS, path string, p *Proof) error {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return base.WriteFileSync(fs, path, append(b, '\n'), "")
}

// ReadProof reads a proof file.
func ReadProof(fs base.FS, path string) (*Proof, error) {
	p := new(Proof)
	if err := readJSON(fs, path, "proof", p); err != nil {
		return nil, err
	}
	if p.Format != proofFormat {
		return nil, &base.Error{Class: base.ErrPlanMismatch, Op: "read proof", Path: path, Offset: -1, Reason: fmt.Sprintf("its format is %d, this version reads %d", p.Format, proofFormat),
			Next: "tikv-repair verify --plan PLAN DIR -o FILE"}
	}
	return p, nil
}

// ReadResult reads what apply left of a plan: a result file, or the data directory of the store that it is about. nil: the directory has none.
func ReadResult(fs base.FS, path string, p *plan.Plan) (*ApplyResult, error) {
	st, err := fs.Stat(path)
	if err != nil {
		return nil, base.IO("open", path, err)
	}
	dir := path
	if st.IsDir() {
		path = fs.PathJoin(edit.BackupDir(fs, dir, p.PlanID), "result.json")
	}
	r := new(ApplyResult)
	err = readJSON(fs, path, "result", r)
	if errors.Is(err, os.ErrNotExist) && st.IsDir() {
		return nil, nil
	}
	if err != nil || !st.IsDir() {
		return r, err
	}
	t, err := edit.Open(fs, dir, p.PlanID)
	if err != nil {
		return nil, err
	}
	if t.J.State != edit.Done { // an undo leaves the result where it is
		r.State = string(t.J.State)
	}
	return r, nil
}

// Missing says which stores of a plan have no result among those given, and why a result does not count.
func Missing(p *plan.Plan, results []*ApplyResult) []string {
	have := map[uint64]*ApplyResult{}
	for _, r := range results {
		have[r.StoreID] = r
	}
	var out []string
	for _, s := range p.Stores {
		r := have[s.StoreID]
		switch {
		case s.Idle():
		case r == nil:
			out = append(out, fmt.Sprintf("store %d: no result", s.StoreID))
		case r.PlanID != p.PlanID || r.PlanHash != p.Hash:
			out = append(out, fmt.Sprintf("store %d: the result is of another plan, %s", s.StoreID, r.PlanID))
		case r.ClusterID != p.ClusterID:
			out = append(out, fmt.Sprintf("store %d: the result is of another cluster, %d", s.StoreID, r.ClusterID))
		case r.State != StateDone:
			out = append(out, fmt.Sprintf("store %d: its part is in state %q", s.StoreID, r.State))
		}
		delete(have, s.StoreID)
	}
	for _, id := range slices.Sorted(maps.Keys(have)) {
		out = append(out, fmt.Sprintf("store %d: it is no part of the plan", id))
	}
	return out
}

// ReleaseOptions of Release.
type ReleaseOptions struct {
	Plan      *plan.Plan
	Results   []*ApplyResult // of all other stores of the plan; the own one is read
	Overrides engine.Overrides
	Memory    int64 // bounds what is held of the store; 0 is no bound
	Confirm   func() (bool, error)
}

// Released is the last word of Release.
type Released struct {
	PlanID  string `json:"plan_id"`
	StoreID uint64 `json:"store_id"`
	// State is "released", or "unchanged" when there was no fence any more.
	State string `json:"state"`
	Dir   string `json:"dir"`
}

// StateReleased: the fence is gone.
const StateReleased = "released"

// Release takes the fence of a plan from one store, once every store of the plan has done its part. One store that started while another still
// holds the old peers, or data above T, would bring both back.
func Release(fs base.FS, dir string, o ReleaseOptions) (*Released, error) {
	out, err := release(fs, dir, o)
	return out, stopped(fs, dir, "release", false, err)
}

func release(fs base.FS, dir string, o ReleaseOptions) (*Released, error) {
	refuse := func(reason, next string) error {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "release plan " + o.Plan.PlanID, Path: dir, Offset: -1, Reason: reason, Next: next}
	}
	l, locks, err := lockStore(fs, dir, o.Overrides)
	if err != nil {
		return nil, err
	}
	defer locks.Close()
	s, err := scan.OpenLocked(fs, l, scan.Options{Overrides: o.Overrides, Mode: base.LockExclusive, Memory: o.Memory})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if part := o.Plan.Store(s.Ident.StoreID); part != nil && part.Idle() && !s.Fenced() {
		return &Released{PlanID: o.Plan.PlanID, StoreID: s.Ident.StoreID, State: StateUnchanged, Dir: dir}, nil
	}
	tx, err := edit.Open(fs, l.Dir, o.Plan.PlanID)
	if err != nil {
		return nil, err
	}
	if tx.J.State != edit.Done {
		return nil, refuse(fmt.Sprintf("this store's part is in state %q", tx.J.State), "tikv-repair apply --plan PLAN "+dir)
	}
	own := new(ApplyResult)
	if err := tx.Result(own); err != nil {
		return nil, err
	}
	results := append([]*ApplyResult{own}, slices.DeleteFunc(slices.Clone(o.Results), func(r *ApplyResult) bool { return r.StoreID == own.StoreID })...)
	if missing := Missing(o.Plan, results); len(missing) > 0 {
		return nil, refuse(fmt.Sprintf("%s (%d of %d stores are not proven done)", missing[0], len(missing), len(o.Plan.Stores)),
			"finish apply on all stores, and give the result.json of each, or its data directory")
	}
	out := &Released{PlanID: o.Plan.PlanID, StoreID: own.StoreID, State: StateReleased, Dir: dir}
	f, err := engine.ReadFence(fs, l.Dir)
	if err != nil {
		return nil, err
	}
	if f != nil && !f.Ours {
		return nil, refuse("there is no fence, but TiKV's own panic_mark_file: TiKV does not start while it is there", "tikv-repair check "+dir)
	}
	if f == nil {
		out.State = StateUnchanged
		return out, nil
	}
	if f.PlanID != o.Plan.PlanID {
		return nil, refuse("the store is fenced by plan "+f.PlanID, "tikv-repair status "+dir)
	}
	now, err := storeFingerprint(s)
	if err != nil {
		return nil, err
	}
	if now != own.After {
		return nil, refuse("the store has changed since apply", "tikv-repair verify --plan PLAN "+dir)
	}
	if o.Confirm != nil {
		ok, err := o.Confirm()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, &base.Error{Class: base.ErrDeclined, Op: "release", Path: dir, Offset: -1, Reason: "the fence stays"}
		}
	}
	return out, tx.RemoveFence()
}
