package repair

import (
	"context"

	"github.com/tikv-repair/tikv-repair/engine/rocks/ikey"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/scan"
)

// quiet tells that the logical pass would find nothing to change, as far as that can be told without it: no file may hold anything above
// T, and the records of the logs are at or below T, without a fence above it. Whatever is unusual, damage included, is left to the pass.
func (w *Rewinder) quiet(ctx context.Context) bool {
	if w.o.SafePoint == nil || len(w.set) > 0 {
		return false
	}
	it := w.store.DB.CF(scan.CFWrite).Log().Iter()
	defer it.Close()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if _, ts, ok := mvcc.SplitKey(k.User); !ok || ts > w.o.T {
			return false
		}
		switch k.Kind {
		case ikey.KindPut:
			if p, err := mvcc.PeekWrite(it.Value()); err != nil || p.Fence > w.o.T {
				return false
			}
		case ikey.KindDelete, ikey.KindSingleDelete:
		default:
			return false
		}
		if n++; n&4095 == 0 && ctx.Err() != nil {
			return false
		}
	}
	return it.Err() == nil
}
