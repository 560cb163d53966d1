package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tikv-repair/tikv-repair/engine/base"
	"github.com/tikv-repair/tikv-repair/mvcc"
	"github.com/tikv-repair/tikv-repair/plan"
)

// View is what clients read from this store at one timestamp: the rules of TiKV's point reads, the locks decided by their
// transactions. Several Rows may be read from one View at the same time.
type View struct {
	T mvcc.TS
	// Raw is what kind of raw data the store holds, if any.
	Raw RawMode
	// Problems are what could not be decided from this store alone. Keys whose lock is undecided read as if it were not there.
	Problems []plan.Problem

	s     *Store
	spans []span
	// Put or Delete locks that committed at or before T, by user key; when there are too many to be held, Rows decides them again by by.
	commits []plan.LockDecision
	by      *plan.Decider
}

// maxCommits is how many committed locks a View holds.
const maxCommits = 4096

// NewView decides the locks of the store at t.
func (s *Store) NewView(t mvcc.TS) (*View, error) {
	v := &View{T: t, s: s, spans: s.liveSpans()}
	var err error
	if v.Raw, err = s.RawMode(); err != nil {
		return nil, err
	}
	if v.Raw == RawV1 || v.Raw == RawV1TTL {
		return v, nil
	}
	var by *plan.Decider
	v.Problems, err = s.decideLocks(func(d plan.LockDecision) error {
		if !readable(d) || v.by != nil {
			return nil
		}
		if len(v.commits) == maxCommits {
			v.commits, v.by = nil, by
			return nil
		}
		v.commits = append(v.commits, held(d))
		return nil
	}, func(ev plan.Evidence) *plan.Decider {
		by = plan.NewDecider(t, ev)
		return by
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// NewPlainView looks past the locks: a key reads as its newest write record at or before t says.
func (s *Store) NewPlainView(t mvcc.TS) (*View, error) {
	raw, err := s.RawMode()
	return &View{T: t, s: s, spans: s.liveSpans(), Raw: raw}, err
}

// Rows iterates the rows that a client reads, in the order of user keys. It holds at most one iterator per column family and
// is for one goroutine. A row that cannot be read does not end it: Value gives that row's error, Err only what ended the walk.
type Rows struct {
	v    *View
	ctx  context.Context
	segs []segment
	seg  int // current segment; len(segs) at the end
	fwd  bool

	write, def, pairs *cursor // pairs walks the default column family for raw data
	commits           []plan.LockDecision
	more              *lockWalk // gives the commits behind those; nil at the end

	prefix []byte // 'z' | enc(user key) of the current key
	target []byte // of a seek
	row    row
	err    error
	seen   uint64
	track  *track
}

// row is the current row. Slices alias iterators.
type row struct {
	user     []byte
	commit   mvcc.TS
	start    mvcc.TS
	value    []byte
	defaults bool // the value is in the default column family
	expire   uint64
	err      error
}

// NewRows opens the rows of [lower, upper) at t. Bounds are raw user keys (nil: open): a bound never cuts a key's versions
// apart, so that ranges can be read in parallel.
func (s *Store) NewRows(t mvcc.TS, lower, upper []byte) (*Rows, error) {
	v, err := s.NewView(t)
	if err != nil {
		return nil, err
	}
	return v.Rows(lower, upper)
}

// dbBound turns a raw user key into the first database key that belongs to it.
func (v *View) dbBound(user []byte) []byte {
	switch {
	case user == nil:
		return nil
	case v.Raw == RawV1 || v.Raw == RawV1TTL:
		return append([]byte{mvcc.DataPrefix}, user...)
	}
	return mvcc.LockKey(user)
}

// Rows opens the rows of [lower, upper), raw user keys, nil meaning open.
func (v *View) Rows(lower, upper []byte) (*Rows, error) {
	return v.rows(v.segments(v.dbBound(lower), v.dbBound(upper)))
}

// rows opens the rows of segments that ascend.
func (v *View) rows(segs []segment) (*Rows, error) {
	r := &Rows{v: v, ctx: context.Background(), segs: segs}
	if len(r.segs) == 0 {
		return r, nil
	}
	lo, hi := r.segs[0].lower, r.segs[len(r.segs)-1].upper
	var txn, raw bool
	for _, s := range r.segs {
		txn = txn || s.raw == RawNone
		raw = raw || s.raw != RawNone
	}
	var err error
	if txn {
		if r.write, err = v.s.cursor(CFWrite, lo, hi, nil); err != nil {
			return nil, err
		}
		if r.def, err = v.s.cursor(CFDefault, lo, hi, nil); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if raw {
		if r.pairs, err = v.s.cursor(CFDefault, lo, hi, nil); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	r.commits = v.commits
	if v.by != nil {
		if r.more, err = v.walkLocks(lo, hi); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	r.enter()
	return r, nil
}

// Watch makes Next end when ctx is cancelled, and reports the way through the files to m; both may be zero.
func (r *Rows) Watch(ctx context.Context, m *Meter) {
	if ctx != nil {
		r.ctx = ctx
	}
	if m != nil && len(r.segs) > 0 {
		cf := CFWrite
		if r.write == nil {
			cf = CFDefault
		}
		r.track = newTrack(r.v.s.DB.CF(cf), r.segs[0].lower, r.segs[len(r.segs)-1].upper, m)
	}
}

// enter goes to the start of the current segment.
func (r *Rows) enter() {
	r.fwd = false
	if r.seg >= len(r.segs) {
		return
	}
	s := r.segs[r.seg]
	if s.raw != RawNone {
		r.pairs.SeekGE(s.lower)
		return
	}
	r.write.SeekGE(s.lower)
	for r.committed() && bytes.Compare(mvcc.LockKey(r.commits[0].UserKey), s.lower) < 0 {
		r.commits = r.commits[1:]
	}
}

// Next goes to the next row; false at the end or when Err is set.
func (r *Rows) Next() bool {
	for r.err == nil && r.seg < len(r.segs) {
		r.seen++
		if r.seen%1024 == 1 {
			if r.err = interrupted(r.ctx); r.err != nil {
				return false
			}
			r.track.at(r.prefix)
		}
		s := r.segs[r.seg]
		var found, more bool
		switch s.raw {
		case RawNone:
			found, more = r.nextTxn(s)
		case RawV2:
			found, more = r.nextRawV2(s)
		default:
			found, more = r.nextRawV1(s)
		}
		if found && r.err == nil {
			return true
		}
		if !more {
			r.seg++
			r.enter()
		}
	}
	if r.err == nil {
		r.track.end()
	}
	return false
}

// nextTxn looks at one key of the write column family or of a committed lock.
func (r *Rows) nextTxn(s segment) (found, more bool) {
	inWrite := r.skipVersions(r.write, s)
	if !inWrite {
		if r.err = r.write.Err(); r.err != nil {
			return false, false
		}
	}
	var lock []byte
	if r.committed() {
		if lock = mvcc.LockKey(r.commits[0].UserKey); bytes.Compare(lock, s.upper) >= 0 {
			lock = nil
		}
	}
	var prefix []byte
	if inWrite {
		var ok bool
		if prefix, _, ok = mvcc.SplitKey(r.write.User()); !ok {
			key := bytes.Clone(r.write.User())
			if r.write.Next(); lock == nil || bytes.Compare(key, lock) < 0 {
				r.prefix, r.fwd = append(r.prefix[:0], key...), false
				r.row = row{user: key[1:], err: r.bad("read write record", CFWrite, key, "", fmt.Errorf("the key is not that of a transactional record"))}
				return true, true
			}
			return false, true
		}
	}
	switch {
	case prefix == nil && lock == nil:
		return false, false
	case prefix == nil || lock != nil && bytes.Compare(lock, prefix) < 0:
		r.prefix = append(r.prefix[:0], lock...)
		return r.fromLock(mvcc.Write{}, 0, false), true
	}
	onLock := lock != nil && bytes.Equal(lock, prefix)
	r.prefix, r.fwd = append(r.prefix[:0], prefix...), true
	w, commit, visible, err := mvcc.Visible(r.v.T, r.versions(s))
	if r.err == nil {
		r.err = r.write.Err()
	}
	if r.err != nil {
		return false, false
	}
	if err != nil {
		if onLock {
			r.commits = r.commits[1:]
		}
		r.row = row{err: r.bad("read write record", CFWrite, mvcc.AppendTS(bytes.Clone(r.prefix), commit), "", err)}
		return r.user(), true
	}
	if onLock {
		return r.fromLock(w, commit, visible), true
	}
	if !visible {
		return false, true
	}
	r.row = row{commit: commit, start: w.StartTS, value: w.ShortValue, defaults: w.NeedsDefault()}
	return r.user(), true
}

// fromLock gives the row of a committed lock, unless the key has a newer version already.
func (r *Rows) fromLock(w mvcc.Write, commit mvcc.TS, visible bool) bool {
	lw, lc, _ := r.commits[0].Visible()
	r.commits = r.commits[1:]
	if lc > commit {
		w, commit, visible = lw, lc, lw.Type == mvcc.WritePut
	}
	if !visible {
		return false
	}
	r.row = row{commit: commit, start: w.StartTS, value: w.ShortValue, defaults: w.NeedsDefault()}
	return r.user()
}

// user decodes the current key. It reports true: an undecodable key is a row with an error.
func (r *Rows) user() bool {
	u, err := mvcc.UserKey(r.prefix)
	if err != nil && r.row.err == nil {
		r.row.err = r.bad("read key", CFWrite, r.prefix, "", err)
	}
	r.row.user = u
	return true
}

// How many versions are stepped over before a seek is cheaper, which as a rule stays within a block.
const nearVersions = 1

// skipVersions leaves the key whose versions were read last, and reports whether the iterator stands inside the segment.
func (r *Rows) skipVersions(it *cursor, s segment) bool {
	ok := it.ok
	for n := 0; ok && r.fwd && sameKey(it.User(), r.prefix); n++ {
		if n < nearVersions {
			ok = it.Next()
		} else {
			// Timestamp 0 sorts last; the byte behind it makes this the successor of every version.
			r.target = append(mvcc.AppendTS(append(r.target[:0], r.prefix...), 0), 0)
			ok = it.SeekGE(r.target)
		}
	}
	r.fwd = false
	return ok && bytes.Compare(it.User(), s.upper) < 0
}

// sameKey tells whether a database key is a version of the key with this prefix.
func sameKey(key, prefix []byte) bool {
	return len(key) == len(prefix)+8 && bytes.HasPrefix(key, prefix)
}

// versions yields the records of the current key from T down, for mvcc.Visible. The iterator stays on the record given last.
func (r *Rows) versions(s segment) func() (mvcc.TS, []byte, bool) {
	first := true
	return func() (mvcc.TS, []byte, bool) {
		ok := r.stepTo(r.write, &first)
		if !ok {
			return 0, nil, false
		}
		_, ts, ok := mvcc.SplitKey(r.write.User())
		if !ok {
			return 0, nil, false
		}
		value, err := r.v.s.Value(CFWrite, r.write.Kind(), r.write.User(), r.write.Value())
		if err != nil {
			r.err = err
			return 0, nil, false
		}
		return ts, value, true
	}
}

// stepTo goes to the next version of the current key at or below T.
func (r *Rows) stepTo(it *cursor, first *bool) bool {
	ok := true
	if !*first {
		ok = it.Next()
	}
	*first = false
	for n := 0; ok && sameKey(it.User(), r.prefix); n++ {
		if _, ts, split := mvcc.SplitKey(it.User()); split && ts <= r.v.T {
			return true
		}
		if n < nearVersions {
			ok = it.Next()
		} else {
			r.target = mvcc.AppendTS(append(r.target[:0], r.prefix...), r.v.T)
			ok = it.SeekGE(r.target)
		}
	}
	return false
}

func (r *Rows) bad(op, cf string, key []byte, reason string, err error) error {
	next := "look at the key with: tikv-repair mvcc --db-key " + upperHex(key) + " " + r.v.s.Layout.Dir
	return &base.Error{Class: base.ErrCorrupt, Op: op, Path: r.v.s.Layout.KVDir, Offset: -1, CF: cf, Key: bytes.Clone(key), Reason: reason, Err: err, Next: next}
}

// UserKey is the raw user key of the row; with an error in Value it may be the database key without its first byte. Valid until
// the next call of Next.
func (r *Rows) UserKey() []byte { return r.row.user }

// CommitTS is when the row was committed; of API V2 raw data its timestamp; 0 for raw data without versions.
func (r *Rows) CommitTS() mvcc.TS { return r.row.commit }

// StartTS is the start of the row's transaction; 0 for raw data.
func (r *Rows) StartTS() mvcc.TS { return r.row.start }

// Expire is when a raw pair expires, in seconds since 1970; 0 is never.
func (r *Rows) Expire() uint64 { return r.row.expire }

// Value reads the row's value. It is valid until the next call of Next. An error of class base.ErrCorrupt says that this row
// cannot be read and what to look at; Next goes on behind it.
func (r *Rows) Value() ([]byte, error) {
	if r.row.err != nil || !r.row.defaults {
		return r.row.value, r.row.err
	}
	r.target = mvcc.AppendTS(append(r.target[:0], r.prefix...), r.row.start)
	key := r.target
	if !r.def.SeekGE(key) || !bytes.Equal(r.def.User(), key) {
		if err := r.def.Err(); err != nil {
			return nil, err
		}
		return nil, r.bad("read value", CFDefault, key, fmt.Sprintf("the value of the version committed at %s is missing", r.row.commit), nil)
	}
	v, err := r.v.s.Value(CFDefault, r.def.Kind(), r.def.User(), r.def.Value())
	if errors.Is(err, base.ErrCorrupt) && base.Next(err) == "" {
		err = r.bad("read value", CFDefault, key, "", err)
	}
	return v, err
}

// Err is what ended the walk before its end: class base.ErrInterrupted, base.ErrIO or base.ErrCorrupt.
func (r *Rows) Err() error { return r.err }

// Close gives the iterators back.
func (r *Rows) Close() error {
	var err error
	for _, it := range []*cursor{r.write, r.def, r.pairs} {
		if it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	if r.more != nil {
		err = errors.Join(err, r.more.close())
	}
	return err
}

func interrupted(ctx context.Context) error {
	if ctx == nil || ctx.Err() == nil {
		return nil
	}
	return &base.Error{Class: base.ErrInterrupted, Op: "interrupted", Offset: -1, Err: context.Cause(ctx)}
}
