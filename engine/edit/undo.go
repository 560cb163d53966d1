package edit

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Undo takes the edit back, from any state before TiKV was started on the result. It is idempotent. It refuses (ErrPlanMismatch)
// when a switched file holds neither its old nor its new content, or a new log file was written to. A start that the fence
// stopped does not count: it rewrites last_tikv.toml and nothing else. prove looks at the store before the fence goes: with an error of it the fence stays. It is not
// asked when nothing had been staged, so that no file of the store had been touched.
//
//	crash at any point: the fence is there (it is written first), the journal says undoing; a rerun of undo goes on.
//	crash after the journal says undone: a rerun proves again and takes the fence away.
func (t *Tx) Undo(prove func() error) error {
	if t.J.State == Undone {
		return t.endUndo(prove)
	}
	if t.J.State == Discarding {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "undo", Path: t.backup, Offset: -1,
			Reason: "the backup is being discarded, it is no longer whole", Next: "tikv-repair discard " + t.dir}
	}
	if err := t.Check(); err != nil {
		return err
	}
	if err := t.checkRenames(); err != nil {
		return err
	}
	if !t.J.Unfenced {
		if err := t.fence(); err != nil {
			return err
		}
	}
	t.J.State = Undoing
	if err := t.save(); err != nil {
		return err
	}
	switched := map[string]bool{}
	for _, s := range t.J.Switches {
		switched[s.Path] = true // their old content comes from the journal, below
	}
	for _, l := range t.J.Logs {
		if l.Old {
			switched[l.Path] = true // comes back after the new files have left
		}
	}
	ph := base.Begin(t.fs, "giving the saved files back").Items(len(t.J.Saved), "files")
	defer ph.End()
	for _, s := range t.J.Saved {
		if err := ph.Did(1); err != nil {
			return err
		}
		if switched[s.Path] {
			continue
		}
		if err := t.giveBack(s); err != nil {
			return err
		}
	}
	ph.End()
	if err := t.syncSavedDirs(); err != nil {
		return err
	}
	if err := t.renameBack(); err != nil {
		return err
	}
	// The old version must be whole before CURRENT names it again; the new files leave after that. What was switched last goes back
	// first, durably: at no moment do the databases stand in an order in which publishing would not have left them.
	for _, s := range slices.Backward(t.J.Switches) {
		p := abs(t.fs, t.dir, s.Path)
		now, err := base.ReadFile(t.fs, p)
		if err != nil {
			return err
		}
		if string(now) == s.Old {
			if err := base.SyncDir(t.fs, t.fs.PathDir(p)); err != nil {
				return err
			}
			continue
		}
		if err := base.ReplaceFile(t.fs, p, StagedSuffix, []byte(s.Old), p); err != nil {
			return err
		}
	}
	if err := t.syncDirs(); err != nil {
		return err
	}
	if err := t.setAside(); err != nil {
		return err
	}
	// A log file may have an unreadable tail again only when no file follows it any more.
	if err := t.restoreLogs(); err != nil {
		return err
	}
	if err := t.restoreTails(); err != nil {
		return err
	}
	t.J.State = Undone
	if err := t.save(); err != nil {
		return err
	}
	return t.endUndo(prove)
}

// endUndo proves and takes the fence away. Without our fence the undo has ended before, and what became of the store since is not
// ours to judge.
func (t *Tx) endUndo(prove func() error) error {
	f, err := engine.ReadFence(t.fs, t.dir)
	if err != nil || f == nil || !f.Ours || f.PlanID != t.J.PlanID {
		return err
	}
	// A start that the fence stopped after the last step of the undo has written last_tikv.toml over the one that was given back.
	for _, s := range t.J.Saved {
		if !startRewrites(s.Path) {
			continue
		}
		if err := t.giveBack(s); err != nil {
			return err
		}
		if err := base.SyncDir(t.fs, t.dir); err != nil {
			return err
		}
	}
	if len(t.J.Created)+len(t.J.Switches)+len(t.J.Cuts) > 0 && prove != nil {
		if err := prove(); err != nil {
			return err
		}
	}
	return t.RemoveOwnFenceIfAny()
}

// Fence puts the fence up again where a crash came between the journal and the fence: an edit goes on only behind it.
func (t *Tx) Fence() error { return t.fence() }

