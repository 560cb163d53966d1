package edit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Tx is one edit of one data directory. The caller holds the directory's exclusive locks as long as it uses it.
type Tx struct {
	fs     base.FS
	dir    string // data directory
	backup string // backup directory of this plan
	J      Journal
}

// Backup is the directory with everything needed to undo.
func (t *Tx) Backup() string { return t.backup }

// BackupDir is where the backup of a plan lies by default.
func BackupDir(fs base.FS, dataDir, planID string) string {
	return fs.PathJoin(dataDir, BackupRoot, planID)
}

// Begin makes the backup directory with the plan and an empty journal, then the fence. dirs are the directories that will get
// staged files. A foreign panic_mark_file is saved first; the caller has already asked whether that is accepted.
//
//	crash before the fence is durable: the store is untouched; a rerun begins a new plan, status shows the old one as begun.
//	crash after: TiKV refuses to start; a rerun finds the plan id in the fence and goes on.
func Begin(fs base.FS, dataDir, planID, verb string, plan any, dirs []string, now time.Time) (*Tx, error) {
	t := &Tx{fs: fs, dir: dataDir, backup: BackupDir(fs, dataDir, planID)}
	t.J = Journal{Format: journalFormat, PlanID: planID, Verb: verb, State: Begun, Started: now.UTC().Format(startedLayout)}
	for _, d := range dirs {
		t.J.Dirs = append(t.J.Dirs, rel(dataDir, d))
	}
	if err := mkdirDurable(fs, dataDir, t.backup); err != nil {
		return nil, err
	}
	if err := writeJSON(fs, fs.PathJoin(t.backup, "plan.json"), plan); err != nil {
		return nil, err
	}
	mark := fs.PathJoin(dataDir, engine.PanicMark)
	f, err := engine.ReadFence(fs, dataDir)
	if err != nil {
		return nil, err
	}
	if f != nil && !f.Ours {
		if err := base.WriteFileSync(fs, fs.PathJoin(t.backup, engine.PanicMark), f.Raw, mark); err != nil {
			return nil, err
		}
		t.J.ForeignPanicMark = true
	}
	if err := t.save(); err != nil {
		return nil, err
	}
	return t, engine.TakeOverMark(fs, dataDir, planID)
}

// mkdirDurable makes dir and its missing parents below root, each entry synced.
func mkdirDurable(fs base.FS, root, dir string) error {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return base.IO("create directory", dir, err)
	}
	for d := fs.PathDir(dir); len(d) >= len(strings.TrimSuffix(root, "/")); d = fs.PathDir(d) {
		if err := base.SyncDir(fs, d); err != nil {
			return err
		}
		if d == fs.PathDir(d) {
			break
		}
	}
	return nil
}

// Open loads the edit of a plan. An absent backup is an error of class ErrPlanMismatch.
func Open(fs base.FS, dataDir, planID string) (*Tx, error) {
	t := &Tx{fs: fs, dir: dataDir, backup: BackupDir(fs, dataDir, planID)}
	err := readJSON(fs, fs.PathJoin(t.backup, "journal.json"), &t.J)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &base.Error{Class: base.ErrPlanMismatch, Op: "open backup", Path: t.backup, Offset: -1,
			Reason: fmt.Sprintf("the plan %s has no journal here", planID), Next: "tikv-repair status " + dataDir}
	}
	if err != nil {
		return nil, err
	}
	if t.J.Format != journalFormat || t.J.PlanID != planID {
		return nil, &base.Error{Class: base.ErrPlanMismatch, Op: "open backup", Path: t.backup, Offset: -1,
			Reason: fmt.Sprintf("journal of format %d for plan %q", t.J.Format, t.J.PlanID), Next: "use the version of tikv-repair that wrote it"}
	}
	return t, nil
}

// Plan decodes plan.json of the backup.
func (t *Tx) Plan(v any) error { return readJSON(t.fs, t.fs.PathJoin(t.backup, "plan.json"), v) }

