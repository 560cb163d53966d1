package edit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Witness is a file that an engine writes anew whenever it is started, and what it held before the edit: CURRENT of a RocksDB names
// another MANIFEST after each open (tikv/rocksdb 8.10.tikv db/version_set.cc). Any other content means that the directory has
// been in use since.
type Witness struct {
	Path    string `json:"path"`
	Content string `json:"content"`
}

// Rename is a directory that moves into the backup as a whole.
//
// Invariant: in states begun and staged it is at Path or, after a crash, at Backup; published or done: at Backup alone; undone: at
// Path.
type Rename struct {
	Path   string `json:"path"`
	Backup string `json:"backup"`
	Bytes  int64  `json:"bytes"`
}

// Moves are what an edit that writes nothing takes away.
type Moves struct {
	Files   []string // moved by link and remove, so that the backup has its name before the place loses it
	Dirs    []string // moved by rename
	Witness []string // see Witness
	// Fence keeps TiKV from starting meanwhile. PD knows no such mark: an interrupted edit of its directory is known by its journal alone.
	Fence bool
}

// againDir holds, in the backup, what came back to a place from which the edit had moved a file or a directory.
const againDir = "again"

// BeginMoves begins an edit that only moves things away. Everything is saved before the fence, so that what the fence's own side effect
// overwrites (a start that it stops writes last_tikv.toml) is safe already.
//
//	crash before the journal: a directory without a journal, as with Begin.
//	crash before the fence: nothing has moved; the journal says staged and there is no fence: a rerun abandons it and begins anew.
//	crash after: TiKV refuses to start; a rerun publishes.
func BeginMoves(fs base.FS, dataDir, planID, verb string, plan any, m Moves, now time.Time) (*Tx, error) {
	t := &Tx{fs: fs, dir: dataDir, backup: BackupDir(fs, dataDir, planID)}
	t.J = Journal{Format: journalFormat, PlanID: planID, Verb: verb, State: Begun, Started: now.UTC().Format(startedLayout), Unfenced: !m.Fence}
	if err := mkdirDurable(fs, dataDir, t.backup); err != nil {
		return nil, err
	}
	if err := writeJSON(fs, fs.PathJoin(t.backup, "plan.json"), plan); err != nil {
		return nil, err
	}
	for _, p := range m.Witness {
		b, err := base.ReadFile(fs, p)
		if err != nil {
			return nil, err
		}
		t.J.Witness = append(t.J.Witness, Witness{rel(dataDir, p), string(b)})
	}
	for _, p := range m.Files {
		if err := t.MoveAway(p); err != nil {
			return nil, err
		}
	}
	for _, p := range m.Dirs {
		if err := t.moveDirAway(p); err != nil {
			return nil, err
		}
	}
	if m.Fence {
		if err := t.keepForeignMark(); err != nil {
			return nil, err
		}
	}
	if err := t.Stage(); err != nil {
		return nil, err
	}
	if !m.Fence {
		return t, nil
	}
	return t, engine.TakeOverMark(fs, dataDir, planID)
}

// keepForeignMark saves a panic_mark_file that is not ours.
func (t *Tx) keepForeignMark() error {
	f, err := engine.ReadFence(t.fs, t.dir)
	if err != nil || f == nil || f.Ours {
		return err
	}
	t.J.ForeignPanicMark = true
	return base.WriteFileSync(t.fs, t.fs.PathJoin(t.backup, engine.PanicMark), f.Raw, t.fs.PathJoin(t.dir, engine.PanicMark))
}

// moveDirAway registers a directory; its place in the backup is made, but it stays where it is until the edit is published.
func (t *Tx) moveDirAway(path string) error {
	r := Rename{Path: rel(t.dir, path)}
	names, err := t.fs.List(path)
	if err != nil {
		return base.IO("list", path, err)
	}
	for _, n := range names {
		st, err := t.fs.Stat(t.fs.PathJoin(path, n))
		if err != nil {
			return base.IO("stat", t.fs.PathJoin(path, n), err)
		}
		r.Bytes += st.Size()
	}
	dest := t.fs.PathJoin(t.backup, "files", r.Path)
	if err := mkdirDurable(t.fs, t.dir, t.fs.PathDir(dest)); err != nil {
		return err
	}
	r.Backup = rel(t.dir, dest)
	t.J.Renames = append(t.J.Renames, r)
	return nil
}