// fence makes sure that TiKV cannot start while files move back.
func (t *Tx) fence() error {
	f, err := engine.ReadFence(t.fs, t.dir)
	if err != nil {
		return err
	}
	if f != nil && f.Ours && f.PlanID == t.J.PlanID {
		return nil
	}
	if f != nil && f.Ours {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "put the fence up", Path: t.dir, Offset: -1,
			Reason: fmt.Sprintf("another plan, %s, is in progress here", f.PlanID), Next: "tikv-repair undo --plan-id " + f.PlanID + " " + t.dir}
	}
	mark := t.fs.PathJoin(t.dir, engine.PanicMark)
	if f != nil && !t.J.ForeignPanicMark {
		// TiKV marked the store after the repair: that mark must outlive the undo.
		if err := base.WriteFileSync(t.fs, t.fs.PathJoin(t.backup, engine.PanicMark), f.Raw, mark); err != nil {
			return err
		}
		t.J.ForeignPanicMark = true
		if err := t.save(); err != nil {
			return err
		}
	}
	return engine.TakeOverMark(t.fs, t.dir, t.J.PlanID)
}

// RemoveOwnFenceIfAny ends an undo: a foreign panic mark comes back in place of the fence, otherwise the fence goes.
func (t *Tx) RemoveOwnFenceIfAny() error {
	f, err := engine.ReadFence(t.fs, t.dir)
	if err != nil || f == nil || !f.Ours || f.PlanID != t.J.PlanID {
		return err
	}
	if !t.J.ForeignPanicMark {
		return t.RemoveFence()
	}
	old := t.fs.PathJoin(t.backup, engine.PanicMark)
	raw, err := base.ReadFile(t.fs, old)
	if err != nil {
		return err
	}
	return base.ReplaceFile(t.fs, t.fs.PathJoin(t.dir, engine.PanicMark), ".tmp", raw, old)
}

// giveBack restores a saved file when something has removed it from its place.
func (t *Tx) giveBack(s Saved) error {
	p, b := abs(t.fs, t.dir, s.Path), abs(t.fs, t.dir, s.Backup)
	if _, err := t.setFileAgainAside(s.Path); err != nil {
		return err
	}
	st, err := t.fs.Stat(p)
	if err == nil && st.Size() == s.Bytes {
		return nil
	}
	if err != nil && !isNotExist(err) {
		return base.IO("stat", p, err)
	}
	if err == nil {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "undo", Path: p, Offset: -1,
			Reason: fmt.Sprintf("it has %d bytes, it had %d", st.Size(), s.Bytes), Next: "the saved file is " + b}
	}
	if err := t.fs.Link(b, p); err == nil {
		return nil
	}
	// By rename, so that a rerun never finds a part of it.
	if err := t.copyFile(b, p+StagedSuffix); err != nil {
		return err
	}
	return base.IO("rename to", p, t.fs.Rename(p+StagedSuffix, p))
}

