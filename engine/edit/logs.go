package edit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// Cut is one file that loses its tail in place. The bytes that go are kept in the backup.
//
// Invariant: New ≤ Old. In states begun and staged the file has Old bytes or New; published or done: New; undoing: any length
// between the two; undone: Old.
type Cut struct {
	Path string `json:"path"`
	Old  int64  `json:"old_bytes"`
	New  int64  `json:"new_bytes"`
	Tail string `json:"tail"` // file with the bytes [New, Old)
}

// Log is a created file that an engine appends to once it is started: its content tells whether that has happened.
type Log struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	// Next is the file that an engine would begin after this one.
	Next string `json:"next"`
	// Old tells that the path held another file, which is among Saved.
	Old bool `json:"old,omitempty"`
}

// Cut registers a file that is to be cut to its first size bytes when the edit is published, and keeps the rest in the backup.
// The file itself is not touched yet.
func (t *Tx) Cut(path string, size int64) error {
	st, err := t.fs.Stat(path)
	if err != nil {
		return base.IO("stat", path, err)
	}
	r := rel(t.dir, path)
	if size < 0 || size > st.Size() {
		return fmt.Errorf("cut of %s to %d of %d bytes", path, size, st.Size())
	}
	for _, s := range t.J.Saved {
		if s.Path == r {
			return fmt.Errorf("%s is saved by a hard link, which would be cut too", path)
		}
	}
	if t.cut(path) >= 0 {
		return fmt.Errorf("%s is cut twice", path)
	}
	tail := t.fs.PathJoin(t.backup, "tails", strings.TrimPrefix(r, "/"))
	if err := t.copyTail(path, size, st.Size(), tail); err != nil {
		return err
	}
	t.J.Cuts = append(t.J.Cuts, Cut{Path: r, Old: st.Size(), New: size, Tail: rel(t.dir, tail)})
	return nil
}

// cut finds the cut of a path, -1 when there is none.
func (t *Tx) cut(path string) int {
	for i, c := range t.J.Cuts {
		if abs(t.fs, t.dir, c.Path) == path {
			return i
		}
	}
	return -1
}

