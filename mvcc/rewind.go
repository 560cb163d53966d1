package mvcc

// Action is what a rewind does to one write record.
type Action uint8

const (
	// Keep leaves the record as it is.
	Keep Action = iota
	// Drop removes it: its commit_ts is above T.
	Drop
	// ClearFence rewrites it with gc_fence 0: the version that the fence names is above T and goes.
	ClearFence
)

func (a Action) String() string {
	switch a {
	case Keep:
		return "keep"
	case Drop:
		return "drop"
	case ClearFence:
		return "clear-fence"
	}
	return "unknown action"
}

// Decision is the outcome of Rewind for one write record.
type Decision struct {
	Action     Action
	Type       byte   // of the record
	HasDefault bool   // with Drop: the default-CF row (same prefix, DefaultTS) goes too
	DefaultTS  TS     // start_ts of the record
	Value      []byte // with ClearFence: the new value, freshly allocated
}

// Rewind decides one record of the write CF for a rewind to t.
//
// Invariants (commit_ts > T ⇔ Drop; otherwise the record reads at every ts ≥ T as it read at T before):
//   - a Put above T without a short value takes its default row along. The row is named by start_ts, which can be ≤ T;
//   - a record ≤ T whose gc_fence is above T would become invisible to every later reader, because the Put or Delete at the
//     fence is dropped. Its fence becomes 0, in place, so that every other byte stays. For which type does not matter: TiKV
//     checks the fence of a Lock or Rollback record as well;
//   - a fence ≤ T says the same before and after.
//
// The fence rule needs GC safe point ≤ T: with a higher one the version at the fence may have been collected already, and
// then the record must not come back.
func Rewind(t TS, commitTS TS, value []byte) (Decision, error) {
	p, err := PeekWrite(value)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Type: p.Type, DefaultTS: p.StartTS}
	switch {
	case commitTS > t:
		d.Action = Drop
		d.HasDefault = p.NeedsDefault()
	case p.Fence > t:
		d.Action = ClearFence
		d.Value = append([]byte(nil), value...)
		clear(d.Value[p.FenceAt : p.FenceAt+8])
	}
	return d, nil
}

// Visible finds what a read at t sees of one key. next gives the key's write records newest first and ok=false at the end;
// it is called no further than needed. Records above t are passed over, so it may start anywhere at or above t.
//
// The result is the newest Put or Delete at or below t and its commit_ts. visible is true only for a Put that may be read:
// it is false for a Delete, for a key without such a record (then Write.Type is 0), and when gc_fence hides the record.
// As in TiKV a fence in (0, t] ends the search at whatever type of record carries it.
// Source: tikv src/storage/mvcc/reader/point_getter.rs (load_data), components/txn_types/src/write.rs
// (check_gc_fence_as_latest_version), master.
func Visible(t TS, next func() (commitTS TS, value []byte, ok bool)) (w Write, commitTS TS, visible bool, err error) {
	for {
		ts, value, ok := next()
		if !ok {
			return Write{}, 0, false, nil
		}
		if ts > t {
			continue
		}
		w, err := ParseWrite(value)
		if err != nil {
			return Write{}, ts, false, err
		}
		if w.GCFence != 0 && w.GCFence <= t {
			return w, ts, false, nil
		}
		switch w.Type {
		case WritePut:
			return w, ts, true, nil
		case WriteDelete:
			return w, ts, false, nil
		}
	}
}
