package repair

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/tikv-repair/tikv-repair/engine"
	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/pd"
)

// stopped is the last word on an error of a verb that writes. Whether our fence is up decides: then TiKV does not start, and that
// comes before all else; otherwise the store is whole, before the repair or after it. When that cannot be read, it counts whether
// this run has begun to write. Refusals stay what they are.
func stopped(fs base.FS, dir, verb string, begun bool, err error) error {
	if err == nil {
		return nil
	}
	if cause := base.Refused(fs); cause != nil {
		err = cause // whatever was made of it
	}
	base.Unwind(fs)
	class := base.ErrIO
	var e *base.Error
	if errors.As(err, &e) {
		class = e.Class
	} else if !isOS(err) {
		class = nil // interrupted, or a bug: its own class is right
	}
	switch class {
	case base.ErrPartial, base.ErrPlanMismatch, base.ErrProblems, base.ErrDeclined, base.ErrUsage, base.ErrInUse, base.ErrNotStore:
		return err
	}
	f, ferr := engine.ReadFence(fs, dir)
	if ferr == nil && f != nil && f.Ours || ferr != nil && begun {
		next := "run the same command again to finish, or: tikv-repair undo " + dir
		if verb == "undo" {
			next = "tikv-repair undo " + dir
		}
		if errors.Is(err, context.Canceled) {
			return &base.Error{Class: base.ErrInterrupted, Op: verb + " was interrupted; TiKV is fenced off and nothing is lost", Offset: -1, Err: err, Next: next}
		}
		if own := base.Next(err); own != "" && class != base.ErrIO {
			next = own
		}
		return &base.Error{Class: base.ErrPartial, Op: verb + " stopped part way; TiKV is fenced off and nothing is lost", Offset: -1, Err: err, Next: next}
	}
	if class != base.ErrIO || base.Next(err) != "" {
		return err
	}
	next := "nothing is half done: look for the cause in the kernel's log, free space and permissions, then run the same command again"
	if begun && pd.Is(fs, dir) {
		// PD knows no fence.
		next = "do not start PD yet; look for the cause in the kernel's log, free space and permissions, then run the same command again, or: tikv-repair undo " + dir
	}
	if ferr != nil {
		next = "look for the cause in the kernel's log and permissions, then: tikv-repair status " + dir
	}
	return &base.Error{Class: class, Op: verb, Path: dir, Offset: -1, Err: err, Next: next}
}

// step counts one item of a phase, and ends it when the run is to end.
func step(ctx context.Context, ph *base.Phase) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return ph.Did(1)
}

func isOS(err error) bool {
	var path *os.PathError
	var link *os.LinkError
	var no syscall.Errno
	return errors.As(err, &path) || errors.As(err, &link) || errors.As(err, &no)
}
