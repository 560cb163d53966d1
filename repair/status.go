package repair

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// Backup is what a data directory knows of one repair.
type Backup struct {
	PlanID  string `json:"plan_id"`
	Verb    string `json:"verb,omitempty"`
	StoreID uint64 `json:"store_id,omitempty"`
	State   string `json:"state"` // of edit.State; "" when the repair never began
	Started string `json:"started,omitempty"`
	// Ended is when the result was written, RFC 3339, by the time of the file.
	Ended  string  `json:"ended,omitempty"`
	ToTS   mvcc.TS `json:"to_ts,omitempty"`
	ToTime string  `json:"to_time,omitempty"`
	Path   string  `json:"path"`
	// SavedFiles and SavedBytes are what the backup keeps; hard links, so that they take space only once the engine has let go.
	SavedFiles int    `json:"saved_files"`
	SavedBytes int64  `json:"saved_bytes"`
	Fenced     bool   `json:"fenced"`
	Next       string `json:"next,omitempty"`
	// Error is why the last run of a repair that is not finished stopped, when it could still write that down.
	Error string `json:"error,omitempty"`
	// WrittenAgain are files that came back to their place after the repair had moved them away, where they lie now: a start of TiKV
	// that the fence stops writes last_tikv.toml.
	WrittenAgain []string `json:"written_again,omitempty"`
	// Operations are the parts of the repair. They share state and times: an edit counts as a whole.
	Operations []Operation `json:"operations"`
	// Result is there once the repair is done: a *Result of reset, an *ApplyResult of apply, a *HandResult of the edits by hand.
	Result any `json:"result,omitempty"`
}

// Operation is one thing that a repair does to a store.
type Operation struct {
	ID      int    `json:"id"`                  // within the plan, from 1
	Region  uint64 `json:"region_id,omitempty"` // 0: the whole store
	Kind    string `json:"kind"`                // such as rewrite, tombstone, create, rewind, cut-tail
	Store   uint64 `json:"store_id,omitempty"`
	State   string `json:"state"`
	Started string `json:"started,omitempty"`
	Ended   string `json:"ended,omitempty"`
	Error   string `json:"error,omitempty"`
}

// planHead is what the plan.json of all verbs share, and where each keeps what it does to the regions.
type planHead struct {
	Verb    string  `json:"verb"`
	StoreID uint64  `json:"store_id"`
	T       mvcc.TS `json:"to_ts"`
	ToTime  string  `json:"to_time"`
	// Preview of reset and of apply.
	Preview *struct {
		Regions []struct {
			Region   uint64 `json:"region_id"`
			Kind     string `json:"kind"`     // apply
			Strategy string `json:"strategy"` // reset
			Tail     uint64 `json:"tail_entries"`
		} `json:"regions"`
		Rewind json.RawMessage `json:"rewind"`
	} `json:"preview"`
	// Lines of the edits by hand.
	Lines []HandLine `json:"lines"`
}

func describeBackup(t *edit.Tx, f *engine.Fence, dir string) *Backup {
	b := &Backup{PlanID: t.J.PlanID, Verb: t.J.Verb, State: string(t.J.State), Started: toSecond(t.J.Started), Path: t.Backup(), Operations: []Operation{},
		SavedFiles: len(t.J.Saved), SavedBytes: t.Bytes(), Fenced: f != nil && f.Ours && f.PlanID == t.J.PlanID}
	var p planHead
	if t.Plan(&p) == nil {
		b.StoreID, b.ToTS, b.ToTime = p.StoreID, p.T, p.ToTime
	}
	if t.J.State != "" {
		b.Result = resultOf(t)
		b.Ended = t.Ended()
	}
	if unfinished := t.J.State == edit.Begun || t.J.State == edit.Staged || t.J.State == edit.Published || t.J.State == edit.Undoing; unfinished {
		b.Error = t.Stopped()
	}
	if again, err := t.Again(); err == nil {
		b.WrittenAgain = again
	}
	b.operations(&p)
	b.Next = b.next(t, dir)
	return b
}