// Result decodes result.json of the backup; absent is os.ErrNotExist.
func (t *Tx) Result(v any) error { return readJSON(t.fs, t.fs.PathJoin(t.backup, "result.json"), v) }

func (t *Tx) save() error {
	return writeJSON(t.fs, t.fs.PathJoin(t.backup, "journal.json"), &t.J)
}

// Restart clears what an interrupted staging left, so that staging can begin anew. Only in state begun.
func (t *Tx) Restart() error {
	if t.J.State != Begun {
		return fmt.Errorf("restart of plan %s in state %s", t.J.PlanID, t.J.State)
	}
	t.J.Created, t.J.Saved, t.J.Moved, t.J.Switches, t.J.Cuts, t.J.Logs, t.J.Proof = nil, nil, nil, nil, nil, nil, ""
	return t.setAside()
}

// Create opens a new file under its staged name. The caller writes, syncs and closes it, then calls Add.
func (t *Tx) Create(final string) (vfs.File, error) {
	f, err := t.fs.Create(final+StagedSuffix, base.DiskWriteCategory)
	return f, base.IO("create", final+StagedSuffix, err)
}

// Staged is where a file that Create makes lies until it is published.
func (t *Tx) Staged(final string) string { return final + StagedSuffix }

// Add registers a staged file that is complete and synced, and gives it the attributes of a sibling.
func (t *Tx) Add(final, like string) error {
	if err := t.fs.CopyAttrs(final+StagedSuffix, like); err != nil {
		return err
	}
	t.J.Created = append(t.J.Created, rel(t.dir, final))
	return nil
}

// Replace stages new content for a small file that is switched at the end of publishing.
func (t *Tx) Replace(path string, content []byte) error {
	old, err := base.ReadFile(t.fs, path)
	if err != nil {
		return err
	}
	if err := base.WriteFileSync(t.fs, path+StagedSuffix, content, path); err != nil {
		return err
	}
	t.J.Switches = append(t.J.Switches, Switch{Path: rel(t.dir, path), Old: string(old), New: string(content)})
	return nil
}

// Save gives a file that the edit stops referring to a second name in the backup: neither the engine's purge nor another tool
// can then destroy the way back. A file on another file system gets its second name beside it there; where links do not work
// at all it is copied.
func (t *Tx) Save(path string) error {
	if t.cut(path) >= 0 {
		return fmt.Errorf("%s is to be cut: a hard link of it would be cut too", path)
	}
	st, err := t.fs.Stat(path)
	if err != nil {
		return base.IO("stat", path, err)
	}
	name := strings.TrimPrefix(rel(t.dir, path), "/")
	s := Saved{Path: rel(t.dir, path), Bytes: st.Size()}
	dest := t.fs.PathJoin(t.backup, "files", name)
	if err := t.link(path, dest); err != nil {
		// Another mount: beside the file, in a directory that no engine reads.
		dest = t.fs.PathJoin(t.fs.PathDir(path), BackupRoot+"-"+t.J.PlanID, t.fs.PathBase(path))
		if strings.HasPrefix(s.Path, "/") {
			err = t.link(path, dest)
		}
		if err != nil {
			dest = t.fs.PathJoin(t.backup, "files", name)
			if err := t.copyFile(path, dest); err != nil {
				return err
			}
			s.Copied = true
		}
	}
	s.Backup = rel(t.dir, dest)
	t.J.Saved = append(t.J.Saved, s)
	return nil
}

// MoveAway saves a file and takes it out of its place when the edit is published; undo puts it back.
func (t *Tx) MoveAway(path string) error {
	if err := t.Save(path); err != nil {
		return err
	}
	t.J.Moved = append(t.J.Moved, rel(t.dir, path))
	return nil
}

