package engine

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// PanicMark is the file whose mere existence keeps TiKV from starting (tikv/tikv master
// components/tikv_util/src/lib.rs panic_mark_file_path). TiKV writes it, empty, when it finds its data corrupted.
const PanicMark = "panic_mark_file"

// fenceLine starts the line of the file that holds the plan's id.
const fenceLine = "tikv-repair plan: "

// fenceTemp is where the fence is written before it is renamed. It has no meaning to TiKV.
const fenceTemp = PanicMark + ".tikv-repair.tmp"

// Fence is a panic_mark_file that was found.
type Fence struct {
	PlanID string // of our plan; "" when the file is not ours
	Ours   bool
	Raw    []byte // the file's content
}

// ReadFence reads the panic_mark_file of a data directory; (nil, nil) when there is none.
func ReadFence(fs base.FS, dir string) (*Fence, error) {
	name := fs.PathJoin(dir, PanicMark)
	if ok, err := base.Exists(fs, name); err != nil || !ok {
		return nil, err
	}
	b, err := base.ReadFile(fs, name)
	if err != nil {
		return nil, err
	}
	f := parseFence(b)
	return &f, nil
}

// parseFence finds the one line with a plan id. Text that has none, several, or an id that we would not have written is
// not ours.
//
//	any text
//	tikv-repair plan: <plan id>\n
//	any text
func parseFence(b []byte) Fence {
	f := Fence{Raw: b}
	for line := range bytes.Lines(b) {
		id, ok := strings.CutPrefix(string(line), fenceLine)
		if !ok {
			continue
		}
		id, whole := strings.CutSuffix(id, "\n")
		if !whole || f.Ours || checkPlanID(id) != nil {
			return Fence{Raw: b}
		}
		f.PlanID, f.Ours = id, true
	}
	return f
}

// WriteFence puts up the fence of a plan, durably. A fence of the same plan stays as it is. A panic_mark_file that is
// not ours, or another plan's, is never overwritten: the error has class ErrPlanMismatch, and the caller backs that file
// up and sets it aside first.
func WriteFence(fs base.FS, dir, planID string) error {
	if err := checkPlanID(planID); err != nil {
		return err
	}
	there, err := ReadFence(fs, dir)
	if err != nil {
		return err
	}
	if there == nil {
		// A fence cut off by a power failure would look like TiKV's own mark to the rerun, so it appears by rename, whole.
		tmp := fs.PathJoin(dir, fenceTemp)
		if err := base.WriteFileSync(fs, tmp, fenceText(dir, planID), ""); err != nil {
			return err
		}
		if err := base.IO("rename", tmp, fs.Rename(tmp, fs.PathJoin(dir, PanicMark))); err != nil {
			return err
		}
	} else if there.PlanID != planID {
		return mismatch(fs.PathJoin(dir, PanicMark), there, planID)
	}
	// Also for a fence that was there: the run that wrote it may have died before its entry was durable.
	return base.SyncDir(fs, dir)
}

// RemoveFence takes down the fence of a plan, durably. No fence at all is no error; a file that is not this plan's stays
// and gives an error of class ErrPlanMismatch.
func RemoveFence(fs base.FS, dir, planID string) error {
	if err := checkPlanID(planID); err != nil {
		return err
	}
	there, err := ReadFence(fs, dir)
	if err != nil {
		return err
	}
	if there != nil {
		name := fs.PathJoin(dir, PanicMark)
		if there.PlanID != planID {
			return mismatch(name, there, planID)
		}
		if err := base.IO("remove", name, fs.Remove(name)); err != nil {
			return err
		}
	}
	return base.SyncDir(fs, dir)
}

func mismatch(name string, there *Fence, planID string) error {
	e := &base.Error{Class: base.ErrPlanMismatch, Op: "fence", Path: name, Offset: -1}
	if there.Ours {
		e.Reason = fmt.Sprintf("the fence of plan %s is there, this is plan %s", there.PlanID, planID)
		e.Next = "finish, release or undo plan " + there.PlanID + " first"
	} else {
		e.Reason = "the file is not tikv-repair's: TiKV writes it when it finds its data corrupted"
		e.Next = "look into TiKV's log for the reason before anything else"
	}
	return e
}

func checkPlanID(id string) error {
	ok := id != "" && len(id) <= 128
	for _, c := range []byte(id) {
		ok = ok && (c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return &base.Error{Class: base.ErrUsage, Op: "fence", Offset: -1, Reason: fmt.Sprintf("%q is not a plan id", id)}
	}
	return nil
}

func fenceText(dir, planID string) []byte {
	return fmt.Appendf(nil, `This store is being repaired. TiKV does not start while this file exists: do not delete it by hand.
%s%s
To see what was done and what is left to do, type:
  tikv-repair status %s
`, fenceLine, planID, shellQuote(dir))
}

// shellQuote makes a path safe to paste, and keeps a line break in it from starting a line of the fence.
func shellQuote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./") == "" {
		return s
	}
	return "'" + strings.NewReplacer("'", `'\''`, "\n", "?").Replace(s) + "'"
}

// FreeSpace is the number of bytes that can still be written to the file system of dir.
func FreeSpace(fs base.FS, dir string) (uint64, error) {
	u, err := fs.GetDiskUsage(dir)
	if err != nil {
		return 0, base.IO("get free space of", dir, err)
	}
	return u.AvailBytes, nil
}
