// Package raftstate knows the records with which TiKV describes a region on disk: its descriptor, its raft and apply states,
// its log entries, and the conditions under which a server starts on them. It is pure: no files, no clock, no logging.
//
// Two kinds of decoding are used. Messages are read through kvproto. Bytes that must be written again are edited on the
// protobuf wire, never re-encoded: a newer TiKV may have put fields there that we do not know.
package raftstate

import (
	"errors"
	"fmt"
)

// ErrCorrupt is the class of every decoding error of this package.
var ErrCorrupt = errors.New("record does not decode")

// DecodeError says which record does not decode, and why.
type DecodeError struct {
	What   string // the message: "RegionLocalState", "Entry"
	Reason string
	Err    error // cause, if a library found it
}

// Error gives the record, the reason and the cause in one line.
func (e *DecodeError) Error() string {
	s := e.What
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap lets errors.Is find ErrCorrupt and the cause.
func (e *DecodeError) Unwrap() []error {
	if e.Err == nil {
		return []error{ErrCorrupt}
	}
	return []error{ErrCorrupt, e.Err}
}

func corruptf(what, format string, args ...any) error {
	return &DecodeError{What: what, Reason: fmt.Sprintf(format, args...)}
}
