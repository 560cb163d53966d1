package scan

import (
	"bytes"
	"context"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
)

// plain takes the rows that have neither a default row nor a lock, which almost all of them are in many stores: their write records have
// nothing to be joined with, so that whole batches are gone through without a step of any cursor. It ends where another kind of row begins,
// or behind a row with a record that needs a closer look: that one is done with rest.
//
// Why the limit is right: no encoded user key is a proper prefix of another, so that a write record below the row of the next default
// record, or below the next lock, belongs to a row before it.
func (w *shard) plain(ctx context.Context) error {
	limit := w.at.upper
	if w.d.ok {
		prefix, _, ok := mvcc.SplitKey(w.d.User())
		if !ok {
			return nil // a stray key, which may stand between the versions of a row
		}
		limit = least(limit, prefix)
	}
	if w.l.ok {
		limit = least(limit, w.l.User())
	}
	w.key = w.key[:0]
	for w.w.ok && bytes.Compare(w.w.User(), limit) < 0 {
		b, from, to := w.w.Stretch(limit)
		n, got := 0, plainRecord
		if b == nil {
			if got = w.plainRecord(w.w.User(), w.w.Seq()<<8|uint64(w.w.Kind()), w.w.Value()); got == plainRecord {
				n = 1
			}
		} else {
			for n = 0; from+n < to; n++ {
				if got = w.plainRecord(b.User(from+n), b.Trailer(from+n), b.Value(from+n)); got != plainRecord {
					break
				}
			}
		}
		if n > 0 {
			if err := w.step(ctx, n, w.w.User()); err != nil {
				return err
			}
			if b == nil {
				w.w.Next()
			} else {
				w.w.Skip(from + n)
			}
		}
		switch got {
		case oddKey:
			return nil
		case oddRecord:
			w.wants, w.owners, w.tainted = w.wants[:0], w.owners[:0], false
			return w.rest(ctx)
		}
	}
	return nil
}

// plainness is what plain makes of a write record.
type plainness int

const (
	plainRecord plainness = iota // in order, and it owns nothing
	oddRecord                    // it needs a closer look
	oddKey                       // its key is not that of a transactional record
)

// plainRecord looks at one physical write record: what write does with one that is in order and owns no default row.
func (w *shard) plainRecord(user []byte, trailer uint64, value []byte) plainness {
	n := len(user) - 8
	if n <= 0 || n != len(w.key) || !bytes.Equal(user[:n], w.key) {
		prefix, ts, ok := mvcc.SplitKey(user)
		if !ok {
			return oddKey
		}
		w.key = append(w.key[:0], prefix...)
		w.newest, w.over, w.latest = true, 0, ts
	} else {
		ts := mvcc.KeyTS(user)
		if ts == w.latest {
			return plainRecord // an older record of the same key is hidden
		}
		w.latest = ts
	}
	switch ikey.Kind(trailer) {
	case ikey.KindDelete, ikey.KindSingleDelete:
		return plainRecord
	case ikey.KindPut:
	default:
		return oddRecord
	}
	if w.w.Covered(user, trailer>>8) {
		return plainRecord
	}
	p, err := mvcc.PeekWrite(value)
	if err != nil || p.Type == mvcc.WriteRollback && p.StartTS != w.latest || p.StartTS > w.latest || p.NeedsDefault() {
		return oddRecord
	}
	if p.Type == mvcc.WritePut || p.Type == mvcc.WriteDelete {
		w.newest, w.over = false, w.latest
	}
	w.counts.Writes++
	return plainRecord
}