// applyMoves drops the first name of the files that are moved away. It is idempotent.
func (t *Tx) applyMoves() error {
	for _, m := range t.J.Moved {
		// What a stopped start has written there since is not what is saved.
		if _, err := t.setFileAgainAside(m); err != nil {
			return err
		}
		p := abs(t.fs, t.dir, m)
		if err := removeIfThere(t.fs, p); err != nil {
			return err
		}
		if err := base.SyncDir(t.fs, t.fs.PathDir(p)); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) link(path, dest string) error {
	if err := t.fs.MkdirAll(t.fs.PathDir(dest), 0o755); err != nil {
		return err
	}
	err := t.fs.Link(path, dest)
	if err != nil && errors.Is(err, os.ErrExist) {
		// What an interrupted staging left, maybe a copy that was cut off. The file itself is still in its place.
		if err := removeIfThere(t.fs, dest); err != nil {
			return err
		}
		err = t.fs.Link(path, dest)
	}
	return err
}

func (t *Tx) copyFile(path, dest string) error {
	if err := t.fs.MkdirAll(t.fs.PathDir(dest), 0o755); err != nil {
		return base.IO("create directory", t.fs.PathDir(dest), err)
	}
	in, err := t.fs.Open(path)
	if err != nil {
		return base.IO("open", path, err)
	}
	defer in.Close()
	out, err := t.fs.Create(dest, base.DiskWriteCategory)
	if err != nil {
		return base.IO("create", dest, err)
	}
	if _, err = io.Copy(struct{ io.Writer }{out}, struct{ io.Reader }{in}); err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		return base.IO("copy to", dest, err)
	}
	return t.fs.CopyAttrs(dest, path)
}

// Stage makes everything staged and saved durable and records it. Nothing that an engine reads has changed yet.
//
//	crash before: state begun; a rerun stages anew. crash after: a rerun publishes.
func (t *Tx) Stage() error {
	seen := map[string]bool{}
	var dirs []string
	note := func(d string) {
		if !seen[d] {
			seen[d] = true
			dirs = append(dirs, d)
		}
	}
	for _, d := range t.J.Dirs {
		note(abs(t.fs, t.dir, d))
	}
	for _, s := range t.J.Saved {
		p := abs(t.fs, t.dir, s.Backup)
		for d := t.fs.PathDir(p); ; d = t.fs.PathDir(d) {
			note(d)
			if d == t.backup || d == t.dir || d == t.fs.PathDir(abs(t.fs, t.dir, s.Path)) || d == t.fs.PathDir(d) {
				break
			}
		}
	}
	for _, c := range t.J.Cuts {
		for d := t.fs.PathDir(abs(t.fs, t.dir, c.Tail)); len(d) >= len(t.backup); d = t.fs.PathDir(d) {
			note(d)
		}
	}
	ph := base.Begin(t.fs, "making it durable").Items(len(dirs), "directories")
	defer ph.End()
	for _, d := range dirs {
		if err := ph.Did(1); err != nil {
			return err
		}
		if err := base.SyncDir(t.fs, d); err != nil {
			return err
		}
	}
	t.J.State = Staged
	return t.save()
}

