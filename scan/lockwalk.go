package scan

import (
	"bytes"
	"errors"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/engine/rocks"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
)

// readable tells whether a read sees a version because of a decision.
func readable(d plan.LockDecision) bool {
	w, _, ok := d.Visible()
	return ok && (w.Type == mvcc.WritePut || w.Type == mvcc.WriteDelete)
}

// held copies what refers to an iterator's memory, as far as a read needs it.
func held(d plan.LockDecision) plan.LockDecision {
	d.Lock.Primary, d.Lock.ShortValue = bytes.Clone(d.Lock.Primary), bytes.Clone(d.Lock.ShortValue)
	d.Lock.Secondaries, d.Lock.Tail = nil, nil
	return d
}

// lockWalk decides the locks of a range once more while its rows are read: all that committed do not fit into memory.
type lockWalk struct {
	s  *Store
	d  *plan.Decider
	ev *Evidence
	it *rocks.Visible
	ok bool
}

// window is how many commits a walk looks ahead.
const window = 256

func (v *View) walkLocks(lower, upper []byte) (*lockWalk, error) {
	ev, err := v.s.Evidence()
	if err != nil {
		return nil, err
	}
	it, err := v.s.DB.CF(CFLock).NewVisible(lower, upper, nil)
	if err != nil {
		return nil, errors.Join(err, ev.Close())
	}
	return &lockWalk{s: v.s, d: v.by.With(ev), ev: ev, it: it, ok: it.First()}, nil
}

// next gives the next commits, none at the end.
func (w *lockWalk) next() (out []plan.LockDecision, err error) {
	for ; w.ok && len(out) < window; w.ok = w.it.Next() {
		if err := base.Stopped(w.s.FS); err != nil {
			return nil, err
		}
		l, err := w.s.parseLock(w.it.User(), w.it.Value())
		if err != nil {
			return nil, err
		}
		for _, one := range l.Locks {
			d, err := w.d.Decide(plan.LockAt{UserKey: l.User, Lock: one, Shared: l.Shared})
			if err != nil {
				return nil, err
			}
			if readable(d) {
				out = append(out, held(d))
			}
		}
	}
	return out, w.it.Err()
}

func (w *lockWalk) close() error { return errors.Join(w.it.Close(), w.ev.Close()) }

// committed tells whether a committed lock is left, and sees to it that the first one of those is in commits.
func (r *Rows) committed() bool {
	if len(r.commits) > 0 || r.more == nil {
		return len(r.commits) > 0
	}
	var err error
	if r.commits, err = r.more.next(); err != nil {
		r.err = err
	}
	if len(r.commits) == 0 {
		r.err = errors.Join(r.err, r.more.close())
		r.more = nil
	}
	return len(r.commits) > 0
}