// resultOf reads the result in the form of the verb that wrote it; nil when there is none.
func resultOf(t *edit.Tx) any {
	var res any
	switch t.J.Verb {
	case "reset":
		res = new(Result)
	case VerbApply:
		res = new(ApplyResult)
	case string(ApplyTail), string(CutTail), string(Tombstone), string(SetPeers):
		res = new(HandResult)
	default:
		return nil
	}
	if t.Result(res) != nil {
		return nil
	}
	return res
}

func (b *Backup) operations(p *planHead) {
	add := func(region uint64, kind string) {
		b.Operations = append(b.Operations, Operation{ID: len(b.Operations) + 1, Region: region, Kind: kind, Store: b.StoreID, State: b.State, Started: b.Started, Ended: b.Ended, Error: b.Error})
	}
	for _, l := range p.Lines {
		add(l.Region, l.Action)
	}
	if v := p.Preview; v != nil {
		for _, r := range v.Regions {
			switch {
			case b.Verb == VerbApply:
				add(r.Region, r.Kind)
			case r.Tail > 0 || r.Strategy == string(TailNeutralise):
				add(r.Region, r.Strategy+" tail")
			}
		}
		if b.Verb == "reset" || len(v.Rewind) > 0 {
			add(0, "rewind")
		}
	}
	if b.Verb == cleanVerb {
		add(0, "set aside")
	}
}

// next is what to type.
func (b *Backup) next(t *edit.Tx, dir string) string {
	undo := "tikv-repair undo " + dir
	switch t.J.State {
	case edit.Begun, edit.Staged, edit.Published:
		switch {
		case b.Verb == "reset":
			return fmt.Sprintf("tikv-repair reset --to-ts %s %s   (finish), or: %s", b.ToTS, dir, undo)
		case b.Verb == VerbApply && !oneCommand(b.PlanID):
			return fmt.Sprintf("tikv-repair apply --plan PLAN %s   (finish), or: %s", dir, undo)
		case b.Verb == VerbApply:
			return fmt.Sprintf("run the same command for all directories again, or on each: tikv-repair undo DIR   (here: %s)", undo)
		}
		return fmt.Sprintf("run the same %s command again, or: %s", b.Verb, undo)
	case edit.Undoing:
		return undo
	case edit.Undone:
		if b.Fenced { // proof and fence are left
			return undo
		}
	case edit.Done:
		server := "TiKV"
		switch {
		case t.J.Unfenced:
			server = "PD"
		case b.Fenced && b.Verb == VerbApply && oneCommand(b.PlanID):
			return fmt.Sprintf("this store is done and waits for the others: run the same command for all directories again, or on each: tikv-repair undo DIR   (here: %s)", undo)
		case b.Fenced && b.Verb == VerbApply:
			return fmt.Sprintf("this store is done; once all stores of the plan are: tikv-repair release --plan PLAN %s RESULT…   (the result.json of each other store); or: %s", dir, undo)
		case b.Fenced:
			return fmt.Sprintf("run the same %s command again: only the fence is left to be removed", b.Verb)
		}
		return "start " + server + "; or " + undo + "; when all is well: tikv-repair discard " + dir
	}
	return fmt.Sprintf("tikv-repair discard --plan-id %s %s", b.PlanID, dir)
}

// oneCommand tells whether a plan was made by drop-peers or reset for several directories, and not by plan.
func oneCommand(planID string) bool {
	return strings.HasPrefix(planID, "drop-peers-") || strings.HasPrefix(planID, "reset-")
}

// Status lists the repairs of a data directory, the oldest first. It takes no locks: it must answer while a repair runs.
func Status(fs base.FS, dir string) ([]*Backup, error) {
	txs, err := edit.List(fs, dir)
	if err != nil {
		return nil, err
	}
	f, err := engine.ReadFence(fs, dir)
	if err != nil {
		return nil, err
	}
	out := []*Backup{}
	for _, t := range txs {
		out = append(out, describeBackup(t, f, dir))
	}
	return out, nil
}

// note writes down why a run stopped, for status. It is no harm when that fails, too.
func note(tx *edit.Tx, err error) {
	if tx != nil && err != nil && tx.J.State != edit.Done {
		tx.Note(err)
	}
}