// Publish puts the staged files under their names, then switches. It is idempotent.
//
//	crash between the cuts: what is cut off was not readable, and an engine would have cut it off itself.
//	crash between the renames: the new files are unreferenced; an engine that ignored the fence would purge them and run on the
//	old version; a rerun renames the rest. A new log file counts from its rename on, and all of it at once.
//	crash around the switch: the directory is on the old version or on the new one, never between; a rerun finds out by content.
func (t *Tx) Publish() error {
	defer base.Begin(t.fs, "publishing").End()
	if err := t.Check(); err != nil {
		return err
	}
	if err := t.checkStagedLogs(); err != nil {
		return err
	}
	if err := t.applyCuts(); err != nil {
		return err
	}
	for _, c := range t.J.Created {
		final := abs(t.fs, t.dir, c)
		staged, err := base.Exists(t.fs, final+StagedSuffix)
		if err != nil {
			return err
		}
		if staged {
			if err := t.fs.Rename(final+StagedSuffix, final); err != nil {
				return base.IO("rename to", final, err)
			}
		} else if ok, err := base.Exists(t.fs, final); err != nil {
			return err
		} else if !ok {
			return &base.Error{Class: base.ErrPlanMismatch, Op: "publish", Path: final, Offset: -1,
				Reason: "neither the staged file nor the final one is there", Next: "tikv-repair undo " + t.dir}
		}
	}
	if err := t.syncDirs(); err != nil {
		return err
	}
	for _, s := range t.J.Switches {
		p := abs(t.fs, t.dir, s.Path)
		now, err := base.ReadFile(t.fs, p)
		if err != nil {
			return err
		}
		if string(now) == s.New {
			// An earlier run may have renamed it and not come to the sync.
			if err := base.SyncDir(t.fs, t.fs.PathDir(p)); err != nil {
				return err
			}
			continue
		}
		// Durable before the next one: of two databases the second must never be the only new one.
		if err := base.RenameSync(t.fs, p+StagedSuffix, p); err != nil {
			return err
		}
	}
	if err := t.syncDirs(); err != nil {
		return err
	}
	// Last: the store is whole with these files and without them, and their second name has been durable since staging.
	if err := t.applyMoves(); err != nil {
		return err
	}
	if err := t.applyRenames(); err != nil {
		return err
	}
	t.J.State = Published
	return t.save()
}

func (t *Tx) syncDirs() error {
	for _, d := range t.J.Dirs {
		if err := base.SyncDir(t.fs, abs(t.fs, t.dir, d)); err != nil {
			return err
		}
	}
	return nil
}

// Check compares every switched file, every file that is cut and every new log file with the journal: it must hold the old
// content or the new one. Anything else means that an engine or another tool has been here since.
func (t *Tx) Check() error {
	if err := t.checkCuts(); err != nil {
		return err
	}
	if err := t.checkLogs(); err != nil {
		return err
	}
	if err := t.checkWitness(); err != nil {
		return err
	}
	for _, s := range t.J.Switches {
		p := abs(t.fs, t.dir, s.Path)
		now, err := base.ReadFile(t.fs, p)
		if err != nil {
			return err
		}
		if string(now) != s.Old && string(now) != s.New {
			return &base.Error{Class: base.ErrPlanMismatch, Op: "compare with journal", Path: p, Offset: -1,
				Reason: fmt.Sprintf("it holds %q; before the repair it held %q, after it %q: TiKV or another tool has changed the store since",
					bytes.TrimSpace(now), strings.TrimSpace(s.Old), strings.TrimSpace(s.New)),
				Next: "the saved files are in " + t.backup}
		}
	}
	return nil
}

// Finish records the result and takes the fence away.
//
//	crash before the journal says done: the fence is there; a rerun verifies again and finishes.
//	crash after: a rerun only removes the fence.
func (t *Tx) Finish(result any) error {
	if err := t.FinishFenced(result); err != nil {
		return err
	}
	return t.RemoveFence()
}

// FinishKeepingMark is Finish for an edit that has nothing to do with TiKV's own panic_mark_file: that comes back in place of the
// fence.
func (t *Tx) FinishKeepingMark(result any) error {
	if err := t.FinishFenced(result); err != nil {
		return err
	}
	return t.RemoveOwnFenceIfAny()
}

// FinishFenced records the result and leaves the fence up: the repair of this store is done, that of others is not.
func (t *Tx) FinishFenced(result any) error {
	if err := writeJSON(t.fs, t.fs.PathJoin(t.backup, "result.json"), result); err != nil {
		return err
	}
	t.J.State = Done
	return t.save()
}

// RemoveFence takes our own fence away; absent is fine.
func (t *Tx) RemoveFence() error { return engine.RemoveFence(t.fs, t.dir, t.J.PlanID) }
