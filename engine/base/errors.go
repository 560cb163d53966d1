// Package base is the leaf of the engine: the file-system seam through which every byte is read and written, and the
// classes of error that decide the exit status.
package base

import (
	"errors"
	"fmt"
	"strings"
)

// One sentinel per error class. Test with errors.Is; cmd maps each to its exit status in one switch.
var (
	// ErrProblems: problems were found and nothing was written. Exit 1.
	ErrProblems = errors.New("problems found")
	// ErrCorrupt: bytes on disk do not decode. Exit 2.
	ErrCorrupt = errors.New("store not cleanly readable")
	// ErrUnsupported: the bytes are legal but this tool does not handle them. Exit 2.
	ErrUnsupported = errors.New("not supported")
	// ErrPartial: stopped part way; a rerun is safe. Exit 3.
	ErrPartial = errors.New("stopped part way")
	// ErrIO: the operating system refused a file operation. Exit 8.
	ErrIO = errors.New("i/o error")
	// ErrNotStore: the directory is not a TiKV (or PD) directory. Exit 10.
	ErrNotStore = errors.New("not a TiKV data directory")
	// ErrInUse: a live process holds a lock of the directory. Exit 11.
	ErrInUse = errors.New("directory in use")
	// ErrPlanMismatch: the plan does not fit what is on disk. Exit 12.
	ErrPlanMismatch = errors.New("plan does not fit the store")
	// ErrUsage: the command line is wrong. Exit 16.
	ErrUsage = errors.New("usage")
	// ErrDeclined: the operator said no. Exit 32.
	ErrDeclined = errors.New("declined")
	// ErrInterrupted: SIGINT or SIGTERM. Exit 130.
	ErrInterrupted = errors.New("interrupted")
)

// Error is an error of one class with everything an operator needs: what was attempted, where, why it failed, and what
// to type next. Fields that do not apply stay zero.
type Error struct {
	Class  error  // one of the sentinels above
	Op     string // what was attempted: "read MANIFEST", "open store"
	Path   string // file or directory
	Offset int64  // byte offset in Path; -1 when it does not apply
	CF     string // column family
	Region uint64 // region id
	Key    []byte // raw database key, printed in upper-case hex
	Reason string // why
	Next   string // what to type or do next
	Err    error  // cause
}

// Error gives one line: operation, path, offset, column family, region, key, reason, cause.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op)
	} else {
		b.WriteString(e.Class.Error())
	}
	if e.Path != "" {
		fmt.Fprintf(&b, " %s", e.Path)
	}
	if e.Offset >= 0 && e.Path != "" && errors.Is(e.Class, ErrCorrupt) {
		fmt.Fprintf(&b, " at offset %d", e.Offset)
	}
	if e.CF != "" {
		fmt.Fprintf(&b, ", column family %s", e.CF)
	}
	if e.Region != 0 {
		fmt.Fprintf(&b, ", region %d", e.Region)
	}
	if len(e.Key) > 0 {
		fmt.Fprintf(&b, ", key %X", e.Key)
	}
	if e.Reason != "" {
		fmt.Fprintf(&b, ": %s", e.Reason)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// Unwrap lets errors.Is find both the class and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.Err}
}

// Corruptf reports bytes at offset off of path that do not decode.
func Corruptf(path string, off int64, format string, args ...any) *Error {
	return &Error{Class: ErrCorrupt, Op: "read", Path: path, Offset: off, Reason: fmt.Sprintf(format, args...)}
}

// Unsupportedf reports legal content of path that this tool refuses by name.
func Unsupportedf(path string, format string, args ...any) *Error {
	return &Error{Class: ErrUnsupported, Op: "read", Path: path, Offset: -1, Reason: fmt.Sprintf(format, args...)}
}

// IO wraps a failed file operation. It returns nil for a nil cause and leaves an *Error as it is.
func IO(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Class: ErrIO, Op: op, Path: path, Offset: -1, Err: err}
}

// Next returns the hint of the outermost Error in err's tree that has one.
func Next(err error) string {
	var e *Error
	for errors.As(err, &e) {
		if e.Next != "" {
			return e.Next
		}
		if e.Err == nil {
			return ""
		}
		err = e.Err
	}
	return ""
}