// Abandon ends an edit that was interrupted before its fence was up, when nothing had moved yet. It is no error to abandon twice.
func (t *Tx) Abandon() error {
	t.J.State = Undone
	return t.save()
}

// applyRenames moves the directories into the backup. It is idempotent.
//
//	crash between rename and sync: the directory is in one of the two places; a rerun finds out which.
func (t *Tx) applyRenames() error { return t.moveDirs(false) }

// renameBack is the inverse of applyRenames.
func (t *Tx) renameBack() error { return t.moveDirs(true) }

func (t *Tx) moveDirs(back bool) error {
	for _, r := range t.J.Renames {
		p, b := abs(t.fs, t.dir, r.Path), abs(t.fs, t.dir, r.Backup)
		there, err := base.Exists(t.fs, p)
		if err != nil {
			return err
		}
		moved, err := base.Exists(t.fs, b)
		if err != nil {
			return err
		}
		if there && moved {
			// PD was started after a crash and made a new one.
			if err := t.setDirAgainAside(p); err != nil {
				return err
			}
			there = false
		}
		from, to := p, b
		if back {
			from, to = b, p
		}
		switch {
		case !there && !moved:
			return t.changed(p, "it is gone, and it is not in the backup")
		case moved == back:
			if err := t.fs.Rename(from, to); err != nil {
				return base.IO("rename to", to, err)
			}
		}
		// The new name first: a directory must not lose the old one while the new one can still be lost.
		for _, d := range []string{t.fs.PathDir(to), t.fs.PathDir(from)} {
			if err := base.SyncDir(t.fs, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkWitness looks whether an engine has been started since.
func (t *Tx) checkWitness() error {
	for _, w := range t.J.Witness {
		p := abs(t.fs, t.dir, w.Path)
		now, err := base.ReadFile(t.fs, p)
		if err != nil {
			return err
		}
		if string(now) != w.Content {
			return t.changed(p, "it holds %q, it held %q", strings.TrimSpace(string(now)), strings.TrimSpace(w.Content))
		}
	}
	return nil
}

// checkRenames refuses to take a directory back when there is a new one in its place: PD has been started since. An undo that began
// goes on.
func (t *Tx) checkRenames() error {
	if t.J.State == Undoing {
		return nil
	}
	for _, r := range t.J.Renames {
		p, b := abs(t.fs, t.dir, r.Path), abs(t.fs, t.dir, r.Backup)
		there, err := base.Exists(t.fs, p)
		if err != nil {
			return err
		}
		moved, err := base.Exists(t.fs, b)
		if err != nil {
			return err
		}
		if !there || !moved {
			continue
		}
		// The same directory under both names is a rename that a crash has cut in two.
		if same, err := t.sameDir(p, b); err != nil {
			return err
		} else if !same {
			return t.changed(p, "there is a new one, PD has been started")
		}
	}
	return nil
}

// sameDir compares two flat directories by names and content.
func (t *Tx) sameDir(a, b string) (bool, error) {
	x, err := t.fs.List(a)
	if err != nil {
		return false, base.IO("list", a, err)
	}
	y, err := t.fs.List(b)
	if err != nil {
		return false, base.IO("list", b, err)
	}
	slices.Sort(x)
	slices.Sort(y)
	if !slices.Equal(x, y) {
		return false, nil
	}
	for _, n := range x {
		sizeA, sumA, err := t.digest(t.fs.PathJoin(a, n))
		if err != nil {
			return false, err
		}
		sizeB, sumB, err := t.digest(t.fs.PathJoin(b, n))
		if err != nil {
			return false, err
		}
		if sizeA != sizeB || sumA != sumB {
			return false, nil
		}
	}
	return true, nil
}

// startRewrites tells whether a start of TiKV that the fence stops writes the file all the same (tikv/tikv master
// components/server/src/setup.rs validate_and_persist_config runs before common.rs looks at panic_mark_file).
func startRewrites(path string) bool { return path == engine.LastConfig }

// SetAgainAside moves into the backup what has come back to a place from which this edit moved it: last_tikv.toml after a start that
// the fence stopped, region-meta after a start of PD. Nothing is lost by it, and a rerun finds nothing left.
func (t *Tx) SetAgainAside() error {
	for _, m := range t.J.Moved {
		p := abs(t.fs, t.dir, m)
		there, err := base.Exists(t.fs, p)
		if err != nil {
			return err
		}
		if !there || !startRewrites(m) {
			continue
		}
		if kept, err := t.setFileAgainAside(m); err != nil || kept != "" {
			if err != nil {
				return err
			}
			continue
		}
		// The same once more: it is in the backup.
		if err := removeIfThere(t.fs, p); err != nil {
			return err
		}
		if err := base.SyncDir(t.fs, t.fs.PathDir(p)); err != nil {
			return err
		}
	}
	for _, r := range t.J.Renames {
		p := abs(t.fs, t.dir, r.Path)
		there, err := base.Exists(t.fs, p)
		if err != nil {
			return err
		}
		if !there {
			continue
		}
		if err := t.setDirAgainAside(p); err != nil {
			return err
		}
	}
	return nil
}

// Again lists what this edit has set aside because it came back to its place.
func (t *Tx) Again() ([]string, error) {
	dir := t.fs.PathJoin(t.backup, againDir)
	names, err := t.fs.List(dir)
	if isNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, base.IO("list", dir, err)
	}
	slices.Sort(names)
	for i, n := range names {
		names[i] = t.fs.PathJoin(dir, n)
	}
	return names, nil
}

// setFileAgainAside moves a file that a stopped start wrote anew into the backup, and says where to; "" when the place is empty or holds
// the file that is saved. The new name is durable before the old one goes.
func (t *Tx) setFileAgainAside(moved string) (string, error) {
	p := abs(t.fs, t.dir, moved)
	s := t.saved(moved)
	if !startRewrites(moved) || s == nil {
		return "", nil
	}
	if there, err := base.Exists(t.fs, p); err != nil || !there {
		return "", err
	}
	now, err := base.ReadFile(t.fs, p)
	if err != nil {
		return "", err
	}
	old, err := base.ReadFile(t.fs, abs(t.fs, t.dir, s.Backup))
	if err != nil {
		return "", err
	}
	if bytes.Equal(now, old) {
		return "", nil
	}
	kept, err := t.keepAgain(p, now)
	if err != nil {
		return "", err
	}
	if err := removeIfThere(t.fs, p); err != nil {
		return "", err
	}
	return kept, base.SyncDir(t.fs, t.fs.PathDir(p))
}

// keepAgain gives a file another name in the backup. One with the same content is enough: every start that is stopped writes the
// same.
func (t *Tx) keepAgain(p string, content []byte) (string, error) {
	dest, err := t.againName(t.fs.PathBase(p), func(have string) (bool, error) {
		b, err := base.ReadFile(t.fs, have)
		return bytes.Equal(b, content), err
	})
	if err != nil {
		return "", err
	}
	there, err := base.Exists(t.fs, dest)
	if err != nil {
		return "", err
	}
	if !there {
		if err := t.link(p, dest); err != nil {
			// A copy that is cut off by a crash is no reason to keep the next one from being made: it has other content.
			if err := t.copyFile(p, dest); err != nil {
				return "", err
			}
		}
	}
	return dest, base.SyncDir(t.fs, t.fs.PathDir(dest))
}

func (t *Tx) setDirAgainAside(p string) error {
	dest, err := t.againName(t.fs.PathBase(p), func(string) (bool, error) { return false, nil })
	if err != nil {
		return err
	}
	if err := t.fs.Rename(p, dest); err != nil {
		return base.IO("set aside", p, err)
	}
	if err := base.SyncDir(t.fs, t.fs.PathDir(dest)); err != nil {
		return err
	}
	return base.SyncDir(t.fs, t.fs.PathDir(p))
}

// againName is a free name in the backup, or one for which same is true.
func (t *Tx) againName(name string, same func(string) (bool, error)) (string, error) {
	dir := t.fs.PathJoin(t.backup, againDir)
	if err := mkdirDurable(t.fs, t.dir, dir); err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		p := t.fs.PathJoin(dir, fmt.Sprintf("%s.%d", name, n))
		there, err := base.Exists(t.fs, p)
		if err != nil || !there {
			return p, err
		}
		if ok, err := same(p); err != nil || ok {
			return p, err
		}
	}
}