func (t *Tx) syncSavedDirs() error {
	seen := map[string]bool{}
	for _, s := range t.J.Saved {
		d := t.fs.PathDir(abs(t.fs, t.dir, s.Path))
		if !seen[d] {
			seen[d] = true
			if err := base.SyncDir(t.fs, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// setAside moves new files, published or staged, into the backup: nothing is deleted before discard. They are renamed within
// their file system, since a file of another mount cannot be.
func (t *Tx) setAside() error {
	created := map[string]bool{}
	for _, c := range t.J.Created {
		created[abs(t.fs, t.dir, c)] = true
	}
	for _, l := range t.J.Logs {
		if l.Old {
			delete(created, abs(t.fs, t.dir, l.Path)) // the old file takes its place, see restoreLogs
		}
	}
	for _, rd := range t.J.Dirs {
		d := abs(t.fs, t.dir, rd)
		names, err := t.fs.List(d)
		if err != nil {
			return base.IO("list", d, err)
		}
		ph := base.Begin(t.fs, "setting the new files aside").Items(len(names), "names")
		defer ph.End()
		aside := t.fs.PathJoin(t.backup, "undone", strings.Trim(rd, "/"))
		moved := false
		sort.Strings(names)
		for _, n := range names {
			if err := ph.Did(1); err != nil {
				return err
			}
			p := t.fs.PathJoin(d, n)
			if !created[p] && !strings.HasSuffix(n, StagedSuffix) {
				continue
			}
			if !moved {
				if err := mkdirDurable(t.fs, t.dir, aside); err != nil {
					return err
				}
				moved = true
			}
			if err := t.fs.Rename(p, t.fs.PathJoin(aside, n)); err != nil {
				return base.IO("set aside", p, err)
			}
		}
		if moved {
			if err := base.SyncDir(t.fs, aside); err != nil {
				return err
			}
			if err := base.SyncDir(t.fs, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Discard removes the backup of a finished or undone edit and frees its space. Files that the repaired store no longer refers to
// and that are still in its directories are left to the engine, which purges them at its next start. While the fence of this plan
// is up it refuses: finishing and undoing need the journal, and the backup may hold the panic_mark_file that the fence replaced.
//
//	crash in between: the journal says discarding and goes last; a rerun removes the rest.
//	crash after the journal went: a directory without a journal is left, like that of an edit that never began; it goes, too.
func (t *Tx) Discard() error {
	f, err := engine.ReadFence(t.fs, t.dir)
	if err != nil {
		return err
	}
	if f != nil && f.Ours && f.PlanID == t.J.PlanID {
		return &base.Error{Class: base.ErrPlanMismatch, Op: "discard", Path: t.backup, Offset: -1,
			Reason: "the fence is still up: its backup is still needed",
			Next:   "run the interrupted command again, or: tikv-repair undo " + t.dir}
	}
	switch t.J.State {
	case Done, Undone, Discarding, "":
	default:
		return &base.Error{Class: base.ErrPlanMismatch, Op: "discard", Path: t.backup, Offset: -1,
			Reason: fmt.Sprintf("the edit is in state %s: its backup is still needed", t.J.State),
			Next:   "run the interrupted command again, or: tikv-repair undo " + t.dir}
	}
	if t.J.State != Discarding && t.J.State != "" {
		t.J.State = Discarding
		if err := t.save(); err != nil {
			return err
		}
	}
	defer base.Begin(t.fs, "removing the backup").End()
	for _, s := range t.J.Saved {
		if err := base.Stopped(t.fs); err != nil {
			return err
		}
		p := abs(t.fs, t.dir, s.Backup)
		if strings.HasPrefix(p, t.backup+"/") {
			continue
		}
		if err := removeIfThere(t.fs, p); err != nil {
			return err
		}
		// The directory beside the file holds only this plan's links; the last one takes it away.
		left, err := t.fs.List(t.fs.PathDir(p))
		if err != nil && !isNotExist(err) {
			return base.IO("list", t.fs.PathDir(p), err)
		}
		if err == nil && len(left) == 0 {
			if err := removeIfThere(t.fs, t.fs.PathDir(p)); err != nil {
				return err
			}
		}
	}
	names, err := t.fs.List(t.backup)
	if err != nil {
		return base.IO("list", t.backup, err)
	}
	for _, n := range names {
		if n == "journal.json" {
			continue
		}
		p := t.fs.PathJoin(t.backup, n)
		if err := t.fs.RemoveAll(p); err != nil && !isNotExist(err) {
			return base.IO("remove", p, err)
		}
	}
	if err := base.SyncDir(t.fs, t.backup); err != nil {
		return err
	}
	if err := removeIfThere(t.fs, t.fs.PathJoin(t.backup, "journal.json")); err != nil {
		return err
	}
	if err := removeIfThere(t.fs, t.backup); err != nil {
		return err
	}
	root := t.fs.PathJoin(t.dir, BackupRoot)
	left, err := t.fs.List(root)
	if err != nil {
		return base.IO("list", root, err)
	}
	if len(left) > 0 {
		return base.SyncDir(t.fs, root)
	}
	if err := removeIfThere(t.fs, root); err != nil {
		return err
	}
	return base.SyncDir(t.fs, t.dir)
}

func removeIfThere(fs base.FS, p string) error {
	if err := fs.Remove(p); err != nil && !isNotExist(err) {
		return base.IO("remove", p, err)
	}
	return nil
}

// List loads the journals below a data directory, the oldest first. A backup directory without a journal (a crash before the
// first one was written, or at the very end of a discard) comes out with an empty state.
func List(fs base.FS, dataDir string) ([]*Tx, error) {
	root := fs.PathJoin(dataDir, BackupRoot)
	names, err := fs.List(root)
	if err != nil {
		if isNotExist(err) {
			return nil, nil
		}
		return nil, base.IO("list", root, err)
	}
	sort.Strings(names)
	var out []*Tx
	for _, n := range names {
		t, err := Open(fs, dataDir, n)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, base.ErrPlanMismatch) && !hasJournal(fs, dataDir, n) {
			out = append(out, &Tx{fs: fs, dir: dataDir, backup: BackupDir(fs, dataDir, n), J: Journal{PlanID: n}})
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].J.Started < out[j].J.Started })
	return out, nil
}

func hasJournal(fs base.FS, dataDir, planID string) bool {
	ok, err := base.Exists(fs, fs.PathJoin(BackupDir(fs, dataDir, planID), "journal.json"))
	return err == nil && ok
}

// Bytes is the size of everything in the backup that a discard frees or stops holding.
func (t *Tx) Bytes() int64 {
	var n int64
	for _, s := range t.J.Saved {
		n += s.Bytes
	}
	for _, c := range t.J.Cuts {
		n += c.Old - c.New
	}
	for _, r := range t.J.Renames {
		n += r.Bytes
	}
	return n
}
