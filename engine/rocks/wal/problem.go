package wal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/tikv-repair/tikv-repair/engine/base"
)

// ProblemKind names what makes the WALs of a directory unfit to be written behind.
type ProblemKind uint8

const (
	// SSTAhead: a column family has SSTs with data from behind the damage, the others lost theirs. The engine does not open.
	SSTAhead ProblemKind = iota + 1
	// MissingWAL, ShortWAL: a WAL that the MANIFEST tracks is not there, or has less than was synced. The engine does not open.
	MissingWAL
	ShortWAL
	// MidCorruption: damage with data behind it.
	MidCorruption
	// TailCorruption: damage in the last record with nothing but zeros behind it. It may be a torn write.
	TailCorruption
	// DroppedWAL: records of a sound WAL are not replayed because an earlier WAL is damaged.
	DroppedWAL
	// SilentLoss: space that the engine skips without a word though records may have been there.
	SilentLoss
	// UnreadableBatch: a batch that does not decode although its checksum holds. 8.10 does not open.
	UnreadableBatch
	// RepeatedSequence: sequences that repeat or go backwards.
	RepeatedSequence
	// Unsupported: records that TiKV never writes. Nothing behind them was read.
	Unsupported
)

var problemNames = map[ProblemKind]string{
	SSTAhead: "sst-ahead", MissingWAL: "missing-wal", ShortWAL: "short-wal", MidCorruption: "wal-mid-corruption",
	TailCorruption: "wal-tail-corruption", DroppedWAL: "dropped-wal", SilentLoss: "wal-silent-loss",
	UnreadableBatch: "unreadable-batch", RepeatedSequence: "repeated-sequence", Unsupported: "unsupported-wal",
}

// String gives the name used in reports.
func (k ProblemKind) String() string {
	if s, ok := problemNames[k]; ok {
		return s
	}
	return fmt.Sprintf("problem-%d", uint8(k))
}

// Problem is one reason to refuse to write. As an error it is of class base.ErrCorrupt, or base.ErrUnsupported for
// Unsupported.
type Problem struct {
	Kind   ProblemKind
	Log    uint64 // WAL number
	Path   string // the WAL, or its directory when it is missing
	Offset int64  // -1 when it does not apply
	Reason string
	// CFs are the column families that are ahead, for SSTAhead.
	CFs []uint32
}

// Error gives kind, path, offset and reason.
func (p *Problem) Error() string {
	if p.Offset < 0 {
		return fmt.Sprintf("read %s: %s: %s", p.Path, p.Kind, p.Reason)
	}
	return fmt.Sprintf("read %s at offset %d: %s: %s", p.Path, p.Offset, p.Kind, p.Reason)
}

// Unwrap gives the class.
func (p *Problem) Unwrap() error {
	if p.Kind == Unsupported {
		return base.ErrUnsupported
	}
	return base.ErrCorrupt
}

func (p *replayer) problem(kind ProblemKind, log uint64, path string, off int64, format string, args ...any) *Problem {
	q := &Problem{Kind: kind, Log: log, Path: path, Offset: off, Reason: fmt.Sprintf(format, args...)}
	p.rep.Problems = append(p.rep.Problems, q)
	return q
}

// conclude sums up and sorts damage into what is normal and what is a problem.
func (p *replayer) conclude() {
	rep := p.rep
	rep.LastSequence = p.in.LastSequence
	if p.maxNext > 0 {
		rep.LastSequence = max(rep.LastSequence, p.maxNext-1)
	}
	rep.NextSequence = rep.LastSequence + 1
	if p.next != noSequence {
		rep.NextSequence = p.next
	}
	var dropped bool
	for i := len(rep.Logs) - 1; i >= 0; i-- {
		l := rep.Logs[i]
		rep.Batches += l.Batches
		rep.Emitted += l.Emitted
		if d := l.fatal(); d != nil {
			rep.TornTail = p.judge(l, d, dropped) || rep.TornTail
		} else if l.DroppedBatches > 0 {
			p.problem(DroppedWAL, l.Number, l.Path, 0, "%d batches with %d records are not replayed because an earlier WAL is damaged",
				l.DroppedBatches, l.DroppedRecords)
		}
		dropped = dropped || l.DroppedBatches > 0 || l.fatal() != nil
		for _, d := range l.Damage {
			switch {
			case d.Kind == SequenceRepeats:
				p.problem(RepeatedSequence, l.Number, l.Path, d.Offset, "%s", d.Reason)
			case d.Silent:
				p.problem(SilentLoss, l.Number, l.Path, d.Offset, "%s", d.Reason)
			}
		}
	}
	p.checkAhead()
	slices.SortStableFunc(rep.Problems, func(a, b *Problem) int {
		return cmp.Or(cmp.Compare(a.Log, b.Log), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Kind, b.Kind))
	})
}

// judge turns the damage that ended a WAL into a problem, or reports that it is the normal torn tail. dropped: a later WAL
// holds something that was not replayed, readable or not.
func (p *replayer) judge(l *LogReport, d *Damage, dropped bool) (tornTail bool) {
	kind := MidCorruption
	switch {
	case d.Kind == BadBatch:
		kind = UnreadableBatch
	case d.Torn() && (l.Cleared || !dropped):
		return !l.Cleared
	case d.AtTail && !dropped && !l.Cleared:
		kind = TailCorruption
	}
	p.problem(kind, l.Number, l.Path, d.Offset, "%s (%s); %d bytes and %d readable records from here on are not replayed",
		d.Reason, d.Kind, l.DroppedBytes, l.DroppedRecords)
	return false
}

// checkAhead is the consistency check at the end of RecoverLogFiles.
func (p *replayer) checkAhead() {
	if !p.stopped {
		return
	}
	var ahead []uint32
	for _, cf := range sortedKeys(p.in.MinLog) {
		if p.in.MinLog[cf] > p.corrupted.Number && (p.in.HasSST == nil || p.in.HasSST(cf)) {
			ahead = append(ahead, cf)
		}
	}
	if len(ahead) == 0 {
		return
	}
	l := p.corrupted
	q := p.problem(SSTAhead, l.Number, l.Path, l.fatal().Offset,
		"SST file is ahead of WALs: column families %d hold data from behind the damage in WAL %d", ahead, l.Number)
	q.CFs = ahead
}

func reasonOf(err error) string {
	var e *base.Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return err.Error()
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