func (t *Tx) copyTail(path string, from, to int64, tail string) error {
	if err := t.fs.MkdirAll(t.fs.PathDir(tail), 0o755); err != nil {
		return base.IO("create directory", t.fs.PathDir(tail), err)
	}
	in, err := t.fs.Open(path)
	if err != nil {
		return base.IO("open", path, err)
	}
	defer in.Close()
	out, err := t.fs.Create(tail, base.DiskWriteCategory)
	if err != nil {
		return base.IO("create", tail, err)
	}
	n, err := io.Copy(struct{ io.Writer }{out}, io.NewSectionReader(in, from, to-from))
	if err == nil && n != to-from {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err != nil {
		return base.IO("copy to", tail, err)
	}
	return t.fs.CopyAttrs(tail, path)
}

// Log registers a staged file, after Add, as one that an engine would append to; next is the name of the file that it would
// begin after it. A file that stands at the final path is replaced and must have been saved.
func (t *Tx) Log(final, next string) error {
	l := Log{Path: rel(t.dir, final), Next: rel(t.dir, next)}
	var err error
	if l.Bytes, l.SHA256, err = t.digest(final + StagedSuffix); err != nil {
		return err
	}
	if l.Old, err = base.Exists(t.fs, final); err != nil {
		return err
	}
	if l.Old && t.saved(l.Path) == nil {
		return fmt.Errorf("%s is to be replaced and is not saved", final)
	}
	t.J.Logs = append(t.J.Logs, l)
	return nil
}

func (t *Tx) saved(path string) *Saved {
	for i := range t.J.Saved {
		if t.J.Saved[i].Path == path {
			return &t.J.Saved[i]
		}
	}
	return nil
}

// digest reads a whole file.
func (t *Tx) digest(path string) (size int64, sum string, err error) {
	f, err := t.fs.Open(path)
	if err != nil {
		return 0, "", base.IO("open", path, err)
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(struct{ hash.Hash }{h}, struct{ io.Reader }{f})
	return size, hex.EncodeToString(h.Sum(nil)), base.IO("read", path, err)
}

func (t *Tx) changed(path, format string, args ...any) error {
	return &base.Error{Class: base.ErrPlanMismatch, Op: "compare with journal", Path: path, Offset: -1,
		Reason: fmt.Sprintf(format, args...) + ": TiKV or another tool has changed the store since",
		Next:   "the saved files are in " + t.backup}
}

// published tells whether every cut has to be done: from the first created file on, no old length is possible any more.
func (t *Tx) published() bool { return t.J.State == Published || t.J.State == Done }

// checkCuts compares the files that are cut with the journal.
func (t *Tx) checkCuts() error {
	for _, c := range t.J.Cuts {
		p := abs(t.fs, t.dir, c.Path)
		st, err := t.fs.Stat(p)
		if isNotExist(err) {
			return t.changed(p, "it is gone")
		}
		if err != nil {
			return base.IO("stat", p, err)
		}
		switch size := st.Size(); {
		case size == c.New:
		case t.J.State == Undoing && size > c.New && size <= c.Old:
			// A tail that was being written back.
		case size == c.Old && !t.published():
			same, err := t.sameTail(p, c)
			if err != nil {
				return err
			}
			if !same {
				return t.changed(p, "the bytes from offset %d on are not those of before the repair", c.New)
			}
		default:
			return t.changed(p, "it has %d bytes; before the repair it had %d, after it %d", size, c.Old, c.New)
		}
	}
	return nil
}

// sameTail compares [New, Old) of a file with the copy in the backup.
func (t *Tx) sameTail(path string, c Cut) (bool, error) {
	a, err := t.fs.Open(path)
	if err != nil {
		return false, base.IO("open", path, err)
	}
	defer a.Close()
	tail := abs(t.fs, t.dir, c.Tail)
	b, err := t.fs.Open(tail)
	if err != nil {
		return false, base.IO("open", tail, err)
	}
	defer b.Close()
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for off := c.New; off < c.Old; off += int64(len(x)) {
		n := min(int64(len(x)), c.Old-off)
		if err := base.ReadFullAt(a, path, x[:n], off); err != nil {
			return false, err
		}
		if err := base.ReadFullAt(b, tail, y[:n], off-c.New); err != nil {
			return false, err
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// checkLogs compares the new log files with the journal, and looks whether an engine has begun the next one.
func (t *Tx) checkLogs() error {
	for _, l := range t.J.Logs {
		next := abs(t.fs, t.dir, l.Next)
		if there, err := base.Exists(t.fs, next); err != nil {
			return err
		} else if there {
			return t.changed(next, "the raft log goes on behind the repair")
		}
		final := abs(t.fs, t.dir, l.Path)
		staged, err := base.Exists(t.fs, final+StagedSuffix)
		if err != nil {
			return err
		}
		there, err := base.Exists(t.fs, final)
		if err != nil {
			return err
		}
		var size int64
		var sum string
		if there {
			if size, sum, err = t.digest(final); err != nil {
				return err
			}
		}
		isNew := there && size == l.Bytes && sum == l.SHA256
		switch {
		case l.Old:
			isOld, err := t.isSaved(l, there, size, sum)
			if err != nil {
				return err
			}
			if !isNew && !(isOld && (staged || t.J.State == Undoing)) {
				return t.changed(final, "it is neither the file of before the repair nor the new one")
			}
		case isNew, staged && !there, t.J.State == Undoing && !there:
		default:
			return t.changed(final, "the new log file is not as it was written")
		}
	}
	return nil
}

// checkStagedLogs makes sure that what was read back when it was staged is what gets published.
func (t *Tx) checkStagedLogs() error {
	for _, l := range t.J.Logs {
		p := abs(t.fs, t.dir, l.Path) + StagedSuffix
		if staged, err := base.Exists(t.fs, p); err != nil {
			return err
		} else if !staged {
			continue
		}
		if n, sum, err := t.digest(p); err != nil {
			return err
		} else if n != l.Bytes || sum != l.SHA256 {
			return t.changed(p, "the staged log file is not as it was written")
		}
	}
	return nil
}

// isSaved tells whether the file at the path of a log is the one that was saved from there.
func (t *Tx) isSaved(l Log, there bool, size int64, sum string) (bool, error) {
	s := t.saved(l.Path)
	if !there || s == nil {
		return false, nil
	}
	n, old, err := t.digest(abs(t.fs, t.dir, s.Backup))
	return err == nil && n == size && old == sum, err
}

// applyCuts cuts the tails off. A file that is short already has been cut before.
func (t *Tx) applyCuts() error {
	for _, c := range t.J.Cuts {
		p := abs(t.fs, t.dir, c.Path)
		st, err := t.fs.Stat(p)
		if err != nil {
			return base.IO("stat", p, err)
		}
		if st.Size() == c.New {
			continue
		}
		if err := t.fs.Truncate(p, c.New); err != nil {
			return err
		}
	}
	return nil
}

// restoreLogs gives back the files that new logs have replaced. There is no moment without a file at the path.
func (t *Tx) restoreLogs() error {
	for _, l := range t.J.Logs {
		if !l.Old {
			continue
		}
		p := abs(t.fs, t.dir, l.Path)
		size, sum, err := t.digest(p)
		if err != nil {
			return err
		}
		if isOld, err := t.isSaved(l, true, size, sum); err != nil || isOld {
			if err != nil {
				return err
			}
			continue
		}
		aside := t.fs.PathJoin(t.backup, "undone", strings.Trim(rel(t.dir, t.fs.PathDir(p)), "/"))
		if err := mkdirDurable(t.fs, t.dir, aside); err != nil {
			return err
		}
		kept := t.fs.PathJoin(aside, t.fs.PathBase(p))
		if err := t.link(p, kept); err != nil {
			if err := t.copyFile(p, kept); err != nil {
				return err
			}
		}
		if err := base.SyncDir(t.fs, aside); err != nil {
			return err
		}
		// A copy, so that the backup does not change with a file that an engine appends to later.
		if err := t.copyFile(abs(t.fs, t.dir, t.saved(l.Path).Backup), p+StagedSuffix); err != nil {
			return err
		}
		if err := base.RenameSync(t.fs, p+StagedSuffix, p); err != nil {
			return err
		}
	}
	return nil
}

// restoreTails writes the cut tails back, so that the files are byte for byte what they were.
func (t *Tx) restoreTails() error {
	for _, c := range t.J.Cuts {
		p := abs(t.fs, t.dir, c.Path)
		st, err := t.fs.Stat(p)
		if err != nil {
			return base.IO("stat", p, err)
		}
		if st.Size() == c.Old {
			same, err := t.sameTail(p, c)
			if err != nil {
				return err
			}
			if same {
				continue
			}
		}
		if err := t.writeTail(p, c); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) writeTail(path string, c Cut) error {
	tail := abs(t.fs, t.dir, c.Tail)
	in, err := t.fs.Open(tail)
	if err != nil {
		return base.IO("open", tail, err)
	}
	defer in.Close()
	out, err := t.fs.OpenReadWrite(path, base.DiskWriteCategory)
	if err != nil {
		return base.IO("open", path, err)
	}
	b := make([]byte, 64<<10)
	for off := c.New; off < c.Old && err == nil; off += int64(len(b)) {
		n := min(int64(len(b)), c.Old-off)
		if err = base.ReadFullAt(in, tail, b[:n], off-c.New); err == nil {
			_, err = out.WriteAt(b[:n], off)
		}
	}
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	return base.IO("write back the tail of", path, err)
}
