package wal

import (
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// DamageKind says what is wrong with the bytes of a log file.
type DamageKind uint8

const (
	// TornHeader, TornBody, TornFragment: the file ends inside a header, a body, or between the parts of a record. A killed
	// process leaves this behind.
	TornHeader DamageKind = iota + 1
	TornBody
	TornFragment
	// ChecksumMismatch: the stored CRC-32C does not fit.
	ChecksumMismatch
	// BadLength: a physical record runs past the end of its block.
	BadLength
	// UnknownType: a sound physical record of a type that no version knows.
	UnknownType
	// MissingStart: Middle or Last without First.
	MissingStart
	// UnfinishedFragment: Full or First while a record is still open.
	UnfinishedFragment
	// ZeroInFragment: zeros inside a fragmented record.
	ZeroInFragment
	// ZeroGap: zeros that are not the tail. Silent: RocksDB drops them and goes on.
	ZeroGap
	// OtherLog: a recyclable record with the number of another log. Silent: RocksDB takes it for the end of the file.
	OtherLog
	// ShortRecord: a record below the 12 bytes of a batch header.
	ShortRecord
	// BadBatch: a batch that does not decode although its checksum holds. 8.10 does not open such a directory in any mode.
	BadBatch
	// SequenceTooLarge: a sequence above 2^56-1.
	SequenceTooLarge
	// InvertedRange: a range deletion that ends before it begins. RocksDB inserts the batch up to it and stops.
	InvertedRange
	// SequenceRepeats: a batch that begins at or below the end of an earlier one of the replay.
	SequenceRepeats
)

var damageNames = map[DamageKind]string{
	TornHeader: "torn-header", TornBody: "torn-body", TornFragment: "torn-fragment", ChecksumMismatch: "checksum-mismatch",
	BadLength: "bad-length", UnknownType: "unknown-type", MissingStart: "missing-start", UnfinishedFragment: "unfinished-fragment",
	ZeroInFragment: "zero-in-fragment", ZeroGap: "zero-gap", OtherLog: "other-log", ShortRecord: "short-record",
	BadBatch: "bad-batch", InvertedRange: "inverted-range", SequenceTooLarge: "sequence-too-large", SequenceRepeats: "sequence-repeats",
}

// String gives the name used in reports.
func (k DamageKind) String() string {
	if s, ok := damageNames[k]; ok {
		return s
	}
	return fmt.Sprintf("damage-%d", uint8(k))
}

// Torn tells whether a process that was killed while it wrote leaves this behind.
func (k DamageKind) Torn() bool { return k == TornHeader || k == TornBody || k == TornFragment }

// Damage is one place of a log file that does not read. It is an error of class base.ErrCorrupt.
type Damage struct {
	Kind   DamageKind
	Path   string
	Offset int64 // file offset where the lost bytes begin
	Bytes  int64 // lost here, up to where reading can go on
	Reason string
	// Silent: RocksDB does not notice and goes on; records may be missing all the same.
	Silent bool
	// AtTail: nothing but zeros follows in the file, so it may be a torn write that the file system filled up. Set by
	// Replay, and always for torn kinds.
	AtTail bool
	// RecordsBehind: a sound record follows in the block, so that a TornBody is really a damaged length. RocksDB takes it
	// for a torn one.
	RecordsBehind bool

	restZero bool
}

// Torn tells whether this is what a process leaves behind that was killed while it wrote: nothing was there to be lost.
func (d *Damage) Torn() bool { return d.Kind.Torn() && !d.RecordsBehind }

// Error gives path, offset and reason.
func (d *Damage) Error() string { return base.Corruptf(d.Path, d.Offset, "%s", d.Reason).Error() }

// Unwrap gives the class.
func (d *Damage) Unwrap() error { return base.ErrCorrupt }
