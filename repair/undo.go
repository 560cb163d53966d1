package repair

import (
	"fmt"
	"io"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/edit"
	"github.com/tikv-repair/tikv-repair/engine/pd"
	"github.com/tikv-repair/tikv-repair/scan"
)

// BackupOptions of Undo and Discard.
type BackupOptions struct {
	Overrides engine.Overrides
	// PlanID chooses the plan; empty means the one that the fence names, else the newest one that fits.
	PlanID string
	// Memory bounds what is held of the store while it is proven to be what it was; 0 is no bound.
	Memory int64
	// Confirm is told which repair it is about; false declines. Nil accepts.
	Confirm func(b *Backup) (bool, error)
}

// toSecond leaves the fraction out of a time of a journal.
func toSecond(started string) string {
	if t, err := time.Parse(time.RFC3339, started); err == nil {
		return t.UTC().Format(time.RFC3339)
	}
	return started
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
	if err := t.Undo(func() error { return proveUndone(fs, l, t, o) }); err != nil {
		return nil, err
	}
	return describeBackup(t, nil, dir), nil
}

// proveUndone compares the store with the fingerprint that the plan took before anything was written.
func proveUndone(fs base.FS, l *engine.Layout, t *edit.Tx, o BackupOptions) error {
	var p ResetPlan
	if err := t.Plan(&p); err != nil {
		return err
	}
	s, err := scan.OpenLocked(fs, l, scan.Options{Overrides: o.Overrides, Mode: base.LockExclusive, Memory: o.Memory})
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
