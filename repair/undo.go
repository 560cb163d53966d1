package repair

import (
	"fmt"
	"io"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// BackupOptions of Undo and Discard.
type BackupOptions struct {
	Overrides engine.Overrides
	// PlanID chooses the plan; empty means the one that the fence names, else the newest one that fits.
	PlanID string
	// Confirm is told which repair it is about; false declines. Nil accepts.
	Confirm func(b *Backup) (bool, error)
}

// Backup is what a data directory knows of one repair.
type Backup struct {
	PlanID  string  `json:"plan_id"`
	Verb    string  `json:"verb,omitempty"`
	State   string  `json:"state"` // of edit.State; "" when the repair never began
	Started string  `json:"started,omitempty"`
	ToTS    mvcc.TS `json:"to_ts,omitempty"`
	ToTime  string  `json:"to_time,omitempty"`
	Path    string  `json:"path"`
	// SavedFiles and SavedBytes are what the backup keeps; hard links, so that they take space only once the engine has let go.
	SavedFiles int    `json:"saved_files"`
	SavedBytes int64  `json:"saved_bytes"`
	Fenced     bool   `json:"fenced"`
	Next       string `json:"next,omitempty"`
	// WrittenAgain are files that came back to their place after the repair had moved them away, where they lie now: a start of TiKV
	// that the fence stops writes last_tikv.toml.
	WrittenAgain []string `json:"written_again,omitempty"`
	// Result is there once the repair is done.
	Result *Result `json:"result,omitempty"`
}

func describeBackup(t *edit.Tx, f *engine.Fence, dir string) *Backup {
	b := &Backup{PlanID: t.J.PlanID, Verb: t.J.Verb, State: string(t.J.State), Started: t.J.Started, Path: t.Backup(),
		SavedFiles: len(t.J.Saved), SavedBytes: t.Bytes(), Fenced: f != nil && f.Ours && f.PlanID == t.J.PlanID}
	var p ResetPlan
	if t.Plan(&p) == nil {
		b.ToTS, b.ToTime = p.T, p.ToTime
	}
	var res Result
	if t.J.State != "" && t.J.Verb != cleanVerb && t.Result(&res) == nil {
		b.Result = &res
	}
	if again, err := t.Again(); err == nil {
		b.WrittenAgain = again
	}
	switch t.J.State {
	case edit.Begun, edit.Staged, edit.Published:
		b.Next = fmt.Sprintf("run the same %s command again, or: tikv-repair undo %s", b.Verb, dir)
		if b.Verb == "reset" {
			b.Next = fmt.Sprintf("tikv-repair reset --to-ts %s %s   (finish), or: tikv-repair undo %s", b.ToTS, dir, dir)
		}
	case edit.Undoing:
		b.Next = "tikv-repair undo " + dir
	case edit.Done:
		server := "TiKV"
		if t.J.Unfenced {
			server = "PD"
		}
		b.Next = "start " + server + "; or tikv-repair undo " + dir + "; when all is well: tikv-repair discard " + dir
	case edit.Undone, edit.Discarding, "":
		b.Next = fmt.Sprintf("tikv-repair discard --plan-id %s %s", b.PlanID, dir)
	}
	return b
}

// Undo takes the newest repair of a store back, from wherever it stands, and proves that the store is what it was, by the fingerprint
// of the plan, before the fence goes. It refuses once TiKV has been started on the result. A plan that is already undone is no error.
func Undo(fs base.FS, dir string, o BackupOptions) (*Backup, error) {
	begun := false
	b, err := undo(fs, dir, o, &begun)
	return b, stopped(fs, dir, "undo", begun, err)
}

func undo(fs base.FS, dir string, o BackupOptions, begun *bool) (*Backup, error) {
	l, locks, err := lockDir(fs, dir, o.Overrides)
	if err != nil {
		return nil, err
	}
	defer locks.Close()
	t, err := choosePlan(fs, dir, o.PlanID, func(s edit.State) bool { return s != edit.Discarding && s != "" })
	if err != nil {
		return nil, err
	}
	if err := confirm(fs, o, t, dir); err != nil {
		return nil, err
	}
	*begun = true
	if err := t.Undo(func() error { return proveUndone(fs, l, t, o.Overrides) }); err != nil {
		return nil, err
	}
	return describeBackup(t, nil, dir), nil
}

// proveUndone compares the store with the fingerprint that the plan took before anything was written.
func proveUndone(fs base.FS, l *engine.Layout, t *edit.Tx, ov engine.Overrides) error {
	var p ResetPlan
	if err := t.Plan(&p); err != nil {
		return err
	}
	s, err := scan.OpenLocked(fs, l, scan.Options{Overrides: ov})
	if err != nil {
		return err
	}
	defer s.Close()
	if got, err := fingerprint(s); err != nil {
		return err
	} else if got != p.Fingerprint {
		return &base.Error{Class: base.ErrPartial, Op: "undo", Path: l.Dir, Offset: -1,
			Reason: fmt.Sprintf("the store is readable, but not exactly what it was before plan %s; the fence stays", t.J.PlanID),
			Next:   "tikv-repair inspect " + l.Dir}
	}
	return nil
}

// Discard drops the backup of a finished or undone repair.
func Discard(fs base.FS, dir string, o BackupOptions) (*Backup, error) {
	b, err := discard(fs, dir, o)
	return b, stopped(fs, dir, "discard", false, err)
}

func discard(fs base.FS, dir string, o BackupOptions) (*Backup, error) {
	_, locks, err := lockDir(fs, dir, o.Overrides)
	if err != nil {
		return nil, err
	}
	defer locks.Close()
	t, err := choosePlan(fs, dir, o.PlanID, func(edit.State) bool { return true })
	if err != nil {
		return nil, err
	}
	if err := confirm(fs, o, t, dir); err != nil {
		return nil, err
	}
	b := describeBackup(t, nil, dir)
	if err := t.Discard(); err != nil {
		return nil, err
	}
	return b, nil
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
	var out []*Backup
	for _, t := range txs {
		out = append(out, describeBackup(t, f, dir))
	}
	return out, nil
}

func lockStore(fs base.FS, dir string, ov engine.Overrides) (*engine.Layout, *engine.Locks, error) {
	l, err := engine.Discover(fs, dir, ov)
	if err != nil {
		return nil, nil, err
	}
	locks, err := l.Lock(fs, base.LockExclusive)
	return l, locks, err
}

// lockDir locks a store or PD's directory; the layout of the latter is nil.
func lockDir(fs base.FS, dir string, ov engine.Overrides) (*engine.Layout, io.Closer, error) {
	if !pd.Is(fs, dir) {
		return lockStore(fs, dir, ov)
	}
	locks, err := pd.LockExclusive(fs, dir)
	return nil, locks, err
}

func choosePlan(fs base.FS, dir, id string, fits func(edit.State) bool) (*edit.Tx, error) {
	if f, err := engine.ReadFence(fs, dir); err != nil {
		return nil, err
	} else if id == "" && f != nil && f.Ours {
		id = f.PlanID
	}
	if id != "" {
		return edit.Open(fs, dir, id)
	}
	txs, err := edit.List(fs, dir)
	if err != nil {
		return nil, err
	}
	for i := len(txs) - 1; i >= 0; i-- {
		if fits(txs[i].J.State) {
			return txs[i], nil
		}
	}
	return nil, &base.Error{Class: base.ErrPlanMismatch, Op: "find a backup", Path: fs.PathJoin(dir, edit.BackupRoot), Offset: -1,
		Reason: "no repair with a backup was done here", Next: "tikv-repair status " + dir}
}

func confirm(fs base.FS, o BackupOptions, t *edit.Tx, dir string) error {
	if o.Confirm == nil {
		return nil
	}
	f, err := engine.ReadFence(fs, dir)
	if err != nil {
		return err
	}
	ok, err := o.Confirm(describeBackup(t, f, dir))
	if err == nil && !ok {
		err = &base.Error{Class: base.ErrDeclined, Op: "change the store", Path: t.Backup(), Offset: -1, Reason: "nothing was written"}
	}
	return err
}
