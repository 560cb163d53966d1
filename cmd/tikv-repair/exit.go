package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

const (
	exitOK          = 0
	exitBug         = 70
	exitInterrupted = 130
)

// exitStatus maps the class of an error to the exit status. The outermost class counts: a repair that stopped part way because
// the disk was full is "part way".
func exitStatus(err error) int {
	class := classOf(err)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(class, base.ErrPartial):
		return 3
	case errors.Is(class, base.ErrProblems):
		return 1
	case errors.Is(class, base.ErrCorrupt), errors.Is(class, base.ErrUnsupported):
		return 2
	case errors.Is(class, base.ErrNotStore):
		return 10
	case errors.Is(class, base.ErrInUse):
		return 11
	case errors.Is(class, base.ErrPlanMismatch):
		return 12
	case errors.Is(class, base.ErrUsage):
		return 16
	case errors.Is(class, base.ErrDeclined):
		return 32
	case errors.Is(class, base.ErrInterrupted), errors.Is(class, context.Canceled):
		return exitInterrupted
	case errors.Is(class, base.ErrIO), isOSError(class):
		return 8
	}
	return exitBug
}

func isOSError(err error) bool {
	var path *fs.PathError
	var no syscall.Errno
	return errors.As(err, &path) || errors.As(err, &no)
}

// exitHelp ends the help of every verb.
const exitHelp = `Exit status:
  0    done, or nothing to do
  1    problems were found, nothing was written
  2    the store is not cleanly readable, or not supported: refused
  3    stopped part way; a rerun is safe
  8    input/output error
  10   not a TiKV or PD data directory
  11   the directory is in use
  12   the plan does not fit the store
  16   wrong usage
  32   declined
  70   a bug in this tool
  130  interrupted by a signal
`

// printError prints what went wrong and what to type next.
func printError(w io.Writer, err error) {
	fmt.Fprintf(w, "error: %v\n", err)
	if next := base.Next(err); next != "" {
		fmt.Fprintf(w, "  next: %s\n", next)
	}
}

func usagef(format string, args ...any) error {
	return &base.Error{Class: base.ErrUsage, Op: "usage", Offset: -1, Reason: fmt.Sprintf(format, args...)}
}

// classOf is the class of the outermost error.
func classOf(err error) error {
	var e *base.Error
	if errors.As(err, &e) && e.Class != nil {
		return e.Class
	}
	return err
}
